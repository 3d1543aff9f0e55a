"""`split_by`: the same comparisons in every cell type, each as if it were alone."""

import re
import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest

import nbcompare._anndata.samples
from nbcompare import datasets, get, pp, tl
from nbcompare._nb.status import Status

ARRAYS = [
    "logfoldchanges",
    "lfc_se",
    "lfc_lower",
    "lfc_upper",
    "scores",
    "pvals",
    "pvals_adj",
    "pvals_unfiltered",
    "dispersions",
    "dispersions_genewise",
    "status",
]
COLUMNS = ["base_mean", "dispersion_trend"]
TYPES = ["B", "CD4/T", "mega", "mono"]  # `mega` has too few cells of ctrl, `mono` none of c


@pytest.fixture(scope="module")
def _types_once():
    parts = []
    for seed, name in enumerate(TYPES):
        part = datasets.simulate(n_genes=120, n_conditions=3, n_cells=22, paired=True, de_fraction=0.2, rng=seed)
        part.obs["condition"] = part.obs["condition"].cat.rename_categories({"treated_1": "b", "treated_2": "c"})
        part.obs["cell_type"] = name
        part.obs_names = [f"{name}_{i}" for i in range(part.n_obs)]
        is_ctrl = (part.obs["condition"] == "ctrl").to_numpy()
        kept = ~is_ctrl | (np.cumsum(is_ctrl) < 6) if name == "mega" else np.ones(part.n_obs, bool)
        parts.append(part[kept & ((part.obs["condition"] != "c").to_numpy() | (name != "mono"))])
    adata = ad.concat(parts)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype("category")
    adata.obs["depth"] = adata.obs.groupby(["cell_type", "condition", "replicate"], observed=True).ngroup() % 3 + 1.0
    return adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()


@pytest.fixture
def types(_types_once):
    """Four cell types, three conditions of the same three donors; cells in random order, 120 genes."""
    return _types_once.copy()


@pytest.fixture
def whole(_types_once):
    """The two types that lack nothing."""
    return _types_once[_types_once.obs["cell_type"].isin(["B", "CD4/T"]).to_numpy()].copy()


def compare(adata, **options):
    arguments = {"reference": "ctrl", "replicate_key": "replicate", "block_key": "donor", "split_by": "cell_type"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ comparisons could not be made")
        return tl.nb_compare(adata, "condition", **arguments | options)


OPTIONS = {
    "default": {},
    "unblocked": {"block_key": None, "replicate_key": ["replicate", "condition"]},
    "rest": {"reference": "rest"},
    "pair": {"dispersion": "pair"},
    "likelihood": {"method": "mle", "block_key": None, "replicate_key": ["replicate", "condition"], "cox_reid": True},
    "wald": {"test": "wald", "block_key": None, "replicate_key": ["replicate", "condition"]},
    "lrt": {"test": "lrt", "method": "mle", "block_key": None, "replicate_key": ["replicate", "condition"]},
    "groups": {"groups": ["c"]},
    "depths by name": {"size_factors": "tmm"},
    "depths by column": {"size_factors": "depth"},
    "threshold": {"lfc_threshold": 0.5, "block_key": None, "replicate_key": ["replicate", "condition"]},
    "shrunken": {"shrink": True},
    "posterior": {"method": "quadrature", "block_key": None, "replicate_key": ["replicate", "condition"]},
    "strict": {"min_gene_counts": 50, "min_cells": 12},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_type_as_if_alone(types, options):
    """Column by column the same bits as a call on the cells of one type."""
    compare(types, **options)
    splits, comparisons = types.uns["nb_compare"]["splits"], types.uns["nb_compare"]["comparisons"]
    assert len(splits) == len(comparisons) == types.varm["nb_compare_pvals"].shape[1]
    for number, name in enumerate(["B", "CD4/T"]):
        alone = types[(types.obs["cell_type"] == name).to_numpy()].copy()
        alone.obs, alone.varm, alone.uns = alone.obs.copy(), {}, {}
        alone.var = alone.var[[]].copy()
        compare(alone, **options, split_by=None)
        here = np.flatnonzero(splits == name)
        assert list(comparisons[here]) == list(alone.uns["nb_compare"]["comparisons"])
        assert set(types.varm) == {
            *alone.varm,
            *(f"nb_compare_{word}" for word in COLUMNS if f"nb_compare_{word}" in alone.var),
        }
        for word, expected in alone.varm.items():
            assert types.varm[word].dtype == expected.dtype
            np.testing.assert_array_equal(types.varm[word][:, here], expected, err_msg=word)
        place = list(dict.fromkeys(splits)).index(name)
        assert place == number
        for word in COLUMNS:
            if f"nb_compare_{word}" in alone.var:
                np.testing.assert_array_equal(
                    types.varm[f"nb_compare_{word}"][:, place], alone.var[f"nb_compare_{word}"], err_msg=word
                )
        samples = types.uns["nb_compare"]["samples"]
        samples = samples[samples["split"] == name].drop(columns="split").reset_index(drop=True)
        pd.testing.assert_frame_equal(samples, alone.uns["nb_compare"]["samples"])
        trend, expected = types.uns["nb_compare"]["trend"][str(place)], alone.uns["nb_compare"]["trend"]
        assert trend.keys() == expected.keys()
        for word, value in expected.items():
            np.testing.assert_array_equal(trend[word], value, err_msg=word)


# what a type lacks


def test_partial_results_are_kept_and_say_why(types):
    with pytest.warns(
        UserWarning, match=r"^3 of 8 comparisons could not be made.*mono, c: no sample of 'c'\.$"
    ) as warned:
        tl.nb_compare(
            types, "condition", reference="ctrl", replicate_key="replicate", block_key="donor", split_by="cell_type"
        )
    assert [warning.filename for warning in warned] == [__file__]
    uns = types.uns["nb_compare"]
    assert list(uns["splits"]) == ["B", "B", "CD4/T", "CD4/T", "mega", "mega", "mono", "mono"]
    assert list(uns["comparisons"]) == ["b", "c"] * 4
    assert uns["fdr_scope"] == "split and comparison"
    assert uns["params"]["split_by"] == "cell_type"
    tested = ~np.isnan(types.varm["nb_compare_pvals"])
    table = uns["split_table"]
    assert list(table.columns) == ["split", "comparison", "n_samples", "n_tested", "reason"]
    assert list(table["split"]) == list(uns["splits"])
    assert list(table["comparison"]) == list(uns["comparisons"])
    assert list(table["n_tested"]) == list(tested.sum(axis=0))
    assert list(table["n_samples"]) == [9, 9, 9, 9, 6, 6, 6, 6]
    missing = [4, 5, 7]
    assert not tested[:, missing].any()
    assert tested[:, [0, 1, 2, 3, 6]].any(axis=0).all()
    assert (types.varm["nb_compare_status"][:, missing] == Status.GROUP_MISSING).all()
    assert not (types.varm["nb_compare_status"][:, [0, 1, 2, 3, 6]] & Status.GROUP_MISSING).any()
    assert list(table["reason"] != "") == [column in missing for column in range(8)]
    assert table["reason"][4] == "no sample of 'ctrl' is left (fewer than 10 cells)"
    assert np.isnan(types.varm["nb_compare_base_mean"][:, 2]).all()
    assert uns["trend"]["2"] == {}
    assert set(uns["samples"]["split"]) == {"B", "CD4/T", "mono"}
    assert list(uns["dropped_samples"]["split"].unique()) == ["mega"]


def test_a_type_without_replicates(types):
    """One replicate of each group: its reason, and the others as ever."""
    single = ((types.obs["cell_type"] == "B") & (types.obs["donor"] != types.obs["donor"].unique()[0])).to_numpy()
    fewer = types[~single].copy()
    compare(fewer, block_key=None, replicate_key=["replicate", "condition"])
    table = fewer.uns["nb_compare"]["split_table"]
    assert table["reason"][0].startswith("Each of the 3 groups has one replicate")
    assert (fewer.varm["nb_compare_status"][:, 0] == Status.NO_REPLICATES).all()
    assert table["n_tested"][2] > 0


def test_a_type_confounded_with_blocks(whole):
    """Blocks coincide with conditions in one type only."""
    whole.obs["batch"] = "one"
    confounded = (whole.obs["cell_type"] == "B").to_numpy()
    whole.obs.loc[confounded, "batch"] = whole.obs["condition"][confounded].astype(str)
    compare(whole, block_key="batch", replicate_key="replicate")
    assert "confounded" in whole.uns["nb_compare"]["split_table"]["reason"][0]
    assert (whole.varm["nb_compare_status"][:, :2] == Status.CONFOUNDED).all()
    assert whole.uns["nb_compare"]["split_table"]["n_tested"][2] > 0


def test_nothing_in_any_type_is_an_error_with_all_reasons(types, unchanged):
    lacking = types[types.obs["cell_type"].isin(["mega", "mono"]).to_numpy()].copy()
    before = lacking.copy()
    with pytest.raises(
        ValueError, match=r"in any of the 2 splits\. mega: no sample of 'ctrl'.*; mono: no sample of 'c'\."
    ):
        compare(lacking, groups=["c"])
    unchanged(lacking, before)
    types.obs["donor"], types.obs["replicate"] = "d", "r"
    with pytest.raises(ValueError, match=r"^In each of the 3 splits the same: Each of the 2 groups has one replicate"):
        compare(types[(types.obs["condition"] != "c") & (types.obs["cell_type"] != "mega")].copy(), block_key=None)


def test_missing_types_are_counted(whole):
    whole.obs.loc[whole.obs_names[:9], "cell_type"] = np.nan
    compare(whole)
    assert whole.uns["nb_compare"]["n_cells_excluded"]["no_split"] == 9
    assert whole.uns["nb_compare"]["samples"]["n_cells"].sum() == whole.n_obs - 9


def test_samples_of_many_types_do_not_look_like_cells():
    """Each type has few, though each condition has many."""
    draw = np.random.default_rng(0)
    obs = pd.MultiIndex.from_product([range(12), ["ctrl", "b"], range(3)], names=["type", "condition", "animal"])
    frame = obs.to_frame(index=False).astype(str).rename(index=str)
    samples = ad.AnnData(draw.poisson(30.0, (len(obs), 50)).astype(float), obs=frame)
    tl.nb_compare(samples, "condition", reference="ctrl", split_by="type")
    assert samples.varm["nb_compare_pvals"].shape == (50, 12)
    with pytest.raises(ValueError, match="they look like cells"):
        tl.nb_compare(samples, "condition", reference="ctrl")


# refusals


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split_by": "celltype"}, KeyError, "There is no column 'celltype' in adata.obs. Did you mean 'cell_type'?"),
        ({"split_by": "condition"}, ValueError, "split_by 'condition' and groupby 'condition' share a column"),
        ({"split_by": "replicate"}, ValueError, "replicate_key 'replicate' is part of split_by 'replicate'"),
        ({"split_by": []}, ValueError, "split_by is empty"),
        ({"reference": "control"}, ValueError, "There is no group 'control' to be the reference"),
        ({"groups": ["b", "d"]}, ValueError, "There is no group 'd' to compare"),
    ],
)
def test_refused_before_any_work(types, unchanged, monkeypatch, options, error, words):
    monkeypatch.setattr(nbcompare._anndata.samples, "sum_counts", lambda *_, **__: pytest.fail("counts were read"))
    before = types.copy()
    with pytest.raises(error, match=re.escape(words)):
        compare(types, **options)
    unchanged(types, before)


# one pass, any source, any file


def test_one_pass_for_all_types(whole, monkeypatch):
    calls = []
    once = nbcompare._anndata.samples.sum_counts
    monkeypatch.setattr(
        nbcompare._anndata.samples, "sum_counts", lambda *given, **more: calls.append(1) or once(*given, **more)
    )
    compare(whole)
    assert len(calls) == 1


def test_dask_and_pseudobulk_give_the_same(whole):
    compare(whole)
    lazy = whole.copy()
    lazy.X = da.from_array(whole.X.toarray(), chunks=(50, -1))
    lazy.uns = {}
    compare(lazy)
    np.testing.assert_array_equal(lazy.varm["nb_compare_pvals"], whole.varm["nb_compare_pvals"])
    samples = pp.pseudobulk(whole, ["cell_type", "condition"], replicate_key="replicate")
    compare(samples, replicate_key=None)
    np.testing.assert_array_equal(samples.varm["nb_compare_pvals"], whole.varm["nb_compare_pvals"])
    given = compare(samples, replicate_key=None, size_factors=np.arange(1.0, 1 + samples.n_obs), copy=True)
    assert given.uns["nb_compare"]["params"]["size_factors_used"] == "given"


def test_two_columns_and_rows_in_any_order(whole):
    whole.obs["half"] = np.where(whole.obs["cell_type"] == "B", "x", "y")
    compare(whole, split_by=["cell_type", "half"])
    assert list(whole.uns["nb_compare"]["splits"][[0, 2]]) == ["B | x", "CD4/T | y"]
    again = whole[np.random.default_rng(1).permutation(whole.n_obs)].copy()
    compare(again)
    np.testing.assert_array_equal(again.varm["nb_compare_pvals"], whole.varm["nb_compare_pvals"])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(types, tmp_path, suffix):
    compare(types)
    getattr(types, f"write_{suffix}")(tmp_path / f"x.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"x.{suffix}")
    for word in (*ARRAYS, *COLUMNS):
        np.testing.assert_array_equal(back.varm[f"nb_compare_{word}"], types.varm[f"nb_compare_{word}"])
    pd.testing.assert_frame_equal(get.nb_compare_df(back), get.nb_compare_df(types))
    gene = types.var_names[0]
    pd.testing.assert_frame_equal(get.nb_gene_df(back, gene), get.nb_gene_df(types, gene), check_dtype=False)
    ours, theirs = (adata.uns["nb_compare"]["split_table"] for adata in (types, back))
    assert ours.astype(str).to_numpy().tolist() == theirs.astype(str).to_numpy().tolist()


def test_nothing_of_an_earlier_call_is_left(whole):
    compare(whole)
    compare(whole, split_by=None)
    assert not {"nb_compare_base_mean", "nb_compare_dispersion_trend"} & set(whole.varm)
    assert {"nb_compare_base_mean", "nb_compare_dispersion_trend"} <= set(whole.var)
    assert "splits" not in whole.uns["nb_compare"]
    compare(whole)
    assert not {"nb_compare_base_mean", "nb_compare_dispersion_trend"} & set(whole.var)


# reading


def test_tables_by_type_and_comparison(types):
    compare(types)
    every = get.nb_compare_df(types)
    assert list(every.columns[:3]) == ["split", "group", "names"]
    assert len(every) == 8 * types.n_vars
    assert list(every["split"].cat.categories) == TYPES
    one = get.nb_compare_df(types, "c", split="CD4/T")
    assert one.columns[0] == "names"
    chosen = every[(every["split"] == "CD4/T") & (every["group"] == "c")]
    pd.testing.assert_frame_equal(one, chosen.drop(columns=["split", "group"]).reset_index(drop=True))
    order = types.var_names.get_indexer(one["names"])
    np.testing.assert_array_equal(one["pvals"], types.varm["nb_compare_pvals"][order, 3])
    np.testing.assert_array_equal(one["base_mean"], types.varm["nb_compare_base_mean"][order, 1])
    assert list(get.nb_compare_df(types, "c").columns[:2]) == ["split", "names"]
    assert list(get.nb_compare_df(types, split="B").columns[:2]) == ["group", "names"]
    assert list(get.nb_compare_df(types, "c", split=["mono", "B"])["split"].unique()) == ["mono", "B"]
    assert list(get.nb_compare_df(types, style="pertpy").columns[[0, -1]]) == ["split", "contrast"]
    assert set(get.nb_compare_df(types, "c", split="mono")["status"]) == {"group_missing"}


def test_wrong_names_of_types(types, stored):
    compare(types)
    with pytest.raises(KeyError, match=r"has no split 'CD4/Z'; there are: 'B', 'CD4/T'.*Did you mean 'CD4/T'"):
        get.nb_compare_df(types, split="CD4/Z")
    with pytest.raises(ValueError, match="split is empty"):
        get.nb_compare_df(types, split=[])
    with pytest.raises(ValueError, match="was compared without split_by"):
        get.nb_compare_df(stored, split="B")
    with pytest.raises(KeyError, match=r"there are: 'b', 'c'\."):
        get.nb_compare_df(types, "d", split="B")


def test_a_gene_in_every_type(types):
    compare(types)
    gene = types.var_names[7]
    every = get.nb_gene_df(types, gene)
    assert list(every.columns[:4]) == ["split", "condition", "replicate", "block"]
    assert list(every["split"].unique()) == ["B", "CD4/T", "mono"]
    alone = types[(types.obs["cell_type"] == "mono").to_numpy()].copy()
    compare(alone, split_by=None)
    one = get.nb_gene_df(types, gene, split="mono").drop(columns="split")
    pd.testing.assert_frame_equal(one, get.nb_gene_df(alone, gene))
    with pytest.raises(KeyError, match="has no split"):
        get.nb_gene_df(types, gene, split="nothing")


def test_blocks_of_a_gene_named_later(whole):
    compare(whole, block_key=None, replicate_key=["replicate", "condition"])
    gene = whole.var_names[3]
    assert set(get.nb_gene_df(whole, gene)["block"]) == {""}
    table = get.nb_gene_df(whole, gene, block_key="donor")
    assert all(block in replicate for block, replicate in zip(table["block"], table["replicate"], strict=True))
    whole.obs["mixed"] = np.arange(whole.n_obs) % 2
    with pytest.raises(ValueError, match="several values within"):
        get.nb_gene_df(whole, gene, block_key="mixed")


def test_scanpys_format_holds_one_type(types):
    compare(types)
    with pytest.raises(ValueError, match="holds 4 splits, name one of them as split: 'B', 'CD4/T', 'mega', 'mono'"):
        get.to_rank_genes_groups(types)
    get.to_rank_genes_groups(types, split="CD4/T")
    ranked = types.uns["rank_genes_groups"]
    assert ranked["pvals"].dtype.names == ("b", "c")
    first = get.nb_compare_df(types, "c", split="CD4/T").set_index("names").loc[ranked["names"]["c"], "scores"]
    np.testing.assert_allclose(ranked["scores"]["c"], first.fillna(0), rtol=1e-6)


# formulas


def test_a_formula_in_each_type_as_if_alone(types):
    """Contrasts that a type lacks levels for are left out there, the others are kept."""
    contrast = {"b": ("condition", "b", "ctrl"), "c against b": ("condition", "c", "b")}
    options = {"block_key": None, "design": "~ donor + condition", "contrast": contrast}
    compare(types, **options)
    table = types.uns["nb_compare"]["split_table"]
    assert list(table["comparison"]) == ["b", "c against b"] * 4
    assert list(table["n_tested"] > 0) == [True, True, True, True, False, True, True, False]
    assert "'ctrl'" in table["reason"][4]
    assert "'c'" in table["reason"][7]
    alone = types[(types.obs["cell_type"] == "CD4/T").to_numpy()].copy()
    compare(alone, **options, split_by=None)
    for word in ("pvals", "logfoldchanges", "status"):
        np.testing.assert_array_equal(types.varm[f"nb_compare_{word}"][:, 2:4], alone.varm[f"nb_compare_{word}"])
    n = len(alone.uns["nb_compare"]["design"]["coefficients"])
    assert set(types.uns["nb_compare"]["design"]) == {"0", "1", "2", "3"}
    np.testing.assert_array_equal(
        types.varm["nb_compare_coefficients"][:, n : 2 * n], alone.varm["nb_compare_coefficients"]
    )


def test_a_formula_by_groups(types):
    compare(types, block_key=None, design="~ donor + condition")
    assert list(types.uns["nb_compare"]["split_table"]["n_tested"] > 0) == [True] * 4 + [False, False, True, False]
    with pytest.raises(ValueError, match="There is no group 'd' to compare"):
        compare(types, block_key=None, design="~ donor + condition", groups=["d"])
