"""The tables of a stored screen, made beside those of the finished screen and exchanged with them at the end.

A reader beside a running call, or after one that was killed, finds the tables and the consolidated metadata of the last call that
finished. Only renaming a few folders and one file separates the old state from the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from anndata.io import write_elem

from nbcompare._anndata.screen.files import quiet

EMPTY = ("obsm", "varm", "obsp", "varp")
METADATA = (".zgroup", ".zarray", ".zattrs", "zarr.json")  # files of zarr that hold no numbers
ROOT = (".zgroup", ".zattrs", ".zmetadata", "zarr.json")
ANNDATA: dict[str, Any] = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
LAYERS: dict[str, Any] = {"encoding-type": "dict", "encoding-version": "0.1.0"}


def check_table(table: pd.DataFrame, name: str) -> None:
    """Refuse a table that zarr cannot hold, before any work."""
    import zarr

    try:
        with quiet():
            write_elem(
                zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=2), name, with_plain_text(table)
            )
    except Exception as error:  # whatever anndata and zarr raise for names and types they do not know
        last = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = (
            f"adata.{name} cannot be written to a zarr store ({last}). Column names must be text, different from each other and without a slash, and "
            f"values numbers, text or categories. Rename or remove the column: columns are {', '.join(map(repr, table.columns[:10]))}."
        )
        raise ValueError(msg) from error


def with_plain_text(table: pd.DataFrame) -> pd.DataFrame:
    """The same with text as Python objects, which every version of anndata writes."""
    columns = {
        name: table[name].astype(object) for name in table.columns if isinstance(table[name].dtype, pd.StringDtype)
    }
    plain = table.assign(**columns) if columns else table.copy(deep=False)
    if isinstance(plain.index.dtype, pd.StringDtype):
        plain.index = pd.Index(plain.index.to_numpy(dtype=object), dtype=object, name=plain.index.name)
    return plain


def exchange_tables(
    store: Path, bookkeeping: Path, tables: Mapping[str, Any], made: Mapping[str, Path], zarr_format: Any
) -> None:
    """Put new tables, and layers that were `made` elsewhere (name -> folder), in the place of those of the store, all together."""
    import zarr

    new, old, shadow = bookkeeping / "new", bookkeeping / "old", bookkeeping / "metadata"
    for folder in (new, old, shadow):
        shutil.rmtree(folder, ignore_errors=True)
    with quiet():
        root = zarr.open_group(new, mode="w", zarr_format=zarr_format)
        for name, value in tables.items():
            write_elem(root, name, with_plain_text(value) if isinstance(value, pd.DataFrame) else dict(value))
        for name in EMPTY:
            write_elem(root, name, {})
        layers = zarr.open_group(store / "layers", mode="r+", use_consolidated=False)
        layers.attrs.update(LAYERS)
        zarr.open_group(shadow, mode="w", zarr_format=zarr_format, attributes=ANNDATA)
        _copy_metadata(store / "layers", shadow / "layers")
        for name, folder in made.items():
            shutil.rmtree(shadow / "layers" / name, ignore_errors=True)
            _copy_metadata(folder, shadow / "layers" / name)
        for name in (*tables, *EMPTY):
            _copy_metadata(new / name, shadow / name)
        zarr.consolidate_metadata(shadow)
    (old / "layers").mkdir(parents=True)
    moves = [(new / name, store / name, old / name) for name in (*tables, *EMPTY)]
    moves += [(folder, store / "layers" / name, old / "layers" / name) for name, folder in made.items()]
    for source, place, before in moves:
        if place.exists():
            os.replace(place, before)
        os.replace(source, place)
    for name in ROOT:
        if (shadow / name).is_file():
            os.replace(shadow / name, store / name)
    for folder in (new, old, shadow):
        shutil.rmtree(folder, ignore_errors=True)


def _copy_metadata(source: Path, target: Path) -> None:
    """The files of a group or array that say what is in it."""
    for folder, folders, files in os.walk(source):
        there = target / os.path.relpath(folder, source)
        there.mkdir(parents=True, exist_ok=True)
        for name in files:
            if name in METADATA:
                shutil.copyfile(Path(folder) / name, there / name)
        if ".zarray" in files:  # its folders hold chunks
            folders.clear()
