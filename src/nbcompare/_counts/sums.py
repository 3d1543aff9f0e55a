"""Sums of counts over groups of cells, exact and in one pass, for every kind of matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch

import numba
import numpy as np
from fast_array_utils import types

from .blocks import BLOCK_SIZE, blocks, column, unreadable
from .check import NotCountsError, check_counts, check_dtype

PIECE = 2**20  # values cast to float64, checked and added at once: they stay in the processor's cache


@dataclass(frozen=True)
class Sums:
    """What one pass over the cells gives."""

    counts: np.ndarray  # (n_groups, n_genes) float64
    cell_totals: np.ndarray  # (n_cells,) float64, of every cell, used or not


def sum_groups(matrix, codes: np.ndarray, n_groups: int, *, block_size: int = BLOCK_SIZE) -> Sums:
    """Sum the rows of a cells x genes matrix by group: `codes` (n_cells,) int64 from 0, -1 for cells not used.

    Whole numbers below 2^53 add up exactly in float64, in any order: every kind of matrix gives the same bits.
    Values that are not counts, in cells used or not, raise `NotCountsError`.
    """
    n_cells, n_genes = matrix.shape
    sums = Sums(np.zeros((n_groups, n_genes)), np.zeros(n_cells))
    for block in blocks(matrix, block_size):
        rows = slice(block.row, block.row + block.values.shape[0])
        check_dtype(block.values.dtype)
        _add(block.values, codes[rows], block.column, sums.counts, sums.cell_totals[rows])
    return sums


def sum_gene(matrix, codes: np.ndarray, n_groups: int, gene_index: int, *, block_size: int = BLOCK_SIZE) -> np.ndarray:
    """Sums of one gene, (n_groups,) float64; cells with code -1 are not used."""
    values = column(matrix, gene_index, block_size)
    check_counts(values)
    used = codes >= 0
    return np.bincount(codes[used], weights=values[used], minlength=n_groups)


def looks_like_counts(matrix) -> bool:
    """Whether a matrix holds counts: all of it where it is in memory, else its first block."""
    try:
        block = next(iter(blocks(matrix, 1024)), None)
        if block is None:
            return False
        sum_groups(block.values, np.full(block.values.shape[0], -1), 0)
    except (NotCountsError, TypeError):
        return False
    return True


@singledispatch
def _add(values, codes: np.ndarray, first_gene: int, counts: np.ndarray, cell_totals: np.ndarray) -> None:
    """Add a block that is in memory to the sums of its genes and of its cells."""
    raise unreadable(values)


@_add.register(np.ndarray)
def _add_dense(
    values: np.ndarray, codes: np.ndarray, first_gene: int, counts: np.ndarray, cell_totals: np.ndarray
) -> None:
    n_rows = max(1, PIECE // max(values.shape[1], 1))
    for start in range(0, values.shape[0], n_rows):
        rows = slice(start, start + n_rows)
        piece = np.ascontiguousarray(np.asarray(values[rows]), dtype=np.float64)
        check_counts(piece.ravel())
        _add_dense_rows(piece, codes[rows], first_gene, counts, cell_totals[rows])


@_add.register(types.CSBase)
def _add_sparse(
    values: types.CSBase, codes: np.ndarray, first_gene: int, counts: np.ndarray, cell_totals: np.ndarray
) -> None:
    by_rows = values.format == "csr"
    for start, stop in _pieces(values.indptr):
        low, high = values.indptr[start], values.indptr[stop]
        data = values.data[low:high].astype(np.float64, copy=False)
        check_counts(data)
        bounds = values.indptr[start : stop + 1].astype(np.int64) - low
        if by_rows:
            rows = slice(start, stop)
            _add_sparse_rows(data, values.indices[low:high], bounds, codes[rows], first_gene, counts, cell_totals[rows])
        else:
            _add_sparse_columns(data, values.indices[low:high], bounds, codes, first_gene + start, counts, cell_totals)


def _pieces(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows (or columns) with at most `PIECE` stored values, or a single one."""
    start, n = 0, len(indptr) - 1
    while start < n:
        stop = int(np.searchsorted(indptr, indptr[start] + np.int64(PIECE), side="right")) - 1
        stop = min(max(stop, start + 1), n)
        yield start, stop
        start = stop


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_dense_rows(values, codes, first_gene, counts, cell_totals):
    for i in range(values.shape[0]):
        group = codes[i]
        total = 0.0
        for j in range(values.shape[1]):
            total += values[i, j]
        cell_totals[i] += total
        if group >= 0:
            for j in range(values.shape[1]):
                counts[group, first_gene + j] += values[i, j]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_sparse_rows(data, indices, bounds, codes, first_gene, counts, cell_totals):
    for i in range(len(bounds) - 1):
        group = codes[i]
        total = 0.0
        for k in range(bounds[i], bounds[i + 1]):
            total += data[k]
        cell_totals[i] += total
        if group >= 0:
            for k in range(bounds[i], bounds[i + 1]):
                counts[group, first_gene + indices[k]] += data[k]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_sparse_columns(data, indices, bounds, codes, first_gene, counts, cell_totals):
    for j in range(len(bounds) - 1):
        for k in range(bounds[j], bounds[j + 1]):
            cell = indices[k]
            cell_totals[cell] += data[k]
            group = codes[cell]
            if group >= 0:
                counts[group, first_gene + j] += data[k]
