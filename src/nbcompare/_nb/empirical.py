"""What the genes of one comparison say together: their prior, and the posterior in closed form that anchors every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nbcompare._nb.closed_form import closed_form
from nbcompare._nb.mixture import Mixture
from nbcompare._nb.prior import Prior
from nbcompare._nb.prior_estimate import estimate_prior
from nbcompare._nb.trend import prior_degrees

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # counts and exposure of the reference, of the treated arm


@dataclass(frozen=True)
class Estimates:
    """Tested genes of one comparison after the moderated test, (n_tests,) each. Natural logarithms."""

    log_fc: np.ndarray
    se: np.ndarray
    dispersion: np.ndarray  # that the test used
    mean: np.ndarray  # count of a sample of the data set
    trend: np.ndarray  # dispersion expected at that mean, in a noisy group more

    def take(self, genes: np.ndarray) -> Estimates:
        """Those of these genes."""
        return Estimates(*(values[genes] for values in vars(self).values()))


def prior_and_anchor(
    data: Data, estimates: Estimates, variance: float, given: Mapping[str, np.ndarray | float]
) -> tuple[Prior, Mixture]:
    """The comparison's own prior, but for what is given, and the posterior in closed form.

    Parameters
    ----------
    data
        Counts (n_tests, n_replicates) and exposures, (n_replicates,) or (n_tests, n_replicates), of both arms.
    estimates
        Of the same genes.
    variance
        Of log phi around the trend.
    given
        Fields of `Prior`, numbers or (n_tests,).
    """
    trend = estimates.trend
    informative = trend * estimates.mean / (1.0 + trend * estimates.mean)
    n_residual = max(data[0].shape[1] + data[2].shape[1] - 2, 0)
    degrees = prior_degrees(variance * informative**2)[0] + n_residual
    rates = [np.maximum(y.sum(axis=1), 0.5) / l.sum(axis=-1) for y, l in (data[:2], data[2:])]
    centre = 0.5 * (np.log(rates[0]) + np.log(rates[1]))
    prior = estimate_prior(centre, estimates.log_fc, estimates.se, degrees, trend, variance, **given)
    return prior, closed_form(centre, estimates.log_fc, estimates.se, estimates.dispersion, degrees, prior)
