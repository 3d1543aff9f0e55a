"""The arguments of a screen, and whether a store at its path may be gone on with; refused before any work is done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from os import fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np

from nbcompare._anndata import ScreenStore, differences, the_level
from nbcompare._arguments import plain
from nbcompare._counts.size_factors import Method
from nbcompare._optional import require
from nbcompare.tl._posterior.compare import check_network, check_prior, refuse_unasked

EstimateMethod = Literal["mom", "transformer", "quadrature"]
METHODS = tuple(method for method in get_args(Method) if not method.startswith("tmm"))  # which knows no further samples
NOT_OF_THE_RESULT = ("path", "append", "chunk_size", "n_jobs", "progress", "verbose", "device")
NEW_IN_A_RUN = (
    "samples",
    "sample_counts",
    "groupby",
    "layer",
    "min_cells",
    "min_counts",
    "n_fit_perturbations",
    "perturbations_per_chunk",
)  # what an append may change
FILES = (".h5ad", ".h5", ".hdf5", ".h5mu")  # names of files, which a store is not


def check_options(params: Mapping[str, Any]) -> None:
    """Refuse what cannot be, and a path where the packages that read it are missing."""
    if params["reference"] == "rest":
        msg = "A screen compares with one group, not with the rest: give the name of the control as reference."
        raise ValueError(msg)
    if isinstance(params["size_factors"], str) and params["size_factors"] in ("tmm", "tmmwsp"):
        msg = (
            f"size_factors={params['size_factors']!r} compares with one sample of the set. A screen takes "
            f"{', '.join(map(repr, METHODS))}."
        )
        raise ValueError(msg)
    _check_method(params)
    if params["path"] is not None:
        for module in ("dask", "xarray"):
            require(module, "dask")
    elif params["append"]:
        msg = "append=True adds perturbations to a screen on disk: give its path."
        raise ValueError(msg)


def as_stored_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the results depend on, as files can hold them."""
    factors, by_themselves = params["size_factors"], ("size_factors", "prior", "network", *NOT_OF_THE_RESULT)
    of_result = {name: plain(value) for name, value in params.items() if name not in by_themselves}
    return of_result | {
        "size_factors": factors if isinstance(factors, str) else "given",
        "prior": None if params["prior"] is None else _as_text(params["prior"]),
        "network": None if params["network"] is None else fspath(params["network"]),
        "network_sha256": _sha256_of_network(params),
    }


def check_store(store: ScreenStore, params: Mapping[str, Any]) -> None:
    """Refuse a path that holds something else, and arguments that differ from those of what it holds."""
    path = str(store.path)
    if store.path.suffix.lower() in FILES:
        msg = f"path is {path!r}, but a screen is a zarr store, a folder. Give it a name such as {str(store.path.with_suffix('.zarr'))!r}."
        raise ValueError(msg)
    if not store.path.parent.is_dir():
        msg = f"path is {path!r}, but there is no folder {str(store.path.parent)!r}."
        raise FileNotFoundError(msg)
    if store.is_foreign:
        msg = f"path is {path!r}, where something else lies already. Choose another path, or remove what is there."
        raise FileExistsError(msg)
    _check_rights(store.path)
    if params["append"] and not store.runs:
        msg = f"append=True, but there is no screen at {path!r} to add to. Run it with append=False first."
        raise FileNotFoundError(msg)
    if params["append"] and not store.runs[0]["finished"]:
        msg = f"The screen at {path!r} is not finished. Repeat the call that began it, then append."
        raise ValueError(msg)
    if params["append"] and (store.runs[0]["fingerprint"]["params"]["block_key"] is None) != (
        params["block_key"] is None
    ):
        given = "without block_key" if params["block_key"] is None else "with block_key"
        msg = f"This call is {given}, the screen at {path!r} is not. Perturbations that are added need the same design."
        raise ValueError(msg)
    if store.runs:
        began = store.runs[0]["fingerprint"]["params"]["reference"]
        same = {**params, "reference": the_level(params["reference"], [began])}
        _refuse_other(store, {"params": as_stored_params(same)}, without=NEW_IN_A_RUN if params["append"] else ())


def _check_rights(path: Path) -> None:
    """Refuse a place where nothing can be written, by writing."""
    folder = path if path.is_dir() else path.parent
    try:
        with TemporaryDirectory(prefix=".nb_screen_", dir=folder):
            pass
    except OSError as error:
        msg = f"path is {str(path)!r}, but nothing can be written in {str(folder)!r} ({error.strerror}). Choose another path."
        raise PermissionError(msg) from error


def check_run(store: ScreenStore, requested: Mapping[str, Any], *, append: bool) -> None:
    """Refuse to go on with what another call began, and to add what was counted or compared otherwise."""
    if append:
        _refuse_other(store, requested, without=NEW_IN_A_RUN)
    if store.runs and not (append and store.is_complete):
        _refuse_other(store, requested, run=-1 if append else 0)


def _check_method(params: Mapping[str, Any]) -> None:
    """Refuse what cannot be combined with the method; loads the network first, so that a missing one is found early."""
    if params["importance_sampling"] and params["method"] != "transformer":
        msg = f"importance_sampling=True corrects the network of method='transformer', but method is {params['method']!r}. Leave it out."
        raise ValueError(msg)
    if params["method"] == "mom":
        refuse_unasked(params)
        return
    check_prior(params["prior"])
    check_network(params)


def _as_text(prior: Mapping[str, Any]) -> dict[str, Any]:
    """A given prior as a file of text holds it: an array of all genes as its length and hash."""
    return {
        name: value if isinstance(value, str) else _of_genes(np.asarray(value, float)) for name, value in prior.items()
    }


def _of_genes(values: np.ndarray) -> float | str:
    if not values.ndim:
        return float(values)
    return f"{len(values)} numbers, sha256 {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


def _sha256_of_network(params: Mapping[str, Any]) -> str | None:
    """What distinguishes one network from another, None where none is used."""
    if params["method"] != "transformer":
        return None
    from nbcompare._transformer.weights import load_network

    return load_network(params["network"]).sha256


def _refuse_other(
    store: ScreenStore, requested: Mapping[str, Any], *, run: int = 0, without: Sequence[str] = ()
) -> None:
    """Refuse a call whose fingerprint differs from a run's, apart from the entries and parameters in `without`."""
    differing = differences(store.runs[run]["fingerprint"], requested, without)
    if differing:
        msg = (
            f"The screen at {str(store.path)!r} was made from other input: {'; '.join(differing)}. "
            "Repeat the call as it was, choose another path, or remove what is there."
        )
        raise ValueError(msg)


def threads_of(n_jobs: int | None) -> int:
    """Threads to use."""
    import numba

    return n_jobs or int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
