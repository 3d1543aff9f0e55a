"""How dispersed is a group compared with the data set? The one owner of dispersion ratios, one a group and never below one.

A group whose replicates vary more than those of the other groups (variable controls, guides of different strength) has the dispersion c phi,
where phi is the gene's dispersion in the data set and c the group's ratio. At the ratio the group's dispersion statistics have over all genes
the mean that is expected of them; it is divided by the same ratio of the other groups. Statistics above the 95 % quantile of their F
distribution do not count, on either side of that equation, so that some genes with an outlying replicate do not raise the ratio of a group.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import betainc, fdtri

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.pearson import sorted_members, sum_statistics
from nbcompare._nb.dispersion.trend import evenly_by_total, fit_trend, prior_degrees, prior_dispersion

Statistics = Callable[[float], tuple[np.ndarray, np.ndarray, np.ndarray]]

SUSPECTED = 1.25  # mean statistic of a group over that of the others, from which on its ratio is estimated
MIN_RATIO_OF_TWO = 1.25  # ratio from which on the smaller of two groups does not enter the trend
MIN_RATIO = 1.5  # smaller ratios of one group among many are taken for one
BARELY_HIGHER = 1.05
INFORMED = 30.0  # degrees of freedom, summed over genes, below which a group's mean statistic says nothing
UNCHANGED = 0.05  # genes with smaller p-values may differ between replicates because the effect does
ORDINARY = 0.95  # quantile of its F distribution above which a gene's statistic does not count
FEWEST_PRIOR_DEGREES = 2.5  # an F distribution of fewer has hardly a mean
GENES_OF_A_RATIO = 4000  # evenly spaced by mean, if there are more
CERTAIN = 2.0  # standard errors of the log ratio from zero
MOST_STEPS = 30
SETTLED = 1e-3  # change of a ratio by a step


def robust_ratio(statistics: Statistics, log_dispersion_var: float, df_ratio: float = 1.0) -> float:
    """The ratio of a group's dispersions to the trend, without the genes whose statistics are outlying.

    A ratio within two standard errors of one is one: 2 / sum d rho^2 is the variance of its natural log.

    Parameters
    ----------
    statistics
        Gives at the working dispersion c * trend, for a ratio c, the numerators d (1 + (S - 1) / kappa), the weights d and
        rho = c trend m / (1 + c trend m) of all genes, each (n_genes,).
    log_dispersion_var
        Variance of the natural log of dispersions between genes of one mean.
    df_ratio
        Residual degrees of freedom without blocks over those with blocks.
    """
    ratio = 1.0
    for _ in range(MOST_STEPS):
        numerator, weight, rho = statistics(ratio)
        informative = weight > 0
        degrees, rho = weight[informative] / df_ratio, rho[informative]
        importance = degrees * rho
        if importance.sum() <= 0:
            return 1.0
        limit, expected = _expected(
            degrees, np.maximum(prior_degrees(log_dispersion_var * rho**2)[0], FEWEST_PRIOR_DEGREES)
        )
        found = numerator[informative] / degrees
        ordinary = importance * (found <= limit)
        excess = (ordinary * found).sum() / max((ordinary * expected).sum(), 1e-300) - 1
        leverage = (importance * rho).sum() / importance.sum()
        step = float(np.clip(1 + excess / max(leverage, 0.05), 0.3, 4.0))
        ratio *= step
        if abs(step - 1) < SETTLED:
            break
    error = float(np.sqrt(2 / max((importance * rho).sum(), 1e-300)))
    return ratio if abs(np.log(ratio)) > CERTAIN * error else 1.0


def _expected(degrees: np.ndarray, prior_df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The limit of statistics of mean one, F variables on (degrees, prior_df) over their mean, and the mean of those below it."""
    quantile = fdtri(degrees, prior_df, ORDINARY)
    limit = quantile * (prior_df - 2) / prior_df
    share = degrees * quantile / (degrees * quantile + prior_df)
    return limit, betainc(degrees / 2 + 1, prior_df / 2 - 1, share) / ORDINARY


def ratios_of_two(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, df_ratio: float, usable: np.ndarray
) -> tuple[np.ndarray, Trend]:
    """Ratios (2,) of two groups, and the trend that they go with: that of the larger group where the smaller one has the higher dispersion.

    Of two groups of one size neither is noisier: the difference of their means has the mean of their dispersions.
    """
    members, starts = sorted_members(pseudobulk.group)
    sizes = np.diff(starts)
    small, large = np.argsort(sizes, kind="stable")
    ratio = np.ones(2)
    if sizes[small] < 2 or sizes[small] == sizes[large]:
        return ratio, trend
    alone = trend_of_groups(pseudobulk, exposure, np.arange(2) == large, df_ratio, usable)
    of_small, of_large = (
        ratio_to_trend(pseudobulk, exposure, alone, df_ratio, np.arange(2) == group, usable) for group in (small, large)
    )
    ratio[small] = max(1.0, of_small / of_large)
    return ratio, alone if ratio[small] >= MIN_RATIO_OF_TWO else trend


def suspected_groups(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, df_ratio: float, *, n_threads: int = 1
) -> np.ndarray:
    """Groups of many whose mean dispersion statistic exceeds that of the others together, (n_groups,) bool."""
    members, starts = sorted_members(pseudobulk.group)
    mean = pseudobulk.counts.mean(axis=1)
    prior_phi = prior_dispersion(mean, trend.at(mean), trend.log_dispersion_var)[0]
    by_gene = np.empty((len(mean), 2))
    by_group = np.empty((len(starts) - 1, 2))
    sum_statistics(pseudobulk.counts, exposure, members, starts, prior_phi, by_gene, by_group, n_threads=n_threads)
    others = by_group.sum(axis=0) - by_group
    with np.errstate(divide="ignore", invalid="ignore"):
        typical = np.where(others[:, 1] / df_ratio > INFORMED, others[:, 0] / (others[:, 1] / df_ratio), 1.0)
    return is_suspected(by_group, typical, df_ratio)


def is_suspected(by_group: np.ndarray, typical: np.ndarray | float, df_ratio: float) -> np.ndarray:
    """Whether sums of statistics and weights over genes, (n_groups, 2), speak of a group noisier than what is typical."""
    weight = by_group[:, 1] / df_ratio
    return (weight > INFORMED) & (by_group[:, 0] > SUSPECTED * typical * weight)


def ratio_to_trend(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, df_ratio: float, groups: np.ndarray, usable: np.ndarray
) -> float:
    """The ratio to the trend of the dispersions of these groups (n_groups,) bool together, judged by the genes `usable` (n_genes,) bool.

    Under the null hypothesis residuals within a group and the difference between groups are independent. So genes may be chosen by the p-value
    of a comparison: those in which replicates differ because the effect does are left out.
    """
    statistics = _statistics_of(pseudobulk, exposure, trend, groups, usable)
    return 1.0 if statistics is None else robust_ratio(statistics, trend.log_dispersion_var, df_ratio)


def mean_statistic(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, df_ratio: float, groups: np.ndarray, usable: np.ndarray
) -> float:
    """The mean dispersion statistic of these groups at the trend, outlying genes included; 1 where they hold too little information."""
    statistics = _statistics_of(pseudobulk, exposure, trend, groups, usable)
    if statistics is None:
        return 1.0
    numerator, weight, rho = statistics(1.0)
    if weight.sum() / df_ratio <= INFORMED:
        return 1.0
    return float((numerator * rho).sum() / (weight * rho).sum() * df_ratio)


def ratio_that_counts(ratio: float, mean: float) -> float:
    """The ratio that a group of many is tested with, from its robust ratio and its mean statistic, both relative to the other groups.

    Smaller ratios than `MIN_RATIO` are one. If the mean says otherwise, outlying replicates are frequent, though not typical: the ratio is then just
    above one, so that the group's comparisons have the dispersions of their own groups and no other comparison has its.
    """
    if ratio >= MIN_RATIO:
        return ratio
    return max(ratio, BARELY_HIGHER) if mean >= MIN_RATIO else 1.0


def _statistics_of(
    pseudobulk: Pseudobulk, exposure: np.ndarray, trend: Trend, groups: np.ndarray, usable: np.ndarray
) -> Statistics | None:
    """The statistics of `robust_ratio` of these groups; None without genes."""
    total = pseudobulk.counts.sum(axis=1)
    genes = np.flatnonzero(usable & (total > 0))
    genes = evenly_by_total(genes, total, GENES_OF_A_RATIO)
    if not len(genes):
        return None
    samples = np.flatnonzero(groups[pseudobulk.group])
    counts = np.ascontiguousarray(pseudobulk.counts[np.ix_(genes, samples)])
    shared = exposure if len(exposure) == 1 else exposure[genes]
    shared = np.ascontiguousarray(shared[:, samples])
    expected = trend.at(total[genes] / pseudobulk.counts.shape[1])
    members, starts = sorted_members(np.unique(pseudobulk.group[samples], return_inverse=True)[1])
    mean = np.maximum(counts.mean(axis=1), 1e-9)

    def statistics(ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        by_gene, by_group = np.empty((len(counts), 2)), np.empty((len(starts) - 1, 2))
        sum_statistics(counts, shared, members, starts, ratio * expected, by_gene, by_group)
        rho = ratio * expected * mean
        return by_gene[:, 0], by_gene[:, 1], rho / (1 + rho)

    return statistics


def trend_of_groups(
    pseudobulk: Pseudobulk,
    exposure: np.ndarray,
    groups: np.ndarray,
    df_ratio: float,
    usable: np.ndarray,
    n_threads: int = 1,
) -> Trend:
    """Trend of these groups and the spread around it, (n_groups,) bool."""
    if groups.all():
        return fit_trend(pseudobulk, exposure=exposure, df_ratio=df_ratio, usable=usable, n_threads=n_threads)
    chosen = np.flatnonzero(groups[pseudobulk.group])
    some = Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[:, chosen]),
        pseudobulk.exposure[chosen],
        np.unique(pseudobulk.group[chosen], return_inverse=True)[1],
    )
    return fit_trend(
        some, exposure=np.ascontiguousarray(exposure[:, chosen]), df_ratio=df_ratio, usable=usable, n_threads=n_threads
    )
