"""`pl.posterior` and `pl.agreement`: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from nbcompare import datasets, pl, tl


@pytest.fixture(scope="module")
def _stored_once():
    adata = datasets.simulate(n_genes=150, n_cells=30, de_fraction=0.2, rng=0)
    for method in ("mom", "mle", "quadrature"):
        tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate", method=method, key_added=method)
    return adata


@pytest.fixture
def stored(_stored_once):
    return _stored_once.copy()


def bar(ax, gid):
    return next(patch for patch in ax.patches if patch.get_gid() == gid)


def line(ax, gid):
    return next(found for found in ax.lines if found.get_gid() == gid)


class TestPosterior:
    def test_interval_bars_and_curve_are_the_stored_numbers(self, stored):
        gene = int(np.nanargmin(np.abs(stored.varm["quadrature_null_probability"][:, 0] - 0.4)))
        ax = pl.posterior(stored, stored.var_names[gene], key="quadrature", truth=0.3)
        number = lambda word: stored.varm[f"quadrature_{word}"][gene, 0]
        assert line(ax, "interval").get_xdata() == pytest.approx([number("lfc_lower"), number("lfc_upper")])
        assert line(ax, "mean").get_xdata() == pytest.approx([number("logfoldchanges")])
        heights = bar(ax, "posterior at zero").get_height() / bar(ax, "prior at zero").get_height()
        share = stored.uns["quadrature"]["prior"]["null_proportion"][0]
        assert heights == pytest.approx(number("null_probability") / share)
        x, y = line(ax, "posterior").get_data()
        assert np.trapezoid(y, x) == pytest.approx(1 - number("null_probability"), abs=0.01)
        assert line(ax, "truth").get_xdata()[0] == 0.3

    def test_on_the_given_axes(self, stored):
        _, axes = plt.subplots(1, 2)
        assert pl.posterior(stored, "gene_010", key="quadrature", ax=axes[1]) is axes[1]
        assert not axes[0].has_data()

    def test_refusals(self, stored):
        with pytest.raises(ValueError, match="holds no posterior"):
            pl.posterior(stored, "gene_010", key="mom")
        stored.varm["quadrature_null_probability"][10, 0] = np.nan
        with pytest.raises(ValueError, match="was not tested"):
            pl.posterior(stored, "gene_010", key="quadrature")
        with pytest.raises(KeyError, match="gene_"):
            pl.posterior(stored, "gene_10", key="quadrature")


class TestAgreement:
    @pytest.mark.parametrize("values", ["logfoldchanges", "dispersions"])
    def test_every_key_against_the_first(self, stored, values):
        stored.varm["quadrature_status"][:5, 0] |= 32768
        ax = pl.agreement(stored, ["mom", "mle", "quadrature"], values=values)
        found = {collection.get_gid(): collection for collection in ax.collections}
        assert {"mle", "quadrature", "outside"} <= set(found)
        assert len(found["outside"].get_offsets()) <= 5
        assert ax.get_xscale() == ("log" if values == "dispersions" else "linear")
        if values == "logfoldchanges":
            drawn = np.asarray(found["quadrature"].get_offsets())
            tested = np.isfinite(drawn).all(axis=1)
            assert (np.abs(drawn[tested, 1]) <= np.abs(drawn[tested, 0]) + 0.1).mean() > 0.95

    def test_refusals(self, stored):
        with pytest.raises(ValueError, match="two to 4"):
            pl.agreement(stored, ["mom"])
        with pytest.raises(ValueError, match="must be one of"):
            pl.agreement(stored, ["mom", "mle"], values="pvals")
        with pytest.raises(KeyError, match="there are"):
            pl.agreement(stored, ["mom", "wrong"])
