"""How many factors: tests with 0, 1, ... factors are blended, and the blend is calibrated on held-out directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

TEMPERATURE = 0.02  # of scores
LEAST_GAIN = 0.03  # of the score over no factor
LEAST_FACTORS = 0.05  # weight of one factor or more
QUANTILE = 0.99
LOAD_GROUPS = (0.5, 0.8, 0.9, 0.97)  # quantiles of the load that separate groups of genes


@dataclass(frozen=True)
class LoadInflation:
    """Inflation of the variance of deviates, which grows with the load of the gene."""

    loads: np.ndarray  # (n_groups,) median load of each group
    inflation: np.ndarray  # (n_groups,) at least one, not decreasing

    def at(self, load: np.ndarray) -> np.ndarray:
        """Linear between the groups, constant beyond them."""
        return np.interp(load, self.loads, self.inflation)


def blend_weights(score: np.ndarray, near: int = 0) -> np.ndarray:
    """Weights of 0, 1, ... kmax factors, (kmax + 1,); all on zero factors where they do not help.

    `score` (kmax + 1,) are those of the held-out directions, smaller is better, and `near` the number of factors that lie near the contrast:
    fewer factors get no weight then.
    """
    none = np.zeros(len(score))
    none[0] = 1.0
    if near == 0 and score.min() >= score[0] - LEAST_GAIN:
        return none
    penalized = score - LEAST_GAIN * (np.arange(len(score)) == 0)
    allowed = np.arange(len(score)) >= near
    relative = penalized - penalized[allowed].min()
    weights = np.where(allowed, np.exp(-np.where(allowed, relative, 0.0) / TEMPERATURE), 0.0)
    weights /= weights.sum()
    return none if weights[0] > 1 - LEAST_FACTORS else weights


def fixed_weights(k: int, kmax: int) -> np.ndarray:
    """All weight on k factors."""
    return (np.arange(kmax + 1) == k).astype(np.float64)


def blended_load(load: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean load over the numbers of factors above zero; `load` (..., kmax + 1, n_genes)."""
    return np.einsum("k,...kg->...g", weights[1:] / weights[1:].sum(), load[..., 1:, :])


def load_inflation(z: np.ndarray, load: np.ndarray, weights: np.ndarray) -> LoadInflation:
    """Inflation of the blend of held-out tests, (n_directions, kmax + 1, n_genes), in groups of the load."""
    blended = np.abs(np.einsum("k,jkg->jg", weights, z)).ravel()
    loads = blended_load(load, weights).ravel()
    of_test = np.searchsorted(np.quantile(loads, LOAD_GROUPS), loads)
    groups = [i for i in range(len(LOAD_GROUPS) + 1) if (of_test == i).any()]
    medians = np.array([np.median(loads[of_test == i]) for i in groups])
    return LoadInflation(medians, np.maximum.accumulate([inflation_of(blended[of_test == i]) for i in groups]))


def inflation_of(z: np.ndarray) -> float:
    """Inflation of the variance of |deviates| in the tail that significant genes come from, at least one."""
    return max(float(np.quantile(z, QUANTILE) / norm.isf((1 - QUANTILE) / 2)) ** 2, 1.0)
