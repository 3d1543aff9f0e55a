"""The summary of one test by importance sampling: a mixture of Gaussians, corrected by draws."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.posterior.columns import (
    INTERVAL,
    LOG_DISPERSION,
    LOG_DISPERSION_MEDIAN,
    LOG_DISPERSION_SD,
    LOG_FC_MEDIAN,
    LOG_MEAN,
    LOG_MEAN_MEDIAN,
    LOG_MEAN_SD,
)
from nbcompare._nb.posterior.mixture_summary import (
    CENTRE,
    DISPERSION,
    FOLD_CHANGE,
    OF_DISPERSION,
    OF_FOLD_CHANGE,
    OF_RATE,
    distribution_of_normals,
    effect_summary,
    empty_marginals,
    fill_marginals,
    level_given_change,
    moments,
)

TAIL, MIDDLE = 0.03, 0.2  # probabilities beyond a point up to which draws say nothing, and from which on they say all
SE_OF_LOG_SD = 0.05  # of the log of a standard deviation that is known from the draws


class Corrected(NamedTuple):
    """A mixture of normals and its correction by draws."""

    weight: np.ndarray  # (K,)
    mean: np.ndarray
    sd: np.ndarray
    drawn: np.ndarray  # (n,)
    surplus: np.ndarray  # (n,) the posterior's weights of the draws minus the mixture's
    centre: float  # corrected mean
    spread: float  # corrected standard deviation
    mixture_centre: float
    mixture_spread: float
    stretch: float  # of the mixture's tails: ratio of the two standard deviations, but for what may be Monte Carlo error of the draws


@njit(cache=True, nogil=True, error_model="numpy")
def summarise(null_probability, null, change, draws_null, draws, levels, out):
    """The summary's columns of one test: those of the mixture, corrected by the draws."""
    summary = out.summary
    n, k0 = draws.surplus.shape[0], null.weight.shape[0]
    marginal = empty_marginals(k0 + change.weight.shape[0])
    fill_marginals(null_probability, null, change, marginal)
    shared, mean, sd = marginal
    weight = shared[k0:] / max(1.0 - null_probability, 1e-300)
    if null_probability >= 1.0:
        weight[:] = change.weight
    beta = correct(weight, mean[OF_FOLD_CHANGE, k0:], sd[OF_FOLD_CHANGE, k0:], draws.value[FOLD_CHANGE], draws.surplus)
    below = _distribution(0.0, beta)
    effect_summary(null_probability, below, beta.centre, beta.spread, summary)
    for k, level in enumerate(INTERVAL):
        requested_levels = level_given_change(level, null_probability, below)
        summary[LOG_FC_MEDIAN + k] = 0.0
        if requested_levels >= 0.0:
            summary[LOG_FC_MEDIAN + k] = _quantile(requested_levels, beta)
    for k in range(levels.shape[0]):
        out.changes[k] = _quantile(levels[k], beta)
    both, joint = np.empty(2 * n), np.empty(2 * n)
    for s in range(n):
        joint[s] = (1.0 - null_probability) * draws.surplus[s]
        joint[n + s] = null_probability * draws_null.surplus[s]
        both[s] = draws.value[CENTRE, s] - 0.5 * draws.value[FOLD_CHANGE, s]
        both[n + s] = draws_null.value[CENTRE, s]
    rate = correct(shared, mean[OF_RATE], sd[OF_RATE], both, joint)
    summary[LOG_MEAN], summary[LOG_MEAN_SD] = rate.centre, rate.spread
    summary[LOG_MEAN_MEDIAN] = _quantile(0.5, rate)
    for s in range(n):
        both[s], both[n + s] = draws.value[DISPERSION, s], draws_null.value[DISPERSION, s]
    alpha = correct(shared, mean[OF_DISPERSION], sd[OF_DISPERSION], both, joint)
    summary[LOG_DISPERSION], summary[LOG_DISPERSION_SD] = alpha.centre, alpha.spread
    summary[LOG_DISPERSION_MEDIAN] = _quantile(0.5, alpha)
    for k in range(levels.shape[0]):
        out.dispersions[k] = _quantile(levels[k], alpha)


@njit(cache=True, nogil=True, error_model="numpy")
def correct(weight, mean, sd, drawn, surplus):
    """A mixture of normals with the correction by these draws."""
    centre, spread = moments(weight, mean, sd)
    first, second = 0.0, 0.0
    for s in range(drawn.shape[0]):
        first += surplus[s] * (drawn[s] - centre)
        second += surplus[s] * (drawn[s] - centre) ** 2
    corrected = math.sqrt(max(spread * spread + second - first * first, 0.01 * spread * spread))
    log_ratio = math.log(corrected / spread)
    stretch = math.exp(log_ratio**3 / (log_ratio**2 + SE_OF_LOG_SD**2))
    return Corrected(weight, mean, sd, drawn, surplus, centre + first, corrected, centre, spread, stretch)


@njit(cache=True, nogil=True, error_model="numpy")
def _distribution(x, corrected):
    """Distribution function at x: in the middle the mixture's with the draws' correction, in the tails the mixture's moved and stretched.

    A tail of probability .002 holds a quarter of 128 draws: they cannot correct it, but the mean and standard deviation, which they know
    well, can.
    """
    weight, mean, sd, drawn, surplus, centre, _, mixture_centre, _, stretch = corrected
    moved = distribution_of_normals(mixture_centre + (x - centre) / stretch, weight, mean, sd)[0]
    carried = (min(moved, 1.0 - moved) - TAIL) / (MIDDLE - TAIL)
    if carried <= 0.0:
        return moved
    reached = distribution_of_normals(x, weight, mean, sd)[0]
    for s in range(drawn.shape[0]):
        reached += surplus[s] if drawn[s] <= x else 0.0
    carried = min(carried, 1.0)
    return carried * reached + (1.0 - carried) * moved


@njit(cache=True, nogil=True, error_model="numpy")
def _quantile(level, corrected):
    """Where the corrected distribution function reaches `level`: bisection between lines, for it is not smooth."""
    reach = 12.0 * corrected.mixture_spread * max(corrected.stretch, 1.0)
    low, high = corrected.centre - reach, corrected.centre + reach
    miss_low, miss_high = -level, 1.0 - level
    for step in range(40):
        x = 0.5 * (low + high)
        if step % 2 == 1:
            x = low - miss_low * (high - low) / (miss_high - miss_low)
        miss = _distribution(x, corrected) - level
        if abs(miss) < 1e-6 or high - low < 1e-5 * corrected.mixture_spread:
            return x
        if miss > 0.0:
            high, miss_high = x, miss
        else:
            low, miss_low = x, miss
    return 0.5 * (low + high)
