"""The posterior of every test: its summary, exact by quadrature, or of a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import get_num_threads

from nbcompare._nb.mixture import Mixture
from nbcompare._nb.mixture_summary import summarise_tests
from nbcompare._nb.pieces import in_pieces
from nbcompare._nb.prior import Prior, inverse_gamma_shape, prior_matrix, ratio_matrix
from nbcompare._nb.quadrature import SUMMARIES, integrate_tests

NETWORK, REFINED, GRID, CLOSED_FORM, NOT_COMPUTED = range(5)  # what an answer rests on
CHUNK = 256  # tests that a thread takes at once
LOG_DISPERSIONS = [10, 12]  # columns of the summary: mean and median of log phi


@dataclass(frozen=True)
class Posterior:
    """Summary of n posteriors. Natural logarithms; bounds are those of the central 95% interval.

    The log fold change is that of null and change together, with its mass at zero; `change_quantiles` are those given a change.
    The dispersion phi is that of the treated group, where the groups have different ones.
    """

    null_probability: np.ndarray  # (n,) P(log fold change = 0 | counts)
    lfsr: (
        np.ndarray
    )  # (n,) local false sign rate: probability that the log fold change is zero or of the less likely sign
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
        needed = [
            values
            for name, values in vars(self).items()
            if name not in ("pareto_k", "source", "change_quantiles", "dispersion_quantiles")
        ]
        missing = ~np.isfinite(needed).all(axis=0)
        if not missing.any():
            return self
        nothing: dict[str, Any] = {name: values.copy() for name, values in vars(self).items()}
        for name, values in nothing.items():
            values[missing] = NOT_COMPUTED if name == "source" else np.nan
        return Posterior(**nothing)

    def replaced(self, tests: np.ndarray, other: Posterior) -> Posterior:
        """These tests from another posterior, but the Pareto k."""
        merged: dict[str, Any] = {}
        for field in fields(self):
            merged[field.name] = getattr(self, field.name).copy()
            if field.name != "pareto_k":
                merged[field.name][tests] = getattr(other, field.name)
        return Posterior(**merged)


def grid_posterior(
    counts1: np.ndarray,
    exposure1: np.ndarray,
    counts2: np.ndarray,
    exposure2: np.ndarray,
    prior: Prior,
    *,
    levels: Sequence[float] = (),
    fineness: float = 1.0,
) -> Posterior:
    """The posterior by quadrature over log dispersion and both log rates, exact to about 1e-4 of a standard deviation.

    Parameters
    ----------
    counts1, counts2
        Of reference and treated arm, (n_tests, n_replicates).
    exposure1, exposure2
        (n_replicates,) or (n_tests, n_replicates); 0 is an absent replicate.
    prior
        Of every test.
    levels
        Of the further quantiles.
    fineness
        Steps of the lattices relative to the usual ones.
    """
    arms = (*arm(counts1, exposure1), *arm(counts2, exposure2))
    priors, ratios = prior_matrix(prior, len(counts1)), ratio_matrix(prior, len(counts1))
    shapes = inverse_gamma_shape(priors[:, 3])
    wanted = np.asarray(levels, dtype=np.float64)
    out = columns(len(counts1), len(wanted))

    def integrate(part: slice) -> None:
        y1, l1, y2, l2 = (array[part] for array in arms)
        summary, changes, dispersions = (array[part] for array in out)
        integrate_tests(
            y1, l1, y2, l2, priors[part], ratios[part], shapes[part], wanted, fineness, summary, changes, dispersions
        )
        of_treated = np.log(ratios[part, 1])
        summary[:, LOG_DISPERSIONS] += of_treated[:, None]
        dispersions += of_treated[:, None]

    in_pieces(integrate, len(counts1), get_num_threads(), size=CHUNK)
    return from_columns(out, GRID)


def summarise_mixture(mixture: Mixture, *, levels: Sequence[float] = ()) -> Posterior:
    """Means, standard deviations and quantiles of Gaussian mixtures: their marginals are Gaussian mixtures, nothing is drawn."""
    wanted = np.asarray(levels, dtype=np.float64)
    out = columns(len(mixture), len(wanted))
    arrays = [np.ascontiguousarray(getattr(mixture, field.name), dtype=np.float64) for field in fields(mixture)]

    def summarise(part: slice) -> None:
        null, null_weight, null_mean, null_scale, weight, mean, scale = (array[part] for array in arrays)
        summary, changes, dispersions = (array[part] for array in out)
        summarise_tests(
            null, null_weight, null_mean, null_scale, weight, mean, scale, wanted, summary, changes, dispersions
        )

    in_pieces(summarise, len(mixture), get_num_threads(), size=CHUNK)
    return from_columns(out, NETWORK)


def columns(n_tests: int, n_levels: int) -> list[np.ndarray]:
    """What the kernels write into: the summary, quantiles given a change, quantiles of the log dispersion."""
    return [np.empty((n_tests, width)) for width in (SUMMARIES, n_levels, n_levels)]


def from_columns(written: list[np.ndarray], source: int) -> Posterior:
    """What the kernels wrote, as a posterior."""
    summary, changes, dispersions = written
    named = {
        field.name: np.ascontiguousarray(column)
        for field, column in zip(fields(Posterior), summary.T[:13], strict=False)
    }
    unknown, sources = np.full(len(summary), np.nan), np.full(len(summary), source, np.uint8)
    return Posterior(
        **named, change_quantiles=changes, dispersion_quantiles=dispersions, pareto_k=unknown, source=sources
    )


def arm(counts: np.ndarray, exposure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts and exposure of one arm as the kernels take them, both (n_tests, n_replicates)."""
    counts = np.ascontiguousarray(counts, dtype=np.float64)
    exposure = np.ascontiguousarray(np.broadcast_to(exposure, counts.shape), dtype=np.float64)
    return counts, exposure
