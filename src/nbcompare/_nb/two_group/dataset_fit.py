"""What the genes and groups of a data set share: block effects, trend, spread around it, and which groups have a higher dispersion than the others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.high_dispersion_groups import (
    UNCHANGED,
    mean_statistic,
    ratio_that_counts,
    ratio_to_trend,
    ratios_of_two,
    suspected_groups,
    trend_of_groups,
)
from nbcompare._nb.dispersion.pearson import sorted_members
from nbcompare._nb.two_group.block_effects import fit_blocks, residual_degrees
from nbcompare._nb.two_group.gene_test import ComparisonData, compare_genes

UNBALANCED = 5  # a group of this many times the replicates of the median group does not enter the shared fit
ENOUGH_DEGREES = 30  # of freedom in the small groups, to do without the large one


@dataclass(frozen=True)
class DatasetFit:
    """Estimated once for a data set."""

    exposure: np.ndarray  # (1 or n_genes, n_samples), with block effects
    mean: np.ndarray  # (n_genes,) mean count of a sample
    trend: Trend
    block_dispersion: np.ndarray  # (n_genes,) at which samples were weighted for the block effects
    df_ratio: float  # residual degrees of freedom without blocks over those with
    df_ratio_loo: float  # the same with one sample less, infinite where none would be left
    dispersion_ratio: np.ndarray  # (n_groups,) dispersion relative to the data set's, 1 or above
    in_fit: np.ndarray  # (n_groups,) bool, whose dispersion statistics are summed

    def setting(self, pseudobulk: Pseudobulk, pairs: np.ndarray) -> ComparisonData:
        """All that the tests of these pairs need."""
        members, starts = sorted_members(pseudobulk.group)
        ranges, sample_order = group_ranges(members, starts, pairs)
        two_groups = pseudobulk.n_groups == 2
        return ComparisonData(
            pseudobulk.counts,
            self.exposure,
            fit_blocks(pseudobulk, self.block_dispersion, pairs)[1],
            members,
            starts,
            sample_order,
            ranges,
            self.mean,
            self.trend.at(self.mean),
            self.trend.log_dispersion_var,
            self.trend.error,
            self.df_ratio,
            self.df_ratio_loo,
            pseudobulk.group.astype(np.int64),
            self.dispersion_ratio,
            self.high_dispersion(pairs) | np.full(len(pairs), two_groups),
            self.in_fit,
            two_groups,
        )

    def high_dispersion(self, pairs: np.ndarray) -> np.ndarray:
        """Whether a group of these comparisons is noisier than the data set, (n_comparisons,) bool."""
        return np.asarray((self.ratios(pairs) > 1).any(axis=1))

    def ratios(self, pairs: np.ndarray) -> np.ndarray:
        """Dispersion of reference and treated group relative to the data set's, (n_comparisons, 2); of several groups the largest."""
        of_reference = [
            np.delete(self.dispersion_ratio, treated).max() if reference < 0 else self.dispersion_ratio[reference]
            for reference, treated in pairs
        ]
        return np.stack([of_reference, self.dispersion_ratio[pairs[:, 1]]], axis=1)


def fit_shared(pseudobulk: Pseudobulk, pairs: np.ndarray, *, min_gene_counts: float, n_threads: int = 1) -> DatasetFit:
    """Block effects and trend in two rounds, then the groups that are noisier than the others, whom the trend leaves out.

    `pairs` says which genes a suspected group leaves unchanged: those of its first comparison.
    """
    usable = pseudobulk.counts.sum(axis=1) >= min_gene_counts
    mean = pseudobulk.counts.mean(axis=1)
    in_fit = groups_in_fit(np.bincount(pseudobulk.group))
    exposure, df_ratio, df_ratio_loo = pseudobulk.exposures, 1.0, 1.0
    trend = trend_of_groups(pseudobulk, exposure, in_fit, df_ratio, usable, n_threads)
    phi = trend.at(mean)
    free, residual = len(pseudobulk.group) - pseudobulk.n_groups, residual_degrees(pseudobulk)
    if residual <= 1:
        df_ratio_loo = np.inf
    if pseudobulk.block is not None:
        df_ratio, df_ratio_loo = free / max(residual, 1), (free - 1) / (residual - 1) if residual > 1 else np.inf
        for _ in range(2):
            phi = trend.at(mean)
            exposure = fit_blocks(pseudobulk, phi, n_threads=n_threads)[0]
            trend = trend_of_groups(pseudobulk, exposure, in_fit, df_ratio, usable, n_threads)
    dispersion_ratio = np.ones(pseudobulk.n_groups)
    shared = DatasetFit(exposure, mean, trend, phi, df_ratio, df_ratio_loo, dispersion_ratio, in_fit)
    if pseudobulk.n_groups == 2:
        dispersion_ratio, trend = ratios_of_two(pseudobulk, exposure, trend, df_ratio, usable)
        return replace(shared, dispersion_ratio=dispersion_ratio, trend=trend)
    suspects = np.flatnonzero(suspected_groups(pseudobulk, exposure, trend, df_ratio, n_threads=n_threads))
    return _without_high_dispersion(pseudobulk, shared, pairs, suspects, usable) if suspects.size else shared


def groups_in_fit(sizes: np.ndarray) -> np.ndarray:
    """All groups; of many, none with five times the replicates of the median group, if the others have 30 degrees of freedom.

    A large control holds little information on the dispersion of the small groups, and could outweigh them; its own dispersion hardly enters a comparison.
    """
    small = sizes < UNBALANCED * np.median(sizes)
    return small if len(sizes) > 2 and (sizes[small] - 1).sum() >= ENOUGH_DEGREES else np.ones(len(sizes), bool)


def group_ranges(members: np.ndarray, starts: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of the reference and the treated group, (n_comparisons, 4), and the list of samples they point into."""
    ranges = np.empty((len(pairs), 4), np.int64)
    lists = [members]
    end = len(members)
    for c, (reference, treated) in enumerate(pairs):
        if reference >= 0:
            ranges[c, :2] = starts[reference], starts[reference + 1]
        else:
            rest = np.concatenate([members[: starts[treated]], members[starts[treated + 1] :]])
            lists.append(rest)
            ranges[c, :2] = end, end + len(rest)
            end += len(rest)
        ranges[c, 2:] = starts[treated], starts[treated + 1]
    return ranges, np.concatenate(lists)


def _without_high_dispersion(
    pseudobulk: Pseudobulk, shared: DatasetFit, pairs: np.ndarray, suspects: np.ndarray, usable: np.ndarray
) -> DatasetFit:
    """Ratios of the groups of higher dispersion, which groups enter the shared fit, and the trend of these.

    Two rounds: the trend that these groups have raised finds them, the trend without them gives their ratios.
    """
    p_values = _p_values_of(pseudobulk, shared, pairs, suspects)
    several = np.bincount(pseudobulk.group) > 1
    dispersion_ratio, trend, in_fit = shared.dispersion_ratio.copy(), shared.trend, shared.in_fit
    suspected = np.isin(np.arange(len(dispersion_ratio)), suspects)
    for _ in range(2):
        others = in_fit & ~suspected
        others = others if (others & several).any() else in_fit
        typical, typical_mean = (
            ask(pseudobulk, shared.exposure, trend, shared.df_ratio, others, usable)
            for ask in (ratio_to_trend, mean_statistic)
        )
        for group in suspects:
            unchanged = usable & (p_values[group] > UNCHANGED) if group in p_values else usable
            own = np.arange(len(dispersion_ratio)) == group
            ratio, mean = (
                ask(pseudobulk, shared.exposure, trend, shared.df_ratio, own, unchanged)
                for ask in (ratio_to_trend, mean_statistic)
            )
            dispersion_ratio[group] = ratio_that_counts(ratio / typical, mean / typical_mean)
        in_fit = shared.in_fit & (dispersion_ratio == 1.0)
        if not (in_fit & several).any():
            return replace(shared, dispersion_ratio=dispersion_ratio, trend=trend)
        trend = trend_of_groups(pseudobulk, shared.exposure, in_fit, shared.df_ratio, usable)
        suspected = dispersion_ratio > 1.0
    return replace(shared, dispersion_ratio=dispersion_ratio, in_fit=in_fit, trend=trend)


def _p_values_of(
    pseudobulk: Pseudobulk, shared: DatasetFit, pairs: np.ndarray, groups: np.ndarray
) -> dict[int, np.ndarray]:
    """P-values (n_genes,) of the first comparison of each of these groups that has one."""
    first = {int(treated): c for c, treated in reversed(list(enumerate(pairs[:, 1]))) if treated in groups}
    if not first:
        return {}
    p_value = compare_genes(shared.setting(pseudobulk, pairs[list(first.values())]))[3]
    return dict(zip(first, p_value.T, strict=True))
