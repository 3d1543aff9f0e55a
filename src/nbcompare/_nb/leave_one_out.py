"""The leave-one-replicate-out rule: a difference that one replicate makes is reported with the p-value without it."""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.blocks import residual_degrees
from nbcompare._nb.contrast import contrast, group_statistic, prior
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion import sorted_members

CUT = 0.02  # p-values below this are checked
LARGEST_ARM = 20  # replicates of larger arms are not left out
UNBALANCED = 5


def leave_one_out(
    pseudobulk: Pseudobulk,
    exposure: np.ndarray,
    kept: np.ndarray,
    arm_members: np.ndarray,
    arms: np.ndarray,
    trend: np.ndarray,
    scatter: float,
    noise: np.ndarray,
    own: np.ndarray,
    lends: np.ndarray,
    p_value: np.ndarray,
    statistic: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P-values and statistics by the rule, and where it replaced them.

    Where p < .02 and each arm has three replicates, the test is repeated without each replicate of the arms of at most 20 (trend and
    block effects stay); a change of sign counts as p = 1. The largest p-value replaces p where it exceeds max(sqrt(p), a): a = 0 where one
    arm has five times the replicates of the other, else .2.
    """
    sizes = np.stack([arms[:, 1] - arms[:, 0], arms[:, 3] - arms[:, 2]], axis=1)
    residual = residual_degrees(pseudobulk)
    n_free = len(pseudobulk.group) - pseudobulk.n_groups
    can = (sizes.min(axis=1) >= 3) & (sizes <= LARGEST_ARM).any(axis=1) & (residual > 1)
    guarded, replaced = p_value.copy(), np.zeros(p_value.shape, bool)
    genes, comparisons = np.nonzero((p_value < CUT) & can)
    if len(genes) == 0:
        return guarded, statistic, replaced
    members, starts = sorted_members(pseudobulk.group)
    worst, worst_statistic = np.empty(len(genes)), np.empty(len(genes))
    _leave_one_out(
        genes,
        comparisons,
        pseudobulk.counts,
        exposure,
        kept,
        members,
        starts,
        pseudobulk.group,
        arm_members,
        arms,
        trend,
        scatter,
        n_free / max(residual, 1),
        (n_free - 1) / max(residual - 1, 1),
        noise,
        own,
        lends,
        p_value,
        statistic,
        worst,
        worst_statistic,
    )
    p = p_value[genes, comparisons]
    floor = np.where(sizes.max(axis=1) >= UNBALANCED * sizes.min(axis=1), 0.0, 0.2)[comparisons]
    flagged = worst > np.maximum(np.sqrt(p), floor)
    where = genes[flagged], comparisons[flagged]
    replaced[where] = True
    guarded[where] = worst[flagged]
    statistic = statistic.copy()
    statistic[where] = worst_statistic[flagged]
    return guarded, statistic, replaced


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
    trend,
    scatter,
    lost,
    lost_without,
    noise,
    own,
    lends,
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
        total = y.sum()
        prior_phi, prior_df = prior(total / n_samples, trend[g], scatter)
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
            if arms[c, 2 * side + 1] - arms[c, 2 * side] > LARGEST_ARM:
                continue
            for j in range(arms[c, 2 * side], arms[c, 2 * side + 1]):
                skip = arm_members[j]
                mean = (total - y[skip]) / (n_samples - 1)
                if mean <= 0.0:
                    worst[t] = 1.0
                    worst_statistic[t] = 0.0
                    continue
                if own[c]:
                    phi, df = prior(mean, trend[g], scatter)
                    left, left_weight, ratio = 0.0, 0.0, lost_without
                else:
                    phi, df, mean = prior_phi, prior_df, total / n_samples
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
                    mean,
                    phi,
                    df,
                    left,
                    left_weight,
                    own[c],
                    ratio,
                    noise[c],
                    kept[g, c],
                )
                if not p < 1.0 or z * whole <= 0.0:
                    p, z = 1.0, 0.0
                if p > worst[t]:
                    worst[t] = p
                    worst_statistic[t] = z
