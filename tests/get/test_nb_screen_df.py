from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nbcompare import datasets, get, tl
from nbcompare._nb.inference.hierarchical import adjust_hierarchically
from nbcompare.get import _screen_arrays as _screen


@pytest.fixture(params=["in memory", "lazily read"])
def either(request, screen, lazy_screen):
    """The same screen, in memory and on disk."""
    return screen if request.param == "in memory" else lazy_screen


@pytest.fixture(params=[2**22, 3000])
def chunk_size(request, monkeypatch):
    """The screen in one block, and in many."""
    monkeypatch.setattr(_screen, "TESTS_AT_ONCE", request.param)


def all_tests(screen):
    """The table that every other is a part of, by a route of its own."""
    rows, columns = np.indices(screen.shape)
    table = pd.DataFrame({word: np.asarray(values).ravel() for word, values in screen.layers.items()})
    table.insert(0, "perturbation", screen.obs_names.to_numpy()[rows.ravel()])
    table.insert(1, "names", screen.var_names.to_numpy()[columns.ravel()])
    return table.sort_values("pvals", kind="stable", na_position="last")


def pairs(table):
    return list(zip(table["perturbation"].astype(str), table["names"], strict=True))


def test_a_perturbation(either, screen):
    table = get.nb_screen_df(either, "gene_003")
    assert table.columns.to_list() == [
        "perturbation", "names", "scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "base_mean",
        "dispersions", "status",
    ]  # fmt: skip
    assert set(table["perturbation"]) == {"gene_003"}
    tested = table["pvals"].notna()
    assert 0 < tested.sum() < len(table) == screen.n_vars
    assert table["pvals"][tested].is_monotonic_increasing
    assert not tested[tested.sum() :].any()
    position = screen.var_names.get_indexer(table["names"])
    for word in ("scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "dispersions"):
        np.testing.assert_array_equal(table[word], screen.layers[word][3, position])
    np.testing.assert_array_equal(table["base_mean"], screen.var["base_mean"].iloc[position])
    assert set(table["status"][tested]) == {"ok"}
    assert set(table["status"][~tested]) == {"all_zero", "low_counts"}


def test_a_gene(either, screen):
    number = screen.var["n_perturbations"].argmax()
    table = get.nb_screen_df(either, gene=screen.var_names[number], padj_cutoff=0.05)
    moved = screen.obs_names[screen.layers["pvals_adj"][:, number] <= 0.05]
    assert len(moved) > 2
    assert set(table["names"]) == {screen.var_names[number]}
    assert sorted(table["perturbation"]) == sorted(moved)
    assert table["pvals"].is_monotonic_increasing


def test_one_rule_of_what_is_a_hit(screen):
    """The hits of a perturbation are as many as `n_hits` counts, also where an adjusted p-value is the cut-off itself."""
    number = int(np.argmax(screen.obs["n_hits"]))
    name, adjusted = screen.obs_names[number], screen.layers["pvals_adj"][number]
    cutoff = float(np.max(adjusted[adjusted <= 0.05]))
    assert len(get.nb_screen_df(screen, name, padj_cutoff=cutoff)) == screen.obs["n_hits"].iloc[number]
    assert (
        len(get.nb_screen_df(screen, name, padj_cutoff=cutoff, fdr_scope="hierarchical"))
        <= screen.obs["n_hits"].iloc[number]
    )
    whole = get.nb_screen_df(screen, padj_cutoff=cutoff)
    assert (whole["perturbation"] == name).sum() == screen.obs["n_hits"].iloc[number]
    assert len(whole) == (screen.layers["pvals_adj"] <= cutoff).sum()


def test_several_of_each(either, screen):
    table = get.nb_screen_df(either, ["pert_050", "gene_003"], gene=["gene_100", "gene_003", "gene_101"])
    expected = all_tests(screen[["gene_003", "pert_050"], ["gene_003", "gene_100", "gene_101"]])
    assert pairs(table) == pairs(expected)


@pytest.mark.parametrize("scope", ["perturbation", "global"])
@pytest.mark.parametrize("limits", [{"n_top": 50}, {"padj_cutoff": 0.01}, {"padj_cutoff": 0.1, "n_top": 7}])
@pytest.mark.usefixtures("chunk_size")
def test_whole_screen(either, screen, scope, limits):
    table = get.nb_screen_df(either, fdr_scope=scope, **limits)
    expected = all_tests(screen)
    expected["pvals_adj"] = expected["pvals_adj_global" if scope == "global" else "pvals_adj"]
    expected = expected[expected["pvals_adj"] <= limits.get("padj_cutoff", 2)][: limits.get("n_top")]
    assert len(table) > 5
    assert pairs(table) == pairs(expected)
    for word in ("pvals", "pvals_adj", "scores", "lfc_se", "logfoldchanges", "dispersions"):
        np.testing.assert_array_equal(table[word], expected[word])


@pytest.mark.usefixtures("chunk_size")
def test_fold_changes(either, screen):
    table = get.nb_screen_df(either, log2fc_min=-3, log2fc_max=-1, n_top=40)
    expected = all_tests(screen).query("-3 < logfoldchanges < -1")[:40]
    assert pairs(table) == pairs(expected)
    assert get.nb_screen_df(either, "gene_003", log2fc_min=-1)["logfoldchanges"].min() > -1
    assert get.nb_screen_df(either, "gene_003", log2fc_max=-1)["logfoldchanges"].max() < -1


@pytest.mark.usefixtures("chunk_size")
def test_more_than_there_are(either, screen):
    table = get.nb_screen_df(either, n_top=10**6)
    assert len(table) == screen.shape[0] * screen.shape[1]
    tested = np.isfinite(screen.layers["pvals"]).sum()
    assert table["pvals"][:tested].is_monotonic_increasing
    assert table["pvals"][tested:].isna().all()


def test_no_hits(either):
    table = get.nb_screen_df(either, log2fc_min=1000, padj_cutoff=0.05)
    assert table.empty
    assert table.columns.to_list() == get.nb_screen_df(either, n_top=1).columns.to_list()


def test_styles_and_symbols(either, screen):
    plain = get.nb_screen_df(either, "gene_003")
    pertpy = get.nb_screen_df(either, "gene_003", style="pertpy")
    assert pertpy.columns.to_list() == ["variable", "log_fc", "p_value", "adj_p_value", "contrast"]
    assert set(pertpy["contrast"]) == {"gene_003"}
    np.testing.assert_array_equal(pertpy["log_fc"], plain["logfoldchanges"])
    deseq2 = get.nb_screen_df(either, "gene_003", style="deseq2")
    assert deseq2.columns.to_list() == [
        "perturbation", "baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj",
    ]  # fmt: skip
    assert deseq2.index.to_list() == plain["names"].to_list()
    screen.var["symbol"] = [f"S{i}" for i in range(screen.n_vars)]
    table = get.nb_screen_df(screen, "gene_003", gene_symbols="symbol")
    assert table["symbol"].to_list() == screen.var["symbol"].loc[table["names"]].to_list()


class TestHierarchical:
    @pytest.mark.parametrize("level", [0.001, 0.05, 0.3])
    @pytest.mark.usefixtures("chunk_size")
    def test_calls_what_the_two_steps_call(self, either, screen, level):
        selected = (screen.obs["pval_adj"] <= level).to_numpy()
        share = selected.sum() / screen.obs["pval_adj"].notna().sum()
        assert 0 < share < 1
        called = selected[:, None] & (screen.layers["pvals_adj"] <= level * share)
        table = get.nb_screen_df(either, padj_cutoff=level, fdr_scope="hierarchical")
        rows, columns = np.nonzero(called)
        expected = zip(screen.obs_names[rows], screen.var_names[columns], strict=True)
        assert sorted(pairs(table)) == sorted(expected)

    @given(
        st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.5]), min_size=1, max_size=12),
        st.lists(st.floats(0, 1), min_size=1, max_size=5),
        st.floats(0.001, 0.999),
    )
    @settings(deadline=None, max_examples=100)
    def test_is_the_least_level_that_calls(self, overall, within, level):
        of_rows = stats.false_discovery_control(overall)
        adjusted = np.tile(within, (len(overall), 1))
        least = adjust_hierarchically(adjusted, of_rows, np.append(of_rows, np.nan))
        selected = of_rows <= level
        called = selected[:, None] & (adjusted <= level * selected.mean())
        clear = np.abs(least - level) > 1e-9
        np.testing.assert_array_equal((least <= level)[clear], called[clear])

    def test_what_was_not_tested_stays_so(self):
        least = adjust_hierarchically(np.array([[np.nan, 0.01]]), np.array([0.02]), np.array([0.02, np.nan]))
        np.testing.assert_array_equal(least, [[np.nan, 0.02]])


def test_reads_no_more_than_it_needs(lazy_screen, monkeypatch):
    read = []
    array = lazy_screen.layers["pvals"]
    monkeypatch.setattr(_screen, "TESTS_AT_ONCE", 14 * lazy_screen.n_vars)
    original = _screen.read_tests
    monkeypatch.setattr(
        "nbcompare.get._screen_search.read_tests", lambda *a: (read.append((a[1], a[2])), original(*a))[1]
    )
    get.nb_screen_df(lazy_screen, "gene_003")
    assert {(word, tuple(rows)) for word, rows in read} == {("pvals", (3,)), ("pvals_adj", (3,))}
    read.clear()
    get.nb_screen_df(lazy_screen, padj_cutoff=0.05)
    silent = set(np.flatnonzero(~(lazy_screen.obs[["pval"]].to_memory()["pval"] < 0.05)))
    assert silent
    for _, rows in read:
        assert len(rows) <= 14
        assert not silent & set(rows)
        assert len({row // 14 for row in rows}) == 1
    assert lazy_screen.layers["pvals"] is array


def test_errors_say_what_there_is(either, stored):
    with pytest.raises(KeyError, match=r"no perturbation 'pert_05'.*Did you mean 'pert_05"):
        get.nb_screen_df(either, "pert_05")
    with pytest.raises(KeyError, match="There is a gene of this name: gene='gene_200'"):
        get.nb_screen_df(either, "gene_200")
    with pytest.raises(KeyError, match="'control'.*is the reference"):
        get.nb_screen_df(either, "control")
    with pytest.raises(KeyError, match="'xyz'. There are: 'gene_000'.*60 in all"):
        get.nb_screen_df(either, "xyz")
    with pytest.raises(KeyError, match="no gene 'gene_2'.*Did you mean"):
        get.nb_screen_df(either, gene="gene_2")
    with pytest.raises(ValueError, match="gene is empty"):
        get.nb_screen_df(either, gene=[])
    with pytest.raises(ValueError, match="18,000 rows.*n_top or padj_cutoff"):
        get.nb_screen_df(either)
    with pytest.raises(ValueError, match="'perturbation', 'global', 'hierarchical'"):
        get.nb_screen_df(either, "gene_003", fdr_scope="all")
    with pytest.raises(ValueError, match="'scanpy', 'pertpy', 'deseq2'"):
        get.nb_screen_df(either, "gene_003", style="edgeR")
    with pytest.raises(ValueError, match="n_top is 0"):
        get.nb_screen_df(either, n_top=0)
    with pytest.raises(KeyError, match="'symbol' is no column of .var; there are: .*'base_mean'"):
        get.nb_screen_df(either, "gene_003", gene_symbols="symbol")
    with pytest.raises(ValueError, match="no screen.*nb_compare_df"):
        get.nb_screen_df(stored, "treated_1")


def test_without_the_global_adjustment(screen):
    del screen.layers["pvals_adj_global"]
    assert len(get.nb_screen_df(screen, n_top=3)) == 3
    with pytest.raises(ValueError, match="no layer 'pvals_adj_global'"):
        get.nb_screen_df(screen, n_top=3, fdr_scope="global")


@pytest.fixture(scope="module")
def papalexi():
    return datasets.papalexi2021()


@pytest.mark.parametrize("on_disk", [False, True])
def test_of_a_real_screen(papalexi, tmp_path, on_disk):
    design = {"reference": "control", "replicate_key": "replicate", "block_key": "replicate"}
    path = tmp_path / "screen.zarr" if on_disk else None
    screen = tl.nb_screen(papalexi, "perturbation", **design, path=path, perturbations_per_chunk=4, progress=False)
    layers = {word: np.asarray(values) for word, values in screen.layers.items()}
    obs = screen.obs[["selected", "on_target_pval"]]
    obs = obs.to_memory() if on_disk else obs
    called = obs["selected"].to_numpy()[:, None] & (
        layers["pvals_adj"] <= screen.uns["nb_screen"]["fdr"]["level_within_selected"]
    )
    hits = get.nb_screen_df(screen, padj_cutoff=0.05, fdr_scope="hierarchical")
    assert len(hits) == called.sum() > 30
    own = get.nb_screen_df(screen, "STAT1", gene="STAT1")
    assert own["pvals"].item() == obs.loc["STAT1", "on_target_pval"]
    assert own["logfoldchanges"].item() < -1
    assert get.nb_screen_df(screen, n_top=1)["pvals"].item() == np.nanmin(layers["pvals"])
