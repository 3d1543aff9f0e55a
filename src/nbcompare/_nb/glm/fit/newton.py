"""The coefficients of one gene at a fixed dispersion: Newton's method with the observed information, which is positive everywhere.

    score  X' (y - m) / (1 + phi m),        observed information  X' W X,  W = m (1 + phi y) / (1 + phi m)^2

phi is the gene's dispersion times the ratio of the sample. Kernels take the first p columns of a design. Where designs have an intercept, offsets carry
the gene's pooled rate, and coefficients are near zero unless there are effects.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics.cholesky import RIDGE, add_times, backward, cholesky, forward, gram, transposed_times
from nbcompare._nb.numerics.simd import exp

MAX_STEPS = 40
LARGEST_STEP = 2.0  # on the scale of the linear predictor
LARGEST_PREDICTOR = 40.0
SMALL_STEP = 0.01  # whose exponential is a short series
ENOUGH = 1e-6


class Matrices(NamedTuple):
    """One design in three arrays of one content, and what the dispersions of its samples are to each other."""

    rows: np.ndarray  # (n_samples, p)
    columns: np.ndarray  # (p, n_samples)
    products: np.ndarray  # (n_samples, p (p + 1) / 2), see `packed`
    ratio: np.ndarray  # (n_samples,) dispersion of each sample relative to the gene's


class GeneCounts(NamedTuple):
    """Counts and exposures of some genes."""

    counts: np.ndarray  # (n_genes, n_samples)
    log_exposure: np.ndarray  # (1 or n_genes, n_samples)
    centred: bool  # offsets carry the gene's pooled rate, see `centre`


class Designs(NamedTuple):
    """The design of the fit (first) and those of the contrasts, D in all; see `DesignMatrices`."""

    rows: np.ndarray  # (D, n_samples, p)
    columns: np.ndarray  # (D, p, n_samples)
    products: np.ndarray  # (D, n_samples, p (p + 1) / 2)
    ratio: np.ndarray  # (n_samples,) dispersion of each sample relative to the gene's
    tested: np.ndarray  # (n_contrasts,) int64, how many of the last columns are tested
    directions: np.ndarray  # (n_contrasts, p), of contrasts of one column


class GeneDispersions(NamedTuple):
    """Dispersions of some genes, (n_genes,) each, or of one gene; see `Moderation`."""

    phi: np.ndarray
    phi_root: np.ndarray  # where likelihood ratios are taken that are divided by tau2
    tau2: np.ndarray
    prior_df: np.ndarray
    own_df: np.ndarray
    pooled: np.ndarray


class Start(NamedTuple):
    """Coefficients that fits start from."""

    is_started: bool
    coefficients: np.ndarray  # (n_genes, p)


class Fitted(NamedTuple):
    """A fit at one dispersion."""

    b: np.ndarray  # (p,) coefficients
    eta: np.ndarray  # (n_samples,) linear predictor
    m: np.ndarray  # (n_samples,) means


class Workspace(NamedTuple):
    """Arrays that one gene's fits and tests write to."""

    null: Fitted
    refit: Fitted
    offset: np.ndarray  # (n_samples,), as the following to `w`
    counts: np.ndarray
    leverage: np.ndarray
    pull: np.ndarray
    move: np.ndarray
    w: np.ndarray
    g: np.ndarray  # (p,)
    z: np.ndarray  # (p, n_samples)
    a: np.ndarray  # (p (p + 1) / 2,)


@njit(cache=True, nogil=True, error_model="numpy")
def design_at(designs, d):
    """The d-th of the designs."""
    return Matrices(designs.rows[d], designs.columns[d], designs.products[d], designs.ratio)


@njit(cache=True, nogil=True, error_model="numpy")
def make_fitted(n, p):
    return Fitted(np.zeros(p), np.zeros(n), np.zeros(n))


@njit(cache=True, nogil=True, error_model="numpy")
def make_space(n, p):
    return Workspace(
        make_fitted(n, p),
        make_fitted(n, p),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(p),
        np.empty((p, n)),
        np.empty(p * (p + 1) // 2),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def centre(y, log_exposure, depth, centred, offset):
    """Total count; offset becomes the log exposures, if `centred` those of the means of samples that differ in exposure alone.

    `depth`: sum of the exposures, if known.
    """
    total = 0.0
    for i in range(y.shape[0]):
        total += y[i]
    shift = 0.0
    if centred and total > 0.0:
        if depth <= 0.0:
            for i in range(y.shape[0]):
                depth += math.exp(log_exposure[i])
        shift = math.log(total / depth)
    for i in range(y.shape[0]):
        offset[i] = log_exposure[i] + shift
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def common_depth(log_exposure):
    """Sum of the exposures where all genes have the same, else 0."""
    depth = 0.0
    if log_exposure.shape[0] == 1:
        for i in range(log_exposure.shape[1]):
            depth += math.exp(log_exposure[0, i])
    return depth


@njit(cache=True, nogil=True, error_model="numpy")
def start_from_counts(y, offset, design, phi, p, fitted, space):
    """One weighted least squares step on log counts, zeros being moved a little towards the pooled mean m: y + m / (4 (m + 1))."""
    for i in range(y.shape[0]):
        m = math.exp(offset[i])
        seen = max(y[i] + 0.25 * m / (m + 1.0), 0.05)
        space.w[i] = seen / (1.0 + phi * design.ratio[i] * seen)
        fitted.eta[i] = math.log(seen)
    project(offset, design, p, fitted, space)


@njit(cache=True, nogil=True, error_model="numpy")
def project(offset, design, p, fitted, space):
    """Coefficients (written) by least squares, with weights space.w, of eta - offset; eta becomes theirs."""
    b = fitted.b
    eta = fitted.eta
    for i in range(eta.shape[0]):
        eta[i] = space.w[i] * (eta[i] - offset[i])
    transposed_times(eta, design.columns, p, b)
    gram(space.w, design.products, p, space.a)
    cholesky(space.a, p)
    forward(space.a, b, p)
    backward(space.a, b, p)
    predict(offset, design.columns, p, b, eta)


@njit(cache=True, nogil=True, error_model="numpy")
def predict(offset, columns, p, b, eta):
    """Linear predictor of coefficients b."""
    for i in range(eta.shape[0]):
        eta[i] = offset[i]
    add_times(b, columns, p, eta)


@njit(cache=True, nogil=True, error_model="numpy")
def newton(y, design, phi, p, fitted, space):
    """Move coefficients, linear predictor and means to the maximum at phi.

    Ends with a step whose gain, the square of the score in units of its standard deviation, is below 1e-6; after it, the square of that.
    """
    b = fitted.b
    eta = fitted.eta
    m = fitted.m
    w = space.w
    g = space.g
    t = space.move
    n = y.shape[0]
    for i in range(n):
        m[i] = exp(min(max(eta[i], -LARGEST_PREDICTOR), LARGEST_PREDICTOR))
    for _ in range(MAX_STEPS):
        for i in range(n):
            own = phi * design.ratio[i]
            f = 1.0 / (1.0 + own * m[i])
            t[i] = (y[i] - m[i]) * f
            w[i] = m[i] * (1.0 + own * y[i]) * f * f
        transposed_times(t, design.columns, p, g)
        for j in range(p):
            g[j] -= RIDGE * b[j]
        gram(w, design.products, p, space.a)
        cholesky(space.a, p)
        forward(space.a, g, p)
        gain = 0.0
        for j in range(p):
            gain += g[j] * g[j]
        backward(space.a, g, p)
        for i in range(n):
            t[i] = 0.0
        add_times(g, design.columns, p, t)
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(t[i]))
        scale = 1.0 if largest <= LARGEST_STEP else LARGEST_STEP / largest
        for j in range(p):
            b[j] += scale * g[j]
        for i in range(n):
            eta[i] += scale * t[i]
        if largest < SMALL_STEP:
            for i in range(n):
                m[i] *= 1.0 + t[i] * (1.0 + t[i] * (0.5 + t[i] * (1 / 6 + t[i] / 24)))
        else:
            for i in range(n):
                m[i] = exp(min(max(eta[i], -LARGEST_PREDICTOR), LARGEST_PREDICTOR))
        if gain < ENOUGH and largest <= LARGEST_STEP:
            break
