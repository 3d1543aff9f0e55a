"""Multiple testing of a screen: genes within a perturbation, all tests of the screen at once, perturbations and then genes."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values

TAIL = 2.0**-10  # p-values below it are kept one by one
DROPPED_BITS = 36  # of a mantissa's 52: a bin of the histogram is 2^-16 wide, relative to its p-values
FIRST_BIN = int(np.float64(TAIL).view(np.int64)) >> DROPPED_BITS
TAIL_BITS = 44  # dropped: the tail is looked up from 256 places a factor of two
N_BINS = (int(np.float64(1.0).view(np.int64)) >> DROPPED_BITS) - FIRST_BIN + 1
DIGIT = 11  # bits that a round of the radix sort looks at
N_DIGITS = 1 << DIGIT
LOWEST_DIGIT = (
    62 - 3 * DIGIT
)  # 1.0 has 62 bits; what three rounds leave, p-values that agree to 2^-23, is left to insertion


def adjust_rows(p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values within each row of (n_rows, n_genes); what is NaN is no test and stays NaN."""
    p = np.ascontiguousarray(p, dtype=np.float64)
    adjusted = np.empty_like(p) if out is None else out
    _adjust_rows(p, p.view(np.int64), adjusted)
    return adjusted


@dataclass(frozen=True)
class Hits:
    """What the adjusted p-values of rows say."""

    n_tested: np.ndarray  # (n_rows,) int64
    n_hits: np.ndarray  # (n_rows,) int64, adjusted p-values up to the level
    overall: np.ndarray  # (n_rows,) p-value of "nothing in this row", NaN without tests
    rows_of_gene: np.ndarray  # (n_genes,) int64, rows in which the gene is a hit


def count_hits(adjusted: np.ndarray, level: float) -> Hits:
    """Tests and hits of (n_rows, n_genes), adjusted within rows.

    The overall p-value is Simes', min_k p_(k) n / k, which is the least of a row's adjusted: valid under the positive
    dependence that Benjamini-Hochberg needs itself (Simes 1986).
    """
    n_rows, n_genes = adjusted.shape
    hits = Hits(np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64), np.empty(n_rows), np.zeros(n_genes, np.int64))
    _count_hits(adjusted, level, hits.n_tested, hits.n_hits, hits.overall, hits.rows_of_gene)
    return hits


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
    places: np.ndarray  # where in the tail p-values of the same leading bits begin, with the end appended
    of_bin: np.ndarray  # (N_BINS,) adjusted, of all p-values in a bin of the histogram

    def adjust(self, p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Adjusted p-values, any shape, of values that were pooled; NaN stays NaN. `out` is C-contiguous."""
        p = np.ascontiguousarray(p, dtype=np.float64)
        adjusted = np.empty_like(p) if out is None else out
        _look_up(
            p.ravel(), p.view(np.int64).ravel(), self.of_bin, self.tail, self.of_tail, self.places, adjusted.ravel()
        )
        return adjusted


class PooledPValues:
    """The p-values of a screen, taken in piece by piece in any order: exact below 2^-10, a fine histogram above.

    Of the histogram the number and the largest value of each bin are kept, so that what is adjusted is never below the exact
    value and less than 2^-16 = 1.5e-5 above it, relatively; in the tail it is exact unless its minimum lies in the histogram.
    The memory is 10 MB and 8 bytes for each p-value of the tail.
    """

    def __init__(self) -> None:
        self.bins = np.zeros((N_BINS, 2))  # number, largest
        self.tails: list[np.ndarray] = []

    def add(self, p: np.ndarray) -> None:
        """Take in p-values of any shape, NaN for no test."""
        p = np.ascontiguousarray(p, dtype=np.float64)
        _pool(p.ravel(), p.view(np.int64).ravel(), self.bins)
        self.tails.append(p[p < TAIL])

    def join(self, other: PooledPValues) -> None:
        """Take in what another has taken in."""
        self.bins[:, 0] += other.bins[:, 0]
        self.bins[:, 1] = np.maximum(self.bins[:, 1], other.bins[:, 1])
        self.tails += other.tails

    def adjustment(self) -> PooledAdjustment:
        """What has been taken in, ranked: p n / rank, and the least of it from each value upwards."""
        tail = np.sort(np.concatenate([*self.tails, np.empty(0)]))
        n_in_bin, largest = self.bins.T
        n = len(tail) + n_in_bin.sum()
        rank = len(tail) + np.cumsum(n_in_bin)
        of_bin = np.where(n_in_bin > 0, largest * (n / np.maximum(rank, 1)), 1.0)
        of_bin = np.minimum.accumulate(of_bin[::-1])[::-1]
        of_tail = np.append(tail * (n / np.arange(1, len(tail) + 1)), of_bin[0])
        of_tail = np.minimum.accumulate(of_tail[::-1])[::-1][:-1]
        first_of_equals = np.maximum.accumulate(np.where(np.diff(tail, prepend=-1.0) > 0, np.arange(len(tail)), 0))
        leading = np.arange((int(np.float64(TAIL).view(np.int64)) >> TAIL_BITS) + 1) << TAIL_BITS
        places = np.append(np.searchsorted(tail, leading.view(np.float64)), len(tail))
        return PooledAdjustment(tail, of_tail[first_of_equals], places, of_bin)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _adjust_rows(p, bits, adjusted):
    """Sort the tested of each row, then take the running minimum of p n / rank from the largest down.

    Positive floats sort as their bits do: a radix sort by all but the lowest bits, and insertions for what they leave.
    """
    n_genes = p.shape[1]
    keys, other_keys = np.empty(n_genes, np.int64), np.empty(n_genes, np.int64)
    genes, other_genes = np.empty(n_genes, np.int32), np.empty(n_genes, np.int32)
    starts = np.empty(N_DIGITS, np.int64)
    for i in range(p.shape[0]):
        n = 0
        for j in range(n_genes):
            adjusted[i, j] = np.nan
            if not np.isnan(p[i, j]):
                keys[n] = bits[i, j]
                genes[n] = j
                n += 1
        for shift in (LOWEST_DIGIT, LOWEST_DIGIT + DIGIT, LOWEST_DIGIT + 2 * DIGIT):
            _sort_by_digit(keys, genes, n, shift, starts, other_keys, other_genes)
            keys, other_keys = other_keys, keys
            genes, other_genes = other_genes, genes
        for k in range(1, n):
            key, gene, place = keys[k], genes[k], k
            while place > 0 and keys[place - 1] > key:
                keys[place], genes[place] = keys[place - 1], genes[place - 1]
                place -= 1
            keys[place], genes[place] = key, gene
        least = 1.0
        for k in range(n - 1, -1, -1):
            least = min(least, p[i, genes[k]] * (n / (k + 1)))
            adjusted[i, genes[k]] = least


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sort_by_digit(keys, genes, n, shift, starts, sorted_keys, sorted_genes):
    """Stable sort of the first n by one digit of their keys."""
    starts[:] = 0
    for k in range(n):
        starts[(keys[k] >> shift) & (N_DIGITS - 1)] += 1
    before = 0
    for digit in range(N_DIGITS):
        size = starts[digit]
        starts[digit] = before
        before += size
    for k in range(n):
        digit = (keys[k] >> shift) & (N_DIGITS - 1)
        sorted_keys[starts[digit]] = keys[k]
        sorted_genes[starts[digit]] = genes[k]
        starts[digit] += 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pool(p, bits, bins):
    for k in range(p.size):
        if p[k] >= TAIL:
            b = (bits[k] >> DROPPED_BITS) - FIRST_BIN
            bins[b, 0] += 1.0
            bins[b, 1] = max(bins[b, 1], p[k])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _look_up(p, bits, of_bin, tail, of_tail, places, adjusted):
    for k in range(p.size):
        if p[k] >= TAIL:
            adjusted[k] = of_bin[(bits[k] >> DROPPED_BITS) - FIRST_BIN]
        elif p[k] < TAIL:
            leading = bits[k] >> TAIL_BITS
            low, high = places[leading], places[leading + 1] - 1
            while low < high:
                middle = (low + high) // 2
                if tail[middle] < p[k]:
                    low = middle + 1
                else:
                    high = middle
            adjusted[k] = of_tail[low]
        else:
            adjusted[k] = np.nan


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count_hits(adjusted, level, n_tested, n_hits, overall, rows_of_gene):
    for i in range(adjusted.shape[0]):
        least = np.inf
        for j in range(adjusted.shape[1]):
            if not np.isnan(adjusted[i, j]):
                n_tested[i] += 1
                least = min(least, adjusted[i, j])
                if adjusted[i, j] <= level:
                    n_hits[i] += 1
                    rows_of_gene[j] += 1
        overall[i] = least if n_tested[i] > 0 else np.nan
