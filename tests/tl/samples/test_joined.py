"""Several control names as one reference are the same as one name in the column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import nbcompare as nb

CALL = {"replicate_key": "rep", "block_key": "rep", "min_cells": 1}


@pytest.fixture
def cells():
    """Two groups of controls and two others, three replicates of ten cells each."""
    adata = nb.datasets.simulate(n_conditions=4, n_genes=60, n_cells=10, rng=5)
    names = dict(zip(sorted(adata.obs["condition"].unique()), ["NT1", "NT2", "a", "b"], strict=True))
    adata.obs["cond"] = adata.obs["condition"].astype(str).map(names)
    adata.obs["rep"] = adata.obs["replicate"].astype(str).str[-1]  # also the block
    return adata


@pytest.fixture
def renamed(cells):
    adata = cells.copy()
    adata.obs["cond"] = adata.obs["cond"].replace({"NT1": "NT1 + NT2", "NT2": "NT1 + NT2"})
    return adata


KINDS = [
    ["NT1", "NT2"],
    ("NT2", "NT1"),
    pd.Series(["NT1", "NT2"]),
    pd.Index(["NT2", "NT1"]),
    {"NT1", "NT2"},
    np.array(["NT1", "NT2"]),
]


@pytest.mark.parametrize("reference", KINDS, ids=lambda kind: type(kind).__name__)
def test_same_bits_as_after_renaming(cells, renamed, reference, tmp_path):
    nb.tl.nb_compare(cells, "cond", reference=reference, **CALL)
    nb.tl.nb_compare(renamed, "cond", reference="NT1 + NT2", **CALL)
    assert cells.uns["nb_compare"]["comparisons"].tolist() == ["a", "b"]
    assert cells.uns["nb_compare"]["reference"] == "NT1 + NT2"
    assert cells.uns["nb_compare"]["params"]["reference_levels"] == ["NT1", "NT2"]
    for name in renamed.varm:
        np.testing.assert_array_equal(cells.varm[name], renamed.varm[name])
    pd.testing.assert_frame_equal(cells.uns["nb_compare"]["samples"], renamed.uns["nb_compare"]["samples"])
    cells.write_h5ad(tmp_path / "cells.h5ad")


def test_tables_and_figures_of_a_gene(cells, renamed):
    for adata, reference in ((cells, ["NT1", "NT2"]), (renamed, "NT1 + NT2")):
        nb.tl.nb_compare(adata, "cond", reference=reference, **CALL)
    gene = cells.var_names[0]
    pd.testing.assert_frame_equal(nb.get.nb_gene_df(cells, gene), nb.get.nb_gene_df(renamed, gene))
    nb.pl.gene(cells, gene)
    plt.close("all")


def test_a_list_of_one_is_that_one(cells):
    nb.tl.nb_compare(cells, "cond", reference=["NT1"], **CALL)
    assert cells.uns["nb_compare"]["reference"] == "NT1"
    assert "reference_levels" not in cells.uns["nb_compare"]["params"]


def test_screen_in_memory_and_on_disk(cells, renamed, tmp_path):
    call = {**CALL, "progress": False}
    joined = nb.tl.nb_screen(cells, "cond", reference=["NT2", "NT1"], **call)
    other = nb.tl.nb_screen(renamed, "cond", reference="NT1 + NT2", **call)
    first, more = cells[cells.obs["cond"] != "b"].copy(), cells[cells.obs["cond"] == "b"].copy()
    nb.tl.nb_screen(first, "cond", reference=["NT1", "NT2"], path=tmp_path / "s.zarr", **call)
    added = nb.tl.nb_screen(more, "cond", reference=["NT1", "NT2"], path=tmp_path / "s.zarr", append=True, **call)
    assert joined.uns["nb_screen"]["reference"] == "NT1 + NT2"
    assert joined.obs_names.tolist() == added.obs_names.tolist() == ["a", "b"]
    for name in joined.layers:
        np.testing.assert_array_equal(joined.layers[name], other.layers[name])


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (["NT1", "NT3"], "no group 'NT3'"),
        ([], "must name a group"),
        (["NT1", "rest"], "'rest' already means"),
    ],
)
def test_refused_before_any_work(cells, reference, words):
    with pytest.raises(ValueError, match=words):
        nb.tl.nb_compare(cells, "cond", reference=reference, **CALL)
    assert "nb_compare" not in cells.uns


def test_a_design_says_how_to_join(cells):
    with pytest.raises(ValueError, match=r"replace\(\['NT1', 'NT2'\], 'control'\)"):
        nb.tl.nb_compare(cells, "cond", reference=["NT1", "NT2"], design="~ cond", replicate_key="rep", min_cells=1)


def test_a_name_that_is_taken_is_refused(cells):
    cells.obs["cond"] = cells.obs["cond"].replace({"b": "NT1 + NT2"})
    with pytest.raises(ValueError, match="Rename that group"):
        nb.tl.nb_compare(cells, "cond", reference=["NT1", "NT2"], **CALL)
