"""The null of a comparison as its own genes show it: a common shift of the log fold changes, and a spread beyond their standard errors.

Samples can differ in more than their condition, such as in batch, age or ancestry. The log fold changes of non-DE genes then vary more than
their standard errors indicate. A prior that does not account for this takes them for many small effects.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nbcompare._nb.inference.common_shift import FEWEST_GENES, common_shift
from nbcompare._nb.posterior.effect_prior import SCALES, likeliest_effects

STEPS = 9  # spreads that are compared
SLACK = 2.0  # log likelihood units by which the chosen spread may be less likely than the best one


class NullDistribution(NamedTuple):
    """The log fold change of a non-DE gene is normal with mean `shift` and standard deviation `spread` times its standard error."""

    spread: float = 1.0
    shift: float = 0.0  # natural logarithm


def fit_null(log_fc: np.ndarray, se: np.ndarray, degrees: np.ndarray, cap: float) -> NullDistribution:
    """The common shift of the log fold changes, and the null spread between 1 and `cap`.

    The spread is the largest one whose likelihood, with the likeliest fraction of non-DE genes and the likeliest effects, is within two
    log likelihood units of the best. With few tested genes both are those of the theory, 1 and 0. Arrays (n_tests,), natural logarithms.
    """
    known = np.isfinite(log_fc) & np.isfinite(se) & (se > 0)
    if known.sum() < FEWEST_GENES:
        return NullDistribution()
    log_fc, se, degrees = log_fc[known], se[known], degrees[known]
    shift = common_shift(log_fc, se)
    spreads = np.geomspace(1.0, max(cap, 1.0), STEPS)
    if spreads[-1] <= 1.01:
        return NullDistribution(1.0, shift)
    heights = np.array([_log_likelihood(log_fc - shift, se * spread, degrees) for spread in spreads])
    return NullDistribution(float(spreads[heights >= heights.max() - SLACK].max()), shift)


def _log_likelihood(log_fc: np.ndarray, se: np.ndarray, degrees: np.ndarray) -> float:
    """Penalized log likelihood of the likeliest prior at these standard errors, without constants."""
    all_unchanged = -0.5 * (degrees + 1.0) @ np.log1p((log_fc / se) ** 2 / degrees) - np.log(se).sum()
    return float(likeliest_effects(log_fc, se, degrees, SCALES[::3]).log_likelihood + all_unchanged)
