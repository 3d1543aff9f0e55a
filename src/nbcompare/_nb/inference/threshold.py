"""Is a change larger than a threshold, or shown to be smaller? The same r* at nulls other than zero.

Under a log fold change of tau the treated group is as if its exposures were exp(tau) times as large, and nothing else of the test differs. Let
z(tau) be the signed normal deviate of that null hypothesis, and Phi the normal distribution. With the threshold t,

    larger    p = Phi(-right) + Phi(-left),    right = z(t) and left = z(-t) where the effect is positive, -z(-t) and -z(t) where it is negative
    smaller   p = max(Phi(-z(-t)), Phi(z(t)))

the first as TREAT does with t statistics, the second two one-sided tests. At t = 0 the first is the two-sided p-value. Of both the statistic is
the deviate whose two-sided p-value is p, with the sign of the change.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri


def larger(below: np.ndarray, above: np.ndarray, log_fc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values of |change| <= threshold and statistics with the sign of the change, from the deviates at -threshold and +threshold."""
    up = log_fc >= 0
    right, left = np.where(up, above, -below), np.where(up, below, -above)
    p = np.minimum(ndtr(-right) + ndtr(-left), 1.0)
    with np.errstate(divide="ignore"):
        size = np.where(p > 0, -ndtri(p / 2), right)
    return p, np.where(up, size, -size)


def smaller(below: np.ndarray, above: np.ndarray, log_fc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values of |change| >= threshold and statistics with the sign of the change, from the deviates at -threshold and +threshold."""
    p = ndtr(-np.minimum(below, -above))
    with np.errstate(divide="ignore"):
        size = np.where(p > 0, -ndtri(p / 2), np.minimum(below, -above))
    return p, np.where(log_fc >= 0, size, -size)


def halved(statistic: np.ndarray, zero_group: np.ndarray, log_fc: np.ndarray) -> np.ndarray:
    """Deviates of a null hypothesis; where a group has no counts, with half the tail on that side, as the plain p-value has."""
    side = np.where(log_fc >= 0, 1.0, -1.0)
    tail = 0.5 * ndtr(-side * statistic)
    with np.errstate(divide="ignore"):
        return np.where(zero_group & (tail > 0), -side * ndtri(tail), statistic)
