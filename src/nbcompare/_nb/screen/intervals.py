"""Confidence intervals of a screen's tests: those of `intervals`, of the pseudo-counts that `screen_kernels` compares."""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.dispersion.pearson import group_sums
from nbcompare._nb.numerics.interval_search import SIZE
from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._nb.screen.compare import own_setting, stands_alone
from nbcompare._nb.screen.kernels import TargetSamples, weigh_target
from nbcompare._nb.screen.model import ScreenModel
from nbcompare._nb.status import NOT_TESTED
from nbcompare._nb.two_group.block_effects import efficiency_among_many
from nbcompare._nb.two_group.gene_test import SMALLEST_EFFICIENCY, ComparisonData
from nbcompare._nb.two_group.intervals import genes_intervals, groups_interval


def target_intervals(
    model: ScreenModel,
    samples: np.ndarray,
    exposure: np.ndarray,
    block: np.ndarray | None,
    starts: np.ndarray,
    dispersion_ratio: np.ndarray,
    status: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    genes: np.ndarray | None = None,
    n_threads: int = 1,
) -> None:
    """Bounds of the natural log fold changes of `compare_targets`, from all replicates; NaN where not tested.

    Parameters
    ----------
    model, samples, exposure, block, starts
        As for `compare_targets`.
    dispersion_ratio
        Dispersion of every target relative to the data set's, as `compare_targets` found it, (n_targets,).
    status
        Of all tests, (n_targets, n_genes).
    lower, upper
        Written: (n_targets, n_genes), or (n_targets, 1) with `genes`.
    genes
        One gene a target, (n_targets,), -1 for none; all genes if None.
    n_threads
        Number of threads.
    """
    n_targets, n_genes = len(starts) - 1, samples.shape[1]
    rows_block = np.zeros(len(samples), np.int64) if block is None else np.asarray(block, np.int64)
    first = np.zeros(n_targets, np.int64) if genes is None else np.maximum(genes, 0).astype(np.int64)
    stop = np.full(n_targets, n_genes, np.int64) if genes is None else np.asarray(genes + 1, np.int64)
    target_samples = TargetSamples(samples, exposure, rows_block, starts)
    alone = np.array([stands_alone(model, ratio) for ratio in dispersion_ratio])

    def run(part: slice) -> None:
        targets = np.arange(part.start, part.stop)
        plain = targets[~alone[targets]]
        if len(plain):
            _target_intervals(
                target_samples, plain, (first, stop), model.blocks, model.reference_constants, (lower, upper)
            )
        for k in targets[alone[targets]]:
            rows, part_of_genes = slice(starts[k], starts[k + 1]), slice(first[k], stop[k])
            setting = own_setting(model, samples[rows], exposure[rows], rows_block[rows], float(dispersion_ratio[k]))
            bounds = genes_intervals(_of_genes(setting, part_of_genes))
            for out, values in zip((lower, upper), bounds, strict=True):
                out[k, : stop[k] - first[k]] = values[:, 0]
        for k in targets:
            n = stop[k] - first[k]
            untested = (status[k, first[k] : stop[k]] & NOT_TESTED) > 0
            for out in (lower, upper):
                out[k, n:] = np.nan
                out[k, :n][untested] = np.nan

    in_parallel(run, n_targets, n_threads, least=1)


def _of_genes(setting: ComparisonData, genes: slice) -> ComparisonData:
    """The same comparisons of some of the genes."""
    return setting._replace(
        counts=np.ascontiguousarray(setting.counts[genes]),
        exposure=np.ascontiguousarray(setting.exposure[genes]),
        efficiency=np.ascontiguousarray(setting.efficiency[genes]),
        mean=setting.mean[genes],
        trend=setting.trend[genes],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _target_intervals(samples, targets, genes, blocks, reference, bounds):
    """Bounds of these targets in the genes from `genes[0]` to `genes[1]` of each, written on both arrays of `bounds`."""
    first, stop = genes
    lower, upper = bounds
    n_blocks = blocks.effects.shape[0]
    own = np.empty(n_blocks)
    scratch = np.empty(n_blocks)
    state = np.empty(SIZE)
    largest = 0
    for k in targets:
        largest = max(largest, samples.starts[k + 1] - samples.starts[k])
    y = np.empty(largest)
    l = np.empty(largest)
    members = np.arange(largest)
    for k in targets:
        start = samples.starts[k]
        n = samples.starts[k + 1] - start
        for g in range(first[k], stop[k]):
            for i in range(n):
                y[i] = samples.counts[start + i, g]
                l[i] = samples.exposure[start + i] * blocks.effects[samples.block[start + i], g]
            T2, rate2, E2, D2 = group_sums(y, l, members, 0, n, -1, reference.slope[0, g])
            T1 = reference.total[0, g]
            if T1 + T2 <= 0.0:
                lower[k, g - first[k]] = np.nan
                upper[k, g - first[k]] = np.nan
                continue
            efficiency = 1.0
            if n_blocks > 1:
                weigh_target(samples.exposure, samples.block, start, start + n, blocks.effects, g, blocks.slope[g], own)
                efficiency = efficiency_among_many(blocks.cells[g], own, blocks.factor[g], scratch)
            phi = reference.dispersion[0, g]
            lower[k, g - first[k]], upper[k, g - first[k]] = groups_interval(
                T1,
                reference.rate[0, g],
                reference.pseudo_exposure[0, g],
                phi * reference.dispersion_factor[0, g],
                T2,
                rate2,
                E2,
                phi * D2,
                reference.df[0, g],
                max(efficiency, SMALLEST_EFFICIENCY),
                state,
            )
