"""The leave-one-replicate-out rule: a difference that one replicate makes is reported with the p-value without it."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.two_group.gene_test import (
    ComparisonData,
    GenePrior,
    compare_gene,
    comparison_of,
    group_statistic,
    prior,
)

CUT = 0.02  # p-values below this are checked
LARGEST_GROUP = 20  # replicates of larger groups are not left out
UNBALANCED = 2  # from so many times the replicates in one group on the rule differs
FLOOR = 0.2  # smaller p-values without one replicate never replace p


def leave_one_out(
    setting: ComparisonData, p_value: np.ndarray, statistic: np.ndarray, dispersion: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P-values and statistics by the rule, and where it replaced them.

    Where p < .02 and each group has three replicates, the test is repeated without each replicate of the groups of at most 20 (trend and
    block effects stay); a change of sign counts as p = 1. The largest p-value replaces p where it exceeds max(sqrt(p), .2). Where one group
    has twice the replicates of the other or more, sqrt(p) alone is the bound, and only the replicates of a group that varies more than its
    dispersion lets expect are left out: variation within a group holds no information on the difference, so nulls keep their level.
    """
    sizes = np.stack([setting.ranges[:, 1] - setting.ranges[:, 0], setting.ranges[:, 3] - setting.ranges[:, 2]], axis=1)
    checked = can_leave_out(sizes.min(axis=1), sizes.max(axis=1)) & np.isfinite(setting.df_ratio_loo)
    genes, comparisons = np.nonzero((p_value < CUT) & checked)
    guarded, replaced = p_value.copy(), np.zeros(p_value.shape, bool)
    if len(genes) == 0:
        return guarded, statistic, replaced
    worst, worst_statistic = np.empty(len(genes)), np.empty(len(genes))
    unbalanced = is_unbalanced(sizes.min(axis=1), sizes.max(axis=1))
    _leave_one_out(genes, comparisons, setting, unbalanced, (dispersion, p_value, statistic), worst, worst_statistic)
    floor = np.where(unbalanced, 0.0, FLOOR)[comparisons]
    flagged = worst > np.maximum(np.sqrt(p_value[genes, comparisons]), floor)
    where = genes[flagged], comparisons[flagged]
    replaced[where] = True
    guarded[where] = worst[flagged]
    statistic = statistic.copy()
    statistic[where] = worst_statistic[flagged]
    return guarded, statistic, replaced


def can_leave_out(smaller: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """Whether the rule applies to groups of this many replicates: three or more, two where the other group has twice as many."""
    return (smaller >= np.where(is_unbalanced(smaller, larger), 2, 3)) & (smaller <= LARGEST_GROUP)


def is_unbalanced(smaller: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """Whether one group has twice the replicates of the other or more."""
    return larger >= UNBALANCED * smaller


@njit(cache=True, nogil=True, error_model="numpy")
def _leave_one_out(genes, comparisons, data, unbalanced, tested, worst, worst_statistic):
    """The largest p-value of each of these tests without one replicate, and its statistic; `tested` are dispersion, p-value and statistic of all."""
    dispersion, p_value, statistic = tested
    n_samples = data.counts.shape[1]
    n_groups = data.starts.shape[0] - 1
    statistics = np.zeros((n_groups, 2))
    for t in range(genes.shape[0]):
        g = genes[t]
        c = comparisons[t]
        y = data.counts[g]
        l = data.exposure[g if data.exposure.shape[0] > 1 else 0]
        comparison = comparison_of(data, g, c)
        whole = statistic[g, c]
        worst[t] = p_value[g, c]
        worst_statistic[t] = whole
        prior_phi, prior_df = prior(data.mean[g], data.trend[g], data.log_dispersion_var, data.error)
        numerator = 0.0
        all_weight = 0.0
        if not data.own[c]:
            for k in range(n_groups):
                if not data.in_fit[k]:
                    continue
                a, b = group_statistic(y, l, data.members, data.starts[k], data.starts[k + 1], -1, prior_phi)
                statistics[k, 0] = a
                statistics[k, 1] = b
                numerator += a
                all_weight += b
        for side in range(2):
            start = data.ranges[c, 2 * side]
            stop = data.ranges[c, 2 * side + 1]
            if stop - start > LARGEST_GROUP:
                continue
            if unbalanced[c]:
                phi = dispersion[g, c] / data.dispersion_ratio[data.group[data.sample_order[data.ranges[c, 2]]]]
                if not any_group_varies(y, l, data, start, stop, phi):
                    continue
            for j in range(start, stop):
                skip = data.sample_order[j]
                mean_left = data.mean[g]
                if data.two_groups:
                    mean_left += (data.mean[g] - y[skip]) / (n_samples - 1)
                    if mean_left <= 0.0:
                        worst[t] = 1.0
                        worst_statistic[t] = 0.0
                        continue
                if data.own[c]:
                    phi, df = prior(mean_left, data.trend[g], data.log_dispersion_var, data.error)
                    known = GenePrior(mean_left, phi, df, 0.0, 0.0, data.df_ratio_loo)
                else:
                    k = data.group[skip]
                    left, left_weight = numerator, all_weight
                    if data.in_fit[k]:
                        a, b = group_statistic(y, l, data.members, data.starts[k], data.starts[k + 1], skip, prior_phi)
                        left += a - statistics[k, 0]
                        left_weight += b - statistics[k, 1]
                    known = GenePrior(mean_left, prior_phi, prior_df, left, left_weight, data.df_ratio)
                _, _, z, p, _ = compare_gene(y, l, comparison, skip, known, 1.0)
                if not p < 1.0 or z * whole <= 0.0:
                    p, z = 1.0, 0.0
                if p > worst[t]:
                    worst[t] = p
                    worst_statistic[t] = z


@njit(cache=True, nogil=True, error_model="numpy")
def any_group_varies(y, l, data, start, stop, phi):
    """`varies_too_much` of any of the groups whose samples lie side by side, each at its own dispersion."""
    members = data.sample_order
    first = start
    while first < stop:
        k = data.group[members[first]]
        last = first + 1
        while last < stop and data.group[members[last]] == k:
            last += 1
        if varies_too_much(y, l, members, first, last, data.dispersion_ratio[k] * phi):
            return True
        first = last
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def varies_too_much(y, l, members, start, stop, phi):
    """Whether a group's replicates vary more than its dispersion lets expect: statistic beyond two standard deviations."""
    statistic, weight = group_statistic(y, l, members, start, stop, -1, phi)
    return weight > 0.0 and statistic > weight + 2.0 * math.sqrt(2.0 * weight)
