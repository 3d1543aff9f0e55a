"""The negative binomial's log likelihood on any device, in torch float64: what `_nb.density` and `_nb.special` are for a number, for tensors.

Both sides of a branch are computed, so nothing here needs one but the sums below SERIES. Every difference of large terms is written out
before it is taken: with z = phi m and x = z / (1 + z), log(1 + z) - x, which is z^2/2 for small z, is the only one that is left.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SERIES = (
    1e-3  # below it log(1 + z) - z / (1 + z) is summed; there the series is right to 1e-12, above it the difference
)
SMALL_COUNT = 10  # up to it sums over j < y are counted, above it they are Stirling's
EXCESS = (1 / 2, 2 / 3, 3 / 4, 4 / 5)
DIGAMMA = (1 / 12, 1 / 120, 1 / 252, 1 / 240, 1 / 132, 691 / 32760)
TRIGAMMA = (1 / 6, 1 / 30, 1 / 42, 1 / 30, 5 / 66, 691 / 2730)
STIRLING = (1 / 12, 1 / 360, 1 / 1260, 1 / 1680, 1 / 1188)
HALF_LOG_TWO_PI = 0.9189385332046727


@lru_cache(maxsize=64)
def constants(values: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Numbers as tensors there: a term of a series is then one kernel."""
    return tuple(torch.full((), value, dtype=torch.float64, device=device) for value in values)


def alternating(z: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """A - z (b - z (c - ...))."""
    *others, value = constants(coefficients, z.device)
    for coefficient in reversed(others):
        value = torch.addcmul(coefficient, z, value, value=-1.0)
    return value


def excess(z: Tensor, x: Tensor) -> Tensor:
    """log(1 + z) - x, where x = z / (1 + z)."""
    return torch.where(z < SERIES, z * z * alternating(z, EXCESS), torch.log1p(z) - x)


def gamma_remainders(s: Tensor) -> tuple[Tensor, Tensor]:
    """digamma(s) - log(s) and trigamma(s) - 1/s at s >= 8."""
    u = 1.0 / s
    square = u * u
    digamma = -0.5 * u - square * alternating(square, DIGAMMA)
    trigamma = 0.5 * square + square * u * alternating(square, TRIGAMMA)
    return digamma, trigamma


def gamma_remainders_of_any(k: Tensor) -> tuple[Tensor, Tensor]:
    """The same at any k > 0, (n,): by recurrence up to 8."""
    s = k + torch.arange(8.0, dtype=k.dtype, device=k.device)[:, None]
    below = s < 8.0
    inverse = torch.where(below, 1.0 / s, 0.0)
    s = k + below.sum(0)
    digamma, trigamma = gamma_remainders(s)
    return digamma + torch.log(s / k) - inverse.sum(0), trigamma + (inverse * inverse).sum(0) + (1.0 / s - 1.0 / k)


def stirling_remainder(s: Tensor) -> Tensor:
    """Log Gamma(s) - (s - 1/2) log s + s - log(2 pi) / 2 at s >= 10."""
    u = 1.0 / s
    return u * alternating(u * u, STIRLING)


def stirling_remainder_of_any(k: Tensor) -> Tensor:
    """The same at any k > 0."""
    exact = torch.lgamma(k) - (k - 0.5) * torch.log(k) + k - HALF_LOG_TWO_PI
    return torch.where(k < 10.0, exact, stirling_remainder(k))


def rising_factorial_slopes(
    counts: Tensor, large: Tensor, beyond: Tensor, phi: Tensor, k: Tensor
) -> tuple[Tensor, Tensor]:
    """First derivative in alpha = log phi of the sum over counts, and over j < y, of log(1 + phi j), and minus the second, (n,) each.

    `large` is 1.0 for counts above 10, (replicates, n), and `beyond` how many of the others are above j = 1 .. 9. Above 10, with z = phi y, x = z / (1 + z)
    and A = log(1 + z) - x, the first is k (z x - A - digamma rests), minus the second k (A + digamma rests + k trigamma rests), of y + k less those of k = 1/phi.
    """
    j = torch.arange(1.0, SMALL_COUNT, dtype=phi.dtype, device=phi.device)[:, None]
    share = j * phi / (1.0 + j * phi)
    slope = (beyond * share).sum(0)
    curvature = (beyond * share * (share - 1.0)).sum(0)
    z = counts * phi
    x = z / (1.0 + z)
    above = excess(z, x)
    digamma, trigamma = gamma_remainders(counts + k)
    digamma_k, trigamma_k = gamma_remainders_of_any(k)
    digamma = digamma - digamma_k
    slope = slope + k * (large * (z * x - above - digamma)).sum(0)
    curvature = curvature - k * (large * (above + digamma + k * (trigamma - trigamma_k))).sum(0)
    return slope, curvature


def log_rising_factorial(
    counts: Tensor, large: Tensor, some_large: list[bool], beyond: Tensor, phi: Tensor, k: Tensor
) -> Tensor:
    """The sum over counts, and over j < y, of log(1 + phi j), at several dispersions, (points, n); `some_large`: which replicates have counts above 10."""
    value = torch.zeros_like(phi)
    for j in range(1, SMALL_COUNT):
        value.addcmul_(beyond[j - 1], torch.log1p(j * phi))
    for y, use, some in zip(counts, large, some_large, strict=True):
        if some:
            s = y + k
            value.addcmul_(use, (s - 0.5) * torch.log1p(phi * y) - y + stirling_remainder(s))
    return value - large.sum(0) * stirling_remainder_of_any(k)
