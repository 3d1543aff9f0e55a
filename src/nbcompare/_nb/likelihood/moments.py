"""The method of moments for two groups: rates in closed form, one dispersion from the squared residuals of both."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Fit, Group
from nbcompare._nb.dispersion.pearson import moment_equation, solve_moments
from nbcompare._nb.status import Status


def fit_moments(reference: Group, treated: Group, *, bias_corrected: bool = True) -> Fit:
    """Rates T/L (counts over exposure) of both groups and the dispersion phi of variance = m + phi m^2, shared by the groups.

    With `bias_corrected`, phi = X / D of the equation E[X - phi D] = 0 that holds exactly for any exposures (see `dispersion.moment_equation`);
    at equal exposures and one group it is n (n SS - (n-1) T) / ((n-1) T^2 - n SS), SS the sum of squared residuals.
    Without, it is the pooled plain moment estimate sum(n/(n-1) e^2 - m) / sum(m^2) of residuals e at the fitted means m, biased
    low in few replicates [Svensson, arXiv 2508.04111]. Both are clipped to [0, 1000]; a group of one replicate says nothing about phi.

    A group without counts is given half a count (`Status.ZERO_GROUP`), so that the effect is finite.
    """
    log_rate, status = log_rates(reference, treated)
    if bias_corrected:
        numerator, denominator = _unbiased(reference, treated)
    else:
        numerator, denominator = _plain(reference, treated)
    dispersion = solve_moments(numerator, denominator)
    dispersion[(status & (Status.ALL_ZERO | Status.NO_REPLICATES)) > 0] = np.nan
    return Fit(log_rate[0], log_rate[1] - log_rate[0], dispersion, status)


def log_rates(reference: Group, treated: Group) -> tuple[np.ndarray, np.ndarray]:
    """Log of counts over exposure of both groups, (2, n_genes), and what is to be said about every gene.

    Half a count stands for none in one group; NaN where neither has counts.
    """
    totals = np.stack([group.counts.sum(axis=1) for group in (reference, treated)])
    exposures = np.array([[group.exposure.sum()] for group in (reference, treated)])
    status = group_status(reference, treated, totals)
    log_rate = np.log(np.where(totals > 0, totals, 0.5) / exposures)
    log_rate[:, (status & Status.ALL_ZERO) > 0] = np.nan
    return log_rate, status


def group_status(reference: Group, treated: Group, totals: np.ndarray) -> np.ndarray:
    """Status bits that follow from the design and from the groups' total counts (2, n_genes)."""
    sizes = sorted([len(reference.exposure), len(treated.exposure)])
    design = Status.OK
    if sizes[1] == 1:
        design = Status.NO_REPLICATES
    elif sizes[0] == 1:
        design = Status.ONE_REPLICATE_GROUP
    of_empty_groups = np.array([Status.OK, Status.ZERO_GROUP, Status.ALL_ZERO], np.uint32)
    return of_empty_groups[(totals <= 0).sum(axis=0)] | np.uint32(design)


def _unbiased(reference: Group, treated: Group) -> tuple[np.ndarray, np.ndarray]:
    """X and D, summed over the groups."""
    stacked, starts = stack(reference, treated)
    out = np.empty((len(stacked.counts), 3))
    moment_equation(stacked.counts, stacked.exposure[None, :], np.arange(len(stacked.exposure)), starts, 1.0, out)
    return out[:, 0], out[:, 1]


def _plain(reference: Group, treated: Group) -> tuple[np.ndarray, np.ndarray]:
    """sum(n/(n-1) e^2 - m) and sum(m^2) over the groups of two replicates and more."""
    numerator = np.zeros(len(reference.counts))
    denominator = np.zeros(len(reference.counts))
    for group in (reference, treated):
        n = len(group.exposure)
        if n < 2:
            continue
        mean = group.counts.sum(axis=1, keepdims=True) / group.exposure.sum() * group.exposure
        numerator += (n / (n - 1) * (group.counts - mean) ** 2 - mean).sum(axis=1)
        denominator += (mean**2).sum(axis=1)
    return numerator, denominator


def stack(*groups: Group) -> tuple[Group, np.ndarray]:
    """Groups side by side as one, and where each starts, with the end appended."""
    starts = np.concatenate([[0], np.cumsum([len(group.exposure) for group in groups])]).astype(np.int64)
    counts = np.concatenate([group.counts for group in groups], axis=1)
    return Group(np.ascontiguousarray(counts), np.concatenate([group.exposure for group in groups])), starts
