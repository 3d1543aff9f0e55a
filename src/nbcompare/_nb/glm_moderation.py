"""The dispersion that the tests of a design are made at: each gene's own statistic, moderated by the trend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.glm_groups import group_statistics
from nbcompare._nb.glm_matrices import DesignMatrices
from nbcompare._nb.glm_trend import design_statistics, fit_design_trend
from nbcompare._nb.trend import fit_trend, prior_degrees, prior_dispersion

SMALLEST_TAU2 = 0.02


@dataclass(frozen=True)
class Moderation:
    """Dispersions of all genes, (n_genes,) each."""

    dispersion: np.ndarray  # at which the tests are made
    working: np.ndarray  # the prior's, at which the statistics were taken
    tau2: np.ndarray  # moderated variance over that of the working dispersion
    degrees: np.ndarray  # of freedom of tau2
    genewise: np.ndarray  # the gene's own, NaN where its counts say nothing
    trend: Trend
    mean: np.ndarray  # mean count of a sample, where the trend is read
    coefficients: np.ndarray | None  # (n_genes, p) of the fit's design at `working`, to start from


def moderate_design(
    counts: np.ndarray, offset: np.ndarray, matrices: DesignMatrices, usable: np.ndarray, *, n_threads: int
) -> Moderation:
    """Trend, prior, and what the gene's own statistic makes of it: tau2 = (d0 + numerator) / (d0 + d), phi = p0 + (tau2 - 1) / A.

    Designs that are groups of samples have the exact statistics of `dispersion` and its prior, and their results are those of `moderated`.
    """
    mean = counts.mean(axis=1)
    coefficients = None
    if matrices.group is not None:
        trend, prior_phi, prior_df, statistics = _of_groups(counts, offset, matrices.group, mean, usable)
    else:
        trend = fit_design_trend(counts, offset, matrices, usable, n_threads=n_threads)
        prior_phi = _prior_dispersion(counts, offset, trend.at(mean), trend.scatter)
        statistics, coefficients = design_statistics(counts, offset, matrices, prior_phi, n_threads=n_threads)
        prior_df = _prior_degrees(statistics[:, 2], prior_phi, trend.at(mean), trend.scatter)
    numerator, degrees, information = statistics.T
    tau2 = np.maximum((prior_df + numerator) / (prior_df + degrees), SMALLEST_TAU2)
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = np.maximum(prior_phi + (tau2 - 1) / information, 0)
        own = np.maximum(prior_phi + (numerator / degrees - 1) / information, 0)
    return Moderation(
        np.where(mean > 0, phi, np.nan),
        prior_phi,
        tau2,
        prior_df + degrees,
        np.where(degrees > 0, own, np.nan),
        trend,
        mean,
        coefficients,
    )


def _prior_dispersion(counts: np.ndarray, offset: np.ndarray, trend: np.ndarray, scatter: float) -> np.ndarray:
    """That of `trend.prior_dispersion`, at the mean A = 1 / (trend + 1/m) of samples that differ in exposure alone."""
    exposure = np.exp(offset)
    m = counts.sum(axis=1, keepdims=True) / exposure.sum(axis=1, keepdims=True) * exposure
    information = np.maximum((m / (1 + trend[:, None] * m)).mean(axis=1), 1e-9)
    shift = prior_degrees(scatter * (trend * information) ** 2)[1]
    return np.maximum(trend - (1 - np.exp(-shift)) / information, 0.0)


def _prior_degrees(information: np.ndarray, working: np.ndarray, trend: np.ndarray, scatter: float) -> np.ndarray:
    """Degrees of freedom of the prior, from A at the fitted means and the working dispersion, taken to the trend."""
    at_trend = information / (1 + (trend - working) * information)
    return prior_degrees(scatter * np.minimum(trend * at_trend, 1.0) ** 2)[0]


def _of_groups(
    counts: np.ndarray, offset: np.ndarray, group: np.ndarray, mean: np.ndarray, usable: np.ndarray
) -> tuple[Trend, np.ndarray, np.ndarray, np.ndarray]:
    """Trend, prior dispersion and degrees of freedom, and numerator, d and A = 1 / (p0 + 1/m), from the groups' exact statistics."""
    exposure = np.exp(offset)
    pseudobulk = Pseudobulk(counts, np.exp(offset.mean(axis=0)), group)
    trend = fit_trend(pseudobulk, exposure=exposure, usable=usable)
    prior_phi, prior_df = prior_dispersion(mean, trend.at(mean), trend.scatter, trend.error)
    return trend, prior_phi, prior_df, group_statistics(counts, exposure, group, prior_phi)
