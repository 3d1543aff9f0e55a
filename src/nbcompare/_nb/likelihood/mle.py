"""Maximum likelihood for two groups: both rates and one dispersion, jointly, for every gene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from nbcompare._nb.data import Fit, Group
from nbcompare._nb.likelihood.moments import log_rates, stack
from nbcompare._nb.likelihood.profile import log_likelihood_of_gene, rate_at
from nbcompare._nb.likelihood.profile_maximum import WIDE, fit_gene
from nbcompare._nb.status import Status


@dataclass(frozen=True)
class LikelihoodFit(Fit):
    """Maximum likelihood estimates of one comparison."""

    log_likelihood: np.ndarray  # (n_genes,) at the estimates (without adjustment); a group without counts contributes 0
    cox_reid: bool  # whether the dispersion maximises the adjusted profile


def fit_likelihood(reference: Group, treated: Group, *, cox_reid: bool = False) -> LikelihoodFit:
    """Rates of both groups and the dispersion they share, by maximum likelihood; phi = 0, the Poisson fit, is a possible answer.

    The rates are maximised out at every dispersion and the profile is climbed in log phi by Newton's method with analytic
    derivatives. With `cox_reid` the profile is adjusted for the rates having been fitted [Cox and Reid 1987, JRSS B 49, 1],
    which takes most of the downward bias off the dispersion at few replicates.

    A group without counts is given half a count in the effect (`Status.ZERO_GROUP`), as by `moments.fit_moments`.
    """
    log_rate, status = log_rates(reference, treated)
    rates, dispersion, value = maximise(reference, treated, cox_reid=cox_reid)
    fitted = rates > 0
    log_rate[fitted] = np.log(rates[fitted])
    dispersion[(status & (Status.ALL_ZERO | Status.NO_REPLICATES)) > 0] = np.nan
    return LikelihoodFit(log_rate[0], log_rate[1] - log_rate[0], dispersion, status, value, cox_reid)


def maximise(*groups: Group, cox_reid: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates (n_groups, n_genes), dispersion and log likelihood at the maximum, of any number of groups with one dispersion."""
    stacked, starts = stack(*groups)
    out = np.empty((len(groups) + 2, len(stacked.counts)))
    _fit_genes(stacked.counts, stacked.exposure, starts, cox_reid, out)
    return out[:-2], out[-2], out[-1]


def fit_rates(group: Group, dispersion: np.ndarray) -> np.ndarray:
    """Log rate of a group that maximises the likelihood at a given dispersion, (n_genes,); -inf without counts."""
    log_rate = np.empty(len(group.counts))
    _fit_rates(np.ascontiguousarray(group.counts), group.exposure, dispersion, log_rate)
    return log_rate


def log_likelihood(group: Group, log_rate: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Log likelihood of a group's counts at given log rates and dispersions, (n_genes,)."""
    value = np.empty(len(group.counts))
    _log_likelihoods(np.ascontiguousarray(group.counts), group.exposure, np.exp(log_rate), dispersion, value)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_genes(counts, exposure, starts, cox_reid, out):
    n_groups = starts.shape[0] - 1
    wide = False
    for g in range(n_groups):
        group = exposure[starts[g] : starts[g + 1]]
        wide |= group.max() > WIDE * group.min()
    rates = np.empty(n_groups)
    trial_rates = np.empty(n_groups)
    means = np.empty(counts.shape[1])
    for gene in range(counts.shape[0]):
        phi, value = fit_gene(counts[gene], exposure, starts, cox_reid, wide, rates, trial_rates, means)
        for g in range(n_groups):
            out[g, gene] = rates[g]
        out[n_groups, gene] = phi
        out[n_groups + 1, gene] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_rates(counts, exposure, dispersion, log_rate):
    n = exposure.shape[0]
    for gene in range(counts.shape[0]):
        total = 0.0
        depth = 0.0
        for i in range(n):
            total += counts[gene, i]
            depth += exposure[i]
        rate = total / depth
        if total > 0.0 and dispersion[gene] > 0.0:
            rate = rate_at(counts[gene], exposure, 0, n, dispersion[gene], rate)
        log_rate[gene] = np.log(rate)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_likelihoods(counts, exposure, rate, dispersion, out):
    starts = np.array([0, exposure.shape[0]])
    for gene in range(counts.shape[0]):
        out[gene] = log_likelihood_of_gene(counts[gene], exposure, starts, dispersion[gene], rate[gene : gene + 1])
