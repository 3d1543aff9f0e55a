"""A screen on a dask cluster of two processes: the same sums, the same files as without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import dask
import dask.array as da
import numpy as np
import pytest
from anndata import AnnData
from anndata.experimental import read_lazy
from scipy import sparse

import nbcompare as nb
from nbcompare._anndata import ScreenStore
from nbcompare._counts import dask_sums as cluster_sums
from nbcompare._counts.dask_client import active_client, few_at_a_time
from nbcompare._counts.sums import sum_groups
from nbcompare._counts.validation import NotCountsError
from nbcompare.tl._screen import run_dask as _screen_cluster

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow]
OPTIONS: dict[str, Any] = {
    "reference": "ctrl",
    "replicate_key": "replicate",
    "progress": False,
    "intervals": True,
    "perturbations_per_chunk": 2,
}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return nb.datasets.simulate(
        n_genes=120, n_conditions=12, n_cells=20, n_cells_sd=0.1, n_replicates=[5] + [3] * 11, rng=1
    )


@pytest.fixture(scope="module")
def alone(cells: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result without a cluster."""
    path = tmp_path_factory.mktemp("alone") / "screen.zarr"
    nb.tl.nb_screen(cells, "condition", path=path, **OPTIONS)
    return path


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def assert_same_files(one: Path, other: Path) -> None:
    """Byte for byte, but for the archives, which may note when they were written."""
    mine, theirs = files(one), files(other)
    assert mine.keys() == theirs.keys()
    differing = [name for name in mine if mine[name] != theirs[name] and not name.endswith(".npz")]
    assert differing == []
    for name in mine:
        if name.endswith(".npz"):
            with np.load(one / name) as a, np.load(other / name) as b:
                assert a.files == b.files
                for word in a.files:
                    np.testing.assert_array_equal(a[word], b[word], err_msg=f"{name} {word}")


def as_dask(adata: AnnData, *, cells_a_chunk: int = 50, genes_a_chunk: int | None = None) -> AnnData:
    chunks = (cells_a_chunk, genes_a_chunk or adata.n_vars)
    values = adata.X.toarray() if genes_a_chunk else adata.X
    return AnnData(da.from_array(values, chunks=chunks), obs=adata.obs, var=adata.var)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "columns"])
def test_sums_are_the_same(client: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (700, 40)).astype(np.float32)
    codes = rng.integers(-1, 90, 700)
    codes[200:300] = -1
    codes[codes == 7] = 8  # a group without cells
    expected = sum_groups(counts, codes, 90)
    monkeypatch.setattr(cluster_sums, "VALUES_OF_A_PART", 40 * 13)  # seven parts
    matrix = da.from_array(counts, chunks=(37, 11 if kind == "columns" else 40))
    if kind in ("csr", "csc"):
        matrix = matrix.map_blocks({"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind])
    progress_values: list[float] = []
    found = sum_groups(matrix, codes, 90, progress=progress_values.append)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.left_out, expected.left_out)
    assert len(progress_values) == np.prod(matrix.numblocks)
    assert sum(progress_values) == pytest.approx(700)


def test_what_are_not_counts_is_refused(client: Any) -> None:
    values = np.ones((60, 4))
    values[45] = 0.5
    with pytest.raises(NotCountsError, match="parts of reads"):
        sum_groups(da.from_array(values, chunks=(10, 4)), np.zeros(60, int), 1)
    adata = AnnData(da.from_array(values, chunks=(10, 4)), layers={"counts": np.ones((60, 4))})
    adata.obs["condition"], adata.obs["replicate"] = ["a", "b"] * 30, ["1", "1", "2", "2"] * 15
    with pytest.raises(NotCountsError, match="pass layer='counts'"):
        nb.pp.pseudobulk(adata, "condition", replicate_key="replicate")


@pytest.mark.parametrize("kind", ["dask", "dask in columns", "lazy", "in memory"])
def test_files_are_the_same(client: Any, cells: AnnData, alone: Path, kind: str, tmp_path: Path) -> None:
    if kind == "lazy":
        cells.write_zarr(tmp_path / "cells.zarr")
    given = {
        "dask": lambda: as_dask(cells),
        "dask in columns": lambda: as_dask(cells, genes_a_chunk=70),
        "lazy": lambda: read_lazy(tmp_path / "cells.zarr"),
        "in memory": lambda: cells,
    }[kind]()
    nb.tl.nb_screen(given, "condition", path=tmp_path / "screen.zarr", **OPTIONS)
    assert_same_files(tmp_path / "screen.zarr", alone)


def test_posteriors_are_the_same(client: Any, cells: AnnData, tmp_path: Path) -> None:
    few = cells[cells.obs["condition"].isin(["ctrl", "treated_1", "treated_2", "treated_3"]).to_numpy(), :40].copy()
    options = OPTIONS | {"method": "quadrature"}
    nb.tl.nb_screen(few, "condition", path=tmp_path / "cluster.zarr", **options)
    memory = nb.tl.nb_screen(few, "condition", **options)
    on_disk = anndata.read_zarr(tmp_path / "cluster.zarr")
    assert set(on_disk.layers) == set(memory.layers) >= {"lfsr", "lfc_unshrunken"}
    for word in memory.layers:
        np.testing.assert_array_equal(on_disk.layers[word], memory.layers[word], err_msg=word)


def test_workers_do_the_work(client: Any, cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block by one of them, none here; without what they write the screen is not finished."""

    def note_process(path: str, rows: slice, part: object, shared: object) -> None:
        (Path(path).parent / f"block {rows.start}").write_text(str(os.getpid()))

    monkeypatch.setattr(_screen_cluster, "_test_block", note_process)
    with pytest.raises(IndexError):
        nb.tl.nb_screen(as_dask(cells), "condition", path=tmp_path / "screen.zarr", **OPTIONS)
    noted = {file.name: int(file.read_text()) for file in tmp_path.glob("block*")}
    assert set(noted) == {f"block {row}" for row in range(0, 11, 2)}
    assert os.getpid() not in noted.values()


def test_it_goes_on_with_what_one_machine_began(
    client: Any, cells: AnnData, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "screen.zarr", ScreenStore.write_block

    def stop(store: ScreenStore, rows: slice, *rest: Any) -> None:
        if rows.start >= 6:
            raise KeyboardInterrupt
        write(store, rows, *rest)

    with monkeypatch.context() as patch, dask.config.set(scheduler="threads"):
        patch.setattr(ScreenStore, "write_block", stop)
        with pytest.raises(KeyboardInterrupt):
            nb.tl.nb_screen(cells, "condition", path=path, n_jobs=1, **OPTIONS)
    assert len(list(path.glob(".nb_screen/blocks/*.npz"))) == 3
    nb.tl.nb_screen(as_dask(cells), "condition", path=path, **OPTIONS)
    assert_same_files(path, alone)


def test_perturbations_are_added(client: Any, cells: AnnData, tmp_path: Path) -> None:
    early = cells[~cells.obs["condition"].isin(["treated_3", "treated_7"])].copy()
    paths = [tmp_path / "alone.zarr", tmp_path / "cluster.zarr"]
    for path, scheduler in zip(paths, ["threads", "distributed"], strict=True):
        with dask.config.set(scheduler=scheduler):
            nb.tl.nb_screen(early, "condition", path=path, **OPTIONS)
            nb.tl.nb_screen(as_dask(cells), "condition", path=path, append=True, **OPTIONS)
    assert_same_files(*paths)
    assert anndata.read_zarr(paths[1]).n_obs == 11


@pytest.mark.parametrize(
    ("there", "sentence"), [(("2", "runs"), "install the same version"), (("1", None), "does not see")]
)
def test_workers_must_see_the_path(
    client: Any, cells: AnnData, there: tuple, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.getpid()
    monkeypatch.setattr(
        _screen_cluster, "_version_and_runs", lambda path: ("1", "runs") if os.getpid() == here else there
    )
    with pytest.raises(ValueError, match=sentence):
        nb.tl.nb_screen(cells, "condition", path=tmp_path / "screen.zarr", **OPTIONS)


def test_jobs_under_way_are_few(client: Any) -> None:
    batches: list[int] = []

    def submit(batch: Any) -> list[Any]:
        batches.append(len(batch))
        return client.map(abs, batch, pure=False)

    results = dict(few_at_a_time(client, submit, range(-9, 0)))
    assert results == {job: -job for job in range(-9, 0)}
    assert sum(batches) == 9
    assert max(batches) <= 4  # two threads


def test_another_scheduler_is_respected(client: Any) -> None:
    assert active_client() is client
    with dask.config.set(scheduler="synchronous"):
        assert active_client() is None
