from __future__ import annotations

import numpy as np


def adjust_hierarchically(adjusted: np.ndarray, of_row: np.ndarray, of_all_rows: np.ndarray) -> np.ndarray:
    """The least level at which a row is selected and a test within it is called, (n_rows, n_columns).

    At level q the R(q) of n rows whose adjusted p-value is at most q are selected, and within them what is adjusted
    to at most q R(q) / n is called (Benjamini & Bogomolov 2014). For a test adjusted to a within its row, the least
    such q is min_k max(r_(k), a n / k) over the ordered adjusted p-values r of the rows, and no less than its own row's.

    Parameters
    ----------
    adjusted
        (n_rows, n_columns) Benjamini-Hochberg within each row.
    of_row
        (n_rows,) adjusted p-value of these rows.
    of_all_rows
        (n_all_rows,) those of all rows of the screen; NaN for a row without tests.
    """
    ordered = np.sort(of_all_rows[~np.isnan(of_all_rows)])
    n = ordered.size
    reached = ordered * np.arange(1, n + 1) / n  # the level within rows that is left when the k-th row just enters
    k = np.searchsorted(reached, adjusted)  # rows below the one with which the level suffices
    with np.errstate(divide="ignore", invalid="ignore"):
        before = np.where(k > 0, adjusted * n / k, np.inf)
    level = np.minimum(before, np.append(ordered, np.inf)[k])
    level = np.minimum(np.maximum(level, of_row[:, None]), 1.0)
    return np.where(np.isnan(adjusted), np.nan, level)
