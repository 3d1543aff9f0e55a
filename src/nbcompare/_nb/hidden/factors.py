"""Hidden factors: leading directions of the residuals, the loadings of genes, and what is left without them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.hidden.moderation import MeanTrend, moderate_squares

LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class GeneResiduals:
    """Residuals of genes along the residual directions, in units of their expected standard deviation."""

    along: np.ndarray  # (n_genes, d)
    rho: np.ndarray  # (n_genes,) fraction of the variance that is not Poisson variance at the trend
    root_information: np.ndarray  # (n_genes,) what one natural log unit along a direction of length one adds
    trend: MeanTrend

    @property
    def weight(self) -> np.ndarray:
        """What a gene can tell of factors, (n_genes,)."""
        return np.maximum(self.rho, LEAST_WEIGHT)


@dataclass(frozen=True)
class Factors:
    """Factors and loadings, and the variance with 0, 1, ... kmax factors removed."""

    vectors: np.ndarray  # (d, kmax) factors in the coordinates of the residual directions
    eigenvalues: np.ndarray  # (d,) of the weighted Gram matrix, descending
    loadings: np.ndarray  # (n_genes, kmax)
    total: np.ndarray  # (n_genes,) moderated mean square of all directions
    variance: np.ndarray  # (kmax + 1, n_genes) moderated mean square without the first k factors
    degrees: np.ndarray  # (kmax + 1, n_genes) its degrees of freedom
    load: np.ndarray  # (kmax + 1, n_genes) length of the first k loadings over the standard deviation
    varies_too_much: np.ndarray  # (kmax + 2,) variances of log dispersion: with all directions, then by k


def leading_factors(residuals: GeneResiduals, kmax: int, varies_too_much: np.ndarray | None = None) -> Factors:
    """The eigenvectors of sum_g w Z'Z with the largest eigenvalues, Z residuals over their moderated standard deviation.

    `varies_too_much` are variances of log dispersion that are known already.
    """
    along, trend, rho = residuals.along, residuals.trend, residuals.rho
    d = along.shape[1]
    squares = (along**2).sum(axis=1)
    known = [None] * (kmax + 2) if varies_too_much is None else list(varies_too_much)
    total = moderate_squares(squares / d, d, trend, rho, known[0])
    eigenvalues, vectors = gram_eigenvectors(along, total.variance, residuals.weight)
    loadings = along @ vectors[:, :kmax]
    explained = np.c_[np.zeros(len(along)), np.cumsum(loadings**2, axis=1)]
    left = [
        moderate_squares((squares - explained[:, k]) / (d - k), d - k, trend, rho, known[k + 1])
        for k in range(kmax + 1)
    ]
    variance = np.stack([one.variance for one in left])
    return Factors(
        vectors[:, :kmax],
        eigenvalues,
        loadings,
        total.variance,
        variance,
        np.stack([one.degrees for one in left]),
        np.sqrt(explained.T / variance),
        np.array([total.log_dispersion_var, *[one.log_dispersion_var for one in left]]),
    )


def gram_eigenvectors(along: np.ndarray, variance: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, descending, and eigenvectors; their sign makes sum_g w (Z v)^3 positive, so that the order of samples is nothing."""
    scaled = along / np.sqrt(variance)[:, None]
    values, vectors = np.linalg.eigh((scaled * weight[:, None]).T @ scaled / weight.sum())
    values, vectors = values[::-1], vectors[:, ::-1]
    skew = weight @ (scaled @ vectors) ** 3
    return values, np.ascontiguousarray(vectors * np.where(skew < 0, -1.0, 1.0))
