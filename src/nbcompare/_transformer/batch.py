"""The data of tests: counts and exposures of both groups and the prior, checked, and cut into batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nbcompare._nb.posterior.empirical_bayes import Data
from nbcompare._nb.posterior.prior import (
    LOG_DISPERSION_SD,
    LOG_FC_SD,
    LOG_MEAN_SD,
    NULL_PROPORTION,
    Prior,
    prior_matrix,
    with_one_dispersion,
)

Batch = tuple[list[np.ndarray], np.ndarray]  # the same as the kernels take them; prior (n_tests, 7)


def checked(data: Data, prior: Prior) -> Batch:
    """The data as float64, exposures with one row or as many as there are tests; refused where no posterior can be found."""
    counts1, exposure1, counts2, exposure2 = data
    prior, alike = with_one_dispersion(prior, len(counts1))
    if not alike.all():
        msg = "The network was trained on groups with the same dispersion, and these tests have different ones. Use method='quadrature'."
        raise ValueError(msg)
    priors = prior_matrix(prior, len(counts1))
    groups = [*_rows(counts1, exposure1), *_rows(counts2, exposure2)]
    _check(groups, priors)
    return groups, priors


def in_batches(data: Batch, size: int) -> Iterator[Batch]:
    """The tests, so many at once; one batch of none where there are none."""
    groups, priors = data
    for start in range(0, max(len(priors), 1), size):
        part = slice(start, start + size)
        yield [array if len(array) == 1 else array[part] for array in groups], priors[part]


def _rows(counts: np.ndarray, exposure: np.ndarray) -> list[np.ndarray]:
    """Counts and exposures as the kernels take them, exposures with one row or as many as there are tests."""
    counts = np.ascontiguousarray(counts, dtype=np.float64)
    exposure = np.ascontiguousarray(exposure, dtype=np.float64)
    return [counts, exposure[None] if exposure.ndim == 1 else exposure]


def _check(groups: list[np.ndarray], priors: np.ndarray) -> None:
    """Refuse what no posterior can be found of."""
    for name, counts, exposure in (("counts1", groups[0], groups[1]), ("counts2", groups[2], groups[3])):
        if not (counts >= 0).all() or np.isinf(counts).any():
            msg = f"{name} has values that are negative or not numbers. Give counts, 0 where a replicate is absent."
            raise ValueError(msg)
        if not np.isfinite(exposure).all() or not (exposure > 0).any(axis=1).all():
            msg = f"The exposures of {name} leave a test without a replicate, or are not numbers. Give every group at least one exposure above 0."
            raise ValueError(msg)
    positive, share = priors[:, [LOG_MEAN_SD, LOG_FC_SD]], priors[:, NULL_PROPORTION]
    if not (np.isfinite(priors).all() and (positive > 0).all() and (priors[:, LOG_DISPERSION_SD] >= 0).all()):
        msg = "The prior has values that are not numbers, or spreads that are not positive. Give log_mean_sd > 0, log_fc_sd > 0 and log_dispersion_sd >= 0."
        raise ValueError(msg)
    if not ((share >= 0) & (share <= 1)).all():
        msg = "The prior's null_proportion is a probability; give values from 0 to 1."
        raise ValueError(msg)
