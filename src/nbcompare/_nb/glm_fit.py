"""The coefficients of one gene at a fixed dispersion: Newton's method with the observed information, which is positive everywhere.

    score  X' (y - m) / (1 + phi m),        observed information  X' W X,  W = m (1 + phi y) / (1 + phi m)^2

Kernels take the first p columns of a design. Offsets carry the gene's pooled rate, so coefficients are near zero unless there are effects.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.branchless import exp
from nbcompare._nb.packed import RIDGE, backward, cholesky, forward, gram

MAX_STEPS = 40
LARGEST_STEP = 2.0  # on the scale of the linear predictor
LARGEST_PREDICTOR = 40.0


class Matrices(NamedTuple):
    """One design in three arrays of one content."""

    rows: np.ndarray  # (n_samples, p)
    columns: np.ndarray  # (p, n_samples)
    products: np.ndarray  # (n_samples, p (p + 1) / 2), see `packed`


class Fitted(NamedTuple):
    """A fit at one dispersion."""

    b: np.ndarray  # (p,) coefficients
    eta: np.ndarray  # (n_samples,) linear predictor
    m: np.ndarray  # (n_samples,) means


class Space(NamedTuple):
    """Arrays that one gene's fits and tests write to."""

    null: Fitted
    refit: Fitted
    offset: np.ndarray  # (n_samples,), as those to `w`
    counts: np.ndarray
    leverage: np.ndarray
    pull: np.ndarray
    w: np.ndarray
    g: np.ndarray  # (p,)
    z: np.ndarray  # (p, n_samples)
    a: np.ndarray  # (p (p + 1) / 2,)


@njit(cache=True, nogil=True, error_model="numpy")
def make_fitted(n, p):
    return Fitted(np.zeros(p), np.zeros(n), np.zeros(n))


@njit(cache=True, nogil=True, error_model="numpy")
def make_space(n, p):
    return Space(
        make_fitted(n, p),
        make_fitted(n, p),
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
def centre(y, log_exposure, offset):
    """Total count; offset becomes the log of the means of samples that differ in exposure alone."""
    total = 0.0
    depth = 0.0
    for i in range(y.shape[0]):
        total += y[i]
        depth += math.exp(log_exposure[i])
    if total > 0.0:
        shift = math.log(total / depth)
        for i in range(y.shape[0]):
            offset[i] = log_exposure[i] + shift
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def start_from_counts(y, offset, design, phi, p, fitted, space):
    """One weighted least squares step on log counts, zeros being moved a little towards the pooled mean m: y + m / (4 (m + 1))."""
    for i in range(y.shape[0]):
        m = math.exp(offset[i])
        seen = max(y[i] + 0.25 * m / (m + 1.0), 0.05)
        space.w[i] = seen / (1.0 + phi * seen)
        fitted.eta[i] = math.log(seen)
    project(offset, design, p, fitted, space)


@njit(cache=True, nogil=True, error_model="numpy")
def project(offset, design, p, fitted, space):
    """Coefficients (written) by least squares, with weights space.w, of eta - offset; eta becomes theirs."""
    b = fitted.b
    for j in range(p):
        b[j] = 0.0
    for i in range(offset.shape[0]):
        t = space.w[i] * (fitted.eta[i] - offset[i])
        for j in range(p):
            b[j] += t * design.rows[i, j]
    gram(space.w, design.products, p, space.a)
    cholesky(space.a, p)
    forward(space.a, b, p)
    backward(space.a, b, p)
    predict(offset, design.columns, p, b, fitted.eta)


@njit(cache=True, nogil=True, error_model="numpy")
def predict(offset, columns, p, b, eta):
    """Linear predictor of coefficients b."""
    for i in range(eta.shape[0]):
        eta[i] = offset[i]
    for j in range(p):
        t = b[j]
        for i in range(eta.shape[0]):
            eta[i] += t * columns[j, i]


@njit(cache=True, nogil=True, error_model="numpy")
def newton(y, design, phi, p, fitted, space):
    """Move coefficients, linear predictor and means to the maximum at phi.

    Ends when a step's gain, the square of the score in units of its standard deviation, is below 1e-6: after that step it is 1e-12.
    """
    b = fitted.b
    eta = fitted.eta
    m = fitted.m
    w = space.w
    g = space.g
    n = y.shape[0]
    for _ in range(MAX_STEPS):
        for i in range(n):
            m[i] = exp(min(max(eta[i], -LARGEST_PREDICTOR), LARGEST_PREDICTOR))
        for i in range(n):
            f = 1.0 / (1.0 + phi * m[i])
            w[i] = m[i] * (1.0 + phi * y[i]) * f * f
            m[i] = (y[i] - m[i]) * f  # for a moment the score
        for j in range(p):
            g[j] = -RIDGE * b[j]
        for i in range(n):
            t = m[i]
            for j in range(p):
                g[j] += t * design.rows[i, j]
        gram(w, design.products, p, space.a)
        cholesky(space.a, p)
        forward(space.a, g, p)
        gain = 0.0
        for j in range(p):
            gain += g[j] * g[j]
        backward(space.a, g, p)
        for i in range(n):
            w[i] = 0.0
        for j in range(p):
            t = g[j]
            for i in range(n):
                w[i] += t * design.columns[j, i]
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(w[i]))
        scale = 1.0 if largest <= LARGEST_STEP else LARGEST_STEP / largest
        for j in range(p):
            b[j] += scale * g[j]
        for i in range(n):
            eta[i] += scale * w[i]
        if gain < 1e-6 and largest <= LARGEST_STEP:
            break
    for i in range(n):
        m[i] = exp(min(max(eta[i], -LARGEST_PREDICTOR), LARGEST_PREDICTOR))
