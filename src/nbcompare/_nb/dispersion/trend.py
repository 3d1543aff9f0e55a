"""Dispersion against mean, and the spread of genes around it: the information that genes of one data set share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.pearson import moment_equation, sorted_members, sum_statistics

PRIOR_LOG_DISPERSION_VAR = 0.6  # variance of log dispersion where the data do not say
PRIOR_WIDTH = 0.7  # standard deviation of its logarithm
LOG_DISPERSION_VAR_GRID = np.geomspace(0.02, 2.0, 24) ** 2
MIN_GENES_A_BIN = 60
GENES_A_TREND_NEEDS = 60  # with fewer its own error counts
NO_INFORMATION = 1e3  # variance
MAX_GENES_FOR_VARIANCE = 20_000
MAX_STATISTICS = 1_000_000  # genes x groups; of more, genes evenly spaced by mean make the trend
MIN_GENES_FOR_TREND = 4000
NARROW = 1.01  # high over low dispersion of a bracket below which it says no more than the step does


def fit_trend(
    pseudobulk: Pseudobulk,
    *,
    exposure: np.ndarray | None = None,
    df_ratio: float = 1.0,
    usable: np.ndarray | None = None,
    n_threads: int = 1,
) -> Trend:
    """Dispersion of genes against their mean count, in bins of equal size, and the variance of its logarithm between genes.

    A pilot from the unbiased moment equation is refined by six fixed-point steps
    phi <- phi + (mean S - 1)(phi + 1/m) on the dispersion statistics of all groups. The variance of log dispersions around the trend maximises the likelihood that the gene-wise
    statistics are F-distributed around the trend, with a weak prior.

    Parameters
    ----------
    pseudobulk
        Counts, size factors and groups.
    exposure
        Exposures with block effects, (1 or n_genes, n_samples); the size factors when None.
    df_ratio
        Residual degrees of freedom without blocks over those with blocks, at least 1.
    usable
        Genes to fit on, (n_genes,) bool; all with a count when None.
    n_threads
        Number of threads; the result does not depend on it.
    """
    members, starts = sorted_members(pseudobulk.group)
    shared = pseudobulk.exposure[None, :] if exposure is None else exposure
    total = pseudobulk.counts.sum(axis=1)
    genes = np.flatnonzero(total > 0 if usable is None else usable & (total > 0))
    enough = max(MIN_GENES_FOR_TREND, MAX_STATISTICS // pseudobulk.n_groups)
    genes = evenly_by_total(genes, total, enough)
    if len(genes) == 0:
        return Trend(np.ones(1), np.full(1, 0.1), PRIOR_LOG_DISPERSION_VAR, 0)
    counts = np.ascontiguousarray(pseudobulk.counts[genes])
    exposures = np.ascontiguousarray(shared if len(shared) == 1 else shared[genes])

    moments = np.empty((len(genes), 3))
    own = pseudobulk.exposures  # without block effects
    own = own if len(own) == 1 else np.ascontiguousarray(own[genes])
    moment_equation(counts, own, members, starts, 1.0, moments)
    mean = moments[:, 2]
    ascending = np.lexsort((moments[:, 1], moments[:, 0], mean))  # the order in which genes are given is nothing
    bins = mean_bins(ascending, mean)
    knots = np.array([np.log(mean[b]).mean() for b in bins])
    phi = _pilot(moments, bins)
    by_gene = np.empty((len(genes), 2))
    by_group = np.empty((len(starts) - 1, 2))
    for _ in range(6):
        at_gene = np.exp(np.interp(np.log(mean), knots, np.log(phi)))
        sum_statistics(counts, exposures, members, starts, at_gene, by_gene, by_group, n_threads=n_threads)
        excess = np.array([_excess(by_gene[b], df_ratio) for b in bins])
        step = phi + excess * (phi + np.exp(-knots))
        phi = np.clip(step, np.maximum(0.2 * phi, 1e-5), np.minimum(5 * phi + 0.01, 20.0))

    at_gene = np.exp(np.interp(np.log(mean), knots, np.log(phi)))
    rho = at_gene * mean / (1 + at_gene * mean)
    totals = np.add.reduceat(counts[:, members], starts[:-1], axis=1)
    informed = (totals > 3).sum(axis=1) >= min(2, len(starts) - 1)
    chosen = ascending[((rho > 0.03) & (mean > 1) & informed)[ascending]]
    chosen = _evenly(chosen, MAX_GENES_FOR_VARIANCE)
    if len(chosen) < 10:
        error = error_of_trend(PRIOR_LOG_DISPERSION_VAR, by_gene[:, 1] / df_ratio, rho)
        return Trend(np.exp(knots), phi, PRIOR_LOG_DISPERSION_VAR, len(chosen), error)
    picked = exposures if len(exposures) == 1 else np.ascontiguousarray(exposures[chosen])
    by_gene = by_gene[: len(chosen)].copy()
    sum_statistics(
        np.ascontiguousarray(counts[chosen]),
        picked,
        members,
        starts,
        at_gene[chosen],
        by_gene,
        by_group,
        n_threads=n_threads,
    )
    log_dispersion_var = fit_log_dispersion_var(by_gene, rho[chosen], df_ratio)
    return Trend(
        np.exp(knots),
        phi,
        log_dispersion_var,
        len(chosen),
        error_of_trend(log_dispersion_var, by_gene[:, 1] / df_ratio, rho[chosen]),
    )


def error_of_trend(log_dispersion_var: float, degrees: np.ndarray, rho: np.ndarray) -> float:
    """Variance of the log relative variance that a trend of few genes expects, zero of many.

    That of the mean of the other n - 1 genes' statistics: 2 / sum d + v rho^2, v the variance of log dispersions, / (n - 1). The gene itself is left out, for its own
    statistic is used beside the trend.
    """
    informative = degrees > 0
    n = int(informative.sum())
    if n >= GENES_A_TREND_NEEDS:
        return 0.0
    if n < 2:
        return NO_INFORMATION
    return float(
        n / ((n - 1) * degrees[informative].sum()) * 2 + log_dispersion_var * np.mean(rho[informative] ** 2) / (n - 1)
    )


@dataclass(frozen=True)
class Brackets:
    """For every bin the last dispersions at which its mean statistic was above and below one, (n_bins,) each, written on by `next`.

    The step phi + (S - 1) / A alone is too long where a bin carries little information (low counts, designs with nearly as many columns as
    samples): it then jumps between two values for ever. Once a root is bracketed, the next dispersion is the Illinois point instead
    (regula falsi on log phi, the weight of an end that stays is halved).
    """

    low: np.ndarray  # where the statistic was above one; 0 if nowhere
    high: np.ndarray  # where it was below; infinite if nowhere
    above: np.ndarray  # the excess over one at `low`
    below: np.ndarray  # the same at `high`, negative
    side: np.ndarray  # of the last dispersion: 1 low, -1 high, 0 none yet

    @classmethod
    def none(cls, n_bins: int) -> Brackets:
        """No root is bracketed yet."""
        return cls(np.zeros(n_bins), np.full(n_bins, np.inf), *np.zeros((3, n_bins)))

    def next(self, phi: np.ndarray, excess: np.ndarray, stepped: np.ndarray) -> np.ndarray:
        """The next dispersions of all bins.

        Parameters
        ----------
        phi
            Dispersions at which the statistics were taken, (n_bins,).
        excess
            Mean statistic of each bin minus one; NaN where a bin has no information, which keeps its dispersion.
        stepped
            Where the step alone would go; used as long as a root is not bracketed.
        """
        following = phi.copy()
        for j in np.flatnonzero(np.isfinite(excess)):
            if excess[j] > 0:
                self.low[j], self.above[j] = phi[j], excess[j]
                self.below[j] *= 0.5 if self.side[j] == 1 else 1.0
                self.side[j] = 1
            else:
                self.high[j], self.below[j] = phi[j], excess[j]
                self.above[j] *= 0.5 if self.side[j] == -1 else 1.0
                self.side[j] = -1
            low, high = self.low[j], self.high[j]
            if not 0 < low < high < np.inf or high < NARROW * low:  # none, or the neighbouring bins have moved it
                if 0 < low and high < np.inf:
                    self.low[j], self.high[j] = (phi[j], np.inf) if excess[j] > 0 else (0.0, phi[j])
                following[j] = stepped[j]
            else:
                share = self.above[j] / max(self.above[j] - self.below[j], 1e-12)
                following[j] = low * (high / low) ** share
        return following


def excess_of_bin(out: np.ndarray) -> float:
    """Mean statistic of a bin minus one, from numerators and degrees of freedom d (n_genes, 2 or more); NaN where d is small."""
    degrees = out[:, 1].sum()
    return float(out[:, 0].sum() / degrees - 1) if degrees >= 1 else np.nan


def next_of_bin(phi: float, out: np.ndarray) -> float:
    """The next dispersion of a bin: phi + (sum numerators / sum d - 1) sum d / sum(d A), no more than a fivefold change.

    The columns of `out` (n_genes, 3) are numerators, degrees of freedom d and A. See `Brackets` for when not to take it.
    """
    numerator, degrees = out[:, 0].sum(), out[:, 1].sum()
    information = (out[:, 1] * out[:, 2]).sum()
    if degrees < 1 or information <= 0:
        return phi
    step = phi + (numerator / degrees - 1) * degrees / information
    return float(np.clip(step, max(0.2 * phi, 1e-5), min(5 * phi + 0.01, 20.0)))


def next_of_bins(phi: np.ndarray, out: np.ndarray, bins: list[np.ndarray], brackets: Brackets) -> np.ndarray:
    """The next dispersions of all bins from the statistics (n_genes, 3) at the present ones: a step, or within a bracket."""
    stepped = np.array([next_of_bin(phi[j], out[b]) for j, b in enumerate(bins)])
    return brackets.next(phi, np.array([excess_of_bin(out[b]) for b in bins]), stepped)


def trend_of_bins(
    knots: np.ndarray, phi: np.ndarray, at_gene: np.ndarray, mean: np.ndarray, ascending: np.ndarray, out: np.ndarray
) -> Trend:
    """The trend through bins at rest, with the spread of the statistics (n_genes, 3) around it; knots are log means."""
    rho = np.minimum(at_gene * out[:, 2], 1.0)
    chosen = _evenly(ascending[((rho > 0.03) & (mean > 1) & (out[:, 1] > 0.5))[ascending]], MAX_GENES_FOR_VARIANCE)
    log_dispersion_var = (
        fit_log_dispersion_var(out[chosen, :2], rho[chosen], 1.0) if len(chosen) >= 10 else PRIOR_LOG_DISPERSION_VAR
    )
    usable_bins = chosen if len(chosen) >= 10 else ascending
    return Trend(
        np.exp(knots),
        phi,
        log_dispersion_var,
        len(chosen),
        error_of_trend(log_dispersion_var, out[usable_bins, 1], rho[usable_bins]),
    )


def evenly_by_total(genes: np.ndarray, total: np.ndarray, enough: int) -> np.ndarray:
    """These genes, or so many of them, evenly spaced by total count; in their order."""
    if len(genes) <= enough:
        return genes
    return np.sort(_evenly(genes[np.argsort(total[genes], kind="stable")], enough))


def fit_log_dispersion_var(by_gene: np.ndarray, rho: np.ndarray, df_ratio: float) -> float:
    """Variance of log dispersion: the mode over a grid, refined by a parabola, of sum log F(S e^k; d_e, d0) + k + log prior.

    With x = v rho^2, v the variance of log dispersions, d0 = 1 + 2/x and k = x/2 + 1/d0 + 1/(3 d0^2), rho the share of the dispersion in the relative variance. There is one
    mode: every third point of the grid shows where it is.
    """
    weight = np.maximum(by_gene[:, 1] / df_ratio, 1e-3)
    s = np.where(by_gene[:, 1] > 0, by_gene[:, 0] / np.maximum(by_gene[:, 1] / df_ratio, 1e-300), 1.0)
    log_posterior = np.full(len(LOG_DISPERSION_VAR_GRID), -np.inf)
    for j in range(0, len(LOG_DISPERSION_VAR_GRID), 3):
        log_posterior[j] = _log_posterior(LOG_DISPERSION_VAR_GRID[j], s, weight, rho)
    near = int(np.argmax(log_posterior))
    for j in range(max(near - 2, 0), min(near + 3, len(LOG_DISPERSION_VAR_GRID))):
        if j != near:
            log_posterior[j] = _log_posterior(LOG_DISPERSION_VAR_GRID[j], s, weight, rho)
    best = int(np.argmax(log_posterior))
    if not 1 < best < len(LOG_DISPERSION_VAR_GRID) - 1:
        return float(LOG_DISPERSION_VAR_GRID[best])
    left, middle, right = log_posterior[best - 1 : best + 2]
    offset = 0.5 * (left - right) / (left - 2 * middle + right)
    return float(
        LOG_DISPERSION_VAR_GRID[best] * (LOG_DISPERSION_VAR_GRID[best + 1] / LOG_DISPERSION_VAR_GRID[best]) ** offset
    )


def prior_degrees(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prior degrees of freedom d0 = 1 + 2/x and log shift k = x/2 + 1/d0 + 1/(3 d0^2) of a variance of log relative variance x."""
    prior_df = 1 + 2 / np.maximum(x, 1e-6)
    return prior_df, 0.5 * x + 1 / prior_df + 1 / (3 * prior_df**2)


def prior_dispersion(
    mean: np.ndarray, trend: np.ndarray, log_dispersion_var: float, error: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Prior mean of the dispersion at a mean count and the trend there, and its degrees of freedom; `contrast.prior` for many genes."""
    mean = np.maximum(mean, 1e-9)
    x = log_dispersion_var * (trend * mean / (1 + trend * mean)) ** 2
    shift, prior_df = prior_degrees(x)[1], prior_degrees(x + error)[0]
    return np.maximum(trend - (1 - np.exp(-shift)) * (trend + 1 / mean), 0.0), prior_df


def mean_bins(ascending: np.ndarray, mean: np.ndarray) -> list[np.ndarray]:
    """Genes, given in ascending order of their mean, in bins of about equal size: 12 at most, of 60 genes or so at least.

    Of eight bins or more the top one is split in three, for trends end steeply. Genes of one mean share a bin: low counts have many.
    """
    n_genes = len(ascending)
    bounds = _even(0, n_genes, max(1, min(12, n_genes // MIN_GENES_A_BIN)))
    if len(bounds) > 8 and n_genes - bounds[-2] >= 3 * MIN_GENES_A_BIN:
        bounds = np.concatenate([bounds[:-2], _even(bounds[-2], n_genes, 3)])
    ordered = mean[ascending]
    starts = [0]
    for bound in np.searchsorted(ordered, ordered[bounds[1:-1]]):
        if min(bound - starts[-1], n_genes - bound) >= MIN_GENES_A_BIN // 2:
            starts.append(int(bound))
    return np.split(ascending, starts[1:])


def _evenly(genes: np.ndarray, enough: int) -> np.ndarray:
    """These genes, or so many of them, evenly spaced."""
    return genes if len(genes) <= enough else genes[np.linspace(0, len(genes) - 1, enough).astype(np.intp)]


def _even(start: int, stop: int, n_parts: int) -> np.ndarray:
    return np.linspace(start, stop, n_parts + 1).astype(np.intp)


def _pilot(moments: np.ndarray, bins: list[np.ndarray]) -> np.ndarray:
    x, d, mean = moments.T
    numerator = np.array([(x[b] / mean[b]).sum() for b in bins])
    denominator = np.array([(d[b] / mean[b]).sum() for b in bins])
    overall = _ratio(numerator.sum(keepdims=True), denominator.sum(keepdims=True), np.array([10.0]))
    return _ratio(numerator, denominator, np.repeat(overall, len(bins)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Dispersions between 1e-4 and 10, `otherwise` where the equation has no positive root."""
    root = np.divide(numerator, denominator, out=otherwise.copy(), where=denominator > 0)
    return np.clip(root, 1e-4, 10.0)


def _excess(by_gene: np.ndarray, df_ratio: float) -> float:
    """Mean S of a bin minus one, zero where its genes say nothing."""
    numerator, weight = by_gene.sum(axis=0)
    return numerator / (weight / df_ratio) - 1 if weight / df_ratio > 1 else 0.0


def _log_posterior(log_dispersion_var: float, s: np.ndarray, weight: np.ndarray, rho: np.ndarray) -> float:
    """Log likelihood of a variance of log dispersions, up to a constant, from dispersion statistics S on `weight` degrees of freedom."""
    prior_df, log_shift = prior_degrees(log_dispersion_var * rho**2)
    shifted = np.maximum(s * np.exp(log_shift), 0.01)
    log_f = (
        0.5 * weight * np.log(weight / prior_df)
        + (0.5 * weight - 1) * np.log(shifted)
        - 0.5 * (weight + prior_df) * np.log1p(weight * shifted / prior_df)
        - betaln(weight / 2, prior_df / 2)
    )
    return float(
        (log_f + log_shift).sum() - 0.5 * (np.log(log_dispersion_var / PRIOR_LOG_DISPERSION_VAR) / PRIOR_WIDTH) ** 2
    )
