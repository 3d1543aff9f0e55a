"""How noisy is a gene around its fitted means? Pearson's statistic with finite-sample corrections, in any design.

At a working dispersion p0, with w = m / (1 + p0 m), V = m (1 + p0 m), h = w x' (X' W X)^-1 x, P = 1 - h and the constants kN, kP of the design
(see `dispersion.hat_constants`),

    X2 = sum (y - m)^2 / V,     R = sum P,     E X2 = R (1 + kP / mean(m)) / (1 + p0 kN),     K = sum P kp / (1 + p0 kN),   kp = max(0, 1 - h / m)

d = 2 K^2 / Var are its degrees of freedom, Var the variance that the design leaves to it (in one-way designs the Dirichlet-multinomial one
to a few per cent), and d (1 + (X2 (1 + p0 kN) / (1 + kP / mean(m)) - R) / K) is the numerator that is summed and moderated.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.glm.fit.newton import Matrices, common_depth, make_fitted, make_space
from nbcompare._nb.glm.fit.newton_vectorized import LANES, fit_genes, make_lanes
from nbcompare._nb.numerics.cholesky_vectorized import factor, forward, sum_squares, transposed_times

EMPTY = 1e-3  # samples with smaller fitted means tell nothing
FEWEST_RESIDUALS = 0.2

# What is summed over the samples of a gene:
SQUARES, RESIDUALS, TOLD, VARIANCE, INFORMATION, TOTAL, USED, SAMPLES = range(8)
N_SUMS = 8


@njit(cache=True, nogil=True, error_model="numpy")
def pearson_of_genes(
    counts, log_exposure, rows, columns, products, ratio, phi, parts, constants, centred, begun, b, out
):
    """Numerator, degrees of freedom and A of every gene at its phi, from the coefficients b if begun, into b.

    One for each part of the samples, out (n_genes, n_parts, 3): `parts` (n_parts, n_samples) are 1 for samples that count and 0 for others,
    all of which are fitted; `constants` (n_parts, 2) are its kN and kP.
    """
    n, p = rows.shape
    design = Matrices(rows, columns, products, ratio)
    y = np.empty(n)
    fitted = make_fitted(n, p)
    space = make_space(n, p)
    lanes = make_lanes(n, p)
    depth = common_depth(log_exposure)
    z = np.empty((p, LANES))
    sums = np.empty((N_SUMS, LANES))
    for first in range(0, counts.shape[0], LANES):
        size = min(LANES, counts.shape[0] - first)
        fit_genes(counts, log_exposure, depth, centred, phi, first, size, begun, b, design, lanes, y, fitted, space)
        for k in range(size):
            for j in range(p):
                b[first + k, j] = lanes.b[j, k] if lanes.total[k] > 0.0 else 0.0
        for part in range(parts.shape[0]):
            sum_squares_of_residuals(design, parts[part], size, constants[part, 0], lanes, z, sums)
            for k in range(size):
                g = first + k
                out[g, part, 0], out[g, part, 1], out[g, part, 2] = (
                    statistic_of_gene(sums, k, phi[g], constants[part, 0], constants[part, 1])
                    if lanes.total[k] > 0.0
                    else (0.0, 0.0, 0.0)
                )


@njit(cache=True, nogil=True, error_model="numpy")
def sum_squares_of_residuals(design, part, size, k_noise, lanes, z, sums):
    """X2, and what its mean and variance are made of, over the samples of a part, of genes side by side, at their fits."""
    n, p = design.rows.shape
    for i in range(n):
        c = design.ratio[i]
        for k in range(size):
            lanes.w[i, k] = lanes.m[i, k] / (1.0 + c * lanes.phi[k] * lanes.m[i, k])
    factor(lanes.w, design.products, size, p, lanes.a)
    for j in range(N_SUMS):
        for k in range(size):
            sums[j, k] = 0.0
    for i in range(n):
        for j in range(p):
            for k in range(size):
                z[j, k] = design.columns[j, i]
        forward(lanes.a, size, p, z)
        sum_squares(z, size, p, lanes.gain)
        add_sample(i, part[i], design.ratio[i], lanes, size, k_noise, sums)
    transposed_times(lanes.move, design.columns, size, p, z)
    forward(lanes.a, size, p, z)
    sum_squares(z, size, p, lanes.gain)
    for k in range(size):
        sums[VARIANCE, k] -= lanes.gain[k]


@njit(cache=True, nogil=True, error_model="numpy")
def add_sample(i, counted, ratio, lanes, size, k_noise, sums):
    """Adds sample i, whose leverages are lanes.gain w, to the sums, if counted (1, else 0).

    Into lanes.move go v: with z = L^-1 X', the variance loses the square of z v.
    """
    y, m, w, h, phi, v = lanes.y, lanes.m, lanes.w, lanes.gain, lanes.phi, lanes.move
    for k in range(size):
        own = ratio * phi[k]
        mean = m[i, k]
        tells = counted if mean >= EMPTY else 0.0
        sums[TOTAL, k] += counted * mean
        sums[SAMPLES, k] += counted
        sums[USED, k] += tells
        mean = mean if mean >= EMPTY else EMPTY
        leverage = h[k] * w[i, k]
        leverage = 1.0 if leverage > 1.0 else leverage
        rest = tells * (1.0 - leverage)
        spread = mean * (1.0 + own * mean)
        e = tells * (y[i, k] - mean)
        counts = 1.0 - leverage / mean
        counts = 0.0 if counts < 0.0 else counts
        noise = 0.5 * (own * leverage + phi[k] * k_noise)
        shrink = 1.0 / ((1.0 + 2.0 * noise) * (1.0 + 3.0 * noise))
        sums[SQUARES, k] += e * e / spread
        sums[RESIDUALS, k] += rest
        sums[TOLD, k] += rest * counts
        sums[VARIANCE, k] += (2.0 * rest * (counts + noise) + rest * rest * (1.0 / spread + 6.0 * own)) * shrink
        sums[INFORMATION, k] += rest * ratio * w[i, k]
        v[i, k] = rest * (1.0 + 2.0 * own * mean) * math.sqrt(shrink * w[i, k] / spread)


@njit(cache=True, nogil=True, error_model="numpy")
def statistic_of_gene(sums, k, phi, k_noise, k_count):
    """Numerator, degrees of freedom d, and A = sum P w / R, the part of 1 / (phi + 1/m); (0, 0, m / (1 + phi m)) where nothing is told."""
    told = sums[TOLD, k] / (1.0 + phi * k_noise)
    if sums[RESIDUALS, k] < FEWEST_RESIDUALS or told < 1e-3:
        mean = sums[TOTAL, k] / max(sums[SAMPLES, k], 1.0)
        return 0.0, 0.0, mean / (1.0 + phi * mean)
    degrees = 2.0 * told * told / max(sums[VARIANCE, k], 0.3 * told)
    scaled = sums[SQUARES, k] * (1.0 + phi * k_noise) / (1.0 + k_count * sums[USED, k] / sums[TOTAL, k])
    return degrees * (1.0 + (scaled - sums[RESIDUALS, k]) / told), degrees, sums[INFORMATION, k] / sums[RESIDUALS, k]
