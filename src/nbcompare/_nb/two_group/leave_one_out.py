"""The leave-one-replicate-out rule: a difference that one replicate makes is reported with the p-value without it."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.two_group.gene_test import Setting, contrast, group_statistic, prior

CUT = 0.02  # p-values below this are checked
LARGEST_ARM = 20  # replicates of larger arms are not left out
UNBALANCED = 2  # from so many times the replicates in one group on the rule differs
FLOOR = 0.2  # smaller p-values without one replicate never replace p


def leave_one_out(
    setting: Setting, p_value: np.ndarray, statistic: np.ndarray, dispersion: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P-values and statistics by the rule, and where it replaced them.

    Where p < .02 and each arm has three replicates, the test is repeated without each replicate of the arms of at most 20 (trend and
    block effects stay); a change of sign counts as p = 1. The largest p-value replaces p where it exceeds max(sqrt(p), .2). Where one arm
    has twice the replicates of the other or more, sqrt(p) alone is the bound, and only the replicates of an arm that scatters more than its
    dispersion lets expect are left out: within-arm scatter says nothing of the difference, so nulls keep their level.
    """
    sizes = np.stack([setting.arms[:, 1] - setting.arms[:, 0], setting.arms[:, 3] - setting.arms[:, 2]], axis=1)
    checked = can_leave_out(sizes.min(axis=1), sizes.max(axis=1)) & np.isfinite(setting.lost_without)
    genes, comparisons = np.nonzero((p_value < CUT) & checked)
    guarded, replaced = p_value.copy(), np.zeros(p_value.shape, bool)
    if len(genes) == 0:
        return guarded, statistic, replaced
    worst, worst_statistic = np.empty(len(genes)), np.empty(len(genes))
    unbalanced = is_unbalanced(sizes.min(axis=1), sizes.max(axis=1))
    _leave_one_out(
        genes,
        comparisons,
        setting.counts,
        setting.exposure,
        setting.kept,
        setting.members,
        setting.starts,
        setting.group,
        setting.arm_members,
        setting.arms,
        setting.mean,
        setting.trend,
        setting.scatter,
        setting.error,
        setting.lost,
        setting.lost_without,
        setting.noise,
        setting.own,
        setting.lends,
        setting.two_groups,
        unbalanced,
        dispersion,
        p_value,
        statistic,
        worst,
        worst_statistic,
    )
    floor = np.where(unbalanced, 0.0, FLOOR)[comparisons]
    flagged = worst > np.maximum(np.sqrt(p_value[genes, comparisons]), floor)
    where = genes[flagged], comparisons[flagged]
    replaced[where] = True
    guarded[where] = worst[flagged]
    statistic = statistic.copy()
    statistic[where] = worst_statistic[flagged]
    return guarded, statistic, replaced


def can_leave_out(smaller: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """Whether the rule applies to groups of so many replicates: three or more, two where the other group has twice as many."""
    return (smaller >= np.where(is_unbalanced(smaller, larger), 2, 3)) & (smaller <= LARGEST_ARM)


def is_unbalanced(smaller: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """Whether one group has twice the replicates of the other or more."""
    return larger >= UNBALANCED * smaller


@njit(cache=True, nogil=True, error_model="numpy")
def _leave_one_out(
    genes,
    comparisons,
    counts,
    exposure,
    kept,
    members,
    starts,
    group,
    arm_members,
    arms,
    mean,
    trend,
    scatter,
    error,
    lost,
    lost_without,
    noise,
    own,
    lends,
    two_groups,
    unbalanced,
    dispersion,
    p_value,
    statistic,
    worst,
    worst_statistic,
):
    n_samples = counts.shape[1]
    n_groups = starts.shape[0] - 1
    statistics = np.zeros((n_groups, 2))
    for t in range(genes.shape[0]):
        g = genes[t]
        c = comparisons[t]
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        whole = statistic[g, c]
        worst[t] = p_value[g, c]
        worst_statistic[t] = whole
        prior_phi, prior_df = prior(mean[g], trend[g], scatter, error)
        numerator = 0.0
        all_weight = 0.0
        if not own[c]:
            for k in range(n_groups):
                if not lends[k]:
                    continue
                a, b = group_statistic(y, l, members, starts[k], starts[k + 1], -1, prior_phi)
                statistics[k, 0] = a
                statistics[k, 1] = b
                numerator += a
                all_weight += b
        for side in range(2):
            start = arms[c, 2 * side]
            stop = arms[c, 2 * side + 1]
            if stop - start > LARGEST_ARM:
                continue
            if unbalanced[c]:
                phi = dispersion[g, c] / noise[group[arm_members[arms[c, 2]]]]
                if not any_scatters(y, l, arm_members, start, stop, group, noise, phi):
                    continue
            for j in range(start, stop):
                skip = arm_members[j]
                mean_left = mean[g]
                if two_groups:
                    mean_left += (mean[g] - y[skip]) / (n_samples - 1)
                    if mean_left <= 0.0:
                        worst[t] = 1.0
                        worst_statistic[t] = 0.0
                        continue
                if own[c]:
                    phi, df = prior(mean_left, trend[g], scatter, error)
                    left, left_weight, ratio = 0.0, 0.0, lost_without
                else:
                    phi, df = prior_phi, prior_df
                    k = group[skip]
                    left, left_weight, ratio = numerator, all_weight, lost
                    if lends[k]:
                        a, b = group_statistic(y, l, members, starts[k], starts[k + 1], skip, prior_phi)
                        left += a - statistics[k, 0]
                        left_weight += b - statistics[k, 1]
                _, _, z, p, _ = contrast(
                    y,
                    l,
                    arm_members,
                    arms[c],
                    skip,
                    mean_left,
                    phi,
                    df,
                    left,
                    left_weight,
                    own[c],
                    ratio,
                    group,
                    noise,
                    kept[g, c],
                    two_groups,
                    1.0,
                )
                if not p < 1.0 or z * whole <= 0.0:
                    p, z = 1.0, 0.0
                if p > worst[t]:
                    worst[t] = p
                    worst_statistic[t] = z


@njit(cache=True, nogil=True, error_model="numpy")
def any_scatters(y, l, members, start, stop, group, noise, phi):
    """`scatters` of any of the groups whose samples lie side by side, each at its own dispersion."""
    first = start
    while first < stop:
        k = group[members[first]]
        last = first + 1
        while last < stop and group[members[last]] == k:
            last += 1
        if scatters(y, l, members, first, last, noise[k] * phi):
            return True
        first = last
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def scatters(y, l, members, start, stop, phi):
    """Whether an arm's replicates scatter more than its dispersion lets expect: statistic beyond two standard deviations."""
    statistic, weight = group_statistic(y, l, members, start, stop, -1, phi)
    return weight > 0.0 and statistic > weight + 2.0 * math.sqrt(2.0 * weight)
