"""Refuse what are not counts."""

from __future__ import annotations

import numba
import numpy as np

PIECE = 2**20  # values looked at, or cast, at once: they stay in the processor's cache
LARGEST = 2.0**53  # above it float64 does not hold every whole number
LARGEST_LOG1P = 20.0  # log(1 + count): a cell does not have e^20 counts of one gene


class NotCountsError(ValueError):
    """The values are not counts; the text says in a few words what they are."""


def check_counts(values: np.ndarray) -> None:
    """Raise unless every value (one dimension) is a whole number from 0 to 2^53; stops at the first piece that is not."""
    for start in range(0, values.size, PIECE):
        piece = values[start : start + PIECE]
        if _n_not_counts(piece):
            raise NotCountsError(_what_is_wrong(piece.astype(np.float64)))


def plain_numbers(values: np.ndarray) -> np.ndarray:
    """The values as kernels can read them: boolean, integer, float32 and float64 as they are, else float64."""
    if values.dtype.kind not in "biuf":
        msg = f"holds values of dtype {values.dtype}"
        raise NotCountsError(msg)
    odd = not values.dtype.isnative or (values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8))
    return values.astype(np.float64) if odd else values


def _what_is_wrong(values: np.ndarray) -> str:
    n_nan, n_inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if n_nan or n_inf:
        return f"holds {'NaN' if n_nan else 'infinite values'}"
    if values.min() < 0:
        return f"holds negative values (as low as {values.min():.4g}), as scaled data or residuals do"
    fractional = values[values != np.floor(values)]
    if fractional.size == 0:
        return f"holds values up to {values.max():.4g}, too large to be summed exactly"
    if values.max() < LARGEST_LOG1P:
        return f"looks log-transformed: fractional values such as {fractional[0]:.4g}, none above {values.max():.4g}"
    return f"looks normalised: fractional values such as {fractional[0]:.4g}"


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _n_not_counts(values):
    bad = 0
    for i in range(values.size):
        value = values[i]
        bad += 1 - ((0.0 <= value) & (value <= LARGEST) & (value == np.floor(value)))
    return bad
