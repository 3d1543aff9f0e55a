"""Confidence intervals of log fold changes by inversion of the test: the nulls that the moderated r* does not reject at 5 %.

Under the null hypothesis that the log fold change is x the second pseudo-exposure is exp(x) times as large (see `threshold`), and the interval
of two pseudo-counts is

    {x: |r*(y_1, y_2, E_1, E_2 exp(x), delta_1, delta_2)| <= t},       t the 97.5 % quantile of Student's t on the test's degrees of freedom.

It holds zero where the two-sided p-value from all replicates is at least 0.05, and not otherwise. A group without counts gives one bound: the
other is infinite, and t is the 95 % quantile, as belongs to a p-value that is halved.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.numerics.interval_search import NORMAL, ONE_SIDED, SIZE, X, advance, begin, t_critical
from nbcompare._nb.two_group.gene_test import (
    SMALLEST_EFFICIENCY,
    ComparisonData,
    comparison_of,
    counts_of_groups,
    moderated_groups,
    prior_of_gene,
)
from nbcompare._nb.two_group.rstar import modified_root


def genes_intervals(setting: ComparisonData) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the log fold changes of `compare_genes`, (n_genes, n_comparisons) each; NaN without counts."""
    lower, upper = (np.full((len(setting.counts), len(setting.ranges)), np.nan) for _ in range(2))
    _genes_intervals(setting, lower, upper)
    return lower, upper


def wald_intervals(log_fc: np.ndarray, se: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate less and plus so many standard errors as Student's t on `degrees` has it, (n_genes, n_comparisons) each."""
    half = critical_values(degrees)[:, None] * se
    return log_fc - half, log_fc + half


def critical_values(degrees: np.ndarray) -> np.ndarray:
    """The t whose p-value is 0.05, (n,), by the same approximation as the p-values."""
    out = np.empty(len(degrees))
    _critical_values(degrees, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _critical_values(degrees, out):
    for k in range(degrees.shape[0]):
        out[k] = t_critical(degrees[k], NORMAL) if degrees[k] >= 1.0 else math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _genes_intervals(data, lower, upper):
    need_all = not data.own.all()
    state = np.empty(SIZE)
    for g in range(data.counts.shape[0]):
        if data.mean[g] <= 0.0:
            continue
        y = data.counts[g]
        l = data.exposure[g if data.exposure.shape[0] > 1 else 0]
        known = prior_of_gene(y, l, data, g, need_all)
        for c in range(data.ranges.shape[0]):
            T1, rate1, E1, delta1, T2, rate2, E2, delta2, _, df = moderated_groups(
                y, l, comparison_of(data, g, c), -1, known
            )
            if T1 + T2 > 0.0:
                efficiency = max(data.efficiency[g, c], SMALLEST_EFFICIENCY)
                lower[g, c], upper[g, c] = groups_interval(
                    T1, rate1, E1, delta1, T2, rate2, E2, delta2, df, efficiency, state
                )


@njit(cache=True, nogil=True, error_model="numpy")
def groups_interval(T1, rate1, E1, delta1, T2, rate2, E2, delta2, df, efficiency, state):
    """Bounds of what `contrast.compare_two_groups` tests; `state` is memory for the search."""
    y1, E1, delta1, y2, E2, delta2, empty = counts_of_groups(T1, rate1, E1, delta1, T2, rate2, E2, delta2, efficiency)
    return counts_interval(y1, E1, delta1, y2, E2, delta2, df, empty, state)


@njit(cache=True, nogil=True, error_model="numpy")
def counts_interval(y1, E1, delta1, y2, E2, delta2, df, empty, state):
    """Bounds of the log ratio of two pseudo-counts' rates. `empty` is -1 or 1 where the second or the first has no counts, else 0."""
    centre = math.log((y2 / E2) / (y1 / E1))
    se = math.sqrt(1.0 / y1 + delta1 + 1.0 / y2 + delta2)
    critical = t_critical(df, NORMAL if empty == 0.0 else ONE_SIDED)
    lower = -math.inf
    upper = math.inf
    if empty >= 0.0:
        begin(state, centre, centre - critical * se, critical)
        while not advance(state, modified_root(y1, y2, E1, E2 * math.exp(state[X]), delta1, delta2)):
            pass
        lower = state[X]
    if empty <= 0.0:
        begin(state, centre, centre + critical * se, -critical)
        while not advance(state, modified_root(y1, y2, E1, E2 * math.exp(state[X]), delta1, delta2)):
            pass
        upper = state[X]
    return lower, upper
