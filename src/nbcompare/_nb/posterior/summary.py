"""The posterior of every test: its summary, exact by quadrature, or of a mixture of Gaussians."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import get_num_threads

from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._nb.posterior.columns import (
    GRID,
    LOG_DISPERSION,
    LOG_DISPERSION_MEDIAN,
    NETWORK,
    Posterior,
    empty_columns,
    from_columns,
)
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.mixture_summary import summarise_tests
from nbcompare._nb.posterior.prior import Prior, kernel_prior, ratio_matrix
from nbcompare._nb.posterior.quadrature.integrate import integrate_tests
from nbcompare._nb.posterior.quadrature.rate_modes import Groups

CHUNK = 256  # tests that a thread takes at once


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
        Of reference and treated group, (n_tests, n_replicates).
    exposure1, exposure2
        (n_replicates,) or (n_tests, n_replicates); 0 is an absent replicate.
    prior
        Of every test.
    levels
        Of the further quantiles.
    fineness
        Steps of the grids relative to the usual ones.
    """
    groups = both_groups(counts1, exposure1, counts2, exposure2)
    priors, ratios = kernel_prior(prior, len(counts1)), ratio_matrix(prior, len(counts1))
    requested_levels = np.asarray(levels, dtype=np.float64)
    out = empty_columns(len(counts1), len(requested_levels))

    def integrate(part: slice) -> None:
        data, written = Groups(*(array[part] for array in groups)), out.take(part)
        integrate_tests(data, priors[part], ratios[part], requested_levels, fineness, written)
        of_treated = np.log(ratios[part, 1])[:, None]
        written.summary[:, [LOG_DISPERSION, LOG_DISPERSION_MEDIAN]] += of_treated
        written.dispersions[:] += of_treated

    in_parallel(integrate, len(counts1), get_num_threads(), size=CHUNK)
    return from_columns(out, GRID)


def summarise_mixture(mixture: Mixture, *, levels: Sequence[float] = ()) -> Posterior:
    """Means, standard deviations and quantiles of Gaussian mixtures: their marginals are Gaussian mixtures, nothing is drawn."""
    requested_levels = np.asarray(levels, dtype=np.float64)
    out, arrays = empty_columns(len(mixture), len(requested_levels)), mixture.arrays()
    summarise = lambda part: summarise_tests(arrays.take(part), requested_levels, out.take(part))
    in_parallel(summarise, len(mixture), get_num_threads(), size=CHUNK)
    return from_columns(out, NETWORK)


def both_groups(counts1: np.ndarray, exposure1: np.ndarray, counts2: np.ndarray, exposure2: np.ndarray) -> Groups:
    """Counts and exposures as the kernels take them, all (n_tests, n_replicates)."""
    arrays: list[np.ndarray] = []
    for counts, exposure in ((counts1, exposure1), (counts2, exposure2)):
        counts = np.ascontiguousarray(counts, dtype=np.float64)
        arrays += [counts, np.ascontiguousarray(np.broadcast_to(exposure, counts.shape), dtype=np.float64)]
    return Groups(*arrays)
