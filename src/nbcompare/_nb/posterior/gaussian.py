"""Gaussian approximation of the posterior in closed form, from a moderated estimate and the prior."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, polygamma

from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import Prior, prior_matrix, ratio_matrix

FAR = 5.0  # standard deviations between two posteriors' means given a change, beyond which they disagree
UNLIKE = 5.0  # ratio of their standard deviations


def gaussian_approximation(
    centre: np.ndarray,
    log_fc: np.ndarray,
    se: np.ndarray,
    dispersion: np.ndarray,
    degrees: np.ndarray,
    prior: Prior,
) -> Mixture:
    """One normal for each hypothesis: b ~ N(beta, se^2) with its normal prior, log phi at its moderated estimate.

    Parameters
    ----------
    centre
        Mean of the two groups' log rates, (n_tests,); its variance is se^2 / 4.
    log_fc, se
        Log fold change and its standard error, (n_tests,).
    dispersion, degrees
        Moderated dispersion and its degrees of freedom, (n_tests,).
    prior
        Of every test.
    """
    n = len(log_fc)
    m0, s0, location, spread, _, null_proportion, sigma = prior_matrix(prior, n).T
    location = location + np.log(ratio_matrix(prior, n)[:, 1])  # the dispersion is the treated group's
    shrinkage = sigma**2 / (sigma**2 + se**2)
    log_odds = 0.5 * (log_fc / se) ** 2 * shrinkage + 0.5 * np.log1p(-shrinkage)  # of a change, by the data
    with np.errstate(divide="ignore"):
        null_probability = expit(np.log(null_proportion) - np.log1p(-null_proportion) - log_odds)
    weight = s0**2 / (s0**2 + 0.25 * se**2)
    middle, middle_sd = weight * centre + (1 - weight) * m0, 0.5 * se * np.sqrt(weight)
    alpha = np.clip(np.log(np.maximum(dispersion, 1e-9)), location - 3 * spread, location + 3 * spread)
    alpha_sd = np.maximum(np.minimum(spread, np.sqrt(polygamma(1, 0.5 * degrees))), 1e-3)
    mean, scales = np.stack([middle, shrinkage * log_fc, alpha], axis=1), (middle_sd, se * np.sqrt(shrinkage), alpha_sd)
    scale3, scale2 = np.zeros((n, 1, 3, 3)), np.zeros((n, 1, 2, 2))
    for i in range(3):
        scale3[:, 0, i, i] = scales[i]
    scale2[:, 0, 0, 0], scale2[:, 0, 1, 1] = middle_sd, alpha_sd
    one = np.ones((n, 1))
    return Mixture(null_probability, one, mean[:, None, [0, 2]], scale2, one, mean[:, None, :], scale3)


def contradicts(mixture: Mixture, approximation: Mixture) -> np.ndarray:
    """Whether the log fold changes of two posteriors, given a change, have means or standard deviations that cannot be of one gene, (n,) bool."""
    return changes_contradict(change_moments(mixture), change_moments(approximation))


def changes_contradict(
    change: tuple[np.ndarray, np.ndarray], approximation: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """`contradicts` of two posteriors whose `change_moments` are known, (n,) bool."""
    (mean, sd), (other, other_sd) = change, approximation
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.abs(np.log(sd / other_sd)) <= np.log(UNLIKE)
        return ~((np.abs(mean - other) <= FAR * np.hypot(sd, other_sd)) & alike)


def change_moments(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the log fold change given a change, (n,) each."""
    mean = (mixture.weight * mixture.mean[:, :, 1]).sum(axis=1)
    variance = (mixture.cholesky[:, :, 1, :] ** 2).sum(axis=2) + (mixture.mean[:, :, 1] - mean[:, None]) ** 2
    return mean, np.sqrt((mixture.weight * variance).sum(axis=1))
