"""What is believed of a gene before its counts are seen: the prior of a comparison, given the data set's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.special import polygamma

NORMAL, INVERSE_GAMMA = 0.0, 1.0  # families of the dispersion around its trend
LEAST_LOG_DISPERSION_SD = 1e-3  # smaller standard deviations of log dispersion are taken for this


@dataclass(frozen=True)
class Prior:
    """Independent priors of centre, log fold change and log dispersion of every test; natural logarithms.

    The centre is the mean of the two groups' log rates, so that exchanging the groups changes the sign of the log fold change and
    nothing else. The dispersion of a group is phi times the group's ratio, which is known. Every field is (n_tests,), or a number for
    all tests.
    """

    log_mean: np.ndarray | float  # centre ~ N(log_mean, log_mean_sd^2), log rate per unit of exposure
    log_mean_sd: np.ndarray | float
    log_dispersion: np.ndarray | float  # mean of log phi: the trend at the gene's mean
    log_dispersion_sd: np.ndarray | float  # standard deviation of log phi
    family: np.ndarray | float  # family of phi: 0 log-normal, 1 inverse gamma
    null_proportion: np.ndarray | float  # P(log fold change = 0)
    log_fc_sd: np.ndarray | float  # otherwise log fold change ~ N(0, log_fc_sd^2)
    ratio_reference: np.ndarray | float = 1.0  # dispersion of the reference group over phi
    ratio_treated: np.ndarray | float = 1.0


RATIOS = ("ratio_reference", "ratio_treated")
FIELDS = tuple(field.name for field in fields(Prior) if field.name not in RATIOS)
# Columns of a prior matrix: the fields in their order (held by tests/nb/test_posterior.py), and the shape in that of the kernels.
LOG_MEAN, LOG_MEAN_SD, LOG_DISPERSION, LOG_DISPERSION_SD, FAMILY, NULL_PROPORTION, LOG_FC_SD = range(7)
SHAPE = 7


class GenePrior(NamedTuple):
    """The prior of one test, in kernels."""

    log_mean: float
    log_mean_sd: float
    log_dispersion: float
    log_dispersion_sd: float
    family: float
    null_proportion: float
    log_fc_sd: float
    shape: float  # of the inverse gamma


@njit(cache=True, nogil=True, error_model="numpy")
def gene_prior(row):
    """The prior in a row of a `kernel_prior`."""
    return GenePrior(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7])


def kernel_prior(prior: Prior, n_tests: int) -> np.ndarray:
    """The `prior_matrix` with the shape of the inverse gamma as its last column, (n_tests, 8) float64."""
    matrix = prior_matrix(prior, n_tests)
    return np.ascontiguousarray(np.column_stack([matrix, inverse_gamma_shape(matrix[:, LOG_DISPERSION_SD])]))


def prior_matrix(prior: Prior, n_tests: int) -> np.ndarray:
    """The fields of the prior but the ratios as columns, in their order, (n_tests, 7) float64."""
    return _columns(prior, FIELDS, n_tests)


def ratio_matrix(prior: Prior, n_tests: int) -> np.ndarray:
    """The dispersion ratios of the reference and the treated group, (n_tests, 2) float64."""
    return _columns(prior, RATIOS, n_tests)


def prior_of_rows(rows: np.ndarray, ratios: np.ndarray) -> Prior:
    """The prior with this `prior_matrix`, (n_tests, 7), and this `ratio_matrix`, (n_tests, 2)."""
    return Prior(**dict(zip((*FIELDS, *RATIOS), (*rows.T, *ratios.T), strict=True)))


def take_prior(prior: Prior, n_tests: int, tests: np.ndarray) -> Prior:
    """The prior of these of the n tests."""
    return prior_of_rows(prior_matrix(prior, n_tests)[tests], ratio_matrix(prior, n_tests)[tests])


def joined_prior(priors: Sequence[Prior], sizes: Sequence[int]) -> Prior:
    """The priors of several runs of tests, of these numbers of tests, one after the other."""
    both = list(zip(priors, sizes, strict=True))
    return prior_of_rows(
        np.concatenate([prior_matrix(prior, size) for prior, size in both]),
        np.concatenate([ratio_matrix(prior, size) for prior, size in both]),
    )


def with_one_dispersion(prior: Prior, n_tests: int) -> tuple[Prior, np.ndarray]:
    """The same prior without ratios where both groups have the same one, and where that is, (n_tests,) bool.

    Two groups of the same ratio c have one dispersion, c phi, whose logarithm has its prior moved by log c.
    """
    rows, ratios = prior_matrix(prior, n_tests), ratio_matrix(prior, n_tests)
    alike = ratios[:, 0] == ratios[:, 1]
    rows[alike, LOG_DISPERSION] += np.log(ratios[alike, 0])
    ratios[alike] = 1.0
    return prior_of_rows(rows, ratios), alike


def _columns(prior: Prior, names: tuple[str, ...], n_tests: int) -> np.ndarray:
    columns = [np.asarray(getattr(prior, name), dtype=np.float64) for name in names]
    return np.stack([np.broadcast_to(column, n_tests) for column in columns], axis=1)


def inverse_gamma_shape(sd: np.ndarray) -> np.ndarray:
    """Shape a of the inverse gamma whose logarithm has this standard deviation: trigamma(a) = sd^2.

    With phi = b / Gamma(a), E log phi = log b - digamma(a) and var log phi = trigamma(a). Newton's steps on 1/trigamma, which is
    nearly linear in a and convex, so that they converge [Smyth, 2004].
    """
    variance = np.maximum(np.asarray(sd, dtype=np.float64), LEAST_LOG_DISPERSION_SD) ** 2
    shape = 0.5 + 1.0 / variance
    for _ in range(12):
        value = polygamma(1, shape)
        shape = shape + value * (1.0 - value / variance) / polygamma(2, shape)
    return shape
