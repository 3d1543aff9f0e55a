"""The arguments of a screen, and whether a store at its path may be gone on with; refused before any work is done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np

from nbcompare._anndata import ScreenStore, column_names, differences, the_level
from nbcompare._arguments import plain
from nbcompare._counts.size_factors import Method
from nbcompare._messages import SEE_COMBINATIONS
from nbcompare._optional import require
from nbcompare.tl._posterior.options import PosteriorOptions, check_network, check_prior, refuse_unused
from nbcompare.tl._samples.options import SampleOptions

EstimateMethod = Literal["mom", "transformer", "quadrature"]
METHODS = tuple(method for method in get_args(Method) if not method.startswith("tmm"))  # which knows no further samples
NOT_STORED = (  # results do not depend on them, or they are stored in another form
    "path",
    "append",
    "chunk_size",
    "n_jobs",
    "progress",
    "device",
    "samples",
    "posterior",
    "split_by",
    "allow_cells_as_replicates",
    "reference_levels",
    "size_factors",
    "prior",
    "network",
)
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


@dataclass(frozen=True)
class ScreenOptions:
    """All options of a screen."""

    samples: SampleOptions
    posterior: PosteriorOptions
    reference: str | None
    reference_levels: tuple[str, ...]  # where several names are one control
    guide_key: str | Sequence[str] | None
    size_factors: str | Sequence[float]
    min_gene_counts: float
    n_fit_perturbations: int
    fdr: float
    intervals: bool
    dtype: str
    path: str | PathLike[str] | None
    append: bool
    chunk_size: int
    perturbations_per_chunk: int | None
    n_jobs: int | None
    progress: bool

    @property
    def replicates(self) -> list[str] | None:
        """Columns whose combinations are the replicates."""
        return [*column_names(self.samples.replicate_key), *column_names(self.guide_key)] or None

    def as_stored(self) -> dict[str, Any]:
        """The arguments that the results depend on, as files can hold them."""
        records = (self.samples, self.posterior, self)
        values = {field.name: getattr(record, field.name) for record in records for field in fields(record)}
        stored = {name: plain(value) for name, value in values.items() if name not in NOT_STORED}
        factors, network = self.size_factors, self.posterior.network
        stored["size_factors"] = factors if isinstance(factors, str) else "given"
        stored["prior"] = None if self.posterior.prior is None else _as_text(self.posterior.prior)
        stored["network"] = None if network is None else fspath(network)
        stored["network_sha256"] = _sha256_of_network(self.posterior)
        if self.reference_levels:
            stored["reference_levels"] = plain(list(self.reference_levels))
        return stored


def check_options(options: ScreenOptions) -> None:
    """Refuse what cannot be, and a path where the packages that read it are missing."""
    if options.reference == "rest":
        msg = "A screen compares with one group, not with the rest: give the name of the control as reference."
        raise ValueError(msg)
    if isinstance(options.size_factors, str) and options.size_factors in ("tmm", "tmmwsp"):
        msg = (
            f"size_factors={options.size_factors!r} compares with one sample of the set. A screen takes "
            f"{', '.join(map(repr, METHODS))}."
        )
        raise ValueError(msg)
    _check_method(options)
    if options.path is not None:
        for module in ("dask", "xarray"):
            require(module, "dask")
    elif options.append:
        msg = "append=True adds perturbations to a screen on disk: give its path."
        raise ValueError(msg)


def check_store(store: ScreenStore, options: ScreenOptions) -> None:
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
    if options.append and not store.runs:
        msg = f"append=True, but there is no screen at {path!r} to add to. Run it with append=False first."
        raise FileNotFoundError(msg)
    if options.append and not store.runs[0]["finished"]:
        msg = f"The screen at {path!r} is not finished. Repeat the call that began it, then append."
        raise ValueError(msg)
    if options.append and (store.runs[0]["fingerprint"]["params"]["block_key"] is None) != (
        options.samples.block_key is None
    ):
        given = "without block_key" if options.samples.block_key is None else "with block_key"
        msg = f"This call is {given}, the screen at {path!r} is not. Perturbations that are added need the same design."
        raise ValueError(msg)
    if store.runs:
        began = store.runs[0]["fingerprint"]["params"]["reference"]
        same = replace(options, reference=the_level(options.reference, [began]))
        _refuse_other(store, {"params": same.as_stored()}, without=NEW_IN_A_RUN if options.append else ())


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


def _check_method(options: ScreenOptions) -> None:
    """Refuse what cannot be combined with the method; loads the network first, so that a missing one is found early."""
    if options.posterior.importance_sampling and options.posterior.method != "transformer":
        msg = f"importance_sampling=True requires method='transformer', but method is {options.posterior.method!r}. Leave it out. {SEE_COMBINATIONS}"
        raise ValueError(msg)
    if options.posterior.method == "mom":
        refuse_unused(options.posterior)
        return
    check_prior(options.posterior.prior)
    check_network(options.posterior)


def _as_text(prior: Mapping[str, Any]) -> dict[str, Any]:
    """A given prior as a file of text holds it: an array of all genes as its length and hash."""
    return {
        name: value if isinstance(value, str) else _of_genes(np.asarray(value, float)) for name, value in prior.items()
    }


def _of_genes(values: np.ndarray) -> float | str:
    if not values.ndim:
        return float(values)
    return f"{len(values)} numbers, sha256 {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


def _sha256_of_network(options: PosteriorOptions) -> str | None:
    """What distinguishes one network from another, None where none is used."""
    if options.method != "transformer":
        return None
    from nbcompare._transformer.weights import load_network

    return load_network(options.network).sha256


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
