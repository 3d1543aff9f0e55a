"""Designs that are groups of samples: exact dispersion statistics."""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.dispersion.pearson import group_sums, sorted_members, statistic_of_group
from nbcompare._nb.two_group.gene_test import totals


def group_statistics(
    counts: np.ndarray, exposure: np.ndarray, group: np.ndarray, phi: np.ndarray, ratio: np.ndarray, in_fit: np.ndarray
) -> np.ndarray:
    """Numerator and d, summed over the groups of the fit (n_groups,) bool, their dispersions `ratio` (n_groups,) times the gene's, and A = 1 / (phi + 1/m), (n_genes, 3); `exposure` (1 or n_genes, n_samples)."""
    out = np.zeros((len(counts), 3))
    _group_statistics(counts, exposure, *sorted_members(group), phi, ratio, in_fit, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _group_statistics(counts, exposure, members, starts, phi, ratio, in_fit, out):
    """Samples of two groups are weighted at their common rate, of more at their own."""
    n_groups = starts.shape[0] - 1
    for k in range(counts.shape[0]):
        y = counts[k]
        l = exposure[k if exposure.shape[0] > 1 else 0]
        total, depth = totals(y, l, members, 0, members.shape[0], -1)
        mean = total / members.shape[0]
        out[k, 2] = mean / (1.0 + phi[k] * mean)
        for j in range(n_groups):
            start, stop = starts[j], starts[j + 1]
            if not in_fit[j]:
                continue
            own_phi = ratio[j] * phi[k]
            own, own_depth = totals(y, l, members, start, stop, -1)
            if own < 2.0 or stop - start < 2:
                continue
            rate = total / depth if n_groups == 2 else own / own_depth
            _, fitted, _, factor = group_sums(y, l, members, start, stop, -1, own_phi * rate)
            numerator, d = statistic_of_group(y, l, members, start, stop, -1, own, fitted, factor, own_phi)
            out[k, 0] += numerator
            out[k, 1] += d
