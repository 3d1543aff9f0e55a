"""The prior of a comparison, estimated from its own genes after the moderated test (empirical Bayes), and the Gaussian posterior under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nbcompare._nb.posterior.columns import Posterior
from nbcompare._nb.posterior.dispersion_prior import Expected
from nbcompare._nb.posterior.effect_prior import effect_prior
from nbcompare._nb.posterior.gaussian import gaussian_approximation
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.null_spread.largest_direction import largest_direction
from nbcompare._nb.posterior.null_spread.null import NullDistribution, fit_null
from nbcompare._nb.posterior.null_spread.widening import widened
from nbcompare._nb.posterior.prior import INVERSE_GAMMA, Prior

LEAST_CENTRE_SD = 0.3

Data = tuple[
    np.ndarray, np.ndarray, np.ndarray, np.ndarray
]  # counts and exposure of the reference, of the treated group


@dataclass(frozen=True)
class Estimates:
    """Tested genes of one comparison after the moderated test, (n_tests,) each. Natural logarithms."""

    log_fc: np.ndarray
    se: np.ndarray
    dispersion: np.ndarray  # that the test used
    degrees: np.ndarray  # of freedom of it

    def take(self, genes: np.ndarray) -> Estimates:
        """Those of these genes."""
        return Estimates(*(values[genes] for values in vars(self).values()))


@dataclass(frozen=True)
class PosteriorInput:
    """What the posteriors of one comparison are computed from.

    `data`, `prior` and `approximation` are those of the log fold change from the common shift, divided by the null spread.
    """

    data: Data
    prior: Prior
    approximation: Mixture
    stated: Prior  # of the log fold change from the common shift, as it is stored
    null: NullDistribution
    log_mean_move: np.ndarray  # (n_tests,) of the reference's log rate in `data`

    def restored(self, posterior: Posterior) -> Posterior:
        """A posterior that was computed from these as that of the log fold change from the common shift."""
        return posterior.rescaled(self.null.spread, self.log_mean_move)


def posterior_input(
    data: Data,
    estimates: Estimates,
    expected: Expected,
    given: Mapping[str, np.ndarray | float],
    *,
    null_spread: bool = False,
    block: np.ndarray | None = None,
) -> PosteriorInput:
    """The comparison's own prior, but for what is given, the posterior in closed form, and the data that account for the null.

    Parameters
    ----------
    data
        Counts (n_tests, n_replicates) and exposures, (n_replicates,) or (n_tests, n_replicates), of both groups.
    estimates
        Of the same genes.
    expected
        Their dispersions before the counts of the two groups are seen.
    given
        Fields of `Prior`, numbers or (n_tests,).
    null_spread
        Estimate a common shift and a spread of the non-DE genes.
    block
        Block of the samples, those of the reference first, (n_samples,).
    """
    null = NullDistribution()
    if null_spread:
        ratio = given.get("ratio_reference", 1.0) / given.get("ratio_treated", 1.0)
        cap = largest_direction(data, (estimates.dispersion * ratio, estimates.dispersion), block)
        null = fit_null(estimates.log_fc, estimates.se, estimates.degrees, cap)
    data, log_mean_move = widened(data, estimates.log_fc, null)
    log_fc = (estimates.log_fc - null.shift) / null.spread
    rates = [np.maximum(y.sum(axis=1), 0.5) / l.sum(axis=-1) for y, l in (data[:2], data[2:])]
    centre = 0.5 * (np.log(rates[0]) + np.log(rates[1]))
    stated = estimate_prior(centre, log_fc, estimates.se, estimates.degrees, expected, null.spread, **given)
    prior = replace(stated, log_fc_sd=stated.log_fc_sd / null.spread)
    approximation = gaussian_approximation(centre, log_fc, estimates.se, estimates.dispersion, estimates.degrees, prior)
    return PosteriorInput(data, prior, approximation, stated, null, log_mean_move)


def estimate_prior(
    centre: np.ndarray,
    log_fc: np.ndarray,
    se: np.ndarray,
    degrees: np.ndarray,
    expected: Expected,
    null_spread: float = 1.0,
    **given: np.ndarray | float,
) -> Prior:
    """Prior of one comparison's genes; what is `given` is taken as it is.

    Parameters
    ----------
    centre
        Mean of the two groups' log rates, (n_genes,).
    log_fc, se
        Log fold change and its standard error, NaN where not tested.
    degrees
        Degrees of freedom of the standard errors.
    expected
        Mean and standard deviation of the genes' log phi.
    null_spread
        What `log_fc` was divided by; the prior is that of the log fold change before the division.
    given
        Fields of `Prior`.
    """
    known = np.isfinite(centre) & np.isfinite(se) & np.isfinite(log_fc)
    log_mean, log_mean_sd = centre_prior(centre[known], se[known])
    null_proportion, scale = effect_prior(log_fc[known], se[known], degrees[known])
    own: dict[str, np.ndarray | float] = {
        "log_mean": log_mean,
        "log_mean_sd": log_mean_sd,
        "log_dispersion": expected.log_dispersion,
        "log_dispersion_sd": expected.log_dispersion_sd,
        "family": INVERSE_GAMMA,
        "null_proportion": null_proportion,
        "log_fc_sd": scale * null_spread,
    }
    return Prior(**(own | given))


def centre_prior(centre: np.ndarray, se: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the genes' centres, the sampling variance of their estimates (se^2 / 4) taken off."""
    if len(centre) < 2:
        return (float(centre.mean()) if len(centre) else 0.0), 3.0
    variance = centre.var(ddof=1) - np.mean(se**2) / 4.0
    return float(centre.mean()), float(np.sqrt(max(variance, LEAST_CENTRE_SD**2)))
