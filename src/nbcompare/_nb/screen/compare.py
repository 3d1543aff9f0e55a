"""Tests of a run of perturbations against the control, with the frozen model."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.high_dispersion_groups import (
    UNCHANGED,
    is_suspected,
    mean_statistic,
    ratio_that_counts,
    ratio_to_trend,
)
from nbcompare._nb.dispersion.pearson import sum_statistics
from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._nb.screen.kernels import TargetRules, TargetSamples, compare_rows, keep_information
from nbcompare._nb.screen.model import ScreenBlock, ScreenModel
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.two_group.gene_test import ComparisonData, compare_genes, match_statistics
from nbcompare._nb.two_group.leave_one_out import FLOOR, can_leave_out, is_unbalanced, leave_one_out

MIN_GENES_FOR_RATIO = 2000


def compare_targets(
    model: ScreenModel,
    samples: np.ndarray,
    exposure: np.ndarray,
    block: np.ndarray | None,
    starts: np.ndarray,
    fit_group: np.ndarray,
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
    fit_group
        The target's group in the fit, -1 if it was not part of it, (n_targets,).
    dtype
        Of all arrays but the p-values, which are float64, and the status.
    out
        Arrays to fill instead of new ones, whatever `dtype`; the dispersion ratios must be 1.
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
        dispersion_ratio=np.ones(n_targets),
    )
    sizes = np.diff(starts)
    n_reference = len(model.reference_exposure)
    smaller, larger = np.minimum(sizes, n_reference), np.maximum(sizes, n_reference)
    checked = can_leave_out(smaller, larger) & np.isfinite(model.df_ratio_loo)
    floor = np.where(is_unbalanced(smaller, larger), 0.0, FLOOR)
    single = np.where(smaller == 1, np.uint32(Status.ONE_REPLICATE_GROUP), np.uint32(0))
    rules = TargetRules((fit_group >= 0) & model.group_in_fit[fit_group], single, checked, floor)
    target_samples = TargetSamples(samples, exposure, rows_block, starts)

    def run(part: slice) -> None:
        targets = np.arange(part.start, part.stop)
        if len(targets):
            compare_rows(model, target_samples, rules, targets, result)
            for k in targets:
                rows = slice(starts[k], starts[k + 1])
                _correct_dispersion_ratio(
                    model, samples[rows], exposure[rows], rows_block[rows], int(fit_group[k]), int(k), result
                )
                match_statistics(result.statistic[k], result.p_value[k], result.status[k])

    in_parallel(run, n_targets, n_threads, least=1)
    return result


def _correct_dispersion_ratio(
    model: ScreenModel,
    rows: np.ndarray,
    exposure: np.ndarray,
    block: np.ndarray,
    fit_group: int,
    k: int,
    out: ScreenBlock,
) -> None:
    """Test a target anew with the dispersion of its two groups where it or the reference is noisier than the data set."""
    trend = Trend(model.knots, model.knot_dispersion, model.log_dispersion_var, model.n_trend_genes)
    ratio = (
        model.group_dispersion_ratio[fit_group]
        if fit_group >= 0
        else _dispersion_ratio(model, rows, exposure, block, trend, out.p_value[k])
    )
    out.dispersion_ratio[k] = ratio
    if not stands_alone(model, ratio):
        return
    setting = own_setting(model, rows, exposure, block, ratio)
    log_fc, se, statistic, p_value, dispersion = compare_genes(setting)
    status = out.status[k] & ~np.uint32(Status.OUTLIER_REPLICATE)
    untested = (status & NOT_TESTED) > 0
    p_value[untested] = np.nan
    p_value, statistic, replaced = leave_one_out(setting, p_value, statistic, dispersion)
    flags = np.uint32(Status.HIGH_DISPERSION_GROUP if max(ratio, model.reference_dispersion_ratio) > 1 else Status.OK)
    flags = flags | np.where(replaced[:, 0], np.uint32(Status.OUTLIER_REPLICATE), np.uint32(0))
    out.status[k] = np.where(untested, status, status | flags)
    out.log_fc[k], out.se[k], out.p_value[k] = log_fc[:, 0], se[:, 0], p_value[:, 0]
    out.statistic[k] = np.where(untested, np.nan, statistic[:, 0])
    out.dispersion[k] = np.where(untested, np.nan, dispersion[:, 0])
    out.log_fc[k, (status & Status.ALL_ZERO) > 0] = np.nan
    out.se[k, (status & (Status.ALL_ZERO | Status.CONFOUNDED)) > 0] = np.nan


def stands_alone(model: ScreenModel, ratio: float) -> bool:
    """Whether a target of this dispersion ratio is tested with the dispersion of its two groups alone."""
    return bool(max(ratio, model.reference_dispersion_ratio) > 1.0 or model.group_dispersion_ratio.size == 2)


def own_setting(
    model: ScreenModel, rows: np.ndarray, exposure: np.ndarray, block: np.ndarray, ratio: float
) -> ComparisonData:
    """The comparison of one target with the reference, its dispersion from the two groups alone, `ratio` times as large in the target's."""
    n_reference, n_rows = len(model.reference_exposure), len(rows)
    n = n_reference + n_rows
    counts = np.ascontiguousarray(np.concatenate([model.reference_counts, rows]).T, dtype=np.float64)
    depth = np.concatenate([model.reference_exposure, exposure])
    blocks = np.concatenate([model.reference_block, block])
    effects = np.ascontiguousarray((model.effects[blocks] * depth[:, None]).T)
    return ComparisonData(
        counts,
        effects,
        keep_information(model, exposure, block)[:, None],
        np.arange(n),
        np.array([0, n_reference, n]),
        np.arange(n),
        np.array([[0, n_reference, n_reference, n]]),
        model.mean,
        model.trend,
        model.log_dispersion_var,
        model.trend_error,
        model.df_ratio,
        model.df_ratio_loo,
        np.repeat(np.arange(2), [n_reference, n_rows]),
        np.array([model.reference_dispersion_ratio, ratio]),
        np.array([True]),
        np.ones(2, bool),
        model.group_dispersion_ratio.size == 2,
    )


def _dispersion_ratio(
    model: ScreenModel, rows: np.ndarray, exposure: np.ndarray, block: np.ndarray, trend: Trend, p_value: np.ndarray
) -> float:
    """The dispersion ratio of a target that was not part of the fit, suspected on a sample of the genes, judged on all."""
    if len(rows) < 2:
        return 1.0
    n_genes = rows.shape[1]
    step = max(1, n_genes // MIN_GENES_FOR_RATIO)
    members, starts = np.arange(len(rows)), np.array([0, len(rows)])
    genes = slice(None, None, step)
    adjusted = np.ascontiguousarray((model.effects[:, genes][block] * exposure[:, None]).T)
    counts = np.ascontiguousarray(rows[:, genes].T, dtype=np.float64)
    by_gene, by_group = np.empty((len(counts), 2)), np.empty((1, 2))
    sum_statistics(counts, adjusted, members, starts, model.prior_phi[genes].copy(), by_gene, by_group)
    if not is_suspected(by_group, 1.0, model.df_ratio)[0]:
        return 1.0
    target = Pseudobulk(
        np.ascontiguousarray(rows.T, dtype=np.float64), exposure, np.zeros(len(rows), np.intp), block.astype(np.intp)
    )
    whole = np.ascontiguousarray((model.effects[block] * exposure[:, None]).T)
    ratio, mean = (
        ask(target, whole, trend, model.df_ratio, np.ones(1, bool), p_value > UNCHANGED)
        for ask in (ratio_to_trend, mean_statistic)
    )
    return ratio_that_counts(ratio / model.typical_ratio, mean / model.typical_mean)
