"""Sums over groups of cells on the workers of a dask cluster: of every chunk, then of these, by a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fast_array_utils import types
from scipy import sparse

from nbcompare._counts.chunks import chunk_edges, unreadable
from nbcompare._counts.dask_client import few_at_a_time
from nbcompare._counts.matrix_checks import check_storage
from nbcompare._counts.validation import plain_numbers, rounded

VALUES_OF_A_PART = 2**25  # of the sums, groups x genes: 200 MB on the way, 400 MB while added up, if no value is 0
FAN_IN = 4  # such parts are added up at once


@dataclass(frozen=True)
class Chunk:
    """A chunk of the matrix."""

    values: Any  # dask.delayed
    rows: slice
    first_gene: int
    n_genes: int
    parts: np.ndarray  # parts of the groups that have cells in it


def sum_on_cluster(
    client: Any,
    matrix: types.DaskArray,
    codes: np.ndarray,
    n_groups: int,
    progress: Callable[[float], object] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums (n_groups, n_genes) float64, and the counts of each cell that no group has, as `sums.sum_groups` gives them.

    A chunk's sums are sparse and cut into parts, runs of groups, which are added up part by part, so that no worker
    holds more than a few parts. Sums of whole numbers below 2^53 are the same in any order.
    """
    n_genes = matrix.shape[1]
    edges = np.append(np.arange(0, n_groups, max(1, VALUES_OF_A_PART // max(n_genes, 1))), n_groups)
    trees = [_Tree(client) for _ in edges[1:]]
    left_out = np.zeros(len(codes))
    codes = codes.astype(np.int32)
    all_part_sums: dict[tuple[int, int], Sequence[Any]] = {}

    def submit(chunks: Sequence[Chunk]) -> list[Any]:
        futures = _submit(client, chunks, codes, edges, n_genes)
        all_part_sums.update({_place(chunk): found[1:] for chunk, found in zip(chunks, futures, strict=True)})
        return [found[0] for found in futures]

    for chunk, (cells, counts) in few_at_a_time(client, submit, _chunks(matrix, codes, edges)):
        left_out[chunk.rows][cells] += counts
        for part, part_sums in zip(chunk.parts, all_part_sums.pop(_place(chunk)), strict=True):
            trees[part].add(part_sums)
        if progress is not None:
            progress((chunk.rows.stop - chunk.rows.start) * chunk.n_genes / max(n_genes, 1))
    sums = np.zeros((n_groups, n_genes))
    roots = [tree.root() for tree in trees]
    for part, start in enumerate(edges[:-1]):
        root, roots[part] = roots[part], None  # once it is read the worker need not keep it
        if root is not None:
            sums[start : edges[part + 1]] = root.result().toarray()
    return sums, left_out


class _Tree:
    """A sum of many matrices: as soon as a level has enough of them they become one of the next."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.levels: list[list[Any]] = []

    def add(self, part_sums: Any, level: int = 0) -> None:
        if level == len(self.levels):
            self.levels.append([])
        self.levels[level].append(part_sums)
        if len(self.levels[level]) == FAN_IN:
            self.add(self._joined(self.levels[level]), level + 1)
            self.levels[level] = []

    def root(self) -> Any | None:
        """The future of the sum, None of nothing."""
        rest = [part_sums for level in self.levels for part_sums in level]
        self.levels = []
        return self._joined(rest) if rest else None

    def _joined(self, all_part_sums: Sequence[Any]) -> Any:
        return self.client.submit(_added_up, list(all_part_sums), pure=False, priority=1)  # before chunks are read


def _chunks(matrix: types.DaskArray, codes: np.ndarray, edges: np.ndarray) -> Iterator[Chunk]:
    row_edges, gene_edges = chunk_edges(matrix)
    delayed = matrix.to_delayed()
    for i, j in np.ndindex(delayed.shape):
        rows = slice(int(row_edges[i]), int(row_edges[i + 1]))
        groups = np.unique(codes[rows])
        parts = np.unique(np.searchsorted(edges, groups[groups >= 0], side="right") - 1)
        n_genes = int(gene_edges[j + 1] - gene_edges[j])
        yield Chunk(delayed[i, j], rows, int(gene_edges[j]), n_genes, parts)


def _submit(
    client: Any, chunks: Sequence[Chunk], codes: np.ndarray, edges: np.ndarray, n_genes: int
) -> list[list[Any]]:
    """Futures of each chunk: the counts of its cells without a group, then the parts of its sums."""
    from dask import delayed

    of_chunks = client.scatter([codes[chunk.rows] for chunk in chunks], hash=False)  # rather than within the graph
    tasks = []
    for chunk, of_cells in zip(chunks, of_chunks, strict=True):
        bounds = [(int(edges[part]), int(edges[part + 1])) for part in chunk.parts]
        task = delayed(_sums_of_chunk, pure=False, nout=1 + len(bounds))
        tasks.append(
            list(task(chunk.values, of_cells, chunk.rows.start, chunk.first_gene, chunk.n_genes, n_genes, bounds))
        )
    flat = iter(client.compute([result for results in tasks for result in results]))
    return [[next(flat) for _ in results] for results in tasks]


def _place(chunk: Chunk) -> tuple[int, int]:
    return chunk.rows.start, chunk.first_gene


def _sums_of_chunk(
    values: Any,
    codes: np.ndarray,
    first_row: int,
    first_gene: int,
    width: int,
    n_genes: int,
    parts: Sequence[tuple[int, int]],
) -> list[Any]:
    """On a worker: cells without a group and their counts, then the sums of each run of groups, CSR (n_groups, n_genes)."""
    check_storage(values, first_row, first_gene, (len(codes), width))
    counts = _checked(values)
    without = np.flatnonzero(codes < 0)
    results: list[Any] = [(without, np.asarray(counts[without].sum(axis=1), dtype=np.float64).ravel())]
    for start, stop in parts:
        cells = np.flatnonzero((codes >= start) & (codes < stop))
        groups, of_cell = np.unique(codes[cells], return_inverse=True)
        member = sparse.csr_matrix((np.ones(len(cells)), (of_cell, cells)), shape=(len(groups), len(codes)))
        sums = sparse.csr_matrix(member @ counts)
        sums.sort_indices()  # sorted ones are added up several times faster
        n_values = np.zeros(stop - start, np.int64)
        n_values[groups - start] = np.diff(sums.indptr)
        bounds = np.concatenate([[0], np.cumsum(n_values)])
        results.append(_packed((sums.data, sums.indices + first_gene, bounds), (stop - start, n_genes)))
    return results


def _checked(values: Any) -> Any:
    """The counts as float64, an array or CSR."""
    if isinstance(values, types.CSBase):
        data, _ = rounded(plain_numbers(values.data))
        kind = sparse.csr_matrix if values.format == "csr" else sparse.csc_matrix
        return sparse.csr_matrix(kind((data, values.indices, values.indptr), shape=values.shape), dtype=np.float64)
    if not isinstance(values, np.ndarray):
        raise unreadable(values)
    return np.asarray(rounded(plain_numbers(np.asarray(values)))[0], dtype=np.float64)


def _added_up(all_part_sums: Sequence[sparse.csr_matrix]) -> sparse.csr_matrix:
    """On a worker: the sum, packed again."""
    total = all_part_sums[0].astype(np.float64)
    for part_sums in all_part_sums[1:]:
        total = total + part_sums.astype(np.float64)
    return _packed((total.data, total.indices, total.indptr), total.shape)


def _packed(parts: tuple[np.ndarray, np.ndarray, np.ndarray], shape: tuple[int, int]) -> sparse.csr_matrix:
    """CSR with the smallest unsigned integers that hold the values: mostly a byte each, and less to send."""
    values, *rest = parts
    kind = np.min_scalar_type(int(values.max(initial=0)))
    return sparse.csr_matrix((values.astype(kind), *rest), shape)
