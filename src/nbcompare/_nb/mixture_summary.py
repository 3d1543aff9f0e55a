"""Kernels that summarise mixtures of Gaussians: moments and quantiles of their marginals. Columns as in `quadrature`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.special import normal_tail

ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
INTERVAL = (0.5, 0.025, 0.975)  # levels of median and bounds of every posterior


@njit(cache=True, nogil=True, error_model="numpy")
def summarise_tests(
    null_probability, null_weight, null_mean, null_scale, weight, mean, scale, levels, summary, changes, dispersions
):  # fmt: skip
    """Every mixture's summary into `summary`, `changes` (quantiles given a change) and `dispersions` (quantiles)."""
    k0, k1 = null_weight.shape[1], weight.shape[1]
    shared = np.empty(k0 + k1)
    centres, sds = np.empty((3, k0 + k1)), np.empty((3, k0 + k1))
    for g in range(weight.shape[0]):
        null, out = null_probability[g], summary[g]
        marginals(
            null, null_weight[g], null_mean[g], null_scale[g], weight[g], mean[g], scale[g], shared, centres, sds
        )  # fmt: skip
        beta, beta_sd = centres[0, k0:], sds[0, k0:]
        out[7], out[8] = moments(shared, centres[1], sds[1])
        out[9] = quantile_of_normals(0.5, out[7], shared, centres[1], sds[1])
        out[10], out[11] = moments(shared, centres[2], sds[2])
        out[12] = quantile_of_normals(0.5, out[10], shared, centres[2], sds[2])
        centre, spread = moments(weight[g], beta, beta_sd)
        below = distribution_of_normals(0.0, weight[g], beta, beta_sd)[0]
        effect_summary(null, below, centre, spread, out)
        for k, level in enumerate(INTERVAL):
            given_change = level_given_change(level, null, below)
            out[4 + k] = 0.0
            if given_change >= 0.0:
                out[4 + k] = quantile_of_normals(given_change, centre, weight[g], beta, beta_sd)
        for k in range(levels.shape[0]):
            changes[g, k] = quantile_of_normals(levels[k], centre, weight[g], beta, beta_sd)
            dispersions[g, k] = quantile_of_normals(levels[k], out[10], shared, centres[2], sds[2])


@njit(cache=True, nogil=True, error_model="numpy")
def marginals(null, null_weight, null_mean, null_scale, weight, mean, scale, shared, centres, sds):
    """Weights, means and standard deviations of all components, those of the null first; rows: log fold change, log rate, log dispersion."""
    k0 = null_weight.shape[0]
    for k in range(k0):
        factor = null_scale[k]
        shared[k] = null * null_weight[k]
        centres[0, k], sds[0, k] = 0.0, 0.0
        centres[1, k], sds[1, k] = null_mean[k, 0], abs(factor[0, 0])
        centres[2, k], sds[2, k] = null_mean[k, 1], math.hypot(factor[1, 0], factor[1, 1])
    for k in range(weight.shape[0]):
        factor = scale[k]
        j = k0 + k
        shared[j] = (1.0 - null) * weight[k]
        centres[0, j], sds[0, j] = mean[k, 1], math.hypot(factor[1, 0], factor[1, 1])
        centres[1, j] = mean[k, 0] - 0.5 * mean[k, 1]
        sds[1, j] = math.hypot(factor[0, 0] - 0.5 * factor[1, 0], 0.5 * factor[1, 1])
        centres[2, j] = mean[k, 2]
        sds[2, j] = math.sqrt(factor[2, 0] ** 2 + factor[2, 1] ** 2 + factor[2, 2] ** 2)


@njit(cache=True, nogil=True, error_model="numpy")
def effect_summary(null, below, mean, sd, out):
    """Null probability, local false sign rate, mean and standard deviation of the log fold change with its mass at zero.

    `below`, `mean` and `sd` are those given a change.
    """
    out[0] = null
    out[1] = null + (1.0 - null) * min(below, 1.0 - below)
    out[2] = (1.0 - null) * mean
    out[3] = math.sqrt((1.0 - null) * (sd * sd + null * mean * mean))


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
