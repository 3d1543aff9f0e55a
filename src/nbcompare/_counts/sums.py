"""Sums of counts over groups of cells, exact and in one pass, for every kind of matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch

import numba
import numpy as np
from fast_array_utils import types

from nbcompare._counts.chunks import CHUNK_SIZE, blocks, chunk_edges, column, read_ahead, unreadable
from nbcompare._counts.dask_client import active_client
from nbcompare._counts.dask_sums import sum_on_cluster
from nbcompare._counts.matrix_checks import DamagedMatrixError, check_codes, check_storage
from nbcompare._counts.validation import VALUES_AT_ONCE, NotCountsError, check_counts, plain_numbers, rounded

FLOATS = (np.float32, np.float64)


@dataclass(frozen=True)
class Sums:
    """What one pass over the cells gives."""

    counts: np.ndarray  # (n_groups, n_genes) float64; of `as_sums` perhaps float32
    left_out: np.ndarray  # (n_cells,) float64, counts of each cell that no group has, else 0
    rounding: float = 0.0  # how far the values were from whole numbers, at most


def sum_groups(
    matrix,
    codes: np.ndarray,
    n_groups: int,
    *,
    chunk_size: int = CHUNK_SIZE,
    progress: Callable[[float], object] | None = None,
) -> Sums:
    """Sum the rows of a cells x genes matrix by group: `codes` (n_cells,) int64 from 0, -1 for cells not used.

    Whole numbers below 2^53 add up exactly in float64, in any order: every kind of matrix gives the same bits.
    Values that are not counts, in cells used or not, raise `NotCountsError`. `progress` is called after each block with how
    many rows it was worth. Dask arrays are summed on the cluster if a `dask.distributed` client is active.
    """
    if isinstance(matrix, types.DaskArray):
        chunk_edges(matrix)  # refuses unknown sizes
    check_codes(codes, matrix.shape[0], n_groups)
    client = active_client() if isinstance(matrix, types.DaskArray) else None
    if client is not None:
        return Sums(*sum_on_cluster(client, matrix, codes, n_groups, progress))
    sums, rounding = Sums(np.zeros((n_groups, matrix.shape[1])), np.zeros(len(codes))), 0.0
    for block in read_ahead(blocks(matrix, chunk_size)):
        rows = slice(block.row, block.row + block.values.shape[0])
        rounding = max(rounding, _add(block.values, codes[rows], block.column, sums.counts, sums.left_out[rows]))
        if progress is not None:
            progress(block.values.shape[0] * block.values.shape[1] / max(matrix.shape[1], 1))
    return replace(sums, rounding=rounding)


def as_sums(matrix, codes: np.ndarray) -> Sums | None:
    """The matrix itself, float32 or float64 in memory, where each of its rows is a group, in order; not copied."""
    if not isinstance(matrix, np.ndarray) or matrix.dtype not in FLOATS or not matrix.flags.c_contiguous:
        return None
    if not np.array_equal(codes, np.arange(matrix.shape[0])):
        return None
    check_storage(matrix)
    return None if check_counts(matrix.ravel()) else Sums(matrix, np.zeros(len(codes)))


def sum_gene(matrix, codes: np.ndarray, n_groups: int, gene_index: int, *, chunk_size: int = CHUNK_SIZE) -> np.ndarray:
    """Sums of one gene, (n_groups,) float64; cells with code -1 are not used."""
    check_codes(codes, matrix.shape[0], n_groups)
    values, _ = rounded(column(matrix, gene_index, chunk_size))
    used = codes >= 0
    return np.bincount(codes[used], weights=values[used], minlength=n_groups)


def looks_like_counts(matrix) -> bool:
    """Whether a matrix holds counts: all of it where it is in memory, else its first block."""
    try:
        block = next(iter(blocks(matrix, 1024)), None)
        if block is None:
            return False
        sum_groups(block.values, np.full(block.values.shape[0], -1), 0)
    except (DamagedMatrixError, NotCountsError, TypeError):
        return False
    return True


@singledispatch
def _add(values, codes: np.ndarray, first_gene: int, counts: np.ndarray, left_out: np.ndarray) -> float:
    """Add a block that is in memory to the sums of its genes and of its cells; how far its values were from whole numbers."""
    raise unreadable(values)


@_add.register(np.ndarray)
def _add_dense(
    values: np.ndarray, codes: np.ndarray, first_gene: int, counts: np.ndarray, left_out: np.ndarray
) -> float:
    n_rows, farthest = max(1, VALUES_AT_ONCE // max(values.shape[1], 1)), 0.0
    for start in range(0, values.shape[0], n_rows):
        rows = slice(start, start + n_rows)
        rows_at_once = np.ascontiguousarray(plain_numbers(np.asarray(values[rows])), dtype=np.float64)
        rows_at_once, rounding = rounded(rows_at_once)
        farthest = max(farthest, rounding)
        _add_dense_rows(rows_at_once, codes[rows], first_gene, counts, left_out[rows])
    return farthest


@_add.register(types.CSBase)
def _add_sparse(
    values: types.CSBase, codes: np.ndarray, first_gene: int, counts: np.ndarray, left_out: np.ndarray
) -> float:
    bounds = values.indptr.astype(np.int64)
    data, rounding = rounded(plain_numbers(values.data)[: bounds[-1]])
    if values.format == "csr":
        order = np.argsort(codes, kind="stable")  # the sums of one group stay in the processor's cache
        _add_sparse_rows(data, values.indices, bounds, order, codes, first_gene, counts, left_out)
    else:
        _add_sparse_columns(data, values.indices, bounds, codes, first_gene, counts, left_out)
    return rounding


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_dense_rows(values, codes, first_gene, counts, left_out):
    for i in range(values.shape[0]):
        group = codes[i]
        if group >= 0:
            for j in range(values.shape[1]):
                counts[group, first_gene + j] += values[i, j]
        else:
            for j in range(values.shape[1]):
                left_out[i] += values[i, j]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_sparse_rows(data, indices, bounds, order, codes, first_gene, counts, left_out):
    for i in order:
        group = codes[i]
        if group >= 0:
            for k in range(bounds[i], bounds[i + 1]):
                counts[group, first_gene + indices[k]] += data[k]
        else:
            for k in range(bounds[i], bounds[i + 1]):
                left_out[i] += data[k]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add_sparse_columns(data, indices, bounds, codes, first_gene, counts, left_out):
    of_group = np.empty(counts.shape[0])
    for j in range(len(bounds) - 1):
        of_group[:] = 0.0
        for k in range(bounds[j], bounds[j + 1]):
            group = codes[indices[k]]
            if group >= 0:
                of_group[group] += data[k]
            else:
                left_out[indices[k]] += data[k]
        counts[:, first_gene + j] += of_group
