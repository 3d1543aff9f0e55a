"""The moderated r* test of two groups within blocks: Mantel-Haenszel's rate ratio, block effects in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.glm_dispersion import constants_of
from nbcompare._nb.leave_one_out import CUT, FLOOR, LARGEST_ARM, can_leave_out
from nbcompare._nb.matched_dispersion import matched_statistics
from nbcompare._nb.matched_kernels import leave_out_matched, test_matched
from nbcompare._nb.trend import PRIOR_SCATTER, evenly_by_total, mean_bins, next_of_bin, trend_of_bins

UNBALANCED = 5  # from so many times the samples in one group on block effects are fitted instead
START = 0.1  # dispersion of all bins
MOST_STEPS, SETTLED = 10, 1e-3  # of the trend; largest change of a log dispersion after which the bins are left
MOST_LEFT = 0.6  # samples without which less of the information is left cannot be questioned: the p-value would fall for that alone
MAX_GENES = 20_000  # of more, genes evenly spaced by mean make the trend


@dataclass(frozen=True)
class MatchedDesign:
    """Two groups in blocks, the samples sorted by block and group, and what the design says of dispersion statistics."""

    members: np.ndarray  # (n_samples,) int64
    bounds: (
        np.ndarray
    )  # (n_blocks, 3) int64: where the first group, the second and the next block start among the members
    constants: np.ndarray  # (2,) kN and kP, see `glm_dispersion.design_constants`
    sizes: np.ndarray  # (2,) samples of the groups
    residual: int  # degrees of freedom

    @property
    def informative(self) -> np.ndarray:
        """Blocks with samples of both groups, (n_blocks,) bool: they alone tell of the difference."""
        return np.asarray((np.diff(self.bounds, axis=1) > 0).all(axis=1))

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each sample is of the second group, 0 or 1, and its block."""
        second, block = np.zeros((2, len(self.members)), np.intp)
        for r, (start, middle, stop) in enumerate(self.bounds):
            block[self.members[start:stop]] = r
            second[self.members[middle:stop]] = 1
        return second, block

    def scratch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Arrays that the kernels write on: cells, rates and sums of the blocks, precisions of the samples."""
        n_blocks = len(self.bounds)
        return np.empty((n_blocks, 6)), np.empty(n_blocks), np.empty((n_blocks, 2)), np.empty(len(self.members))


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
    kept: np.ndarray  # share of the information on the difference that blocks leave
    rests_on_one: np.ndarray  # bool: the rule replaced the p-value


def applies(pseudobulk: Pseudobulk) -> bool:
    """Two groups within blocks, neither with five times the samples of the other: there dispersions are compared, which needs the groups apart."""
    if pseudobulk.block is None or pseudobulk.n_groups != 2:
        return False
    sizes = np.bincount(pseudobulk.group)
    return sizes.max() < UNBALANCED * sizes.min()


def matched_design(pseudobulk: Pseudobulk, treated: int) -> MatchedDesign:
    """Cells of blocks and groups, the treated group second."""
    second = (pseudobulk.group == treated).astype(np.intp)
    block = np.zeros_like(second) if pseudobulk.block is None else pseudobulk.block
    cell = 2 * block + second
    members = np.argsort(cell, kind="stable").astype(np.int64)
    starts = np.searchsorted(cell[members], np.arange(2 * pseudobulk.n_blocks + 1)).astype(np.int64)
    bounds = np.stack([starts[:-1:2], starts[1::2], starts[2::2]], axis=1)
    constants, residual = block_constants(second, block)
    return MatchedDesign(members, np.ascontiguousarray(bounds), constants, np.bincount(second), residual)


def block_constants(group: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, int]:
    """`glm_dispersion.design_constants` of groups and blocks, which may be collinear, and the residual degrees of freedom."""
    x = np.column_stack([block[:, None] == np.unique(block), group]).astype(np.float64)
    u, values, _ = np.linalg.svd(x, full_matrices=False)
    basis = u[:, values > 1e-9 * values[0]]
    return np.array(constants_of(basis)), len(x) - basis.shape[1]


def fit_matched_trend(pseudobulk: Pseudobulk, design: MatchedDesign, usable: np.ndarray) -> Trend:
    """Bins of genes of like mean, each stepped to where its mean statistic is one; then the scatter of the statistics around them.

    One step: phi <- phi + (sum numerators / sum d - 1) sum d / sum(d A).
    """
    total = pseudobulk.counts.sum(axis=1)
    genes = np.flatnonzero(usable & (total > 0))
    genes = evenly_by_total(genes, total, MAX_GENES)
    if len(genes) == 0 or design.residual < 1:
        return Trend(np.ones(1), np.full(1, START), PRIOR_SCATTER, 0)
    counts = np.ascontiguousarray(pseudobulk.counts[genes])
    exposure = pseudobulk.exposures if pseudobulk.of_gene is None else np.ascontiguousarray(pseudobulk.of_gene[genes])
    mean = counts.mean(axis=1)
    ascending = np.lexsort((np.square(counts).sum(axis=1), mean))  # the order in which genes are given is nothing
    bins = mean_bins(ascending, mean)
    knots = np.array([np.log(mean[b]).mean() for b in bins])
    phi, out = np.full(len(bins), START), np.empty((len(genes), 3))
    for step in range(MOST_STEPS + 1):
        at_gene = np.exp(np.interp(np.log(mean), knots, np.log(phi)))
        _statistics(counts, exposure, design, at_gene, out)
        stepped = np.array([next_of_bin(phi[j], out[b]) for j, b in enumerate(bins)])
        if np.abs(np.log(stepped / phi)).max() < SETTLED or step == MOST_STEPS:
            break
        phi = stepped
    return trend_of_bins(knots, phi, at_gene, mean, ascending, out)


def _statistics(
    counts: np.ndarray, exposure: np.ndarray, design: MatchedDesign, phi: np.ndarray, out: np.ndarray
) -> None:
    k_noise, k_count = design.constants
    cells, rates, sums, precision = design.scratch()
    matched_statistics(
        counts, exposure, design.members, design.bounds, phi, k_noise, k_count, cells, rates, sums, precision, out
    )


def matched_tests(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, *, leave_out: bool = True
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
    leave_out
        Apply the leave-one-replicate-out rule of `leave_one_out`.
    """
    out = _test(pseudobulk, design, trend, 0.0)
    statistic, p_value = out[:, 2].copy(), out[:, 3].copy()
    rests_on_one = np.zeros(len(out), bool)
    if leave_out and can_leave_out(design.sizes.min(), design.sizes.min()) and design.residual > 1:
        genes = np.flatnonzero(p_value < CUT)
        statistic[genes], p_value[genes], rests_on_one[genes] = _leave_one_out(pseudobulk, design, trend, genes, out)
    return MatchedTests(
        out[:, 0], out[:, 1], statistic, p_value, out[:, 3], out[:, 4], out[:, 5], out[:, 6], rests_on_one
    )


def matched_shifted(pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, log_shift: float) -> np.ndarray:
    """Signed deviates (n_genes, 1) of the null hypothesis that the log fold change is `log_shift`."""
    return _test(pseudobulk, design, trend, log_shift)[:, 2:3]


def _left_without(second: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Share of sum_r n_1 n_2 / (n_1 + n_2), the information at high counts, that is left without each sample."""
    sizes = np.zeros((block.max() + 1, 2))
    np.add.at(sizes, (block, second), 1.0)

    def told(n: np.ndarray) -> np.ndarray:
        return np.divide(n.prod(axis=-1), n.sum(axis=-1), out=np.zeros(n.shape[:-1]), where=n.sum(axis=-1) > 0)

    fewer = sizes[block] - np.eye(2)[second]
    return 1 - (told(sizes)[block] - told(fewer)) / max(told(sizes).sum(), 1e-9)


def _test(pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, log_shift: float) -> np.ndarray:
    out = np.empty((len(pseudobulk.counts), 7))
    test_matched(
        pseudobulk.counts,
        pseudobulk.exposures,
        design.members,
        design.bounds,
        trend.at(pseudobulk.counts.mean(axis=1)),
        trend.scatter,
        design.constants,
        log_shift,
        *design.scratch(),
        out,
    )
    return out


def _leave_one_out(
    pseudobulk: Pseudobulk, design: MatchedDesign, trend: Trend, genes: np.ndarray, out: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics and p-values of these genes by the rule, and whether it replaced them."""
    second, block = design.codes()
    pair = (np.diff(design.bounds, axis=1) == 1).all(axis=1)  # either sample takes the other along: once is enough
    once = ~(pair[block] & (second == 1))
    left_out = np.flatnonzero((design.sizes <= LARGEST_ARM)[second] & once & (_left_without(second, block) > MOST_LEFT))
    constants = np.array([block_constants(np.delete(second, i), np.delete(block, i))[0] for i in left_out])
    worst, statistic = out[genes, 3].copy(), out[genes, 2].copy()
    leave_out_matched(
        genes,
        pseudobulk.counts,
        pseudobulk.exposures,
        design.members,
        design.bounds,
        left_out,
        trend.at(pseudobulk.counts.mean(axis=1)),
        trend.scatter,
        constants.reshape(-1, 2),
        *design.scratch(),
        statistic,
        worst,
    )
    replaced = worst > np.maximum(np.sqrt(out[genes, 3]), FLOOR)
    return (
        np.where(replaced, statistic, out[genes, 2]),
        np.where(replaced, worst, out[genes, 3]),
        replaced,
    )
