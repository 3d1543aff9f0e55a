"""From the groups of a comparison to its p-value, gene by gene: prior, moderation, pseudo-counts, r*, Student's t."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtri

from nbcompare._nb.dispersion.pearson import group_sums, statistic_of_group, weighted_sums
from nbcompare._nb.numerics.special import normal_from_t, normal_tail
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.rstar import modified_root

SMALLEST_EFFICIENCY = 0.02  # share of the information, in the arithmetic of confounded comparisons


class ComparisonData(NamedTuple):
    """Everything that the tests of some comparisons take for given."""

    counts: np.ndarray  # (n_genes, n_samples)
    exposure: np.ndarray  # (1 or n_genes, n_samples), with block effects
    efficiency: np.ndarray  # (n_genes, n_comparisons) share of the information that blocks leave
    members: np.ndarray  # (n_samples,) samples sorted by group
    starts: np.ndarray  # (n_groups + 1,) where each group starts among the members
    sample_order: np.ndarray  # samples of the groups
    ranges: np.ndarray  # (n_comparisons, 4) start and stop of reference and treated group among arm_members
    mean: np.ndarray  # (n_genes,) mean count of a sample
    trend: np.ndarray  # (n_genes,) dispersion expected at that mean
    log_dispersion_var: float  # variance of log dispersion between genes
    error: float  # variance of the trend itself
    df_ratio: float  # residual degrees of freedom without blocks over those with
    df_ratio_loo: float  # the same with one sample less
    group: np.ndarray  # (n_samples,) int64, group of every sample
    dispersion_ratio: np.ndarray  # (n_groups,) dispersion of the groups relative to the data set's
    own: np.ndarray  # (n_comparisons,) bool: the dispersion comes from the two groups alone
    in_fit: np.ndarray  # (n_groups,) bool: groups whose statistics the other comparisons sum
    two_groups: (
        bool  # the data set is the two groups: samples are weighted at their common rate, else at the reference's
    )


class Comparison(NamedTuple):
    """One gene's comparison: whose samples it compares, and how its dispersion is estimated."""

    members: np.ndarray  # samples, those of a group side by side
    ranges: np.ndarray  # (4,) start and stop of reference and treated group among the members
    group: np.ndarray  # (n_samples,) int64
    dispersion_ratio: np.ndarray  # (n_groups,)
    own: bool  # the dispersion comes from the two groups alone
    two_groups: bool  # as in `ComparisonData`
    efficiency: float  # share of the information that blocks leave


class GenePrior(NamedTuple):
    """What is known of a gene's dispersion before its comparison: the prior, and the statistics of the groups of the fit."""

    mean: float  # mean count of a sample
    phi: float  # mean of the prior
    df: float  # its degrees of freedom
    numerator: float  # summed dispersion statistics of the groups of the fit, used unless a comparison has its own
    weight: float
    df_ratio: float  # by which the statistics' degrees of freedom are divided


def compare_genes(setting: ComparisonData, *, log_shift: float = 0.0) -> tuple[np.ndarray, ...]:
    """Log fold change, standard error, signed statistic, p-value and moderated dispersion, each (n_genes, n_comparisons).

    Effects are what is beyond `log_shift`, the log fold change under the null hypothesis.
    """
    out = tuple(np.full((len(setting.counts), len(setting.ranges)), np.nan) for _ in range(5))
    _compare_genes(setting, math.exp(log_shift), *out)
    return out


def match_statistics(statistic: np.ndarray, p_value: np.ndarray, status: np.ndarray) -> None:
    """The statistics that belong to p-values that a rule has changed, in place: one-sided with an empty group, or without one replicate."""
    changed = ((status & (Status.ZERO_GROUP | Status.OUTLIER_REPLICATE)) > 0) & (p_value > 0)
    statistic[changed] = np.copysign(ndtri(p_value[changed] / 2), statistic[changed])


@njit(cache=True, nogil=True, error_model="numpy")
def _compare_genes(data, ratio, log_fc, se, statistic, p_value, dispersion):
    need_all = not data.own.all()
    for g in range(data.counts.shape[0]):
        if data.mean[g] <= 0.0:
            continue
        y = data.counts[g]
        l = data.exposure[g if data.exposure.shape[0] > 1 else 0]
        known = prior_of_gene(y, l, data, g, need_all)
        for c in range(data.ranges.shape[0]):
            result = compare_gene(y, l, comparison_of(data, g, c), -1, known, ratio)
            log_fc[g, c], se[g, c], statistic[g, c], p_value[g, c], dispersion[g, c] = result


@njit(cache=True, nogil=True, error_model="numpy")
def prior_of_gene(y, l, data, g, need_all):
    """The `GenePrior` of gene g; the statistics of the groups of the fit are summed if `need_all`."""
    prior_phi, prior_df = prior(data.mean[g], data.trend[g], data.log_dispersion_var, data.error)
    numerator = 0.0
    weight = 0.0
    if need_all:
        for k in range(data.starts.shape[0] - 1):
            if not data.in_fit[k]:
                continue
            a, b = group_statistic(y, l, data.members, data.starts[k], data.starts[k + 1], -1, prior_phi)
            numerator += a
            weight += b
    return GenePrior(data.mean[g], prior_phi, prior_df, numerator, weight, data.df_ratio)


@njit(cache=True, nogil=True, error_model="numpy")
def prior(mean, trend, log_dispersion_var, error):
    """Prior mean of the dispersion and its degrees of freedom.

    d0 = 1 + 2/x of a variance x = v rho^2, v the variance of log dispersions, rho = trend m / (1 + trend m), the trend's own error added to it for the degrees of freedom.
    """
    rho = trend * mean / (1.0 + trend * mean)
    x = log_dispersion_var * rho * rho
    df = 1.0 + 2.0 / max(x, 1e-6)
    shift = 0.5 * x + 1.0 / df + 1.0 / (3.0 * df * df)
    return max(trend - (1.0 - math.exp(-shift)) * (trend + 1.0 / mean), 0.0), 1.0 + 2.0 / max(x + error, 1e-6)


@njit(cache=True, nogil=True, error_model="numpy")
def group_statistic(y, l, members, start, stop, skip, phi):
    """Numerator and weight of a group's dispersion statistic, weighted at its own rate."""
    total, depth = totals(y, l, members, start, stop, skip)
    if total < 2.0 or stop - start < 2:
        return 0.0, 0.0
    _, rate, _, factor = group_sums(y, l, members, start, stop, skip, phi * total / depth)
    return statistic_of_group(y, l, members, start, stop, skip, total, rate, factor, phi)


@njit(cache=True, nogil=True, error_model="numpy")
def comparison_of(data, g, c):
    """The c-th `Comparison` of gene g."""
    return Comparison(
        data.sample_order,
        data.ranges[c],
        data.group,
        data.dispersion_ratio,
        data.own[c],
        data.two_groups,
        data.efficiency[g, c],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def compare_gene(y, l, comparison, skip, known, ratio):
    """Log fold change, standard error, signed statistic, p-value and treated dispersion of one gene in one `Comparison`.

    `known` is the gene's `GenePrior`. Sample `skip` is left out. The exposure of the treated group is `ratio` times as large in the
    comparison, not in the dispersion.
    """
    T1, rate1, E1, delta1, T2, rate2, E2, delta2, phi, df = moderated_groups(y, l, comparison, skip, known)
    if T1 + T2 <= 0.0:
        return np.nan, np.nan, np.nan, np.nan, np.nan
    efficiency = max(comparison.efficiency, SMALLEST_EFFICIENCY)
    log_fc, se, z, p = compare_two_groups(T1, rate1, E1, delta1, T2, rate2 / ratio, E2 * ratio, delta2, df, efficiency)
    return (
        log_fc,
        se,
        z,
        p,
        comparison.dispersion_ratio[comparison.group[comparison.members[comparison.ranges[2]]]] * phi,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def moderated_groups(y, l, comparison, skip, known):
    """Total, rate, pseudo-exposure and its dispersion of both groups of a comparison, the moderated dispersion and its degrees of freedom.

    The arguments are those of `compare_gene`.
    """
    members, ranges = comparison.members, comparison.ranges
    total, depth = totals(y, l, members, ranges[0], ranges[1], skip)
    total2, depth2 = totals(y, l, members, ranges[2], ranges[3], skip)
    if total + total2 <= 0.0:
        return 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, np.nan, np.nan
    if comparison.two_groups:
        total += total2
        depth += depth2
    slope = known.phi * total / depth
    T1, rate1, E1, D1, first, d1 = rate_of_side(y, l, comparison, 0, skip, slope, known.phi)
    T2, rate2, E2, D2, second, d2 = rate_of_side(y, l, comparison, 1, skip, slope, known.phi)
    numerator, weight = known.numerator, known.weight
    if comparison.own:
        numerator = first + second
        weight = d1 + d2
    phi, df = moderate(known.phi, known.df, known.mean, numerator, weight / known.df_ratio)
    return T1, rate1, E1, phi * D1, T2, rate2, E2, phi * D2, phi, df


@njit(cache=True, nogil=True, error_model="numpy")
def rate_of_side(y, l, comparison, side, skip, slope, prior_phi):
    """Total, rate, pseudo-exposure E and dispersion factor D of the reference (0) or the treated side (1) of a comparison.

    A side is one or several groups. If the comparison has its own dispersion, their dispersion statistic as well. The samples of a group lie
    side by side; its dispersion is dispersion_ratio[group] times the gene's, and its weights are 1 / (1 + ratio slope l). With
    W = sum w l of all samples, the rate of several groups is the mean of their rates weighted by sum w l, and the variance of that mean the sum
    of theirs: V = sum_k rate_k sum w^2 l / W^2 + phi sum_k ratio_k rate_k^2 sum (w l)^2 / W^2, so E = rate / (first sum), D = second sum / rate^2.
    """
    members, group = comparison.members, comparison.group
    start, stop = comparison.ranges[2 * side], comparison.ranges[2 * side + 1]
    total = 0.0
    whole = 0.0
    sum_wy = 0.0
    poisson = 0.0
    square = 0.0
    plain_poisson = 0.0
    plain_square = 0.0
    numerator = 0.0
    weight = 0.0
    first = start
    while first < stop:
        k = group[members[first]]
        last = first + 1
        while last < stop and group[members[last]] == k:
            last += 1
        if not (last == first + 1 and members[first] == skip):
            ratio = comparison.dispersion_ratio[k]
            T, wl, wwl, wlwl, wy = weighted_sums(y, l, members, first, last, skip, ratio * slope)
            rate = wy / wl
            total += T
            whole += wl
            sum_wy += wy
            poisson += rate * wwl
            square += ratio * rate * rate * wlwl
            plain_poisson += wwl
            plain_square += ratio * wlwl
            if comparison.own:
                a, d = statistic_of_group(
                    y, l, members, first, last, skip, T, rate, wlwl / (wl * wl), ratio * prior_phi
                )
                numerator += a
                weight += d
        first = last
    rate = sum_wy / whole
    if rate > 0.0:
        return total, rate, rate * whole * whole / poisson, square / (whole * whole * rate * rate), numerator, weight
    return total, rate, whole * whole / plain_poisson, plain_square / (whole * whole), numerator, weight


@njit(cache=True, nogil=True, error_model="numpy")
def totals(y, l, members, start, stop, skip):
    """Total count and total exposure of samples members[start:stop] but `skip`."""
    total = 0.0
    depth = 0.0
    for j in range(start, stop):
        i = members[j]
        if i != skip:
            total += y[i]
            depth += l[i]
    return total, depth


@njit(cache=True, nogil=True, error_model="numpy")
def moderate(prior_phi, prior_df, mean, numerator, weight):
    """Moderated dispersion and its degrees of freedom d0 + d from the prior and the summed statistics of groups."""
    df = prior_df + weight
    tau2 = max((prior_df + numerator) / df, 0.02)
    return max(prior_phi + (tau2 - 1.0) * (prior_phi + 1.0 / mean), 0.0), df


@njit(cache=True, nogil=True, error_model="numpy")
def compare_two_groups(T1, rate1, E1, delta1, T2, rate2, E2, delta2, df, efficiency):
    """Log fold change, standard error, signed statistic and p-value from totals, rates, pseudo-exposures and their dispersions.

    The p-value is one-sided where a group has no counts: that of an effect away from it. See `counts_of_groups`.
    """
    y1, E1, delta1, y2, E2, delta2, empty = counts_of_groups(T1, rate1, E1, delta1, T2, rate2, E2, delta2, efficiency)
    root = modified_root(y1, y2, E1, E2, delta1, delta2)
    z = math.copysign(normal_from_t(abs(root), df), root)
    p = p_value_of(z, empty)
    log_fc = math.log((y2 / E2) / (y1 / E1))
    se = math.sqrt(1.0 / y1 + delta1 + 1.0 / y2 + delta2)
    return log_fc, se, z, p


@njit(cache=True, nogil=True, error_model="numpy")
def p_value_of(z, empty):
    """Two-sided p-value of a deviate; one-sided where the second (-1) or the first (1) of two groups is empty, and not both (0)."""
    return min(2.0 * normal_tail(abs(z)), 1.0) if empty == 0.0 else normal_tail(empty * z)


@njit(cache=True, nogil=True, error_model="numpy")
def counts_of_groups(T1, rate1, E1, delta1, T2, rate2, E2, delta2, efficiency):
    """Pseudo-count, exposure and dispersion of both groups, and -1 or 1 where the second or the first group has no counts, else 0.

    Blocks that keep a share of the information shrink pseudo-exposures and raise dispersions by it. A group without counts is given half a
    pseudo-count of the other's.
    """
    E1 *= efficiency
    E2 *= efficiency
    delta1 /= efficiency
    delta2 /= efficiency
    y1 = rate1 * E1
    y2 = rate2 * E2
    empty = 0.0
    if T1 <= 0.0:
        y1 = min(0.5, 0.5 * y2)
        y2 -= y1
        empty = 1.0
    elif T2 <= 0.0:
        y2 = min(0.5, 0.5 * y1)
        y1 -= y2
        empty = -1.0
    return y1, E1, delta1, y2, E2, delta2, empty
