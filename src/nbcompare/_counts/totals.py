"""Totals that tell one table of counts from another."""

from __future__ import annotations

import numba
import numpy as np

WEIGHTS = 251  # a prime: genes of equal weight are far apart


def totals(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of (n_samples, n_genes) by sample, plain and weighted by gene, (n_samples, 2); and by gene, (n_genes,).

    Sums of whole numbers are exact: they depend neither on their order nor on the type of the counts.
    """
    of_samples, of_genes = np.zeros((len(counts), 2)), np.zeros(counts.shape[1])
    _totals(counts, 1.0 + np.arange(counts.shape[1]) % WEIGHTS, of_samples, of_genes)
    return of_samples, of_genes


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _totals(counts, weights, of_samples, of_genes):
    for i in range(counts.shape[0]):
        plain = weighted = 0.0
        for j in range(counts.shape[1]):
            plain += counts[i, j]
            weighted += weights[j] * counts[i, j]
            of_genes[j] += counts[i, j]
        of_samples[i, 0], of_samples[i, 1] = plain, weighted
