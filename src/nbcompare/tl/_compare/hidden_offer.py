"""When hidden factors are offered: samples share a direction, and no other advice is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbcompare._messages import warn
from nbcompare._nb.hidden.compare import largest_number
from nbcompare._nb.hidden.offer import shared_variation
from nbcompare.tl._compare.hidden_data import DEEP, FEW_GENES, data_of_groups
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._samples.groups import Design

OFFERED = 1.6  # shared variation; at most 1.15 in simulations of independent genes
MOST_SAMPLES = 300  # for which it is measured


def shared_variation_of(trend: Mapping[str, Any], design: Design, options: CompareOptions) -> float:
    """How far samples share directions, for `offer_hidden_factors`; one where hidden factors would not be possible or other advice is better."""
    possible = options.test.hidden_factors is None and not options.posterior.is_posterior
    possible = possible and options.test.test == "moderated" and not options.test.lfc_threshold and bool(trend)
    table = design.samples.table
    paired = "block" not in table and (table.groupby("replicate")["condition"].nunique() > 1).any()
    if not possible or paired or options.test.dispersion == "pair" or len(table) > MOST_SAMPLES:
        return 1.0
    data = data_of_groups(trend, design)
    deep = np.flatnonzero(data.counts.mean(axis=1) >= DEEP)
    if len(deep) < FEW_GENES or largest_number(*data.design.shape) == 0:
        return 1.0
    return shared_variation(data.genes(deep))


def offer_hidden_factors(variation: float) -> None:
    """One warning where samples share directions."""
    if variation > OFFERED:
        warn(
            f"Replicates of a group differ along a common direction: its variance is {variation:.1f} times that expected of independent genes. "
            "If no column of .obs explains it (batch, sex, cell state), hidden_factors='auto' adjusts for such directions, which usually "
            "increases power."
        )
