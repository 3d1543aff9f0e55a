"""Any matrix that AnnData can hold, as pieces that lie in memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
from fast_array_utils import types
from scipy.sparse import csc_matrix, csr_matrix

from nbcompare._counts.matrix_checks import check_bounds, check_kind, check_storage, not_computed

CHUNK_SIZE = (
    8192  # rows read at once from disk: a few hundred MB of a dense transcriptome, large enough for fast reading
)


@dataclass(frozen=True)
class Block:
    """A rectangle of the matrix, with the place of its first cell and gene; refused if it is damaged."""

    values: np.ndarray | types.CSBase
    row: int = 0
    column: int = 0
    shape: tuple[int, int] | None = None  # that the values must have, if they could have another

    def __post_init__(self) -> None:
        check_storage(self.values, self.row, self.column, self.shape)


def read_ahead(blocks_ahead: Iterator[Block]) -> Iterator[Block]:
    """The pieces, each read while the one before it is worked on: at most three lie in memory."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, blocks_ahead, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks_ahead, None)
            yield block


@singledispatch
def blocks(matrix, chunk_size: int) -> Iterator[Block]:
    """Rectangles that cover the matrix once, each of about `chunk_size` rows' worth of values where it is on disk."""
    raise unreadable(matrix)


@blocks.register(np.ndarray | types.CSBase)
def _in_memory(matrix: np.ndarray | types.CSBase, chunk_size: int) -> Iterator[Block]:
    yield Block(matrix)


@blocks.register(types.H5Dataset | types.ZarrArray)
def _dense_on_disk(matrix: types.H5Dataset | types.ZarrArray, chunk_size: int) -> Iterator[Block]:
    for start in range(0, matrix.shape[0], chunk_size):
        yield Block(np.asarray(matrix[start : start + chunk_size]), row=start)


@blocks.register(types.CSDataset)
def _sparse_on_disk(matrix: types.CSDataset, chunk_size: int) -> Iterator[Block]:
    n_cells, n_genes = matrix.shape
    by_row, bounds = isinstance(matrix, types.CSRDataset), _bounds_on_disk(matrix)
    step = chunk_size if by_row else max(1, chunk_size * n_genes // max(n_cells, 1))
    for start in range(0, n_cells if by_row else n_genes, step):
        yield _lines_on_disk(matrix, bounds, start, start + step)


def _bounds_on_disk(matrix: types.CSDataset) -> np.ndarray:
    """Where each row of a CSR matrix, column of a CSC matrix, starts in its data, checked."""
    by_row, parts = isinstance(matrix, types.CSRDataset), matrix.group
    bounds = parts["indptr"][:]
    n_lines = matrix.shape[0 if by_row else 1]
    check_bounds(bounds, n_lines, parts["data"].shape[0], parts["indices"].shape[0], "rows" if by_row else "columns")
    check_kind(parts["indices"])
    return bounds


def _lines_on_disk(matrix: types.CSDataset, bounds: np.ndarray, start: int, stop: int) -> Block:
    """Rows of a CSR matrix, columns of a CSC matrix, read by hand: to index the data set takes longer than to read it."""
    of_lines = bounds[start : stop + 1]
    part = slice(int(of_lines[0]), int(of_lines[-1]))
    arrays = matrix.group["data"][part], matrix.group["indices"][part], of_lines - of_lines[0]
    if isinstance(matrix, types.CSRDataset):
        return Block(csr_matrix(arrays, shape=(len(of_lines) - 1, matrix.shape[1])), row=start)
    return Block(csc_matrix(arrays, shape=(matrix.shape[0], len(of_lines) - 1)), column=start)


@blocks.register(types.DaskArray)
def _dask(matrix: types.DaskArray, chunk_size: int) -> Iterator[Block]:
    """Whole chunks, as many at once as make up `chunk_size` rows: dask reads those in parallel."""
    import dask

    corners = chunk_edges(matrix)
    chunks = matrix.to_delayed()
    together: list[tuple[int, int]] = []
    n_values = 0
    for place in np.ndindex(chunks.shape):
        together.append(place)
        n_values += matrix.chunks[0][place[0]] * matrix.chunks[1][place[1]]
        if n_values >= chunk_size * matrix.shape[1] or place == tuple(size - 1 for size in chunks.shape):
            try:
                computed = dask.compute(*[chunks[at] for at in together])
            except (IndexError, OverflowError, ValueError) as error:  # of scipy, where a file is read lazily
                raise not_computed(error) from error
            for (i, j), values in zip(together, computed, strict=True):
                shape = (int(matrix.chunks[0][i]), int(matrix.chunks[1][j]))
                yield Block(values, row=int(corners[0][i]), column=int(corners[1][j]), shape=shape)
            together, n_values = [], 0


def chunk_edges(matrix: types.DaskArray) -> list[np.ndarray]:
    """First row of every chunk, and the end; and first columns."""
    if any(np.isnan(size) for sizes in matrix.chunks for size in sizes):
        msg = "The chunks of this dask array have unknown sizes. Call its `compute_chunk_sizes()` first."
        raise ValueError(msg)
    return [np.cumsum([0, *sizes]) for sizes in matrix.chunks]


def unreadable(matrix) -> TypeError:
    """The error for a kind of matrix that is not listed here."""
    msg = (
        f"Counts in a {type(matrix).__module__}.{type(matrix).__qualname__} cannot be read. Use a numpy array, a scipy "
        "CSR or CSC matrix, a dask array of these, or a backed or lazily read AnnData; copy GPU arrays to the CPU first."
    )
    return TypeError(msg)


@singledispatch
def column(matrix, position: int, chunk_size: int) -> np.ndarray:
    """The counts of one gene in every cell, float64."""
    values = np.zeros(matrix.shape[0])
    for block in blocks(matrix, chunk_size):
        within = position - block.column
        if 0 <= within < block.values.shape[1]:
            values[block.row : block.row + block.values.shape[0]] = column(block.values, within, chunk_size)
    return values


@column.register(np.ndarray)
def _column_dense(matrix: np.ndarray, position: int, chunk_size: int) -> np.ndarray:
    check_storage(matrix)
    return np.asarray(matrix[:, position], dtype=np.float64).ravel()


@column.register(types.CSBase)
def _column_sparse(matrix: types.CSBase, position: int, chunk_size: int) -> np.ndarray:
    """By hand: where arrays are longer than `indptr` says, scipy's own indexing of columns reads what lies behind the end."""
    check_storage(matrix)
    bounds, values = matrix.indptr, np.zeros(matrix.shape[0])
    if matrix.format == "csc":
        held = slice(bounds[position], bounds[position + 1])
        np.add.at(values, matrix.indices[held], matrix.data[held])
    else:
        at = np.flatnonzero(matrix.indices[: bounds[-1]] == position)
        np.add.at(values, np.searchsorted(bounds, at, side="right") - 1, matrix.data[at])
    return values


@column.register(types.CSCDataset)
def _column_on_disk(matrix: types.CSCDataset, position: int, chunk_size: int) -> np.ndarray:
    return _column_sparse(_lines_on_disk(matrix, _bounds_on_disk(matrix), position, position + 1).values, 0, chunk_size)


@column.register(types.DaskArray)
def _column_dask(matrix: types.DaskArray, position: int, chunk_size: int) -> np.ndarray:
    first, one = position, matrix[:, position : position + 1]
    if isinstance(matrix._meta, types.CSBase):  # its chunks are checked before they are cut
        edges = chunk_edges(matrix)[1]
        chunk = int(np.searchsorted(edges, position, side="right")) - 1
        first, one = int(edges[chunk]), matrix.blocks[:, chunk]
    values = np.zeros(matrix.shape[0])
    for block in blocks(one, max(1, chunk_size * matrix.shape[1] // one.shape[1])):
        values[block.row : block.row + block.values.shape[0]] = column(block.values, position - first, chunk_size)
    return values


def in_memory(matrix, chunk_size: int = CHUNK_SIZE) -> np.ndarray:
    """All values as float64, (n_cells, n_genes)."""
    values = np.zeros(matrix.shape)
    for block in blocks(matrix, chunk_size):
        height, width = block.values.shape
        dense = block.values if isinstance(block.values, np.ndarray) else block.values.toarray()
        values[block.row : block.row + height, block.column : block.column + width] = dense
    return values
