"""The moderated r* test of two groups within blocks: Mantel-Haenszel's rate ratio, block effects in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.trend import (
    PRIOR_LOG_DISPERSION_VAR,
    Brackets,
    evenly_by_total,
    mean_bins,
    next_of_bins,
    trend_of_bins,
)
from nbcompare._nb.stratified.design import MatchedDesign, block_constants
from nbcompare._nb.stratified.kernels import compare_matched, leave_out_matched
from nbcompare._nb.stratified.pearson import BOTH, group_statistics
from nbcompare._nb.two_group.leave_one_out import CUT, FLOOR, LARGEST_GROUP, can_leave_out, is_unbalanced

START = 0.1  # dispersion of all bins
MOST_STEPS, SETTLED = 24, 1e-3  # of the trend; largest change of a log dispersion after which the bins are left
MOST_LEFT = 0.6  # samples without which less of the information is left cannot be questioned: the p-value would fall for that alone
MAX_GENES = 20_000  # of more, genes evenly spaced by mean make the trend


@dataclass(frozen=True)
class MatchedTests:
    """Tests of one comparison within blocks, each (n_genes,). Natural logarithms."""

    log_fc: np.ndarray
    se: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray  # by the leave-one-replicate-out rule
    p_value_all: np.ndarray  # before it
    dispersion: np.ndarray
    genewise: np.ndarray
    efficiency: np.ndarray  # share of the information on the difference that blocks leave
    rests_on_one: np.ndarray  # bool: the rule replaced the p-value
    not_left_out: (
        np.ndarray
    )  # bool: p is so small that the rule should be asked, and too few samples are left without one


def applies(pseudobulk: Pseudobulk) -> bool:
    """Two groups within blocks."""
    return pseudobulk.block is not None and pseudobulk.n_groups == 2


def fit_matched_trend(pseudobulk: Pseudobulk, design: MatchedDesign, usable: np.ndarray) -> Trend:
    """Bins of genes of like mean, each stepped to where its mean statistic is one; then the spread of the statistics around them.

    One step: phi <- phi + (sum numerators / sum d - 1) sum d / sum(d A), within `Brackets` once a root is bracketed.
    """
    total = pseudobulk.counts.sum(axis=1)
    genes = np.flatnonzero(usable & (total > 0))
    genes = evenly_by_total(genes, total, MAX_GENES)
    if len(genes) == 0 or design.residual < 1:
        return Trend(np.ones(1), np.full(1, START), PRIOR_LOG_DISPERSION_VAR, 0)
    counts = np.ascontiguousarray(pseudobulk.counts[genes])
    exposure = pseudobulk.exposures if pseudobulk.of_gene is None else np.ascontiguousarray(pseudobulk.of_gene[genes])
    mean = counts.mean(axis=1)
    ascending = np.lexsort((np.square(counts).sum(axis=1), mean))  # the order in which genes are given is nothing
    bins = mean_bins(ascending, mean)
    knots = np.array([np.log(mean[b]).mean() for b in bins])
    phi, out = np.full(len(bins), START), np.empty((len(genes), 3))
    brackets = Brackets.none(len(bins))
    for step in range(MOST_STEPS + 1):
        at_gene = np.exp(np.interp(np.log(mean), knots, np.log(phi)))
        group_statistics(counts, exposure, design, at_gene, np.ones(2), BOTH, out)
        stepped = next_of_bins(phi, out, bins, brackets)
        if np.abs(np.log(stepped / phi)).max() < SETTLED or step == MOST_STEPS:
            break
        phi = stepped
    return trend_of_bins(knots, phi, at_gene, mean, ascending, out)


def matched_tests(
    pseudobulk: Pseudobulk,
    design: MatchedDesign,
    trend: Trend,
    dispersion_ratio: np.ndarray | None = None,
    *,
    leave_out: bool = True,
) -> MatchedTests:
    """Test every gene within blocks, given the trend.

    Parameters
    ----------
    pseudobulk
        Counts, size factors, two groups, blocks.
    design
        Of the same samples.
    trend
        From `fit_matched_trend`.
    dispersion_ratio
        Dispersion of the groups relative to the trend, (2,), from `matched_noise.matched_ratios`; 1 if not given.
    leave_out
        Apply the leave-one-replicate-out rule of `leave_one_out`.
    """
    dispersion_ratio = np.ones(2) if dispersion_ratio is None else dispersion_ratio
    out = _test(pseudobulk, design, trend, dispersion_ratio, 0.0)
    statistic, p_value = out[:, 2].copy(), out[:, 3].copy()
    requested = p_value < CUT if leave_out else np.zeros(len(out), bool)
    samples = samples_to_leave_out(design)
    rests_on_one = np.zeros(len(out), bool)
    if len(samples):
        genes = np.flatnonzero(requested)
        statistic[genes], p_value[genes], rests_on_one[genes] = _leave_one_out(
            pseudobulk, design, trend, dispersion_ratio, genes, samples, out
        )
    few = design.sizes.min() <= LARGEST_GROUP and not len(samples)
    return MatchedTests(
        out[:, 0],
        out[:, 1],
        statistic,
        p_value,
        out[:, 3],
        out[:, 4],
        out[:, 5],
        out[:, 6],
        rests_on_one,
        requested & few,
    )


def matched_shifted(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, dispersion_ratio: np.ndarray, log_shift: float
) -> np.ndarray:
    """Signed deviates (n_genes, 1) of the null hypothesis that the log fold change is `log_shift`."""
    return _test(pseudobulk, design, trend, dispersion_ratio, log_shift)[:, 2:3]


def samples_to_leave_out(design: MatchedDesign) -> np.ndarray:
    """Samples that the leave-one-replicate-out rule leaves out in turn; none where too few are left."""
    if not can_leave_out(design.sizes.min(), design.sizes.max()) or design.residual <= 1:
        return np.empty(0, np.intp)
    second, block = design.codes()
    pair = (np.diff(design.bounds, axis=1) == 1).all(axis=1)  # either sample takes the other along: once is enough
    once = ~(pair[block] & (second == 1))
    return np.flatnonzero((design.sizes <= LARGEST_GROUP)[second] & once & (_left_without(second, block) > MOST_LEFT))


def _left_without(second: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Share of sum_r n_1 n_2 / (n_1 + n_2), the information at high counts, that is left without each sample."""
    sizes = np.zeros((block.max() + 1, 2))
    np.add.at(sizes, (block, second), 1.0)

    def informative(n: np.ndarray) -> np.ndarray:
        return np.divide(n.prod(axis=-1), n.sum(axis=-1), out=np.zeros(n.shape[:-1]), where=n.sum(axis=-1) > 0)

    fewer = sizes[block] - np.eye(2)[second]
    return 1 - (informative(sizes)[block] - informative(fewer)) / max(informative(sizes).sum(), 1e-9)


def _test(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, dispersion_ratio: np.ndarray, log_shift: float
) -> np.ndarray:
    out = np.empty((len(pseudobulk.counts), 7))
    data = design.data(pseudobulk, trend, dispersion_ratio)
    compare_matched(data, design.constants, log_shift, design.scratch(), out)
    return out


def _leave_one_out(
    pseudobulk: Pseudobulk,
    design: MatchedDesign,
    trend: Trend,
    dispersion_ratio: np.ndarray,
    genes: np.ndarray,
    left_out: np.ndarray,
    out: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics and p-values of these genes by the rule, and whether it replaced them.

    Where a group has twice the samples of the other or more, only samples of groups that vary more than their dispersion lets expect are left
    out, and then any p-value above sqrt(p) replaces p: as in `leave_one_out`.
    """
    second, block = design.codes()
    unequal = is_unbalanced(design.sizes.min(), design.sizes.max())
    requested = np.ones((len(genes), len(left_out)), bool)
    if unequal:
        requested = _spread(pseudobulk, design, dispersion_ratio, genes, out[genes, 4])[:, second[left_out]]
    constants = np.array([block_constants(np.delete(second, i), np.delete(block, i))[0] for i in left_out])
    worst, statistic = out[genes, 3].copy(), out[genes, 2].copy()
    leave_out_matched(
        genes,
        design.data(pseudobulk, trend, dispersion_ratio),
        left_out,
        requested,
        constants.reshape(-1, 2),
        design.scratch(),
        statistic,
        worst,
    )
    replaced = worst > np.maximum(np.sqrt(out[genes, 3]), 0.0 if unequal else FLOOR)
    return (
        np.where(replaced, statistic, out[genes, 2]),
        np.where(replaced, worst, out[genes, 3]),
        replaced,
    )


def _spread(
    pseudobulk: Pseudobulk, design: MatchedDesign, dispersion_ratio: np.ndarray, genes: np.ndarray, phi: np.ndarray
) -> np.ndarray:
    """Whether the residuals of each group exceed what its dispersion lets expect by two standard deviations, (n_genes, 2) bool."""
    counts = np.ascontiguousarray(pseudobulk.counts[genes])
    exposure = pseudobulk.exposures if pseudobulk.of_gene is None else np.ascontiguousarray(pseudobulk.of_gene[genes])
    out, found = np.empty((len(genes), 3)), np.zeros((len(genes), 2), bool)
    for group in (0, 1):
        group_statistics(counts, exposure, design, phi, dispersion_ratio, group, out)
        numerator, degrees = out[:, 0], out[:, 1]
        found[:, group] = (degrees > 0) & (numerator > degrees + 2 * np.sqrt(2 * degrees))
    return found
