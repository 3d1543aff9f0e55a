"""How noisy is a gene around its fitted means? Pearson's statistic with finite-sample corrections, in any design.

At a working dispersion p0, with w = m / (1 + p0 m), V = m (1 + p0 m), h = w x' (X' W X)^-1 x, P = 1 - h and the constants kN, kP of the design
(see `design_constants`),

    X2 = sum (y - m)^2 / V,     R = sum P,     E X2 = R (1 + kP / mean(m)) / (1 + p0 kN),     K = sum P kp / (1 + p0 kN),   kp = max(0, 1 - h / m)

d = 2 K^2 / Var are its degrees of freedom, Var the variance that the design leaves to it (in one-way designs the Dirichlet-multinomial one
to a few per cent), and d (1 + (X2 (1 + p0 kN) / (1 + kP / mean(m)) - R) / K) is the numerator that is summed and moderated.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.glm_fit import (
    Matrices,
    centre,
    common_depth,
    make_fitted,
    make_space,
    newton,
    predict,
    start_from_counts,
)
from nbcompare._nb.skovgaard import information_root

EMPTY = 1e-3  # samples with smaller fitted means tell nothing
FEWEST_RESIDUALS = 0.2


def design_constants(columns: np.ndarray) -> tuple[float, float]:
    """KN and kP: how fast the mean of Pearson's statistic changes with the dispersion and with one over the mean.

    With the hat matrix H of the design, h its diagonal, a = sum h^2, c = sum H_ij^3 and q = h' H h:
    kN = (p - 3.75 a + 1.5 c + 1.25 q) / (n - p) and kP = (1.25 a - .5 c - .75 q) / (n - p); 1/n_g and 0 in groups of n_g samples.
    """
    return constants_of(np.linalg.qr(columns.T)[0])


def constants_of(basis: np.ndarray) -> tuple[float, float]:
    """`design_constants` from an orthonormal basis of the design's columns, (n_samples, p)."""
    n, p = basis.shape
    hat = basis @ basis.T
    h = np.diag(hat)
    a, c, q = (h**2).sum(), (hat**3).sum(), h @ hat @ h
    free = max(n - p, 1)
    return (p - 3.75 * a + 1.5 * c + 1.25 * q) / free, (1.25 * a - 0.5 * c - 0.75 * q) / free


@njit(cache=True, nogil=True, error_model="numpy")
def pearson(y, m, phi, design, k_noise, k_count, space):
    """Numerator, degrees of freedom d, and A = sum P w / R, the part of 1 / (phi + 1/m); (0, 0, m / (1 + phi m)) where nothing is told."""
    w = space.w
    h = space.leverage
    v = space.pull
    n, p = design.rows.shape
    information_root(m, phi, design.products, p, w, space.a)
    leverages(design.columns, p, space.a, space.z, h)
    squares = 0.0
    residuals = 0.0
    told = 0.0
    variance = 0.0
    information = 0.0
    total = 0.0
    used = 0.0
    for i in range(n):
        v[i] = 0.0
        total += m[i]
        if m[i] < EMPTY:
            continue
        used += 1.0
        leverage = min(h[i] * w[i], 1.0)
        rest = 1.0 - leverage
        spread = m[i] * (1.0 + phi * m[i])
        e = y[i] - m[i]
        squares += e * e / spread
        residuals += rest
        counts = max(0.0, 1.0 - leverage / m[i])
        noise = 0.5 * (leverage + k_noise)
        shrink = 1.0 / ((1.0 + 2.0 * phi * noise) * (1.0 + 3.0 * phi * noise))
        told += rest * counts
        variance += (2.0 * rest * (counts + phi * noise) + rest * rest * (1.0 / spread + 6.0 * phi)) * shrink
        information += rest * w[i]
        v[i] = rest * (1.0 + 2.0 * phi * m[i]) * math.sqrt(shrink * w[i] / spread)
    told /= 1.0 + phi * k_noise
    if residuals < FEWEST_RESIDUALS or told < 1e-3:
        mean = total / n
        return 0.0, 0.0, mean / (1.0 + phi * mean)
    for r in range(p):
        t = 0.0
        for i in range(n):
            t += v[i] * space.z[r, i]
        variance -= t * t
    degrees = 2.0 * told * told / max(variance, 0.3 * told)
    scaled = squares * (1.0 + phi * k_noise) / (1.0 + k_count * used / total)
    return degrees * (1.0 + (scaled - residuals) / told), degrees, information / residuals


@njit(cache=True, nogil=True, error_model="numpy")
def leverages(columns, p, a, z, h):
    """X' (L L')^-1 x of every sample, and z = L^-1 X', from Cholesky's factor."""
    n = columns.shape[1]
    for i in range(n):
        h[i] = 0.0
    for r in range(p):
        row = r * (r + 1) // 2
        for i in range(n):
            z[r, i] = columns[r, i]
        for c in range(r):
            t = a[row + c]
            for i in range(n):
                z[r, i] -= t * z[c, i]
        t = a[row + r]
        for i in range(n):
            z[r, i] *= t
            h[i] += z[r, i] * z[r, i]


@njit(cache=True, nogil=True, error_model="numpy")
def pearson_of_genes(counts, log_exposure, rows, columns, products, phi, k_noise, k_count, centred, begun, b, out):
    """Numerator, degrees of freedom and A of every gene at its phi, out (n_genes, 3); from the coefficients b if begun, into b."""
    n, p = rows.shape
    design = Matrices(rows, columns, products)
    offset = np.empty(n)
    fitted = make_fitted(n, p)
    space = make_space(n, p)
    depth = common_depth(log_exposure)
    for k in range(counts.shape[0]):
        y = counts[k]
        if centre(y, log_exposure[k if log_exposure.shape[0] > 1 else 0], depth, centred, offset) <= 0.0:
            out[k] = 0.0
            b[k] = 0.0
            continue
        if begun:
            fitted.b[:] = b[k]
            predict(offset, columns, p, fitted.b, fitted.eta)
        else:
            start_from_counts(y, offset, design, phi[k], p, fitted, space)
        newton(y, design, phi[k], p, fitted, space)
        b[k] = fitted.b
        out[k, 0], out[k, 1], out[k, 2] = pearson(y, fitted.m, phi[k], design, k_noise, k_count, space)
