"""Cells to compare, and whether a call left them as they were."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from nbcompare import datasets


@pytest.fixture(scope="session")
def _cells_once():
    adata = datasets.simulate(n_genes=150, n_conditions=3, n_replicates=3, n_cells=25, de_fraction=0.2, rng=1)
    adata.obs["condition"] = adata.obs["condition"].cat.rename_categories({"treated_1": "a/b", "treated_2": "c"})
    adata.layers["scaled"] = np.asarray(adata.X.todense()) / 2
    return adata


@pytest.fixture
def cells(_cells_once):
    """Three conditions, `ctrl`, `a/b` and `c`, with three replicates of about 25 cells each; 150 genes."""
    return _cells_once.copy()


@pytest.fixture(scope="session")
def _paired_once():
    return datasets.simulate(
        n_genes=150, n_conditions=3, n_replicates=4, n_cells=20, paired=True, donor_sd=0.8, de_fraction=0.2, rng=2
    )


@pytest.fixture
def paired(_paired_once):
    """Three conditions of the same four donors, who differ much; replicates are named by donor."""
    return _paired_once.copy()


@pytest.fixture
def samples():
    """Build samples x genes from counts and conditions."""

    def build(counts, condition, **columns):
        obs = pd.DataFrame({"condition": condition, **columns}, index=[f"s{i}" for i in range(len(condition))])
        var = pd.DataFrame(index=[f"g{i}" for i in range(np.shape(counts)[1])])
        return ad.AnnData(np.asarray(counts, float), obs=obs, var=var)

    return build


@pytest.fixture
def unchanged():
    """Assert that two AnnData agree in everything."""
    return assert_unchanged


def assert_unchanged(one, other):
    same(one.X, other.X)
    pd.testing.assert_frame_equal(one.obs, other.obs)
    pd.testing.assert_frame_equal(one.var, other.var)
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        same(dict(getattr(one, slot)), dict(getattr(other, slot)))
    same(dict(one.uns), dict(other.uns))


def same(one, other):
    """Deep equality of what AnnData holds, None included."""
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif sparse.issparse(one):
        assert (one != other).nnz == 0
    elif isinstance(one, np.ndarray | list | tuple):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    else:
        assert one == other or one is other
