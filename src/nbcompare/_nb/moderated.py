"""The moderated r* test: closed form from counts to p-value, calibrated with two replicates or two hundred."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.pearson import moment_equation, solve_moments
from nbcompare._nb.inference.threshold import halved
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.stratified.compare import applies, fit_matched_trend, matched_shifted, matched_tests
from nbcompare._nb.stratified.design import matched_design
from nbcompare._nb.stratified.high_dispersion_groups import matched_ratios
from nbcompare._nb.stratified.intervals import matched_intervals
from nbcompare._nb.two_group.block_effects import residual_degrees
from nbcompare._nb.two_group.dataset_fit import DatasetFit, fit_shared
from nbcompare._nb.two_group.gene_test import ComparisonData, compare_genes, match_statistics
from nbcompare._nb.two_group.intervals import genes_intervals
from nbcompare._nb.two_group.leave_one_out import leave_one_out

MIN_EFFICIENCY = 0.05
EXTRAPOLATED = 10.0  # means above so many times the trend's last knot are flagged
FEW_GENES = 30  # with fewer to learn from, the variance of log dispersions is the prior's


@dataclass(frozen=True)
class Moderated:
    """Moderated r* tests of all comparisons of a data set. Natural logarithms."""

    log_fc: np.ndarray  # (n_genes, n_comparisons) treated over reference, NaN where both groups are empty
    se: np.ndarray  # (n_genes, n_comparisons) standard error of log_fc
    statistic: np.ndarray  # (n_genes, n_comparisons) signed normal equivalent, NaN where not tested
    p_value: np.ndarray  # (n_genes, n_comparisons) two-sided, NaN where not tested
    p_value_all: np.ndarray  # (n_genes, n_comparisons) before the leave-one-replicate-out rule
    dispersion: np.ndarray  # (n_genes, n_comparisons) moderated dispersion of the treated group
    genewise: np.ndarray  # (n_genes, n_comparisons) moment estimate from the gene's own counts
    status: np.ndarray  # (n_genes, n_comparisons) uint32, bits of `status.Status`
    trend: Trend  # the data set's; with pair-wise dispersions that of the last comparison
    mean: np.ndarray  # (n_genes,) mean count of a sample, where the trend is read
    dispersion_ratio: (
        np.ndarray
    )  # (n_comparisons, 2) dispersion of reference and treated group relative to the data set's
    shifted: np.ndarray | None = None  # (n_genes, n_comparisons, 2) deviates of the nulls -threshold and threshold
    shared: DatasetFit | None = None  # what the groups have in common; None for two groups in blocks
    interval: np.ndarray | None = (
        None  # (n_genes, n_comparisons, 2) 95 % bounds of log_fc from all replicates, NaN where not tested
    )


def moderated_tests(
    pseudobulk: Pseudobulk,
    pairs: np.ndarray,
    *,
    shared: bool = True,
    min_gene_counts: float = 10.0,
    leave_out: bool = True,
    threshold: float = 0.0,
    intervals: bool = False,
) -> Moderated:
    """Test every comparison by the moderated r*.

    Parameters
    ----------
    pseudobulk
        Counts, size factors, groups and perhaps blocks.
    pairs
        Reference and treated group of every comparison, (n_comparisons, 2) int64; reference -1 is all other groups together.
    shared
        Sum the dispersion statistics over all groups of the data set; otherwise each comparison stands alone (with all other groups together
        that is the same).
    min_gene_counts
        Genes with fewer counts in the two groups together are not tested.
    leave_out
        Apply the leave-one-replicate-out rule.
    threshold
        Log fold change beside whose null hypotheses of zero those of +-threshold are tested too, if positive; from all replicates.
    intervals
        Also compute 95 % confidence intervals, from all replicates.
    """
    options: dict[str, Any] = {
        "min_gene_counts": min_gene_counts,
        "leave_out": leave_out,
        "threshold": threshold,
        "intervals": intervals,
    }
    if shared or (pseudobulk.n_groups == 2 and len(pairs) == 1):
        return _tests(pseudobulk, np.ascontiguousarray(pairs, dtype=np.int64), **options)
    alone = [
        _tests(
            pseudobulk if pair[0] < 0 else _pair(pseudobulk, *pair),
            np.array([pair if pair[0] < 0 else (0, 1)]),
            **options,
        )
        for pair in np.asarray(pairs, np.int64)
    ]
    return replace(_joined(alone), mean=pseudobulk.counts.mean(axis=1))


def _tests(
    pseudobulk: Pseudobulk,
    pairs: np.ndarray,
    *,
    min_gene_counts: float,
    leave_out: bool,
    threshold: float,
    intervals: bool,
) -> Moderated:
    if applies(pseudobulk):
        return _joined(
            [
                _within_blocks(pseudobulk, int(treated), min_gene_counts, leave_out, threshold, intervals)
                for treated in pairs[:, 1]
            ]
        )
    counts = pseudobulk.counts
    model = fit_shared(pseudobulk, pairs, min_gene_counts=min_gene_counts)
    setting = model.setting(pseudobulk, pairs)
    log_fc, se, statistic, p_value, dispersion = compare_genes(setting)

    status = _status(pseudobulk, setting, pairs, min_gene_counts, model.high_dispersion(pairs))
    _flag(status, (model.mean > EXTRAPOLATED * model.trend.mean[-1])[:, None], Status.HIGH_MEAN_EXTRAPOLATED)
    _flag(status, model.trend.n_genes < FEW_GENES, Status.FEW_GENES)
    untested = (status & NOT_TESTED) > 0
    status[untested] &= NOT_TESTED
    for array in (statistic, p_value, dispersion):
        array[untested] = np.nan
    log_fc[(status & Status.ALL_ZERO) > 0] = np.nan
    se[(status & (Status.ALL_ZERO | Status.NO_REPLICATES | Status.CONFOUNDED)) > 0] = np.nan

    guarded = p_value.copy()
    if leave_out:
        guarded, statistic, rests_on_one = leave_one_out(setting, p_value, statistic, dispersion)
        _flag(status, rests_on_one, Status.OUTLIER_REPLICATE)
    match_statistics(statistic, guarded, status)
    moments = np.empty((len(counts), 3))
    moment_equation(counts, model.exposure, setting.members, setting.starts, model.df_ratio, moments)
    own = np.where(moments[:, 2] > 0, solve_moments(moments[:, 0], moments[:, 1]), np.nan)
    genewise = np.repeat(own[:, None], len(pairs), axis=1)
    return Moderated(
        log_fc,
        se,
        statistic,
        guarded,
        p_value,
        dispersion,
        genewise,
        status,
        model.trend,
        model.mean,
        model.ratios(pairs),
        _deviates(lambda shift: compare_genes(setting, log_shift=shift)[2], threshold, status, log_fc),
        shared=model,
        interval=np.where(untested[..., None], np.nan, np.stack(genes_intervals(setting), axis=-1))
        if intervals
        else None,
    )


def _within_blocks(
    pseudobulk: Pseudobulk, treated: int, min_gene_counts: float, leave_out: bool, threshold: float, intervals: bool
) -> Moderated:
    """Two groups within blocks: blocks without samples of both hold no information on the difference, and their counts are not in its total."""
    counts = pseudobulk.counts
    design = matched_design(pseudobulk, treated)
    mean = counts.mean(axis=1)
    usable = counts.sum(axis=1) >= min_gene_counts
    dispersion_ratio, trend = matched_ratios(pseudobulk, design, fit_matched_trend(pseudobulk, design, usable), usable)
    found = matched_tests(pseudobulk, design, trend, dispersion_ratio, leave_out=leave_out)

    of_usable = design.informative[pseudobulk.block] if design.informative.any() else np.ones(counts.shape[1], bool)
    below = counts[:, of_usable & (pseudobulk.group != treated)].sum(axis=1)
    above = counts[:, of_usable & (pseudobulk.group == treated)].sum(axis=1)
    status = np.zeros(len(counts), np.uint32)
    _flag(status, below + above == 0, Status.ALL_ZERO)
    _flag(status, below + above < min_gene_counts, Status.LOW_COUNTS)
    _flag(status, (found.efficiency < MIN_EFFICIENCY) & (below + above > 0), Status.CONFOUNDED)
    _flag(status, design.residual < 1, Status.NO_REPLICATES)
    _flag(status, (below == 0) | (above == 0), Status.ZERO_GROUP)
    _flag(status, design.sizes.min() == 1, Status.ONE_REPLICATE_GROUP)
    _flag(status, mean > EXTRAPOLATED * trend.mean[-1], Status.HIGH_MEAN_EXTRAPOLATED)
    _flag(status, trend.n_genes < FEW_GENES, Status.FEW_GENES)
    untested = (status & NOT_TESTED) > 0
    status[untested] &= NOT_TESTED
    _flag(status, found.rests_on_one & ~untested, Status.OUTLIER_REPLICATE)
    _flag(status, found.not_left_out & ~untested, Status.REPLICATE_NOT_LEFT_OUT)
    _flag(status, (dispersion_ratio > 1).any() & ~untested, Status.HIGH_DISPERSION_GROUP)
    statistic, p_value, p_value_all, dispersion = (
        np.where(untested, np.nan, values)
        for values in (found.statistic, found.p_value, found.p_value_all, found.dispersion)
    )
    match_statistics(statistic, p_value, status)
    no_error = (status & (Status.ALL_ZERO | Status.NO_REPLICATES | Status.CONFOUNDED)) > 0
    return Moderated(
        found.log_fc[:, None],
        np.where(no_error, np.nan, found.se)[:, None],
        statistic[:, None],
        p_value[:, None],
        p_value_all[:, None],
        dispersion[:, None],
        found.genewise[:, None],
        status[:, None],
        trend,
        mean,
        dispersion_ratio[None, :],
        _deviates(
            lambda shift: matched_shifted(pseudobulk, design, trend, dispersion_ratio, shift),
            threshold,
            status[:, None],
            found.log_fc[:, None],
        ),
        interval=np.where(
            untested[:, None], np.nan, np.stack(matched_intervals(pseudobulk, design, trend, dispersion_ratio), axis=-1)
        )[:, None]
        if intervals
        else None,
    )


def _deviates(
    test: Callable[[float], np.ndarray], threshold: float, status: np.ndarray, log_fc: np.ndarray
) -> np.ndarray | None:
    """Deviates of the nulls -threshold and threshold; without a threshold None."""
    if threshold <= 0:
        return None
    zero_group, tested = (status & Status.ZERO_GROUP) > 0, (status & NOT_TESTED) == 0
    both = [halved(test(shift), zero_group, log_fc) for shift in (-threshold, threshold)]
    return np.where(tested[..., None], np.stack(both, axis=-1), np.nan)


def _joined(alone: list[Moderated]) -> Moderated:
    """Comparisons beside each other; what they do not share is the last one's."""
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in alone], axis=1)
        for name in ("log_fc", "se", "statistic", "p_value", "p_value_all", "dispersion", "genewise", "status")
    }
    for name in ("shifted", "interval"):
        parts = [getattr(one, name) for one in alone]
        joined[name] = None if parts[0] is None else np.concatenate(parts, axis=1)
    return replace(alone[-1], **joined, dispersion_ratio=np.concatenate([one.dispersion_ratio for one in alone]))


def _pair(pseudobulk: Pseudobulk, reference: int, treated: int) -> Pseudobulk:
    """The two groups of one comparison as a data set of its own, blocks without a sample removed."""
    in_treated = pseudobulk.group == treated
    chosen = np.flatnonzero(in_treated | (pseudobulk.group == reference))
    block = None if pseudobulk.block is None else np.unique(pseudobulk.block[chosen], return_inverse=True)[1]
    return Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[:, chosen]),
        pseudobulk.exposure[chosen],
        in_treated[chosen].astype(np.intp),
        block,
        None if pseudobulk.of_gene is None else np.ascontiguousarray(pseudobulk.of_gene[:, chosen]),
    )


def _status(
    pseudobulk: Pseudobulk,
    setting: ComparisonData,
    pairs: np.ndarray,
    min_gene_counts: float,
    high_dispersion: np.ndarray,
) -> np.ndarray:
    """What can be said before the test: reasons not to test, and flags."""
    counts, ranges, sample_order = setting.counts, setting.ranges, setting.sample_order
    sizes = np.bincount(pseudobulk.group)
    residual = residual_degrees(pseudobulk)  # a pair alone may have none, where all groups together have
    status = np.zeros(setting.efficiency.shape, np.uint32)
    for c, (reference, treated) in enumerate(pairs):
        below = counts[:, sample_order[ranges[c, 0] : ranges[c, 1]]].sum(axis=1)
        above = counts[:, sample_order[ranges[c, 2] : ranges[c, 3]]].sum(axis=1)
        total = below + above
        here = status[:, c]
        single = min(sizes[treated], ranges[c, 1] - ranges[c, 0]) == 1
        fit_sizes = sizes[[reference, treated]] if setting.own[c] and reference >= 0 else sizes
        is_shared = (fit_sizes > 1).any() and residual > 0
        _flag(here, total == 0, Status.ALL_ZERO)
        _flag(here, total < min_gene_counts, Status.LOW_COUNTS)
        _flag(here, setting.efficiency[:, c] < MIN_EFFICIENCY, Status.CONFOUNDED)
        _flag(here, (below == 0) | (above == 0), Status.ZERO_GROUP)
        _flag(here, not is_shared, Status.NO_REPLICATES)
        _flag(here, single and is_shared, Status.ONE_REPLICATE_GROUP)
        _flag(here, high_dispersion[c], Status.HIGH_DISPERSION_GROUP)
    return status


def _flag(status: np.ndarray, where: np.ndarray | bool | np.bool, bit: Status) -> None:
    """Set a bit in place where `where` is true."""
    status |= np.where(where, np.uint32(bit), np.uint32(0))
