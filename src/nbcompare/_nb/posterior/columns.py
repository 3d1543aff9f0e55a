"""The summary of posteriors: its fields, and the columns in which the kernels write them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

NETWORK, REFINED, GRID, CLOSED_FORM, NOT_COMPUTED = range(5)  # what an answer rests on
INTERVAL = (0.5, 0.025, 0.975)  # levels of the columns LOG_FC_MEDIAN, LOG_FC_LOWER and LOG_FC_UPPER


@dataclass(frozen=True)
class Posterior:
    """Summary of n posteriors. Natural logarithms; bounds are those of the central 95% interval.

    The log fold change is that of null and change together, with its mass at zero; `change_quantiles` are those given a change.
    The dispersion phi is that of the treated group, where the groups have different ones.
    """

    null_probability: np.ndarray  # (n,) P(log fold change = 0 | counts)
    lfsr: np.ndarray  # (n,) local false sign rate: P(log fold change is 0 or of the less likely sign)
    log_fc: np.ndarray  # (n,) mean
    log_fc_sd: np.ndarray
    log_fc_median: np.ndarray
    log_fc_lower: np.ndarray
    log_fc_upper: np.ndarray
    log_mean: np.ndarray  # (n,) mean of the reference's log rate per unit of exposure
    log_mean_sd: np.ndarray
    log_mean_median: np.ndarray
    log_dispersion: np.ndarray  # (n,) mean of log phi
    log_dispersion_sd: np.ndarray
    log_dispersion_median: np.ndarray
    change_quantiles: np.ndarray  # (n, n_levels) of the log fold change given a change, NaN where none is possible
    dispersion_quantiles: np.ndarray  # (n, n_levels) of log phi
    pareto_k: np.ndarray  # (n,) tail of the importance weights, NaN where there are none
    source: np.ndarray  # (n,) uint8: NETWORK, REFINED, GRID, CLOSED_FORM or NOT_COMPUTED

    def __len__(self) -> int:
        return len(self.null_probability)

    def checked(self) -> Posterior:
        """The same, where a number is missing without any number and as NOT_COMPUTED."""
        missing = ~np.isfinite([getattr(self, name) for name in COLUMNS]).all(axis=0)
        if not missing.any():
            return self
        nothing: dict[str, Any] = {name: values.copy() for name, values in vars(self).items()}
        for name, values in nothing.items():
            values[missing] = NOT_COMPUTED if name == "source" else np.nan
        return Posterior(**nothing)

    def rescaled(self, spread: np.ndarray | float, log_mean_move: np.ndarray | float = 0.0) -> Posterior:
        """The posterior of `spread` times the log fold change; the reference's log rate is moved by `log_mean_move`."""
        changed: dict[str, Any] = dict(vars(self))
        for name in ("log_fc", "log_fc_sd", "log_fc_median", "log_fc_lower", "log_fc_upper"):
            changed[name] = changed[name] * spread
        changed["change_quantiles"] = self.change_quantiles * np.reshape(spread, (-1, 1))
        for name in ("log_mean", "log_mean_median"):
            changed[name] = changed[name] + log_mean_move
        return Posterior(**changed)

    def replaced(self, tests: np.ndarray, other: Posterior) -> Posterior:
        """These tests from another posterior, but the Pareto k."""
        merged: dict[str, Any] = {}
        for field in fields(self):
            merged[field.name] = getattr(self, field.name).copy()
            if field.name != "pareto_k":
                merged[field.name][tests] = getattr(other, field.name)
        return Posterior(**merged)


# Columns of a summary: the fields of `Posterior` with one number for each test, in their order (held by tests/nb/test_posterior.py).
(
    NULL_PROBABILITY,
    LFSR,
    LOG_FC,
    LOG_FC_SD,
    LOG_FC_MEDIAN,
    LOG_FC_LOWER,
    LOG_FC_UPPER,
    LOG_MEAN,
    LOG_MEAN_SD,
    LOG_MEAN_MEDIAN,
    LOG_DISPERSION,
    LOG_DISPERSION_SD,
    LOG_DISPERSION_MEDIAN,
) = range(13)
COLUMNS = tuple(
    field.name
    for field in fields(Posterior)
    if field.name not in ("change_quantiles", "dispersion_quantiles", "pareto_k", "source")
)


class Columns(NamedTuple):
    """Arrays that the kernels write posteriors to, a row for each test, or the rows of one test."""

    summary: np.ndarray  # (n, 13), see above
    changes: np.ndarray  # (n, n_levels) quantiles of the log fold change given a change
    dispersions: np.ndarray  # (n, n_levels) quantiles of log phi

    def take(self, part: slice) -> Columns:
        """Those of these tests, to write to."""
        return Columns(self.summary[part], self.changes[part], self.dispersions[part])


def empty_columns(n_tests: int, n_levels: int) -> Columns:
    """Arrays for so many tests and levels of further quantiles."""
    return Columns(*(np.empty((n_tests, width)) for width in (len(COLUMNS), n_levels, n_levels)))


def from_columns(written: Columns, source: int) -> Posterior:
    """The posterior that was written to these columns."""
    named = {name: np.ascontiguousarray(column) for name, column in zip(COLUMNS, written.summary.T, strict=True)}
    n_tests = len(written.summary)
    return Posterior(
        **named,
        change_quantiles=written.changes,
        dispersion_quantiles=written.dispersions,
        pareto_k=np.full(n_tests, np.nan),
        source=np.full(n_tests, source, np.uint8),
    )
