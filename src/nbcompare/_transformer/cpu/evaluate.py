"""The log posterior of one test at points around its modes: one loop over the counts, all points in each round."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics.simd import log, log1p
from nbcompare._nb.numerics.special import stirling_remainder, stirling_series
from nbcompare._transformer.cpu.laplace import log_prior_alpha
from nbcompare._transformer.layout import (
    FAR,
    L0_ALPHA,
    L0_CENTRE,
    L0_CENTRE_ALPHA,
    L_ALPHA,
    L_BETA,
    L_BETA_ALPHA,
    L_BETA_CENTRE,
    L_CENTRE,
    L_CENTRE_ALPHA,
    MODE_ALPHA,
    MODE_BETA,
    MODE_CENTRE,
    NEAR,
    NULL_ALPHA,
    NULL_CENTRE,
)

POINTS = 24  # of rates, a multiple of what a processor computes at once
DISPERSIONS = 12
FLUSH = 4  # counts up to 10 whose factors are multiplied before a logarithm is taken

# Points where the log posterior is evaluated, four along each axis: the mode, then the mode without a change.
MODE, ALONG_CENTRE, ALONG_BETA, ALONG_ALPHA, NULL_MODE, NULL_ALONG_CENTRE, NULL_ALONG_ALPHA = 0, 1, 5, 9, 13, 14, 18
# Their dispersions: of the mode, of the four points along alpha, and the same without a change.
AT_MODE, AT_ALPHA, AT_NULL_MODE, AT_NULL_ALPHA, N_DISPERSIONS = 0, 1, 5, 6, 10


class Workspace(NamedTuple):
    """Arrays that one test's evaluations write to, (24,) each."""

    alpha: np.ndarray  # the points
    centre: np.ndarray
    beta: np.ndarray
    scale: np.ndarray
    inverse: np.ndarray
    phi: np.ndarray
    start: np.ndarray
    value: np.ndarray  # log posterior at the points, except for what depends on the dispersion alone
    of_dispersion: np.ndarray  # that, at the dispersions
    small_sums: np.ndarray  # (11, 2) see `laplace.group_slopes`


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
                out[j] += (sum_ - 0.5) * log1p(phi[j] * y[i]) - y[i] + stirling_series(sum_)
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


@njit(cache=True, nogil=True, error_model="numpy")
def lay_points(laplace, workspace):
    """Where the log posterior is evaluated: the mode, along centre, beta and alpha; the mode without a change, along centre and alpha."""
    alpha, c, b = workspace.alpha, workspace.centre, workspace.beta
    for j in range(POINTS):
        if j < NULL_MODE:
            alpha[j], c[j], b[j] = laplace[MODE_ALPHA], laplace[MODE_CENTRE], laplace[MODE_BETA]
        else:
            alpha[j], c[j], b[j] = laplace[NULL_ALPHA], laplace[NULL_CENTRE], 0.0
    for j in range(4):
        k = step(j)
        c[ALONG_CENTRE + j] += k * laplace[L_CENTRE]
        b[ALONG_CENTRE + j] += k * laplace[L_BETA_CENTRE]
        b[ALONG_BETA + j] += k * laplace[L_BETA]
        alpha[ALONG_ALPHA + j] += k * laplace[L_ALPHA]
        c[ALONG_ALPHA + j] += k * laplace[L_CENTRE_ALPHA]
        b[ALONG_ALPHA + j] += k * laplace[L_BETA_ALPHA]
        c[NULL_ALONG_CENTRE + j] += k * laplace[L0_CENTRE]
        alpha[NULL_ALONG_ALPHA + j] += k * laplace[L0_ALPHA]
        c[NULL_ALONG_ALPHA + j] += k * laplace[L0_CENTRE_ALPHA]


@njit(cache=True, nogil=True, error_model="numpy")
def step(j):
    """Minus far, minus near, near, far."""
    size = FAR if j == 0 or j == 3 else NEAR
    return -size if j < 2 else size


@njit(cache=True, nogil=True, error_model="numpy")
def evaluate(group1, group2, prior, laplace, workspace):
    """Log posterior at the points, except for what depends on the dispersion alone; that, at the ten dispersions."""
    alpha, c, b, scale, inverse, phi, _, value, of_dispersion, _ = workspace
    lay_points(laplace, workspace)
    for j in range(POINTS):
        eta1, eta2 = c[j] - 0.5 * b[j], c[j] + 0.5 * b[j]
        d = (c[j] - prior.log_mean) / prior.log_mean_sd
        value[j] = group1.total * eta1 + group2.total * eta2 - 0.5 * d * d
        value[j] -= 0.5 * b[j] * b[j] / (prior.log_fc_sd * prior.log_fc_sd)
        inverse[j] = math.exp(-alpha[j])
        scale[j] = math.exp(alpha[j] + eta1)
        phi[j] = math.exp(alpha[j] + eta2)
    add_rates(group1.counts, group1.exposure, scale, inverse, value)
    add_rates(group2.counts, group2.exposure, phi, inverse, value)
    for j in range(DISPERSIONS):
        at = point_of_dispersion(min(j, N_DISPERSIONS - 1))
        inverse[j] = inverse[at]
        phi[j] = 1.0 / inverse[j]
        of_dispersion[j], _, _ = log_prior_alpha(alpha[at], prior)
    add_log_rising_factorial(group1.counts, phi, inverse, scale, of_dispersion)
    add_log_rising_factorial(group2.counts, phi, inverse, scale, of_dispersion)


@njit(cache=True, nogil=True, error_model="numpy")
def point_of_dispersion(j):
    """The point of the j-th dispersion; points are at or behind it."""
    if j == AT_MODE:
        return MODE
    if j < AT_NULL_MODE:
        return ALONG_ALPHA + j - AT_ALPHA
    return NULL_MODE if j == AT_NULL_MODE else NULL_ALONG_ALPHA + j - AT_NULL_ALPHA
