"""The artists that the figures draw. Pictures themselves are looked at, not compared."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgba
from scipy import stats

from nbcompare import datasets, get, pl, tl
from nbcompare._nb.status import Status

UP, DOWN, GREY = "#d55e00", "#0072b2", "#b8b8b8"


def points(ax, gid):
    """Positions of the points that are drawn under this name."""
    found = [collection for collection in ax.collections if collection.get_gid() == gid]
    assert len(found) == 1
    return np.asarray(found[0].get_offsets())


def colour(ax, gid):
    return to_hex(next(c for c in ax.collections if c.get_gid() == gid).get_facecolor()[0])


def names(ax):
    return [text.get_text() for text in ax.texts if text.get_text().startswith("gene_")]


DRAWN = {
    "volcano": lambda adata, **more: pl.volcano(adata, "treated_1", **more),
    "ma": lambda adata, **more: pl.ma(adata, "treated_1", **more),
    "dispersion": lambda adata, **more: pl.dispersion(adata, "treated_1", **more),
    "histogram": lambda adata, **more: pl.pvalues(adata, "treated_1", **more),
    "qq": lambda adata, **more: pl.pvalues(adata, "treated_1", kind="qq", **more),
    "gene": lambda adata, **more: pl.gene(adata, "gene_010", **more),
}


@pytest.mark.parametrize("figure", DRAWN)
class TestEveryFigure:
    def test_draws_on_the_given_axes(self, stored, figure):
        _, axes = plt.subplots(1, 2)
        assert DRAWN[figure](stored, ax=axes[1]) is axes[1]
        assert not axes[0].has_data()
        assert plt.get_fignums() == [axes[0].figure.number]

    def test_makes_a_figure_and_says_what_the_axes_are(self, stored, figure):
        ax = DRAWN[figure](stored)
        assert ax.figure.get_axes() == [ax]
        assert ax.get_ylabel()
        assert ax.get_title(loc="left")
        if figure != "gene":
            assert ax.get_xlabel()
            assert ax.get_title(loc="left") == "treated_1 vs ctrl"

    def test_any_key(self, stored, figure):
        for store in (stored.varm, stored.var):
            for word in [word for word in store if str(word).startswith("nb_compare_")]:
                store[str(word).replace("nb_compare", "second")] = store[word].copy()
                del store[word]
        stored.uns["second"] = stored.uns.pop("nb_compare")
        assert DRAWN[figure](stored, key="second").has_data()
        with pytest.raises(KeyError, match="there are: 'second'"):
            DRAWN[figure](stored, key="nb_compare")

    def test_saves(self, stored, figure, tmp_path):
        ax = DRAWN[figure](stored)
        ax.figure.savefig(tmp_path / "figure.png", dpi=50)
        assert (tmp_path / "figure.png").stat().st_size > 2000

    def test_data_are_not_changed(self, stored, figure):
        before = stored.copy()
        DRAWN[figure](stored)
        assert set(stored.varm) == set(before.varm)
        assert stored.var.equals(before.var)
        assert stored.uns["nb_compare"]["samples"].equals(before.uns["nb_compare"]["samples"])


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma, pl.dispersion, pl.pvalues])
def test_comparison_may_go_unnamed_only_if_alone(stored, stored_pair, draw):
    with pytest.raises(ValueError, match="holds 2 comparisons.*'treated_1', 'treated_2'"):
        draw(stored)
    with pytest.raises(KeyError, match="Did you mean 'treated_2'"):
        draw(stored, "treatd_2")
    assert draw(stored_pair).get_title(loc="left") == "treated_1 vs ctrl"


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma])
def test_called_genes(stored, draw):
    ax = draw(stored, "treated_1", padj_cutoff=0.1, lfc_cutoff=0.5, n_top=4)
    table = get.nb_compare_df(stored, "treated_1")
    called = (table["pvals_adj"] < 0.1) & (table["logfoldchanges"].abs() >= 0.5)
    up, down = called & (table["logfoldchanges"] > 0), called & (table["logfoldchanges"] < 0)
    assert up.any()
    assert down.any()
    quiet = table["pvals"].notna() & ~called
    for gid, want, shade in (("up", up, UP), ("down", down, DOWN), ("not significant", quiet, GREY)):
        drawn = points(ax, gid)
        assert len(drawn) == want.sum()
        change = drawn[:, 0 if draw is pl.volcano else 1]
        np.testing.assert_allclose(np.sort(change), np.sort(table["logfoldchanges"][want]))
        assert colour(ax, gid) == shade
        assert next(c for c in ax.collections if c.get_gid() == gid).get_rasterized()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [f"{down.sum()} down", f"{up.sum()} up", f"{quiet.sum()} not significant"]
    assert sorted(names(ax)) == sorted(table["names"][called].head(4))
    assert "log$_2$ fold change" in (ax.get_xlabel(), ax.get_ylabel())
    lines = [line for line in ax.lines if line.get_gid() == "lfc_cutoff"]
    assert len(lines) == 2


def test_labels_do_not_overlap(stored):
    ax = pl.volcano(stored, "treated_1", padj_cutoff=0.2, n_top=8)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text().startswith("gene_")]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert ax.figure.bbox.contains(box.x0, box.y0)
        assert ax.figure.bbox.contains(box.x1, box.y1)
        for other in boxes[:i]:
            assert not (box.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9)))


def test_genes_asked_for_are_named(stored):
    quiet = get.nb_compare_df(stored, "treated_1")["names"].iloc[150]
    for draw in (pl.volcano, pl.ma):
        assert names(draw(stored, "treated_1", n_top=0, genes=[quiet])) == [quiet]
        assert len(names(draw(stored, "treated_1", n_top=2, genes=quiet))) == 3
        with pytest.raises(KeyError, match="There is no gene 'gene_10'"):
            draw(stored, "treated_1", genes=["gene_10"])


def test_labels_are_symbols_where_asked(stored):
    stored.var["symbol"] = [f"gene_S{i}" for i in range(stored.n_vars)]
    ax = pl.ma(stored, "treated_1", gene_symbols="symbol", n_top=2)
    assert all(name.startswith("gene_S") for name in names(ax))
    with pytest.raises(KeyError, match="no column of .var"):
        pl.volcano(stored, "treated_1", gene_symbols="nothing")
    assert pl.gene(stored, "gene_003", gene_symbols="symbol").get_title(loc="left") == "gene_S3"


def test_volcano_threshold_separates_called_from_not_called(stored):
    ax = pl.volcano(stored, "treated_1", n_top=0)
    line = next(line for line in ax.lines if line.get_gid() == "padj_cutoff").get_ydata()[0]
    assert max(points(ax, "not significant")[:, 1]) < line
    assert min([*points(ax, "up")[:, 1], *points(ax, "down")[:, 1]]) >= line
    assert names(ax) == []


def test_p_values_of_zero_have_the_height_of_their_scores(stored):
    """-log10 of twice the normal tail, also where the p-value is too small for a number; tables and labels in this order."""
    p, score = stored.varm["nb_compare_pvals"], stored.varm["nb_compare_scores"]
    genes = np.argsort(p[:, 0])[:4]
    p[genes, 0] = stored.varm["nb_compare_pvals_adj"][genes, 0] = 0
    score[genes, 0] = [40, -60, 50, -70]
    height = -(np.log(2) + stats.norm.logsf([70, 60, 50, 40])) / np.log(10)
    assert height[0] == pytest.approx((70**2 / 2 + np.log(70 * np.sqrt(np.pi / 2))) / np.log(10), abs=1e-3)  # its tail
    ax = pl.volcano(stored, "treated_1", n_top=3)
    drawn = np.concatenate([points(ax, gid)[:, 1] for gid in ("up", "down")])
    np.testing.assert_allclose(np.sort(drawn)[::-1][:4], height, rtol=1e-12)
    assert height[0] < ax.get_ylim()[1] < 1.2 * height[0]
    quantiles = points(pl.pvalues(stored, "treated_1", kind="qq"), "significant")
    np.testing.assert_allclose(quantiles[:4, 1], height, rtol=1e-12)
    assert np.all(np.diff(quantiles[:, 0]) < 0)
    expected = stored.var_names[genes[[3, 1, 2, 0]]].to_list()
    assert get.nb_compare_df(stored, "treated_1")["names"].iloc[:4].to_list() == expected
    assert sorted(names(ax)) == sorted(expected[:3])


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma, pl.pvalues])
def test_nothing_called(stored, draw):
    stored.varm["nb_compare_pvals_adj"] = np.where(np.isnan(stored.varm["nb_compare_pvals"]), np.nan, 1.0)
    assert names(draw(stored, "treated_1")) == []


def test_nothing_tested(stored):
    for word in ("pvals", "pvals_adj", "scores"):
        stored.varm[f"nb_compare_{word}"] = np.full((stored.n_vars, 2), np.nan)
    stored.varm["nb_compare_status"][:, 0] = Status.LOW_COUNTS
    for draw in (pl.volcano, pl.ma, pl.pvalues, pl.dispersion):
        ax = draw(stored, "treated_1")
        assert [text.get_text() for text in ax.texts if text.get_gid() == "nothing tested"] == [
            "nothing tested: low counts"
        ]
        assert ax.get_title(loc="left") == "treated_1 vs ctrl"


def test_dispersion_points_trend_and_band(stored):
    stored.varm["nb_compare_dispersions_genewise"][:7, 0] = 0
    ax = pl.dispersion(stored, "treated_1")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    shown = (stored.var["nb_compare_base_mean"] > 0).to_numpy()
    assert len(points(ax, "used")) == shown.sum()
    below, above = points(ax, "genewise below"), points(ax, "genewise")
    assert len(below) + len(above) == shown.sum()
    assert len(below) >= shown[:7].sum()
    assert below[:, 1].max() < above[:, 1].min()
    trend = next(line for line in ax.lines if line.get_gid() == "trend")
    knots = stored.uns["nb_compare"]["trend"]
    depth = stored.uns["nb_compare"]["samples"]["size_factor"].mean()
    x, y = trend.get_data()
    assert np.all(np.diff(x) > 0)
    np.testing.assert_allclose(
        np.log(y), np.interp(np.log(x * depth), np.log(knots["mean"]), np.log(knots["dispersion"]))
    )
    base_mean = stored.var["nb_compare_base_mean"][shown]
    np.testing.assert_allclose([x[0], x[-1]], [base_mean.min(), base_mean.max()])
    band = next(c for c in ax.collections if c.get_gid() == "band").get_paths()[0].vertices
    width = band[:, 1].max() / np.max(trend.get_ydata())
    assert width == pytest.approx(np.exp(1.96 * np.sqrt(stored.uns["nb_compare"]["trend"]["log_dispersion_var"])))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["gene-wise", "moderated", "trend", "95% band"]
    assert not [line for line in ax.lines if line.get_gid() == "dispersion_ratio"]


def test_dispersion_of_a_high_dispersion_group_and_of_pairs(stored):
    stored.uns["nb_compare"]["trend"]["dispersion_ratio"] = np.array([[1.0, 1.0], [1.0, 2.5]])
    lines = {line.get_gid(): line.get_ydata() for line in pl.dispersion(stored, "treated_2").lines}
    np.testing.assert_allclose(lines["dispersion_ratio"], 2.5 * lines["trend"])
    stored.uns["nb_compare"]["params"]["dispersion"] = "pair"
    assert not pl.dispersion(stored, "treated_1").lines
    assert pl.dispersion(stored, "treated_2").lines


def test_dispersion_after_an_unmoderated_test(stored):
    del stored.varm["nb_compare_dispersions_genewise"], stored.var["nb_compare_dispersion_trend"]
    stored.uns["nb_compare"]["trend"] = {}
    ax = pl.dispersion(stored, "treated_1")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["gene-wise"]
    assert not ax.lines


def test_histogram_bars_and_null_height(stored):
    ax = pl.pvalues(stored, "treated_1", bins=10)
    p = stored.varm["nb_compare_pvals"][:, 0]
    p = p[~np.isnan(p)]
    np.testing.assert_array_equal(ax.patches[0].get_data().values, np.histogram(p, 10, (0, 1))[0])
    height = next(line for line in ax.lines if line.get_gid() == "null").get_ydata()[0]
    assert height == pytest.approx(min(1, 2 * np.mean(p > 0.5)) * p.size / 10)
    assert ax.get_xlim() == (0, 1)
    with pytest.raises(ValueError, match="'histogram', 'qq'"):
        pl.pvalues(stored, "treated_1", kind="bars")


def test_quantiles_of_uniform_p_values_lie_in_the_band(stored):
    uniform = np.random.default_rng(5).uniform(size=(stored.n_vars, 2))
    stored.varm["nb_compare_pvals"] = uniform
    ax = pl.pvalues(stored, "treated_1", kind="qq", padj_cutoff=0)
    drawn = points(ax, "not significant")
    assert len(drawn) == stored.n_vars
    np.testing.assert_allclose(np.sort(10 ** -drawn[:, 1]), np.sort(uniform[:, 0]))
    band = next(c for c in ax.collections if c.get_gid() == "band").get_paths()[0]
    assert band.contains_points(drawn).mean() > 0.85


def test_gene_replicates_means_and_blocks(stored):
    stored.varm["nb_compare_pvals_adj"][10] = [0.001, 0.5]
    ax = pl.gene(stored, "gene_010")
    table = get.nb_gene_df(stored, "gene_010")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ctrl", "treated_1", "treated_2"]
    for position, (level, rows) in enumerate(table.groupby("condition")):
        drawn = points(ax, level)
        np.testing.assert_allclose(np.sort(drawn[:, 1]), np.sort(rows["normalized"]))
        assert np.all(np.abs(drawn[:, 0] - position) < 0.3)
        mean = next(c for c in ax.collections if c.get_gid() == f"mean {level}").get_segments()[0]
        np.testing.assert_allclose(mean[:, 1], rows["fitted_mean"].iloc[0])
    went_up = stored.varm["nb_compare_logfoldchanges"][10, 0] > 0
    assert colour(ax, "treated_1") == (UP if went_up else DOWN)
    assert colour(ax, "treated_2") == colour(ax, "ctrl") == "#4d4d4d"
    assert any(re.search(r"(up|down) \(5% FDR\)", text.get_text()) for text in ax.texts)
    joined = [line for line in ax.lines if line.get_gid() == "block"]
    assert [len(line.get_xdata()) for line in joined] == [3, 3, 3]
    assert ax.get_ylim()[0] == 0


def test_gene_blocks_stand_in_one_order_and_many_conditions_are_not_joined(stored):
    samples = stored.uns["nb_compare"]["samples"]
    ax = pl.gene(stored, "gene_010")
    for position, level in enumerate(["ctrl", "treated_1", "treated_2"]):
        rows = samples[samples["condition"] == level].sort_values("block")
        np.testing.assert_allclose(np.sort(points(ax, level)[:, 0]) - position, [-2 / 15, 0, 2 / 15], atol=1e-12)
        order = np.argsort(points(ax, level)[:, 0])
        want = get.nb_gene_df(stored, "gene_010").loc[rows.index, "normalized"]
        np.testing.assert_allclose(points(ax, level)[order, 1], want)
    many = datasets.simulate(n_genes=60, n_conditions=5, n_cells=20, paired=True, rng=5)
    tl.nb_compare(many, "condition", reference="ctrl", replicate_key="replicate", block_key="donor")
    assert not [line for line in pl.gene(many, "gene_10").lines if line.get_gid() == "block"]


def test_gene_of_some_comparisons_and_without_blocks(stored, stored_pair):
    ax = pl.gene(stored, "gene_010", "treated_2")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ctrl", "treated_2"]
    assert not [line for line in pl.gene(stored_pair, "gene_010").lines if line.get_gid() == "block"]
    with pytest.raises(KeyError, match="no gene"):
        pl.gene(stored, "gene_10")


def test_gene_on_a_log_axis_keeps_samples_without_counts(stored):
    dense = stored.X.toarray()
    dense[(stored.obs["condition"] == "treated_1").to_numpy(), 10] = 0
    stored.X = dense
    ax = pl.gene(stored, "gene_010", log=True)
    assert ax.get_yscale() == "log"
    assert "log$_2$" in ax.get_ylabel()
    samples = stored.uns["nb_compare"]["samples"]
    depth = samples["size_factor"][samples["condition"] == "treated_1"]
    np.testing.assert_allclose(np.sort(points(ax, "treated_1")[:, 1]), np.sort(0.5 / depth))


def test_colours_differ_for_readers_who_see_no_red_or_green():
    """Deuteranopia, by the matrix of Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB."""
    deficient = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    seen = [deficient @ (np.array(to_rgba(name)[:3]) ** 2.2) for name in (UP, DOWN, GREY)]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert np.linalg.norm(one - other) > 0.25


def test_missing_package_says_how_to_get_it(stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "adjustText", None)
    with pytest.raises(ImportError, match=r"pip install .*nbcompare\[plot\]"):
        pl.volcano(stored, "treated_1")
    assert pl.volcano(stored, "treated_1", n_top=0).has_data()


def test_import_loads_no_matplotlib():
    code = "import sys, nbcompare.pl; assert 'matplotlib' not in sys.modules and 'adjustText' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
