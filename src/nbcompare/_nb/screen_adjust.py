"""Multiple testing of a screen: genes within a perturbation, all tests of the screen at once, perturbations and then genes."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from nbcompare._nb.adjust import adjust_p_values

TAIL = 2.0**-10  # p-values below it are kept one by one
DROPPED_BITS = 36  # of a mantissa's 52: a bin of the histogram is 2^-16 wide, relative to its p-values
FIRST_BIN = int(np.float64(TAIL).view(np.int64)) >> DROPPED_BITS
N_BINS = (int(np.float64(1.0).view(np.int64)) >> DROPPED_BITS) - FIRST_BIN + 1
DIGIT = 11  # bits that a round of the radix sort looks at
LOWEST_DIGIT = 18  # its four rounds leave the last 18 bits to insertion


def adjust_rows(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values within each row of (n_rows, n_genes); what is NaN is no test and stays NaN."""
    p = np.ascontiguousarray(p, dtype=np.float64)
    adjusted = np.empty_like(p)
    _adjust_rows(p, p.view(np.int64), adjusted)
    return adjusted


def simes_rows(adjusted: np.ndarray) -> np.ndarray:
    """Simes' p-value of "nothing in this row": min_k p_(k) n / k, which is the least of a row's adjusted; NaN without tests.

    Valid under the positive dependence that Benjamini-Hochberg needs itself (Simes 1986; Sarkar & Chang 1997).
    """
    least = np.where(np.isnan(adjusted), np.inf, adjusted).min(axis=1, initial=np.inf)
    return np.where(np.isinf(least), np.nan, least)


@dataclass(frozen=True)
class Selection:
    """Which rows act at a false discovery rate over rows, and the level that is left for the tests within them."""

    adjusted: np.ndarray  # (n_rows,) Benjamini-Hochberg over rows, NaN for a row without tests
    selected: np.ndarray  # (n_rows,) bool
    level_within: float  # adjusted p-values within a selected row are held against it


def select_rows(p: np.ndarray, level: float) -> Selection:
    """Rows whose overall p-value (n_rows,) passes Benjamini-Hochberg over rows at this level.

    Tests of selected rows are then made at level x selected rows / rows, which keeps the expected average over the
    selected rows of the false discovery proportion at the level (Benjamini & Bogomolov 2014).
    """
    adjusted = adjust_p_values(p)
    selected = adjusted <= level  # NaN is not
    return Selection(adjusted, selected, level * selected.sum() / max(np.count_nonzero(~np.isnan(p)), 1))


@dataclass(frozen=True)
class PooledAdjustment:
    """Benjamini-Hochberg over all pooled p-values, as a function of the p-value."""

    tail: np.ndarray  # (n_tail,) the p-values below TAIL, ascending
    of_tail: np.ndarray  # (n_tail,) adjusted
    of_bin: np.ndarray  # (N_BINS,) adjusted, of all p-values in a bin of the histogram

    def adjust(self, p: np.ndarray) -> np.ndarray:
        """Adjusted p-values, any shape, of values that were pooled; NaN stays NaN."""
        p = np.ascontiguousarray(p, dtype=np.float64)
        adjusted = np.empty_like(p)
        _look_up(p.ravel(), p.view(np.int64).ravel(), self.of_bin, adjusted.ravel())
        in_tail = p < TAIL
        adjusted[in_tail] = self.of_tail[np.searchsorted(self.tail, p[in_tail])]
        return adjusted


class PooledPValues:
    """The p-values of a screen, taken in piece by piece in any order: exact below 2^-10, a fine histogram above.

    Of the histogram the number and the largest value of each bin are kept, so that what is adjusted is never below the exact
    value and less than 2^-16 = 1.5e-5 above it, relatively; in the tail it is exact unless its minimum lies in the histogram.
    The memory is 10 MB and 8 bytes for each p-value of the tail.
    """

    def __init__(self) -> None:
        self.n_in_bin = np.zeros(N_BINS, np.int64)
        self.largest = np.zeros(N_BINS)
        self.tails: list[np.ndarray] = []

    def add(self, p: np.ndarray) -> None:
        """Take in p-values of any shape, NaN for no test."""
        p = np.ascontiguousarray(p, dtype=np.float64)
        _pool(p.ravel(), p.view(np.int64).ravel(), self.n_in_bin, self.largest)
        self.tails.append(p[p < TAIL])

    def adjustment(self) -> PooledAdjustment:
        """What has been taken in, ranked: p n / rank, and the least of it from each value upwards."""
        tail = np.sort(np.concatenate([*self.tails, np.empty(0)]))
        rank = len(tail) + np.cumsum(self.n_in_bin)
        n = len(tail) + self.n_in_bin.sum()
        of_bin = np.where(self.n_in_bin > 0, self.largest * (n / np.maximum(rank, 1)), 1.0)
        of_bin = np.minimum.accumulate(of_bin[::-1])[::-1]
        raw = np.append(tail * (n / np.arange(1, len(tail) + 1)), of_bin[0])
        of_tail = np.minimum.accumulate(raw[::-1])[::-1][:-1]
        first_of_equals = np.searchsorted(tail, tail)
        return PooledAdjustment(tail, of_tail[first_of_equals], of_bin)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _adjust_rows(p, bits, adjusted):
    """A radix sort of the tested of each row, then the running minimum of p n / rank from the largest down."""
    n_genes = p.shape[1]
    order, other = np.empty(n_genes, np.int64), np.empty(n_genes, np.int64)
    starts = np.empty(1 << DIGIT, np.int64)
    for i in range(p.shape[0]):
        n = 0
        for j in range(n_genes):
            adjusted[i, j] = np.nan
            if not np.isnan(p[i, j]):
                order[n] = j
                n += 1
        for digit in range(4):
            _sort_by_digit(bits[i], LOWEST_DIGIT + DIGIT * digit, n, order, other, starts)
            order, other = other, order
        for k in range(1, n):  # those that agree in all four digits
            moving = order[k]
            place = k
            while place > 0 and p[i, order[place - 1]] > p[i, moving]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = moving
        least = 1.0
        for k in range(n - 1, -1, -1):
            least = min(least, p[i, order[k]] * (n / (k + 1)))
            adjusted[i, order[k]] = least


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sort_by_digit(bits, shift, n, order, ordered, starts):
    """Stable sort of the first n of `order` by DIGIT bits of what they point to; positive floats sort as their bits do."""
    starts[:] = 0
    for k in range(n):
        starts[(bits[order[k]] >> shift) & (len(starts) - 1)] += 1
    before = 0
    for digit in range(len(starts)):
        size = starts[digit]
        starts[digit] = before
        before += size
    for k in range(n):
        digit = (bits[order[k]] >> shift) & (len(starts) - 1)
        ordered[starts[digit]] = order[k]
        starts[digit] += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pool(p, bits, n_in_bin, largest):
    for k in range(p.size):
        if p[k] >= TAIL:
            b = (bits[k] >> DROPPED_BITS) - FIRST_BIN
            n_in_bin[b] += 1
            largest[b] = max(largest[b], p[k])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _look_up(p, bits, of_bin, adjusted):
    for k in range(p.size):
        adjusted[k] = of_bin[(bits[k] >> DROPPED_BITS) - FIRST_BIN] if p[k] >= TAIL else np.nan
