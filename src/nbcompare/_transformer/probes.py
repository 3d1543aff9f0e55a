"""The log posterior of one test at several points at once: one loop over the counts, all points in each round."""

from __future__ import annotations

from numba import njit

from nbcompare._nb.branchless import log, log1p
from nbcompare._nb.density import stirling_remainder

POINTS = 24  # of rates, a multiple of what a processor computes at once
DISPERSIONS = 12
FLUSH = 4  # counts up to 10 whose factors are multiplied before a logarithm is taken


@njit(cache=True, nogil=True, error_model="numpy")
def add_rates(y, l, scale, inverse, out):
    """Out -= sum of (y + 1/phi) log(1 + phi m) at every point; `scale` is phi exp(eta), `inverse` 1/phi."""
    for i in range(y.shape[0]):
        for j in range(POINTS):
            out[j] -= (y[i] + inverse[j]) * log1p(l[i] * scale[j])


@njit(cache=True, nogil=True, error_model="numpy")
def add_log_rising_factorial(y, phi, inverse, product, out):
    """Out += sum over the counts, and over j < y, of log(1 + phi j), at every dispersion.

    Above 10 by Stirling's formula: (y + k - 1/2) log(1 + phi y) - y + rest(y + k) - rest(k), k = 1/phi.
    """
    large = 0
    small = 0
    for j in range(DISPERSIONS):
        product[j] = 1.0
    for i in range(y.shape[0]):
        if y[i] > 10.0:
            large += 1
            for j in range(DISPERSIONS):
                sum_ = y[i] + inverse[j]
                x = 1.0 / sum_
                square = x * x
                rest = x * (
                    1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square * (1 / 1188))))
                )
                out[j] += (sum_ - 0.5) * log1p(phi[j] * y[i]) - y[i] + rest
            continue
        if y[i] <= 1.0:
            continue
        for factor in range(1, int(y[i])):
            for j in range(DISPERSIONS):
                product[j] *= 1.0 + phi[j] * factor
        small += 1
        if small == FLUSH:
            small = 0
            for j in range(DISPERSIONS):
                out[j] += log(product[j])
                product[j] = 1.0
    for j in range(DISPERSIONS):
        out[j] += log(product[j])
    if large > 0:
        for j in range(DISPERSIONS):
            out[j] -= large * stirling_remainder(inverse[j])
