"""Refinement of a mixture by importance sampling: with its draws reweighted by likelihood times prior, the answer no longer rests on it.

Null and change are sampled apart: their two evidences give the null probability. The draws correct the mixture instead of replacing it: with weights
W for the posterior and U for the mixture, both on the same draws, E f = E_mixture f + sum (W - U) f, whose sampling variance vanishes where the mixture is right.
Tails, where there are too few draws, are those of the mixture moved and stretched to the corrected mean and standard deviation.
The draws are the same quasi-random points for every test, so that an answer does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numba import get_num_threads
from scipy.special import gammaincinv, ndtri

from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._nb.posterior.columns import REFINED, Posterior, empty_columns, from_columns
from nbcompare._nb.posterior.importance.draws import DEGREES_CHANGE, DEGREES_NULL
from nbcompare._nb.posterior.importance.kernels import refine_tests
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import Prior, kernel_prior, take_prior, with_one_dispersion
from nbcompare._nb.posterior.quadrature.rate_modes import Groups
from nbcompare._nb.posterior.summary import CHUNK, both_groups, grid_posterior

TRUSTED = 0.7  # Pareto k up to which importance weights are
FAR_TAIL = (1e-7, 1e-3)  # probabilities of the other sign, given a change, that neither draws nor mixtures know
TAIL_MATTERS = 0.02  # part of the local false sign rate


def refine(
    counts1: np.ndarray,
    exposure1: np.ndarray,
    counts2: np.ndarray,
    exposure2: np.ndarray,
    prior: Prior,
    mixture: Mixture,
    *,
    n_draws: int = 128,
    levels: Sequence[float] = (),
) -> Posterior:
    """Posterior by self-normalised importance sampling, by quadrature where Pareto's k of the weights exceeds .7 or draws do not reach.

    Parameters
    ----------
    counts1, counts2
        Of reference and treated group, (n_tests, n_replicates).
    exposure1, exposure2
        (n_replicates,) or (n_tests, n_replicates); 0 is an absent replicate.
    prior
        Of every test, both groups with the same dispersion ratio.
    mixture
        Where to draw from.
    n_draws
        Of each hypothesis.
    levels
        Of the further quantiles.
    """
    groups = both_groups(counts1, exposure1, counts2, exposure2)
    prior, alike = with_one_dispersion(prior, len(counts1))
    if not alike.all():
        msg = "Importance sampling refines posteriors of groups with one dispersion; quadrature is for two."
        raise ValueError(msg)
    priors = kernel_prior(prior, len(counts1))
    requested_levels = np.asarray(levels, dtype=np.float64)
    out, pareto_k = empty_columns(len(counts1), len(requested_levels)), np.empty(len(counts1))
    arrays = mixture.arrays()
    points = quasi_random(n_draws)

    def sample(part: slice) -> None:
        data = Groups(*(array[part] for array in groups))
        refine_tests(data, priors[part], arrays.take(part), points, requested_levels, out.take(part), pareto_k[part])

    in_parallel(sample, len(counts1), get_num_threads(), size=CHUNK)
    posterior = replace(from_columns(out, REFINED), pareto_k=pareto_k)
    doubtful = np.flatnonzero(~(pareto_k <= TRUSTED) | rests_on_far_tail(posterior))
    if doubtful.size == 0:
        return posterior
    data, theirs = Groups(*(array[doubtful] for array in groups)), take_prior(prior, len(counts1), doubtful)
    return posterior.replaced(doubtful, grid_posterior(*data, theirs, levels=levels))


def rests_on_far_tail(posterior: Posterior) -> np.ndarray:
    """Whether more than one in fifty of the local false sign rate is a probability between 1e-7 and .001 of the other sign, (n,) bool.

    The mixtures of the network are up to ten times too light there, and draws are none.
    """
    tail = posterior.lfsr - posterior.null_probability
    least, most = (limit * (1.0 - posterior.null_probability) for limit in FAR_TAIL)
    return (tail > TAIL_MATTERS * posterior.lfsr) & (tail > least) & (tail < most)


@cache
def quasi_random(n_draws: int) -> np.ndarray:
    """Points (n_draws, 6), columns as named in `importance_draws`: a component, three normal deviates, what makes them Student's t.

    The additive recurrence of the generalised golden ratio, the root of x^6 = x + 1, whose points fill the cube evenly.
    """
    root = 1.2
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / 6.0)
    uniform = (0.5 + np.arange(1, n_draws + 1)[:, None] * root ** -np.arange(1.0, 6.0)) % 1.0
    uniform = np.clip(uniform, 1e-6, 1.0 - 1e-6)
    chi_square = [2.0 * gammaincinv(0.5 * df, uniform[:, 4]) / df for df in (DEGREES_CHANGE, DEGREES_NULL)]
    points = np.column_stack([uniform[:, 0], ndtri(uniform[:, 1:4]), *(1.0 / np.sqrt(value) for value in chi_square)])
    return np.ascontiguousarray(points)
