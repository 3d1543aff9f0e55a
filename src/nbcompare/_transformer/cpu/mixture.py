"""From units of the Laplace approximations to a `Mixture`: z = mode + A (mean + M deviate), axes alpha, centre, beta -> centre, beta, alpha."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from scipy.special import expit

from nbcompare._nb.posterior.mixture import Mixture


def assemble(laplace: np.ndarray, log_odds: np.ndarray, alternative: np.ndarray, null: np.ndarray) -> Mixture:
    """The mixtures of tests with these Laplace approximations (n, 15), columns as in `layout`.

    `log_odds` (n,) of no change; `alternative` (n, K, 10): weight, means, log scales and below the diagonal, in units of the approximation;
    `null` (n, K0, 6) the same for alpha and centre alone.
    """
    n = len(laplace)
    mean, cholesky = np.empty((n, alternative.shape[1], 3)), np.zeros((n, alternative.shape[1], 3, 3))
    null_mean, null_cholesky = np.empty((n, null.shape[1], 2)), np.zeros((n, null.shape[1], 2, 2))
    _assemble(laplace, alternative, null, mean, cholesky, null_mean, null_cholesky)
    return Mixture(
        null_probability=expit(log_odds),
        null_weight=normalised(null[:, :, 0]),
        null_mean=null_mean,
        null_cholesky=null_cholesky,
        weight=normalised(alternative[:, :, 0]),
        mean=mean,
        cholesky=cholesky,
    )


def normalised(weight: np.ndarray) -> np.ndarray:
    """Weights that add up to one, float64."""
    weight = weight.astype(np.float64)
    return weight / weight.sum(axis=1, keepdims=True)


@njit(cache=True, nogil=True, error_model="numpy")
def _assemble(laplace, alternative, null, mean, cholesky, null_mean, null_cholesky):
    for t in range(laplace.shape[0]):
        alpha, c, b, a00, a10, a11, a20, a21, a22, alpha0, c0, n00, n10, n11, _ = laplace[t]
        for k in range(alternative.shape[1]):
            _, u, v, w, d0, d1, d2, m10, m20, m21 = alternative[t, k]
            d0, d1, d2 = math.exp(d0), math.exp(d1), math.exp(d2)
            mean[t, k, 0] = c + a10 * u + a11 * v
            mean[t, k, 1] = b + a20 * u + a21 * v + a22 * w
            mean[t, k, 2] = alpha + a00 * u
            g00 = a00 * d0  # the factor A M, by rows alpha, centre, beta
            g10, g11 = a10 * d0 + a11 * m10, a11 * d1
            g20, g21, g22 = a20 * d0 + a21 * m10 + a22 * m20, a21 * d1 + a22 * m21, a22 * d2
            s00 = math.sqrt(g10 * g10 + g11 * g11)  # its rows in the order centre, beta, alpha, made triangular
            s10 = (g20 * g10 + g21 * g11) / s00
            s20 = g00 * g10 / s00
            s11 = math.sqrt(max(g20 * g20 + g21 * g21 + g22 * g22 - s10 * s10, 1e-12 * g22 * g22))
            s21 = (g00 * g20 - s20 * s10) / s11
            cholesky[t, k, 0, 0], cholesky[t, k, 1, 0], cholesky[t, k, 2, 0] = s00, s10, s20
            cholesky[t, k, 1, 1], cholesky[t, k, 2, 1] = s11, s21
            cholesky[t, k, 2, 2] = g00 * g11 * g22 / (s00 * s11)  # the determinant is that of A M
        for k in range(null.shape[1]):
            _, u, v, d0, d1, m10 = null[t, k]
            d0, d1 = math.exp(d0), math.exp(d1)
            null_mean[t, k, 0] = c0 + n10 * u + n11 * v
            null_mean[t, k, 1] = alpha0 + n00 * u
            g00 = n00 * d0
            g10, g11 = n10 * d0 + n11 * m10, n11 * d1
            s00 = math.sqrt(g10 * g10 + g11 * g11)
            null_cholesky[t, k, 0, 0], null_cholesky[t, k, 1, 0] = s00, g00 * g10 / s00
            null_cholesky[t, k, 1, 1] = g00 * g11 / s00
