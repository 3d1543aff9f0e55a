"""One line says what a call did; what was dropped or not tested is named; nothing of an earlier call stays."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pytest

import nbcompare as nb

CALL = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate"}


@pytest.fixture
def cells() -> ad.AnnData:
    adata = nb.datasets.simulate(
        n_genes=60, n_conditions=4, n_replicates=3, n_cells=30, n_cells_sd=0, paired=True, rng=1
    )
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    return adata


def without_samples(cells: ad.AnnData) -> ad.AnnData:
    """The same where no replicate of treated_2 has ten cells."""
    few = (cells.obs["condition"] == "treated_2").to_numpy() & (np.arange(cells.n_obs) % 5 > 0)
    return cells[~few].copy()


def test_a_comparison(cells, caplog):
    cells.obs.loc[cells.obs_names[:3], "condition"] = np.nan
    with caplog.at_level(logging.INFO, logger="nbcompare"):
        nb.tl.nb_compare(cells, **CALL, block_key="donor", min_gene_counts=300)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == nb.get.summary(cells)
    assert line.startswith(
        "nb_compare: 3 comparisons ('treated_1', 'treated_2', 'treated_3') with reference 'ctrl'; 12 of 12 samples used; "
    )
    assert "rows left out: 3 without a group" in line
    assert "3 blocks" in line
    n_tested = (~np.isnan(cells.varm["nb_compare_pvals"])).sum(axis=0)
    low, high = n_tested.min(), n_tested.max()
    assert (
        f"{low} to {high} of 60 genes tested (not tested: " in line or f"{low} of 60 genes tested (not tested: " in line
    )
    assert "low_counts" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "rest"}, "of each group with the rest"),
        ({"design": "~ donor + condition"}, "design '~ donor + condition'; moderated test"),
        ({"design": "~ donor + condition", "contrast": "condition", "reference": None}, "1 contrast ('condition')"),
        ({"split_by": "half"}, "in 2 values of 'half'"),
        ({"lfc_threshold": 0.5}, "absolute log2 fold change above 0.5"),
        ({"test": "wald", "method": "mle"}, "Wald test by maximum likelihood."),
        ({"dispersion": "pair"}, "the groups of each comparison"),
        ({"method": "quadrature"}, "posterior by numerical integration"),
    ],
)
@pytest.mark.filterwarnings("ignore:Every replicate in:UserWarning")
def test_what_it_says(cells, options, words, tmp_path):
    nb.tl.nb_compare(cells, **{**CALL, **options}, verbose=False)
    assert words in nb.get.summary(cells)
    cells.write_h5ad(tmp_path / "a.h5ad")
    assert nb.get.summary(ad.read_h5ad(tmp_path / "a.h5ad")) == nb.get.summary(cells)


def test_it_can_be_silenced(cells, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="nbcompare"):
        nb.tl.nb_compare(cells, **CALL, block_key="donor", verbose=False)
        nb.tl.nb_screen(cells, **CALL, block_key="donor", progress=False, verbose=False)
        nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", verbose=False)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_samples_that_were_dropped(cells, caplog):
    few = without_samples(cells)
    with caplog.at_level(logging.INFO, logger="nbcompare"):
        nb.pp.pseudobulk(few, "condition", replicate_key="replicate")
    assert (
        caplog.records[-1].getMessage()
        == "pseudobulk: 9 of 12 samples used (3 dropped: fewer than 10 cells); 60 genes."
    )


@pytest.mark.parametrize("options", [{}, {"method": "quadrature"}, {"intervals": True}])
def test_dropped_perturbations_stay_as_rows(cells, options, tmp_path):
    """The others have the same numbers, in memory, on disk, whatever the blocks."""
    few = without_samples(cells)
    call = {**CALL, "block_key": "donor", "progress": False, **options}
    others = nb.tl.nb_screen(few[few.obs["condition"] != "treated_2"].copy(), **call)
    with pytest.warns(UserWarning, match="No gene is tested in 1 of 3 perturbations .1 group_missing."):
        screen = nb.tl.nb_screen(few, **call)
    assert screen.obs_names.to_list() == ["treated_1", "treated_3", "treated_2"]
    assert screen.obs["reason"].to_list() == ["", "", "no sample left: fewer than 10 cells"]
    assert screen.obs["status"].to_list() == ["ok", "ok", "group_missing"]
    assert screen.obs.loc["treated_2", ["n_replicates", "n_tested", "n_hits"]].to_list() == [0, 0, 0]
    for name, layer in others.layers.items():
        np.testing.assert_array_equal(screen.layers[name][:2], layer)
        missing = screen.layers[name][2]
        assert (missing == 32).all() if name == "status" else np.isnan(missing).all() or missing.dtype.kind in "iu"
    table = nb.get.nb_screen_df(screen, "treated_2")
    assert set(table["status"]) == {"group_missing"}
    for rows in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb.tl.nb_screen(few, **call, path=tmp_path / f"{rows}.zarr", perturbations_per_chunk=rows)
        stored = ad.read_zarr(tmp_path / f"{rows}.zarr")
        for name in screen.layers:
            np.testing.assert_array_equal(stored.layers[name], screen.layers[name])
        assert stored.obs["reason"].to_list() == screen.obs["reason"].to_list()
        assert "2 of 3 perturbations tested against 'ctrl' (1 group_missing)" in nb.get.summary(stored)


def test_a_dropped_perturbation_that_comes_again(cells, tmp_path):
    call = {**CALL, "block_key": "donor", "progress": False, "path": tmp_path / "a.zarr"}
    with pytest.warns(UserWarning, match="No gene is tested"):
        nb.tl.nb_screen(without_samples(cells), **call)
    again = cells[cells.obs["condition"].isin(["ctrl", "treated_2"])].copy()
    with (
        pytest.warns(UserWarning, match="Already in the screen, without a test.*'treated_2'.*make a new screen"),
        pytest.warns(UserWarning, match="Nothing is added"),
    ):
        nb.tl.nb_screen(again, **call, append=True)


@pytest.mark.parametrize(
    "options", [{}, {"design": "~ donor + condition"}, {"method": "quadrature"}, {"lfc_threshold": 1}]
)
@pytest.mark.filterwarnings("ignore:Every replicate in:UserWarning")
def test_nothing_tested(cells, options):
    with pytest.warns(
        UserWarning,
        match="No gene is tested in 3 of 3 comparisons.*180 tests, 180 low_counts .min_gene_counts is 1e.06.",
    ):
        nb.tl.nb_compare(cells, **CALL, **options, min_gene_counts=1e6)
    assert "0 of 60 genes tested" in nb.get.summary(cells)
    with pytest.warns(UserWarning, match="No gene is tested in 3 of 3 perturbations .3 low_counts"):
        nb.tl.nb_screen(cells, **CALL, block_key="donor", min_gene_counts=1e6, progress=False)


SEQUENCE = [
    {},
    {"method": "quadrature"},
    {"shrink": True},
    {"design": "~ donor + condition"},
    {"split_by": "half"},
    {"test": "wald"},
    {"groups": ["treated_1"]},
    {"lfc_threshold": 1.0},
]


@pytest.mark.parametrize("last", range(len(SEQUENCE)))
@pytest.mark.filterwarnings("ignore:Every replicate in:UserWarning")
def test_nothing_stays_of_an_earlier_call(cells, last):
    """After any call with the same key the AnnData is that of the last call alone; other keys are left alone."""
    fresh = cells.copy()
    nb.tl.nb_compare(fresh, **CALL, **SEQUENCE[last])
    nb.tl.nb_compare(cells, **CALL, key_added="nb_compare_b", **SEQUENCE[1])
    other = {name: cells.varm[name].copy() for name in cells.varm}
    for options in SEQUENCE:
        nb.tl.nb_compare(cells, **CALL, **options)
    nb.tl.nb_compare(cells, **CALL, **SEQUENCE[last])
    later = {name for name in other if name.startswith("nb_compare_b_")}
    assert set(cells.varm) - later == set(fresh.varm)
    assert {name for name in cells.var if not name.startswith("nb_compare_b_")} == set(fresh.var)
    for name, values in other.items():
        np.testing.assert_array_equal(cells.varm[name], values)
    for name in fresh.varm:
        np.testing.assert_array_equal(cells.varm[name], fresh.varm[name])
