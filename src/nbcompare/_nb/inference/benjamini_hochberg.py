"""Multiple testing."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control


def adjust_p_values(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values among those that are not NaN, (n_genes,) or per column of (n_genes, n_comparisons)."""
    if p.ndim == 2:
        return np.stack([adjust_p_values(column) for column in p.T], axis=1) if p.shape[1] else p.copy()
    adjusted = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested])
    return adjusted
