"""Integrals over the log rates of both groups at fixed dispersions, by sums over a lattice around the posterior's mode.

Given the dispersion of each group the likelihood is a product of one function of each arm's log rate, and the prior of centre and difference a product
too: each of the four is tabulated once on a lattice, and a pair of log rates costs three multiplications. The integrand is log-concave, analytic and
dies out on all sides, so that sums with steps of .8 standard deviations are exact to 1e-6 and better (the trapezoidal rule).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb import branchless
from nbcompare._nb.arm_likelihood import slopes, tabulate, value

REACH = 5.0  # standard deviations on each side to begin with
EDGE = 1e-5  # of the largest row, what a row on the lattice's edge may hold
WIDEST = 0.6  # step in natural log units
SIZE = 256  # points that a marginal may have
MOST = 60_000  # points of one arm's table
LOG_TWO_PI = math.log(2.0 * math.pi)


@njit(cache=True, nogil=True, error_model="numpy")
def climb_change(y1, l1, y2, l2, phi1, phi2, m0, s0, scale, start, out):
    """Mode of both log rates by Newton's steps from `start`; into `out`: log rates, curvatures of the arms' likelihoods, and the prior's slopes."""
    along = 0.25 / (s0 * s0) + 1.0 / (scale * scale)
    across = 0.25 / (s0 * s0) - 1.0 / (scale * scale)
    first, second = start
    for _ in range(40):
        slope1, bend1 = slopes(y1, l1, first, phi1)
        slope2, bend2 = slopes(y2, l2, second, phi2)
        to_centre = -0.5 * (0.5 * (first + second) - m0) / (s0 * s0)
        together = (second - first) / (scale * scale)
        out[0], out[1], out[2], out[3] = first, second, bend1, bend2
        out[4], out[5] = to_centre + together, to_centre - together
        a, d = bend1 + along, bend2 + along
        g1, g2 = slope1 + out[4], slope2 + out[5]
        determinant = a * d - across * across
        step1 = (d * g1 - across * g2) / determinant
        step2 = (a * g2 - across * g1) / determinant
        if abs(step1) * math.sqrt(a) < 0.02 and abs(step2) * math.sqrt(d) < 0.02:
            break
        longest = max(abs(step1), abs(step2))
        shrink = 2.0 / longest if longest > 2.0 else 1.0
        first += shrink * step1
        second += shrink * step2


@njit(cache=True, nogil=True, error_model="numpy")
def climb_null(y1, l1, y2, l2, phi1, phi2, m0, s0, start, out):
    """Mode of the log rate that both arms share; into `out`: log rate, curvature of the log posterior, and the prior's slope."""
    eta = start
    for _ in range(40):
        slope1, bend1 = slopes(y1, l1, eta, phi1)
        slope2, bend2 = slopes(y2, l2, eta, phi2)
        out[0], out[1], out[2] = eta, bend1 + bend2 + 1.0 / (s0 * s0), -(eta - m0) / (s0 * s0)
        step = (slope1 + slope2 + out[2]) / out[1]
        if abs(step) * math.sqrt(out[1]) < 0.02:
            break
        eta += max(min(step, 2.0), -2.0)


@njit(cache=True, nogil=True, error_model="numpy")
def laplace_change(y1, l1, y2, l2, phi1, phi2, m0, s0, scale, mode):
    """Log of the integral over both log rates by Laplace's method, without the growth terms."""
    along = 0.25 / (s0 * s0) + 1.0 / (scale * scale)
    across = 0.25 / (s0 * s0) - 1.0 / (scale * scale)
    determinant = (mode[2] + along) * (mode[3] + along) - across * across
    return peak_change(y1, l1, y2, l2, phi1, phi2, m0, s0, scale, mode) + LOG_TWO_PI - 0.5 * math.log(determinant)


@njit(cache=True, nogil=True, error_model="numpy")
def laplace_null(y1, l1, y2, l2, phi1, phi2, m0, s0, mode):
    """The same where both arms share their log rate."""
    return peak_null(y1, l1, y2, l2, phi1, phi2, m0, s0, mode[0]) + 0.5 * LOG_TWO_PI - 0.5 * math.log(mode[1])


@njit(cache=True, nogil=True, error_model="numpy")
def peak_change(y1, l1, y2, l2, phi1, phi2, m0, s0, scale, mode):
    """Log of likelihood times prior at the mode."""
    centre = (0.5 * (mode[0] + mode[1]) - m0) / s0
    difference = (mode[1] - mode[0]) / scale
    prior = -0.5 * (centre * centre + difference * difference) - LOG_TWO_PI - math.log(s0 * scale)
    return value(y1, l1, mode[0], phi1) + value(y2, l2, mode[1], phi2) + prior


@njit(cache=True, nogil=True, error_model="numpy")
def peak_null(y1, l1, y2, l2, phi1, phi2, m0, s0, eta):
    """Log of likelihood times prior at the mode of the shared log rate."""
    centre = (eta - m0) / s0
    prior = -0.5 * centre * centre - 0.5 * LOG_TWO_PI - math.log(s0)
    return value(y1, l1, eta, phi1) + value(y2, l2, eta, phi2) + prior


@njit(cache=True, nogil=True, error_model="numpy")
def sum_null(y1, l1, y2, l2, phi1, phi2, s0, mode, fineness, density, layout):
    """Integral over the shared log rate relative to the mode; its density into `density`; start, step and size of the lattice into `layout`."""
    sd = 1.0 / math.sqrt(mode[1])
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
        tabulate(y1, l1, mode[0], phi1, step, below, above, mode[2], rates, table)
        tabulate(y2, l2, mode[0], phi2, step, below, above, 0.0, rates, other)
        for k in range(n):
            distance = step * (k - below) / s0
            density[k] = table[k] * other[k] * math.exp(-0.5 * distance * distance)
        if density[0] > EDGE:
            below += below // 2 + 1
        if density[n - 1] > EDGE:
            above += above // 2 + 1
        if below + above + 1 == n:
            break
    layout[0], layout[1], layout[2] = mode[0] - step * below, step, n
    total = 0.0
    for k in range(n):
        total += density[k]
    return total * step


@njit(cache=True, nogil=True, error_model="numpy")
def sum_change(y1, l1, y2, l2, phi1, phi2, s0, scale, mode, fineness, differences, references, layout):
    """Integral over both log rates relative to the mode.

    The marginal densities of the log fold change and of the reference's log rate go into `differences` and `references`; start, step and
    size of their lattices into `layout`.
    """
    along = 0.25 / (s0 * s0) + 1.0 / (scale * scale)
    across = 0.25 / (s0 * s0) - 1.0 / (scale * scale)
    a, d = mode[2] + along, mode[3] + along
    determinant = a * d - across * across
    sd1, sd2 = math.sqrt(d / determinant), math.sqrt(a / determinant)
    sd = math.sqrt((a + d + 2.0 * across) / determinant)
    step = fineness * min(0.8 / math.sqrt(max(a + d + 2.0 * across, d)), 0.4 * sd, 0.45 * sd1, WIDEST)
    if not possible(max(sd, sd1, sd2), step):
        return math.nan
    box = np.empty(6, np.int64)
    rest1, rest2 = along - across * across / d, along - across * across / a
    box[0] = -_extent(y1, l1, mode[0], phi1, rest1, sd1, -2.0 * sd1, step)
    box[1] = _extent(y1, l1, mode[0], phi1, rest1, sd1, 2.0 * sd1, step)
    box[2] = -_extent(y2, l2, mode[1], phi2, rest2, sd2, -2.0 * sd2, step)
    box[3] = _extent(y2, l2, mode[1], phi2, rest2, sd2, 2.0 * sd2, step)
    longest = REACH * sd / step
    box[4] = -int(longest * max(-box[2] * step / (REACH * sd2), box[1] * step / (REACH * sd1), 1.0)) - 1
    box[5] = int(longest * max(box[3] * step / (REACH * sd2), -box[0] * step / (REACH * sd1), 1.0)) + 1
    for _ in range(40):
        box[4], box[5] = max(box[4], box[2] - box[1]), min(box[5], box[3] - box[0])
        n1, n2 = box[1] - box[0] + 1, box[3] - box[2] + 1
        if max(n1, n2) > MOST:
            step *= 1.5
            for k in range(6):
                box[k] = int(box[k] / 1.5)
            continue
        spare, first, second = np.empty(max(n1, n2)), np.empty(n1), np.empty(n2)
        tabulate(y1, l1, mode[0], phi1, step, -box[0], box[1], mode[4], spare, first)
        tabulate(y2, l2, mode[1], phi2, step, -box[2], box[3], mode[5], spare, second)
        sums = _bell(0.5 * step / s0, box[0] + box[2], box[1] + box[3])
        gaps = _bell(step / scale, box[4], box[5])
        if not _grow(first, second, sums, gaps, box):
            break
    stride = max(1, int(fineness * 0.4 * sd / step), (box[5] - box[4]) // (SIZE - 4) + 1)
    stride1 = max(1, int(fineness * 0.45 * sd1 / step), (box[1] - box[0]) // (SIZE - 4) + 1)
    total = 0.0
    n = 0
    for t in range(-(-box[4] // stride), box[5] // stride + 1):
        differences[n] = _diagonal(first, second, sums, gaps, box, t * stride)
        total += differences[n]
        n += 1
    layout[0], layout[1], layout[2] = mode[1] - mode[0] - step * stride * (-box[4] // stride), step * stride, n
    n = 0
    for t in range(-(-box[0] // stride1), box[1] // stride1 + 1):
        references[n] = _row(first, second, sums, gaps, box, t * stride1)
        n += 1
    layout[3], layout[4], layout[5] = mode[0] - step * stride1 * (-box[0] // stride1), step * stride1, n
    return total * step * step * stride


@njit(cache=True, nogil=True, error_model="numpy")
def possible(sd, step):
    """Whether a lattice of these steps can reach over these standard deviations: false where one of them is not a number."""
    return 0.0 < step < 1e6 and sd < 1e6 * step


@njit(cache=True, nogil=True, error_model="numpy")
def _extent(y, l, eta, phi, rest, sd, away, step):
    """Lattice points to begin with on one side: by the curvature two standard deviations away, where that is smaller."""
    bend = slopes(y, l, eta + away, phi)[1]
    return int(REACH * max(sd, 1.0 / math.sqrt(bend + rest)) / step) + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _bell(step, low, high):
    """exp(-(step k)^2 / 2) at k = low .. high."""
    bell = np.empty(high - low + 1)
    for k in range(high - low + 1):
        x = step * (k + low)
        bell[k] = branchless.exp(max(-0.5 * x * x, -700.0))
    return bell


@njit(cache=True, nogil=True, error_model="numpy")
def _grow(first, second, sums, gaps, box):
    """Move every side of the box on whose edge too much lies, by half; log-concave, the integrand has no more beyond than on the edges."""
    row = EDGE * _row(first, second, sums, gaps, box, 0)
    column = EDGE * _column(first, second, sums, gaps, box, 0)
    diagonal = EDGE * _diagonal(first, second, sums, gaps, box, 0)
    over0 = _row(first, second, sums, gaps, box, box[0]) > row
    over1 = _row(first, second, sums, gaps, box, box[1]) > row
    over2 = _column(first, second, sums, gaps, box, box[2]) > column
    over3 = _column(first, second, sums, gaps, box, box[3]) > column
    over4 = box[4] > box[2] - box[1] and _diagonal(first, second, sums, gaps, box, box[4]) > diagonal
    over5 = box[5] < box[3] - box[0] and _diagonal(first, second, sums, gaps, box, box[5]) > diagonal
    box[0] += over0 * (box[0] // 2 - 1)
    box[1] += over1 * (box[1] // 2 + 1)
    box[2] += over2 * (box[2] // 2 - 1)
    box[3] += over3 * (box[3] // 2 + 1)
    box[4] += over4 * (box[4] // 2 - 1)
    box[5] += over5 * (box[5] // 2 + 1)
    return over0 or over1 or over2 or over3 or over4 or over5


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _row(first, second, sums, gaps, box, i):
    """Sum over the treated arm's log rates at the i-th of the reference."""
    low, high = max(box[2], i + box[4]), min(box[3], i + box[5])
    n = high - low + 1
    if n <= 0:
        return 0.0
    a, b, c = second[low - box[2] :], sums[i + low - box[0] - box[2] :], gaps[low - i - box[4] :]
    total = 0.0
    for k in range(n):
        total += a[k] * b[k] * c[k]
    return total * first[i - box[0]]


@njit(cache=True, nogil=True, error_model="numpy")
def _column(first, second, sums, gaps, box, j):
    """Sum over the reference's log rates at the j-th of the treated arm."""
    total = 0.0
    for i in range(max(box[0], j - box[5]), min(box[1], j - box[4]) + 1):
        total += first[i - box[0]] * sums[i + j - box[0] - box[2]] * gaps[j - i - box[4]]
    return total * second[j - box[2]]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _diagonal(first, second, sums, gaps, box, gap):
    """Sum over pairs of log rates that differ by so many steps."""
    low, high = max(box[0], box[2] - gap), min(box[1], box[3] - gap)
    n = high - low + 1
    if n <= 0:
        return 0.0
    a, b, c = first[low - box[0] :], second[low + gap - box[2] :], sums[2 * low + gap - box[0] - box[2] :]
    total = 0.0
    for k in range(n):
        total += a[k] * b[k] * c[2 * k]
    return total * gaps[gap - box[4]]
