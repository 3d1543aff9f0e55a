"""Mean squares of residual directions, moderated around their own trend over the mean count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.dispersion.trend import PRIOR_LOG_DISPERSION_VAR, fit_log_dispersion_var, mean_bins, prior_degrees

SMALLEST_VARIANCE = 0.02
SMALLEST_LEVEL = 1e-3
LEAST_FRACTION = 0.03  # of the variance above the Poisson variance, of genes that tell the variance of log dispersion
FEW_GENES = 10


@dataclass(frozen=True)
class MeanTrend:
    """Genes in bins of their mean count, to average over and to interpolate between."""

    order: np.ndarray  # genes in ascending order of the mean
    starts: np.ndarray  # where each bin starts in that order
    lower: np.ndarray  # (n_genes,) the bin below each gene
    fraction: np.ndarray  # (n_genes,) of the way from this bin to the next, in the log of the mean
    deep: np.ndarray  # (n_genes,) bool, mean count above one

    def level(self, values: np.ndarray) -> np.ndarray:
        """Means of the bins, log-linear between their centers, (n_genes,)."""
        sizes = np.diff(np.append(self.starts, len(self.order)))
        of_bin = np.add.reduceat(values[self.order], self.starts) / sizes
        logs = np.log(np.maximum(of_bin, SMALLEST_LEVEL))
        upper = np.minimum(self.lower + 1, len(logs) - 1)
        return np.asarray(np.exp(logs[self.lower] + self.fraction * (logs[upper] - logs[self.lower])))


@dataclass(frozen=True)
class ModeratedSquares:
    """Moderated mean squares."""

    variance: np.ndarray  # (n_genes,)
    degrees: np.ndarray  # (n_genes,) degrees of freedom, those of the prior included
    log_dispersion_var: float  # variance of log dispersion between genes


def mean_trend(mean: np.ndarray) -> MeanTrend:
    """The bins of genes with these mean counts."""
    order = np.argsort(mean, kind="stable")
    bins = mean_bins(order, mean)
    knots = np.array([np.log(mean[one]).mean() for one in bins])
    logs = np.log(mean)
    lower = np.clip(np.searchsorted(knots, logs, side="right") - 1, 0, max(len(knots) - 2, 0))
    width = knots[np.minimum(lower + 1, len(knots) - 1)] - knots[lower]
    fraction = np.clip(np.divide(logs - knots[lower], width, out=np.zeros(len(mean)), where=width > 0), 0.0, 1.0)
    starts = np.cumsum([0, *[len(one) for one in bins[:-1]]])
    return MeanTrend(np.concatenate(bins), starts, lower, fraction, mean > 1)


def moderate_squares(
    squares: np.ndarray, degrees: int, trend: MeanTrend, rho: np.ndarray, log_dispersion_var: float | None = None
) -> ModeratedSquares:
    """Mean squares S (n_genes,) on `degrees` degrees of freedom f, moderated: (d0 level e^-k + f S) / (d0 + f).

    The level is the mean of S at the gene's mean count. The fraction of it that is not Poisson variance, left = 1 - (1 - rho) / level,
    gives x = scatter left^2, d0 = 1 + 2/x and k = x/2 + 1/d0 + 1/(3 d0^2). `log_dispersion_var` is estimated if it is not given.
    """
    level = trend.level(squares)
    left = np.clip(1 - (1 - rho) / level, 0.0, 1.0)
    if log_dispersion_var is None:
        used = np.flatnonzero((left > LEAST_FRACTION) & trend.deep)
        statistics = np.c_[degrees * squares[used] / level[used], np.full(len(used), float(degrees))]
        log_dispersion_var = (
            fit_log_dispersion_var(statistics, left[used], 1.0) if len(used) >= FEW_GENES else PRIOR_LOG_DISPERSION_VAR
        )
    prior, shift = prior_degrees(log_dispersion_var * np.maximum(left, 1e-3) ** 2)
    variance = (prior * level * np.exp(-shift) + degrees * squares) / (prior + degrees)
    return ModeratedSquares(np.maximum(variance, SMALLEST_VARIANCE), prior + degrees, log_dispersion_var)
