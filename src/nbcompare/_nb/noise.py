"""Groups whose replicates scatter more than the data set's: a dispersion ratio per group, never below one."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion import sorted_members, sum_statistics
from nbcompare._nb.trend import fit_trend, prior_dispersion

NOISY = 1.5  # mean statistic from which on a group of many is taken to be noisier than the data set
NOISE_THAT_MATTERS = 1.5  # smaller dispersion ratios of one group among many are left alone
UNBALANCED = 5  # of two groups, the one with so many times fewer replicates may be noisier than the other
INFORMED = 30.0  # degrees of freedom, summed over genes, below which a group's mean statistic says nothing
UNCHANGED = 0.05  # genes with smaller p-values may differ between replicates because the effect does


def noise_of_small_arm(pseudobulk: Pseudobulk, exposure: np.ndarray, lost: float) -> np.ndarray:
    """Two groups: where one has five times the replicates, the smaller one's ratio to a trend fitted on the larger alone, (2,)."""
    members, starts = sorted_members(pseudobulk.group)
    sizes = np.diff(starts)
    small, large = np.argsort(sizes, kind="stable")
    ratio = np.ones(2)
    if sizes[small] < 2 or sizes[large] < UNBALANCED * sizes[small]:
        return ratio
    chosen = members[starts[large] : starts[large + 1]]
    alone = Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[:, chosen]), pseudobulk.exposure[chosen], np.zeros(len(chosen), np.intp)
    )
    trend = fit_trend(alone, exposure=np.ascontiguousarray(exposure[:, chosen]), lost=lost)
    at_mean = trend.at(pseudobulk.counts.mean(axis=1))
    ratio[small] = fit_ratio(pseudobulk.counts, exposure, members[starts[small] : starts[small + 1]], at_mean, lost)
    return np.maximum(ratio, 1.0)


def noisy_groups(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, lost: float, *, n_threads: int = 1
) -> np.ndarray:
    """Groups of many whose mean dispersion statistic at the data set's dispersions exceeds 1.5, (n_groups,) bool."""
    members, starts = sorted_members(pseudobulk.group)
    mean = pseudobulk.counts.mean(axis=1)
    at_mean = trend.at(mean)
    prior_phi = prior_dispersion(mean, at_mean, trend.scatter)[0]
    by_gene = np.empty((len(mean), 2))
    by_group = np.empty((len(starts) - 1, 2))
    sum_statistics(pseudobulk.counts, exposure, members, starts, prior_phi, by_gene, by_group, n_threads=n_threads)
    return is_noisy(by_group, lost)


def noise_of_group(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, lost: float, group: int, p_value: np.ndarray | None
) -> float:
    """Dispersion of one group relative to the data set's, at least 1, judged by the genes that its comparison leaves unchanged.

    Under the null, residuals within a group and the difference between groups are independent, so this choice of genes does not bias
    the ratio; it leaves out the genes in which replicates differ because the effect itself does.
    """
    unchanged = np.ones(len(pseudobulk.counts), bool) if p_value is None else p_value > UNCHANGED
    if not unchanged.any():
        return 1.0
    counts = np.ascontiguousarray(pseudobulk.counts[unchanged])
    shared = exposure if len(exposure) == 1 else np.ascontiguousarray(exposure[unchanged])
    return max(
        1.0, fit_ratio(counts, shared, np.flatnonzero(pseudobulk.group == group), trend.at(counts.mean(axis=1)), lost)
    )


def is_noisy(by_group: np.ndarray, lost: float) -> np.ndarray:
    """Whether sums of statistics and weights over genes, (n_groups, 2), speak of a group noisier than the data set."""
    weight = by_group[:, 1] / lost
    return (weight > INFORMED) & (by_group[:, 0] > NOISY * weight)


def fit_ratio(counts: np.ndarray, exposure: np.ndarray, members: np.ndarray, trend: np.ndarray, lost: float) -> float:
    """The ratio c at which one group's statistics have mean one over genes at the dispersion c trend: eight fixed-point steps."""
    starts = np.array([0, len(members)], np.int64)
    mean = np.maximum(counts[:, members].mean(axis=1), 1e-9)
    by_gene = np.empty((len(counts), 2))
    by_group = np.empty((1, 2))
    ratio = 1.0
    for _ in range(8):
        sum_statistics(counts, exposure, members, starts, ratio * trend, by_gene, by_group)
        rho = ratio * trend * mean / (1 + ratio * trend * mean)
        weight = by_gene[:, 1] / lost * rho
        if weight.sum() <= 0:
            return 1.0
        excess = (by_gene[:, 0] * rho).sum() / weight.sum() - 1
        leverage = (weight * rho).sum() / weight.sum()
        ratio *= float(np.clip(1 + excess / max(leverage, 0.05), 0.3, 4.0))
    return ratio
