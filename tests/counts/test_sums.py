"""Sums by group: the same bits from every kind of matrix, and bounded reads from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from testing.fast_array_utils import ArrayType, Flags

from nbcompare._counts.chunks import blocks
from nbcompare._counts.sums import looks_like_counts, sum_gene, sum_groups
from nbcompare._counts.validation import NotCountsError

N_CELLS, N_GENES, N_GROUPS = 57, 23, 5
SPARSE = [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array]


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.poisson(3, (N_CELLS, N_GENES)) * (rng.random((N_CELLS, N_GENES)) < 0.3)).astype(np.float32)


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(1).integers(-1, N_GROUPS, N_CELLS)


def by_hand(counts: np.ndarray, codes: np.ndarray, n_groups: int = N_GROUPS) -> np.ndarray:
    return np.stack([counts[codes == group].sum(axis=0, dtype=np.float64) for group in range(n_groups)])


def check_sums(matrix: Any, counts: np.ndarray, codes: np.ndarray, chunk_size: int = 10) -> None:
    found = sum_groups(matrix, codes, N_GROUPS, chunk_size=chunk_size)
    expected = by_hand(counts, codes)
    assert found.counts.dtype == np.float64
    assert found.counts.flags.c_contiguous
    assert found.counts.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(found.left_out, np.where(codes < 0, counts.sum(axis=1), 0))
    for gene in (0, N_GENES - 1):
        one = sum_gene(matrix, codes, N_GROUPS, gene, chunk_size=chunk_size)
        assert one.tobytes() == expected[:, gene].tobytes()


@pytest.mark.array_type(skip={Flags.Gpu, Flags.Disk})
def test_every_array_type(array_type: ArrayType, counts: np.ndarray, codes: np.ndarray) -> None:
    check_sums(array_type(counts), counts, codes)


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i4", np.longdouble]
)
def test_every_dtype(dtype: Any, counts: np.ndarray, codes: np.ndarray) -> None:
    values = counts.astype(dtype)
    expected = values.astype(np.float64)
    check_sums(values, expected, codes)
    if dtype not in ("f2", ">f4", ">i4", np.longdouble):  # scipy.sparse does not hold these
        check_sums(sparse.csr_array(counts.astype(np.float64)).astype(dtype), expected, codes)


def test_layouts_and_views(counts: np.ndarray, codes: np.ndarray) -> None:
    check_sums(np.asfortranarray(counts), counts, codes)
    check_sums(np.repeat(counts, 2, axis=1)[:, ::2], counts, codes)
    frozen = counts.copy()
    frozen.setflags(write=False)
    check_sums(frozen, counts, codes)
    for kind in SPARSE:
        held = kind(counts)
        held.indices, held.indptr = held.indices.astype(np.int64), held.indptr.astype(np.int64)
        check_sums(held, counts, codes)


def test_unsorted_and_repeated_indices(codes: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    rows, columns = rng.integers(0, N_CELLS, 400), rng.integers(0, N_GENES, 400)
    values = rng.integers(0, 9, 400).astype(float)
    by_row = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[by_row], np.arange(N_CELLS + 1))
    held = sparse.csr_matrix((values[by_row], columns[by_row], bounds), shape=(N_CELLS, N_GENES))
    assert not held.has_canonical_format
    check_sums(held, held.toarray(), codes)


@pytest.mark.parametrize("chunks", [(10, N_GENES), (N_CELLS, 4), (13, 7), (6, 6), (N_CELLS, N_GENES)])
@pytest.mark.parametrize("kind", [np.asarray, *SPARSE])
def test_dask_chunks(kind: Any, chunks: tuple[int, int], counts: np.ndarray, codes: np.ndarray) -> None:
    lazy = da.from_array(counts, chunks=chunks).map_blocks(kind, meta=kind(counts[:0]))
    check_sums(lazy, counts, codes)


def test_dask_reads_at_most_a_block(counts: np.ndarray, codes: np.ndarray) -> None:
    alive: list[int] = []
    lazy = da.from_array(counts, chunks=(3, N_GENES)).map_blocks(
        lambda chunk: (alive.append(len(chunk)), chunk)[1], meta=counts
    )
    alive.clear()
    range_sums = blocks(lazy, 9)
    next(range_sums)
    assert sum(alive) == 9
    assert sum(sums_of_range.values.shape[0] for sums_of_range in range_sums) == N_CELLS - 3


def test_dask_with_unknown_chunks(counts: np.ndarray, codes: np.ndarray) -> None:
    lazy = da.from_array(counts, chunks=(10, N_GENES))
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        sum_groups(lazy[lazy[:, 0] >= 0], codes, N_GROUPS)


@pytest.mark.parametrize("kind", [np.asarray, *SPARSE])
@pytest.mark.parametrize("store", ["backed", "lazy h5ad", "lazy zarr"])
@pytest.mark.parametrize("chunk_size", [1, 10, 1000])
def test_on_disk(kind: Any, store: str, chunk_size: int, counts: np.ndarray, codes: np.ndarray, tmp_path: Path) -> None:
    adata = ad.AnnData(kind(counts))
    if store == "lazy zarr":
        adata.write_zarr(tmp_path / "cells.zarr")
        check_sums(ad.experimental.read_lazy(tmp_path / "cells.zarr").X, counts, codes, chunk_size)
        return
    adata.write_h5ad(tmp_path / "cells.h5ad")
    if store == "lazy h5ad":
        with h5py.File(tmp_path / "cells.h5ad") as file:
            check_sums(ad.experimental.read_lazy(file).X, counts, codes, chunk_size)
        return
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    check_sums(backed.X, counts, codes, chunk_size)
    backed.file.close()


def test_dense_zarr_array(counts: np.ndarray, codes: np.ndarray, tmp_path: Path) -> None:
    check_sums(zarr.array(counts, store=str(tmp_path / "x.zarr")), counts, codes)


@pytest.mark.parametrize("kind", [np.asarray, *SPARSE])
def test_blocks_on_disk_are_bounded(kind: Any, counts: np.ndarray, tmp_path: Path) -> None:
    ad.AnnData(kind(counts)).write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    covered = np.zeros(counts.shape)
    for block in blocks(backed.X, 8):
        height, width = block.values.shape
        assert height * width <= 8 * N_GENES
        covered[block.row : block.row + height, block.column : block.column + width] += 1
    assert (covered == 1).all()
    backed.file.close()


@pytest.mark.parametrize("kind", [np.asarray, *SPARSE])
def test_empty(kind: Any) -> None:
    for shape in [(0, 4), (3, 0), (0, 0)]:
        found = sum_groups(kind(np.zeros(shape)), np.zeros(shape[0], dtype=np.int64), 2)
        np.testing.assert_array_equal(found.counts, np.zeros((2, shape[1])))


@pytest.mark.parametrize("kind", [np.asarray, *SPARSE])
def test_large_counts_are_exact(kind: Any) -> None:
    values = np.full((3, 2), 2**50 + 1, dtype=np.int64)
    found = sum_groups(kind(values), np.zeros(3, dtype=np.int64), 1)
    assert found.counts.tolist() == [[3 * (2**50 + 1)] * 2]


@pytest.mark.parametrize("kind", [np.asarray, *SPARSE])
def test_the_input_is_not_changed(kind: Any, counts: np.ndarray, codes: np.ndarray) -> None:
    held = kind(counts.copy())
    parts = [held] if isinstance(held, np.ndarray) else [held.data, held.indices, held.indptr]
    before = [part.copy() for part in parts]
    sum_groups(held, codes, N_GROUPS)
    for part, copy in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("held", [sparse.coo_array(np.eye(3)), [[1.0]], "counts"])
def test_other_kinds_are_refused(held: Any) -> None:
    with pytest.raises(TypeError, match="numpy array, a scipy CSR or CSC"):
        next(iter(blocks(held, 10)))


def test_looks_like_counts(counts: np.ndarray) -> None:
    for kind in [np.asarray, *SPARSE, lambda values: da.from_array(values, chunks=(10, 5))]:
        assert looks_like_counts(kind(counts))
        assert not looks_like_counts(kind(np.log1p(counts)))
    assert not looks_like_counts(sparse.coo_array(counts))


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_order_and_splits_of_cells_do_not_matter(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    counts = rng.poisson(2, (12, 4)).astype(float)
    codes = rng.integers(-1, 3, 12)
    kind = data.draw(st.sampled_from([np.asarray, *SPARSE]))
    expected = sum_groups(kind(counts), codes, 3).counts
    order = rng.permutation(12)
    np.testing.assert_array_equal(sum_groups(kind(counts[order]), codes[order], 3).counts, expected)
    part = rng.binomial(counts.astype(int), 0.5)
    halves, codes_of_halves = np.concatenate([part, counts - part]), np.concatenate([codes, codes])
    np.testing.assert_array_equal(sum_groups(kind(halves), codes_of_halves, 3).counts, expected)


BAD = {
    "NaN": (np.nan, "holds NaN"),
    "inf": (np.inf, "holds infinite"),
    "negative": (-1.0, "holds negative values .as low as -1"),
    "log1p": (1.0986, "looks log-transformed: fractional values such as 1.0986"),
    "half": (1000.5, "holds parts of reads: fractional values such as 1000.5"),
    "huge": (2.0**60, "too large"),
}


@pytest.mark.array_type(skip={Flags.Gpu, Flags.Disk})
@pytest.mark.parametrize("name", BAD)
def test_not_counts(array_type: ArrayType, name: str) -> None:
    value, sentence = BAD[name]
    values = np.ones((20, 6))
    values[17, 3] = value
    with pytest.raises(NotCountsError, match=sentence):
        sum_groups(array_type(values), np.full(20, -1), 0, chunk_size=7)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_any_bad_value_anywhere_is_found(data: st.DataObject) -> None:
    value = data.draw(
        st.one_of(
            st.floats(max_value=-1e-3, allow_nan=False),
            st.floats(min_value=1e-3, max_value=1e15).filter(
                lambda x: abs(x - np.rint(x)) > 0.06
            ),  # more than rounding errors,
            st.sampled_from([np.nan, np.inf, -np.inf]),
        )
    )
    place = data.draw(st.tuples(st.integers(0, 10), st.integers(0, 4)))
    values = np.zeros((11, 5))
    values[place] = value
    kind = data.draw(st.sampled_from([np.asarray, np.asfortranarray, *SPARSE]))
    with pytest.raises(NotCountsError):
        sum_groups(kind(values), np.zeros(11, dtype=np.int64), 1)
    assert not looks_like_counts(kind(values))


def test_numbers_of_other_kinds() -> None:
    for values in [np.ones((2, 2), dtype=complex), np.full((2, 2), "1")]:
        with pytest.raises(NotCountsError, match="holds values of dtype"):
            sum_groups(values, np.zeros(2, dtype=np.int64), 1)


def test_negative_zero_is_a_count() -> None:
    found = sum_groups(np.array([[-0.0, 1.0]]), np.array([0]), 1)
    assert not np.signbit(found.counts).any()
