"""The likelihood ratio test of equal rates, against chi-squared with one degree of freedom."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Fit, Group, Test
from nbcompare._nb.likelihood import LikelihoodFit, fit_rates, log_likelihood, maximise
from nbcompare._nb.moments import stack
from nbcompare._nb.wald import normal_test, standard_error


def likelihood_ratio_test(fit: Fit, reference: Group, treated: Group) -> Test:
    """Twice the log likelihood lost by one common rate; the statistic is its square root with the sign of the effect.

    For a maximum likelihood fit the dispersion is fitted anew under the null, with Cox-Reid's adjustment by the maximum of the profile
    that is adjusted for the common rate alone; both likelihoods are then without adjustment, because adjustments for one and for two rates
    cannot be compared. After a moment fit, which maximises no likelihood, both rates and the common rate are fitted at the dispersion
    of `fit`.
    """
    common, _ = stack(reference, treated)
    if isinstance(fit, LikelihoodFit):
        gain = fit.log_likelihood - maximise(common, cox_reid=fit.cox_reid)[2]
    else:
        gain = (
            _highest(reference, fit.dispersion) + _highest(treated, fit.dispersion) - _highest(common, fit.dispersion)
        )
    root = np.sign(fit.log_fc) * np.sqrt(2 * np.maximum(gain, 0))
    return normal_test(root, standard_error(fit, reference, treated), fit.status)


def _highest(group: Group, dispersion: np.ndarray) -> np.ndarray:
    """Log likelihood of a group at its best rate for a given dispersion."""
    return log_likelihood(group, fit_rates(group, dispersion), dispersion)
