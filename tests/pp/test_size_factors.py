"""Size factors on AnnData; the formulas are tested beside the arrays."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from nbcompare import pp
from nbcompare._counts import size_factors as exposure

METHODS = ["auto", "median_of_ratios", "pooled_ratios", "poscounts", "total", "tmm", "tmmwsp"]


@pytest.fixture
def samples() -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.array([1, 2, 3, 4])[:, None] * rng.gamma(1, 20, 50))
    obs = pd.DataFrame({"depth": [1.0, 2.0, 3.0, 4.0], "name": list("abcd")}, index=[f"s{i}" for i in range(4)])
    return ad.AnnData(counts.astype(np.float64), obs=obs)


@pytest.mark.parametrize("method", METHODS)
def test_methods(samples: ad.AnnData, method: str) -> None:
    expected, used = exposure.size_factors(samples.X, method)
    assert pp.size_factors(samples, method=method) is None
    np.testing.assert_array_equal(samples.obs["size_factors"], expected)
    assert samples.uns["size_factors"] == {"method": method, "method_used": used, "layer": None}


def test_groups_are_those_of_the_columns(samples: ad.AnnData) -> None:
    samples.obs["group"], samples.obs["batch"] = list("xxyy"), [1, 2, 1, 1]
    expected, _ = exposure.size_factors(samples.X, "pooled_ratios", np.array([0, 0, 1, 1]))
    pp.size_factors(samples, method="pooled_ratios", groupby="group")
    np.testing.assert_array_equal(samples.obs["size_factors"], expected)
    assert samples.uns["size_factors"]["groupby"] == ["group"]
    expected, _ = exposure.size_factors(samples.X, "pooled_ratios", np.array([0, 1, 2, 2]))
    pp.size_factors(samples, method="pooled_ratios", groupby=["group", "batch"])
    np.testing.assert_array_equal(samples.obs["size_factors"], expected)
    with pytest.raises(KeyError, match="nope"):
        pp.size_factors(samples, groupby="nope")


def test_poscounts_warns_where_it_follows_depth() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.array([1, 1, 6, 6])[:, None] * rng.gamma(0.3, 0.5, 2000)).astype(float)
    with pytest.warns(UserWarning, match="underestimates differences of sequencing depth"):
        pp.size_factors(ad.AnnData(counts), method="poscounts")


def test_given(samples: ad.AnnData) -> None:
    expected = np.array([1.0, 2, 3, 4]) / 24**0.25
    for method in ("depth", [1, 2, 3, 4], np.array([2.0, 4, 6, 8]), samples.obs["depth"]):
        pp.size_factors(samples, method=method, key_added="mine")
        np.testing.assert_allclose(samples.obs["mine"], expected, rtol=1e-14)
        assert samples.uns["mine"]["method_used"] == "given"
    assert "size_factors" not in samples.obs


def test_copy(samples: ad.AnnData) -> None:
    copy = pp.size_factors(samples, copy=True)
    assert copy is not None
    assert "size_factors" in copy.obs
    assert "size_factors" not in samples.obs
    assert not samples.uns


def test_layer_and_sparse(samples: ad.AnnData) -> None:
    pp.size_factors(samples)
    samples.layers["counts"] = sparse.csr_matrix(samples.X)
    samples.X = np.log1p(samples.X)
    with pytest.raises(ValueError, match="pass layer='counts'"):
        pp.size_factors(samples, key_added="again")
    assert "again" not in samples.obs
    pp.size_factors(samples, layer="counts", key_added="again")
    np.testing.assert_array_equal(samples.obs["again"], samples.obs["size_factors"])


def test_view(samples: ad.AnnData) -> None:
    some = samples[:3]
    copy = pp.size_factors(some, copy=True)
    assert copy is not None
    np.testing.assert_array_equal(copy.obs["size_factors"], exposure.size_factors(samples.X[:3], "auto")[0])


def test_errors(samples: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="'tmn' is neither a method .*tmm.* nor a column of .obs .depth, name"):
        pp.size_factors(samples, method="tmn")
    with pytest.raises(ValueError, match="one is needed for each of the 4 samples"):
        pp.size_factors(samples, method=np.ones(3))
    with pytest.raises(ValueError, match="finite and above 0"):
        pp.size_factors(samples, method=np.array([1, 1, 1, 0.0]))
    with pytest.raises(ValueError, match="column 'name' .*numbers"):
        pp.size_factors(samples, method="name")
    samples.X[2] = 0
    with pytest.raises(ValueError, match="Samples 2 .rows, from 0. have no counts"):
        pp.size_factors(samples)
    assert "size_factors" not in samples.obs
