"""The samples of a call as the estimation of hidden factors takes them: design, trend, dispersion ratios and contrasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbcompare._nb.data import Trend
from nbcompare._nb.hidden.dataset import HiddenData
from nbcompare._nb.hidden.directions import group_design
from nbcompare.tl._samples.groups import Design

FEW_GENES = 500
DEEP = 2.0  # counts a sample


@dataclass(frozen=True)
class ContrastOfSamples:
    """A comparison as weights of the columns of a design."""

    name: str
    weights: np.ndarray  # (p,)
    pair: tuple[int, int] | None  # reference (-1: all others) and treated group, where the design is groups


def data_of(
    counts: np.ndarray,
    exposures: np.ndarray,
    design: np.ndarray,
    trend: Mapping[str, Any],
    ratio: np.ndarray,
    group: np.ndarray | None,
) -> HiddenData:
    """The data of a call: counts (n_genes, n_samples) and the trend as it is stored."""
    known = (
        Trend(trend["mean"], trend["dispersion"], trend["log_dispersion_var"], trend["n_genes"])
        if trend
        else Trend(np.ones(1), np.ones(1), 1.0, 0)
    )
    return HiddenData(np.ascontiguousarray(counts), exposures, design, known, ratio, group)


def data_of_groups(trend: Mapping[str, Any], design: Design) -> HiddenData:
    """Samples with the dispersion ratios of their groups, as far as a comparison names them."""
    pseudobulk = design.pseudobulk
    ratio = np.ones(len(pseudobulk.group))
    for (reference, treated), (of_reference, of_treated) in zip(
        design.pairs, trend.get("dispersion_ratio", []), strict=False
    ):
        if reference >= 0:
            ratio[pseudobulk.group == reference] = of_reference
        ratio[pseudobulk.group == treated] = of_treated
    matrix = group_design(pseudobulk.group, pseudobulk.block)
    group = pseudobulk.group if pseudobulk.block is None else None
    return data_of(pseudobulk.counts, pseudobulk.exposures, matrix, trend, ratio, group)
