"""The Wald test: log fold change over its standard error, against a standard normal."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from nbcompare._nb.data import Fit, Group, TestResult
from nbcompare._nb.likelihood.mle import LikelihoodFit
from nbcompare._nb.status import NOT_TESTED


def wald_test(fit: Fit, reference: Group, treated: Group) -> TestResult:
    """Z = log fold change / standard error, two-sided normal p-values.

    At moment estimates this is the test of Svensson [arXiv 2508.04111]. It takes the estimated dispersion for the true one, so at few
    replicates it rejects too often.
    """
    se = standard_error(fit, reference, treated)
    return normal_test(fit.log_fc / se, se, fit.status)


def standard_error(fit: Fit, reference: Group, treated: Group, ratios: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Standard error of the natural log fold change, (n_genes,), at the fitted means m and dispersion phi.

    `ratios` are the dispersions of reference and treated group over phi.

    Its square is the sum over both groups of: for moment estimates the variance of the log of a ratio of totals,
    sum(m + phi m^2) / sum(m)^2; for maximum likelihood the inverse of the expected information, 1 / sum(m / (1 + phi m)).
    """
    variance = np.zeros(len(fit.log_fc))
    groups = ((reference, fit.log_mean, ratios[0]), (treated, fit.log_mean + fit.log_fc, ratios[1]))
    for group, log_rate, ratio in groups:
        phi = ratio * fit.dispersion[:, None]
        mean = np.exp(log_rate)[:, None] * group.exposure
        if isinstance(fit, LikelihoodFit):
            variance += 1 / (mean / (1 + phi * mean)).sum(axis=1)
        else:
            variance += (mean + phi * mean**2).sum(axis=1) / mean.sum(axis=1) ** 2
    return np.sqrt(variance)


def normal_test(z: np.ndarray, se: np.ndarray, status: np.ndarray) -> TestResult:
    """Two-sided p-values of standard normal deviates; NaN where the status says that a gene is not tested."""
    untested = (status & NOT_TESTED) > 0
    z = np.where(untested, np.nan, z)
    return TestResult(np.where(untested, np.nan, se), z, 2 * ndtr(-np.abs(z)), status)
