"""What a screen's tests take for given of the reference and of the blocks: constants of the gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.dispersion.pearson import group_sums, sorted_members
from nbcompare._nb.two_group.block_effects import eliminate_groups, weigh_cells, weigh_samples
from nbcompare._nb.two_group.gene_test import group_statistic, moderate, totals
from nbcompare._nb.two_group.leave_one_out import varies_too_much

if TYPE_CHECKING:
    from nbcompare._nb.data import Pseudobulk
    from nbcompare._nb.two_group.dataset_fit import DatasetFit


class ReferenceConstants(NamedTuple):
    """What the tests need of the reference, (n_variants, n_genes) each: from all samples, then without each."""

    total: np.ndarray
    rate: np.ndarray
    pseudo_exposure: np.ndarray
    dispersion_factor: np.ndarray
    slope: np.ndarray  # samples are weighted by 1 / (1 + slope exposure)
    dispersion: np.ndarray  # moderated
    df: np.ndarray  # its degrees of freedom
    varies: np.ndarray  # 1 where replicates vary too much, else 0


class SharedDispersion(NamedTuple):
    """What is known of every gene's dispersion from all groups of the fit, (n_genes,) each."""

    mean: np.ndarray  # mean count of a sample
    prior_phi: np.ndarray
    prior_df: np.ndarray
    numerator: np.ndarray  # summed dispersion statistics
    weight: np.ndarray
    df_ratio: float


class BlockInformation(NamedTuple):
    """Blocks of a screen: effects, and what the share of information that they leave is computed from."""

    effects: np.ndarray  # (n_blocks, n_genes)
    slope: np.ndarray  # (n_genes,)
    cells: np.ndarray  # (n_genes, n_blocks)
    factor: np.ndarray  # (n_genes, n_blocks, n_blocks)


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
    shared: SharedDispersion,
    *,
    in_fit: bool,
    leave_out: bool,
) -> ReferenceConstants:
    """The constants of the reference's samples; without each of them only if `leave_out`."""
    out = ReferenceConstants(*np.empty((8, len(samples) + 1 if leave_out else 1, len(counts))))
    _reference_constants(counts, exposure, samples, shared, in_fit, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _reference_constants(counts, exposure, samples, shared, in_fit, out):
    n = samples.shape[0]
    for g in range(counts.shape[0]):
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        phi = shared.prior_phi[g]
        whole, whole_weight = group_statistic(y, l, samples, 0, n, -1, phi)
        for j in range(out.total.shape[0]):
            skip = samples[j - 1] if j > 0 else -1
            total, depth = totals(y, l, samples, 0, n, skip)
            slope = phi * total / depth
            sums = group_sums(y, l, samples, 0, n, skip, slope)
            out.total[j, g], out.rate[j, g], out.pseudo_exposure[j, g], out.dispersion_factor[j, g] = sums
            out.slope[j, g] = slope
            numerator, weight = shared.numerator[g], shared.weight[g]
            if in_fit and j > 0:
                part, part_weight = group_statistic(y, l, samples, 0, n, skip, phi)
                numerator += part - whole
                weight += part_weight - whole_weight
            moderated, df = moderate(phi, shared.prior_df[g], shared.mean[g], numerator, weight / shared.df_ratio)
            out.dispersion[j, g] = moderated
            out.df[j, g] = df
            out.varies[j, g] = 1.0 if varies_too_much(y, l, samples, 0, n, moderated) else 0.0
