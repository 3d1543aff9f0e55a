"""Scalar special functions for the kernels: digamma and trigamma, the remainder of Stirling's formula, the normal tail, and log1p, and Student's t on the normal scale."""

from __future__ import annotations

import math

from numba import njit

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = math.sqrt(0.5)


@njit(nogil=True, error_model="numpy", inline="always")
def stirling_series(x):
    """The remainder of Stirling's formula at x >= 10: five terms, to 1e-15. Without branches, so that loops over it are vectorized."""
    inverse = 1.0 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square * (1 / 1188)))))


@njit(cache=True, nogil=True, error_model="numpy")
def stirling_remainder(x: float) -> float:
    """Log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2 for x > 0."""
    if x < 10.0:
        return math.lgamma(x) - (x - 0.5) * math.log(x) + x - HALF_LOG_TWO_PI
    return stirling_series(x)


@njit(cache=True, nogil=True, error_model="numpy")
def digamma_trigamma(x: float) -> tuple[float, float]:
    """Both functions at x > 0.

    The absolute error is below 1e-10 for x >= 0.01; below that the poles -1/x and 1/x^2 rule and the error is relative (1e-14).
    """
    minus_log, trigamma = digamma_minus_log(x)
    return math.log(x) + minus_log, trigamma


@njit(cache=True, nogil=True, error_model="numpy")
def digamma_minus_log(x: float) -> tuple[float, float]:
    """digamma(x) - log(x), without cancellation at large x, and trigamma(x): recurrence up to 8, then six asymptotic terms."""
    digamma = 0.0
    trigamma = 0.0
    start = x
    while x < 8.0:
        inverse = 1.0 / x
        digamma -= inverse
        trigamma += inverse * inverse
        x += 1.0
    if x > start:
        digamma += math.log(x / start)
    inverse = 1.0 / x
    square = inverse * inverse
    series = 1 / 12 - square * (
        1 / 120 - square * (1 / 252 - square * (1 / 240 - square * (1 / 132 - square * (691 / 32760))))
    )
    digamma -= 0.5 * inverse + square * series
    series = 1 / 6 - square * (
        1 / 30 - square * (1 / 42 - square * (1 / 30 - square * (5 / 66 - square * (691 / 2730))))
    )
    trigamma += inverse + 0.5 * square + inverse * square * series
    return digamma, trigamma


@njit(cache=True, nogil=True, error_model="numpy")
def normal_tail(z: float) -> float:
    """P(Z > z) for a standard normal Z, accurate in relative terms down to the smallest float (z about 38)."""
    return 0.5 * math.erfc(z * _SQRT_HALF)


@njit(cache=True, nogil=True, error_model="numpy")
def fast_log1p(x: float) -> float:
    """log(1 + x) for x > -1 to a few ulp: the log of the rounded sum, and its first-order remainder.

    Three times as fast as `math.log1p`, which is a call into the C library.
    """
    rounded = 1.0 + x
    if abs(x) > 0.01:  # what rounding takes from such a sum is nothing to its log
        return math.log(rounded)
    return math.log(rounded) + (x - (rounded - 1.0)) / rounded


@njit(cache=True, nogil=True, error_model="numpy")
def normal_from_t(t: float, df: float) -> float:
    """The z >= 0 with P(Z > z) = P(T > |t|), T Student's t on `df` >= 1 degrees of freedom (infinite is allowed).

    With u = t^2/df: Hill's expansion (1970, Communications of the ACM 13, 617) where u <= min(4, df^2), nearly always; beyond,
    where it fails, the density of a = (df - 1/2) log(1 + u) is brought to the normal form twice by w^2 -> w^2 - 2 log(jacobian),
    and the small remainder, a smooth function of u and df, is taken off.
    Largest error of log10 p for |t| <= 1000: .0006 for df >= 3, .0016 for df >= 2, .02 for df >= 1; increasing in |t|.
    """
    if not df < math.inf:
        return abs(t)
    u = t * t / df
    log1p_u = fast_log1p(u)
    a = df - 0.5
    if u <= 4.0 and u <= df * df:
        b = 48.0 * a * a
        y = a * log1p_u
        poly = (((-0.4 * y - 3.3) * y - 24.0) * y - 85.5) / (0.8 * y * y + 100.0 + b)
        return ((poly + y + 3.0) / b + 1.0) * math.sqrt(y)
    return _far_normal_from_t(u, log1p_u, df)


@njit(cache=True, nogil=True, error_model="numpy")
def _far_normal_from_t(u: float, log1p_u: float, df: float) -> float:
    """`normal_from_t` for a large u = t^2/df; the last term is a fit to the exact tail."""
    a = df - 0.5
    first = (df - 1.0) * log1p_u + math.log(u / log1p_u)
    slope = 1.0 + (0.5 + 1.0 / u - 1.0 / log1p_u) / a
    second = first + math.log(a * log1p_u * slope * slope / first)
    rest = (0.17 + 0.12 / df) / (df * df) * u / (u + 17.0 * df / (df + 3.4))
    return math.sqrt(second - rest)
