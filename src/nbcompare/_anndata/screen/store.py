"""A screen's result on disk: an AnnData zarr store that is filled block by block and survives being killed at any moment.

Beside the arrays, `.nb_screen` in the store keeps what is needed to go on: `runs.json`, the calls that filled it and their
fingerprints; `model.npz`; a file for each run with its samples; and a file for each block with its summary, which is
written after the block's arrays and says that these are complete. Each of them appears under its name at once or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, settings
from anndata.experimental import read_lazy

from nbcompare._anndata.screen.files import at_once, checksum, load, lock, quiet, read_runs, save
from nbcompare._anndata.screen.result import OVER_ALL, ScreenResult
from nbcompare._anndata.screen.tables import exchange_tables
from nbcompare._nb.status import Status

VALUES_A_CHUNK = 2**20
BOOKKEEPING = ".nb_screen"
CHECKSUM = "checksum "  # and the name of a layer: entries of the summary of a block
NOT_COMPUTED = int(Status.NOT_COMPUTED)  # what a lost chunk of the status reads as


class ScreenStore(ScreenResult):
    """The store at a path; nothing is created before `begin`."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.bookkeeping = self.path / BOOKKEEPING
        self.runs = self._noted_runs()
        self.layers = {}
        self.of_thread = local()

    @property
    def is_foreign(self) -> bool:
        """Whether something else lies at the path."""
        return not self.runs and (
            self.path.is_symlink()
            and not self.path.exists()
            or self.path.is_file()
            or (self.path.is_dir() and set(os.listdir(self.path)) - {BOOKKEEPING} != set())
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from filling the store; the system lets go when this one ends, however it ends."""
        self.bookkeeping.mkdir(parents=True, exist_ok=True)
        with (self.bookkeeping / "lock").open("a") as file:
            if not lock(file) or self._noted_runs() != self.runs:
                msg = (
                    f"Another process is filling the screen at {str(self.path)!r}, or has done so since this call began. "
                    "Wait until it has ended and repeat the call, or choose another path."
                )
                raise BlockingIOError(msg)
            yield

    def keep(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays beside the results."""
        save(self.bookkeeping / f"{name}.npz", arrays)

    def kept(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept under this name."""
        file = self.bookkeeping / f"{name}.npz"
        return load(file) if file.is_file() else None

    def open_layers(self, n_genes: int, types: Mapping[str, np.dtype]) -> None:
        """Open the arrays for writing, as large as the last run makes them; what a killed process left half done goes."""
        import zarr

        for left in [*self.path.rglob("*.partial"), *self.bookkeeping.rglob("*.tmp")]:
            left.unlink()
        (self.bookkeeping / "blocks").mkdir(parents=True, exist_ok=True)
        zarr_format = self._zarr_format()
        root = zarr.open_group(self.path, mode="a", zarr_format=zarr_format, use_consolidated=False)
        group: Any = root.require_group("layers")
        n_parts = -(-self.block_rows * n_genes // VALUES_A_CHUNK)
        shutil.rmtree(self.bookkeeping / OVER_ALL, ignore_errors=True)
        beside: Any = zarr.open_group(self.bookkeeping, mode="a", zarr_format=zarr_format, use_consolidated=False)
        for name, kind in types.items():
            within = beside if name == OVER_ALL else group
            if name not in within:
                self._refuse_lost(name)
                within.create_array(
                    name,
                    shape=(self.n_rows, n_genes),
                    chunks=(self.block_rows, -(-n_genes // n_parts)),
                    dtype=kind,
                    fill_value=np.nan if kind.kind == "f" else NOT_COMPUTED if name == "status" else 0,
                    compressors=_compressor(zarr_format, kind.itemsize),
                    attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
                )
            if within[name].shape[0] != self.n_rows:
                within[name].resize((self.n_rows, n_genes))
        self.layers = {name: (beside if name == OVER_ALL else group)[name] for name in types}

    def attach(self) -> None:
        """Open the arrays that another process has made, for writing too."""
        import zarr

        group: Any = zarr.open_group(self.path / "layers", mode="r+", use_consolidated=False)
        beside: Any = zarr.open_group(self.bookkeeping, mode="r+", use_consolidated=False)
        self.layers = dict(group.arrays()) | {OVER_ALL: beside[OVER_ALL]}

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
        sums = {f"{CHECKSUM}{name}": np.array(checksum(values), np.uint32) for name, values in layers.items()}
        save(self._block_file(rows), {**summary, **sums})

    def summaries(self) -> list[dict[str, np.ndarray]]:
        """Those of all blocks, in the order of their rows."""
        loaded = [load(file) for file in sorted((self.bookkeeping / "blocks").glob("*.npz"))]
        return [{name: one[name] for name in one if not name.startswith(CHECKSUM)} for one in loaded]

    def damaged_blocks(self) -> list[tuple[str, str, str]]:
        """Layer, rows and problem of each block whose numbers are not those that were written."""
        found = []
        for rows in [rows for run in self.runs for rows in self._blocks(run["start"], run["stop"])]:
            where = f"{rows.start} to {rows.stop - 1}"
            if not self._is_done(rows):
                found.append(("", where, f"{self._block_file(rows)} is missing"))
                continue
            try:
                sums = load(self._block_file(rows))
            except ValueError as error:
                found.append(("", where, str(error)))
                continue
            for name in [name.removeprefix(CHECKSUM) for name in sums if name.startswith(CHECKSUM)]:
                try:
                    same = checksum(self.read_layer(name, rows)) == int(sums[f"{CHECKSUM}{name}"])
                except (KeyError, ValueError) as error:
                    found.append((name, where, f"cannot be read: {error}"))
                else:
                    if not same:
                        found.append((name, where, "other numbers than those that were written"))
        return found

    def open_finished(self) -> None:
        """Open the layers of a finished screen for reading."""
        import zarr

        group: Any = zarr.open_group(self.path / "layers", mode="r", use_consolidated=False)
        self.layers = dict(group.arrays())

    def _refuse_lost(self, name: str) -> None:
        """Refuse to make a layer anew whose blocks are noted as done."""
        if name != OVER_ALL and any((self.bookkeeping / "blocks").glob("*.npz")):
            msg = (
                f"The screen at {str(self.path)!r} is damaged: its layer {name!r} is missing, though perturbations are noted as done. Restore it, or "
                f"remove {str(self.bookkeeping / 'blocks')!r} and repeat the call: all perturbations are computed again."
            )
            raise ValueError(msg)

    def _zarr_format(self) -> Any:
        known = {".zgroup": 2, "zarr.json": 3}
        stored = [number for name, number in known.items() if (self.path / name).is_file()]
        return stored[0] if stored else settings.zarr_write_format

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> AnnData:
        """Exchange the tables of the last finished run for these, note that the run is finished, and open the result lazily."""
        self.runs[-1]["finishing"] = True
        self._note_runs()
        tables = {"obs": obs, "var": var, "uns": dict(uns)}
        exchange_tables(
            self.path, self.bookkeeping, tables, {OVER_ALL: self.bookkeeping / OVER_ALL}, self._zarr_format()
        )
        self.runs[-1] |= {"finished": True, "finishing": False}
        self._note_runs()
        return self.read()

    def read(self) -> AnnData:
        """The result, lazily; refuses one from which a table or a layer is missing."""
        for part in ("obs", "var", "uns", "layers/pvals", "layers/status"):
            if not (self.path / part).is_dir():
                msg = (
                    f"The screen at {str(self.path)!r} is damaged: {part!r} is missing. Restore it, or remove the whole folder and make the screen "
                    "anew. nbcompare.get.check_screen says what else is damaged."
                )
                raise ValueError(msg)
        with quiet():
            return read_lazy(self.path)

    def read_layer(self, name: str, rows: slice) -> np.ndarray:
        """Some rows of a layer; a damaged chunk is a ValueError that says what to do."""
        try:
            return np.asarray(self.layers[name][rows])
        except (RuntimeError, ValueError, OSError) as error:
            msg = (
                f"Layer {name!r} of the screen at {str(self.path)!r} is damaged in rows {rows.start} to {rows.stop - 1} ({error}). Delete "
                f"{str(self._block_file(rows))!r} and repeat the call: these perturbations are computed again."
            )
            raise ValueError(msg) from error

    def _block_file(self, rows: slice) -> Path:
        return self.bookkeeping / "blocks" / f"{rows.start:09d}.npz"

    def _is_done(self, rows: slice) -> bool:
        return self._block_file(rows).is_file()

    def _noted_runs(self) -> list[dict[str, Any]]:
        return read_runs(self.bookkeeping / "runs.json")

    def _note_runs(self) -> None:
        (self.bookkeeping / "blocks").mkdir(parents=True, exist_ok=True)
        at_once(self.bookkeeping / "runs.json", lambda file: file.write_text(json.dumps(self.runs, indent=1)))


def _compressor(zarr_format: int, item_size: int) -> Any:
    """Fast rather than small: random digits do not compress, but what is NaN, 1 or 0 does."""
    if zarr_format == 2:
        from numcodecs import Blosc

        return Blosc(cname="lz4", clevel=1, shuffle=Blosc.SHUFFLE)
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="lz4", clevel=1, shuffle="shuffle", typesize=item_size)
