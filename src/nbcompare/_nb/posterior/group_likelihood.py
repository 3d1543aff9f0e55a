"""The log likelihood of one group as a function of its log rate, at a fixed dispersion: value, slopes, and tables on a grid.

l(eta) = T eta - sum_i (y_i + 1/phi) log(1 + phi l_i e^eta) + sum_i sum_{j < y_i} log(1 + phi j), T the group's total, without the terms in
which neither eta nor phi stands. It is concave in eta. A replicate of exposure zero is absent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import njit

from nbcompare._nb.numerics import simd as inline_simd
from nbcompare._nb.numerics.special import fast_log1p, stirling_remainder

SHORT = 12.0  # up to this count the product of 1 + phi j is multiplied out
HUGE = 1e250


class Grid(NamedTuple):
    """Log rates centre + step * (-below .. above)."""

    centre: float
    step: float
    below: int
    above: int


@njit(cache=True, nogil=True, error_model="numpy")
def log_rising_factorial(y, phi):
    """sum_i sum_{j < y_i} log(1 + phi j): products for small counts, Stirling's formula of both log-gammas for large ones."""
    k = 1.0 / phi
    remainder_k = stirling_remainder(k)
    product = 1.0
    total = 0.0
    for i in range(y.shape[0]):
        if y[i] <= SHORT:
            for j in range(1, int(y[i])):
                product *= 1.0 + phi * j
            if product > HUGE:
                total += math.log(product)
                product = 1.0
        else:
            total += (y[i] + k - 0.5) * fast_log1p(phi * y[i]) - y[i] + stirling_remainder(y[i] + k) - remainder_k
    return total + math.log(product)


@njit(cache=True, nogil=True, error_model="numpy")
def value(y, l, eta, phi):
    """l(eta) without the terms of phi alone."""
    rate = phi * math.exp(eta)
    k = 1.0 / phi
    total = 0.0
    for i in range(y.shape[0]):
        total += y[i] * eta - (y[i] + k) * fast_log1p(l[i] * rate)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(y, l, eta, phi):
    """First and negative second derivative of l in eta."""
    rate = math.exp(eta)
    first = 0.0
    second = 0.0
    for i in range(y.shape[0]):
        m = l[i] * rate
        share = 1.0 / (1.0 + phi * m)
        first += (y[i] - m) * share
        second += m * (1.0 + phi * y[i]) * share * share
    return first, second


@njit(cache=True, nogil=True, error_model="numpy")
def tabulate(y, l, phi, grid, slope, rates, table):
    """exp(l(eta + d) - l(eta) + slope d) at the distances d of the grid, into `table`; `rates` is workspace."""
    eta, step, below = grid.centre, grid.step, grid.below
    n = grid.below + grid.above + 1
    start = math.exp(eta - step * below)
    ratio = math.exp(step)
    total = 0.0
    for i in range(y.shape[0]):
        total += y[i]
    for k in range(n):
        if k % 32 == 0:
            start = math.exp(eta + step * (k - below))
        rates[k] = phi * start
        start *= ratio
        table[k] = (total + slope) * (step * (k - below))
    inverse_phi = 1.0 / phi
    at_mode = phi * math.exp(eta)
    for i in range(y.shape[0]):
        depth = l[i]
        if depth <= 0.0:
            continue
        reference = depth * at_mode
        scale = 1.0 / (1.0 + reference)
        power = y[i] + inverse_phi
        for k in range(n):
            table[k] -= power * inline_simd.log1p((depth * rates[k] - reference) * scale)
    for k in range(n):
        table[k] = inline_simd.exp(max(min(table[k], 60.0), -700.0))
