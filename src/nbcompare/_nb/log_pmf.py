"""Log of the negative binomial density, and its derivatives in the dispersion, accurate from phi = 0 to infinity and to counts of 1e9.

log f(y; m, phi) = sum_{j<y} log(1 + phi j) + y log m - (y + 1/phi) log(1 + phi m) - log y!

Nothing is the difference of two large terms: log-gamma functions, of which six digits are lost at phi = 1e-8, are written as Stirling's
formula and its remainder, digammas as logarithms and their remainder, and terms with phi m or phi y below SMALL are summed as power series.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.special import HALF_LOG_TWO_PI, digamma_minus_log, fast_log1p, stirling_remainder

SMALL = 0.005


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(y, m, phi, remainder):
    """Log density of a count y at mean m > 0 (or y = m = 0); `remainder` is `stirling_remainder(1/phi)`, not read at phi = 0.

    Above y = 10, with k = 1/phi and d = m - y: y log(1 + d/y) - (y + k) log(1 + d/(y + k)) - log(2 pi y (1 + phi y))/2 and Stirling's remainders.
    """
    if m <= 0.0:
        return 0.0 if y <= 0.0 else -math.inf
    x = phi * m
    d = m - y
    if y > 10.0:
        value = y * _log_ratio(m, y, d) - 0.5 * math.log(y * (1.0 + phi * y)) - HALF_LOG_TWO_PI - stirling_remainder(y)
        if phi <= 0.0:
            return value - d
        k = 1.0 / phi
        return value - (y + k) * _log_ratio(m + k, y + k, d) + stirling_remainder(y + k) - remainder
    constant = 1.0
    for j in range(1, int(y)):
        constant *= (1.0 + phi * j) / (j + 1.0)
    value = y * math.log(m) + math.log(constant)
    if x < 1e-6:
        return value - y * x - m * (1.0 - 0.5 * x)
    return value - (y + 1.0 / phi) * fast_log1p(x)


@njit(cache=True, nogil=True, error_model="numpy")
def mean_slopes(y, m, phi):
    """First and second derivative in phi, at fixed m, of -(y + 1/phi) log(1 + phi m)."""
    x = phi * m
    f = 1.0 / (1.0 + x)
    if x < SMALL:
        first = m * m * (0.5 - x * (2 / 3 - x * (3 / 4 - x * (4 / 5 - x * (5 / 6 - x * 6 / 7)))))
        second = m * m * m * (-2 / 3 + x * (3 / 2 - x * (12 / 5 - x * (10 / 3 - x * 30 / 7))))
    else:
        k = 1.0 / phi
        first = k * k * (fast_log1p(x) - x * f)
        second = k * (m * m * f * f - 2.0 * first)
    return first - y * m * f, second + y * m * m * f * f


@njit(cache=True, nogil=True, error_model="numpy")
def rising_factorial_slopes(y, phi, digamma, trigamma):
    """First and second derivative in phi of sum_{j<y} log(1 + phi j); the last two arguments are `digamma_minus_log(1/phi)`."""
    if y <= 1.0:
        return 0.0, 0.0
    if y <= 10.0:
        first = 0.0
        second = 0.0
        for j in range(1, int(y)):
            ratio = j / (1.0 + phi * j)
            first += ratio
            second -= ratio * ratio
        return first, second
    if phi * y < SMALL:
        n = y - 1.0
        s1 = 0.5 * n * y
        s2 = s1 * (2.0 * n + 1.0) / 3.0
        s3 = s1 * s1
        s4 = s2 * (3.0 * n * n + 3.0 * n - 1.0) / 5.0
        s5 = s3 * (2.0 * n * n + 2.0 * n - 1.0) / 3.0
        first = s1 - phi * (s2 - phi * (s3 - phi * (s4 - phi * s5)))
        second = -s2 + phi * (2.0 * s3 - phi * (3.0 * s4 - phi * 4.0 * s5))
        return first, second
    k = 1.0 / phi
    digamma_y, trigamma_y = digamma_minus_log(y + k)
    digammas = fast_log1p(phi * y) + digamma_y - digamma
    trigammas = trigamma_y - trigamma
    return k * (y - k * digammas), -k * k * (y - 2.0 * k * digammas - k * k * trigammas)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_ratio(a, b, difference):
    """log(a / b), from a - b where a and b are close."""
    if abs(difference) < 0.5 * b:
        return fast_log1p(difference / b)
    return math.log(a / b)
