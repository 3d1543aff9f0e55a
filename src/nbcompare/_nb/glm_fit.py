"""The coefficients of one gene at a fixed dispersion: Newton's method with the observed information, which is positive everywhere.

    score  X' (y - m) / (1 + phi m),        observed information  X' W X,  W = m (1 + phi y) / (1 + phi m)^2

A design is three arrays of one content: `rows` (n_samples, p), `columns` (p, n_samples) and `products` (see `packed`). Kernels take its
first p columns. Offsets carry the gene's pooled rate, so coefficients are near zero unless there are effects.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.branchless import exp
from nbcompare._nb.packed import RIDGE, backward, cholesky, forward, gram

MAX_STEPS = 40
LARGEST_STEP = 2.0  # on the scale of the linear predictor
LARGEST_PREDICTOR = 40.0


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
def start_from_counts(y, offset, rows, columns, products, phi, p, b, eta, w, a):
    """One weighted least squares step on log counts, zeros being moved a little towards the pooled mean m: y + m / (4 (m + 1))."""
    n = y.shape[0]
    for i in range(n):
        m = exp(offset[i])
        w[i] = max(y[i] + 0.25 * m / (m + 1.0), 0.05)
        eta[i] = math.log(w[i])
        w[i] /= 1.0 + phi * w[i]
    project(offset, rows, columns, products, p, b, eta, w, a)


@njit(cache=True, nogil=True, error_model="numpy")
def project(offset, rows, columns, products, p, b, eta, w, a):
    """Coefficients (written) by least squares with weights w of eta - offset, and eta of these."""
    for j in range(p):
        b[j] = 0.0
    for i in range(eta.shape[0]):
        t = w[i] * (eta[i] - offset[i])
        for j in range(p):
            b[j] += t * rows[i, j]
    gram(w, products, p, a)
    cholesky(a, p)
    forward(a, b, p)
    backward(a, b, p)
    predict(offset, columns, p, b, eta)


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
def newton(y, rows, columns, products, phi, p, b, eta, m, w, a, g):
    """Coefficients, linear predictor and means at the maximum, from the coefficients and predictor given.

    Ends when a step's gain, the square of the score in units of its standard deviation, is below 1e-6: after that step it is 1e-12.
    """
    n = y.shape[0]
    for _ in range(MAX_STEPS):
        for i in range(n):
            m[i] = exp(min(max(eta[i], -LARGEST_PREDICTOR), LARGEST_PREDICTOR))
        for i in range(n):
            f = 1.0 / (1.0 + phi * m[i])
            eta_score = (y[i] - m[i]) * f
            w[i] = m[i] * (1.0 + phi * y[i]) * f * f
            m[i] = eta_score  # the mean is found again after the step
        for j in range(p):
            g[j] = -RIDGE * b[j]
        for i in range(n):
            t = m[i]
            for j in range(p):
                g[j] += t * rows[i, j]
        gram(w, products, p, a)
        cholesky(a, p)
        forward(a, g, p)
        gain = 0.0
        for j in range(p):
            gain += g[j] * g[j]
        backward(a, g, p)
        for i in range(n):
            w[i] = 0.0
        for j in range(p):
            t = g[j]
            for i in range(n):
                w[i] += t * columns[j, i]
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
