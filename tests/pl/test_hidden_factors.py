from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from matplotlib import pyplot as plt

import nbcompare as nb


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def compared() -> ad.AnnData:
    rng = np.random.default_rng(0)
    log_mean = rng.uniform(3, 6, 600)[:, None] + np.outer(rng.normal(0, 0.5, 600), rng.normal(size=15))
    adata = ad.AnnData(rng.poisson(np.exp(log_mean) * rng.gamma(10, 0.1, log_mean.shape)).T.astype(float))
    adata.obs["condition"] = np.repeat(["a", "b", "c"], 5)
    options = {"reference": "a", "allow_cells_as_replicates": True, "verbose": False}
    nb.tl.nb_compare(adata, "condition", hidden_factors=2, **options)
    with pytest.warns(UserWarning, match="common direction"):
        nb.tl.nb_compare(adata, "condition", key_added="without", **options)
    return adata


def test_samples_by_factor(compared):
    ax = nb.pl.hidden_factors(compared, "c")
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in ax.collections])
    stored = compared.uns["nb_compare"]["hidden_factors"]
    factors = stored["factors"][:, stored["factor_of"] == 1]
    np.testing.assert_allclose(np.sort(drawn[:, 1]), np.sort(factors.ravel()))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]


def test_scree(compared):
    ax = nb.pl.hidden_factors(compared, "b", kind="scree")
    np.testing.assert_allclose(
        [bar.get_height() for bar in ax.patches], 100 * compared.uns["nb_compare"]["hidden_factors"]["variance_share"]
    )
    assert "2 of 12 used" in [text.get_text() for text in ax.texts]


def test_without_factors(compared):
    with pytest.raises(KeyError, match="compared without hidden factors"):
        nb.pl.hidden_factors(compared, "b", key="without")
    with pytest.raises(ValueError, match="name one of them"):
        nb.pl.hidden_factors(compared)
