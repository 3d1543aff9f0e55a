"""Distributions known by their densities on grids, and mixtures of them: cumulative sums, and quantiles by Newton's steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Tables(NamedTuple):
    """Distributions on grids: the k-th at the size[k] points from start[k] on, step[k] apart."""

    start: np.ndarray  # (n,)
    step: np.ndarray
    size: np.ndarray
    density: np.ndarray  # (n, most points)
    cumulative: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def accumulate(density, n, step, cumulative):
    """Distribution function at the n grid points, and the density scaled to one; returns the total before.

    Between two points the integral of the polynomial through the six nearest, h (11, -93, 802, 802, -93, 11) / 1440.
    """
    total = 0.0
    for j in range(n):
        total += density[j]
    total *= step
    for j in range(n):
        density[j] /= total
    running = 0.5 * step * density[0]
    for j in range(n):
        cumulative[j] = running
        a = density[j - 2] if j >= 2 else 0.0
        b = density[j - 1] if j >= 1 else 0.0
        d = density[j + 1] if j + 1 < n else 0.0
        e = density[j + 2] if j + 2 < n else 0.0
        f = density[j + 3] if j + 3 < n else 0.0
        running += step / 1440.0 * (11.0 * (a + f) - 93.0 * (b + e) + 802.0 * (density[j] + d))
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def distribution(x, weight, tables):
    """Distribution function and density at x of the mixture of the tabulated components: cubic Hermite between grid points."""
    start, step, size, density, cumulative = tables
    total = 0.0
    slope = 0.0
    for k in range(weight.shape[0]):
        if weight[k] <= 0.0:
            continue
        position = (x - start[k]) / step[k]
        if position <= 0.0:
            continue
        if position >= size[k] - 1:
            total += weight[k]
            continue
        j = int(position)
        t = position - j
        left, right = density[k, j] * step[k], density[k, j + 1] * step[k]
        rise = cumulative[k, j + 1] - cumulative[k, j]
        third = left + right - 2.0 * rise
        second = 3.0 * rise - 2.0 * left - right
        total += weight[k] * (cumulative[k, j] + t * (left + t * (second + t * third)))
        slope += weight[k] * (left + t * (2.0 * second + 3.0 * t * third)) / step[k]
    return total, slope


@njit(cache=True, nogil=True, error_model="numpy")
def quantile(level, guess, weight, tables):
    """X at which the mixture's distribution function, of total weight one, is `level`: Newton's steps kept within a bracket."""
    start, step, size = tables.start, tables.step, tables.size
    low, high = 1e300, -1e300
    for k in range(weight.shape[0]):
        if weight[k] > 0.0:
            low = min(low, start[k])
            high = max(high, start[k] + step[k] * (size[k] - 1))
    x = min(max(guess, low), high)
    for _ in range(60):
        reached, slope = distribution(x, weight, tables)
        miss = reached - level
        if abs(miss) < 1e-9:
            break
        if miss > 0.0:
            high = x
        else:
            low = x
        following = x - miss / slope if slope > 0.0 else low
        x = following if low < following < high else 0.5 * (low + high)
        if high - low < 1e-12 * (1.0 + abs(x)):
            break
    return x
