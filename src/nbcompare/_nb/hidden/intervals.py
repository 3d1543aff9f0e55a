"""Confidence intervals of comparisons adjusted for hidden factors: the log fold changes that the blended test does not reject at 5%."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from nbcompare._nb.hidden.slopes import deviates

NORMAL_QUANTILE = float(ndtri(0.975))
ROUNDS = 10


@dataclass(frozen=True)
class BlendedTest:
    """The tests that are blended; arrays (n_used, n_genes) of numbers of factors above zero."""

    t: np.ndarray
    se: np.ndarray  # of the log fold change
    degrees: np.ndarray
    weights: np.ndarray  # (n_used,)
    own_weight: float  # of the unadjusted test
    own_statistic: np.ndarray  # (n_genes,)
    own_se: np.ndarray  # (n_genes,)
    root_inflation: np.ndarray  # (n_genes,)

    def at(self, null: np.ndarray) -> np.ndarray:
        """The deviate if the log fold change under the null hypothesis is `null` (n_genes,)."""
        found = self.weights @ deviates(self.t - null / self.se, self.degrees)
        if self.own_weight > 0:
            found = found + self.own_weight * (self.own_statistic - null / self.own_se)
        return np.asarray(found / self.root_inflation)


def blended_interval(test: BlendedTest, log_fc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard error and bounds of the 95% confidence interval, (n_genes,) each; zero is outside where the blended test rejects it.

    The standard error is the width of the interval over that of a standard normal deviate.

    The tests are on the stabilized scale: their bounds are moved by the difference between `log_fc` (n_genes,) and the log fold change
    at which the blended deviate is zero. Where a moved bound has passed zero though the test has not, it is zero; where it has not though
    the test rejects zero, it is the bound of the test, in proportion to `log_fc`.
    """
    scale = test.root_inflation / (
        test.weights @ (1 / test.se) + (test.own_weight / test.own_se if test.own_weight > 0 else 0.0)
    )
    middle, lower, upper = (_solve(test.at, scale, target) for target in (0.0, NORMAL_QUANTILE, -NORMAL_QUANTILE))
    at_zero = test.at(np.zeros(len(log_fc)))
    ratio = np.divide(log_fc, middle, out=np.ones(len(log_fc)), where=middle != 0)
    ratio = np.where(ratio > 0, ratio, 1.0)
    above, below = at_zero > NORMAL_QUANTILE, at_zero < -NORMAL_QUANTILE
    moved_lower, moved_upper = log_fc + lower - middle, log_fc + upper - middle
    return (
        (upper - lower) / (2 * NORMAL_QUANTILE),
        np.where(above, np.where(moved_lower > 0, moved_lower, ratio * lower), np.minimum(moved_lower, 0.0)),
        np.where(below, np.where(moved_upper < 0, moved_upper, ratio * upper), np.maximum(moved_upper, 0.0)),
    )


def _solve(deviate: Callable[[np.ndarray], np.ndarray], scale: np.ndarray, target: float) -> np.ndarray:
    """The null at which the deviate, which falls with it, is `target`: the secant method, (n_genes,)."""
    first = np.zeros(len(scale))
    gap = deviate(first) - target
    second = first + gap * scale
    for _ in range(ROUNDS):
        new_gap = deviate(second) - target
        slope = np.divide(gap - new_gap, second - first, out=1 / scale, where=np.abs(second - first) > 1e-12 * scale)
        step = new_gap / np.clip(slope, 0.05 / scale, 2 / scale)
        first, gap, second = second, new_gap, second + step
    return second
