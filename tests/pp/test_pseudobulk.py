"""Pseudobulk samples of cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nbcompare import pp

N_CELLS = 120


@pytest.fixture
def cells() -> ad.AnnData:
    rng = np.random.default_rng(0)
    donor = rng.integers(0, 4, N_CELLS)
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(rng.choice(["ctrl", "a/b"], N_CELLS), ["ctrl", "a/b"]),
            "donor": np.array(["d1", "d2", "d3", "d4"])[donor],
            "sex": pd.Categorical(np.array(["f", "m", "m", None], dtype=object)[donor]),
            "age": np.array([30.5, 41, np.nan, 52])[donor],
            "n_genes": rng.integers(1, 1000, N_CELLS),
            "cell_type": pd.Categorical(rng.choice(["B", "T"], N_CELLS)),
            "assay": "10x",
        },
        index=[f"c{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame({"symbol": [f"G{i}" for i in range(7)]}, index=[f"g{i}" for i in range(7)])
    return ad.AnnData(sparse.csr_matrix(rng.poisson(2, (N_CELLS, 7)).astype(np.float32)), obs=obs, var=var)


def test_agrees_with_scanpy(cells: ad.AnnData) -> None:
    pdata = pp.pseudobulk(cells, "condition", replicate_key="donor", min_cells=0)
    cells.obs["donor"] = cells.obs["donor"].astype("category")
    expected = sc.get.aggregate(cells, ["condition", "donor"], "sum")
    np.testing.assert_array_equal(pdata.X, expected.layers["sum"])
    assert pdata.obs["condition"].tolist() == expected.obs["condition"].tolist()
    assert pdata.obs["donor"].tolist() == expected.obs["donor"].tolist()


def test_obs_var_and_names(cells: ad.AnnData) -> None:
    pdata = pp.pseudobulk(cells, "condition", replicate_key="donor")
    assert list(pdata.obs.columns) == ["condition", "donor", "sex", "age", "assay", "psbulk_cells", "psbulk_counts"]
    assert pdata.obs_names[0] == "ctrl | d1"
    assert pdata.obs["condition"].cat.categories.tolist() == ["ctrl", "a/b"]
    by_donor = pdata.obs.set_index("donor")
    assert by_donor.loc["d1", "sex"].tolist() == ["f", "f"]
    assert by_donor.loc["d4", "sex"].isna().all()
    assert by_donor.loc["d3", "age"].isna().all()
    assert pdata.obs["psbulk_cells"].sum() == N_CELLS
    np.testing.assert_array_equal(pdata.obs["psbulk_counts"], pdata.X.sum(axis=1))
    pd.testing.assert_frame_equal(pdata.var, cells.var)
    assert pdata.var is not cells.var
    assert pdata.X.dtype == np.float64


def test_several_columns(cells: ad.AnnData) -> None:
    pdata = pp.pseudobulk(cells, ["cell_type", "condition"], replicate_key=["donor"], min_cells=1)
    assert pdata.n_obs == 16
    assert {"cell_type", "condition", "donor"} <= set(pdata.obs.columns)
    for row, values in zip(pdata.obs.itertuples(), pdata.X, strict=True):
        same = (cells.obs[["cell_type", "condition", "donor"]] == [row.cell_type, row.condition, row.donor]).all(axis=1)
        np.testing.assert_array_equal(values, cells.X[same.to_numpy()].toarray().sum(axis=0))


def test_what_was_done_is_kept(cells: ad.AnnData) -> None:
    cells.obs.loc["c3", "condition"] = np.nan
    cells.obs.loc[["c4", "c5"], "donor"] = None
    cells.obs.loc[cells.obs["donor"] == "d4", "donor"] = ["d4", *["d3"] * ((cells.obs["donor"] == "d4").sum() - 1)]
    pdata = pp.pseudobulk(cells, "condition", replicate_key="donor", min_cells=3, min_counts=5)
    kept = pdata.uns["pseudobulk"]
    assert kept["groupby"] == ["condition"]
    assert kept["replicate_key"] == ["donor"]
    assert (kept["layer"], kept["min_cells"], kept["min_counts"]) == (None, 3, 5)
    assert kept["n_cells_excluded"] == {"no_condition": 1, "no_replicate": 2}
    assert kept["dropped_samples"][["replicate", "n_cells", "reason"]].to_numpy().tolist() == [
        ["d4", 1, "fewer than 3 cells"]
    ]
    assert pdata.obs["psbulk_cells"].sum() + 1 + 3 == N_CELLS


@pytest.mark.parametrize("format", ["h5ad", "zarr"])
@pytest.mark.parametrize("min_cells", [1, 15])
def test_round_trip(cells: ad.AnnData, format: str, min_cells: int, tmp_path: Path) -> None:
    pdata = pp.pseudobulk(cells, "condition", replicate_key=["donor", "assay"], min_cells=min_cells)
    pp.size_factors(pdata)
    path = tmp_path / f"samples.{format}"
    getattr(pdata, f"write_{format}")(path)
    back = getattr(ad, f"read_{format}")(path)
    np.testing.assert_array_equal(back.X, pdata.X)
    assert back.obs_names.tolist() == pdata.obs_names.tolist()
    pd.testing.assert_frame_equal(back.obs, pdata.obs, check_dtype=False, check_categorical=False)
    dropped = pdata.uns["pseudobulk"]["dropped_samples"].reset_index(drop=True)
    found = back.uns["pseudobulk"]["dropped_samples"].reset_index(drop=True)
    assert found.to_numpy().tolist() == dropped.to_numpy().tolist()
    assert list(found.columns) == list(dropped.columns)
    assert (len(dropped) == 0) == (min_cells == 1)
    assert list(back.uns["pseudobulk"]["replicate_key"]) == ["donor", "assay"]
    assert back.uns["size_factors"]["method_used"] == pdata.uns["size_factors"]["method_used"]


def test_input_is_not_changed(cells: ad.AnnData) -> None:
    before = cells.copy()
    pp.pseudobulk(cells, "condition", replicate_key="donor")
    np.testing.assert_array_equal(cells.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    pd.testing.assert_frame_equal(cells.var, before.var)
    assert not cells.uns


def test_view_of_cells(cells: ad.AnnData) -> None:
    some = cells[::2, 1:4]
    expected = pp.pseudobulk(some.copy(), "condition", replicate_key="donor", min_cells=1)
    found = pp.pseudobulk(some, "condition", replicate_key="donor", min_cells=1)
    np.testing.assert_array_equal(found.X, expected.X)
    assert some.is_view


def test_infer_string(cells: ad.AnnData) -> None:
    expected = pp.pseudobulk(cells, "condition", replicate_key="donor")
    with pd.option_context("future.infer_string", True):
        obs = pd.DataFrame(cells.obs[["condition", "donor"]].astype(str).to_dict("list"), index=list(cells.obs_names))
        assert obs["donor"].dtype == "str"
        adata = ad.AnnData(cells.X, obs=obs, var=cells.var)
        pdata = pp.pseudobulk(adata, "condition", replicate_key="donor")
    assert sorted(pdata.obs_names) == sorted(expected.obs_names)
    np.testing.assert_array_equal(pdata[expected.obs_names.to_list()].X, expected.X)


def test_on_disk(cells: ad.AnnData, tmp_path: Path) -> None:
    expected = pp.pseudobulk(cells, "condition", replicate_key="donor")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.write_zarr(tmp_path / "cells.zarr")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    lazy = ad.experimental.read_lazy(tmp_path / "cells.zarr")
    for adata in (backed, backed[::1], lazy):
        pdata = pp.pseudobulk(adata, "condition", replicate_key="donor", chunk_size=13)
        np.testing.assert_array_equal(pdata.X, expected.X)
        pd.testing.assert_frame_equal(pdata.obs, expected.obs, check_dtype=False, check_categorical=False)
        pd.testing.assert_frame_equal(pdata.var, expected.var, check_dtype=False, check_names=False)
    backed.file.close()


def test_layer(cells: ad.AnnData) -> None:
    cells.layers["counts"] = cells.X.copy()
    cells.X = cells.X.log1p()
    with pytest.raises(ValueError, match="adata.X looks log-transformed.*pass layer='counts'"):
        pp.pseudobulk(cells, "condition", replicate_key="donor")
    pdata = pp.pseudobulk(cells, "condition", replicate_key="donor", layer="counts")
    assert pdata.X.sum() == cells.layers["counts"].sum()
    assert pdata.uns["pseudobulk"]["layer"] == "counts"


@pytest.mark.parametrize(
    ("groupby", "options", "error", "sentence"),
    [
        ("cond", {}, KeyError, "no column 'cond'"),
        ("condition", {"replicate_key": "condition"}, ValueError, "are both"),
        ("condition", {"min_cells": 1000}, ValueError, "None of the 8 samples has 1000 cells"),
        ("condition", {"min_counts": 1e6}, ValueError, "1e.06 counts .min_counts."),
        ("condition", {"layer": "counts"}, KeyError, "no layer 'counts'"),
        ("condition", {"chunk_size": 0}, ValueError, "chunk_size is 0"),
    ],
)
def test_errors(
    cells: ad.AnnData, groupby: str, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        pp.pseudobulk(cells, groupby, **{"replicate_key": "donor"} | options)


@given(st.data())
@settings(deadline=None, max_examples=20)
def test_splitting_cells_changes_nothing(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    counts = rng.poisson(3, (20, 5))
    obs = pd.DataFrame(
        {"condition": rng.choice(["a", "b"], 20), "donor": rng.choice(["1", "2"], 20)},
        index=[f"c{i}" for i in range(20)],
    )
    whole = pp.pseudobulk(ad.AnnData(counts, obs=obs), "condition", replicate_key="donor", min_cells=1)
    part = rng.binomial(counts, rng.random())
    halves = ad.AnnData(
        sparse.csc_matrix(np.concatenate([part, counts - part])), obs=pd.concat([obs, obs.set_axis(obs.index + "'")])
    )
    split = pp.pseudobulk(halves, "condition", replicate_key="donor", min_cells=1)
    assert split.obs_names.tolist() == whole.obs_names.tolist()
    np.testing.assert_array_equal(split.X, whole.X)
    np.testing.assert_array_equal(split.obs["psbulk_cells"], 2 * whole.obs["psbulk_cells"])
