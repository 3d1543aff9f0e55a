"""Refuse what are not counts."""

from __future__ import annotations

import numba
import numpy as np

VALUES_AT_ONCE = 2**20  # values looked at, or cast, at once: they stay in the processor's cache
LARGEST = 2.0**53  # above it float64 does not hold every whole number
SMALLEST_ERROR, LARGEST_ERROR = (
    1e-4,
    0.05,
)  # distances from a whole number that are rounding errors, of small and of large counts
ERROR_OF_FLOAT32 = 2e-7  # relative
PARTS_OF_A_READ = 12  # a read that fits two, three or four genes is shared out among them
LARGEST_LOG1P = 20.0  # log(1 + count): a cell does not have e^20 counts of one gene


class NotCountsError(ValueError):
    """The values are not counts; the text says in a few words what they are."""


def check_counts(values: np.ndarray) -> float:
    """How far the values (one dimension) are from whole numbers from 0 to 2^53, at most; 0 where all are whole.

    Rounding errors are taken, for which the caller rounds; anything else raises, at the first piece that has it.
    """
    farthest = 0.0
    for start in range(0, values.size, VALUES_AT_ONCE):
        chunk = values[start : start + VALUES_AT_ONCE]
        if _n_not_counts(chunk):
            farthest = max(farthest, _rounding_error(chunk.astype(np.float64)))
    return farthest


def rounded(values: np.ndarray) -> tuple[np.ndarray, float]:
    """The values (any shape) as whole numbers, not copied where they are, and how far they were from them."""
    farthest = check_counts(values.ravel())
    return (np.rint(values) + 0.0 if farthest else values), farthest


def plain_numbers(values: np.ndarray) -> np.ndarray:
    """The values as kernels can read them: boolean, integer, float32 and float64 as they are, else float64."""
    if values.dtype.kind not in "biuf":
        msg = f"holds values of dtype {values.dtype}"
        raise NotCountsError(msg)
    odd = not values.dtype.isnative or (values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8))
    return values.astype(np.float64) if odd else values


def _rounding_error(values: np.ndarray) -> float:
    """The largest distance from a whole number where all are as small as rounding errors are; otherwise raises."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(values - np.rint(values))
        allowed = np.clip(ERROR_OF_FLOAT32 * np.abs(values), SMALLEST_ERROR, LARGEST_ERROR)
        fine = (distance <= allowed) & (values >= -SMALLEST_ERROR) & (values <= LARGEST)
    if not fine.all():
        raise NotCountsError(_what_is_wrong(values))
    return float(distance.max())


def _what_is_wrong(values: np.ndarray) -> str:
    n_nan, n_inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if n_nan or n_inf:
        return f"holds {'NaN' if n_nan else 'infinite values'}"
    if values.min() < 0:
        return f"holds negative values (as low as {values.min():.4g}), as scaled data or residuals do"
    fractional = values[values != np.floor(values)]
    if fractional.size == 0:
        return f"holds values up to {values.max():.4g}, too large to be summed exactly"
    fractional = fractional[np.abs(fractional - np.rint(fractional)) > SMALLEST_ERROR]
    such_as = f"fractional values such as {fractional[0]:.5g}"
    shares = fractional * PARTS_OF_A_READ
    if np.allclose(shares, np.rint(shares), rtol=0, atol=PARTS_OF_A_READ * SMALLEST_ERROR):
        return f"holds parts of reads: {such_as}, all halves, thirds or quarters"
    if values.max() < LARGEST_LOG1P:
        return f"looks log-transformed: {such_as}, none above {values.max():.4g}"
    return f"holds no whole numbers: {such_as}"


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _n_not_counts(values):
    bad = 0
    for i in range(values.size):
        value = values[i]
        bad += 1 - ((0.0 <= value) & (value <= LARGEST) & (value == np.floor(value)))
    return bad
