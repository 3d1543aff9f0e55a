"""From the arms of a comparison to its p-value, gene by gene: prior, moderation, pseudo-counts, r*, Student's t."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.dispersion import arm, arm_statistic
from nbcompare._nb.rstar import modified_root
from nbcompare._nb.special import normal_from_t, normal_tail


def test_genes(
    counts: np.ndarray,
    exposure: np.ndarray,
    kept: np.ndarray,
    members: np.ndarray,
    starts: np.ndarray,
    arm_members: np.ndarray,
    arms: np.ndarray,
    lost: float,
    trend: np.ndarray,
    scatter: float,
    noise: np.ndarray,
    own: np.ndarray,
    lends: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Log fold change, standard error, signed statistic, p-value and moderated dispersion, each (n_genes, n_comparisons).

    Parameters
    ----------
    counts, exposure
        (n_genes, n_samples), and (1 or n_genes, n_samples).
    kept
        Information that blocks leave, (n_genes, n_comparisons).
    members, starts
        Samples sorted by group, and where each group starts.
    arm_members, arms
        Samples, and start and stop of reference and treated arm among them, (n_comparisons, 4).
    lost
        Residual degrees of freedom without blocks over those with.
    trend, scatter
        Dispersion expected at the gene's mean, (n_genes,), and the variance of its logarithm.
    noise
        Dispersion of the two arms relative to the data set's, (n_comparisons, 2).
    own
        Comparisons whose dispersion comes from their two arms alone, (n_comparisons,) bool.
    lends
        Groups whose statistics the other comparisons sum, (n_groups,) bool.
    """
    shape = (len(counts), len(arms))
    out = tuple(np.full(shape, np.nan) for _ in range(5))
    _test_genes(
        counts, exposure, kept, members, starts, arm_members, arms, lost, trend, scatter, noise, own, lends, *out
    )
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _test_genes(
    counts,
    exposure,
    kept,
    members,
    starts,
    arm_members,
    arms,
    lost,
    trend,
    scatter,
    noise,
    own,
    lends,
    log_fc,
    se,
    statistic,
    p_value,
    dispersion,
):
    n_samples = counts.shape[1]
    need_all = not own.all()
    for g in range(counts.shape[0]):
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        total = 0.0
        for i in range(n_samples):
            total += y[i]
        if total <= 0.0:
            continue
        mean = total / n_samples
        prior_phi, prior_df = prior(mean, trend[g], scatter)
        numerator = 0.0
        weight = 0.0
        if need_all:
            for k in range(starts.shape[0] - 1):
                if not lends[k]:
                    continue
                a, b = group_statistic(y, l, members, starts[k], starts[k + 1], -1, prior_phi)
                numerator += a
                weight += b
        for c in range(arms.shape[0]):
            result = contrast(
                y,
                l,
                arm_members,
                arms[c],
                -1,
                mean,
                prior_phi,
                prior_df,
                numerator,
                weight,
                own[c],
                lost,
                noise[c],
                kept[g, c],
            )
            log_fc[g, c], se[g, c], statistic[g, c], p_value[g, c], dispersion[g, c] = result


@njit(cache=True, nogil=True, error_model="numpy")
def prior(mean, trend, scatter):
    """Prior mean of the dispersion and its degrees of freedom d0 = 1 + 2/x, x = scatter rho^2, rho = trend m / (1 + trend m)."""
    rho = trend * mean / (1.0 + trend * mean)
    x = scatter * rho * rho
    df = 1.0 + 2.0 / max(x, 1e-6)
    shift = 0.5 * x + 1.0 / df + 1.0 / (3.0 * df * df)
    return max(trend - (1.0 - math.exp(-shift)) * (trend + 1.0 / mean), 0.0), df


@njit(cache=True, nogil=True, error_model="numpy")
def group_statistic(y, l, members, start, stop, skip, phi):
    """Numerator and weight of a group's dispersion statistic, weighted at its own rate."""
    total = 0.0
    depth = 0.0
    for j in range(start, stop):
        i = members[j]
        if i != skip:
            total += y[i]
            depth += l[i]
    if total < 2.0 or stop - start < 2:
        return 0.0, 0.0
    _, rate, _, factor = arm(y, l, members, start, stop, skip, phi * total / depth)
    return arm_statistic(y, l, members, start, stop, skip, total, rate, factor, phi)


@njit(cache=True, nogil=True, error_model="numpy")
def contrast(y, l, members, arms, skip, mean, prior_phi, prior_df, numerator, weight, own, lost, noise, kept):
    """Log fold change, standard error, signed statistic, p-value and treated dispersion of one gene in one comparison.

    `numerator` and `weight` are the dispersion statistics of all groups, used unless `own`. Sample `skip` is left out.
    """
    total = 0.0
    depth = 0.0
    for j in range(arms[0], arms[1]):
        i = members[j]
        if i != skip:
            total += y[i]
            depth += l[i]
    for j in range(arms[2], arms[3]):
        i = members[j]
        if i != skip:
            total += y[i]
            depth += l[i]
    if total <= 0.0:
        return np.nan, np.nan, np.nan, np.nan, np.nan
    slope = prior_phi * total / depth
    T1, rate1, E1, D1 = arm(y, l, members, arms[0], arms[1], skip, noise[0] * slope)
    T2, rate2, E2, D2 = arm(y, l, members, arms[2], arms[3], skip, noise[1] * slope)
    if own:
        first, d1 = arm_statistic(y, l, members, arms[0], arms[1], skip, T1, rate1, D1, noise[0] * prior_phi)
        second, d2 = arm_statistic(y, l, members, arms[2], arms[3], skip, T2, rate2, D2, noise[1] * prior_phi)
        numerator = first + second
        weight = d1 + d2
    df = prior_df + weight / lost
    tau2 = max((prior_df + numerator) / df, 0.02)
    phi = max(prior_phi + (tau2 - 1.0) * (prior_phi + 1.0 / mean), 0.0)

    share = max(kept, 0.02)
    E1 *= share
    E2 *= share
    delta1 = noise[0] * phi * D1 / share
    delta2 = noise[1] * phi * D2 / share
    y1 = rate1 * E1
    y2 = rate2 * E2
    halve = 1.0
    if T1 <= 0.0:
        y1 = min(0.5, 0.5 * y2)
        y2 -= y1
        halve = 0.5
    elif T2 <= 0.0:
        y2 = min(0.5, 0.5 * y1)
        y1 -= y2
        halve = 0.5
    root = modified_root(y1, y2, E1, E2, delta1, delta2)
    z = normal_from_t(abs(root), df)
    p = min(2.0 * halve * normal_tail(z), 1.0)
    log_fc = math.log((y2 / E2) / (y1 / E1))
    se = math.sqrt(1.0 / y1 + delta1 + 1.0 / y2 + delta2)
    return log_fc, se, z if root > 0.0 else -z, p, noise[1] * phi
