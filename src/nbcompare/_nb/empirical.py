"""What the genes of one comparison say together: their prior, and the posterior in closed form that anchors every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nbcompare._nb.closed_form import closed_form
from nbcompare._nb.lent import Expected
from nbcompare._nb.mixture import Mixture
from nbcompare._nb.prior import Prior
from nbcompare._nb.prior_estimate import estimate_prior

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # counts and exposure of the reference, of the treated arm


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


def prior_and_anchor(
    data: Data, estimates: Estimates, expected: Expected, given: Mapping[str, np.ndarray | float]
) -> tuple[Prior, Mixture]:
    """The comparison's own prior, but for what is given, and the posterior in closed form.

    Parameters
    ----------
    data
        Counts (n_tests, n_replicates) and exposures, (n_replicates,) or (n_tests, n_replicates), of both arms.
    estimates
        Of the same genes.
    expected
        Their dispersions before the counts of the two arms are seen.
    given
        Fields of `Prior`, numbers or (n_tests,).
    """
    rates = [np.maximum(y.sum(axis=1), 0.5) / l.sum(axis=-1) for y, l in (data[:2], data[2:])]
    centre = 0.5 * (np.log(rates[0]) + np.log(rates[1]))
    prior = estimate_prior(centre, estimates.log_fc, estimates.se, estimates.degrees, expected, **given)
    return prior, closed_form(centre, estimates.log_fc, estimates.se, estimates.dispersion, estimates.degrees, prior)
