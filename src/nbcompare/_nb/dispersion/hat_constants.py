"""Constants of a design's hat matrix, by which the mean of Pearson's statistic depends on the dispersion and on the mean."""

from __future__ import annotations

import numpy as np


def design_constants(columns: np.ndarray) -> tuple[float, float]:
    """KN and kP: how fast the mean of Pearson's statistic changes with the dispersion and with one over the mean.

    With the hat matrix H of the design, h its diagonal, a = sum h^2, c = sum H_ij^3 and q = h' H h:
    kN = (p - 3.75 a + 1.5 c + 1.25 q) / (n - p) and kP = (1.25 a - .5 c - .75 q) / (n - p); 1/n_g and 0 in groups of n_g samples.
    """
    return constants_of(np.linalg.qr(columns.T)[0])


def constants_of(basis: np.ndarray) -> tuple[float, float]:
    """`design_constants` from an orthonormal basis of the design's columns, (n_samples, p)."""
    n = len(basis)
    k_dispersion, k_count = part_constants(basis, np.ones((1, n)), np.ones(n))[0]
    return float(k_dispersion), float(k_count)


def part_constants(basis: np.ndarray, parts: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The same of parts of the samples, (n_parts, 2): each sample's term of the sums over the residual degrees of freedom of the part.

    The terms of kN are weighted by the dispersions of the samples relative to the gene's, `ratio` (n_samples,).
    """
    hat = basis @ basis.T
    h = np.diag(hat)
    a, c, q = h**2, (hat**3).sum(axis=1), h * (hat @ h)
    free = parts @ (1 - h)
    free = np.where(free > 0.5, free, 1.0)
    k_dispersion = parts @ (ratio * (h - 3.75 * a + 1.5 * c + 1.25 * q)) / free
    return np.stack([k_dispersion, parts @ (1.25 * a - 0.5 * c - 0.75 * q) / free], axis=1)
