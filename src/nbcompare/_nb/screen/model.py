"""Many targets against one reference: what is known of the reference and of the data set, fitted once, then every target on its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.noisy_groups import (
    UNCHANGED,
    is_suspected,
    mean_statistic,
    ratio_that_counts,
    ratio_to_trend,
)
from nbcompare._nb.dispersion.pearson import sorted_members, sum_statistics
from nbcompare._nb.dispersion.trend import prior_dispersion
from nbcompare._nb.numerics.parallel import in_pieces
from nbcompare._nb.screen.kernels import compare_rows, keep_information
from nbcompare._nb.screen.reference import reference_arms, shared_information
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.two_group.dataset_fit import fit_shared
from nbcompare._nb.two_group.gene_test import Setting, compare_genes, match_statistics
from nbcompare._nb.two_group.leave_one_out import FLOOR, can_leave_out, is_unbalanced, leave_one_out

EXTRAPOLATED = 10.0  # means above so many times the trend's last knot are flagged
FEW_GENES = 30
GENES_THAT_TELL_NOISE = 2000


@dataclass(frozen=True)
class ScreenModel:
    """Fitted on the reference's samples and those of the groups that lend. Rows of `*_arm` arrays: all samples, then without each."""

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
    numerator: np.ndarray  # (n_genes,) summed dispersion statistics of the lending groups
    weight: np.ndarray  # (n_genes,)
    reference_arms: np.ndarray  # (8, n_variants, n_genes) of `reference_arms`
    gene_status: np.ndarray  # (n_genes,) uint32 flags of the gene in every comparison
    group_noise: np.ndarray  # (n_groups,) of the groups of the fit
    group_lends: np.ndarray  # (n_groups,) bool
    reference_lends: bool
    reference_noise: float  # dispersion of the reference relative to the data set's, 1 or above
    typical_ratio: float  # dispersion of the groups that lend, relative to the trend
    typical_mean: float  # mean dispersion statistic of these groups
    knots: np.ndarray  # (n_bins,) of the trend
    knot_dispersion: np.ndarray  # (n_bins,)
    scatter: float
    trend_error: float
    n_trend_genes: int
    lost: float
    lost_without: float
    n_samples: int
    min_total: float

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every field as an array, for files and other processes."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ScreenModel:
        """The model that `to_arrays` took apart."""
        values = {name: np.asarray(array) for name, array in arrays.items()}
        plain: dict[str, Any] = {name: value if value.ndim else value.item() for name, value in values.items()}
        return cls(**plain)


@dataclass(frozen=True)
class ScreenBlock:
    """Tests of some targets. Natural logarithms."""

    log_fc: np.ndarray  # (n_targets, n_genes)
    se: np.ndarray  # (n_targets, n_genes)
    statistic: np.ndarray  # (n_targets, n_genes)
    p_value: np.ndarray  # (n_targets, n_genes) float64
    dispersion: np.ndarray  # (n_targets, n_genes) of the target's arm
    status: np.ndarray  # (n_targets, n_genes) uint32
    noise: np.ndarray  # (n_targets,) dispersion relative to the data set's


def fit_screen(pseudobulk: Pseudobulk, reference: int, *, min_total: float = 10.0, n_threads: int = 1) -> ScreenModel:
    """All that the test of a target takes for given, from the reference and the groups that lend."""
    groups = np.arange(pseudobulk.n_groups)
    pairs = np.stack([np.full(len(groups) - 1, reference), groups[groups != reference]], axis=1).astype(np.int64)
    shared = fit_shared(pseudobulk, pairs, min_total=min_total, n_threads=n_threads)
    mean = np.maximum(shared.mean, 0.5 / len(pseudobulk.group))  # a gene that only other targets express
    at_mean = shared.trend.at(mean)
    prior_phi, prior_df = prior_dispersion(mean, at_mean, shared.trend.scatter, shared.trend.error)
    members, starts = sorted_members(pseudobulk.group)
    lending = [members[starts[k] : starts[k + 1]] for k in groups[shared.lends]]
    by_gene, by_group = np.empty((len(mean), 2)), np.empty((len(lending), 2))
    lending_starts = np.concatenate([[0], np.cumsum([len(samples) for samples in lending])]).astype(np.int64)
    lenders = np.concatenate(lending)
    sum_statistics(
        pseudobulk.counts, shared.exposure, lenders, lending_starts, prior_phi, by_gene, by_group, n_threads=n_threads
    )
    samples = members[starts[reference] : starts[reference + 1]]
    arms = reference_arms(
        pseudobulk.counts,
        shared.exposure,
        samples,
        prior_phi,
        prior_df,
        mean,
        by_gene,
        shared.lost,
        bool(shared.lends[reference]),
        can_leave_out(np.array(len(samples)), np.array(2 * len(samples))).item()
        and bool(np.isfinite(shared.lost_without)),
    )
    usable = pseudobulk.counts.sum(axis=1) >= min_total
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
        numerator=by_gene[:, 0].copy(),
        weight=by_gene[:, 1].copy(),
        reference_arms=arms,
        gene_status=flags,
        group_noise=shared.noise,
        group_lends=shared.lends,
        reference_lends=bool(shared.lends[reference]),
        reference_noise=float(shared.noise[reference]),
        typical_ratio=ratio_to_trend(pseudobulk, shared.exposure, shared.trend, shared.lost, shared.lends, usable),
        typical_mean=mean_statistic(pseudobulk, shared.exposure, shared.trend, shared.lost, shared.lends, usable),
        knots=shared.trend.mean,
        knot_dispersion=shared.trend.dispersion,
        scatter=float(shared.trend.scatter),
        trend_error=float(shared.trend.error),
        n_trend_genes=int(shared.trend.n_genes),
        lost=float(shared.lost),
        lost_without=float(shared.lost_without),
        n_samples=len(pseudobulk.group),
        min_total=float(min_total),
    )


def compare_targets(
    model: ScreenModel,
    samples: np.ndarray,
    exposure: np.ndarray,
    block: np.ndarray | None,
    starts: np.ndarray,
    lender: np.ndarray,
    *,
    dtype: type = np.float64,
    out: ScreenBlock | None = None,
    n_threads: int = 1,
) -> ScreenBlock:
    """Test a run of targets, in threads over targets; the result does not depend on their number.

    Parameters
    ----------
    model
        Of `fit_screen`.
    samples
        Counts of the targets' samples, (n_rows, n_genes), the rows of a target side by side.
    exposure, block
        Size factor and block of every row, (n_rows,).
    starts
        Where each target starts among the rows, with the end appended, (n_targets + 1,).
    lender
        The target's group in the fit, -1 if it was not part of it, (n_targets,).
    dtype
        Of all arrays but the p-values, which are float64, and the status.
    out
        Arrays to fill instead of new ones, whatever `dtype`; the noise must be 1.
    n_threads
        Number of threads.
    """
    n_targets, n_genes = len(starts) - 1, samples.shape[1]
    rows_block = np.zeros(len(samples), np.int64) if block is None else np.asarray(block, np.int64)
    shape = n_targets, n_genes
    result = out or ScreenBlock(
        log_fc=np.empty(shape, dtype),
        se=np.empty(shape, dtype),
        statistic=np.empty(shape, dtype),
        p_value=np.empty(shape),
        dispersion=np.empty(shape, dtype),
        status=np.empty(shape, np.uint32),
        noise=np.ones(n_targets),
    )
    sizes = np.diff(starts)
    n_reference = len(model.reference_exposure)
    smaller, larger = np.minimum(sizes, n_reference), np.maximum(sizes, n_reference)
    checked = can_leave_out(smaller, larger) & np.isfinite(model.lost_without)
    floor = np.where(is_unbalanced(smaller, larger), 0.0, FLOOR)
    single = np.where(smaller == 1, np.uint32(Status.ONE_REPLICATE_ARM), np.uint32(0))
    lends = (lender >= 0) & model.group_lends[lender]

    def run(part: slice) -> None:
        targets = np.arange(part.start, part.stop)
        if len(targets):
            compare_rows(model, samples, exposure, rows_block, starts, targets, lends, single, checked, floor, result)
            for k in targets:
                rows = slice(starts[k], starts[k + 1])
                _correct_noise(model, samples[rows], exposure[rows], rows_block[rows], int(lender[k]), int(k), result)
                match_statistics(result.statistic[k], result.p_value[k], result.status[k])

    in_pieces(run, n_targets, n_threads, least=1)
    return result


def _correct_noise(
    model: ScreenModel, rows: np.ndarray, exposure: np.ndarray, block: np.ndarray, lender: int, k: int, out: ScreenBlock
) -> None:
    """Test a target anew with the dispersion of its two groups where it or the reference is noisier than the data set."""
    trend = Trend(model.knots, model.knot_dispersion, model.scatter, model.n_trend_genes)
    ratio = model.group_noise[lender] if lender >= 0 else _noise(model, rows, exposure, block, trend, out.p_value[k])
    out.noise[k] = ratio
    if not stands_alone(model, ratio):
        return
    setting = own_setting(model, rows, exposure, block, ratio)
    log_fc, se, statistic, p_value, dispersion = compare_genes(setting)
    status = out.status[k] & ~np.uint32(Status.SINGLE_REPLICATE)
    untested = (status & NOT_TESTED) > 0
    p_value[untested] = np.nan
    p_value, statistic, replaced = leave_one_out(setting, p_value, statistic, dispersion)
    flags = np.uint32(Status.NOISY_GROUP if max(ratio, model.reference_noise) > 1 else Status.OK)
    flags = flags | np.where(replaced[:, 0], np.uint32(Status.SINGLE_REPLICATE), np.uint32(0))
    out.status[k] = np.where(untested, status, status | flags)
    out.log_fc[k], out.se[k], out.p_value[k] = log_fc[:, 0], se[:, 0], p_value[:, 0]
    out.statistic[k] = np.where(untested, np.nan, statistic[:, 0])
    out.dispersion[k] = np.where(untested, np.nan, dispersion[:, 0])
    out.log_fc[k, (status & Status.ALL_ZERO) > 0] = np.nan
    out.se[k, (status & (Status.ALL_ZERO | Status.CONFOUNDED)) > 0] = np.nan


def stands_alone(model: ScreenModel, ratio: float) -> bool:
    """Whether a target of this dispersion ratio is tested with the dispersion of its two arms alone."""
    return bool(max(ratio, model.reference_noise) > 1.0 or model.group_noise.size == 2)


def own_setting(model: ScreenModel, rows: np.ndarray, exposure: np.ndarray, block: np.ndarray, ratio: float) -> Setting:
    """The comparison of one target with the reference, its dispersion from the two arms alone, `ratio` times as large in the target's."""
    n_reference, n_rows = len(model.reference_exposure), len(rows)
    n = n_reference + n_rows
    counts = np.ascontiguousarray(np.concatenate([model.reference_counts, rows]).T, dtype=np.float64)
    depth = np.concatenate([model.reference_exposure, exposure])
    blocks = np.concatenate([model.reference_block, block])
    effects = np.ascontiguousarray((model.effects[blocks] * depth[:, None]).T)
    return Setting(
        counts,
        effects,
        keep_information(model, exposure, block)[:, None],
        np.arange(n),
        np.array([0, n_reference, n]),
        np.arange(n),
        np.array([[0, n_reference, n_reference, n]]),
        model.mean,
        model.trend,
        model.scatter,
        model.trend_error,
        model.lost,
        model.lost_without,
        np.repeat(np.arange(2), [n_reference, n_rows]),
        np.array([model.reference_noise, ratio]),
        np.array([True]),
        np.ones(2, bool),
        model.group_noise.size == 2,
    )


def _noise(
    model: ScreenModel, rows: np.ndarray, exposure: np.ndarray, block: np.ndarray, trend: Trend, p_value: np.ndarray
) -> float:
    """The dispersion ratio of a target that was not part of the fit, suspected on a sample of the genes, judged on all."""
    if len(rows) < 2:
        return 1.0
    n_genes = rows.shape[1]
    step = max(1, n_genes // GENES_THAT_TELL_NOISE)
    members, starts = np.arange(len(rows)), np.array([0, len(rows)])
    genes = slice(None, None, step)
    adjusted = np.ascontiguousarray((model.effects[:, genes][block] * exposure[:, None]).T)
    counts = np.ascontiguousarray(rows[:, genes].T, dtype=np.float64)
    by_gene, by_group = np.empty((len(counts), 2)), np.empty((1, 2))
    sum_statistics(counts, adjusted, members, starts, model.prior_phi[genes].copy(), by_gene, by_group)
    if not is_suspected(by_group, 1.0, model.lost)[0]:
        return 1.0
    target = Pseudobulk(
        np.ascontiguousarray(rows.T, dtype=np.float64), exposure, np.zeros(len(rows), np.intp), block.astype(np.intp)
    )
    whole = np.ascontiguousarray((model.effects[block] * exposure[:, None]).T)
    ratio, mean = (
        ask(target, whole, trend, model.lost, np.ones(1, bool), p_value > UNCHANGED)
        for ask in (ratio_to_trend, mean_statistic)
    )
    return ratio_that_counts(ratio / model.typical_ratio, mean / model.typical_mean)
