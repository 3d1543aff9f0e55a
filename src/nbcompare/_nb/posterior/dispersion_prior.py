"""Prior of a gene's dispersion from the trend and the other groups of a data set, without the two groups of the comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import polygamma

from nbcompare._nb.dispersion.pearson import sum_statistics
from nbcompare._nb.dispersion.trend import prior_dispersion

LEAST_OF_TREND = 0.05  # below this share of the trend, how small a dispersion is no longer matters
LOWEST = 1e-4
MOST_SPREAD = 2.0  # standard deviation of log phi where the trend of very few genes contains almost no information


@dataclass(frozen=True)
class Statistics:
    """Dispersion statistics summed over groups of replicates, as `dispersion` defines them, (n_genes,) each."""

    statistic_sum: np.ndarray
    df: np.ndarray  # about the residual degrees of freedom

    def without(self, *others: Statistics) -> Statistics:
        """Those of the groups that are not among the others."""
        statistic_sum = self.statistic_sum - sum((one.statistic_sum for one in others), np.zeros(1))
        df = self.df - sum((one.df for one in others), np.zeros(1))
        known = df > 1e-9 * np.maximum(self.df, 1.0)
        return Statistics(np.where(known, statistic_sum, 0.0), np.where(known, df, 0.0))

    def after(self, df_ratio: float) -> Statistics:
        """With the degrees of freedom that blocks have left, one in `df_ratio`."""
        return Statistics(self.statistic_sum, self.df / df_ratio)


@dataclass(frozen=True)
class Expected:
    """Mean and standard deviation of log phi before the counts of the two groups are used, (n_genes,) each."""

    log_dispersion: np.ndarray
    log_dispersion_sd: np.ndarray

    def take(self, genes: np.ndarray) -> Expected:
        """Those of these genes."""
        return Expected(self.log_dispersion[genes], self.log_dispersion_sd[genes])


def statistics_of_group(counts: np.ndarray, exposure: np.ndarray, prior_phi: np.ndarray) -> Statistics:
    """Those of one group: counts (n_genes, n_replicates), exposures with one row or n_genes rows."""
    n = counts.shape[1]
    by_gene = np.zeros((len(counts), 2))
    samples, bounds = np.arange(n), np.array([0, n])
    sum_statistics(
        np.ascontiguousarray(counts, dtype=np.float64),
        np.ascontiguousarray(exposure, dtype=np.float64),
        samples,
        bounds,
        prior_phi,
        by_gene,
        np.zeros((1, 2)),
    )
    return Statistics(by_gene[:, 0].copy(), by_gene[:, 1].copy())


def expected_dispersion(
    mean: np.ndarray, trend: np.ndarray, variance: float, others: Statistics | None, error: float = 0.0
) -> Expected:
    r"""Log phi around its trend, narrowed by the statistics of the other groups.

    A relative variance :math:`V = \phi + 1/m` has :math:`d_0` degrees of freedom from the trend and :math:`d` from the other groups; its logarithm a
    standard deviation of :math:`\sqrt{\psi'((d_0 + d)/2)}`, that of :math:`\phi` by :math:`\rho = \phi m / (1 + \phi m)` more. Without
    other groups it is the trend's: mean :math:`\log \phi_{trend} - s^2/2`, standard deviation s, of few genes with the trend's own error.

    Parameters
    ----------
    mean, trend
        Mean count of a sample, and the dispersion expected there, (n_genes,).
    variance
        Of log phi around the trend.
    others
        Statistics of the other groups whose dispersion is used, without the degrees of freedom of blocks; None where there are none.
    error
        Variance of the log relative variance that the trend expects, 0 of many genes.
    """
    trend = np.maximum(trend, 1e-8)
    location, spread = np.log(trend) - 0.5 * variance, np.full(len(trend), np.sqrt(variance))
    if error > 0.0:
        of_overdispersion = trend * mean / (1.0 + trend * mean)
        spread = np.minimum(
            np.sqrt(variance + error / np.maximum(of_overdispersion, 1e-3) ** 2), max(MOST_SPREAD, spread[0])
        )
    if others is None:
        return Expected(location, spread)
    prior_phi, prior_df = prior_dispersion(mean, trend, variance, error)
    df = prior_df + others.df
    tau2 = np.maximum((prior_df + others.statistic_sum) / df, 0.02)
    floor = LEAST_OF_TREND * trend
    phi = np.maximum(prior_phi + (tau2 - 1.0) * (prior_phi + 1.0 / np.maximum(mean, 1e-9)), floor)
    rho = phi * mean / (1.0 + phi * mean)
    narrowed = np.minimum(np.sqrt(polygamma(1, 0.5 * df)) / np.maximum(rho, 1e-9), spread)
    moved = np.log(phi) + (location - np.log(np.maximum(prior_phi, floor))) * prior_df / df
    moved = np.maximum(moved, np.minimum(location, np.log(LOWEST)))
    is_informative = others.df > 0
    return Expected(np.where(is_informative, moved, location), np.where(is_informative, narrowed, spread))
