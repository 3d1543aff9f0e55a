"""The profile likelihood of one gene in the dispersion, the same of all samples, in a design; `profile` and `maximum` for designs.

The Cox-Reid adjustment takes half the log determinant of the information X' Q X, Q = m / (1 + phi m), of the first `nuisance` columns off the
profile (none if zero).
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.glm.fit.newton import newton
from nbcompare._nb.glm.skovgaard import information_root
from nbcompare._nb.likelihood.profile_maximum import newton_step
from nbcompare._nb.log_pmf import log_density, mean_slopes, rising_factorial_slopes
from nbcompare._nb.numerics.cholesky import backward, cholesky, forward, gram, half_log_determinant, transposed_times
from nbcompare._nb.numerics.special import digamma_minus_log, stirling_remainder

MAX_STEPS = 60
MIN_USABLE_MEAN = 1e-3  # fitted mean of a sample


@njit(cache=True, nogil=True, error_model="numpy")
def profile_out(y, design, p, phi, fitted, space):
    """Move the coefficients to their maximum at phi."""
    newton(y, design, phi, p, fitted, space)


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(y, design, p, phi, nuisance, fitted, space):
    """First and second derivative of the (adjusted) profile log likelihood in phi > 0; coefficients are moved to their maximum at phi.

    Second derivative of a profile: that at fixed coefficients plus u' J^-1 u, u = -X' ((y - m) m / (1 + phi m)^2), J the observed
    information. That of the adjustment is approximate: it only sets the step.
    """
    profile_out(y, design, p, phi, fitted, space)
    first = 0.0
    second = 0.0
    beyond_log, trigamma = digamma_minus_log(1.0 / phi)
    for i in range(y.shape[0]):
        log_rising_first, log_rising_second = rising_factorial_slopes(y[i], phi, beyond_log, trigamma)
        mean_first, mean_second = mean_slopes(y[i], fitted.m[i], phi)
        first += log_rising_first + mean_first
        second += log_rising_second + mean_second
    second += coefficient_slopes(y, design, p, phi, fitted.m, space)
    if nuisance > 0:
        adjustment_first, adjustment_second = adjustment_slopes(design, p, nuisance, phi, fitted.m, space)
        first += adjustment_first
        second += adjustment_second
    return first, second


@njit(cache=True, nogil=True, error_model="numpy")
def coefficient_slopes(y, design, p, phi, m, space):
    """U' J^-1 u; the derivative of the coefficients in phi, J^-1 u, is left in space.g."""
    for i in range(y.shape[0]):
        f = 1.0 / (1.0 + phi * m[i])
        space.w[i] = m[i] * (1.0 + phi * y[i]) * f * f
        space.move[i] = -(y[i] - m[i]) * m[i] * f * f
    transposed_times(space.move, design.columns, p, space.g)
    gram(space.w, design.products, p, space.a)
    cholesky(space.a, p)
    forward(space.a, space.g, p)
    square = 0.0
    for j in range(p):
        square += space.g[j] * space.g[j]
    backward(space.a, space.g, p)
    return square


@njit(cache=True, nogil=True, error_model="numpy")
def adjustment_slopes(design, p, nuisance, phi, m, space):
    """Derivatives of -log|X' Q X| / 2: .5 sum h (q - d / (1 + phi m)), h leverages, d = x' J^-1 u from space.g; an approximate second one."""
    information_root(m, phi, design, nuisance, space.w, space.a)
    leverages(design.columns, nuisance, space.a, space.z, space.leverage)
    first = 0.0
    square = 0.0
    for i in range(m.shape[0]):
        d = 0.0
        for j in range(p):
            d += design.rows[i, j] * space.g[j]
        h = space.leverage[i] * space.w[i]
        first += h * (space.w[i] - d / (1.0 + phi * m[i]))
        square += h * space.w[i] * space.w[i]
    return 0.5 * first, 0.5 * first * first / max(nuisance, 1) - square


@njit(cache=True, nogil=True, error_model="numpy")
def adjusted(y, design, p, phi, nuisance, fitted, space):
    """Log likelihood at the fit, less half the log determinant of the information of the first `nuisance` columns."""
    value = 0.0
    rest = stirling_remainder(1.0 / phi) if phi > 0.0 else 0.0
    for i in range(y.shape[0]):
        value += log_density(y[i], fitted.m[i], phi, rest)
    if nuisance > 0:
        information_root(fitted.m, phi, design, nuisance, space.w, space.a)
        value -= half_log_determinant(space.a, nuisance)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def poisson_slope(y, design, p, nuisance, fitted, space):
    """Score in phi at the Poisson fit, half of sum((y - m)^2 - y) unless adjusted, the moment estimate of phi, lowest and highest usable mean."""
    score = 0.0
    squares = 0.0
    lowest = math.inf
    highest = 0.0
    for i in range(y.shape[0]):
        m = fitted.m[i]
        score += 0.5 * ((y[i] - m) ** 2 - y[i])
        squares += m * m
        highest = max(highest, m)
        if m > MIN_USABLE_MEAN:
            lowest = min(lowest, m)
    if nuisance > 0:
        coefficient_slopes(y, design, p, 0.0, fitted.m, space)
        score += adjustment_slopes(design, p, nuisance, 0.0, fitted.m, space)[0]
    return score, 2.0 * score / squares, lowest, highest


@njit(cache=True, nogil=True, error_model="numpy")
def search(y, design, p, nuisance, fitted, space, at_zero, lowest, highest):
    """Dispersion of the highest of all interior maxima, 0 if there is none; see `maximum.search`."""
    best = 0.0
    best_value = -math.inf
    low = 0.0
    phi = 1e-3 / highest
    last = min(max(100.0 / lowest, 100.0), 1e4)
    rose = at_zero > 0.0
    while phi < last or (rose and phi < 1e7):
        rises = slopes(y, design, p, phi, nuisance, fitted, space)[0] > 0.0
        if rose and not rises:
            top = maximize(y, design, p, nuisance, fitted, space, max(math.sqrt(low * phi), 0.5 * phi), low, phi)
            value = adjusted(y, design, p, top, nuisance, fitted, space)
            if value > best_value:
                best = top
                best_value = value
        rose = rises
        low = phi
        phi *= 2.0
    if best > 0.0:
        profile_out(y, design, p, best, fitted, space)
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def maximize(y, design, p, nuisance, fitted, space, phi, low, high):
    """Dispersion at a maximum of the profile between low and high by Newton's method in log phi, bracketed; see `maximum.maximize`."""
    for step in range(MAX_STEPS):
        score, curvature = slopes(y, design, p, phi, nuisance, fitted, space)
        phi, low, high, done = newton_step(phi, low, high, score, curvature, step)
        if done:
            break
    profile_out(y, design, p, phi, fitted, space)
    return phi


@njit(cache=True, nogil=True, error_model="numpy")
def leverages(columns, p, a, z, h):
    """X' (L L')^-1 x of every sample, and z = L^-1 X', from Cholesky's factor."""
    n = columns.shape[1]
    for i in range(n):
        h[i] = 0.0
    for r in range(p):
        row = r * (r + 1) // 2
        for i in range(n):
            z[r, i] = columns[r, i]
        for c in range(r):
            t = a[row + c]
            for i in range(n):
                z[r, i] -= t * z[c, i]
        t = a[row + r]
        for i in range(n):
            z[r, i] *= t
            h[i] += z[r, i] * z[r, i]
