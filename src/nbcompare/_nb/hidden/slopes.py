"""How far each hidden factor differs between the groups that are compared: slopes of the contrast on the loadings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.stats import f as f_distribution

from nbcompare._nb.hidden.factors import Factors
from nbcompare._nb.numerics.special import normal_from_t

ROUNDS = 30
TOLERANCE = 1e-3
BISQUARE = 3.5 * 1.4826  # times the median absolute deviation
RIDGE = 1e-9
SMALLEST_LIMIT = 1e-12
LARGEST_CORRECTION = 0.9  # of a sum of squares, by the variance of loadings
NEAR_LEVEL = 0.05


@dataclass(frozen=True)
class Slopes:
    """The contrast with 0, 1, ... kmax factors: its common shift, slopes and tests."""

    shift: np.ndarray  # (kmax + 1,) natural log units along the contrast, of all genes alike
    slopes: np.ndarray  # (kmax + 1, kmax) of the loadings, zero beyond k
    t: np.ndarray  # (kmax + 1, n_genes)
    variance: np.ndarray  # (kmax + 1, n_genes) of the adjusted coordinate along the contrast
    near: int  # number of leading factors up to the last that lies near the contrast

    @property
    def inflation(self) -> np.ndarray:
        """By how much uncertain slopes raise the variance, 1 + b'b, (kmax + 1,)."""
        return np.asarray(1 + (self.slopes**2).sum(axis=1))


def fit_slopes(
    coordinate: np.ndarray,
    root_information: np.ndarray,
    weight: np.ndarray,
    factors: Factors,
    n_directions: int,
    *,
    held_out: bool = False,
) -> Slopes:
    """Weighted bisquare regression of the contrast's coordinate on the shift and the loadings, for each number of factors.

    Parameters
    ----------
    coordinate
        Of each gene along the contrast, (n_genes,).
    root_information
        What one log unit along the contrast adds to it, (n_genes,).
    weight
        Of the genes, (n_genes,); zero for those that are not tested.
    factors
        Factors and loadings of the same genes.
    n_directions
        Number of residual directions d.
    held_out
        The contrast is a residual direction that was left out: slopes of factors near it are not corrected.
    """
    sd = np.sqrt(factors.total)
    scaled = np.ascontiguousarray(np.c_[root_information, factors.loadings] / sd[:, None])
    target = coordinate / sd
    kmax = factors.loadings.shape[1]
    coefficients = np.zeros((kmax + 1, kmax + 1))
    no_error = np.zeros(len(target))
    for k in range(kmax + 1):
        found = coefficients[k, : k + 1]
        _bisquare(target, scaled[:, : k + 1], weight, no_error, np.zeros(k + 1), found)
        if held_out:
            continue
        along = near_contrast(found[1:], n_directions)
        if along.any():
            dispersion_ratio = factors.variance[k] / factors.total
            _bisquare(target, scaled[:, : k + 1], weight, dispersion_ratio, np.r_[0.0, along.astype(np.float64)], found)
    shift, slopes = coefficients[:, 0], coefficients[:, 1:]
    adjusted = coordinate - np.outer(shift, root_information) - slopes @ factors.loadings.T
    variance = factors.variance * (1 + (slopes**2).sum(axis=1))[:, None]
    near = 0
    if not held_out and kmax:
        plain = np.zeros(kmax + 1)
        _bisquare(target, scaled, weight, no_error, np.zeros(kmax + 1), plain)
        near = int(np.max(np.flatnonzero(near_contrast(plain[1:], n_directions)) + 1, initial=0))
    return Slopes(shift, slopes, adjusted / np.sqrt(variance), variance, near)


def near_contrast(slopes: np.ndarray, n_directions: int) -> np.ndarray:
    """Factors that differ between the groups by more than chance: d b^2 beyond the 0.05 / k quantile of F(1, d), (k,) bool."""
    limit = f_distribution.isf(NEAR_LEVEL / max(len(slopes), 1), 1, n_directions)
    return np.asarray(n_directions * slopes**2 > limit)


def deviates(t: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Normal deviates of Student's t, with its sign; arrays of one shape."""
    out = np.empty(t.shape)
    _deviates(t.reshape(-1), np.broadcast_to(degrees, t.shape).reshape(-1), out.reshape(-1))
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _deviates(t, degrees, out):
    for i in range(t.shape[0]):
        out[i] = np.copysign(normal_from_t(t[i], degrees[i]), t[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _bisquare(target, columns, weight, dispersion_ratio, corrected, found):
    """Coefficients of bisquare regression at 3.5 MADs; starts at zero, or if columns are corrected for the noise of loadings at `found`."""
    n, p = columns.shape
    products = np.empty((p, p))
    right = np.empty(p)
    left = np.empty(n)
    for _ in range(ROUNDS):
        for g in range(n):
            left[g] = target[g]
            for j in range(p):
                left[g] -= columns[g, j] * found[j]
        used = left[weight > 0]
        limit = max(BISQUARE * np.median(np.abs(used - np.median(used))), SMALLEST_LIMIT)
        products[:] = 0.0
        right[:] = 0.0
        of_overdispersion = 0.0
        for g in range(n):
            part = 1 - (left[g] / limit) ** 2
            if part <= 0 or weight[g] <= 0:
                continue
            w = weight[g] * part * part
            of_overdispersion += w * dispersion_ratio[g]
            for j in range(p):
                right[j] += w * columns[g, j] * target[g]
                for l in range(j + 1):
                    products[j, l] += w * columns[g, j] * columns[g, l]
        for j in range(p):
            for l in range(j):
                products[l, j] = products[j, l]
            products[j, j] -= corrected[j] * min(of_overdispersion, LARGEST_CORRECTION * products[j, j])
            products[j, j] += RIDGE
        new = np.linalg.solve(products, right)
        change = np.abs(new - found).max()
        found[:] = new
        if change < TOLERANCE:
            break
