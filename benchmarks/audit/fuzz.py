"""Odd data and odd arguments for every public function: what may be refused must be refused by nbcompare itself.

    python benchmarks/audit/fuzz.py --seconds 3600 --seed 0

Each case has a seed of its own and is one call. It fails if an error was not raised by a `raise` in nbcompare, if a
call that ended in an error has changed the AnnData, or if a result cannot be written to h5ad. The script prints each
failing case with its seed; `--case SEED` repeats one case. `tests/test_fuzz.py` runs a few of the cases.
"""

from __future__ import annotations

import argparse
import inspect
import linecache
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import nbcompare as nb

REFUSALS = (TypeError, ValueError, KeyError, ImportError, OSError)
HOME = str(Path(nb.__file__).parent)

# Arguments that would start long work or threads, and arguments of matplotlib.
LEFT_ALONE = {
    "adata",
    "screen",
    "axes",
    "ax",
    "n_jobs",
    "device",
    "network",
    "path",
    "append",
    "importance_sampling",
    "progress",
}

ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, float("nan"), float("inf"), "", "zz", "cond", "rep", b"cond", (), [], ["cond"], ["zz"],
    ["a", "b"], "a", 3 + 1j, {}, {"a": 1}, np.array([1.0, 2.0]), np.array(["a"]), pd.Series(["a", "b"]), pd.NA, "no",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call."""

    seed: int
    function: str
    arguments: dict[str, Any]
    odd: frozenset[str]  # arguments that were made odd
    adata: AnnData

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"seed {self.seed}: {self.function}({arguments}), {self.adata.shape[0]} x {self.adata.shape[1]}, X {type(self.adata.X).__name__}"


def odd_cells(draw: np.random.Generator) -> AnnData:
    """Cells of three groups and three replicates, with up to three oddities."""
    n_cells, n_genes = 90, int(draw.choice([1, 2, 30]))
    counts = draw.negative_binomial(2, 0.05, (n_cells, n_genes)).astype(draw.choice(["float32", "float64", "int64"]))
    obs = pd.DataFrame(
        {
            "cond": np.repeat(["ctrl", "a", "b"], 30),
            "rep": np.tile(["r1", "r2", "r3"], 30),
            "batch": np.tile([1, 2], 45),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame({"symbol": [f"s{i}" for i in range(n_genes)]}, index=[f"g{i}" for i in range(n_genes)])
    odd = set(draw.choice(13, draw.integers(0, 4), replace=False).tolist())
    if 0 in odd:
        counts[obs["cond"] == "a"] = 0
    if 1 in odd:
        counts[:] = 0
    if 2 in odd:
        obs["cond"] = pd.Categorical(obs["cond"], categories=["a", "unused", "ctrl", "b"])
    if 3 in odd:
        obs.loc[obs.index[::7], "rep"] = None
    if 4 in odd:
        obs["rep"] = np.arange(n_cells)
    if 5 in odd:
        counts = counts.astype(float)
        counts[0, 0] = draw.choice([np.nan, np.inf, -1, 0.5])
    if 6 in odd:
        obs["cond"] = obs["cond"].map({"ctrl": 0, "a": 1, "b": 2})
    if 7 in odd:
        obs.loc[obs["cond"] == "b", "cond"] = None
    if 8 in odd:
        var.index = ["g"] * n_genes
    store = draw.choice(["dense", "csr", "csc"])
    stored = counts if store == "dense" else sparse.csr_array(counts) if store == "csr" else sparse.csc_array(counts)
    adata = AnnData(stored, obs, var)
    if 10 in odd:
        adata.layers["counts"] = adata.X.copy()
        adata.raw = adata
    if 12 in odd:
        import dask.array as da

        adata.X = da.from_array(np.asarray(counts), chunks=(40, n_genes))
    if 11 in odd:
        adata = adata[: int(draw.integers(0, 4))].copy()
    if 9 in odd:  # last, since AnnData itself cannot make a part of it
        adata.obs.columns = ["cond", "rep", "rep"]
    return adata


def usual_calls() -> dict[str, tuple[Callable, dict[str, Any], str]]:
    """Every public function with arguments that work on sound cells, and what it needs: cells, results or a screen."""
    cells = {"groupby": "cond", "reference": "ctrl", "replicate_key": "rep", "min_cells": 1}
    calls: dict[str, tuple[Callable, dict[str, Any], str]] = {
        "tl.nb_compare": (nb.tl.nb_compare, cells, "cells"),
        "tl.nb_screen": (nb.tl.nb_screen, cells | {"progress": False}, "cells"),
        "pp.pseudobulk": (nb.pp.pseudobulk, {"groupby": "cond", "replicate_key": "rep", "min_cells": 1}, "cells"),
        "pp.size_factors": (nb.pp.size_factors, {}, "cells"),
        "get.nb_compare_df": (nb.get.nb_compare_df, {}, "results"),
        "get.nb_gene_df": (nb.get.nb_gene_df, {"gene": "g0"}, "results"),
        "get.to_rank_genes_groups": (nb.get.to_rank_genes_groups, {}, "results"),
        "get.nb_screen_df": (nb.get.nb_screen_df, {"perturbation": "a"}, "screen"),
        "get.summary": (nb.get.summary, {}, "results"),
        "pl.agreement": (nb.pl.agreement, {"keys": ["nb_compare", "nb_compare"], "group": "a"}, "results"),
        "pl.forest": (nb.pl.forest, {"name": "g0"}, "results"),
        "pl.knockdown": (nb.pl.knockdown, {}, "screen"),
        "pl.perturbation_strength": (nb.pl.perturbation_strength, {}, "screen"),
        "pl.screen_map": (nb.pl.screen_map, {"perturbations": ["a"], "genes": ["g0"]}, "screen"),
    }
    figures = {"volcano": {"group": "a"}, "ma": {"group": "a"}, "dispersion": {}, "pvalues": {"group": "a"}}
    for name, arguments in figures.items():
        calls[f"pl.{name}"] = (getattr(nb.pl, name), arguments, "results")
    calls["pl.gene"] = (
        nb.pl.gene,
        {"gene" if "gene" in inspect.signature(nb.pl.gene).parameters else "name": "g0"},
        "results",
    )
    return calls


def make_case(seed: int, figures: bool = True) -> tuple[Case, Callable]:
    """The case of a seed: two in three calls have one or two odd arguments, and one in two has odd cells."""
    draw = np.random.default_rng(seed)
    calls = {name: call for name, call in usual_calls().items() if figures or not name.startswith("pl.")}
    name = str(draw.choice(sorted(calls)))
    function, usual, needs = calls[name]
    arguments = dict(usual)
    names = [n for n in inspect.signature(function).parameters if n not in LEFT_ALONE]
    odd = {str(name) for name in draw.choice(names, int(draw.integers(0, 3)))}
    for argument in sorted(odd):
        arguments[argument] = ODD_VALUES[int(draw.integers(len(ODD_VALUES)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = odd_cells(draw) if needs == "cells" and draw.random() < 0.5 else sound_cells(needs)
    return Case(seed, name, arguments, frozenset(odd), adata), function


_SOUND: dict[str, AnnData] = {}


def sound_cells(needs: str) -> AnnData:
    """Cells without oddities, with stored results or as a screen where a function reads these."""
    if not _SOUND:
        draw = np.random.default_rng(1)
        cond, rep = np.repeat(["ctrl", "a", "b"], 30), np.tile(["r1", "r2", "r3"], 30)
        obs = pd.DataFrame({"cond": cond, "rep": rep}, index=[f"cell{i}" for i in range(90)])
        var = pd.DataFrame({"symbol": [f"s{i}" for i in range(30)]}, index=[f"g{i}" for i in range(30)])
        cells = AnnData(sparse.csr_array(draw.negative_binomial(2, 0.05, (90, 30)).astype(np.float32)), obs, var)
        call = {"reference": "ctrl", "replicate_key": "rep", "min_cells": 1}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _SOUND.update(
                cells=cells, screen=nb.tl.nb_screen(cells, "cond", progress=False, **call), results=cells.copy()
            )
            nb.tl.nb_compare(_SOUND["results"], "cond", **call)
    return _SOUND[needs].copy()


def failure_of(case: Case, function: Callable) -> str | None:
    """Why a case fails; None if it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = snapshot(case.adata)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = function(case.adata, **case.arguments)
    except Exception as error:  # noqa: BLE001
        if (changed := difference(before, case.adata)) is not None:
            return f"refused ({type(error).__name__}), but {changed} has changed"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = frame.filename.startswith(HOME) and linecache.getline(
            frame.filename, frame.lineno or 0
        ).lstrip().startswith("raise")
        missing = isinstance(error, TypeError) and frame.filename == __file__  # Python's own words on the signature
        if missing or (ours and isinstance(error, REFUSALS)):
            return None
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:150]}"
    finally:
        close_figures()
    return unwritable(result if isinstance(result, AnnData) else case.adata, before)


def unwritable(adata: AnnData, before: AnnData) -> str | None:
    """Why a result cannot be written; None if it can, or if the cells could not be written before the call."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            before.write_h5ad(Path(folder) / "before.h5ad")
        except Exception:  # noqa: BLE001
            return None
        try:
            adata.write_h5ad(Path(folder) / "after.h5ad")
        except Exception as error:  # noqa: BLE001
            return f"the result cannot be written: {type(error).__name__}: {str(error)[:150]}"
    return None


def snapshot(adata: AnnData) -> AnnData:
    """A deep copy, also where a column of `.obs` is there twice, which AnnData's own copy refuses."""
    columns, numbers = adata.obs.columns, [str(k) for k in range(adata.obs.shape[1])]
    adata.obs.columns = numbers
    copied = adata.copy()
    adata.obs.columns = copied.obs.columns = columns
    return copied


def difference(before: AnnData, after: AnnData) -> str | None:
    """The first part of an AnnData that is not as it was."""
    for name in ("obs", "var"):
        if not getattr(before, name).equals(getattr(after, name)):
            return f".{name}"
    for name in ("layers", "varm", "obsm", "uns"):
        if list(getattr(before, name)) != list(getattr(after, name)):
            return f".{name}"
    for name in before.layers:
        if not _same(before.layers[name], after.layers[name]):
            return f".layers[{name!r}]"
    for name in before.varm:
        if not _same(before.varm[name], after.varm[name]):
            return f".varm[{name!r}]"
    if repr(before.uns) != repr(after.uns):
        return ".uns"
    return None if _same(before.X, after.X) else ".X"


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    dense = (one.toarray(), other.toarray()) if sparse.issparse(one) else (np.asarray(one), np.asarray(other))
    return dense[0].dtype == dense[1].dtype and dense[0].tobytes() == dense[1].tobytes()


def close_figures() -> None:
    from matplotlib import pyplot as plt

    plt.close("all")


def failures(seeds: Iterator[int] | range, seconds: float) -> Iterator[tuple[Case, str]]:
    """The failing cases among these seeds, until the time is over."""
    end = time.monotonic() + seconds
    for seed in seeds:
        if time.monotonic() > end:
            return
        case, function = make_case(seed)
        if (why := failure_of(case, function)) is not None:
            yield case, why


def main() -> None:
    import itertools

    import matplotlib as mpl

    mpl.use("Agg")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600, help="how long to run")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--case", type=int, help="repeat the case of this seed only")
    requested = parser.parse_args()
    seeds = itertools.count(requested.seed) if requested.case is None else range(requested.case, requested.case + 1)
    found = 0
    for case, why in failures(seeds, requested.seconds):
        found += 1
        print(f"{case}\n    {why}", flush=True)
    print(f"{found} cases failed")
    raise SystemExit(found > 0)


if __name__ == "__main__":
    main()
