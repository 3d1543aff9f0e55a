"""The common shift of a comparison: the log fold change that most genes share."""

from __future__ import annotations

import numpy as np

FEWEST_GENES = 200  # with fewer tested genes no shift is estimated
TUKEY = 3.5  # standard deviations, by the median absolute deviation, beyond which a gene has no weight
MOST_STEPS, TOLERANCE = 50, 1e-5
LEAST_DEVIATION = 1e-3


def common_shift(log_fc: np.ndarray, se: np.ndarray) -> float:
    """Tukey's bisquare mean of log fold changes, weighted by their information; finite arrays (n_genes,), natural logarithms."""
    shift = float(np.median(log_fc))
    for _ in range(MOST_STEPS):
        z = (log_fc - shift) / se
        deviation = max(1.4826 * float(np.median(np.abs(z - np.median(z)))), LEAST_DEVIATION)
        weight = np.clip(1.0 - (z / (TUKEY * deviation)) ** 2, 0.0, None) ** 2 / se**2
        following = float(weight @ log_fc / weight.sum())
        done = abs(following - shift) < TOLERANCE
        shift = following
        if done:
            break
    return shift
