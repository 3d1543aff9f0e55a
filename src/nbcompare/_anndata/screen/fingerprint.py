"""What a stored screen was computed from, so that only the same call goes on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata.results import FORMAT

WHAT = {
    "genes": "the genes (adata.var_names)",
    "samples": "the samples, their cells or their order",
    "sample_counts": "the counts of the samples",
    "version": "the version of nbcompare",
    "format": "the format of the stored results",
}


def fingerprint(
    samples: pd.DataFrame, counts: np.ndarray, genes: pd.Index, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Hashes of the samples (n_samples rows), their counts (n_samples, n_genes) and the genes; the parameters as they are.

    The counts are hashed as float64, whatever their type.
    """
    return {
        "genes": _hash(*genes.astype(str)),
        "samples": _hash(*(f"{name}\0" + "\0".join(map(str, column)) for name, column in samples.items())),
        "sample_counts": _hash(*(np.ascontiguousarray(row, np.float64).tobytes() for row in counts)),
        "version": version("nbcompare"),
        "format": FORMAT,
        "params": {name: _plain(value) for name, value in params.items()},
    }


def differences(stored: Mapping[str, Any], given: Mapping[str, Any], without: Collection[str] = ()) -> list[str]:
    """What differs, in words, among all entries and parameters but those in `without`."""
    old, new = ({**entry, **entry["params"]} for entry in (stored, given))
    names = [name for name in new if name != "params" and name not in without]
    return [
        WHAT[name]
        if name in WHAT and name not in ("version", "format")
        else f"{WHAT.get(name, name)} ({old.get(name)!r} there, {new[name]!r} here)"
        for name in names
        if old.get(name) != new[name]
    ]


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple | np.ndarray) else value


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
