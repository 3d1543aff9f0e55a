"""Confidence intervals of two groups within blocks: the nulls that the r* of Mantel and Haenszel's pseudo-counts does not reject at 5 %.

The pseudo-counts depend on the null hypothesis, since the weights of the blocks do; dispersions and degrees of freedom do not.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.numerics.interval_search import NORMAL, ONE_SIDED, SIZE, X, advance, begin, t_critical
from nbcompare._nb.stratified.compare import MatchedDesign
from nbcompare._nb.stratified.kernels import moderate_within_blocks
from nbcompare._nb.stratified.mantel_haenszel import block_sums, compare_within_blocks


def matched_intervals(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, dispersion_ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the log fold changes of `matched_tests`, (n_genes,) each; NaN where nothing can be compared."""
    out = np.full((2, len(pseudobulk.counts)), np.nan)
    _matched_intervals(design.data(pseudobulk, trend, dispersion_ratio), design.constants, design.scratch(), out)
    return out[0], out[1]


@njit(cache=True, nogil=True, error_model="numpy")
def _matched_intervals(data, constants, scratch, out):
    state = np.empty(SIZE)
    for g in range(data.counts.shape[0]):
        phi, df, _, efficiency = moderate_within_blocks(data, g, -1, constants, scratch)
        if efficiency > 0.0:
            out[0, g], out[1, g] = cells_interval(scratch.cells, phi, df, state)


@njit(cache=True, nogil=True, error_model="numpy")
def cells_interval(cells, phi, df, state):
    """Bounds of what `compare_within_blocks` tests; `state` is memory for the search."""
    above, below, _, _, _, _, _ = block_sums(cells, phi, 1.0)
    centre, se, _, _ = compare_within_blocks(cells, phi, 1.0)
    if not se < math.inf:
        return math.nan, math.nan
    critical = t_critical(df, NORMAL if min(above, below) > 0.0 else ONE_SIDED)
    lower = -math.inf
    upper = math.inf
    if above > 0.0:
        begin(state, centre, centre - critical * se, critical)
        while not advance(state, compare_within_blocks(cells, phi, math.exp(state[X]))[2]):
            pass
        lower = state[X]
    if below > 0.0:
        begin(state, centre, centre + critical * se, -critical)
        while not advance(state, compare_within_blocks(cells, phi, math.exp(state[X]))[2]):
            pass
        upper = state[X]
    return lower, upper
