"""Is one of two groups within blocks more dispersed than the other? Its ratio, from residuals that the other group does not share."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.high_dispersion_groups import (
    GENES_OF_A_RATIO,
    INFORMED,
    MIN_RATIO_OF_TWO,
    ratio_to_trend,
    robust_ratio,
    trend_of_groups,
)
from nbcompare._nb.dispersion.trend import evenly_by_total
from nbcompare._nb.stratified.design import MatchedDesign
from nbcompare._nb.stratified.pearson import group_statistics


def matched_ratios(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, usable: np.ndarray
) -> tuple[np.ndarray, Trend]:
    """Dispersion ratios (2,) of the groups in the order of the design, and the trend that they go with.

    The trend of the larger group alone, from its samples that share a block, is compared with the residuals of both groups; the smaller group
    has the ratio of its dispersions to the larger one's, at least 1. Of groups of one size neither is more dispersed: the difference has the
    mean of their dispersions. Where no two samples of the larger group share a block, each residual is that of a difference between the groups
    and belongs to both: then the ratio cannot be estimated, and is not needed, for it is these differences that are tested.
    """
    ratios = np.ones(2)
    small, large = np.argsort(design.sizes, kind="stable")
    second, block = design.codes()
    chosen = np.flatnonzero(second == large)
    cells = np.unique(block[chosen], return_inverse=True)[1]
    if design.sizes[small] == design.sizes[large] or cells.max() + 1 == len(chosen) or design.residual < 2:
        return ratios, trend
    alone = Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[:, chosen]),
        pseudobulk.exposure[chosen],
        cells,
        None if pseudobulk.of_gene is None else np.ascontiguousarray(pseudobulk.of_gene[:, chosen]),
    )
    every = np.ones(alone.n_groups, bool)
    own_trend = trend_of_groups(alone, alone.exposures, every, 1.0, usable)
    of_large = ratio_to_trend(alone, alone.exposures, own_trend, 1.0, every, usable)
    of_small = _ratio_of_residuals(pseudobulk, design, own_trend, int(small), of_large, usable)
    ratios[small] = max(1.0, of_small / of_large)
    return ratios, own_trend if ratios[small] >= MIN_RATIO_OF_TWO else trend


def _ratio_of_residuals(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, group: int, of_other: float, usable: np.ndarray
) -> float:
    """The ratio to the trend of one group's dispersions, the other group's being `of_other`."""
    total = pseudobulk.counts.sum(axis=1)
    genes = evenly_by_total(np.flatnonzero(usable & (total > 0)), total, GENES_OF_A_RATIO)
    if not len(genes):
        return of_other
    counts = np.ascontiguousarray(pseudobulk.counts[genes])
    exposure = pseudobulk.exposures if pseudobulk.of_gene is None else np.ascontiguousarray(pseudobulk.of_gene[genes])
    expected = trend.at(total[genes] / counts.shape[1])
    out = np.empty((len(genes), 3))

    def statistics(ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dispersion_ratio = np.full(2, of_other)
        dispersion_ratio[group] = ratio
        group_statistics(counts, exposure, design, expected, dispersion_ratio, group, out)
        return out[:, 0], out[:, 1], np.clip(expected * out[:, 2], 0, 1)

    if statistics(of_other)[1].sum() < INFORMED:
        return of_other
    return robust_ratio(statistics, trend.log_dispersion_var)
