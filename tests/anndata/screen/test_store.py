"""The store of a screen, without a screen: blocks, runs, and what others read from it."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata.experimental import read_lazy

from nbcompare._anndata import MemoryScreen, ScreenResult, ScreenStore, differences
from nbcompare._anndata.screen.fingerprint import fingerprint
from nbcompare._anndata.screen.result import bytes_a_test, layer_types

N_GENES = 30
TYPES = layer_types("float32")
GENES = pd.DataFrame(index=[f"gene_{j}" for j in range(N_GENES)])


@pytest.fixture(params=[2, 3])
def zarr_format(request: pytest.FixtureRequest):
    before = anndata.settings.zarr_write_format
    anndata.settings.zarr_write_format = request.param
    yield request.param
    anndata.settings.zarr_write_format = before


def write(result: ScreenResult, rows: slice) -> None:
    """Layers whose values say in which row and column they belong."""
    values = 100.0 * np.arange(rows.start, rows.stop)[:, None] + np.arange(N_GENES)
    layers = result.arrays(rows, list(TYPES))
    for layer in layers.values():
        layer[...] = values
    names = np.array([f"perturbation {i}" for i in range(rows.start, rows.stop)], dtype=object)
    result.write_block(rows, layers, {"names": names, "rank": np.arange(rows.start, rows.stop)})


def run(result: ScreenResult, n_new: int, *, block_rows: int = 4) -> anndata.AnnData:
    result.begin(n_new, {"params": {}}, block_rows)
    result.open_layers(N_GENES, TYPES)
    for rows in result.blocks():
        write(result, rows)
    return finish(result)


def finish(result: ScreenResult) -> anndata.AnnData:
    summaries = result.summaries()
    obs = pd.DataFrame(
        {"rank": np.concatenate([summary["rank"] for summary in summaries])},
        index=pd.Index(np.concatenate([summary["names"] for summary in summaries]), dtype=object),
    )
    return result.finish(obs, GENES, {"nb_screen": {"version": "1", "nothing": None}})


def expected(n_rows: int) -> np.ndarray:
    return 100.0 * np.arange(n_rows)[:, None] + np.arange(N_GENES)


def files(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_types_of_layers() -> None:
    types = layer_types("float32")
    assert {name for name, kind in types.items() if kind == np.float64} == {"pvals", "pvals_adj", "pvals_adj_global"}
    assert types["status"] == np.uint32
    assert bytes_a_test(types) == 4 * 4 + 3 * 8 + 4
    assert layer_types("float64", ["lfsr"])["lfsr"] == np.float64


def test_what_is_written_is_an_anndata(tmp_path: Path, zarr_format: int) -> None:
    lazy = run(ScreenStore(tmp_path / "screen.zarr"), 10)
    for read in (lazy.to_memory(), anndata.read_zarr(tmp_path / "screen.zarr")):
        assert read.shape == (10, N_GENES)
        assert read.obs_names[9] == "perturbation 9"
        np.testing.assert_array_equal(read.obs["rank"], np.arange(10))
        for name, kind in TYPES.items():
            assert read.layers[name].dtype == kind
            np.testing.assert_array_equal(read.layers[name], expected(10).astype(kind))
        read.write_h5ad(tmp_path / "screen.h5ad")
        assert anndata.read_h5ad(tmp_path / "screen.h5ad").uns["nb_screen"]["version"] == "1"
    assert read_lazy(tmp_path / "screen.zarr").layers["pvals"].chunksize[0] == 4
    assert (tmp_path / "screen.zarr" / ("zarr.json" if zarr_format == 3 else ".zgroup")).is_file()


def test_in_memory_it_is_the_same(tmp_path: Path) -> None:
    here, there = run(MemoryScreen(), 10), run(ScreenStore(tmp_path / "screen.zarr"), 10).to_memory()
    pd.testing.assert_frame_equal(here.obs, there.obs, check_index_type=False)
    for name in here.layers:
        np.testing.assert_array_equal(here.layers[name], there.layers[name])


def test_blocks_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    store = ScreenStore(tmp_path / "screen.zarr")
    store.begin(10, {"params": {"a": [1, None]}}, 4)
    store.open_layers(N_GENES, TYPES)
    assert store.blocks() == [slice(0, 4), slice(4, 8), slice(8, 10)]
    write(store, slice(4, 8))
    (store.path / "layers" / "pvals" / "1.0.abc.partial").write_bytes(b"torn")
    (store.bookkeeping / "blocks" / "000000000.npz.tmp").write_bytes(b"torn")

    again = ScreenStore(tmp_path / "screen.zarr")
    assert not again.is_foreign
    assert not again.is_complete
    assert again.runs[0]["fingerprint"] == {"params": {"a": [1, None]}}
    again.open_layers(N_GENES, TYPES)
    assert again.blocks() == [slice(0, 4), slice(8, 10)]
    for rows in again.blocks():
        write(again, rows)
    np.testing.assert_array_equal(finish(again).layers["pvals"].compute(), expected(10))
    assert not list(store.path.rglob("*.partial"))
    assert not list(store.path.rglob("*.tmp"))


@pytest.mark.parametrize("n_first", [8, 10])
def test_a_second_run_leaves_the_first_as_it_is(tmp_path: Path, n_first: int, zarr_format: int) -> None:
    path = tmp_path / "screen.zarr"
    run(ScreenStore(path), n_first)
    before = files(path / "layers" / "pvals")
    store = ScreenStore(path)
    store.begin(7, {"params": {}}, 4)
    store.open_layers(N_GENES, TYPES)
    assert read_lazy(path).shape == (n_first, N_GENES)  # until it is finished
    assert store.blocks()[0].start == n_first
    assert [rows.stop % 4 for rows in store.blocks()[:-1]] == [0] * (len(store.blocks()) - 1)
    for rows in store.blocks():
        write(store, rows)
    result = finish(store)
    np.testing.assert_array_equal(result.layers["pvals"].compute(), expected(n_first + 7))
    assert result.obs_names[-1] == f"perturbation {n_first + 6}"
    after = files(path / "layers" / "pvals")
    chunk = "c/{}/0" if zarr_format == 3 else "{}.0"
    for k in range(n_first // 4):  # the chunks that are full
        assert before[chunk.format(k)] == after[chunk.format(k)]


def test_what_is_kept_beside(tmp_path: Path) -> None:
    store = ScreenStore(tmp_path / "screen.zarr")
    store.begin(1, {"params": {}}, 4)
    words = np.array(["é", "longer"], dtype=object)
    for result in (store, MemoryScreen()):
        assert result.kept("model") is None
        result.keep("model", {"words": words, "none": np.array([], dtype=object), "number": np.array(1.5)})
        kept = result.kept("model")
        assert kept is not None
        assert kept["words"].dtype == kept["none"].dtype == object
        np.testing.assert_array_equal(kept["words"], words)
        assert kept["none"].size == 0
        assert kept["number"] == 1.5


def test_a_path_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert not ScreenStore(tmp_path / "folder").is_foreign
    (tmp_path / "folder" / "something").write_text("")
    assert ScreenStore(tmp_path / "file").is_foreign
    assert ScreenStore(tmp_path / "folder").is_foreign
    assert not ScreenStore(tmp_path / "new").is_foreign
    (tmp_path / "killed" / ".nb_screen").mkdir(parents=True)
    assert not ScreenStore(tmp_path / "killed").is_foreign


def test_fingerprints_say_what_differs() -> None:
    table = pd.DataFrame({"condition": ["a", "b"], "n_cells": [3, 4]})
    counts = np.arange(6.0).reshape(2, 3)
    genes = pd.Index(["x", "y", "z"])
    one = fingerprint(table, counts, genes, {"fdr": 0.05, "keys": ("a", "b")})
    assert (
        differences(one, fingerprint(table, counts.copy(), genes, {"fdr": np.float64(0.05), "keys": ["a", "b"]})) == []
    )
    swapped = counts[:, [1, 0, 2]]  # the same totals of samples
    moved = counts + [[1, -1, 0], [-1, 1, 0]]  # the same totals of samples and genes
    for other, word in {
        "genes": (fingerprint(table, counts, genes[::-1], one["params"]), "the genes"),
        "samples": (fingerprint(table[::-1], counts, genes, one["params"]), "the samples"),
        "swapped": (fingerprint(table, swapped, genes, one["params"]), "the counts of the samples"),
        "moved": (fingerprint(table, moved, genes, one["params"]), "the counts of the samples"),
        "fdr": (fingerprint(table, counts, genes, one["params"] | {"fdr": 0.1}), "fdr (0.05 there, 0.1 here)"),
    }.values():
        assert any(word in sentence for sentence in differences(one, other))
    assert differences(one, one | {"version": "0"}) == [
        f"the version of nbcompare ({one['version']!r} there, '0' here)"
    ]
    assert differences(one, one | {"version": "0", "genes": "?"}, ("version", "fdr")) == ["the genes (adata.var_names)"]
