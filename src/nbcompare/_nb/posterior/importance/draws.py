"""Draws of the importance sampling, and their density under the proposal and under the mixture."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics import simd as inline_simd
from nbcompare._nb.posterior.mixture_summary import CENTRE, DISPERSION, FOLD_CHANGE

DEGREES_CHANGE, DEGREES_NULL = 5.0, 6.0  # with three and two dimensions the density is a fourth power
DEFENSIVE_WEIGHT, DEFENSIVE_SCALE = 0.15, 2.0
LOG_TWO_PI = math.log(2.0 * math.pi)

# Columns of the quasi-random points: which component, three normal deviates, and what makes them Student's t given a change, and without.
COMPONENT, FIRST, SECOND, THIRD, STRETCH_CHANGE, STRETCH_NULL = range(6)


class Draws(NamedTuple):
    """Draws of one hypothesis of one test."""

    value: np.ndarray  # (3, n) centre, log fold change, log dispersion
    proposed: np.ndarray  # (n,) log density under the proposal
    surplus: np.ndarray  # (n,) density under the mixture, then the posterior's weights minus the mixture's


@njit(cache=True, nogil=True, error_model="numpy")
def _overall(weight, mean, cholesky, centre, factor):
    """Mean and Cholesky factor of the covariance of a mixture of normals."""
    d = mean.shape[1]
    covariance = np.zeros((d, d))
    centre[:] = 0.0
    for k in range(weight.shape[0]):
        for i in range(d):
            centre[i] += weight[k] * mean[k, i]
    for k in range(weight.shape[0]):
        for i in range(d):
            for j in range(i + 1):
                value = (mean[k, i] - centre[i]) * (mean[k, j] - centre[j])
                for a in range(j + 1):
                    value += cholesky[k, i, a] * cholesky[k, j, a]
                covariance[i, j] += weight[k] * value
    for i in range(d):
        for j in range(i + 1):
            value = covariance[i, j]
            for a in range(j):
                value -= factor[i, a] * factor[j, a]
            factor[i, j] = math.sqrt(max(value, 1e-12)) if i == j else value / factor[j, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _proposal(components):
    """Shares, centres and Cholesky factors of the components, and last of the defensive one, as wide as all of them and more."""
    weight, mean, cholesky = components
    n, d = mean.shape
    shares, centres, factors = np.empty(n + 1), np.empty((n + 1, d)), np.zeros((n + 1, d, d))
    for k in range(n):
        shares[k] = weight[k] * (1.0 - DEFENSIVE_WEIGHT)
        centres[k] = mean[k]
        for i in range(d):
            for j in range(i + 1):
                factors[k, i, j] = cholesky[k, i, j]
    _overall(weight, mean, cholesky, centres[n], factors[n])
    factors[n] *= DEFENSIVE_SCALE
    shares[n] = DEFENSIVE_WEIGHT
    return shares, centres, factors


@njit(cache=True, nogil=True, error_model="numpy")
def draw_change(components, points, draws):
    """Draws of centre, log fold change and log dispersion, the logarithm of their density under the proposal, and their density under the mixture."""
    drawn, density, normal = draws
    n_components = components.weight.shape[0]
    shares, centres, factors = _proposal(components)
    constant_normal = math.exp(-1.5 * LOG_TWO_PI) / (1.0 - DEFENSIVE_WEIGHT)
    n = points.shape[0]
    for s in range(n):
        k, below = 0, shares[0]
        while points[s, COMPONENT] > below and k < n_components:
            k += 1
            below += shares[k]
        stretch = points[s, STRETCH_CHANGE]
        a, b, c = points[s, FIRST] * stretch, points[s, SECOND] * stretch, points[s, THIRD] * stretch
        factor = factors[k]
        drawn[CENTRE, s] = centres[k, 0] + factor[0, 0] * a
        drawn[FOLD_CHANGE, s] = centres[k, 1] + factor[1, 0] * a + factor[1, 1] * b
        drawn[DISPERSION, s] = centres[k, 2] + factor[2, 0] * a + factor[2, 1] * b + factor[2, 2] * c
        density[s] = 0.0
        normal[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1, i2 = 1.0 / f[0, 0], 1.0 / f[1, 1], 1.0 / f[2, 2]
        top = shares[k] * i0 * i1 * i2
        for s in range(n):
            a = (drawn[CENTRE, s] - centres[k, 0]) * i0
            b = (drawn[FOLD_CHANGE, s] - centres[k, 1] - f[1, 0] * a) * i1
            c = (drawn[DISPERSION, s] - centres[k, 2] - f[2, 0] * a - f[2, 1] * b) * i2
            square = a * a + b * b + c * c
            q = 1.0 + square / DEGREES_CHANGE
            density[s] += top / (q * q * q * q)
            if k < n_components:
                normal[s] += top * constant_normal * inline_simd.exp(max(-0.5 * square, -700.0))
    # Gamma(4) / Gamma(5/2) / (5 pi)^(3/2)
    constant = math.lgamma(4.0) - math.lgamma(2.5) - 1.5 * math.log(DEGREES_CHANGE * math.pi)
    for s in range(n):
        density[s] = constant + inline_simd.log(density[s])


@njit(cache=True, nogil=True, error_model="numpy")
def draw_null(components, points, draws):
    """The same of centre and log dispersion where the log fold change is zero."""
    drawn, density, normal = draws
    n_components = components.weight.shape[0]
    shares, centres, factors = _proposal(components)
    constant_normal = math.exp(-LOG_TWO_PI) / (1.0 - DEFENSIVE_WEIGHT)
    n = points.shape[0]
    for s in range(n):
        k, below = 0, shares[0]
        while points[s, COMPONENT] > below and k < n_components:
            k += 1
            below += shares[k]
        stretch = points[s, STRETCH_NULL]
        a, b = points[s, FIRST] * stretch, points[s, SECOND] * stretch
        factor = factors[k]
        drawn[CENTRE, s] = centres[k, 0] + factor[0, 0] * a
        drawn[FOLD_CHANGE, s] = 0.0
        drawn[DISPERSION, s] = centres[k, 1] + factor[1, 0] * a + factor[1, 1] * b
        density[s] = 0.0
        normal[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1 = 1.0 / f[0, 0], 1.0 / f[1, 1]
        top = shares[k] * i0 * i1
        for s in range(n):
            a = (drawn[CENTRE, s] - centres[k, 0]) * i0
            b = (drawn[DISPERSION, s] - centres[k, 1] - f[1, 0] * a) * i1
            square = a * a + b * b
            q = 1.0 + square / DEGREES_NULL
            density[s] += top / (q * q * q * q)
            if k < n_components:
                normal[s] += top * constant_normal * inline_simd.exp(max(-0.5 * square, -700.0))
    constant = math.lgamma(4.0) - math.lgamma(3.0) - math.log(DEGREES_NULL * math.pi)
    for s in range(n):
        density[s] = constant + inline_simd.log(density[s])
