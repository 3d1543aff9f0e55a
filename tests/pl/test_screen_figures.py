"""The artists that the figures of a screen draw, in memory and lazily read."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgba_array
from scipy import stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from nbcompare import get, pl
from nbcompare.pl import _knockdown, _panel
from nbcompare.pl._clustering import cluster

UP, DOWN, GREY, PICKED = "#d55e00", "#0072b2", "#b8b8b8", "#009e73"


@pytest.fixture(params=["in memory", "lazily read"])
def either(request, screen, lazy_screen):
    """The same screen, in memory and on disk."""
    return screen if request.param == "in memory" else lazy_screen


def of_gid(ax, gid):
    found = [artist for artist in [*ax.collections, *ax.lines, *ax.patches] if artist.get_gid() == gid]
    assert found
    return found[0]


def points(ax, gid):
    return np.asarray(of_gid(ax, gid).get_offsets())


def names(ax):
    return {text.get_text() for text in ax.texts if text.get_text().startswith(("gene_", "pert_"))}


DRAWN = {
    "screen_map": pl.screen_map,
    "perturbation_strength": pl.perturbation_strength,
    "ranked": lambda screen, **more: pl.perturbation_strength(screen, kind="ranked", **more),
    "knockdown": pl.knockdown,
    "volcano": lambda screen, **more: pl.volcano(screen, "gene_003", **more),
    "ma": lambda screen, **more: pl.ma(screen, "gene_003", **more),
    "pvalues": lambda screen, **more: pl.pvalues(screen, "gene_003", **more),
}


@pytest.mark.parametrize("figure", DRAWN)
class TestEveryFigure:
    def test_draws_on_the_given_axes(self, screen, figure):
        _, axes = plt.subplots(1, 2)
        assert DRAWN[figure](screen, ax=axes[1]) is axes[1]
        assert not axes[0].has_data()
        assert plt.get_fignums() == [axes[0].figure.number]

    def test_makes_a_figure_that_saves(self, either, figure, tmp_path):
        ax = DRAWN[figure](either)
        assert ax.figure.get_axes()[0] is ax
        assert "vs control" in ax.get_title(loc="left")
        assert ax.get_xlabel()
        assert ax.get_ylabel() or figure == "knockdown"
        ax.figure.savefig(tmp_path / "figure.png", dpi=50)
        assert (tmp_path / "figure.png").stat().st_size > 2000

    def test_needs_a_screen(self, stored, figure):
        with pytest.raises((ValueError, KeyError), match="no screen|no comparison 'gene_003'"):
            DRAWN[figure](stored)


class TestScreenMap:
    def test_shows_the_strongest_and_what_they_move(self, either, screen):
        ax = pl.screen_map(either, n_perturbations=12, n_genes=20)
        shown = [label.get_text() for label in ax.get_yticklabels()]
        genes = [label.get_text() for label in ax.get_xticklabels()]
        strongest = screen.obs.sort_values(["n_hits", "pval"], ascending=[False, True]).index[:12]
        assert set(shown) == set(strongest)
        assert len(set(genes)) == 20
        part = screen[strongest]
        called = (part.layers["pvals_adj"] < 0.05) & (strongest.to_numpy()[:, None] != screen.var_names.to_numpy())
        n_moved = dict(zip(screen.var_names, called.sum(axis=0), strict=True))
        assert min(n_moved[gene] for gene in genes) >= max(n_moved[g] for g in screen.var_names if g not in genes)

    def test_squares(self, either, screen):
        ax = pl.screen_map(either, n_perturbations=12, n_genes=20)
        shown = [label.get_text() for label in ax.get_yticklabels()]
        genes = [label.get_text() for label in ax.get_xticklabels()]
        part = screen[shown, genes]
        squares = of_gid(ax, "effects")
        np.testing.assert_allclose(squares.get_array(), part.layers["logfoldchanges"].ravel(), rtol=1e-6)
        paths = np.stack([path.vertices[:4] for path in squares.get_paths()])
        y, x = (index.ravel() for index in np.indices(part.shape))
        np.testing.assert_allclose(paths.mean(axis=1), np.stack([x, y], axis=1), atol=1e-12)
        side = np.ptp(paths[:, :, 0], axis=1)
        called = (part.layers["pvals_adj"] < 0.05).ravel()
        assert 0 < called.sum() < called.size
        np.testing.assert_allclose(side, np.where(called, 0.92, 0.42))
        assert squares.norm.vmin == -squares.norm.vmax
        np.testing.assert_allclose(squares.cmap([0.25, 0.75]), to_rgba_array([DOWN, UP]), atol=0.02)

    def test_own_targets_are_framed(self, screen):
        names = ["gene_003", "gene_004", "pert_040"]
        ax = pl.screen_map(screen, perturbations=names, genes=["gene_100", *names[:2]])
        shown = [label.get_text() for label in ax.get_yticklabels()]
        genes = [label.get_text() for label in ax.get_xticklabels()]
        frames = {patch.get_xy() for patch in ax.patches if patch.get_gid() == "own target"}
        assert frames == {(genes.index(name) - 0.5, shown.index(name) - 0.5) for name in names[:2]}

    def test_untested_has_no_colour(self, screen):
        untested = screen.var_names[screen.var["base_mean"] < 2][0]
        ax = pl.screen_map(screen, perturbations=["gene_003", "pert_040"], genes=[untested, "gene_003"])
        squares = of_gid(ax, "effects")
        assert np.ma.getmaskarray(squares.get_array()).sum() == 2
        squares.update_scalarmappable()
        assert (squares.get_facecolor()[:, 3] == 0).sum() == 2

    def test_one_of_each(self, screen):
        ax = pl.screen_map(screen, perturbations="gene_003", genes="gene_003")
        assert len(of_gid(ax, "effects").get_paths()) == 1

    def test_symbols(self, screen):
        screen.var["symbol"] = [f"S{i}" for i in range(screen.n_vars)]
        ax = pl.screen_map(screen, perturbations="gene_003", genes=["gene_007"], gene_symbols="symbol")
        assert [label.get_text() for label in ax.get_xticklabels()] == ["S7"]

    def test_nothing_to_show(self, screen):
        screen.layers["pvals_adj"] = np.full(screen.shape, 0.5)
        with pytest.raises(ValueError, match="of at most 0.05; name genes"):
            pl.screen_map(screen)
        screen.obs["n_hits"] = 0
        with pytest.raises(ValueError, match="No perturbation of the screen has a hit"):
            pl.screen_map(screen)
        with pytest.raises(KeyError, match="Did you mean 'gene_0"):
            pl.screen_map(screen, perturbations=["gene_00"])

    def test_many_have_no_names(self, screen):
        ax = pl.screen_map(screen, perturbations=screen.obs_names[:5], genes=screen.var_names[:200])
        assert len(ax.get_yticklabels()) == 5
        assert ax.get_xticklabels() == []


def test_clustering_is_scipys_on_cosine_distances():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 5))
    tree = cluster(values)
    linked = hierarchy.linkage(pdist(values, "cosine"), "average")
    assert sorted(tree.leaves) == list(range(9))
    np.testing.assert_allclose(np.sort(tree.height.max(axis=1)), np.sort(linked[:, 2]))
    same = cluster(np.vstack([values[:2], 7 * values[:1], np.zeros((1, 5))]))
    assert abs(list(same.leaves).index(0) - list(same.leaves).index(2)) == 1


class TestPerturbationStrength:
    def test_hits_against_cells(self, either, screen):
        ax = pl.perturbation_strength(either, n_top=3, perturbations="pert_030")
        tested = screen.obs[screen.obs["n_tested"] > 0]
        for name, chosen, colour in (
            ("selected", tested["selected"], PICKED),
            ("not selected", ~tested["selected"], GREY),
        ):
            expected = tested.loc[chosen, ["n_cells", "n_hits"]].to_numpy()
            np.testing.assert_array_equal(np.sort(points(ax, name), axis=0), np.sort(expected, axis=0))
            assert to_hex(of_gid(ax, name).get_facecolor()[0]) == colour
        top = tested.sort_values(["n_hits", "pval"], ascending=[False, True]).index[:3]
        assert names(ax) == {*top, "pert_030"}
        assert ax.get_legend().get_texts()[1].get_text() == f"{tested['selected'].sum()} selected"

    def test_ranked(self, either, screen):
        ax = pl.perturbation_strength(either, kind="ranked", n_top=4)
        drawn = np.vstack([points(ax, "selected"), points(ax, "not selected")])
        drawn = drawn[np.argsort(drawn[:, 0])]
        np.testing.assert_array_equal(drawn[:, 0], np.arange(1, 60))
        np.testing.assert_array_equal(drawn[:, 1], np.sort(screen.obs["n_hits"][:-1])[::-1])
        (listed,) = (text.get_text() for text in ax.texts if text.get_text().startswith("1 "))
        top = screen.obs.sort_values(["n_hits", "pval"], ascending=[False, True]).index[:4]
        assert listed.split() == [word for rank, name in enumerate(top, start=1) for word in (str(rank), name)]

    def test_errors(self, screen):
        with pytest.raises(ValueError, match="'cells', 'ranked'"):
            pl.perturbation_strength(screen, kind="sorted")
        with pytest.raises(KeyError, match="Did you mean 'pert_0"):
            pl.perturbation_strength(screen, perturbations=["pert_03"])
        screen.obs["n_tested"] = 0
        with pytest.raises(ValueError, match="No perturbation of the screen was tested"):
            pl.perturbation_strength(screen)


class TestKnockdown:
    def expected(self, screen):
        table = screen.obs[screen.obs["on_target_pval"].notna()].copy()
        table["called"] = stats.false_discovery_control(table["on_target_pval"]) <= 0.05
        return table.sort_values("on_target_logfoldchange")

    def test_points_and_intervals(self, either, screen):
        ax = pl.knockdown(either)
        table = self.expected(screen)
        assert [label.get_text() for label in ax.get_yticklabels()] == list(table.index)
        change, lower, upper = (
            table[f"on_target_{word}"].to_numpy() for word in ("logfoldchange", "lfc_lower", "lfc_upper")
        )
        place = np.arange(len(table))
        called = table["called"].to_numpy()
        assert 0 < called.sum() < len(table)
        for name, mask, colour in (("down", called & (change < 0), DOWN), ("not significant", ~called, GREY)):
            np.testing.assert_allclose(points(ax, name), np.stack([change[mask], place[mask]], axis=1), rtol=1e-6)
            assert to_hex(of_gid(ax, name).get_facecolor()[0]) == colour
            segments = np.array(of_gid(ax, f"{name} 95%").get_segments())
            ends = np.clip(np.stack([lower, upper], axis=1), *ax.get_xlim())[mask]
            np.testing.assert_allclose(segments[:, :, 0], ends, rtol=1e-6)
        left = 100 * 2 ** np.median(change)
        assert ax.get_title(loc="left") == f"target vs control, median residual expression {left:.0f}%"

    @pytest.mark.parametrize("upright", [False, True])
    def test_infinite_bounds_end_in_arrowheads(self, screen, monkeypatch, upright):
        """A target without counts has no lower bound, a control without counts no upper one."""
        monkeypatch.setattr(_knockdown, "MOST_NAMED", 10 if upright else 60)
        first, second = self.expected(screen).index[[3, -3]]
        screen.obs.loc[first, "on_target_lfc_lower"] = -np.inf
        screen.obs.loc[second, "on_target_lfc_upper"] = np.inf
        ax = pl.knockdown(screen)
        low, high = ax.get_ylim() if upright else ax.get_xlim()
        assert np.isfinite([low, high]).all()
        ends = np.concatenate([c.get_offsets()[:, int(upright)] for c in ax.collections if c.get_gid() == "beyond"])
        assert low in ends
        assert high in ends
        for name in ("down", "up", "not significant"):
            assert np.isfinite(np.array(of_gid(ax, f"{name} 95%").get_segments())).all()

    def test_many_stand_side_by_side(self, either, screen, monkeypatch):
        monkeypatch.setattr(_knockdown, "MOST_NAMED", 10)
        ax = pl.knockdown(either, n_top=3)
        table = self.expected(screen)
        heights = np.vstack([points(ax, name) for name in ("down", "up", "not significant")])
        np.testing.assert_allclose(np.sort(heights[:, 1]), table["on_target_logfoldchange"], rtol=1e-6)
        assert names(ax) == set(table.index[:3])
        assert of_gid(ax, "down").get_rasterized()

    def test_some(self, screen):
        """Their p-values stay adjusted for all."""
        screen.obs.loc["gene_003", "on_target_pval"] = 0.04
        screen.obs.loc["gene_004", "on_target_pval"] = np.nan
        ax = pl.knockdown(screen, perturbations=["gene_003", "gene_004", "pert_040"])
        assert [label.get_text() for label in ax.get_yticklabels()] == ["gene_003"]
        assert self.expected(screen).loc["gene_003", "called"] == (len(points(ax, "not significant")) == 0)

    def test_no_target(self, screen):
        with pytest.raises(ValueError, match="None of the 2 perturbations names a gene.*like 'gene_000'"):
            pl.knockdown(screen, perturbations=["pert_040", "pert_041"])


class TestRowsOfAScreen:
    def test_volcano(self, either):
        ax = pl.volcano(either, "gene_003", n_top=2, genes="gene_100")
        table = get.nb_screen_df(either, "gene_003", padj_cutoff=0.05)
        assert ax.get_title(loc="left") == "gene_003 vs control"
        drawn = np.vstack([points(ax, "down"), points(ax, "up")])
        np.testing.assert_allclose(np.sort(drawn[:, 1]), np.sort(-np.log10(table["pvals"])), rtol=1e-6)
        assert names(ax) == {*table["names"][:2], "gene_100"}

    def test_errors(self, either):
        with pytest.raises(KeyError, match="Did you mean 'gene_0"):
            pl.volcano(either, "gene_00")
        with pytest.raises(ValueError, match="holds 60 perturbations, name one"):
            pl.volcano(either)
        with pytest.raises(KeyError, match="no results of nb_compare|No results of nb_compare"):
            pl.dispersion(either, "gene_003")

    def test_the_line_lies_between_called_and_not(self, screen):
        ax = pl.volcano(screen, "gene_010", padj_cutoff=0.1)
        height = of_gid(ax, "padj_cutoff").get_ydata()[0]
        assert points(ax, "not significant")[:, 1].max() < height <= points(ax, "down")[:, 1].min()


def test_names_keep_clear_of_the_nearest(monkeypatch):
    monkeypatch.setattr(_panel, "MOST_AVOIDED", 3)
    _, ax = plt.subplots()
    x = np.arange(10.0)
    ax.plot(x, x)
    near = _panel._nearest(ax, x, x, np.array([7]), np.arange(10))
    assert set(near) == {6, 7, 8}
