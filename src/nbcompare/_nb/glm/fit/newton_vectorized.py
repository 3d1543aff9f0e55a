"""Fits of several genes side by side, in arrays with a gene a column; the formulas are those of `glm_fit`, which stay the readable definition.

A gene that is done stays where it is, and what becomes of it does not depend on its neighbours. Those that need many steps, such as genes with
an empty arm, are brought to their end by `glm_fit.newton`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.glm.fit.newton import ENOUGH, LARGEST_PREDICTOR, LARGEST_STEP, centre, newton
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

LANES = 64  # genes side by side
STEPS = 4  # made side by side
LARGEST_OFFSET = 700.0


class Lanes(NamedTuple):
    """Arrays of some genes side by side; `w` and what follows are written on."""

    total: np.ndarray  # (LANES,)
    phi: np.ndarray  # (LANES,)
    y: np.ndarray  # (n_samples, LANES), as the following to `w`
    offset: np.ndarray
    eta: np.ndarray  # linear predictor
    m: np.ndarray
    move: np.ndarray
    w: np.ndarray
    b: np.ndarray  # (p, LANES) coefficients
    g: np.ndarray  # (p, LANES)
    a: np.ndarray  # (p (p + 1) / 2, LANES)
    active: np.ndarray  # (LANES,) 1 where the fit has not come to its end, else 0
    gain: np.ndarray  # (LANES,)
    scale: np.ndarray  # (LANES,)


@njit(cache=True, nogil=True, error_model="numpy")
def make_lanes(n, p):
    wide = np.zeros((6, n, LANES))
    narrow = np.zeros((5, LANES))
    return Lanes(
        narrow[0],
        narrow[1],
        wide[0],
        wide[1],
        wide[2],
        wide[3],
        wide[4],
        wide[5],
        np.zeros((p, LANES)),
        np.zeros((p, LANES)),
        np.zeros((p * (p + 1) // 2, LANES)),
        narrow[2],
        narrow[3],
        narrow[4],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def fit_genes(
    counts, log_exposure, depth, centred, phi, first, size, begun, coefficients, design, lanes, y, fitted, space
):
    """Fits of `size` genes from `first` on at their dispersions, from the coefficients (n_genes, p) if begun. The last three are for one gene."""
    p = design.rows.shape[1]
    load_lanes(counts, log_exposure, depth, centred, phi, first, size, space.offset, lanes)
    if begun:
        for k in range(size):
            for j in range(p):
                lanes.b[j, k] = coefficients[first + k, j]
    else:
        start_lanes(design, size, p, lanes)
    fit_lanes(design, size, p, lanes, y, fitted, space)


@njit(cache=True, nogil=True, error_model="numpy")
def load_lanes(counts, log_exposure, depth, centred, phi, first, size, offset, lanes):
    """Counts, offsets (see `glm_fit.centre`) and dispersions of `size` genes from `first` on."""
    for k in range(size):
        y = counts[first + k]
        lanes.total[k] = centre(y, log_exposure[first + k if log_exposure.shape[0] > 1 else 0], depth, centred, offset)
        lanes.phi[k] = phi[first + k]
        for i in range(y.shape[0]):
            lanes.y[i, k] = y[i]
            lanes.offset[i, k] = offset[i]


@njit(cache=True, nogil=True, error_model="numpy")
def start_lanes(design, size, p, lanes):
    """Coefficients by `glm_fit.start_from_counts`."""
    weigh_logs(lanes.y, lanes.offset, lanes.phi, design.ratio, size, lanes.move, lanes.w)
    transposed_times(lanes.move, design.columns, size, p, lanes.b)
    factor(lanes.w, design.products, size, p, lanes.a)
    forward(lanes.a, size, p, lanes.b)
    backward(lanes.a, size, p, lanes.b)


@njit(cache=True, nogil=True, error_model="numpy")
def start_null(design, shift, size, q, full, lanes):
    """The same genes in the first q columns, the last one's coefficient being `shift` (LANES,): from the projection of the fit on them."""
    last = design.rows.shape[1] - 1
    for k in range(size):
        lanes.total[k] = full.total[k]
        lanes.phi[k] = full.phi[k]
    for i in range(full.y.shape[0]):
        x = design.columns[last, i]
        c = design.ratio[i]
        for k in range(size):
            lanes.y[i, k] = full.y[i, k]
            lanes.offset[i, k] = full.offset[i, k] + shift[k] * x
            lanes.w[i, k] = full.m[i, k] / (1.0 + c * full.phi[k] * full.m[i, k])
            lanes.move[i, k] = lanes.w[i, k] * (full.eta[i, k] - lanes.offset[i, k])
    transposed_times(lanes.move, design.columns, size, q, lanes.b)
    factor(lanes.w, design.products, size, q, lanes.a)
    forward(lanes.a, size, q, lanes.b)
    backward(lanes.a, size, q, lanes.b)


@njit(cache=True, nogil=True, error_model="numpy")
def fit_lanes(design, size, p, lanes, y, fitted, space):
    """`glm_fit.newton` from the coefficients lanes.b; genes without counts are left. `y`, `fitted` and `space` are for one gene."""
    active = lanes.active
    gain = lanes.gain
    scale = lanes.scale
    for k in range(size):
        active[k] = 1.0 if lanes.total[k] > 0.0 else 0.0
    for i in range(y.shape[0]):
        for k in range(size):
            lanes.eta[i, k] = lanes.offset[i, k]
    add_times(lanes.b, design.columns, size, p, lanes.eta)
    exponentials(lanes.eta, size, lanes.m)
    for _ in range(STEPS):
        weigh(lanes.y, lanes.m, lanes.phi, design.ratio, size, lanes.move, lanes.w)
        transposed_times(lanes.move, design.columns, size, p, lanes.g)
        for j in range(p):
            for k in range(size):
                lanes.g[j, k] -= RIDGE * lanes.b[j, k]
        factor(lanes.w, design.products, size, p, lanes.a)
        forward(lanes.a, size, p, lanes.g)
        sum_squares(lanes.g, size, p, gain)
        backward(lanes.a, size, p, lanes.g)
        for i in range(y.shape[0]):
            for k in range(size):
                lanes.move[i, k] = 0.0
        add_times(lanes.g, design.columns, size, p, lanes.move)
        largest_of(lanes.move, size, scale)
        moving = 0.0
        for k in range(size):
            far = scale[k] > LARGEST_STEP
            scale[k] = active[k] * (LARGEST_STEP / scale[k] if far else 1.0)
            active[k] = active[k] if far or not gain[k] < ENOUGH else 0.0
            moving += active[k]
        add_scaled(scale, lanes.g, size, p, lanes.b)
        add_scaled(scale, lanes.move, size, lanes.eta.shape[0], lanes.eta)
        exponentials(lanes.eta, size, lanes.m)
        if moving == 0.0:
            return
    for k in range(size):
        if active[k] > 0.0:
            take_fit(k, p, lanes, y, fitted)
            newton(y, design, lanes.phi[k], p, fitted, space)
            for i in range(y.shape[0]):
                lanes.eta[i, k] = fitted.eta[i]
                lanes.m[i, k] = fitted.m[i]
            for j in range(p):
                lanes.b[j, k] = fitted.b[j]


@njit(cache=True, nogil=True, error_model="numpy")
def take_fit(k, p, lanes, y, fitted):
    """Counts and fit of one of the genes."""
    for i in range(y.shape[0]):
        y[i] = lanes.y[i, k]
        fitted.eta[i] = lanes.eta[i, k]
        fitted.m[i] = lanes.m[i, k]
    for j in range(p):
        fitted.b[j] = lanes.b[j, k]


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
