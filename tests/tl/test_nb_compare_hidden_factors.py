"""Hidden factors of `nb_compare`: what is stored, all kinds of designs, refusals and warnings."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
from scipy.stats import norm

import nbcompare as nb


def bulk(seed: int = 0, n: int = 6, n_genes: int = 800, strength: float = 0.4, groups: str = "ab") -> ad.AnnData:
    """Samples of groups with one hidden factor, one row a sample."""
    rng = np.random.default_rng(seed)
    n_samples = n * len(groups)
    mean = np.exp(rng.uniform(np.log(8), np.log(500), n_genes))
    factor = rng.normal(size=n_samples)
    log_mean = np.log(mean)[:, None] + np.outer(rng.normal(0, strength, n_genes), factor)
    counts = rng.poisson(np.exp(log_mean) * rng.gamma(10, 0.1, log_mean.shape))
    adata = ad.AnnData(counts.T.astype(np.float32))
    adata.obs["condition"] = np.repeat(list(groups), n)
    adata.obs["batch"] = np.tile(["x", "y"], n_samples // 2)
    adata.obs["age"] = rng.normal(size=n_samples)
    adata.obs_names = [f"s{i}" for i in range(n_samples)]
    return adata


def compare(adata: ad.AnnData, **options) -> ad.AnnData:
    call = {"reference": "a", "allow_cells_as_replicates": True, "verbose": False, "hidden_factors": "auto"} | options
    return nb.tl.nb_compare(adata, "condition", copy=True, **call)


@pytest.fixture(scope="module")
def samples() -> ad.AnnData:
    return bulk()


@pytest.fixture(scope="module")
def plain(samples) -> ad.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compare(samples, hidden_factors=None)


@pytest.fixture(scope="module")
def adjusted(samples) -> ad.AnnData:
    return compare(samples)


def test_what_is_stored(plain, adjusted, tmp_path):
    np.testing.assert_array_equal(adjusted.varm["nb_compare_pvals_without_factors"], plain.varm["nb_compare_pvals"])
    stored = adjusted.uns["nb_compare"]["hidden_factors"]
    (k,) = stored["n_factors"]
    assert k >= 1
    assert stored["factors"].shape == (12, k)
    assert stored["weights"].sum() == pytest.approx(1)
    assert stored["variance_share"][0] == stored["variance_share"].max()
    assert stored["refused"] == ""
    inflation = adjusted.varm["nb_compare_hidden_inflation"]
    assert (inflation[np.isfinite(inflation)] >= 1).all()
    p, lower, upper = (adjusted.varm[f"nb_compare_{word}"] for word in ("pvals_unfiltered", "lfc_lower", "lfc_upper"))
    np.testing.assert_array_equal(p < 0.05, (lower > 0) | (upper < 0))
    np.testing.assert_allclose(
        p, 2 * norm.sf(np.abs(adjusted.varm["nb_compare_scores"])), rtol=1e-9
    )  # no gene is below two counts a sample
    assert adjusted.uns["nb_compare"]["params"]["hidden_factors"] == "auto"
    assert f"adjusted for {k} hidden factor" in nb.get.summary(adjusted)
    adjusted.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad").uns["nb_compare"]["hidden_factors"]
    for name, value in stored.items():
        np.testing.assert_array_equal(back[name], value)
    assert len(nb.get.nb_compare_df(adjusted, "b")) == adjusted.n_vars


def test_the_factor_raises_power():
    """A factor that is not the condition: with it adjusted for, p-values of changed genes fall."""
    adata = bulk(3, n=8)
    rng = np.random.default_rng(1)
    changed = rng.random(adata.n_vars) < 0.1
    kept = np.where(changed & (rng.random(adata.n_vars) < 0.5), 0.5, 1.0)
    treated = (adata.obs["condition"] == "b").to_numpy()
    adata.X[treated] = rng.binomial(adata.X[treated].astype(int), kept)
    found = compare(adata)
    p, before = (found.varm[f"nb_compare_{word}"][kept < 1, 0] for word in ("pvals", "pvals_without_factors"))
    assert np.median(p) < 0.5 * np.median(before)


def test_a_data_set_without_factors_is_untouched(recwarn):
    adata = bulk(2, strength=0.0)
    plain, found = compare(adata, hidden_factors=None), compare(adata)
    assert not [one for one in recwarn if "common direction" in str(one.message)]
    assert found.uns["nb_compare"]["hidden_factors"]["n_factors"].tolist() == [0]
    for name in plain.varm:
        np.testing.assert_array_equal(found.varm[name], plain.varm[name])


def test_a_design_of_groups_is_the_comparison_of_groups(samples, adjusted):
    found = compare(samples, design="~ condition")
    for word in ("scores", "logfoldchanges", "lfc_lower"):
        np.testing.assert_allclose(found.varm[f"nb_compare_{word}"], adjusted.varm[f"nb_compare_{word}"], atol=1e-7)


@pytest.mark.parametrize(
    "options", [{"design": "~ age + condition"}, {"design": "~ batch + condition"}, {"block_key": "batch"}]
)
def test_covariates_and_blocks(samples, options):
    found = compare(samples, **options)
    assert found.uns["nb_compare"]["hidden_factors"]["n_factors"][0] >= 1
    z = found.varm["nb_compare_scores"]
    assert 0.7 < np.nanstd(z) < 1.2
    assert (found.varm["nb_compare_pvals"] < 0.01).mean() < 0.03


def test_blocks_and_their_design_agree(samples):
    """The unadjusted tests differ, the adjusted ones have nearly the same residuals."""
    blocks, design = compare(samples, block_key="batch"), compare(samples, design="~ batch + condition")
    assert np.corrcoef(blocks.varm["nb_compare_scores"][:, 0], design.varm["nb_compare_scores"][:, 0])[0, 1] > 0.98


def test_several_comparisons_share_the_factors():
    adata = bulk(4, n=4, groups="abc")
    found = compare(adata)
    stored = found.uns["nb_compare"]["hidden_factors"]
    assert (stored["n_factors"] >= 1).all()
    assert stored["factors"].shape == (12, stored["n_factors"].sum())
    assert np.bincount(stored["factor_of"]).tolist() == stored["n_factors"].tolist()
    rest = compare(adata, reference="rest")
    assert (rest.uns["nb_compare"]["hidden_factors"]["n_factors"] >= 1).all()
    assert (rest.varm["nb_compare_pvals"] < 0.01).mean() < 0.03


def test_each_split_has_its_own_factors(samples):
    other = bulk(5)
    other.obs_names = [f"t{i}" for i in range(other.n_obs)]
    both = ad.concat([samples, other], label="part")
    found = compare(both, split_by="part")
    stored = found.uns["nb_compare"]["hidden_factors"]
    assert sorted(stored) == ["0", "1"]
    assert "hidden factor" in nb.get.summary(found)
    alone = compare(samples)
    np.testing.assert_array_equal(found.varm["nb_compare_scores"][:, 0], alone.varm["nb_compare_scores"][:, 0])
    np.testing.assert_array_equal(stored["0"]["factors"], alone.uns["nb_compare"]["hidden_factors"]["factors"])


def test_shrunken_effects_follow_the_adjusted_ones(samples):
    found = compare(samples, shrink=True)
    assert (found.varm["nb_compare_lfsr"] < 0.05).mean() < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": "wald"}, "requires test='moderated'"),
        ({"lfc_threshold": 1}, "cannot be combined with lfc_threshold=1"),
        ({"dispersion": "pair"}, "cannot be combined with dispersion='pair'"),
        ({"method": "quadrature"}, "cannot be combined with method='quadrature'"),
        ({"hidden_factors": 6}, "hidden_factors is 6, but 12 samples and 2 columns of the design allow 5 at most"),
    ],
)
def test_refusals(samples, options, message):
    with pytest.raises(ValueError, match=message):
        compare(samples, **options)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (1.5, ValueError), ("many", TypeError), (True, TypeError)]
)
def test_wrong_numbers(samples, value, error):
    with pytest.raises(error, match=r"hidden_factors is .*, but must be None, 'auto'"):
        compare(samples, hidden_factors=value)


def test_too_few_samples():
    adata = bulk(n=3)
    with pytest.raises(ValueError, match="leave 4 residual degrees of freedom, and hidden factors need 6"):
        compare(adata, hidden_factors=1)
    with pytest.warns(UserWarning, match="adjusts for nothing: 6 samples"):
        found = compare(adata)
    assert found.uns["nb_compare"]["hidden_factors"]["refused"]
    np.testing.assert_array_equal(found.varm["nb_compare_pvals"], found.varm["nb_compare_pvals_without_factors"])


def test_one_warning_of_all_splits_with_too_few_samples():
    parts = [bulk(seed=k, n=n) for k, n in enumerate((6, 3, 3))]
    for k, part in enumerate(parts):
        part.obs_names = [f"{k}_{i}" for i in range(part.n_obs)]
    both = ad.concat(parts, label="part", keys=["large", "small", "tiny"])
    with pytest.warns(
        UserWarning, match=r"adjusts for nothing in 2 of 3 splits \('small', 'tiny'\): 'small': 6 samples"
    ) as caught:
        found = compare(both, split_by="part")
    assert len(caught) == 1
    assert np.isfinite(found.varm["nb_compare_pvals"]).all(axis=0).tolist() == [True, True, True]


def test_few_genes():
    with pytest.warns(UserWarning, match="Only 200 tested genes"):
        compare(bulk(n_genes=200))


def test_several_coefficients_at_once(samples):
    with pytest.raises(ValueError, match="requires contrasts of one log fold change"):
        compare(bulk(n=4, groups="abc"), design="~ condition", contrast="condition", reference=None)


def test_the_option_is_offered(samples):
    with pytest.warns(UserWarning, match="hidden_factors='auto' adjusts for such directions"):
        compare(samples, hidden_factors=None)


def test_a_factor_that_follows_the_condition():
    adata = bulk(6, n=8, strength=0.0)
    rng = np.random.default_rng(0)
    treated = (adata.obs["condition"] == "b").to_numpy()
    factor = np.where(treated, 1.5, -1.5) + rng.normal(size=16)
    kept = np.exp(-np.abs(np.clip(np.outer(factor, rng.normal(0, 0.4, adata.n_vars)), -3, 0)))
    adata.X = rng.binomial(adata.X.astype(int), kept).astype(np.float32)
    with pytest.warns(UserWarning, match="almost as the condition does"):
        found = compare(adata)
    assert found.uns["nb_compare"]["hidden_factors"]["variance_inflation"][0] > 2
