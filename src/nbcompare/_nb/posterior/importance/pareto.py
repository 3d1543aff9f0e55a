"""Pareto's k of importance weights: the shape of the generalised Pareto distribution that their upper tail follows."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def pareto_shape(weight):
    """Shape k of the largest min(S/5, 3 sqrt S) of S weights [Vehtari, Simpson, Gelman, Yao, Gabry, 2024]; infinite where no five differ."""
    n = weight.shape[0]
    n_tail = int(min(0.2 * n, 3.0 * math.sqrt(n)))
    ascending = np.sort(weight)
    cut, largest = ascending[n - n_tail - 1], ascending[n - 1]
    if n_tail < 5 or not largest > cut:
        return math.inf
    tail = np.empty(n_tail)
    for j in range(n_tail):
        tail[j] = max(ascending[n - n_tail + j] - cut, 1e-12 * largest)
    return fit_pareto(tail)[0]


@njit(cache=True, nogil=True, error_model="numpy")
def fit_pareto(ascending):
    """Shape k and scale of a generalised Pareto distribution: the posterior mean of Zhang and Stephens (2009).

    The shape is drawn towards .5 as by ten further observations.
    """
    n = ascending.shape[0]
    n_points = 30 + int(math.sqrt(n))
    quartile = ascending[int(n / 4.0 + 0.5) - 1]
    theta, profile = np.empty(n_points), np.empty(n_points)
    top = -math.inf
    for j in range(n_points):
        theta[j] = 1.0 / ascending[n - 1] + (1.0 - math.sqrt(n_points / (j + 0.5))) / (3.0 * quartile)
        shape = _shape(ascending, theta[j])
        profile[j] = n * (math.log(-theta[j] / shape) - shape - 1.0)
        top = max(top, profile[j])
    total, mean = 0.0, 0.0
    for j in range(n_points):
        share = math.exp(profile[j] - top)
        if share == share:
            total += share
            mean += share * theta[j]
    mean /= total
    k = _shape(ascending, mean)
    sigma = -k / mean
    return (n * k + 5.0) / (n + 10.0), sigma


@njit(cache=True, nogil=True, error_model="numpy")
def _shape(sample, theta):
    """The likeliest shape k at sigma = -k / theta: the mean of log(1 - theta x)."""
    total = 0.0
    for j in range(sample.shape[0]):
        total += math.log1p(-theta * sample[j])
    return total / sample.shape[0]
