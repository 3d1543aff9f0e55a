"""How much does a gene vary around its fitted means? Pearson's statistic with finite-sample corrections, in any design.

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

from nbcompare._nb.glm.fit.newton import common_depth
from nbcompare._nb.glm.fit.newton_vectorized import GENES_AT_ONCE, allocate_gene, allocate_vectors, fit_genes
from nbcompare._nb.numerics.cholesky_vectorized import factor, forward, sum_squares, transposed_times

EMPTY = 1e-3  # samples with smaller fitted means hold no information
FEWEST_RESIDUALS = 0.2

# What is summed over the samples of a gene:
SQUARES, RESIDUALS, INFORMATIVE, VARIANCE, INFORMATION, TOTAL, USED, SAMPLES = range(8)
N_SUMS = 8


@njit(cache=True, nogil=True, error_model="numpy")
def pearson_of_genes(data, design, phi, parts, constants, start, out):
    """Numerator, degrees of freedom and A of every gene at its phi; the fits begin at the coefficients of `start` and are written there.

    One for each part of the samples, out (n_genes, n_parts, 3): `parts` (n_parts, n_samples) are 1 for samples that count and 0 for others,
    all of which are fitted; `constants` (n_parts, 2) are its kN and kP.
    """
    n, p = design.rows.shape
    one = allocate_gene(n, p)
    vectors = allocate_vectors(n, p)
    depth = common_depth(data.log_exposure)
    z = np.empty((p, GENES_AT_ONCE))
    sums = np.empty((N_SUMS, GENES_AT_ONCE))
    for first in range(0, data.counts.shape[0], GENES_AT_ONCE):
        size = min(GENES_AT_ONCE, data.counts.shape[0] - first)
        fit_genes(data, depth, phi, (first, size), start, design, vectors, one)
        for k in range(size):
            for j in range(p):
                start.coefficients[first + k, j] = vectors.b[j, k] if vectors.total[k] > 0.0 else 0.0
        for part in range(parts.shape[0]):
            sum_squares_of_residuals(design, parts[part], size, constants[part, 0], vectors, z, sums)
            for k in range(size):
                g = first + k
                out[g, part, 0], out[g, part, 1], out[g, part, 2] = (
                    statistic_of_gene(sums, k, phi[g], constants[part, 0], constants[part, 1])
                    if vectors.total[k] > 0.0
                    else (0.0, 0.0, 0.0)
                )


@njit(cache=True, nogil=True, error_model="numpy")
def sum_squares_of_residuals(design, part, size, k_dispersion, vectors, z, sums):
    """X2, and what its mean and variance are made of, over the samples of a part, of genes side by side, at their fits."""
    n, p = design.rows.shape
    for i in range(n):
        c = design.ratio[i]
        for k in range(size):
            vectors.w[i, k] = vectors.m[i, k] / (1.0 + c * vectors.phi[k] * vectors.m[i, k])
    factor(vectors.w, design.products, size, p, vectors.a)
    for j in range(N_SUMS):
        for k in range(size):
            sums[j, k] = 0.0
    for i in range(n):
        for j in range(p):
            for k in range(size):
                z[j, k] = design.columns[j, i]
        forward(vectors.a, size, p, z)
        sum_squares(z, size, p, vectors.gain)
        add_sample(i, part[i], design.ratio[i], vectors, size, k_dispersion, sums)
    transposed_times(vectors.move, design.columns, size, p, z)
    forward(vectors.a, size, p, z)
    sum_squares(z, size, p, vectors.gain)
    for k in range(size):
        sums[VARIANCE, k] -= vectors.gain[k]


@njit(cache=True, nogil=True, error_model="numpy")
def add_sample(i, counted, ratio, vectors, size, k_dispersion, sums):
    """Adds sample i, whose leverages are vectors.gain w, to the sums, if counted (1, else 0).

    v goes into vectors.move: with z = L^-1 X', the variance loses the square of z v.
    """
    y, m, w, h, phi, v = vectors.y, vectors.m, vectors.w, vectors.gain, vectors.phi, vectors.move
    for k in range(size):
        own = ratio * phi[k]
        mean = m[i, k]
        usable = counted if mean >= EMPTY else 0.0
        sums[TOTAL, k] += counted * mean
        sums[SAMPLES, k] += counted
        sums[USED, k] += usable
        mean = mean if mean >= EMPTY else EMPTY
        leverage = h[k] * w[i, k]
        leverage = 1.0 if leverage > 1.0 else leverage
        rest = usable * (1.0 - leverage)
        spread = mean * (1.0 + own * mean)
        e = usable * (y[i, k] - mean)
        counts = 1.0 - leverage / mean
        counts = 0.0 if counts < 0.0 else counts
        dispersion_ratio = 0.5 * (own * leverage + phi[k] * k_dispersion)
        shrink = 1.0 / ((1.0 + 2.0 * dispersion_ratio) * (1.0 + 3.0 * dispersion_ratio))
        sums[SQUARES, k] += e * e / spread
        sums[RESIDUALS, k] += rest
        sums[INFORMATIVE, k] += rest * counts
        sums[VARIANCE, k] += (
            2.0 * rest * (counts + dispersion_ratio) + rest * rest * (1.0 / spread + 6.0 * own)
        ) * shrink
        sums[INFORMATION, k] += rest * ratio * w[i, k]
        v[i, k] = rest * (1.0 + 2.0 * own * mean) * math.sqrt(shrink * w[i, k] / spread)


@njit(cache=True, nogil=True, error_model="numpy")
def statistic_of_gene(sums, k, phi, k_dispersion, k_count):
    """Numerator, degrees of freedom d, and A = sum P w / R, the part of 1 / (phi + 1/m); (0, 0, m / (1 + phi m)) where there is no information."""
    informative = sums[INFORMATIVE, k] / (1.0 + phi * k_dispersion)
    if sums[RESIDUALS, k] < FEWEST_RESIDUALS or informative < 1e-3:
        mean = sums[TOTAL, k] / max(sums[SAMPLES, k], 1.0)
        return 0.0, 0.0, mean / (1.0 + phi * mean)
    degrees = 2.0 * informative * informative / max(sums[VARIANCE, k], 0.3 * informative)
    scaled = sums[SQUARES, k] * (1.0 + phi * k_dispersion) / (1.0 + k_count * sums[USED, k] / sums[TOTAL, k])
    return (
        degrees * (1.0 + (scaled - sums[RESIDUALS, k]) / informative),
        degrees,
        sums[INFORMATION, k] / sums[RESIDUALS, k],
    )
