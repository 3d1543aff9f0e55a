"""Kernels that summarise mixtures of Gaussians: moments and quantiles of their marginals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics.special import normal_tail
from nbcompare._nb.posterior.columns import (
    INTERVAL,
    LFSR,
    LOG_DISPERSION,
    LOG_DISPERSION_MEDIAN,
    LOG_DISPERSION_SD,
    LOG_FC,
    LOG_FC_MEDIAN,
    LOG_FC_SD,
    LOG_MEAN,
    LOG_MEAN_MEDIAN,
    LOG_MEAN_SD,
    NULL_PROBABILITY,
)
from nbcompare._nb.posterior.mixture import Components

ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
CENTRE, FOLD_CHANGE, DISPERSION = range(3)  # axes of a component given a change
NULL_CENTRE, NULL_DISPERSION = range(2)  # and without one
OF_FOLD_CHANGE, OF_RATE, OF_DISPERSION = range(3)  # rows of `Marginals`


class Marginals(NamedTuple):
    """All components of one test's mixture, those without a change first; rows: log fold change, reference's log rate, log dispersion."""

    weight: np.ndarray  # (K0 + K,)
    mean: np.ndarray  # (3, K0 + K)
    sd: np.ndarray  # (3, K0 + K)


@njit(cache=True, nogil=True, error_model="numpy")
def empty_marginals(n):
    """For n components."""
    return Marginals(np.empty(n), np.empty((3, n)), np.empty((3, n)))


@njit(cache=True, nogil=True, error_model="numpy")
def summarise_tests(mixture, levels, out):
    """Every mixture's summary into the columns `out`."""
    k0 = mixture.null.weight.shape[1]
    marginal = empty_marginals(k0 + mixture.change.weight.shape[1])
    shared, mean, sd = marginal
    for g in range(mixture.null_probability.shape[0]):
        null, summary = mixture.null_probability[g], out.summary[g]
        change = components_of_test(mixture.change, g)
        fill_marginals(null, components_of_test(mixture.null, g), change, marginal)
        beta, beta_sd = mean[OF_FOLD_CHANGE, k0:], sd[OF_FOLD_CHANGE, k0:]
        rate, rate_sd = mean[OF_RATE], sd[OF_RATE]
        summary[LOG_MEAN], summary[LOG_MEAN_SD] = moments(shared, rate, rate_sd)
        summary[LOG_MEAN_MEDIAN] = quantile_of_normals(0.5, summary[LOG_MEAN], shared, rate, rate_sd)
        alpha, alpha_sd = mean[OF_DISPERSION], sd[OF_DISPERSION]
        summary[LOG_DISPERSION], summary[LOG_DISPERSION_SD] = moments(shared, alpha, alpha_sd)
        summary[LOG_DISPERSION_MEDIAN] = quantile_of_normals(0.5, summary[LOG_DISPERSION], shared, alpha, alpha_sd)
        centre, spread = moments(change.weight, beta, beta_sd)
        below = distribution_of_normals(0.0, change.weight, beta, beta_sd)[0]
        effect_summary(null, below, centre, spread, summary)
        for k, level in enumerate(INTERVAL):
            given_change = level_given_change(level, null, below)
            summary[LOG_FC_MEDIAN + k] = 0.0
            if given_change >= 0.0:
                summary[LOG_FC_MEDIAN + k] = quantile_of_normals(given_change, centre, change.weight, beta, beta_sd)
        for k in range(levels.shape[0]):
            out.changes[g, k] = quantile_of_normals(levels[k], centre, change.weight, beta, beta_sd)
            out.dispersions[g, k] = quantile_of_normals(levels[k], summary[LOG_DISPERSION], shared, alpha, alpha_sd)


@njit(cache=True, nogil=True, error_model="numpy")
def components_of_test(components, g):
    """The components of the g-th test."""
    return Components(components.weight[g], components.mean[g], components.cholesky[g])


@njit(cache=True, nogil=True, error_model="numpy")
def fill_marginals(null_probability, null, change, out):
    """Weights, means and standard deviations of the components of one test."""
    k0 = null.weight.shape[0]
    for k in range(k0):
        factor = null.cholesky[k]
        out.weight[k] = null_probability * null.weight[k]
        out.mean[OF_FOLD_CHANGE, k], out.sd[OF_FOLD_CHANGE, k] = 0.0, 0.0
        out.mean[OF_RATE, k], out.sd[OF_RATE, k] = null.mean[k, NULL_CENTRE], abs(factor[0, 0])
        out.mean[OF_DISPERSION, k] = null.mean[k, NULL_DISPERSION]
        out.sd[OF_DISPERSION, k] = math.hypot(factor[1, 0], factor[1, 1])
    for k in range(change.weight.shape[0]):
        factor = change.cholesky[k]
        j = k0 + k
        out.weight[j] = (1.0 - null_probability) * change.weight[k]
        out.mean[OF_FOLD_CHANGE, j] = change.mean[k, FOLD_CHANGE]
        out.sd[OF_FOLD_CHANGE, j] = math.hypot(factor[1, 0], factor[1, 1])
        out.mean[OF_RATE, j] = change.mean[k, CENTRE] - 0.5 * change.mean[k, FOLD_CHANGE]
        out.sd[OF_RATE, j] = math.hypot(factor[0, 0] - 0.5 * factor[1, 0], 0.5 * factor[1, 1])
        out.mean[OF_DISPERSION, j] = change.mean[k, DISPERSION]
        out.sd[OF_DISPERSION, j] = math.sqrt(factor[2, 0] ** 2 + factor[2, 1] ** 2 + factor[2, 2] ** 2)


@njit(cache=True, nogil=True, error_model="numpy")
def effect_summary(null, below, mean, sd, out):
    """Null probability, local false sign rate, mean and standard deviation of the log fold change with its mass at zero.

    `below`, `mean` and `sd` are those given a change.
    """
    out[NULL_PROBABILITY] = null
    out[LFSR] = null + (1.0 - null) * min(below, 1.0 - below)
    out[LOG_FC] = (1.0 - null) * mean
    out[LOG_FC_SD] = math.sqrt((1.0 - null) * (sd * sd + null * mean * mean))


@njit(cache=True, nogil=True, error_model="numpy")
def level_given_change(level, null, below):
    """The level, given a change, whose quantile is that of both hypotheses together; -1 where that is the mass at zero."""
    change = 1.0 - null
    if level < change * below:
        return level / change
    if level > change * below + null:
        return (level - null) / change
    return -1.0


@njit(cache=True, nogil=True, error_model="numpy")
def moments(weight, mean, sd):
    """Mean and standard deviation of a mixture of normals."""
    first = 0.0
    for k in range(weight.shape[0]):
        first += weight[k] * mean[k]
    second = 0.0
    for k in range(weight.shape[0]):
        second += weight[k] * (sd[k] * sd[k] + (mean[k] - first) ** 2)
    return first, math.sqrt(second)


@njit(cache=True, nogil=True, error_model="numpy")
def distribution_of_normals(x, weight, mean, sd):
    """Distribution function and density at x."""
    total, density = 0.0, 0.0
    for k in range(weight.shape[0]):
        z = (x - mean[k]) / sd[k]
        total += weight[k] * normal_tail(-z)
        density += weight[k] * math.exp(-0.5 * z * z) / (ROOT_TWO_PI * sd[k])
    return total, density


@njit(cache=True, nogil=True, error_model="numpy")
def quantile_of_normals(level, guess, weight, mean, sd):
    """X at which the distribution function is `level`: Newton's steps kept within a bracket."""
    low, high, whole = 1e300, -1e300, 0.0
    for k in range(weight.shape[0]):
        if weight[k] > 0.0:
            low = min(low, mean[k] - 9.0 * sd[k])
            high = max(high, mean[k] + 9.0 * sd[k])
            whole += weight[k]
    x = min(max(guess, low), high)
    for _ in range(80):
        reached, slope = distribution_of_normals(x, weight, mean, sd)
        miss = reached - level * whole
        if abs(miss) < 1e-9:
            break
        if miss > 0.0:
            high = x
        else:
            low = x
        following = x - miss / slope if slope > 0.0 else low
        x = following if low < following < high else 0.5 * (low + high)
    return x
