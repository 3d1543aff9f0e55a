"""The likelihood ratio test of equal rates, against chi-squared with one degree of freedom."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Fit, Group, TestResult
from nbcompare._nb.glm.fit.design import DesignMatrices, design_matrices
from nbcompare._nb.glm.fit.mle import adjusted_alternatives, likelihood_ratios
from nbcompare._nb.likelihood.mle import LikelihoodFit, fit_rates, log_likelihood, maximise
from nbcompare._nb.likelihood.moments import stack
from nbcompare._nb.likelihood.wald import normal_test, standard_error


def likelihood_ratio_test(fit: Fit, reference: Group, treated: Group) -> TestResult:
    """Twice the log likelihood lost by one common rate; the statistic is its square root with the sign of the effect.

    For a maximum likelihood fit the dispersion is fitted anew under the null. With Cox-Reid's adjustment both likelihoods are adjusted for the
    common rate, and the dispersions maximise the adjusted ones: adjustments for two rates and for one cannot be compared. After a moment fit,
    which maximises no likelihood, both rates and the common rate are fitted at the dispersion of `fit`.
    """
    common, _ = stack(reference, treated)
    if isinstance(fit, LikelihoodFit) and fit.cox_reid:
        offset = np.log(common.exposure)[None]
        matrices = two_groups(reference, treated)
        alternative = adjusted_alternatives(common.counts, offset, matrices)
        gain = likelihood_ratios(common.counts, offset, matrices, alternative, np.zeros(1), cox_reid=True)[:, 0]
    elif isinstance(fit, LikelihoodFit):
        gain = fit.log_likelihood - maximise(common, cox_reid=False)[2]
    else:
        gain = (
            _highest(reference, fit.dispersion) + _highest(treated, fit.dispersion) - _highest(common, fit.dispersion)
        )
    root = np.sign(fit.log_fc) * np.sqrt(2 * np.maximum(gain, 0))
    return normal_test(root, standard_error(fit, reference, treated), fit.status)


def two_groups(reference: Group, treated: Group) -> DesignMatrices:
    """The design of two groups, with the contrast between them."""
    treated_samples = np.repeat([0.0, 1.0], [len(reference.exposure), len(treated.exposure)])
    return design_matrices(np.column_stack([np.ones(len(treated_samples)), treated_samples]), [np.array([0.0, 1.0])])


def _highest(group: Group, dispersion: np.ndarray) -> np.ndarray:
    """Log likelihood of a group at its best rate for a given dispersion."""
    return log_likelihood(group, fit_rates(group, dispersion), dispersion)
