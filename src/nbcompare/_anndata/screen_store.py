"""A screen's result on disk: an AnnData zarr store that is filled block by block and survives being killed at any moment.

Beside the arrays, `.nb_screen` in the store keeps what is needed to go on: `runs.json`, the calls that filled it and their
fingerprints; `model.npz`; a file for each run with its samples; and a file for each block with its summary, which is
written after the block's arrays and says that these are complete. Each of them appears under its name at once or not at all.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any, TextIO
from uuid import uuid4

import numpy as np
import pandas as pd
from anndata import AnnData, settings
from anndata.experimental import read_lazy
from anndata.io import write_elem

from .screen_layers import ScreenResult

VALUES_A_CHUNK = 2**20
BOOKS = ".nb_screen"


class ScreenStore(ScreenResult):
    """The store at a path; nothing is created before `begin`."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.books = self.path / BOOKS
        self.runs = self._noted_runs()
        self.layers = {}
        self.of_thread = local()

    @property
    def taken(self) -> bool:
        """Whether something else lies at the path."""
        return not self.runs and (
            self.path.is_file() or (self.path.is_dir() and set(os.listdir(self.path)) - {BOOKS} != set())
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from filling the store; the system lets go when this one ends, however it ends."""
        self.books.mkdir(parents=True, exist_ok=True)
        with (self.books / "lock").open("w") as file:
            if not _lock(file) or self._noted_runs() != self.runs:
                msg = (
                    f"Another process is filling the screen at {str(self.path)!r}, or has done so since this call began. "
                    "Wait until it has ended and repeat the call, or choose another path."
                )
                raise BlockingIOError(msg)
            yield

    def keep(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays beside the results."""
        _save(self.books / f"{name}.npz", arrays)

    def kept(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept under this name."""
        file = self.books / f"{name}.npz"
        return _load(file) if file.is_file() else None

    def open_layers(self, n_genes: int, types: Mapping[str, np.dtype]) -> None:
        """Open the arrays for writing, as large as the last run makes them; what a killed process left half done goes."""
        import zarr

        for left in [*self.path.rglob("*.partial"), *self.books.rglob("*.tmp")]:
            left.unlink()
        known = {".zgroup": 2, "zarr.json": 3}
        stored = [number for name, number in known.items() if (self.path / name).is_file()]
        zarr_format: Any = stored[0] if stored else settings.zarr_write_format
        root = zarr.open_group(self.path, mode="a", zarr_format=zarr_format, use_consolidated=False)
        group: Any = root.require_group("layers")
        n_parts = -(-self.block_rows * n_genes // VALUES_A_CHUNK)
        for name, kind in types.items():
            if name not in group:
                group.create_array(
                    name,
                    shape=(self.n_rows, n_genes),
                    chunks=(self.block_rows, -(-n_genes // n_parts)),
                    dtype=kind,
                    fill_value=np.nan if kind.kind == "f" else 0,
                    compressors=_compressor(zarr_format, kind.itemsize),
                    attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
                )
            if group[name].shape[0] != self.n_rows:
                group[name].resize((self.n_rows, n_genes))
        self.layers = {name: group[name] for name in types}

    def attach(self) -> None:
        """Open the arrays that another process has made, for writing too."""
        import zarr

        group: Any = zarr.open_group(self.path / "layers", mode="r+", use_consolidated=False)
        self.layers = dict(group.arrays())

    def arrays(self, rows: slice, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Memory that the thread uses again and again: to get new memory takes as long as to fill it."""
        kept = vars(self.of_thread).setdefault("arrays", {})
        for name in names:
            if name not in kept:
                kept[name] = np.empty((self.block_rows, self.layers[name].shape[1]), self.layers[name].dtype)
        return {name: kept[name][: rows.stop - rows.start] for name in names}

    def write_block(self, rows: slice, layers: Mapping[str, np.ndarray], summary: Mapping[str, np.ndarray]) -> None:
        """Write the layers of these rows, then their summary, which says that the block is done."""
        for name, values in layers.items():
            self.layers[name][rows] = values
        _save(self._block_file(rows), summary)

    def summaries(self) -> list[dict[str, np.ndarray]]:
        """Those of all blocks, in the order of their rows."""
        return [_load(file) for file in sorted((self.books / "blocks").glob("*.npz"))]

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> AnnData:
        """Write what makes the store an AnnData, note that the run is finished, and open the result lazily."""
        import zarr

        with _quiet():
            root = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            root["layers"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
            for name, value in {"obs": obs, "var": var, "uns": dict(uns)}.items():
                write_elem(root, name, value)
            for name in ("obsm", "varm", "obsp", "varp"):
                write_elem(root, name, {})
            root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            zarr.consolidate_metadata(self.path)
        self.runs[-1]["finished"] = True
        self._note_runs()
        return self.read()

    def read(self) -> AnnData:
        """The result, lazily."""
        with _quiet():
            return read_lazy(self.path)

    def _block_file(self, rows: slice) -> Path:
        return self.books / "blocks" / f"{rows.start:09d}.npz"

    def _is_done(self, rows: slice) -> bool:
        return self._block_file(rows).is_file()

    def _noted_runs(self) -> list[dict[str, Any]]:
        file = self.books / "runs.json"
        return json.loads(file.read_text()) if file.is_file() else []

    def _note_runs(self) -> None:
        (self.books / "blocks").mkdir(parents=True, exist_ok=True)
        _at_once(self.books / "runs.json", lambda file: file.write_text(json.dumps(self.runs, indent=1)))


def _lock(file: TextIO) -> bool:
    """Whether the file could be locked; where the system or the file system has no such locks there is none."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, numbers or text, to an npz file."""
    plain: dict[str, Any] = {
        name: values.astype(str) if values.dtype == object else values for name, values in arrays.items()
    }

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez(stream, **plain)

    _at_once(path, write)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, text as objects, as anndata writes it."""
    with np.load(path) as arrays:
        return {
            name: arrays[name].astype(object) if arrays[name].dtype.kind == "U" else arrays[name] for name in arrays
        }


def _at_once(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears under its name complete or not at all."""
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.tmp")  # two workers may write it at once
    write(unfinished)
    os.replace(unfinished, path)


def _compressor(zarr_format: int, item_size: int) -> Any:
    """Fast rather than small: noise does not compress, but what is NaN, 1 or 0 does."""
    if zarr_format == 2:
        from numcodecs import Blosc

        return Blosc(cname="lz4", clevel=1, shuffle=Blosc.SHUFFLE)
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=item_size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what zarr and anndata say of formats to come and of our own folder."""
    with warnings.catch_warnings():
        for said in ("Writing zarr v2", "zarr v3 autosharding", "Consolidated metadata is", "Object at .nb_screen"):
            warnings.filterwarnings("ignore", message=said)
        yield
