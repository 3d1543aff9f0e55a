"""Is a change larger than a threshold, or shown to be smaller? The same r* at nulls other than zero.

Under a log fold change of tau the treated arm is as if its exposures were exp(tau) times as large, and nothing else of the test differs. Let
z(tau) be the signed normal deviate of that null hypothesis, and Phi the normal distribution. With the threshold t,

    larger    p = Phi(-right) + Phi(-left),    right = z(t) and left = z(-t) where the effect is positive, -z(-t) and -z(t) where it is negative
    smaller   p = max(Phi(-z(-t)), Phi(z(t)))

the first as TREAT does with t statistics, the second two one-sided tests. At t = 0 the first is the two-sided p-value.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from scipy.special import ndtr, ndtri

from nbcompare._nb.contrast import Setting, compare_arms, group_statistic, moderate, prior, totals
from nbcompare._nb.dispersion import arm, arm_statistic


def larger(below: np.ndarray, above: np.ndarray, log_fc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values of |change| <= threshold and statistics with the sign of the change, from the deviates at -threshold and +threshold."""
    up = log_fc >= 0
    right, left = np.where(up, above, -below), np.where(up, below, -above)
    p = np.minimum(ndtr(-right) + ndtr(-left), 1.0)
    with np.errstate(divide="ignore"):
        size = np.where(p > 0, -ndtri(p / 2), right)
    return p, np.where(up, size, -size)


def smaller(below: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values of |change| >= threshold and their one-sided deviates, from the deviates at -threshold and +threshold."""
    deviate = np.minimum(below, -above)
    return ndtr(-deviate), deviate


def halved(statistic: np.ndarray, zero_arm: np.ndarray, log_fc: np.ndarray) -> np.ndarray:
    """Deviates of a null hypothesis; where an arm has no counts, with half the tail on that side, as the plain p-value has."""
    side = np.where(log_fc >= 0, 1.0, -1.0)
    tail = 0.5 * ndtr(-side * statistic)
    with np.errstate(divide="ignore"):
        return np.where(zero_arm & (tail > 0), -side * ndtri(tail), statistic)


def shifted_genes(setting: Setting, log_shift: float) -> np.ndarray:
    """Signed deviates of the null hypothesis that the log fold change is `log_shift`, (n_genes, n_comparisons)."""
    out = np.full((len(setting.counts), len(setting.arms)), np.nan)
    _shifted_genes(
        setting.counts,
        setting.exposure,
        setting.kept,
        setting.members,
        setting.starts,
        setting.arm_members,
        setting.arms,
        setting.mean,
        setting.trend,
        setting.scatter,
        setting.lost,
        setting.noise,
        setting.own,
        setting.lends,
        setting.two_groups,
        math.exp(log_shift),
        out,
    )
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _shifted_genes(
    counts,
    exposure,
    kept,
    members,
    starts,
    arm_members,
    arms,
    mean,
    trend,
    scatter,
    lost,
    noise,
    own,
    lends,
    two_groups,
    ratio,
    statistic,
):
    """`contrast._compare_genes` with the exposure of the treated arm times `ratio` in the comparison, not in the dispersion."""
    for g in range(counts.shape[0]):
        if mean[g] <= 0.0:
            continue
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        phi0, df0 = prior(mean[g], trend[g], scatter)
        numerator = 0.0
        weight = 0.0
        for k in range(starts.shape[0] - 1):
            if lends[k]:
                a, b = group_statistic(y, l, members, starts[k], starts[k + 1], -1, phi0)
                numerator += a
                weight += b
        for c in range(arms.shape[0]):
            first, second, third, fourth = arms[c]
            total, depth = totals(y, l, arm_members, first, second, -1)
            total2, depth2 = totals(y, l, arm_members, third, fourth, -1)
            if total + total2 <= 0.0:
                continue
            if two_groups:
                total += total2
                depth += depth2
            slope = phi0 * total / depth
            T1, rate1, E1, D1 = arm(y, l, arm_members, first, second, -1, noise[c, 0] * slope)
            T2, rate2, E2, D2 = arm(y, l, arm_members, third, fourth, -1, noise[c, 1] * slope)
            phi, df = moderate(phi0, df0, mean[g], numerator, weight / lost)
            if own[c]:
                a, d1 = arm_statistic(y, l, arm_members, first, second, -1, T1, rate1, D1, noise[c, 0] * phi0)
                b, d2 = arm_statistic(y, l, arm_members, third, fourth, -1, T2, rate2, D2, noise[c, 1] * phi0)
                phi, df = moderate(phi0, df0, mean[g], a + b, (d1 + d2) / lost)
            _, _, statistic[g, c], _ = compare_arms(
                T1,
                rate1,
                E1,
                noise[c, 0] * phi * D1,
                T2,
                rate2 / ratio,
                E2 * ratio,
                noise[c, 1] * phi * D2,
                df,
                max(kept[g, c], 0.02),
            )
