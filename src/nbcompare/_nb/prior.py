"""What is believed of a gene before its counts are seen: the prior of a comparison, given the data set's."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import polygamma

NORMAL, INVERSE_GAMMA = 0.0, 1.0  # families of the dispersion around its trend
LEAST_SCATTER = 1e-3  # smaller standard deviations of log dispersion are taken for this


@dataclass(frozen=True)
class Prior:
    """Independent priors of centre, log fold change and log dispersion of every test; natural logarithms.

    The centre is the mean of the two arms' log rates, so that exchanging the arms changes the sign of the log fold change and nothing
    else. Every field is (n_tests,), or a number for all tests.
    """

    log_mean: np.ndarray | float  # centre ~ N(log_mean, log_mean_sd^2), log rate per unit of exposure
    log_mean_sd: np.ndarray | float
    log_dispersion: np.ndarray | float  # mean of log phi: the trend at the gene's mean
    scatter: np.ndarray | float  # standard deviation of log phi
    tail: np.ndarray | float  # family of phi: 0 log-normal, 1 inverse gamma
    null_share: np.ndarray | float  # P(log fold change = 0)
    scale: np.ndarray | float  # otherwise log fold change ~ N(0, scale^2)


FIELDS = tuple(field.name for field in fields(Prior))


def prior_matrix(prior: Prior, n_tests: int) -> np.ndarray:
    """The fields of the prior as columns, in their order, (n_tests, 7) float64."""
    columns = [np.asarray(getattr(prior, name), dtype=np.float64) for name in FIELDS]
    return np.stack([np.broadcast_to(column, n_tests) for column in columns], axis=1)


def prior_of_rows(rows: np.ndarray) -> Prior:
    """The prior whose `prior_matrix` has these rows, (n_tests, 7)."""
    return Prior(**dict(zip(FIELDS, rows.T, strict=True)))


def inverse_gamma_shape(scatter: np.ndarray) -> np.ndarray:
    """Shape a of the inverse gamma whose logarithm has this standard deviation: trigamma(a) = scatter^2.

    With phi = b / Gamma(a), E log phi = log b - digamma(a) and var log phi = trigamma(a). Newton's steps on 1/trigamma, which is
    nearly linear in a and convex, so that they converge [Smyth, 2004].
    """
    variance = np.maximum(np.asarray(scatter, dtype=np.float64), LEAST_SCATTER) ** 2
    shape = 0.5 + 1.0 / variance
    for _ in range(12):
        value = polygamma(1, shape)
        shape = shape + value * (1.0 - value / variance) / polygamma(2, shape)
    return shape
