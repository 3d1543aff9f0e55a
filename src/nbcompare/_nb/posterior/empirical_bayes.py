"""The prior of a comparison, estimated from its own genes after the moderated test (empirical Bayes), and the Gaussian posterior under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from nbcompare._nb.numerics.simd import exp, log, log1p
from nbcompare._nb.posterior.dispersion_prior import Expected
from nbcompare._nb.posterior.gaussian import gaussian_approximation
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import INVERSE_GAMMA, Prior

PSEUDO_NULLS = 10.0  # genes that are taken to be unchanged before any is seen [as in ashr]
USUAL_SCALE, SCALE_LOG_SD = 0.5, 1.0  # prior of the scale, log-normal
SCALES = np.geomspace(0.03, 5.0, 31)
NULL_PROPORTION = (0.01, 0.99)
LEAST_CENTRE_SD = 0.3
LEAST_SHARE = 1e-6

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


def prior_and_approximation(
    data: Data, estimates: Estimates, expected: Expected, given: Mapping[str, np.ndarray | float]
) -> tuple[Prior, Mixture]:
    """The comparison's own prior, but for what is given, and the posterior in closed form.

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
    """
    rates = [np.maximum(y.sum(axis=1), 0.5) / l.sum(axis=-1) for y, l in (data[:2], data[2:])]
    centre = 0.5 * (np.log(rates[0]) + np.log(rates[1]))
    prior = estimate_prior(centre, estimates.log_fc, estimates.se, estimates.degrees, expected, **given)
    return prior, gaussian_approximation(
        centre, estimates.log_fc, estimates.se, estimates.dispersion, estimates.degrees, prior
    )


def estimate_prior(
    centre: np.ndarray,
    log_fc: np.ndarray,
    se: np.ndarray,
    degrees: np.ndarray,
    expected: Expected,
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
        "log_fc_sd": scale,
    }
    return Prior(**(own | given))


def centre_prior(centre: np.ndarray, se: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the genes' centres, the sampling variance of their estimates (se^2 / 4) taken off."""
    if len(centre) < 2:
        return (float(centre.mean()) if len(centre) else 0.0), 3.0
    variance = centre.var(ddof=1) - np.mean(se**2) / 4.0
    return float(centre.mean()), float(np.sqrt(max(variance, LEAST_CENTRE_SD**2)))


def effect_prior(log_fc: np.ndarray, se: np.ndarray, degrees: np.ndarray) -> tuple[float, float]:
    r"""Share of unchanged genes and scale of the others' log fold changes, by penalised maximum likelihood.

    .. math::  b_g / s_g \sim \pi_0 t_{d_g} + (1 - \pi_0) \sqrt{1 + \tau^2 / s_g^2}\; t_{d_g}

    For every scale the likelihood is concave in the share, maximized by Newton's steps; the scale is the highest of a list, refined by a
    parabola. Ten unchanged genes are added :cite:p:`stephens2017`, and log tau has a wide normal prior, for where nearly all genes are
    unchanged there is nothing to learn it from.
    """
    if len(log_fc) == 0:
        return 0.5, USUAL_SCALE
    square, variance = (log_fc / se) ** 2 / degrees, se**2
    data = (square, np.log1p(square), 0.5 * (degrees + 1.0), variance, np.empty_like(square))
    profile = np.array([_penalised(likeliest_share(*data, scale), scale) for scale in SCALES])
    best = int(np.argmax(profile))
    scale = SCALES[best]
    if 0 < best < len(SCALES) - 1:
        left, middle, right = profile[best - 1 : best + 2]
        bend = 2 * middle - left - right
        scale *= (SCALES[1] / SCALES[0]) ** float(0.5 * (right - left) / bend)
    share, _ = likeliest_share(*data, scale)
    return float(np.clip(share, *NULL_PROPORTION)), float(scale)


def _penalised(likeliest: tuple[float, float], scale: float) -> float:
    """The log likelihood at a share with the pseudo-nulls and the prior of the scale."""
    share, log_likelihood = likeliest
    return log_likelihood + PSEUDO_NULLS * np.log(share) - 0.5 * (np.log(scale / USUAL_SCALE) / SCALE_LOG_SD) ** 2


@njit(cache=True, nogil=True, error_model="numpy")
def likeliest_share(square, log_square, half, variance, ratio, scale):
    """Most likely share of unchanged genes at this scale, and the log likelihood there, relative to all unchanged.

    `square` is t^2 / d, `log_square` log(1 + t^2 / d), `half` (d + 1) / 2; `ratio` is filled. Newton's steps within a bracket.
    """
    for g in range(square.shape[0]):
        widened = 1.0 + scale * scale / variance[g]
        log_ratio = half[g] * (log_square[g] - log1p(square[g] / widened)) - 0.5 * log(widened)
        ratio[g] = exp(min(log_ratio, 600.0))
    low, high, share = LEAST_SHARE, 1.0, 0.9
    for _ in range(50):
        slope, bend = PSEUDO_NULLS / share, PSEUDO_NULLS / (share * share)
        for g in range(square.shape[0]):
            part = (1.0 - ratio[g]) / (share + (1.0 - share) * ratio[g])
            slope += part
            bend += part * part
        if slope > 0.0:
            low = share
        else:
            high = share
        following = share + slope / bend
        following = following if low < following < high else 0.5 * (low + high)
        if abs(following - share) < 1e-9:
            break
        share = following
    total = 0.0
    for g in range(square.shape[0]):
        total += log(share + (1.0 - share) * ratio[g])
    return share, total
