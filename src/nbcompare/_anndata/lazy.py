"""Cells in memory, or in a file whose matrices stay there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from anndata import AnnData, read_h5ad
from anndata.io import read_elem, sparse_dataset

from nbcompare._messages import listed


@contextmanager
def opened(cells: AnnData | str | PathLike) -> Iterator[AnnData]:
    """The AnnData itself, or that of an h5ad file or zarr store: obs and var in memory, counts read when they are needed."""
    if isinstance(cells, AnnData):
        yield cells
        return
    if not isinstance(cells, str | PathLike):
        msg = f"adata is a {type(cells).__name__}, but must be an AnnData or the path of an h5ad file or a zarr store."
        raise TypeError(msg)
    path = Path(fspath(cells))
    if not path.exists():
        msg = f"There is no {str(path)!r}. adata must be an AnnData or the path of an h5ad file or a zarr store."
        raise FileNotFoundError(msg)
    if path.is_dir():
        import zarr

        yield _lazily(zarr.open_group(path, mode="r"), path)
    else:
        import h5py

        if not h5py.is_hdf5(path):
            msg = f"{str(path)!r} is neither an h5ad file nor a zarr store."
            raise ValueError(msg)
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("obs"), h5py.Dataset):
                yield _lazily(file, path)
                return
        yield _of_old_file(path)


def _of_old_file(path: Path) -> AnnData:
    """A file of anndata before 0.7, whose tables are arrays, by anndata's own reader; the counts stay on disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_h5ad(path, backed="r")


def _lazily(store: Any, path: Path) -> AnnData:
    if "mod" in store:
        msg = (
            f"{str(path)!r} holds a MuData of the modalities {listed(list(store['mod']))}. Write one of them to a file of its own first: "
            "mudata.read_h5mu(path)['rna'].write_h5ad(other_path)."
        )
        raise ValueError(msg)
    if "obs" not in store or "var" not in store:
        msg = f"{str(path)!r} holds no AnnData: it has no obs and var."
        raise ValueError(msg)
    layers = {name: _on_disk(store["layers"][name]) for name in store["layers"]} if "layers" in store else {}
    counts = _on_disk(store["X"]) if "X" in store else None
    adata = AnnData(counts, obs=read_elem(store["obs"]), var=read_elem(store["var"]), layers=layers)
    if "raw" in store and "X" in store["raw"]:
        adata.raw = AnnData(_on_disk(store["raw"]["X"]), obs=adata.obs[[]], var=read_elem(store["raw"]["var"]))
    return adata


def _on_disk(element: Any) -> Any:
    """A stored matrix, sparse ones by anndata's reader; None where an empty X is stored as such."""
    if element.attrs.get("encoding-type") == "null":
        return None
    return sparse_dataset(element) if hasattr(element, "keys") else element
