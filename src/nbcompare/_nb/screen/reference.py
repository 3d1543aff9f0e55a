"""What a screen's tests take for given of the reference and of the blocks: constants of the gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from nbcompare._nb.dispersion.pearson import group_sums, sorted_members
from nbcompare._nb.two_group.block_effects import eliminate_groups, weigh_cells, weigh_samples
from nbcompare._nb.two_group.gene_test import group_statistic, moderate, totals
from nbcompare._nb.two_group.leave_one_out import varies_too_much

if TYPE_CHECKING:
    from nbcompare._nb.data import Pseudobulk
    from nbcompare._nb.two_group.dataset_fit import DatasetFit


def shared_information(
    pseudobulk: Pseudobulk, shared: DatasetFit, reference: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weighting slope, the reference's cells, the factor of all groups' cells, and block effects of every gene."""
    n_genes, n_blocks = len(pseudobulk.counts), pseudobulk.n_blocks
    slope = np.minimum(shared.block_dispersion, 1.0) * pseudobulk.counts.sum(axis=1) / pseudobulk.exposure.sum()
    cells, factor = np.ones((n_genes, n_blocks)), np.zeros((n_genes, n_blocks, n_blocks))
    effects = np.ones((n_blocks, n_genes))
    if pseudobulk.block is None:
        return slope, cells, factor, effects
    members, starts = sorted_members(pseudobulk.group)
    for r in range(n_blocks):
        sample = int(np.flatnonzero(pseudobulk.block == r)[0])
        effects[r] = shared.exposure[:, sample] / pseudobulk.exposure[sample]
    _shared_information(
        pseudobulk.exposure, effects.T.copy(), members, starts, pseudobulk.block, slope, reference, cells, factor
    )
    return slope, cells, factor, effects


@njit(cache=True, nogil=True, error_model="numpy")
def _shared_information(size_factor, effects, members, starts, block, slope, reference, cells, factor):
    n_blocks = cells.shape[1]
    of_groups = np.empty((starts.shape[0] - 1, n_blocks))
    weight = np.empty(size_factor.shape[0])
    exposure = np.empty(size_factor.shape[0])
    for g in range(cells.shape[0]):
        weigh_samples(size_factor, effects[g], block, slope[g], weight)
        for i in range(size_factor.shape[0]):
            exposure[i] = size_factor[i] * effects[g, block[i]]
        weigh_cells(weight, exposure, members, starts, block, -1, of_groups)
        cells[g] = of_groups[reference]
        eliminate_groups(of_groups, factor[g])


def reference_constants(
    counts: np.ndarray,
    exposure: np.ndarray,
    samples: np.ndarray,
    prior_phi: np.ndarray,
    prior_df: np.ndarray,
    mean: np.ndarray,
    by_gene: np.ndarray,
    df_ratio: float,
    in_fit: bool,
    leave_out: bool,
) -> np.ndarray:
    """Total, rate, E, D, weighting slope, dispersion, degrees of freedom and whether replicates vary too much.

    (8, n_variants, n_genes), the variants with all samples and without each.
    """
    out = np.empty((8, len(samples) + 1 if leave_out else 1, len(counts)))
    _reference_constants(counts, exposure, samples, prior_phi, prior_df, mean, by_gene, df_ratio, in_fit, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _reference_constants(counts, exposure, samples, prior_phi, prior_df, mean, by_gene, df_ratio, in_fit, out):
    n = samples.shape[0]
    for g in range(counts.shape[0]):
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        phi = prior_phi[g]
        whole, whole_weight = group_statistic(y, l, samples, 0, n, -1, phi)
        for j in range(out.shape[1]):
            skip = samples[j - 1] if j > 0 else -1
            total, depth = totals(y, l, samples, 0, n, skip)
            slope = phi * total / depth
            out[0, j, g], out[1, j, g], out[2, j, g], out[3, j, g] = group_sums(y, l, samples, 0, n, skip, slope)
            out[4, j, g] = slope
            numerator, weight = by_gene[g, 0], by_gene[g, 1]
            if in_fit and j > 0:
                part, part_weight = group_statistic(y, l, samples, 0, n, skip, phi)
                numerator += part - whole
                weight += part_weight - whole_weight
            out[5, j, g], out[6, j, g] = moderate(phi, prior_df[g], mean[g], numerator, weight / df_ratio)
            out[7, j, g] = 1.0 if varies_too_much(y, l, samples, 0, n, out[5, j, g]) else 0.0
