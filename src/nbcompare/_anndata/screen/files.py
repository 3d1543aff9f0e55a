"""The files beside the arrays of a stored screen: complete under their names or not there, and checked when they are read."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import numpy as np

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError)


def lock(file: TextIO) -> bool:
    """Whether the file could be locked; where the system or the file system has no such locks there is none."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, numbers or text, to an npz file."""
    plain: dict[str, Any] = {
        name: values.astype(str) if values.dtype == object else values for name, values in arrays.items()
    }

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez(stream, **plain)

    at_once(path, write)


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, text as objects, as anndata writes it; a damaged file is a ValueError that names it."""
    try:
        with path.open("rb") as stream, np.load(stream) as arrays:
            return {
                name: arrays[name].astype(object) if arrays[name].dtype.kind == "U" else arrays[name] for name in arrays
            }
    except UNREADABLE as error:
        msg = f"The file {str(path)!r} is damaged ({error}). Delete it and repeat the call that made the screen: what it holds is computed again."
        raise ValueError(msg) from error


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The record of the calls that filled a screen; none where there is no file."""
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_text())
        if not isinstance(runs, list) or not all(
            {"start", "stop", "finished", "fingerprint"} <= set(run) for run in runs
        ):
            msg = "not a record of calls"
            raise ValueError(msg)
    except (ValueError, TypeError) as error:
        msg = (
            f"The file {str(path)!r} is damaged ({error}), and with it the record of the calls that filled this screen. Make the screen anew at "
            "another path, or restore the file."
        )
        raise ValueError(msg) from error
    return runs


def at_once(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears under its name complete or not at all."""
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.tmp")  # two workers may write it at once
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def checksum(values: np.ndarray) -> int:
    """A number that changes when a value of (n_rows, n_columns) changes, or rows or columns change places."""
    bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    of_columns = zlib.crc32(np.bitwise_xor.reduce(bits, axis=0).tobytes())
    return zlib.crc32(np.bitwise_xor.reduce(bits, axis=1).tobytes(), of_columns)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what zarr and anndata say of formats to come and of our own folder."""
    with warnings.catch_warnings():
        for said in ("Writing zarr v2", "zarr v3 autosharding", "Consolidated metadata is", "Object at .nb_screen"):
            warnings.filterwarnings("ignore", message=said)
        yield
