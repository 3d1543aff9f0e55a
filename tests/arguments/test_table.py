"""Every argument of every public function: its rule, the types that it takes, and what is refused in words."""

from __future__ import annotations

import inspect
import math
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import nbcompare as nb
from nbcompare._arguments.table import EXCEPTIONS, KINDS, kind_of

FOLDER = str(Path(nb.__file__).parent)
PARTS = {"tl": nb.tl, "pp": nb.pp, "get": nb.get, "pl": nb.pl, "datasets": nb.datasets}
FUNCTIONS = {
    f"{part}.{name}": getattr(module, name)
    for part, module in PARTS.items()
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
ARGUMENTS = [(function, name) for function, call in FUNCTIONS.items() for name in inspect.signature(call).parameters]

BAD: dict[str, Any] = {  # values that most arguments refuse, each a mistake that people make
    "nan": math.nan,
    "inf": math.inf,
    "negative": -1,
    "no": "no",
    "10": "10",
    "empty text": "",
    "None": None,
    "list": [10],
    "complex": 1j,
    "object": object(),
    "bytes": b"x",
    "dict": {},
    "half": 0.5,
    "array": np.arange(3),
    "frame": pd.DataFrame({"a": [1]}),
    "function": len,
}
OURS = (TypeError, ValueError, KeyError, FileNotFoundError, FileExistsError, ImportError)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    adata = nb.datasets.simulate(n_genes=30, n_conditions=3, n_replicates=3, n_cells=12, rng=2)
    adata.layers["counts"] = adata.X.copy()
    adata.var["symbol"] = [f"s{k}" for k in range(adata.n_vars)]
    return adata


@pytest.fixture(scope="module")
def compared(cells) -> ad.AnnData:
    adata = cells.copy()
    for key, options in {"nb_compare": {}, "shrunken": {"shrink": True}, "posterior": {"method": "quadrature"}}.items():
        nb.tl.nb_compare(
            adata, "condition", reference="ctrl", replicate_key="replicate", min_cells=1, key_added=key, **options
        )
    return adata


@pytest.fixture(scope="module")
def screen(cells) -> ad.AnnData:
    return nb.tl.nb_screen(cells, "condition", reference="ctrl", replicate_key="replicate", progress=False, min_cells=1)


@pytest.fixture(scope="module")
def stored_screen(cells, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "screen.zarr"
    call = {"reference": "ctrl", "replicate_key": "replicate", "progress": False, "min_cells": 1, "path": path}
    nb.tl.nb_screen(cells, "condition", **call)
    return path


@pytest.fixture(scope="module")
def pdata(cells) -> ad.AnnData:
    return nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=1)


@pytest.fixture(scope="module")
def with_factors() -> ad.AnnData:
    """Samples of enough replicates for hidden factors, compared with one of them."""
    adata = nb.datasets.simulate(n_genes=100, n_replicates=4, n_cells=12, rng=2)
    samples = nb.pp.pseudobulk(adata, "condition", replicate_key="replicate", min_cells=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few genes
        nb.tl.nb_compare(samples, "condition", reference="ctrl", min_cells=1, hidden_factors=1)
    return samples


@pytest.fixture(scope="module")
def good(cells, compared, screen, pdata, stored_screen, with_factors) -> dict[str, dict[str, Any]]:
    """A call of each function that works."""
    compare = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", "min_cells": 1}
    gene = compared.var_names[0]
    return {
        "tl.nb_compare": {"adata": cells, **compare},
        "tl.nb_screen": {"adata": cells, **compare, "progress": False},
        "pp.pseudobulk": {"adata": cells, "groupby": "condition", "replicate_key": "replicate", "min_cells": 1},
        "pp.size_factors": {"pdata": pdata},
        "pp.hidden_factors": {"pdata": with_factors, "groupby": "condition"},
        "get.nb_compare_df": {"adata": compared, "group": "treated_1"},
        "get.nb_gene_df": {"adata": compared, "gene": gene},
        "get.nb_screen_df": {"screen": screen, "perturbation": "treated_1"},
        "get.check_screen": {"path": str(stored_screen)},
        "get.summary": {"adata": compared},
        "get.to_rank_genes_groups": {"adata": compared},
        "pl.agreement": {"adata": compared, "keys": ["nb_compare", "shrunken"], "group": "treated_1"},
        "pl.forest": {"adata": compared, "gene": gene},
        "pl.gene": {"adata": compared, "gene": gene},
        "pl.posterior": {"adata": compared, "gene": gene, "group": "treated_1", "key": "posterior"},
        "pl.hidden_factors": {"adata": with_factors},
        "pl.knockdown": {"screen": screen},
        "pl.perturbation_strength": {"screen": screen},
        "pl.screen_map": {"screen": screen, "perturbations": ["treated_1"], "genes": [gene]},
        "datasets.simulate": {"n_genes": 5, "n_cells": 3},
        "datasets.papalexi2021": {},
        **{f"pl.{name}": {"adata": compared, "group": "treated_1"} for name in ("dispersion", "ma", "pvalues", "volcano")},
    }  # fmt: skip


def snapshot(adata: ad.AnnData) -> dict[str, Any]:
    """The names of everything in an AnnData, and a sum of its numbers."""
    frames = {"obs": adata.obs.copy(), "var": adata.var.copy()}
    arrays = {f"varm/{name}": np.array(adata.varm[name]) for name in adata.varm}
    return frames | arrays | {"uns": repr(sorted(adata.uns)), "x": None if adata.X is None else adata.X.sum()}


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    if list(before) != list(after):
        return False
    return all(
        value.equals(after[name])
        if isinstance(value, pd.DataFrame)
        else np.array_equal(value, after[name], equal_nan=isinstance(value, np.ndarray) and value.dtype.kind == "f")
        for name, value in before.items()
    )


def run(call: Callable, arguments: dict[str, Any]) -> Exception | None:
    """The error of a call, None if it returns."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(**arguments)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def raised_here(error: Exception) -> bool:
    """Whether the error was raised by a `raise` of this package, and not inside another one."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(FOLDER) and (last.line or "").lstrip().startswith("raise")


def test_every_argument_has_a_rule():
    assert {name for _, name in ARGUMENTS} == set(KINDS)
    assert set(EXCEPTIONS) <= {f"{function}.{name}" for function, name in ARGUMENTS}
    assert all(callable(kind_of(function, name)) for function, name in ARGUMENTS)
    assert len(ARGUMENTS) * len(BAD) >= 300


def test_every_function_is_checked():
    for function, call in FUNCTIONS.items():
        assert hasattr(call, "__wrapped__"), function


@pytest.mark.parametrize(("function", "argument"), ARGUMENTS, ids=[".".join(one) for one in ARGUMENTS])
def test_odd_values(function, argument, good, tmp_path):
    """An odd value is taken and gives a result that can be written, or is refused in words that name the argument."""
    call, arguments = FUNCTIONS[function], good[function]
    for kind, value in BAD.items():
        given = {**arguments, argument: value}
        if argument == "path" and isinstance(value, str):
            continue
        data = next((one for one in given.values() if isinstance(one, ad.AnnData)), None)
        writes = function in ("tl.nb_compare", "pp.size_factors", "pp.hidden_factors", "get.to_rank_genes_groups")
        if data is not None and writes:
            copied = data.copy()
            given = {name: copied if one is data else one for name, one in given.items()}
            data = copied
        before = None if data is None else snapshot(data)
        error = run(call, given)
        plt.close("all")
        if error is not None:
            text = f"{argument}={kind}: {type(error).__name__}: {error}"
            assert isinstance(error, OURS), text
            assert raised_here(error), text + "".join(traceback.format_tb(error.__traceback__)[-2:])
            assert data is None or same(before, snapshot(data)), f"{argument}={kind} changed the AnnData"
        elif writes:
            data[:2, :2].copy().write_h5ad(tmp_path / "a.h5ad")


@pytest.mark.parametrize(("function", "argument"), ARGUMENTS, ids=[".".join(one) for one in ARGUMENTS])
def test_a_wrong_type_names_the_argument(function, argument, good):
    """An object that means nothing is a TypeError or ValueError that begins with, or holds, the name of the argument."""
    error = run(FUNCTIONS[function], {**good[function], argument: object()})
    assert isinstance(error, TypeError | ValueError)
    assert argument in str(error)


def test_names_that_are_no_argument():
    with pytest.raises(TypeError, match="nb_compare has no argument 'min_cell'. Did you mean 'min_cells'?"):
        nb.tl.nb_compare(None, "condition", min_cell=3)
    with pytest.raises(TypeError, match="nb_compare: missing a required argument: 'groupby'. Its arguments are adata"):
        nb.tl.nb_compare(None)


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("allow_cells_as_replicates", "no", "allow_cells_as_replicates is 'no', but must be True or False."),
        ("shrink", 1, "shrink is 1, but must be True or False."),
        ("min_cells", "10", "min_cells is '10', but must be a whole number of cells, 0 or more."),
        ("min_gene_counts", math.nan, "min_gene_counts is nan, but must be a finite number of counts, 0 or more."),
        ("min_gene_counts", math.inf, "min_gene_counts is inf, but must be a finite number of counts, 0 or more."),
        ("lfc_threshold", 100, "lfc_threshold is 100, but must be a log2 fold change from 0 to 30"),
        ("key_added", ["k"], "key_added is ['k'], but must be text"),
        ("key_added", ".", "key_added is '.'"),
        ("key_added", "a\0b", "key_added is"),
        ("method", "mlle", "Did you mean 'mle'?"),
        ("adata", "cells.h5ad", "Read it first: adata = anndata.read_h5ad"),
        ("adata", pd.DataFrame(), "Wrap a table of counts first"),
        ("groupby", 3, "groupby is 3, but must be the name of a column of .obs"),
    ],
)
def test_words(argument, value, words, cells):
    call = {"adata": cells.copy(), "groupby": "condition", "reference": "ctrl", "replicate_key": "replicate"}
    with pytest.raises((TypeError, ValueError)) as caught:
        nb.tl.nb_compare(**{**call, argument: value})
    assert words in str(caught.value)


def test_the_same_limits_in_a_screen(cells):
    call = {
        "adata": cells,
        "groupby": "condition",
        "reference": "ctrl",
        "replicate_key": "replicate",
        "progress": False,
    }
    for argument, value in {
        "min_gene_counts": math.nan, "min_counts": math.nan, "min_cells": [10], "n_jobs": math.nan, "n_jobs ": 1.5,
        "perturbations_per_chunk": 1.5, "n_fit_perturbations": "2", "fdr": "0.05", "chunk_size": None, "importance_sampling": "False", "fdr ": 1,
    }.items():  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=f"{argument.strip()} is .*, but must be"):
            nb.tl.nb_screen(**{**call, argument.strip(): value})


def test_numpy_values_are_those_of_python(cells):
    call = {"groupby": "condition", "reference": np.str_("ctrl"), "replicate_key": np.array(["replicate"])}
    adata = cells.copy()
    nb.tl.nb_compare(
        adata, **call, min_cells=np.int8(1), min_gene_counts=np.float32(5), shrink=np.bool_(False), layer=np.str_("counts"),
        lfc_threshold=np.array(0.5),
    )  # fmt: skip
    params = adata.uns["nb_compare"]["params"]
    assert {type(params[name]) for name in ("min_cells", "min_gene_counts", "shrink", "layer", "lfc_threshold")} == {
        int, float, bool, str,
    }  # fmt: skip
