"""Many targets against one reference: what is known of the reference and of the data set, fitted once, then every target on its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.high_dispersion_groups import (
    mean_statistic,
    ratio_to_trend,
)
from nbcompare._nb.dispersion.pearson import sorted_members, sum_statistics
from nbcompare._nb.dispersion.trend import prior_dispersion
from nbcompare._nb.screen.reference import (
    BlockInformation,
    ReferenceConstants,
    SharedDispersion,
    reference_constants,
    shared_information,
)
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.dataset_fit import fit_shared
from nbcompare._nb.two_group.leave_one_out import can_leave_out

EXTRAPOLATED = 10.0  # means above so many times the trend's last knot are flagged
FEW_GENES = 30


class ScreenConstants(NamedTuple):
    """What the kernels take for given in every test of a screen."""

    shared: SharedDispersion
    reference: ReferenceConstants
    blocks: BlockInformation
    gene_status: np.ndarray  # (n_genes,) uint32
    min_gene_counts: float


@dataclass(frozen=True)
class ScreenModel:
    """Fitted on the reference's samples and those of the groups of the fit. Rows of `*_group` arrays: all samples, then without each."""

    reference_counts: np.ndarray  # (n_reference, n_genes)
    reference_exposure: np.ndarray  # (n_reference,)
    reference_block: np.ndarray  # (n_reference,) int64
    effects: np.ndarray  # (n_blocks, n_genes) block effects
    block_slope: (
        np.ndarray
    )  # (n_genes,) samples are weighted by 1 / (1 + slope exposure effect) for the information of blocks
    block_cells: np.ndarray  # (n_genes, n_blocks) the reference's information in every block
    block_factor: np.ndarray  # (n_genes, n_blocks, n_blocks) of `blocks.eliminate_groups`
    mean: np.ndarray  # (n_genes,) mean count of a sample
    trend: np.ndarray  # (n_genes,) dispersion expected at that mean
    prior_phi: np.ndarray  # (n_genes,)
    prior_df: np.ndarray  # (n_genes,)
    numerator: np.ndarray  # (n_genes,) summed dispersion statistics of the groups of the fit
    weight: np.ndarray  # (n_genes,)
    reference_constants: ReferenceConstants
    gene_status: np.ndarray  # (n_genes,) uint32 flags of the gene in every comparison
    group_dispersion_ratio: np.ndarray  # (n_groups,) of the groups of the fit
    group_in_fit: np.ndarray  # (n_groups,) bool
    reference_in_fit: bool
    reference_dispersion_ratio: float  # dispersion of the reference relative to the data set's, 1 or above
    typical_ratio: float  # dispersion of the groups of the fit, relative to the trend
    typical_mean: float  # mean dispersion statistic of these groups
    knots: np.ndarray  # (n_bins,) of the trend
    knot_dispersion: np.ndarray  # (n_bins,)
    log_dispersion_var: float
    trend_error: float
    n_trend_genes: int
    df_ratio: float
    df_ratio_loo: float
    n_samples: int
    min_gene_counts: float

    @property
    def blocks(self) -> BlockInformation:
        """Block effects and the information of blocks, for the kernels."""
        return BlockInformation(self.effects, self.block_slope, self.block_cells, self.block_factor)

    @property
    def constants(self) -> ScreenConstants:
        """The model for the kernels."""
        shared = SharedDispersion(
            self.mean, self.prior_phi, self.prior_df, self.numerator, self.weight, float(self.df_ratio)
        )
        return ScreenConstants(
            shared, self.reference_constants, self.blocks, self.gene_status, float(self.min_gene_counts)
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every field as an array, for files and other processes."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ScreenModel:
        """The model that `to_arrays` took apart."""
        values = {name: np.asarray(array) for name, array in arrays.items()}
        plain: dict[str, Any] = {name: value if value.ndim else value.item() for name, value in values.items()}
        plain["reference_constants"] = ReferenceConstants(*plain["reference_constants"])
        return cls(**plain)


class ScreenBlock(NamedTuple):
    """Tests of some targets. Natural logarithms."""

    log_fc: np.ndarray  # (n_targets, n_genes)
    se: np.ndarray  # (n_targets, n_genes)
    statistic: np.ndarray  # (n_targets, n_genes)
    p_value: np.ndarray  # (n_targets, n_genes) float64
    dispersion: np.ndarray  # (n_targets, n_genes) of the target's group
    status: np.ndarray  # (n_targets, n_genes) uint32
    dispersion_ratio: np.ndarray  # (n_targets,) dispersion relative to the data set's


def fit_screen(
    pseudobulk: Pseudobulk, reference: int, *, min_gene_counts: float = 10.0, n_threads: int = 1
) -> ScreenModel:
    """All that the test of a target takes for given, from the reference and the groups of the fit."""
    groups = np.arange(pseudobulk.n_groups)
    pairs = np.stack([np.full(len(groups) - 1, reference), groups[groups != reference]], axis=1).astype(np.int64)
    shared = fit_shared(pseudobulk, pairs, min_gene_counts=min_gene_counts, n_threads=n_threads)
    mean = np.maximum(shared.mean, 0.5 / len(pseudobulk.group))  # a gene that only other targets express
    at_mean = shared.trend.at(mean)
    prior_phi, prior_df = prior_dispersion(mean, at_mean, shared.trend.log_dispersion_var, shared.trend.error)
    members, starts = sorted_members(pseudobulk.group)
    samples_in_fit = [members[starts[k] : starts[k + 1]] for k in groups[shared.in_fit]]
    by_gene, by_group = np.empty((len(mean), 2)), np.empty((len(samples_in_fit), 2))
    fit_starts = np.concatenate([[0], np.cumsum([len(samples) for samples in samples_in_fit])]).astype(np.int64)
    fit_samples = np.concatenate(samples_in_fit)
    sum_statistics(
        pseudobulk.counts, shared.exposure, fit_samples, fit_starts, prior_phi, by_gene, by_group, n_threads=n_threads
    )
    samples = members[starts[reference] : starts[reference + 1]]
    numerator, weight = by_gene[:, 0].copy(), by_gene[:, 1].copy()
    constants_of_reference = reference_constants(
        pseudobulk.counts,
        shared.exposure,
        samples,
        SharedDispersion(mean, prior_phi, prior_df, numerator, weight, float(shared.df_ratio)),
        in_fit=bool(shared.in_fit[reference]),
        leave_out=can_leave_out(np.array(len(samples)), np.array(2 * len(samples))).item()
        and bool(np.isfinite(shared.df_ratio_loo)),
    )
    usable = pseudobulk.counts.sum(axis=1) >= min_gene_counts
    flags = np.where(
        mean > EXTRAPOLATED * shared.trend.mean[-1], np.uint32(Status.HIGH_MEAN_EXTRAPOLATED), np.uint32(0)
    )
    flags |= np.uint32(Status.FEW_GENES if shared.trend.n_genes < FEW_GENES else Status.OK)
    block_slope, cells, factor, effects = shared_information(pseudobulk, shared, reference)
    block = np.zeros(len(samples), np.int64) if pseudobulk.block is None else pseudobulk.block[samples]
    return ScreenModel(
        reference_counts=np.ascontiguousarray(pseudobulk.counts[:, samples].T),
        reference_exposure=pseudobulk.exposure[samples],
        reference_block=block.astype(np.int64),
        effects=effects,
        block_slope=block_slope,
        block_cells=cells,
        block_factor=factor,
        mean=mean,
        trend=at_mean,
        prior_phi=prior_phi,
        prior_df=prior_df,
        numerator=numerator,
        weight=weight,
        reference_constants=constants_of_reference,
        gene_status=flags,
        group_dispersion_ratio=shared.dispersion_ratio,
        group_in_fit=shared.in_fit,
        reference_in_fit=bool(shared.in_fit[reference]),
        reference_dispersion_ratio=float(shared.dispersion_ratio[reference]),
        typical_ratio=ratio_to_trend(pseudobulk, shared.exposure, shared.trend, shared.df_ratio, shared.in_fit, usable),
        typical_mean=mean_statistic(pseudobulk, shared.exposure, shared.trend, shared.df_ratio, shared.in_fit, usable),
        knots=shared.trend.mean,
        knot_dispersion=shared.trend.dispersion,
        log_dispersion_var=float(shared.trend.log_dispersion_var),
        trend_error=float(shared.trend.error),
        n_trend_genes=int(shared.trend.n_genes),
        df_ratio=float(shared.df_ratio),
        df_ratio_loo=float(shared.df_ratio_loo),
        n_samples=len(pseudobulk.group),
        min_gene_counts=float(min_gene_counts),
    )
