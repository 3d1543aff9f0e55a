"""Every table, export and figure of every kind of result: it draws, or refuses in a sentence of ours that says what to use instead."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from anndata.experimental import read_lazy
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from scipy import stats

import nbcompare as nb
from nbcompare import get, pl, tl

SOURCE = Path(nb.__file__).parent
GENE = "gene_02"
UP, DOWN, NEUTRAL = "#d55e00", "#0072b2", "#009e73"


@pytest.fixture(autouse=True)
def _unseen():
    mpl.use("Agg")
    plt.close("all")
    yield
    plt.close("all")


@cache
def bulk() -> AnnData:
    """24 samples of three conditions in four donors and two cell types."""
    rng = np.random.default_rng(3)
    n_genes, of = 60, pd.MultiIndex.from_product([["B", "T"], ["ctrl", "high", "low"], ["d1", "d2", "d3", "d4"]])
    obs = pd.DataFrame(list(of), columns=["type", "condition", "donor"], index=[f"s{i:02d}" for i in range(24)])
    obs["sex"], obs["dose"] = np.where(obs["donor"].isin(["d1", "d2"]), "f", "m"), obs["condition"].map(DOSES)
    change = np.zeros(n_genes)
    change[:20] = rng.choice([-2.0, 2.0], 20)
    mean = rng.lognormal(4, 1, n_genes) * 2.0 ** (change * obs["condition"].eq("high").to_numpy()[:, None])
    counts = rng.negative_binomial(20, 20 / (20 + mean)).astype(np.float32)
    counts[:, -1] = 0
    adata = AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"gene_{i:02d}" for i in range(n_genes)]))
    adata.layers["length"] = rng.normal(0, 0.5, adata.shape)
    return adata


DOSES = {"ctrl": 0, "low": 5, "high": 24}
GROUPS = {"groupby": "condition", "reference": "ctrl"}
FORMULA = {"groupby": "condition", "design": "~ donor + condition"}
CALLS: dict[str, dict] = {
    "two groups": {**GROUPS, "groups": ["high"]},
    "three groups": {**GROUPS, "block_key": "donor"},
    "rest": {**GROUPS, "reference": "rest", "groups": ["high"]},
    "two columns": {"groupby": ["condition", "sex"], "reference": "ctrl | f"},
    "numbers": {"groupby": "dose", "reference": 0},
    "formula": {**FORMULA, "reference": "ctrl"},
    "contrasts": {**FORMULA, "contrast": {"up": ("condition", "high", "ctrl"), "turn": ("condition", "low", "high")}},
    "several coefficients": {**FORMULA, "contrast": "condition"},
    "ql": {**FORMULA, "contrast": "condition", "test": "ql"},
    "larger": {**GROUPS, "lfc_threshold": 0.5},
    "smaller": {**GROUPS, "lfc_threshold": 1, "alternative": "less_abs"},
    "smaller in a formula": {**FORMULA, "reference": "ctrl", "lfc_threshold": 1, "alternative": "less_abs"},
    "shrunken": {**GROUPS, "shrink": True},
    "wald": {**GROUPS, "test": "wald"},
    "mle": {**GROUPS, "method": "mle", "test": "lrt"},
    "offset": {**GROUPS, "offset": "length"},
    "posterior": {**GROUPS, "method": "quadrature"},
    "splits": {**GROUPS, "split_by": "type"},
    "splits of several coefficients": {**FORMULA, "contrast": "condition", "split_by": "type"},
    "nothing tested": {**GROUPS, "min_gene_counts": 1e9},
    "posterior, nothing tested": {**GROUPS, "min_gene_counts": 1e9, "method": "quadrature"},
    "several coefficients, nothing tested": {**FORMULA, "contrast": "condition", "min_gene_counts": 1e9},
}
SCREENS: dict[str, dict] = {
    "screen": {},
    "screen on disk": {},
    "screen with a posterior": {"method": "quadrature"},
    "screen, nothing tested": {"min_gene_counts": 1e9},
}


@cache
def _compared(kind: str) -> AnnData:
    adata = bulk().copy()
    adata = adata[adata.obs["condition"] != "low"].copy() if kind == "rest" else adata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warnings of calls are tested where they belong
        tl.nb_compare(adata, **CALLS[kind])
    return adata


def compared(kind: str) -> AnnData:
    return _compared(kind).copy()


@pytest.fixture(scope="module")
def screens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AnnData]:
    options = {"reference": "ctrl", "replicate_key": "donor", "min_cells": 1, "progress": False}
    found = {}
    cells = bulk()[bulk().obs["type"] == "B"].copy()
    cells.var_names = ["high", *cells.var_names[1:]]
    cells.obs["psbulk_cells"] = 50
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, more in SCREENS.items():
            path = tmp_path_factory.mktemp("screen") / "s.zarr" if "disk" in kind else None
            result = tl.nb_screen(cells, "condition", **options, **more, path=path)
            found[kind] = result if path is None else read_lazy(path)
    return found


def first(adata: AnnData) -> dict:
    """Arguments that name one comparison in one split."""
    results = adata.uns["nb_compare"]
    return {"group": results["comparisons"][0]} | ({"split": "B"} if "splits" in results else {})


def split_of(adata: AnnData) -> dict:
    return {"split": "B"} if "splits" in adata.uns.get("nb_compare", {}) else {}


READERS: dict[str, Callable] = {
    "nb_compare_df": lambda a: [get.nb_compare_df(a, style=s, padj_cutoff=0.5) for s in ("scanpy", "pertpy", "deseq2")][
        0
    ],
    "nb_compare_df, fold changes": lambda a: get.nb_compare_df(a, log2fc_min=0),
    "nb_gene_df": lambda a: get.nb_gene_df(a, GENE),
    "to_rank_genes_groups": lambda a: get.to_rank_genes_groups(a, **split_of(a)),
    "volcano": lambda a: pl.volcano(a, **first(a), n_top=2),
    "ma": lambda a: pl.ma(a, **first(a), n_top=2),
    "pvalues": lambda a: pl.pvalues(a, **first(a)),
    "qq": lambda a: pl.pvalues(a, **first(a), kind="qq"),
    "dispersion": lambda a: pl.dispersion(a, **first(a)),
    "gene": lambda a: pl.gene(a, GENE, **split_of(a)),
    "gene, log": lambda a: pl.gene(a, GENE, **split_of(a), log=True),
    "forest": lambda a: pl.forest(a, GENE),
    "posterior": lambda a: pl.posterior(a, GENE, **first(a)),
    "agreement": lambda a: pl.agreement(a, ["nb_compare"] * 2, **first(a)),
    "agreement, dispersions": lambda a: pl.agreement(a, ["nb_compare"] * 2, **first(a), values="dispersions"),
    "nb_screen_df": lambda a: get.nb_screen_df(a, n_top=3),
    "screen_map": pl.screen_map,
    "perturbation_strength": pl.perturbation_strength,
    "knockdown": pl.knockdown,
}
OF_SCREENS = {"nb_screen_df", "screen_map", "perturbation_strength", "knockdown"}
EFFECTS = {"nb_compare_df, fold changes", "volcano", "ma", "agreement", "to_rank_genes_groups"}
REFUSED: dict[str, set[str]] = {  # beside what is for screens alone
    "contrasts": {"to_rank_genes_groups"},
    "several coefficients": EFFECTS,
    "ql": EFFECTS,
    "several coefficients, nothing tested": EFFECTS,
    "smaller": {"to_rank_genes_groups"},
    "smaller in a formula": {"to_rank_genes_groups"},
    "splits of several coefficients": EFFECTS,
    "posterior, nothing tested": {"posterior"},
    "posterior": set(),
}


def outcome(call: Callable, result: AnnData) -> str:
    """What was returned, or the refusal; an error that is not ours, or an empty panel, fails."""
    refusal: Exception | None = None
    try:
        drawn = call(result)
    except (ValueError, KeyError) as error:
        refusal = error
    if refusal is not None:
        raised = traceback.extract_tb(refusal.__traceback__)[-1].filename
        assert Path(raised).is_relative_to(SOURCE), f"{type(refusal).__name__} of {raised}: {refusal}"
        sentence = str(refusal.args[0])
        assert sentence.endswith((".", "?")), sentence
        assert len(sentence) > 40, sentence
        return "refused"
    if isinstance(drawn, mpl.axes.Axes):
        drawn.figure.canvas.draw()
        assert drawn.get_title(loc="left")
        shown = [c for c in drawn.collections if np.isfinite(np.asarray(c.get_offsets(), float)).any()]
        said = [text for text in drawn.texts if text.get_gid() in ("nothing tested", "untested", "no fold change")]
        assert shown or drawn.patches or said, "an empty panel"
        plt.close(drawn.figure)
    return "drawn"


@pytest.mark.parametrize("kind", CALLS)
def test_results_of_nb_compare(kind):
    refused = {name for name, call in READERS.items() if outcome(call, compared(kind)) == "refused"}
    without_posterior = {"posterior"} if "prior" not in compared(kind).uns["nb_compare"] else set()
    assert refused == REFUSED.get(kind, set()) | OF_SCREENS | without_posterior


SCREEN_READERS: dict[str, Callable] = {
    "nb_screen_df": lambda s: get.nb_screen_df(s, n_top=3),
    "a perturbation": lambda s: get.nb_screen_df(s, "high"),
    "screen_map": pl.screen_map,
    "screen_map of names": lambda s: pl.screen_map(s, perturbations=["high", "low"], genes=[GENE, "high"]),
    "perturbation_strength": pl.perturbation_strength,
    "ranked": lambda s: pl.perturbation_strength(s, kind="ranked"),
    "knockdown": pl.knockdown,
    "volcano": lambda s: pl.volcano(s, "high", n_top=2),
    "ma": lambda s: pl.ma(s, "high", n_top=2),
    "pvalues": lambda s: pl.pvalues(s, "high"),
    "qq": lambda s: pl.pvalues(s, "high", kind="qq"),
    "posterior": lambda s: pl.posterior(s, GENE, "high"),
    "nb_compare_df": get.nb_compare_df,
    "nb_gene_df": lambda s: get.nb_gene_df(s, GENE),
    "to_rank_genes_groups": get.to_rank_genes_groups,
    "dispersion": lambda s: pl.dispersion(s, "high"),
    "gene": lambda s: pl.gene(s, GENE),
    "forest": lambda s: pl.forest(s, GENE),
    "agreement": lambda s: pl.agreement(s, ["nb_compare", "b"]),
}
OF_COMPARISONS = {"nb_compare_df", "nb_gene_df", "to_rank_genes_groups", "dispersion", "gene", "forest", "agreement"}


@pytest.mark.parametrize("kind", SCREENS)
def test_results_of_nb_screen(screens, kind):
    refused = {name for name, call in SCREEN_READERS.items() if outcome(call, screens[kind]) == "refused"}
    untested = {"screen_map", "perturbation_strength", "ranked", "knockdown"} if "nothing" in kind else set()
    assert refused == OF_COMPARISONS | untested | (set() if "posterior" in kind else {"posterior"})


def legend(ax) -> list[str]:
    return [text.get_text().lstrip("0123456789, ") for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("kind", ["smaller", "smaller in a formula"])
def test_genes_that_are_shown_not_to_change_are_neither_up_nor_down(kind):
    adata = compared(kind)
    table = get.nb_compare_df(adata, "low")
    gene = table["names"].iloc[0]
    assert table["pvals_adj"].iloc[0] < 0.05
    for draw in (pl.volcano, pl.ma):
        ax = draw(adata, "low")
        assert legend(ax) == ["|log2 FC| < 1", "not significant"]
        (drawn,) = [c for c in ax.collections if c.get_gid() == "|log2 FC| < 1"]
        assert len(drawn.get_offsets()) == (table["pvals_adj"] <= 0.05).sum()
        assert to_hex(drawn.get_facecolor()[0]) == NEUTRAL
        assert sum(line.get_gid() == "lfc_threshold" for line in ax.lines) == 2
        with pytest.raises(ValueError, match="lfc_cutoff is 0.5.*less_abs"):
            draw(adata, "low", lfc_cutoff=0.5)
    assert [t.get_text() for t in pl.gene(adata, gene).texts] == ["|log2 FC| < 1 (5% FDR)"]
    (dots,) = [c for c in pl.forest(adata, gene).collections if c.get_gid() == "effect"]
    assert {to_hex(c) for c in dots.get_facecolor()} <= {NEUTRAL, "#4d4d4d"}
    assert NEUTRAL in {to_hex(c) for c in dots.get_facecolor()}
    with pytest.raises(ValueError, match="less_abs.*nb_compare_df"):
        get.to_rank_genes_groups(adata)
    assert not {"rank_genes_groups"} & set(adata.uns)


@pytest.mark.parametrize("kind", ["several coefficients", "ql", "splits of several coefficients"])
def test_a_test_of_several_coefficients_has_no_direction(kind):
    adata = compared(kind)
    table = get.nb_compare_df(adata, **first(adata))
    gene = table["names"].iloc[0]
    assert table["pvals_adj"].iloc[0] < 1e-3
    for draw in (pl.volcano, pl.ma):
        with pytest.raises(ValueError, match="tests 2 coefficients together.*pl.gene"):
            draw(adata, **first(adata))
    with pytest.raises(ValueError, match="tests 2 coefficients together.*log2fc_min"):
        get.nb_compare_df(adata, log2fc_min=0)
    ax = pl.gene(adata, gene, **split_of(adata))
    assert [text.get_text() for text in ax.texts] == ["condition: changed (5% FDR)"]
    words = [text.get_text() for text in pl.forest(adata, gene, **split_of(adata)).texts]
    assert "several coefficients together: changed" in words


def test_directions_of_other_tests_stay():
    adata = compared("larger")
    assert legend(pl.volcano(adata, "high")) == ["down", "up", "not significant"]
    assert pl.volcano(adata, "high").get_xlabel().endswith("tested: |log2 FC| > 0.5")
    gene = get.nb_compare_df(adata, "high", log2fc_min=0)["names"].iloc[0]
    assert [t.get_text() for t in pl.gene(adata, gene).texts] == ["up, |log2 FC| > 0.5 (5% FDR)"]
    contrasts = compared("contrasts")
    gene = get.nb_compare_df(contrasts, "up", log2fc_min=0)["names"].iloc[0]
    assert [t.get_text() for t in pl.gene(contrasts, gene).texts] == ["up: up (5% FDR)", "turn: down (5% FDR)"]


OFFSETS: dict[str, dict] = {
    "groups": GROUPS,
    "formula": {"groupby": "condition", "reference": "ctrl", "design": "~ condition"},
    "splits": {**GROUPS, "split_by": "type"},
    "splits of a formula": {"groupby": "condition", "reference": "ctrl", "design": "~ condition", "split_by": "type"},
}


@pytest.mark.parametrize("given", ["array", "layer"])
@pytest.mark.parametrize("kind", OFFSETS)
def test_a_gene_with_an_offset(kind, given, tmp_path):
    """A gene that is four times as long in one condition: means and intervals agree with the fold change, after a file too."""
    adata, place = bulk().copy(), 25
    adata.layers["length"] = np.zeros(adata.shape)
    long = (adata.obs["condition"] == "high").to_numpy()
    adata.layers["length"][long, place] = np.log(4)
    counts = np.asarray(adata.X).copy()
    counts[long, place] *= 4
    adata.X = counts
    gene, offset = adata.var_names[place], "length" if given == "layer" else adata.layers["length"]
    tl.nb_compare(adata, **OFFSETS[kind], offset=offset)
    assert adata.varm["nb_compare_offset_factors"].dtype == np.float32
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata = read_h5ad(tmp_path / "a.h5ad")
    for column, group in enumerate(adata.uns["nb_compare"]["comparisons"]):
        split = split_of(adata)
        if split:
            split = {"split": adata.uns["nb_compare"]["splits"][column]}
        table = get.nb_gene_df(adata, gene, **split)
        by = table.groupby("condition", observed=True)["fitted_mean"].first()
        change = adata.varm["nb_compare_logfoldchanges"][place, column]
        tolerance = 0.02  # the trend that weights the samples is stored at the mean of all
        assert np.log2(by[group] / by["ctrl"]) == pytest.approx(change, abs=tolerance)
        assert abs(change) < 0.7
    np.testing.assert_allclose(
        table["normalized"], table["counts"] / table["size_factor"] / table["offset_factor"], rtol=1e-12
    )
    for log in (False, True):
        ax = pl.gene(adata, gene, split=split.get("split"), log=log)
        drawn = np.concatenate([c.get_offsets()[:, 1] for c in ax.collections if c.get_gid() in DOSES])
        np.testing.assert_allclose(np.sort(drawn), np.sort(table["normalized"]))
    tl.nb_compare(adata, **OFFSETS[kind])
    assert "nb_compare_offset_factors" not in adata.varm
    assert "offset_factor" not in get.nb_gene_df(adata, gene)


@pytest.mark.parametrize("kind", ["screen", "screen on disk"])
def test_tests_of_a_screen_beyond_the_smallest_number(screens, kind, tmp_path):
    """Perturbations and genes whose p-values are zero are ordered by their scores, of 32 bits as of 64."""
    screen = screens["screen"].copy()
    assert screen.layers["scores"].dtype == np.float32
    score = np.array([50, -70, 60], np.float32)
    for word, values in {"scores": score, "pvals": 0.0, "pvals_adj": 0.0, "pvals_adj_global": 0.0}.items():
        screen.layers[word][0, 5:8] = values
    screen.layers["scores"][1, 5], screen.layers["pvals"][1, 5] = 90, 0
    screen.obs["pval"], screen.obs["n_hits"] = 0.0, 3
    if kind == "screen on disk":
        screen.write_zarr(tmp_path / "s.zarr")
        screen = read_lazy(tmp_path / "s.zarr")
    assert get.nb_screen_df(screen, n_top=3)["scores"].to_list() == [90, -70, 60]
    names = screen.var_names[[6, 7, 5]].to_list()
    assert get.nb_screen_df(screen, screen.obs_names[0], n_top=3)["names"].to_list() == names
    drawn = pl.volcano(screen, screen.obs_names[0], n_top=0).collections
    height = -(np.log(2) + stats.norm.logsf(70)) / np.log(10)
    assert max(c.get_offsets()[:, 1].max() for c in drawn if len(c.get_offsets())) == pytest.approx(height)
    ranked = pl.perturbation_strength(screen, kind="ranked")
    assert ranked.texts[0].get_text().split("\n")[0] == f"1  {screen.obs_names[1]}"


def test_infinite_fold_changes_are_drawn(screens):
    adata = compared("three groups")
    place = adata.var_names.get_loc(GENE)
    for word, value in {"logfoldchanges": np.inf, "lfc_lower": 0.5, "lfc_upper": np.inf}.items():
        adata.varm[f"nb_compare_{word}"][place, 0] = value
    ax = pl.forest(adata, GENE)
    ax.figure.canvas.draw()
    (dots,) = [c for c in ax.collections if c.get_gid() == "effect"]
    assert dots.get_offsets()[0, 0] == ax.get_xlim()[1]
    screen = screens["screen"].copy()
    screen.layers["logfoldchanges"][0, 3], screen.layers["logfoldchanges"][0, 4] = np.inf, -np.inf
    ax = pl.screen_map(screen, perturbations=list(screen.obs_names), genes=list(screen.var_names[:8]))
    ax.figure.canvas.draw()
    (squares,) = [c for c in ax.collections if c.get_gid() == "effects"]
    assert np.isfinite(squares.norm.vmax)
    assert not np.ma.getmaskarray(squares.get_array()).any()


def test_the_figure_says_that_nothing_was_tested():
    adata = compared("nothing tested")
    for draw in (pl.volcano, pl.ma, pl.pvalues, pl.dispersion):
        said = [text.get_text() for text in draw(adata, "high").texts if text.get_gid() == "nothing tested"]
        assert len(said) == 1
        assert said[0].startswith("nothing tested: low counts")


IN_SCANPY = ["two groups", "three groups", "rest", "two columns", "numbers", "formula", "larger", "splits", "posterior"]
PLOTS = ["", "_violin", "_stacked_violin", "_heatmap", "_dotplot", "_matrixplot", "_tracksplot"]


@pytest.mark.parametrize("kind", IN_SCANPY)
@pytest.mark.filterwarnings("default")
def test_results_in_scanpy(kind, tmp_path):
    """Every table and plot of scanpy takes what is written."""
    import scanpy as sc

    adata = compared(kind)
    get.to_rank_genes_groups(adata, **split_of(adata))
    groupby = adata.uns["rank_genes_groups"]["params"]["groupby"]
    groups = adata.uns["rank_genes_groups"]["names"].dtype.names
    assert set(groups) <= set(adata.obs[groupby].astype(str))
    assert groupby == {"two columns": "condition | sex", "numbers": "dose as text"}.get(kind, "condition")
    get.to_rank_genes_groups(adata, **split_of(adata), key_added="again")
    for group in groups:
        assert len(sc.get.rank_genes_groups_df(adata, group)) == adata.n_vars
    adata.write_h5ad(tmp_path / "a.h5ad")
    sc.pp.log1p(adata)
    for plot in PLOTS if kind in ("two columns", "numbers") else ["_dotplot"]:
        more = {} if plot in {"", "_violin"} else {"dendrogram": False}
        getattr(sc.pl, f"rank_genes_groups{plot}")(adata, n_genes=2, show=False, **more)
        plt.close("all")
    sc.tl.filter_rank_genes_groups(adata, min_in_group_fraction=0, max_out_group_fraction=1)
    assert "rank_genes_groups_filtered" in adata.uns


def test_a_column_of_joined_labels_replaces_no_other():
    adata = compared("two columns")
    adata.obs["condition | sex"] = "mine"
    with pytest.raises(ValueError, match=r"holds other values\. Rename it"):
        get.to_rank_genes_groups(adata)
    assert "rank_genes_groups" not in adata.uns


def test_an_empty_name_is_no_field():
    adata = bulk().copy()
    adata.obs["condition"] = adata.obs["condition"].replace({"low": ""})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tl.nb_compare(adata, **GROUPS)
    with pytest.raises(ValueError, match="empty text.*Rename it"):
        get.to_rank_genes_groups(adata)
