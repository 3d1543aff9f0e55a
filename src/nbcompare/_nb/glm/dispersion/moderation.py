"""The dispersion that the tests of a design are made at: each gene's own statistic, moderated by the trend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Trend
from nbcompare._nb.dispersion.trend import prior_degrees, prior_dispersion
from nbcompare._nb.glm.dispersion.trend import design_statistics
from nbcompare._nb.glm.fit.design import DesignMatrices
from nbcompare._nb.glm.fit.newton import GeneDispersions
from nbcompare._nb.glm.fit.one_way import group_statistics
from nbcompare._nb.two_group.dataset_fit import DatasetFit

SMALLEST_TAU2 = 0.02
SMALLEST_INFORMATION = 1e-9


@dataclass(frozen=True)
class Moderation:
    """Dispersions of all genes, (n_genes,) each."""

    dispersion: np.ndarray  # at which the tests are made
    working: np.ndarray  # the prior's, at which the statistics were taken
    tau2: np.ndarray  # moderated variance over that of the working dispersion
    prior_degrees: np.ndarray  # degrees of freedom of the prior
    own_degrees: np.ndarray  # degrees of freedom of the gene's own statistic
    degrees: np.ndarray  # of freedom of tau2
    pooled: np.ndarray  # information on `dispersion` of samples that differ in exposure alone, see `pooled_information`
    genewise: np.ndarray  # the gene's own, NaN where its counts say nothing
    trend: Trend
    mean: np.ndarray  # mean count of a sample, where the trend is read
    ratio: np.ndarray  # (n_samples,) dispersion of the samples relative to the gene's
    coefficients: np.ndarray | None  # (n_genes, p) of the fit's design at `working`, to start from

    def part(self, genes: slice | np.ndarray) -> GeneDispersions:
        """The dispersions of some genes, for the kernels."""
        fields = (self.dispersion, self.working, self.tau2, self.prior_degrees, self.own_degrees, self.pooled)
        return GeneDispersions(*(values[genes] for values in fields))


def moderate_design(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    trend: Trend,
    ratio: np.ndarray,
    *,
    n_threads: int = 1,
) -> Moderation:
    """Dispersions from the trend and the gene's own Pearson statistic; see `moderate`.

    The prior's dispersion p0 and degrees of freedom d0 are those of samples that differ in exposure alone: what the trend says of a gene is not
    read at the gene's own fit, which follows its large counts. `ratio` (n_samples,) are the dispersions of the samples relative to the gene's.
    """
    mean = counts.mean(axis=1)
    at_mean = trend.at(mean)
    pooled = pooled_information(pooled_means(counts, offset), at_mean, ratio)
    x = trend.log_dispersion_var * (at_mean * pooled) ** 2
    shift, prior_df = prior_degrees(x)[1], prior_degrees(x + trend.error)[0]
    working = np.maximum(at_mean - (1 - np.exp(-shift)) / pooled, 0.0)
    return moderate(counts, offset, matrices, working, prior_df, trend, mean, ratio, n_threads=n_threads)


def moderate(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    working: np.ndarray,
    prior_df: np.ndarray,
    trend: Trend,
    mean: np.ndarray,
    ratio: np.ndarray,
    *,
    n_threads: int = 1,
) -> Moderation:
    """Dispersions from the prior (p0, d0) and the gene's own statistic: tau2 = (d0 + q numerator) / (d0 + q d), phi = p0 + (tau2 - 1) / A.

    q, at most one, is the information A at the fit over that of samples that differ in exposure alone, so that residuals of low fitted means
    do not count as knowledge of the dispersion of high ones. At q = 0 the dispersion is the prior's, whatever A is.
    """
    statistics, coefficients = design_statistics(counts, offset, matrices, working, ratio=ratio, n_threads=n_threads)
    numerator, own_df, information = statistics.T
    means = pooled_means(counts, offset)
    share = np.minimum(information / pooled_information(means, working, ratio), 1.0)
    tau2 = np.maximum((prior_df + share * numerator) / (prior_df + share * own_df), SMALLEST_TAU2)
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = np.where(mean > 0, np.maximum(working + (tau2 - 1) / information, 0), np.nan)
        own = np.maximum(working + (numerator / own_df - 1) / information, 0)
    return Moderation(
        phi,
        working,
        tau2,
        prior_df,
        own_df,
        prior_df + share * own_df,
        pooled_information(means, phi, ratio),
        np.where(own_df > 0, own, np.nan),
        trend,
        mean,
        ratio,
        coefficients,
    )


def moderate_groups(counts: np.ndarray, offset: np.ndarray, group: np.ndarray, shared: DatasetFit) -> Moderation:
    """The same of designs that are groups of samples, by the statistics of `dispersion`: what `moderated` computes from the groups of the fit."""
    mean = shared.mean
    working, prior_df = prior_dispersion(
        mean, shared.trend.at(mean), shared.trend.log_dispersion_var, shared.trend.error
    )
    statistics = group_statistics(counts, np.exp(offset), group, working, shared.dispersion_ratio, shared.in_fit)
    numerator, own_df, information = statistics.T
    tau2 = np.maximum((prior_df + numerator) / (prior_df + own_df), SMALLEST_TAU2)
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = np.where(mean > 0, np.maximum(working + (tau2 - 1) / information, 0), np.nan)
        own = np.maximum(working + (numerator / own_df - 1) / information, 0)
    ratio = shared.dispersion_ratio[group]
    return Moderation(
        phi,
        working,
        tau2,
        prior_df,
        own_df,
        prior_df + own_df,
        pooled_information(pooled_means(counts, offset), phi, ratio),
        np.where(own_df > 0, own, np.nan),
        shared.trend,
        mean,
        ratio,
        None,
    )


def pooled_means(counts: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Means of samples that differ in exposure alone, (n_genes, n_samples)."""
    exposure = np.exp(offset)
    return np.asarray(counts.sum(axis=1, keepdims=True) / exposure.sum(axis=1, keepdims=True) * exposure)


def pooled_information(pooled_mean: np.ndarray, phi: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Information on the dispersion phi (n_genes,) of samples of these means (n_genes, n_samples): c m / (1 + c phi m) on average."""
    m = pooled_mean * ratio
    return np.maximum((m / (1 + phi[:, None] * m)).mean(axis=1), SMALLEST_INFORMATION)
