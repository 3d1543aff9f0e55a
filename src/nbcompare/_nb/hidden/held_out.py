"""Held-out directions: each takes the place of the contrast in turn, and shows how far tests without any effect vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as t_distribution

from nbcompare._nb.hidden.blend import inflation_of
from nbcompare._nb.hidden.factors import Factors, GeneResiduals, gram_eigenvectors, leading_factors
from nbcompare._nb.hidden.moderation import mean_trend
from nbcompare._nb.hidden.slopes import deviates, fit_slopes

DIRECTIONS = 56
GENES = 2000
GOLDEN = 0.6180339887498949
TAIL = 5e-4  # one-sided, at which numbers of factors are compared


@dataclass(frozen=True)
class HeldOut:
    """Tests of directions without effects, by number of factors."""

    z: np.ndarray  # (n_directions, kmax + 1, n_genes) signed normal deviates
    load: np.ndarray  # (n_directions, kmax + 1, n_genes)
    score: np.ndarray  # (kmax + 1,) log of the distance from zero that p = 0.001 needs


def held_out_tests(residuals: GeneResiduals, factors: Factors, mean: np.ndarray) -> HeldOut:
    """Tests of fixed directions: all genes, or 2,000 of them evenly spaced by mean; without random numbers.

    `factors` are those of all directions and `mean` (n_genes,) the mean counts.
    """
    d = residuals.along.shape[1]
    kmax = factors.loadings.shape[1]
    vectors = gram_eigenvectors(residuals.along, factors.total, residuals.weight)[1]
    order = np.lexsort(((residuals.along**2).sum(axis=1), mean))
    n_bases = -(-DIRECTIONS // d)
    left_out = np.unique(np.linspace(0, d - 1, min(d, DIRECTIONS)).astype(np.intp))
    found = []
    for base in range(n_bases):
        genes = order[genes_of_base(len(order), base, n_bases)]
        along = residuals.along[genes] @ (vectors @ held_out_basis(d, base))
        trend = mean_trend(mean[genes])
        rho, root = residuals.rho[genes], residuals.root_information[genes]
        for j in left_out:
            others = GeneResiduals(np.delete(along, j, axis=1), rho, root, trend)
            without = leading_factors(others, kmax, factors.varies_too_much)
            slopes = fit_slopes(np.ascontiguousarray(along[:, j]), root, others.weight, without, d - 1, held_out=True)
            log_variance = np.log(slopes.variance).mean(axis=1)
            degrees = np.median(without.degrees, axis=1)
            found.append((deviates(slopes.t, without.degrees), without.load, log_variance, degrees))
    z, load, log_variance, degrees = (np.stack(one) for one in zip(*found, strict=True))
    return HeldOut(z, load, _scores(z, log_variance.mean(axis=0), degrees.mean(axis=0)))


def _scores(z: np.ndarray, log_variance: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Half the mean log variance and the log inflation, and the log quantile of t, for each number of factors."""
    inflation = np.array([inflation_of(np.abs(z[:, k])) for k in range(z.shape[1])])
    return np.asarray(
        0.5 * (log_variance + np.log(inflation)) + np.log(t_distribution.isf(TAIL, np.minimum(degrees, 1e6)))
    )


def held_out_basis(d: int, base: int) -> np.ndarray:
    """Orthogonal (d, d): Hartley's matrix, which mixes all directions evenly, after signs that differ between bases."""
    i = np.arange(d)
    angle = 2 * np.pi * np.outer(i, i) / d
    signs = np.where((base * (i + 1.0) ** 2 * GOLDEN) % 1 < 0.5, 1.0, -1.0)
    return np.asarray(signs[:, None] * (np.cos(angle) + np.sin(angle)) / np.sqrt(d))


def genes_of_base(n_genes: int, base: int, n_bases: int) -> np.ndarray:
    """Positions in the order of the mean, others in each base; the same number in all."""
    if n_genes <= GENES:
        return np.arange(n_genes)
    step = n_genes / GENES
    return np.minimum((np.arange(GENES) * step + step * base / n_bases).astype(np.intp), n_genes - 1)
