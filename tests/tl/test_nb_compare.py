"""`tl.nb_compare` as users call it."""

import warnings
from importlib.metadata import version

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from nbcompare import datasets, get, pp, tl
from nbcompare._anndata import FORMAT
from nbcompare._nb.data import Group, Pseudobulk
from nbcompare._nb.glm.likelihood_ratio import likelihood_ratio_test
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.likelihood.wald import wald_test
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import MEANING, status_codes

EVERY_TEST = [
    "logfoldchanges",
    "lfc_se",
    "lfc_lower",
    "lfc_upper",
    "scores",
    "pvals",
    "pvals_adj",
    "dispersions",
    "status",
]
ARRAYS = [*EVERY_TEST, "pvals_unfiltered", "dispersions_genewise"]
COLUMNS = ["base_mean", "dispersion_trend"]


def compare(adata, **options):
    """The call of most tests: against ctrl, replicates by their column."""
    arguments = {"reference": "ctrl", "replicate_key": "replicate"} | options
    return tl.nb_compare(adata, "condition", **arguments)


def stored(adata, key="nb_compare"):
    arrays = {word: adata.varm[f"{key}_{word}"] for word in ARRAYS if f"{key}_{word}" in adata.varm}
    return arrays | {word: np.asarray(adata.var[f"{key}_{word}"]) for word in COLUMNS if f"{key}_{word}" in adata.var}


def assert_same_results(one, other, *, exact=True, columns=slice(None)):
    assert one.keys() == other.keys()
    for word, values in one.items():
        theirs = other[word] if word in COLUMNS else other[word][:, columns]
        if exact:
            np.testing.assert_array_equal(values, theirs, err_msg=word)
        else:
            np.testing.assert_allclose(values, theirs, rtol=1e-6, atol=1e-9, err_msg=word)


def by_hand(adata, replicate="replicate"):
    """Samples summed with pandas, and size factors by the median of ratios, in the order that results are stored in."""
    frame = pd.DataFrame(np.asarray(adata.X.todense(), float), columns=adata.var_names)
    sums = frame.groupby([adata.obs["condition"].to_numpy(), adata.obs[replicate].to_numpy()]).sum()
    order = {level: i for i, level in enumerate(adata.obs["condition"].cat.categories)}
    sums = sums.iloc[np.argsort([order[level] for level, _ in sums.index], kind="stable")]
    logs = np.log(sums.loc[:, (sums > 0).all()])
    factors = np.exp((logs - logs.mean()).median(axis=1))
    factors /= np.exp(np.log(factors).mean())
    group = np.array([order[level] for level, _ in sums.index])
    return Pseudobulk(np.ascontiguousarray(sums.to_numpy().T), factors.to_numpy(), group), sums.index


# what is stored


def test_everything_is_stored_as_the_documentation_says(cells):
    before = cells.copy()
    assert compare(cells) is None
    shape = (cells.n_vars, 2)
    for word in ARRAYS:
        values = cells.varm[f"nb_compare_{word}"]
        assert type(values) is np.ndarray
        assert values.shape == shape
        assert values.dtype == (np.uint32 if word == "status" else np.float64)
    for word in COLUMNS:
        assert cells.var[f"nb_compare_{word}"].dtype == np.float64
    uns = cells.uns["nb_compare"]
    assert list(uns["comparisons"]) == ["a/b", "c"]
    assert uns["reference"] == "ctrl"
    assert uns["log_base"] == 2
    assert uns["fdr_scope"] == "comparison"
    assert uns["version"] == version("nbcompare")
    assert uns["format"] == FORMAT
    assert uns["status_codes"] == status_codes()
    assert uns["status_meaning"] == MEANING
    assert list(uns["samples"].columns) == ["condition", "replicate", "n_cells", "counts", "size_factor"]
    assert len(uns["samples"]) == 9
    assert uns["samples"]["n_cells"].sum() == cells.n_obs
    assert uns["samples"]["counts"].sum() == cells.X.sum()
    assert list(uns["dropped_samples"].columns) == ["condition", "replicate", "n_cells", "counts", "reason"]
    assert len(uns["dropped_samples"]) == 0
    assert set(uns["n_cells_excluded"].values()) == {0}
    assert set(uns["trend"]) == {"mean", "dispersion", "log_dispersion_var", "dispersion_ratio", "n_genes"}
    # and nothing else is touched
    assert set(cells.varm) - set(before.varm) == {f"nb_compare_{word}" for word in ARRAYS}
    assert set(cells.var) - set(before.var) == {f"nb_compare_{word}" for word in COLUMNS}
    assert set(cells.uns) - set(before.uns) == {"nb_compare"}
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert (cells.X != before.X).nnz == 0


def test_numbers_are_those_of_the_statistics(cells):
    """Sums and size factors by hand, the test on arrays, logarithms to base 2, adjusted by scipy."""
    compare(cells)
    pseudobulk, index = by_hand(cells)
    samples = cells.uns["nb_compare"]["samples"]
    assert list(zip(samples["condition"], samples["replicate"], strict=True)) == list(index)
    np.testing.assert_allclose(samples["size_factor"], pseudobulk.exposure, rtol=1e-12)
    expected = moderated_tests(pseudobulk, np.array([[0, 1], [0, 2]]))
    ours = stored(cells)
    np.testing.assert_allclose(ours["logfoldchanges"], expected.log_fc / np.log(2), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours["lfc_se"], expected.se / np.log(2), rtol=1e-8)
    np.testing.assert_allclose(ours["scores"], expected.statistic, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours["pvals"], expected.p_value, rtol=1e-6)
    np.testing.assert_allclose(ours["pvals_unfiltered"], expected.p_value_all, rtol=1e-6)
    np.testing.assert_allclose(ours["dispersions"], expected.dispersion, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(ours["status"], expected.status)
    np.testing.assert_allclose(ours["base_mean"], (pseudobulk.counts / pseudobulk.exposure).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(ours["dispersion_trend"], expected.trend.at(pseudobulk.counts.mean(axis=1)), rtol=1e-8)
    for c in range(2):
        tested = np.isfinite(ours["pvals"][:, c])
        adjusted = stats.false_discovery_control(ours["pvals"][tested, c])
        np.testing.assert_allclose(ours["pvals_adj"][tested, c], adjusted, rtol=1e-12)
        assert np.isnan(ours["pvals_adj"][~tested, c]).all()


def test_known_effects_are_found():
    """2,000 genes at 4 v 4: effects correlate with the truth, the false discovery rate is near 5 %."""
    adata = datasets.simulate(n_genes=2000, n_replicates=4, n_cells=60, depth=4000, rng=3)
    compare(adata)
    truth, ours = adata.varm["true_logfoldchanges"][:, 0], stored(adata)
    called = ours["pvals_adj"][:, 0] < 0.05
    assert called.sum() > 40
    assert (truth[called] == 0).mean() < 0.12
    big = called & (truth != 0)
    assert np.corrcoef(truth[big], ours["logfoldchanges"][big, 0])[0, 1] > 0.95


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("options", [{}, {"test": "lrt", "method": "mle", "groups": ["a/b"], "cox_reid": True}])
def test_round_trip(cells, tmp_path, suffix, options):
    """Everything comes back, a condition called a/b included; so does a second key."""
    cells.obs.loc[cells.obs_names[:3], "condition"] = np.nan
    compare(cells, min_cells=17, **options)
    compare(cells, min_cells=17, key_added="again", reference="rest")
    path = tmp_path / f"x.{suffix}"
    getattr(cells, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path)
    assert list(back.uns["nb_compare"]["comparisons"]) == list(cells.uns["nb_compare"]["comparisons"])
    for key in ("nb_compare", "again"):
        assert_same_results(stored(back, key), stored(cells, key))
        for table in ("samples", "dropped_samples"):
            one, other = back.uns[key][table], cells.uns[key][table]
            assert list(one.columns) == list(other.columns)
            for name in one:
                assert list(one[name]) == list(other[name])
        for name, value in cells.uns[key]["params"].items():
            read = back.uns[key]["params"][name]
            assert (list(read) if isinstance(value, list) else read) == value, name
    assert len(cells.uns["nb_compare"]["dropped_samples"]) > 0
    pd.testing.assert_frame_equal(get.nb_compare_df(back, "a/b"), get.nb_compare_df(cells, "a/b"))


def test_every_argument_is_recorded(cells):
    compare(cells, groups=("a/b",), min_cells=11, min_counts=5, min_gene_counts=12, size_factors="total", key_added="x")
    assert cells.uns["x"]["params"] == {
        "groupby": "condition",
        "reference": "ctrl",
        "groups": ["a/b"],
        "replicate_key": "replicate",
        "block_key": None,
        "method": "mom",
        "test": "moderated",
        "layer": None,
        "size_factors": "total",
        "size_factors_used": "total",
        "dispersion": "all",
        "cox_reid": False,
        "lfc_threshold": 0,
        "alternative": "greater_abs",
        "shrink": False,
        "common_shift": False,
        "hidden_factors": None,
        "prior": None,
        "network": None,
        "device": "auto",
        "importance_sampling": True,
        "null_spread": True,
        "min_cells": 11,
        "min_counts": 5,
        "min_gene_counts": 12,
        "allow_cells_as_replicates": False,
        "split_by": None,
        "design": None,
        "contrast": None,
        "offset": None,
        "key_added": "x",
    }


def test_two_keys_side_by_side(cells):
    compare(cells)
    first = {word: values.copy() for word, values in stored(cells).items()}
    compare(cells, key_added="nb", groups=["c"], test="wald")
    assert_same_results(stored(cells), first)
    assert stored(cells, "nb")["pvals"].shape == (cells.n_vars, 1)
    assert list(cells.uns["nb"]["comparisons"]) == ["c"]


def test_a_second_call_replaces_the_first(cells):
    """Arrays of a test that stores more do not survive one that stores less; other keys that start alike do."""
    compare(cells)
    cells.varm["nb_compare_mine"] = np.ones((cells.n_vars, 1))
    compare(cells, test="wald", groups=["c"])
    assert set(stored(cells)) == {*EVERY_TEST, "base_mean"}
    assert "nb_compare_mine" in cells.varm
    assert cells.varm["nb_compare_pvals"].shape == (cells.n_vars, 1)


def test_copy(cells, unchanged):
    before = cells.copy()
    result = compare(cells, copy=True)
    unchanged(cells, before)
    compare(cells)
    assert_same_results(stored(result), stored(cells))


# what goes in


def test_samples_give_the_results_of_their_cells(cells):
    pdata = pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=20)
    compare(cells, min_cells=20)
    tl.nb_compare(pdata, "condition", reference="ctrl", min_cells=20)
    assert_same_results(stored(pdata), stored(cells))
    np.testing.assert_array_equal(pdata.uns["nb_compare"]["samples"]["n_cells"], pdata.obs["psbulk_cells"])
    compare(pdata, key_added="by replicate", min_cells=20)
    assert_same_results(stored(pdata, "by replicate"), stored(cells))


def test_rows_of_a_bulk_experiment(cells, samples):
    pdata = pp.pseudobulk(cells, "condition", replicate_key="replicate")
    bulk = samples(pdata.X.astype(int), pdata.obs["condition"].to_numpy())
    tl.nb_compare(bulk, "condition", reference="ctrl", groups=["a/b", "c"])
    compare(cells)
    ours, theirs = stored(bulk), stored(cells)
    order = np.argsort(cells.uns["nb_compare"]["comparisons"])
    for word in ("pvals", "logfoldchanges", "dispersions"):
        np.testing.assert_allclose(ours[word], theirs[word][:, order], rtol=1e-6, atol=1e-9)
    assert bulk.uns["nb_compare"]["samples"]["replicate"].tolist() == sorted(
        bulk.obs_names, key=lambda name: (bulk.obs.loc[name, "condition"], name)
    )


KINDS = {
    "dense": lambda x: np.asarray(x.todense()),
    "fortran, integer": lambda x: np.asfortranarray(x.todense().astype(np.int32)),
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_matrix(cells, kind):
    compare(cells)
    other = ad.AnnData(KINDS[kind](cells.X), obs=cells.obs, var=cells.var[["true_mean"]])
    compare(other)
    assert_same_results(stored(other), stored(cells))


def test_dask(cells):
    array = pytest.importorskip("dask.array")
    other = ad.AnnData(
        array.from_array(np.asarray(cells.X.todense()), chunks=(50, -1)), obs=cells.obs, var=cells.var[["true_mean"]]
    )
    compare(other)
    compare(cells)
    assert_same_results(stored(other), stored(cells))


@pytest.mark.parametrize("how", ["backed", "lazy h5ad", "lazy zarr"])
def test_on_disk(cells, tmp_path, how):
    """Results are written to memory, and again over those of an earlier call."""
    del cells.layers["scaled"]
    if how == "lazy zarr":
        cells.write_zarr(tmp_path / "x.zarr")
        disk = ad.experimental.read_lazy(tmp_path / "x.zarr")
    else:
        cells.write_h5ad(tmp_path / "x.h5ad")
        disk = (
            ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
            if how == "backed"
            else ad.experimental.read_lazy(tmp_path / "x.h5ad")
        )
    for test in ("wald", "moderated", "lrt"):
        compare(disk, test=test)
        compare(cells, test=test)
        assert_same_results(stored(disk), stored(cells))
    assert list(disk.uns["nb_compare"]["comparisons"]) == ["a/b", "c"]
    if how == "backed":
        disk.file.close()


def test_layer(cells):
    compare(cells)
    other = cells.copy()
    other.layers["counts"] = other.X.copy()
    other.X = np.log1p(np.asarray(other.X.todense()))
    compare(other, layer="counts", key_added="x")
    assert_same_results(stored(other, "x"), stored(cells))


@pytest.mark.parametrize("dtype", ["str", "object", "category", "int"])
def test_every_kind_of_column(cells, dtype):
    """Categories keep their order; others are sorted as text, numbers as numbers."""
    compare(cells)
    column = cells.obs["condition"].map({"ctrl": 10, "a/b": 2, "c": 1}).astype(int)
    other = cells.copy()
    other.obs["condition"] = column if dtype == "int" else column.astype(str).astype(dtype)
    compare(other, reference=10 if dtype == "int" else "10")
    assert list(other.uns["nb_compare"]["comparisons"]) == ["1", "2"]
    for word in ("pvals", "logfoldchanges"):
        np.testing.assert_allclose(stored(other)[word][:, ::-1], stored(cells)[word], rtol=1e-6, atol=1e-9)


def test_several_columns(cells):
    cells.obs["half"] = np.where(np.arange(cells.n_obs) % 2, "x", "y")
    tl.nb_compare(cells, ["condition", "half"], reference="ctrl | x", replicate_key=["replicate", "half"], min_cells=1)
    assert set(cells.uns["nb_compare"]["comparisons"]) == {"ctrl | y", "a/b | x", "a/b | y", "c | x", "c | y"}
    assert cells.uns["nb_compare"]["params"]["groupby"] == ["condition", "half"]


def test_cells_left_out_are_counted(cells):
    cells.obs.loc[cells.obs_names[:7], "condition"] = np.nan
    cells.obs.loc[cells.obs_names[40:45], "replicate"] = np.nan
    compare(cells)
    left_out = cells.uns["nb_compare"]["n_cells_excluded"]
    assert left_out["no_condition"] == 7
    assert left_out["no_replicate"] == 5
    assert cells.uns["nb_compare"]["samples"]["n_cells"].sum() == cells.n_obs - 12


# what is compared with what


def test_groups_choose_columns_and_all_inform_their_dispersion(cells):
    compare(cells)
    compare(cells, groups=["c"], key_added="one")
    assert_same_results(stored(cells, "one"), stored(cells), exact=False, columns=[1])
    compare(cells, groups="c", key_added="one")
    assert list(cells.uns["one"]["comparisons"]) == ["c"]
    compare(cells, groups=["c", "a/b", "c", "ctrl"], key_added="turned")
    assert list(cells.uns["turned"]["comparisons"]) == ["c", "a/b"]


def test_a_pair_alone_is_a_data_set_of_two_groups(cells):
    """With given size factors, for those of two groups are not those of three."""
    cells.obs["depth"] = 1.0
    compare(cells, dispersion="pair", size_factors="depth")
    two = cells[cells.obs["condition"] != "a/b"].copy()
    compare(two, size_factors="depth", key_added="alone")
    for word in ("pvals", "dispersions", "logfoldchanges", "lfc_se"):
        np.testing.assert_allclose(stored(two, "alone")[word][:, 0], stored(cells)[word][:, 1], rtol=1e-8)
    compare(cells, size_factors="depth", key_added="shared")
    assert not np.allclose(stored(cells, "shared")["pvals"], stored(cells)["pvals"], equal_nan=True)


def test_the_rest_is_all_other_samples(cells):
    compare(cells, reference="rest", dispersion="pair")
    assert list(cells.uns["nb_compare"]["comparisons"]) == ["ctrl", "a/b", "c"]
    assert cells.uns["nb_compare"]["reference"] == "rest"
    pairwise = stored(cells)
    compare(cells, reference="rest")
    for word in ("pvals", "logfoldchanges", "lfc_se", "status"):
        np.testing.assert_allclose(stored(cells)[word], pairwise[word], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("test", ["wald", "lrt"])
def test_the_rest_without_moderation(cells, test):
    compare(cells, reference="rest", test=test, groups=["c"])
    cells.obs["is_c"] = np.where(cells.obs["condition"] == "c", "c", "others")
    tl.nb_compare(cells, "is_c", reference="others", replicate_key="replicate", key_added="merged", test=test)
    for word in ("pvals", "logfoldchanges"):
        np.testing.assert_allclose(stored(cells, "merged")[word], stored(cells)[word], rtol=1e-6, atol=1e-9)


def test_two_groups_against_the_rest_mirror_each_other(cells):
    two = cells[cells.obs["condition"] != "c"].copy()
    compare(two, reference="rest")
    ours = stored(two)
    np.testing.assert_allclose(ours["pvals"][:, 0], ours["pvals"][:, 1], rtol=1e-5)
    np.testing.assert_allclose(ours["logfoldchanges"][:, 0], -ours["logfoldchanges"][:, 1], atol=1e-9)


def test_blocks_take_donors_out(paired):
    """The numbers of the blocked test on arrays; with donors who differ much it finds more than without."""
    compare(paired, block_key="donor", key_added="blocked")
    samples = paired.uns["blocked"]["samples"]
    assert samples["block"].tolist() == samples["replicate"].tolist()
    plain, _ = by_hand(paired)
    block = pd.factorize(samples["block"])[0]
    expected = moderated_tests(Pseudobulk(plain.counts, plain.exposure, plain.group, block), np.array([[0, 1], [0, 2]]))
    np.testing.assert_allclose(stored(paired, "blocked")["pvals"], expected.p_value, rtol=1e-6)
    with pytest.warns(UserWarning, match="pass block_key='replicate'"):
        compare(paired)
    called = [(stored(paired, key)["pvals_adj"] < 0.05).sum() for key in ("blocked", "nb_compare")]
    assert called[0] > 1.2 * called[1]


def test_the_warning_points_at_the_caller(paired):
    with pytest.warns(UserWarning, match="occurs in several groups") as caught:
        compare(paired)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(paired, block_key="donor")


# estimators and tests


def two_groups(cells):
    pseudobulk, _ = by_hand(cells)
    return [
        tuple(Group(np.ascontiguousarray(pseudobulk.counts[:, pseudobulk.group == k]), pseudobulk.exposure[pseudobulk.group == k]) for k in (0, c))
        for c in (1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["mom", "mle", "cox-reid"])
@pytest.mark.parametrize("test", ["wald", "lrt"])
def test_unmoderated_tests(cells, method, test):
    fit = {
        "mom": fit_moments,
        "mle": fit_likelihood,
        "cox-reid": lambda a, b: fit_likelihood(a, b, cox_reid=True),
    }[method]
    apply = {"wald": wald_test, "lrt": likelihood_ratio_test}[test]
    compare(cells, test=test, method=method.replace("cox-reid", "mle"), cox_reid=method == "cox-reid")
    ours = stored(cells)
    assert set(ours) == {*EVERY_TEST, "base_mean"}
    assert cells.uns["nb_compare"]["trend"] == {}
    for c, pair in enumerate(two_groups(cells)):
        one = fit(*pair)
        expected = apply(one, *pair)
        tested = np.isfinite(ours["pvals"][:, c])
        assert tested.mean() > 0.9
        np.testing.assert_allclose(ours["pvals"][tested, c], expected.p_value[tested], rtol=1e-6)
        np.testing.assert_allclose(ours["logfoldchanges"][tested, c], one.log_fc[tested] / np.log(2), rtol=1e-8)
        np.testing.assert_allclose(ours["lfc_se"][tested, c], expected.se[tested] / np.log(2), rtol=1e-8)
        np.testing.assert_allclose(ours["dispersions"][tested, c], one.dispersion[tested], rtol=1e-6, atol=1e-12)


def test_likelihood_effects_beside_moderated_p_values(cells):
    compare(cells)
    compare(cells, method="mle", key_added="mle")
    ours, moments = stored(cells, "mle"), stored(cells)
    for word in ("pvals", "scores", "dispersions", "status"):
        np.testing.assert_array_equal(ours[word], moments[word])
    for c, pair in enumerate(two_groups(cells)):
        one = fit_likelihood(*pair)
        np.testing.assert_allclose(ours["logfoldchanges"][:, c], one.log_fc / np.log(2), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(ours["dispersions_genewise"][:, c], one.dispersion, rtol=1e-8, atol=1e-12)
    tested = np.isfinite(ours["pvals"])
    assert np.corrcoef(ours["logfoldchanges"][tested], moments["logfoldchanges"][tested])[0, 1] > 0.99
    ratio = ours["lfc_se"][tested] / moments["lfc_se"][tested]
    assert 0.8 < np.median(ratio) < 1.2


# size factors


@pytest.mark.parametrize("method", ["auto", "median_of_ratios", "pooled_ratios", "poscounts", "total", "tmm"])
def test_size_factors_by_name(cells, method):
    compare(cells, size_factors=method)
    pdata = pp.pseudobulk(cells, "condition", replicate_key="replicate")
    pp.size_factors(pdata, method=method, groupby="condition")
    params = cells.uns["nb_compare"]["params"]
    np.testing.assert_allclose(cells.uns["nb_compare"]["samples"]["size_factor"], pdata.obs["size_factors"])
    assert params["size_factors"] == method
    assert params["size_factors_used"] == pdata.uns["size_factors"]["method_used"]


def test_given_size_factors_follow_their_samples(cells):
    """A column of cells, a column of samples, an array and a list, in any order of rows; only their ratios matter."""
    pdata = pp.pseudobulk(cells, "condition", replicate_key="replicate")
    depth = pd.Series(np.random.default_rng(0).lognormal(0, 0.5, 9), pdata.obs["replicate"].astype(str))
    cells.obs["depth"] = cells.obs["replicate"].astype(str).map(depth).to_numpy() * 7
    compare(cells, size_factors="depth")
    assert cells.uns["nb_compare"]["params"]["size_factors_used"] == "given"
    samples = cells.uns["nb_compare"]["samples"]
    expected = depth[samples["replicate"]].to_numpy()
    np.testing.assert_allclose(samples["size_factor"], expected / np.exp(np.log(expected).mean()))
    pdata = pdata[np.random.default_rng(1).permutation(9)].copy()
    values = depth[pdata.obs["replicate"].astype(str)].to_numpy()
    for given in (values, list(values * 3), pd.Series(values)):
        tl.nb_compare(pdata, "condition", reference="ctrl", size_factors=given)
        assert pdata.uns["nb_compare"]["params"]["size_factors"] == "given"
        assert_same_results(stored(pdata), stored(cells), exact=False)


# small samples


def test_small_samples_are_dropped_and_listed(cells):
    small = cells.obs.groupby("replicate", observed=True).size().nsmallest(2)
    compare(cells, min_cells=int(small.iloc[1]))
    dropped = cells.uns["nb_compare"]["dropped_samples"]
    assert dropped["replicate"].tolist() == [small.index[0]]
    assert dropped["n_cells"].tolist() == [small.iloc[0]]
    assert dropped["reason"].tolist() == [f"fewer than {small.iloc[1]} cells"]
    assert small.index[0] not in set(cells.uns["nb_compare"]["samples"]["replicate"])
    counts = cells.X[(cells.obs["replicate"] == small.index[0]).to_numpy()].sum()
    assert dropped["counts"].tolist() == [counts]


def test_min_counts(cells):
    totals = pd.Series(np.asarray(cells.X.sum(axis=1)).ravel()).groupby(cells.obs["replicate"].to_numpy()).sum()
    smallest = totals.nsmallest(2)
    compare(cells, min_counts=smallest.iloc[1])
    assert cells.uns["nb_compare"]["dropped_samples"]["replicate"].tolist() == [smallest.index[0]]
    assert cells.uns["nb_compare"]["dropped_samples"]["reason"].iloc[0].endswith("counts")


def test_a_group_without_samples_is_named(cells):
    keep = (cells.obs["condition"] != "c") | (np.arange(cells.n_obs) % 12 == 0)
    few = cells[keep].copy()
    with pytest.warns(UserWarning, match=r"No sample of 'c' is left \(fewer than 10 cells\): not compared"):
        compare(few)
    assert list(few.uns["nb_compare"]["comparisons"]) == ["a/b"]
    compare(few, groups=["a/b"])


def test_min_total(cells):
    compare(cells, min_gene_counts=300)
    pseudobulk, _ = by_hand(cells)
    for c in (1, 2):
        total = pseudobulk.counts[:, (pseudobulk.group == 0) | (pseudobulk.group == c)].sum(axis=1)
        np.testing.assert_array_equal(np.isnan(stored(cells)["pvals"][:, c - 1]), total < 300)
