from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import nbcompare as nb


def samples(strength: float = 0.5, n: int = 6, groups: str = "abc", n_genes: int = 600) -> ad.AnnData:
    rng = np.random.default_rng(0)
    factor = rng.normal(size=n * len(groups))
    log_mean = rng.uniform(3, 6, n_genes)[:, None] + np.outer(rng.normal(0, strength, n_genes), factor)
    adata = ad.AnnData(rng.poisson(np.exp(log_mean) * rng.gamma(10, 0.1, log_mean.shape)).T.astype(float))
    adata.obs["condition"] = np.repeat(list(groups), n)
    adata.obs["batch"] = np.tile(["x", "y"], n * len(groups) // 2)
    adata.obs["factor"] = factor
    adata.X[:, 0] = 0
    return adata


def test_the_factor_is_found():
    """Three groups: correlation with the true factor above 0.97, differences between groups included."""
    pdata = samples()
    nb.pp.hidden_factors(pdata, "condition", n_factors=1)
    assert abs(np.corrcoef(pdata.obs["hidden_factors_1"], pdata.obs["factor"])[0, 1]) > 0.97
    loadings = pdata.varm["hidden_factors_loadings"]
    assert loadings.shape == (600, 1)
    assert np.isnan(loadings[0, 0])
    assert np.isfinite(loadings[1:]).all()


def test_the_number_is_estimated_and_blocks_are_adjusted_for():
    found = nb.pp.hidden_factors(samples(), "condition", block_key="batch", key_added="f", copy=True)
    k = found.uns["f"]["n_factors"]
    assert k >= 1
    assert [f"f_{j + 1}" in found.obs for j in range(k + 1)] == [True] * k + [False]
    assert found.uns["f"]["block_key"] == ["batch"]


def test_a_second_call_replaces_the_first():
    pdata = samples()
    nb.pp.hidden_factors(pdata, "condition", n_factors=3)
    nb.pp.hidden_factors(pdata, "condition", n_factors=1)
    assert [name for name in pdata.obs if name.startswith("hidden_factors_")] == ["hidden_factors_1"]


def test_no_factor_where_genes_are_independent():
    with pytest.warns(UserWarning, match="No hidden factors were found"):
        found = nb.pp.hidden_factors(samples(strength=0.0), "condition", copy=True)
    assert found.varm["hidden_factors_loadings"].shape == (600, 0)


@pytest.mark.parametrize(
    ("pdata", "options", "message"),
    [
        (samples(n=2), {}, "leave 3 residual degrees of freedom"),
        (samples(n_genes=40), {}, "39 genes have enough counts"),
        (samples(), {"n_factors": 9}, "n_factors is 9, but these 18 samples allow 7 at most"),
    ],
)
def test_refusals(pdata, options, message):
    with pytest.raises(ValueError, match=message):
        nb.pp.hidden_factors(pdata, "condition", **options)
