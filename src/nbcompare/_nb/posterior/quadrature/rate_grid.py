"""Integrals over the log rates of both groups at fixed dispersions, by sums over a grid around the posterior's mode.

Given the dispersion of each group the likelihood is a product of one function of each group's log rate, and the prior of centre and difference a product
too: each of the four is tabulated once on a grid, and a pair of log rates costs three multiplications. The integrand is log-concave, analytic and
dies out on all sides, so that sums with steps of .8 standard deviations are exact to 1e-6 and better (the trapezoidal rule).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics import simd as inline_simd
from nbcompare._nb.posterior.group_likelihood import Grid, slopes, tabulate
from nbcompare._nb.posterior.quadrature.rate_modes import (
    CURVATURE,
    CURVATURE1,
    CURVATURE2,
    RATE,
    RATE1,
    RATE2,
    SLOPE,
    SLOPE1,
    SLOPE2,
    prior_precision,
)

REACH = 5.0  # standard deviations on each side to begin with
EDGE = 1e-5  # of the largest row, what a row on the grid's edge may hold
WIDEST = 0.6  # step in natural log units
SIZE = 256  # points that a marginal may have
MOST = 60_000  # points of one group's table

# Tabulated marginals of one test, and the numbers that describe the grid of each.
OF_CHANGE, OF_RATE, OF_NULL_RATE = range(3)  # log fold change; reference's log rate given a change, and without one
START, STEP, POINTS = range(3)


class Box(NamedTuple):
    """Bounds of a grid of both log rates, in steps from the mode, and of the differences of the two."""

    first_low: int
    first_high: int
    second_low: int
    second_high: int
    gap_low: int
    gap_high: int


class Factors(NamedTuple):
    """The four factors of the integrand, tabulated."""

    first: np.ndarray  # likelihood of the reference
    second: np.ndarray  # of the treated group
    sums: np.ndarray  # prior of the centre, by the sum of both positions
    gaps: np.ndarray  # prior of the difference


@njit(cache=True, nogil=True, error_model="numpy")
def sum_null(data, prior, mode, fineness, density, layout):
    """Integral over the shared log rate relative to the mode; its density into `density`, its grid into `layout`."""
    s0 = prior.log_mean_sd
    sd = 1.0 / math.sqrt(mode[CURVATURE])
    step = fineness * min(0.45 * sd, WIDEST)
    if not possible(sd, step):
        return math.nan
    below = int(REACH * sd / step) + 1
    above = below
    for _ in range(40):
        n = below + above + 1
        if n > SIZE:
            step *= 1.4
            below = int(below / 1.4) + 1
            above = int(above / 1.4) + 1
            continue
        rates, table, other = np.empty(n), np.empty(n), np.empty(n)
        grid = Grid(mode[RATE], step, below, above)
        tabulate(data.y1, data.l1, data.phi1, grid, mode[SLOPE], rates, table)
        tabulate(data.y2, data.l2, data.phi2, grid, 0.0, rates, other)
        for k in range(n):
            distance = step * (k - below) / s0
            density[k] = table[k] * other[k] * math.exp(-0.5 * distance * distance)
        if density[0] > EDGE:
            below += below // 2 + 1
        if density[n - 1] > EDGE:
            above += above // 2 + 1
        if below + above + 1 == n:
            break
    layout[START], layout[STEP], layout[POINTS] = mode[RATE] - step * below, step, n
    total = 0.0
    for k in range(n):
        total += density[k]
    return total * step


@njit(cache=True, nogil=True, error_model="numpy")
def sum_change(data, prior, mode, fineness, differences, references, layouts):
    """Integral over both log rates relative to the mode.

    The marginal densities of the log fold change and of the reference's log rate go into `differences` and `references`, their grids into
    the first two rows of `layouts`.
    """
    along, across = prior_precision(prior)
    a, d = mode[CURVATURE1] + along, mode[CURVATURE2] + along
    determinant = a * d - across * across
    sd1, sd2 = math.sqrt(d / determinant), math.sqrt(a / determinant)
    sd = math.sqrt((a + d + 2.0 * across) / determinant)
    step = fineness * min(0.8 / math.sqrt(max(a + d + 2.0 * across, d)), 0.4 * sd, 0.45 * sd1, WIDEST)
    if not possible(max(sd, sd1, sd2), step):
        return math.nan
    rest1, rest2 = along - across * across / d, along - across * across / a
    low1 = -_extent(data.y1, data.l1, mode[RATE1], data.phi1, rest1, sd1, -2.0 * sd1, step)
    high1 = _extent(data.y1, data.l1, mode[RATE1], data.phi1, rest1, sd1, 2.0 * sd1, step)
    low2 = -_extent(data.y2, data.l2, mode[RATE2], data.phi2, rest2, sd2, -2.0 * sd2, step)
    high2 = _extent(data.y2, data.l2, mode[RATE2], data.phi2, rest2, sd2, 2.0 * sd2, step)
    longest = REACH * sd / step
    gap_low = -int(longest * max(-low2 * step / (REACH * sd2), high1 * step / (REACH * sd1), 1.0)) - 1
    gap_high = int(longest * max(high2 * step / (REACH * sd2), -low1 * step / (REACH * sd1), 1.0)) + 1
    box = Box(low1, high1, low2, high2, gap_low, gap_high)
    for _ in range(40):
        box = _within(box)
        n1, n2 = box.first_high - box.first_low + 1, box.second_high - box.second_low + 1
        if max(n1, n2) > MOST:
            step *= 1.5
            box = _coarser(box)
            continue
        factors = _tabulate_factors(data, prior, mode, box, step)
        larger = _enlarged(factors, box)
        if larger == box:
            break
        box = larger
    stride = max(1, int(fineness * 0.4 * sd / step), (box.gap_high - box.gap_low) // (SIZE - 4) + 1)
    stride1 = max(1, int(fineness * 0.45 * sd1 / step), (box.first_high - box.first_low) // (SIZE - 4) + 1)
    total = 0.0
    n = 0
    for t in range(-(-box.gap_low // stride), box.gap_high // stride + 1):
        differences[n] = _diagonal(factors, box, t * stride)
        total += differences[n]
        n += 1
    layouts[OF_CHANGE, START] = mode[RATE2] - mode[RATE1] - step * stride * (-box.gap_low // stride)
    layouts[OF_CHANGE, STEP], layouts[OF_CHANGE, POINTS] = step * stride, n
    n = 0
    for t in range(-(-box.first_low // stride1), box.first_high // stride1 + 1):
        references[n] = _row(factors, box, t * stride1)
        n += 1
    layouts[OF_RATE, START] = mode[RATE1] - step * stride1 * (-box.first_low // stride1)
    layouts[OF_RATE, STEP], layouts[OF_RATE, POINTS] = step * stride1, n
    return total * step * step * stride


@njit(cache=True, nogil=True, error_model="numpy")
def possible(sd, step):
    """Whether a grid of these steps can reach over these standard deviations: false where one of them is not a number."""
    return 0.0 < step < 1e6 and sd < 1e6 * step


@njit(cache=True, nogil=True, error_model="numpy")
def _extent(y, l, eta, phi, rest, sd, away, step):
    """Grid points to begin with on one side: by the curvature two standard deviations away, where that is smaller."""
    bend = slopes(y, l, eta + away, phi)[1]
    return int(REACH * max(sd, 1.0 / math.sqrt(bend + rest)) / step) + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _within(box):
    """The box with no more differences than its log rates have."""
    gap_low = max(box.gap_low, box.second_low - box.first_high)
    gap_high = min(box.gap_high, box.second_high - box.first_low)
    return Box(box.first_low, box.first_high, box.second_low, box.second_high, gap_low, gap_high)


@njit(cache=True, nogil=True, error_model="numpy")
def _coarser(box):
    """The same box in steps that are half as long again."""
    return Box(
        int(box.first_low / 1.5),
        int(box.first_high / 1.5),
        int(box.second_low / 1.5),
        int(box.second_high / 1.5),
        int(box.gap_low / 1.5),
        int(box.gap_high / 1.5),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _tabulate_factors(data, prior, mode, box, step):
    """Likelihoods and priors on the grid."""
    n1, n2 = box.first_high - box.first_low + 1, box.second_high - box.second_low + 1
    rates, first, second = np.empty(max(n1, n2)), np.empty(n1), np.empty(n2)
    grid1 = Grid(mode[RATE1], step, -box.first_low, box.first_high)
    grid2 = Grid(mode[RATE2], step, -box.second_low, box.second_high)
    tabulate(data.y1, data.l1, data.phi1, grid1, mode[SLOPE1], rates, first)
    tabulate(data.y2, data.l2, data.phi2, grid2, mode[SLOPE2], rates, second)
    sums = _gaussian(0.5 * step / prior.log_mean_sd, box.first_low + box.second_low, box.first_high + box.second_high)
    gaps = _gaussian(step / prior.log_fc_sd, box.gap_low, box.gap_high)
    return Factors(first, second, sums, gaps)


@njit(cache=True, nogil=True, error_model="numpy")
def _gaussian(step, low, high):
    """exp(-(step k)^2 / 2) at k = low .. high."""
    table = np.empty(high - low + 1)
    for k in range(high - low + 1):
        x = step * (k + low)
        table[k] = inline_simd.exp(max(-0.5 * x * x, -700.0))
    return table


@njit(cache=True, nogil=True, error_model="numpy")
def _enlarged(factors, box):
    """The box with every side on whose edge too much lies moved by half; log-concave, the integrand has no more beyond than on the edges."""
    row = EDGE * _row(factors, box, 0)
    column = EDGE * _column(factors, box, 0)
    diagonal = EDGE * _diagonal(factors, box, 0)
    first_low = _row(factors, box, box.first_low) > row
    first_high = _row(factors, box, box.first_high) > row
    second_low = _column(factors, box, box.second_low) > column
    second_high = _column(factors, box, box.second_high) > column
    gap_low = box.gap_low > box.second_low - box.first_high and _diagonal(factors, box, box.gap_low) > diagonal
    gap_high = box.gap_high < box.second_high - box.first_low and _diagonal(factors, box, box.gap_high) > diagonal
    return Box(
        box.first_low + first_low * (box.first_low // 2 - 1),
        box.first_high + first_high * (box.first_high // 2 + 1),
        box.second_low + second_low * (box.second_low // 2 - 1),
        box.second_high + second_high * (box.second_high // 2 + 1),
        box.gap_low + gap_low * (box.gap_low // 2 - 1),
        box.gap_high + gap_high * (box.gap_high // 2 + 1),
    )


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _row(factors, box, i):
    """Sum over the treated group's log rates at the i-th of the reference."""
    low, high = max(box.second_low, i + box.gap_low), min(box.second_high, i + box.gap_high)
    n = high - low + 1
    if n <= 0:
        return 0.0
    a = factors.second[low - box.second_low :]
    b = factors.sums[i + low - box.first_low - box.second_low :]
    c = factors.gaps[low - i - box.gap_low :]
    total = 0.0
    for k in range(n):
        total += a[k] * b[k] * c[k]
    return total * factors.first[i - box.first_low]


@njit(cache=True, nogil=True, error_model="numpy")
def _column(factors, box, j):
    """Sum over the reference's log rates at the j-th of the treated group."""
    first, sums, gaps = factors.first, factors.sums, factors.gaps
    total = 0.0
    for i in range(max(box.first_low, j - box.gap_high), min(box.first_high, j - box.gap_low) + 1):
        total += first[i - box.first_low] * sums[i + j - box.first_low - box.second_low] * gaps[j - i - box.gap_low]
    return total * factors.second[j - box.second_low]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _diagonal(factors, box, gap):
    """Sum over pairs of log rates that differ by so many steps."""
    low, high = max(box.first_low, box.second_low - gap), min(box.first_high, box.second_high - gap)
    n = high - low + 1
    if n <= 0:
        return 0.0
    a = factors.first[low - box.first_low :]
    b = factors.second[low + gap - box.second_low :]
    c = factors.sums[2 * low + gap - box.first_low - box.second_low :]
    total = 0.0
    for k in range(n):
        total += a[k] * b[k] * c[2 * k]
    return total * factors.gaps[gap - box.gap_low]
