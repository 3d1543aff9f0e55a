"""What a row stands for; estimated counts; samples that cannot be replicates."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import nbcompare as nb

KEY = {"groupby": "condition", "reference": "ctrl"}


def bulk(n: int = 4, n_genes: int = 300, vectors: int = 1, seed: int = 0) -> ad.AnnData:
    """n samples of each of two groups, each in some lanes."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(3, 8, n_genes))
    rates = np.repeat(mean * rng.gamma(10, 0.1, (2 * n, n_genes)), vectors, axis=0)
    obs = pd.DataFrame(
        {
            "condition": np.repeat(["ctrl", "treated"], n * vectors),
            "sample": np.repeat([f"s{k}" for k in range(2 * n)], vectors),
        },
        index=[f"r{k}" for k in range(2 * n * vectors)],
    )
    return ad.AnnData(rng.poisson(rates).astype(float), obs=obs)


def table(adata: ad.AnnData) -> pd.DataFrame:
    return nb.get.nb_compare_df(adata, "treated").set_index("names").sort_index()


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    adata = nb.datasets.simulate(n_genes=100, n_replicates=4, n_cells=25, n_cells_sd=0, rng=3)
    adata.obs["type"] = np.where(np.arange(adata.n_obs) % 2, "T", "B")
    adata.obs["condition"] = adata.obs["condition"].astype(str).replace("treated_1", "treated").to_numpy()
    return adata


@pytest.mark.parametrize("min_cells", [1, 10, 100])
def test_bulk_with_a_replicate_key(min_cells):
    """Rows that are samples: the key changes nothing, and min_cells is about cells."""
    plain, keyed = bulk(), bulk()
    nb.tl.nb_compare(plain, **KEY)
    nb.tl.nb_compare(keyed, **KEY, replicate_key="sample", min_cells=min_cells)
    pd.testing.assert_frame_equal(table(plain), table(keyed))
    assert "tiny_pseudobulk" not in "".join(table(keyed)["status"])


@pytest.mark.parametrize("kind", ["nb_compare", "pseudobulk", "nb_screen"])
def test_lanes_are_summed(kind):
    vectors = bulk(vectors=2)
    added = ad.AnnData(
        vectors.X.reshape(8, 2, -1).sum(axis=1), obs=vectors.obs.iloc[::2].reset_index(drop=True).rename(index=str)
    )
    if kind == "pseudobulk":
        pdata = nb.pp.pseudobulk(vectors, "condition", replicate_key="sample")
        np.testing.assert_array_equal(pdata.X, added.X)
        assert pdata.obs["psbulk_cells"].isna().all()
        again = nb.pp.pseudobulk(pdata, "condition", replicate_key="sample")
        np.testing.assert_array_equal(again.X, added.X)
        return
    function = getattr(nb.tl, kind)
    options = {"progress": False} if kind == "nb_screen" else {}
    one, other = (function(a, **KEY, replicate_key="sample", **options) for a in (vectors, added))
    found = (
        (vectors.varm["nb_compare_pvals"], added.varm["nb_compare_pvals"])
        if one is None
        else (one.layers["pvals"], other.layers["pvals"])
    )
    np.testing.assert_array_equal(*found)


def test_the_aggregate_of_scanpy(cells):
    summed = sc.get.aggregate(cells, by=["condition", "replicate"], func="sum")
    nb.tl.nb_compare(summed, **KEY, replicate_key="replicate", layer="sum")
    direct = cells.copy()
    nb.tl.nb_compare(direct, **KEY, replicate_key="replicate")
    np.testing.assert_allclose(table(summed)["pvals"], table(direct)["pvals"], rtol=1e-12)


def test_cells_add_up(cells):
    first = nb.pp.pseudobulk(cells, ["condition", "type"], replicate_key="replicate")
    second = nb.pp.pseudobulk(first, "condition", replicate_key="replicate")
    assert second.obs["psbulk_cells"].to_list() == [25] * 8
    nb.tl.nb_compare(second, **KEY)
    assert second.uns["nb_compare"]["samples"]["n_cells"].to_list() == [25] * 8
    with pytest.raises(ValueError, match="None of the 8 samples has 26 cells"):
        nb.tl.nb_compare(second, **KEY, min_cells=26)


def test_known_and_unknown_numbers_of_cells():
    mixed = bulk()
    mixed.obs["psbulk_cells"] = [30, np.nan, 4, 30, np.nan, 30, 30, 30]
    nb.tl.nb_compare(mixed, **KEY)
    assert mixed.uns["nb_compare"]["samples"]["replicate"].to_list() == ["r0", "r1", "r3", "r4", "r5", "r6", "r7"]
    assert mixed.uns["nb_compare"]["dropped_samples"]["reason"].to_list() == ["fewer than 10 cells"]


@pytest.mark.parametrize("wrong", ["many", -3, 2.5])
@pytest.mark.parametrize("column", ["psbulk_cells", "psbulk_n_cells", "n_obs_aggregated"])
def test_numbers_of_cells_that_are_none(wrong, column):
    adata = bulk()
    adata.obs[column] = [wrong, *[30] * 7]
    with pytest.raises(ValueError, match=f"adata.obs.'{column}'. holds .* for 'r0', but says how many cells"):
        nb.tl.nb_compare(adata, **KEY)


def test_few_cells_are_no_samples(cells):
    """Three cells a replicate are cells: min_cells applies."""
    few = cells[cells.obs.groupby("replicate", observed=True).cumcount() < 3].copy()
    with pytest.raises(
        ValueError, match="None of the 8 samples has 10 cells.*If the rows are samples and not cells, pass min_cells=1"
    ):
        nb.tl.nb_compare(few, **KEY, replicate_key="replicate")


def test_a_replicate_key_of_single_cells_is_refused(cells):
    adata = cells.copy()
    adata.obs["cell"] = adata.obs_names
    for function, options in ((nb.tl.nb_compare, {}), (nb.tl.nb_screen, {"progress": False})):
        with pytest.raises(
            ValueError, match="replicate_key is ..?cell..?, one value a row, so each of the 200 rows is a replicate"
        ):
            function(adata, **KEY, replicate_key="cell", min_cells=1, **options)
    nb.tl.nb_compare(adata, **KEY, replicate_key="cell", min_cells=1, allow_cells_as_replicates=True)


STORAGE = {
    "dense": np.asarray,
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "float32": lambda x: x.astype(np.float32),
    "csr float32": lambda x: sp.csr_matrix(x.astype(np.float32)),
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("keyed", [False, True])
def test_rounding_errors_are_taken(storage, keyed):
    whole = bulk(vectors=2)
    rng = np.random.default_rng(1)
    near = ad.AnnData(STORAGE[storage](whole.X * (1 + rng.uniform(-1e-7, 1e-7, whole.shape))), obs=whole.obs)
    options = {"replicate_key": "sample"} if keyed else {}
    nb.tl.nb_compare(whole, **KEY, **options)
    with pytest.warns(UserWarning, match="adata.X holds values that miss whole numbers by up to .*They were rounded"):
        nb.tl.nb_compare(near, **KEY, **options)
    np.testing.assert_array_equal(near.varm["nb_compare_pvals"], whole.varm["nb_compare_pvals"])


NO_COUNTS = {
    "estimated": (lambda x: x * 0.97, "holds no whole numbers.*estimated counts .SoupX.*round them.*by offset"),
    "halves": (lambda x: x + 0.5, "holds parts of reads: .*all halves, thirds or quarters.*round them"),
    "CPM": (lambda x: x / x.sum(axis=1, keepdims=True) * 1e6, "looks normalized: every row has the total 1e.06"),
    "log": (lambda x: np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4), "looks log-transformed"),
    "negative": (lambda x: x - 1000, "holds negative values"),
}


@pytest.mark.parametrize("kind", NO_COUNTS)
@pytest.mark.parametrize("storage", ["dense", "csr"])
def test_what_is_no_count(kind, storage):
    change, words = NO_COUNTS[kind]
    adata = bulk()
    adata.X = STORAGE[storage](change(adata.X))
    with pytest.raises(ValueError, match=words) as error:
        nb.tl.nb_compare(adata, **KEY)
    assert ("round them" in str(error.value)) == (kind in ("estimated", "halves"))
    if kind in ("estimated", "halves"):
        adata.X = STORAGE[storage](np.round(change(bulk().X)))
        nb.tl.nb_compare(adata, **KEY)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("function", ["nb_compare", "nb_screen", "pseudobulk"])
def test_the_same_sample_twice(across, function):
    adata = bulk()
    adata.X[6 if across else 1] = adata.X[0]
    calls = {
        "pseudobulk": lambda: nb.pp.pseudobulk(adata, "condition", replicate_key="sample"),
        "nb_compare": lambda: nb.tl.nb_compare(adata, **KEY),
        "nb_screen": lambda: nb.tl.nb_screen(adata, **KEY, progress=False),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        calls[function]()
    (message,) = [str(one.message) for one in caught if "identical" in str(one.message)]
    assert message.startswith("2 samples have counts that are identical")
    assert ("in different groups" in message) == across


def test_few_genes_can_be_equal_by_chance():
    adata = bulk(n_genes=19)
    adata.X[1] = adata.X[0]
    nb.tl.nb_compare(adata, **KEY)


@pytest.mark.parametrize("path", ["groups", "design", "screen", "blocks"])
def test_replicates_that_vary_too_little(path):
    rng = np.random.default_rng(0)
    adata = bulk()
    adata.X = np.round(np.exp(rng.uniform(3, 7, 300)) * np.exp(rng.normal(0, 0.001, adata.shape)))
    adata.obs["donor"] = [f"d{k % 4}" for k in range(8)]
    options = {"design": {"design": "~ donor + condition"}, "blocks": {"block_key": "donor"}}.get(path, {})

    def call() -> set[int]:
        if path == "screen":
            return set(nb.tl.nb_screen(adata, **KEY, progress=False).layers["status"].ravel())
        nb.tl.nb_compare(adata, **KEY, **options)
        return set(adata.varm["nb_compare_status"].ravel())

    with pytest.warns(UserWarning, match="Replicates vary less than counts can: their variance is"):
        status = call()
    assert all(value & 262144 and not value & 256 for value in status)


@pytest.mark.parametrize("seed", range(20))
def test_poisson_counts_vary_enough(seed):
    rng = np.random.default_rng(seed)
    adata = bulk(3, n_genes=100 + 40 * seed, seed=seed)
    adata.X = rng.poisson(np.exp(rng.uniform(-1, 7, adata.n_vars)), adata.shape).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nb.tl.nb_compare(adata, **KEY)


def test_columns_of_objects_are_not_carried_along(cells):
    adata = cells.copy()
    adata.obs["guides"] = [["a", "b"]] * adata.n_obs
    adata.obs["more"] = [{"a": 1}] * adata.n_obs
    adata.obs["array"] = [np.arange(2)] * adata.n_obs
    pdata = nb.pp.pseudobulk(adata, "condition", replicate_key="replicate")
    assert {"guides", "more", "array"}.isdisjoint(pdata.obs.columns)


@pytest.mark.parametrize("function", ["nb_compare", "nb_screen"])
def test_no_genes(function):
    options = {"progress": False} if function == "nb_screen" else {}
    empty = bulk()[:, :0].copy()
    with pytest.raises(ValueError, match="adata has no genes"):
        getattr(nb.tl, function)(empty, **KEY, **options)
