"""Matrices whose indices lead out of them: every kind of damage, in every kind of matrix, is refused in words."""

import re
import shutil
from contextlib import contextmanager

import anndata as ad
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from nbcompare import get, pp, tl
from nbcompare._counts.chunks import blocks, column
from nbcompare._counts.matrix_checks import DamagedMatrixError, check_storage
from nbcompare._counts.sums import sum_gene, sum_groups

N_GENES = 30
KINDS = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
}
CELLS = pd.DataFrame(
    [(c, d) for c in ("ctrl", "a") for d in ("d0", "d1", "d2") for _ in range(12)], columns=["condition", "donor"]
).rename(index=str)
COUNTS = np.random.default_rng(0).poisson(1.5, (len(CELLS), N_GENES)).astype(np.float32)


def _index(matrix, value):
    matrix.indices[5] = value


def _wide(matrix, value):
    matrix.indices = matrix.indices.astype(np.int64)
    matrix.indptr = matrix.indptr.astype(np.int64)
    matrix.indices[-1] = value


def _pointer(matrix, at, value):
    matrix.indptr[at] = value


def across(matrix):
    return matrix.shape[1 if matrix.format == "csr" else 0]


DAMAGES = {
    "index one beyond": (lambda m: _index(m, across(m)), "entry at"),
    "index three beyond": (lambda m: _index(m, across(m) + 3), "entry at"),
    "index far beyond": (lambda m: _index(m, 2**31 - 1), "entry at"),
    "negative index": (lambda m: _index(m, -2), "entry at"),
    "last index, int64": (lambda m: _wide(m, 2**40), "entry at"),
    "negative index, int64": (lambda m: _wide(m, -(2**40)), "entry at"),
    "indptr falls": (lambda m: _pointer(m, 3, m.indptr[5] + 4), "indptr falls"),
    "indptr negative": (lambda m: _pointer(m, 1, -4), "indptr falls"),
    "indptr beyond the data": (lambda m: _pointer(m, -1, m.nnz + 10**6), "indptr ends with"),
    "indptr starts late": (lambda m: _pointer(m, 0, 2), "indptr starts with 2"),
    "indptr too short": (lambda m: setattr(m, "indptr", m.indptr[:-1]), "indptr has"),
    "indptr too long": (lambda m: setattr(m, "indptr", np.append(m.indptr, m.indptr[-1])), "indptr has"),
    "data too short": (lambda m: setattr(m, "data", m.data[:-7]), "indptr ends with"),
    "indices too short": (lambda m: setattr(m, "indices", m.indices[:-7]), "indptr ends with"),
    "indices not whole": (lambda m: setattr(m, "indices", m.indices + 0.5), "indices are of dtype float64"),
}
STORES = ["memory", "layer", "dask", "backed", "lazy h5ad", "lazy zarr"]


def damaged(kind, damage):
    matrix = KINDS[kind](COUNTS)
    DAMAGES[damage][0](matrix)
    return matrix


@contextmanager
def stored(matrix, store, folder):
    """An AnnData with this matrix; files are written sound and their arrays exchanged."""
    obs = CELLS.copy()
    if store == "memory":
        yield ad.AnnData(matrix, obs=obs)
    elif store == "layer":
        adata = ad.AnnData(COUNTS / 3, obs=obs)
        adata.layers["counts"] = matrix
        yield adata
    elif store == "dask":
        whole = type(matrix)(COUNTS)
        lazy = da.from_array(np.zeros(COUNTS.shape, np.float32), chunks=COUNTS.shape)
        yield ad.AnnData(lazy.map_blocks(lambda _: matrix, meta=whole[:0]), obs=obs)
    else:
        adata = ad.AnnData(type(matrix)(COUNTS), obs=obs)
        path = folder / ("x.zarr" if "zarr" in store else "x.h5ad")
        if "zarr" in store:
            adata.write_zarr(path)
            group = zarr.open_group(path, mode="r+")
        else:
            adata.write_h5ad(path)
            group = h5py.File(path, "r+")
        for name in ("data", "indices", "indptr"):
            if np.array_equal(group["X"][name][:], getattr(matrix, name)):
                continue
            del group["X"][name]
            if "zarr" in store:
                group["X"].create_array(name, data=getattr(matrix, name))
            else:
                group["X"].create_dataset(name, data=getattr(matrix, name))
        if "zarr" in store:
            zarr.consolidate_metadata(path)
            yield ad.experimental.read_lazy(path)
        elif store == "backed":
            group.close()
            backed = ad.read_h5ad(path, backed="r")
            yield backed
            backed.file.close()
        else:
            group.close()
            with h5py.File(path) as file:
                yield ad.experimental.read_lazy(file)
        (shutil.rmtree if "zarr" in store else type(path).unlink)(path)


CALLS = {
    "nb_compare": lambda a, layer: tl.nb_compare(a, "condition", reference="ctrl", replicate_key="donor", layer=layer),
    "nb_screen": lambda a, layer: tl.nb_screen(
        a, "condition", reference="ctrl", replicate_key="donor", layer=layer, progress=False
    ),
    "pseudobulk": lambda a, layer: pp.pseudobulk(a, "condition", replicate_key="donor", layer=layer),
    "size_factors": lambda a, layer: pp.size_factors(a, method="total", layer=layer),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "store"),
    [(kind, store) for kind in KINDS for store in STORES if kind.endswith("matrix") or store in ("memory", "dask")],
)
def test_every_damage_is_refused_by_every_function(kind, store, tmp_path):
    for damage, (_, words) in DAMAGES.items():
        if store.startswith("lazy") and damage in ("indices not whole", "indptr starts late", "indptr too long"):
            continue  # anndata rounds the first, counts from the start of the second, and does not read the end of the third
        with stored(damaged(kind, damage), store, tmp_path) as adata:
            layer = "counts" if store == "layer" else None
            name = r"adata\.layers\['counts'\] " if layer else r"adata\.X "
            before = set(adata.varm), set(adata.uns), list(adata.obs)
            for call in CALLS.values() if not store.startswith("lazy") else (CALLS["nb_screen"], CALLS["pseudobulk"]):
                with pytest.raises(DamagedMatrixError) as caught:
                    call(adata, layer)
                by_anndata = rf"|^{name}has chunks that cannot be computed" if store.startswith("lazy") else ""
                assert re.search(f"^{name}is a damaged.*{words}{by_anndata}", str(caught.value)), (
                    damage,
                    str(caught.value),
                )
            assert (set(adata.varm), set(adata.uns), list(adata.obs)) == before, damage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_gene_and_offsets_are_refused(kind, damage, tmp_path):
    matrix = damaged(kind, damage)
    codes = np.zeros(len(CELLS), np.int64)
    with pytest.raises(DamagedMatrixError, match=DAMAGES[damage][1]):
        sum_gene(matrix, codes, 1, 0)
    sound = pp.pseudobulk(ad.AnnData(COUNTS, obs=CELLS), "condition", replicate_key="donor")
    sound.layers["offset"] = KINDS[kind](np.log(2 + COUNTS[: sound.n_obs]))
    DAMAGES[damage][0](sound.layers["offset"])
    with pytest.raises(DamagedMatrixError, match=r"^adata\.layers\['offset'\] "):
        tl.nb_compare(sound, "condition", reference="ctrl", offset="offset")


def test_a_gene_of_a_file_that_was_damaged_later(tmp_path):
    adata = ad.AnnData(obs=CELLS.copy(), shape=COUNTS.shape, layers={"counts": COUNTS})
    keys = {"replicate_key": "donor", "block_key": "donor", "layer": "counts"}
    tl.nb_compare(adata, "condition", reference="ctrl", **keys)
    adata.layers["counts"] = damaged("csr_matrix", "index one beyond")
    with pytest.raises(
        DamagedMatrixError, match=r"adata\.layers\['counts'\] is a damaged sparse matrix: .*column 30 in row 0"
    ):
        get.nb_gene_df(adata, "3")


def test_the_place_is_named():
    matrix = sparse.csr_matrix(COUNTS)
    matrix.indices[matrix.indptr[50] + 1] = 77
    with pytest.raises(
        DamagedMatrixError, match=r"column 77 in row 50, but there are 30 columns \(genes\), numbered from 0"
    ):
        check_storage(matrix)
    matrix = sparse.csc_matrix(COUNTS)
    matrix.indices[matrix.indptr[7]] = -1
    with pytest.raises(DamagedMatrixError, match=r"row -1 in column 7, but there are 72 rows \(cells\)"):
        check_storage(matrix)


def test_masked_counts_are_refused():
    masked = np.ma.masked_array(COUNTS, COUNTS > 3)
    whole = ad.AnnData(COUNTS.copy(), obs=CELLS)
    for call in CALLS.values():
        for held in (masked, np.ma.masked_array(COUNTS), da.from_array(masked, chunks=(20, 30), asarray=False)):
            whole.layers["masked"] = held
            with pytest.raises(
                DamagedMatrixError, match=r"^adata\.layers\['masked'\] is a masked array.*\.filled\(0\)"
            ):
                call(whole, "masked")
    samples = pp.pseudobulk(whole, "condition", replicate_key="donor")
    samples.layers["masked"] = np.ma.masked_array(samples.X, samples.X > 20)
    with pytest.raises(DamagedMatrixError, match="is a masked array"):  # rows that are samples are not summed
        tl.nb_compare(samples, "condition", reference="ctrl", layer="masked")
    sparse_one = sparse.csr_matrix(COUNTS)
    sparse_one.data = np.ma.masked_array(sparse_one.data)
    with pytest.raises(DamagedMatrixError, match="is a masked array"):
        check_storage(sparse_one)


@pytest.mark.parametrize("shape", [(20, 31), (21, 30), (19, 30)])
def test_dask_chunks_of_another_shape_are_refused(shape):
    lazy = da.from_array(np.zeros((60, 30)), chunks=(20, 30)).map_blocks(
        lambda _: np.ones(shape), meta=np.zeros((0, 0))
    )
    with pytest.raises(DamagedMatrixError, match=r"has a chunk of shape"):
        sum_groups(lazy, np.zeros(60, np.int64), 1)


@pytest.mark.parametrize("codes", [[0, 1, 2], [0, -2, 1], [0, 1], [0, 1, 1, 0], [0.0, 1.0, 1.0], [[0], [1], [1]]])
def test_codes_of_groups_beyond_the_groups_are_refused(codes):
    for matrix in (np.ones((3, 2)), sparse.csr_matrix(np.ones((3, 2))), sparse.csc_matrix(np.ones((3, 2)))):
        with pytest.raises(ValueError, match="3 whole numbers from -1 to 1"):
            sum_groups(matrix, np.array(codes), 2)
        with pytest.raises(ValueError, match="3 whole numbers from -1 to 1"):
            sum_gene(matrix, np.array(codes), 2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_room_behind_the_last_entry_is_no_damage(kind):
    """scipy keeps arrays that are longer than indptr says; what lies there is not part of the matrix."""
    matrix = KINDS[kind](COUNTS)
    matrix.data, matrix.indices = np.append(matrix.data, -0.5), np.append(matrix.indices, 10**6).astype(np.int32)
    codes = np.arange(len(CELLS)) % 3
    expected = np.stack([COUNTS[codes == k].sum(axis=0) for k in range(3)])
    np.testing.assert_array_equal(sum_groups(matrix, codes, 3).counts, expected)
    np.testing.assert_array_equal(column(matrix, 4, 10), COUNTS[:, 4])
    assert sum(block.values.shape[0] for block in blocks(matrix, 10)) == len(CELLS)
