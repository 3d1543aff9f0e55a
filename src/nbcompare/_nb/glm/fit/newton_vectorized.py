"""Fits of several genes side by side, in arrays with a gene a column; the formulas are those of `glm_fit`, which stay the readable definition.

A gene that is done stays where it is, and what becomes of it does not depend on its neighbours. Those that need many steps, such as genes with
an empty group, are brought to their end by `newton.newton`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.glm.fit.newton import (
    ENOUGH,
    LARGEST_PREDICTOR,
    LARGEST_STEP,
    Fitted,
    Workspace,
    centre,
    make_fitted,
    make_space,
    newton,
)
from nbcompare._nb.numerics.cholesky import RIDGE
from nbcompare._nb.numerics.cholesky_vectorized import (
    add_scaled,
    add_times,
    backward,
    factor,
    forward,
    largest_of,
    sum_squares,
    transposed_times,
)
from nbcompare._nb.numerics.simd import exp, log

GENES_AT_ONCE = 64  # genes side by side
STEPS = 4  # made side by side
LARGEST_OFFSET = 700.0


class OneGene(NamedTuple):
    """Memory for one gene: its counts, a fit, and what else its fits write to."""

    y: np.ndarray  # (n_samples,)
    fitted: Fitted
    space: Workspace


class Vectors(NamedTuple):
    """Arrays of some genes side by side; `w` and what follows are written on."""

    total: np.ndarray  # (GENES_AT_ONCE,)
    phi: np.ndarray  # (GENES_AT_ONCE,)
    y: np.ndarray  # (n_samples, GENES_AT_ONCE), as the following to `w`
    offset: np.ndarray
    eta: np.ndarray  # linear predictor
    m: np.ndarray
    move: np.ndarray
    w: np.ndarray
    b: np.ndarray  # (p, GENES_AT_ONCE) coefficients
    g: np.ndarray  # (p, GENES_AT_ONCE)
    a: np.ndarray  # (p (p + 1) / 2, GENES_AT_ONCE)
    active: np.ndarray  # (GENES_AT_ONCE,) 1 where the fit has not come to its end, else 0
    gain: np.ndarray  # (GENES_AT_ONCE,)
    scale: np.ndarray  # (GENES_AT_ONCE,)


@njit(cache=True, nogil=True, error_model="numpy")
def allocate_gene(n, p):
    return OneGene(np.empty(n), make_fitted(n, p), make_space(n, p))


@njit(cache=True, nogil=True, error_model="numpy")
def allocate_vectors(n, p):
    wide = np.zeros((6, n, GENES_AT_ONCE))
    narrow = np.zeros((5, GENES_AT_ONCE))
    return Vectors(
        narrow[0],
        narrow[1],
        wide[0],
        wide[1],
        wide[2],
        wide[3],
        wide[4],
        wide[5],
        np.zeros((p, GENES_AT_ONCE)),
        np.zeros((p, GENES_AT_ONCE)),
        np.zeros((p * (p + 1) // 2, GENES_AT_ONCE)),
        narrow[2],
        narrow[3],
        narrow[4],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def fit_genes(data, depth, phi, chunk, start, design, vectors, one):
    """Fits of `chunk[1]` genes from `chunk[0]` on at their dispersions, from the coefficients of `start` if begun.

    `depth` is `common_depth` of the exposures, `one` memory for one gene.
    """
    first, size = chunk
    p = design.rows.shape[1]
    load_vectors(data, depth, phi, first, size, one.space.offset, vectors)
    if start.is_started:
        for k in range(size):
            for j in range(p):
                vectors.b[j, k] = start.coefficients[first + k, j]
    else:
        start_vectors(design, size, p, vectors)
    fit_vectorized(design, size, p, vectors, one.y, one.fitted, one.space)


@njit(cache=True, nogil=True, error_model="numpy")
def load_vectors(data, depth, phi, first, size, offset, vectors):
    """Counts, offsets (see `newton.centre`) and dispersions of `size` genes from `first` on."""
    for k in range(size):
        y = data.counts[first + k]
        log_exposure = data.log_exposure[first + k if data.log_exposure.shape[0] > 1 else 0]
        vectors.total[k] = centre(y, log_exposure, depth, data.centred, offset)
        vectors.phi[k] = phi[first + k]
        for i in range(y.shape[0]):
            vectors.y[i, k] = y[i]
            vectors.offset[i, k] = offset[i]


@njit(cache=True, nogil=True, error_model="numpy")
def start_vectors(design, size, p, vectors):
    """Coefficients by `glm_fit.start_from_counts`."""
    weigh_logs(vectors.y, vectors.offset, vectors.phi, design.ratio, size, vectors.move, vectors.w)
    transposed_times(vectors.move, design.columns, size, p, vectors.b)
    factor(vectors.w, design.products, size, p, vectors.a)
    forward(vectors.a, size, p, vectors.b)
    backward(vectors.a, size, p, vectors.b)


@njit(cache=True, nogil=True, error_model="numpy")
def start_null(design, shift, size, q, full, vectors):
    """The same genes in the first q columns, the last one's coefficient being `shift` (GENES_AT_ONCE,): from the projection of the fit on them."""
    last = design.rows.shape[1] - 1
    for k in range(size):
        vectors.total[k] = full.total[k]
        vectors.phi[k] = full.phi[k]
    for i in range(full.y.shape[0]):
        x = design.columns[last, i]
        c = design.ratio[i]
        for k in range(size):
            vectors.y[i, k] = full.y[i, k]
            vectors.offset[i, k] = full.offset[i, k] + shift[k] * x
            vectors.w[i, k] = full.m[i, k] / (1.0 + c * full.phi[k] * full.m[i, k])
            vectors.move[i, k] = vectors.w[i, k] * (full.eta[i, k] - vectors.offset[i, k])
    transposed_times(vectors.move, design.columns, size, q, vectors.b)
    factor(vectors.w, design.products, size, q, vectors.a)
    forward(vectors.a, size, q, vectors.b)
    backward(vectors.a, size, q, vectors.b)


@njit(cache=True, nogil=True, error_model="numpy")
def fit_vectorized(design, size, p, vectors, y, fitted, space):
    """`newton.newton` from the coefficients vectors.b; genes without counts are left. `y`, `fitted` and `space` are for one gene."""
    active = vectors.active
    gain = vectors.gain
    scale = vectors.scale
    for k in range(size):
        active[k] = 1.0 if vectors.total[k] > 0.0 else 0.0
    for i in range(y.shape[0]):
        for k in range(size):
            vectors.eta[i, k] = vectors.offset[i, k]
    add_times(vectors.b, design.columns, size, p, vectors.eta)
    exponentials(vectors.eta, size, vectors.m)
    for _ in range(STEPS):
        weigh(vectors.y, vectors.m, vectors.phi, design.ratio, size, vectors.move, vectors.w)
        transposed_times(vectors.move, design.columns, size, p, vectors.g)
        for j in range(p):
            for k in range(size):
                vectors.g[j, k] -= RIDGE * vectors.b[j, k]
        factor(vectors.w, design.products, size, p, vectors.a)
        forward(vectors.a, size, p, vectors.g)
        sum_squares(vectors.g, size, p, gain)
        backward(vectors.a, size, p, vectors.g)
        for i in range(y.shape[0]):
            for k in range(size):
                vectors.move[i, k] = 0.0
        add_times(vectors.g, design.columns, size, p, vectors.move)
        largest_of(vectors.move, size, scale)
        moving = 0.0
        for k in range(size):
            far = scale[k] > LARGEST_STEP
            scale[k] = active[k] * (LARGEST_STEP / scale[k] if far else 1.0)
            active[k] = active[k] if far or not gain[k] < ENOUGH else 0.0
            moving += active[k]
        add_scaled(scale, vectors.g, size, p, vectors.b)
        add_scaled(scale, vectors.move, size, vectors.eta.shape[0], vectors.eta)
        exponentials(vectors.eta, size, vectors.m)
        if moving == 0.0:
            return
    for k in range(size):
        if active[k] > 0.0:
            take_fit(k, p, vectors, y, fitted)
            newton(y, design, vectors.phi[k], p, fitted, space)
            for i in range(y.shape[0]):
                vectors.eta[i, k] = fitted.eta[i]
                vectors.m[i, k] = fitted.m[i]
            for j in range(p):
                vectors.b[j, k] = fitted.b[j]


@njit(cache=True, nogil=True, error_model="numpy")
def take_fit(k, p, vectors, y, fitted):
    """Counts and fit of one of the genes."""
    for i in range(y.shape[0]):
        y[i] = vectors.y[i, k]
        fitted.eta[i] = vectors.eta[i, k]
        fitted.m[i] = vectors.m[i, k]
    for j in range(p):
        fitted.b[j] = vectors.b[j, k]


@njit(cache=True, nogil=True, error_model="numpy")
def weigh_logs(y, offset, phi, ratio, size, t, w):
    """Weights of logarithms of counts, and those times the logarithms less the offset."""
    for i in range(y.shape[0]):
        c = ratio[i]
        for k in range(size):
            o = offset[i, k]
            o = LARGEST_OFFSET if o > LARGEST_OFFSET else o
            m = exp(-LARGEST_OFFSET if o < -LARGEST_OFFSET else o)
            seen = y[i, k] + 0.25 * m / (m + 1.0)
            seen = 0.05 if seen < 0.05 else seen
            w[i, k] = seen / (1.0 + c * phi[k] * seen)
            t[i, k] = w[i, k] * (log(seen) - offset[i, k])


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(y, m, phi, ratio, size, t, w):
    """The score's and the observed information's part of every sample."""
    for i in range(y.shape[0]):
        c = ratio[i]
        for k in range(size):
            own = c * phi[k]
            f = 1.0 / (1.0 + own * m[i, k])
            t[i, k] = (y[i, k] - m[i, k]) * f
            w[i, k] = m[i, k] * (1.0 + own * y[i, k]) * f * f


@njit(cache=True, nogil=True, error_model="numpy")
def exponentials(eta, size, m):
    """Means from linear predictors."""
    for i in range(eta.shape[0]):
        for k in range(size):
            x = eta[i, k]
            x = LARGEST_PREDICTOR if x > LARGEST_PREDICTOR else x
            m[i, k] = exp(-LARGEST_PREDICTOR if x < -LARGEST_PREDICTOR else x)
