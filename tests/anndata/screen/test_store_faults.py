"""A screen on disk: interrupted, damaged, read beside a running call, or asked to go on with something else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nbcompare as nb
from nbcompare._anndata.screen import files as store_files
from nbcompare._anndata.screen import store as screen_store
from nbcompare._anndata.screen import tables as store_tables

CALL = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", "progress": False, "verbose": False}


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return nb.datasets.simulate(n_genes=40, n_conditions=9, n_replicates=3, n_cells=20, n_cells_sd=0, rng=1)


@pytest.fixture(scope="module")
def parts(cells) -> tuple[ad.AnnData, ad.AnnData]:
    """The first perturbations, and the others with the control."""
    later = cells.obs["condition"].isin([f"treated_{k}" for k in (6, 7, 8)]).to_numpy()
    control = (cells.obs["condition"] == "ctrl").to_numpy()
    return cells[~later].copy(), cells[later | control].copy()


@pytest.fixture(scope="module")
def finished(parts, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "a.zarr"
    nb.tl.nb_screen(parts[0], **CALL, path=path, perturbations_per_chunk=2)
    return path


@pytest.fixture
def path(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def unfinished(path: Path) -> None:
    """As if the call had been killed before it wrote the tables."""
    runs = json.loads((path / ".nb_screen" / "runs.json").read_text())
    runs[-1]["finished"] = False
    (path / ".nb_screen" / "runs.json").write_text(json.dumps(runs))


def same(one: ad.AnnData, other: ad.AnnData) -> None:
    pd.testing.assert_frame_equal(one.obs, other.obs)
    for name in other.layers:
        np.testing.assert_array_equal(one.layers[name], other.layers[name], err_msg=name)


STEPS = {  # where an append is killed
    "begin": (store_files, "save", 1),
    "second block": (store_files, "save", 3),
    "tables": (store_tables, "write_elem", 1),
    "third table": (store_tables, "write_elem", 3),
    "metadata": (store_tables, "_copy_metadata", 1),
    "last of the metadata": (store_tables, "_copy_metadata", 8),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_append_that_dies_leaves_the_old_screen(step, parts, path, monkeypatch):
    """It is read as before, and the repeated append gives what an undisturbed one gives."""
    before = ad.read_zarr(path)
    module, name, number = STEPS[step]
    original, calls = getattr(module, name), []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        for place in {module, screen_store}:
            if hasattr(place, name):
                patch.setattr(place, name, dies)
        with pytest.raises(KeyboardInterrupt):
            nb.tl.nb_screen(parts[1], **CALL, path=path, append=True, perturbations_per_chunk=2)
    assert len(calls) >= number
    same(ad.read_zarr(path), before)
    same(ad.experimental.read_lazy(path).to_memory(), before)
    nb.tl.nb_screen(parts[1], **CALL, path=path, append=True, perturbations_per_chunk=2)
    again = ad.read_zarr(path)
    assert again.n_obs == 8
    assert len(nb.get.check_screen(path)) == 0


@pytest.mark.slow
def test_an_append_that_is_killed_at_any_moment(parts, path, tmp_path):
    """With kill -9, at random moments; the store is readable after each, with the old or the new perturbations."""
    nb.tl.nb_screen(
        parts[1], **CALL, path=shutil.copytree(path, tmp_path / "whole.zarr"), append=True, perturbations_per_chunk=2
    )
    whole, old = ad.read_zarr(tmp_path / "whole.zarr"), ad.read_zarr(path)
    parts[1].write_h5ad(tmp_path / "more.h5ad")
    script = textwrap.dedent(
        f"""
        import nbcompare as nb
        print("begins", flush=True)
        nb.tl.nb_screen({str(tmp_path / "more.h5ad")!r}, **{CALL!r}, path={str(path)!r}, append=True, perturbations_per_chunk=2)
        """
    )
    rng = np.random.default_rng(0)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            process.stdout.readline()
            try:
                process.wait(timeout=rng.uniform(0.05, 1.5))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        found = ad.read_zarr(path)
        same(found, whole if found.n_obs == 8 else old)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nb.tl.nb_screen(parts[1], **CALL, path=path, append=True, perturbations_per_chunk=2)
    same(ad.read_zarr(path), whole)


@pytest.mark.slow
def test_a_full_disk(parts, tmp_path, monkeypatch):
    """An error of the system, and the same screen once there is room."""
    original = np.savez
    for number in (1, 2, 4):
        calls = []

        def full(stream, number=number, calls=calls, **arrays):
            calls.append(1)
            if len(calls) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(stream, **arrays)

        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", full)
            with pytest.raises(OSError, match="No space left"):
                nb.tl.nb_screen(parts[0], **CALL, path=tmp_path / "a.zarr", perturbations_per_chunk=2)
        assert not list(tmp_path.rglob("*.tmp"))
    nb.tl.nb_screen(parts[0], **CALL, path=tmp_path / "a.zarr", perturbations_per_chunk=2)
    same(ad.read_zarr(tmp_path / "a.zarr"), nb.tl.nb_screen(parts[0], **CALL).copy())


@pytest.mark.slow
def test_two_writers(parts, tmp_path):
    """One fills the store; the other is told, or finds it finished."""
    parts[0].write_h5ad(tmp_path / "cells.h5ad")
    script = textwrap.dedent(
        f"""
        import sys
        import nbcompare as nb
        sys.stdin.readline()
        try:
            nb.tl.nb_screen({str(tmp_path / "cells.h5ad")!r}, **{CALL!r}, path={str(tmp_path / "a.zarr")!r}, perturbations_per_chunk=1)
        except BlockingIOError as error:
            print(error)
        """
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate("go\n", timeout=120)[0] for process in both if process.stdin is not None]
    assert all(process.returncode == 0 for process in both)
    assert all(not words or "Another process is filling the screen" in words for words in said)
    same(ad.read_zarr(tmp_path / "a.zarr"), nb.tl.nb_screen(parts[0], **CALL).copy())


FLIPPED = {"a byte flipped", "two chunks exchanged", "a chunk deleted", "a chunk cut"}


def damage(path: Path, kind: str) -> None:
    bookkeeping, layer = path / ".nb_screen", path / "layers" / "pvals"
    block = sorted((bookkeeping / "blocks").glob("*.npz"))[0]
    chunks = sorted(file for file in layer.iterdir() if not file.name.startswith(".z"))
    if kind == "a byte flipped":
        # the compressor does not notice: another chunk with other numbers stands in its place
        chunks[0].write_bytes(chunks[1].read_bytes())
    elif kind == "two chunks exchanged":
        one, other = chunks[0].read_bytes(), chunks[1].read_bytes()
        chunks[0].write_bytes(other)
        chunks[1].write_bytes(one)
    elif kind == "a chunk deleted":
        chunks[0].unlink()
    elif kind == "a chunk cut":
        chunks[0].write_bytes(chunks[0].read_bytes()[:20])
    elif kind == "a layer removed":
        shutil.rmtree(layer)
    elif kind == "obs removed":
        shutil.rmtree(path / "obs")
    elif kind == "a summary cut":
        block.write_bytes(block.read_bytes()[:50])
    elif kind == "a summary empty":
        block.write_bytes(b"")
    elif kind == "the model cut":
        (bookkeeping / "model.npz").write_bytes((bookkeeping / "model.npz").read_bytes()[:100])
    elif kind == "the runs cut":
        (bookkeeping / "runs.json").write_text((bookkeeping / "runs.json").read_text()[:40])
    elif kind == "the runs null":
        (bookkeeping / "runs.json").write_text("null")
    elif kind == "blocks removed":
        shutil.rmtree(bookkeeping / "blocks")
    elif kind == "a summary removed":
        block.unlink()


@pytest.mark.parametrize("kind", sorted(FLIPPED))
def test_damaged_numbers_are_found(kind, path):
    damage(path, kind)
    found = nb.get.check_screen(path)
    assert set(found["layer"]) == {"pvals"}
    assert len(found) == (2 if kind == "two chunks exchanged" else 1)


def test_a_lost_chunk_never_reads_as_ok(path):
    for chunk in (path / "layers" / "status").iterdir():
        if not chunk.name.startswith(".z"):
            chunk.unlink()
    screen = ad.read_zarr(path)
    assert (screen.layers["status"] == 128).all()
    assert set(nb.get.nb_screen_df(screen, "treated_1")["status"]) == {"not_computed"}


WORDS = {
    "a layer removed": "'layers/pvals' is missing|its layer 'pvals' is missing",
    "obs removed": "'obs' is missing",
    "a summary cut": "000000000.npz' is damaged.*Delete it and repeat the call",
    "a summary empty": "000000000.npz' is damaged.*Delete it and repeat the call",
    "the model cut": "model.npz' is damaged.*Delete it and repeat the call",
    "the runs cut": "runs.json' is damaged",
    "the runs null": "runs.json' is damaged",
    "a chunk cut": "Layer 'pvals' of the screen at .* is damaged in rows 0 to 1",
}
MADE_AGAIN = ("blocks removed", "a summary removed")


@pytest.mark.parametrize("state", ["finished", "half finished"])
@pytest.mark.parametrize("kind", [*WORDS, *MADE_AGAIN])
def test_a_damaged_store(kind, state, parts, path, finished):
    """The same call says which file is damaged and what to do, or mends it."""
    if state == "half finished":
        unfinished(path)
    damage(path, kind)
    errors = dict(WORDS)
    if state == "finished":  # only what is needed to open the result is read
        for name in ("a summary cut", "a summary empty", "the model cut", "a chunk cut"):
            del errors[name]
    elif kind == "obs removed":
        del errors["obs removed"]
    if kind in errors:
        with pytest.raises(ValueError, match=errors[kind]):
            nb.tl.nb_screen(parts[0], **CALL, path=path, perturbations_per_chunk=2)
        return
    nb.tl.nb_screen(parts[0], **CALL, path=path, perturbations_per_chunk=2)
    if state == "half finished":
        same(ad.read_zarr(path), ad.read_zarr(finished))


@pytest.mark.parametrize("mended", ["a summary cut", "the model cut"])
def test_what_the_message_says_helps(mended, parts, path, finished):
    unfinished(path)
    damage(path, mended)
    with pytest.raises(ValueError, match="is damaged") as error:
        nb.tl.nb_screen(parts[0], **CALL, path=path, perturbations_per_chunk=2)
    Path(str(error.value).split("'")[1]).unlink()
    nb.tl.nb_screen(parts[0], **CALL, path=path, perturbations_per_chunk=2)
    same(ad.read_zarr(path), ad.read_zarr(finished))


@pytest.mark.parametrize(
    "options", [{"replicate_key": "cell", "min_cells": 1}, {"guide_key": "donor"}, {"fdr": 0.1}, {"intervals": True}]
)
def test_an_append_with_other_arguments_is_refused(options, parts, path):
    more = parts[1].copy()
    more.obs["cell"] = [f"c{k // 2}" for k in range(more.n_obs)]
    with pytest.raises(ValueError, match=f"{next(iter(options))} .* there, .* here"):
        nb.tl.nb_screen(more, **{**CALL, **options}, path=path, append=True)
    assert ad.read_zarr(path).n_obs == 5


def test_counts_of_equal_margins_are_other_counts(parts, path):
    """Two samples exchange counts between two genes, so that all totals stay."""
    unfinished(path)
    swapped = parts[0].copy()
    swapped.X = swapped.X.toarray() if hasattr(swapped.X, "toarray") else swapped.X
    one, other = np.argsort(-(swapped.X > 0).sum(axis=0))[:2]
    first, last = np.flatnonzero(swapped.X[:, other] > 0)[0], np.flatnonzero(swapped.X[:, one] > 0)[-1]
    swapped.X[first, [one, other]] += [1, -1]
    swapped.X[last, [one, other]] += [-1, 1]
    with pytest.raises(ValueError, match="made from other input: the counts of the samples"):
        nb.tl.nb_screen(swapped, **CALL, path=path, perturbations_per_chunk=2)


@pytest.mark.parametrize("name", ["s.h5ad", "s.h5", "s.h5mu"])
def test_a_store_is_no_file(name, cells, tmp_path):
    with pytest.raises(ValueError, match="a screen is a zarr store, a folder. Give it a name such as .*s.zarr"):
        nb.tl.nb_screen(cells, **CALL, path=tmp_path / name)


@pytest.mark.parametrize("column", ["a/b", 3, "_index", "when", "twice"])
def test_a_table_of_genes_that_cannot_be_written(column, cells, tmp_path, monkeypatch):
    """It is refused before a cell is read."""
    adata = cells.copy()
    if column == "twice":
        adata.var = pd.DataFrame(np.ones((adata.n_vars, 2)), index=adata.var_names, columns=["a", "a"])
    else:
        adata.var[column] = pd.Timestamp("2026-01-01") if column == "when" else 1.0
    monkeypatch.setattr("nbcompare.tl._nb_screen.read_screen", lambda *_: pytest.fail("cells were read"))
    with pytest.raises(ValueError, match="adata.var cannot be written to a zarr store"):
        nb.tl.nb_screen(adata, **CALL, path=tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_a_place_without_rights(cells, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("nbcompare.tl._screen.options.TemporaryDirectory", refuse)
    with pytest.raises(PermissionError, match="nothing can be written in .*Permission denied"):
        nb.tl.nb_screen(cells, **CALL, path=tmp_path / "s.zarr")


def test_the_lock_empties_no_file(parts, path, tmp_path):
    (tmp_path / "precious").write_text("keep me")
    lock = path / ".nb_screen" / "lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "precious")
    nb.tl.nb_screen(parts[1], **CALL, path=path, append=True)
    assert (tmp_path / "precious").read_text() == "keep me"


def test_text_of_pandas(cells, tmp_path):
    """Names as pandas' own text type are written as well."""
    adata = cells.copy()
    adata.var["symbol"] = pd.array([f"s{k}" for k in range(adata.n_vars)], dtype="string")
    nb.tl.nb_screen(adata, **CALL, path=tmp_path / "s.zarr")
    assert ad.read_zarr(tmp_path / "s.zarr").var["symbol"].to_list() == adata.var["symbol"].to_list()


def test_a_name_that_a_file_would_lose(cells):
    adata = cells.copy()
    adata.obs["condition"] = adata.obs["condition"].astype(str).replace("treated_1", "treated_2\0")
    with pytest.raises(ValueError, match="ends in a NUL"):
        nb.tl.nb_screen(adata, **CALL)
