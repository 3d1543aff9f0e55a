"""method='quadrature' and 'transformer': what is stored, what is refused, and that neither touches the p-values."""

from __future__ import annotations

import sys

import anndata as ad
import numpy as np
import pytest

from nbcompare import get, pl, tl
from nbcompare.tl._posterior.arrays import posterior_of_arrays

STORED = ("logfoldchanges", "lfc_median", "lfc_sd", "lfc_lower", "lfc_upper", "null_probability", "lfsr", "dispersions")


def compare(adata, method="quadrature", **options):
    defaults = {"reference": "ctrl", "replicate_key": "replicate", "key_added": "post", "method": method}
    tl.nb_compare(adata, "condition", **(defaults | options))
    return adata


@pytest.fixture(scope="session")
def _compared_once(_cells_once):
    cells = compare(_cells_once.copy())
    tl.nb_compare(cells, "condition", reference="ctrl", replicate_key="replicate", key_added="mom")
    return cells


@pytest.fixture
def compared(_compared_once):
    return _compared_once.copy()


class TestStored:
    def test_tests_are_those_of_the_moderated_test(self, compared):
        for word in ("pvals", "pvals_adj", "scores", "lfc_se", "status", "dispersions_genewise"):
            assert np.array_equal(compared.varm[f"post_{word}"], compared.varm[f"mom_{word}"], equal_nan=True), word
        untested = np.isnan(compared.varm["mom_pvals"])
        unshrunken, moments = compared.varm["post_lfc_unshrunken"], compared.varm["mom_logfoldchanges"]
        assert np.array_equal(unshrunken, moments, equal_nan=True)
        for word in STORED:
            assert np.array_equal(np.isnan(compared.varm[f"post_{word}"]), untested), word

    def test_what_it_says_hangs_together(self, compared):
        stored = {word: compared.varm[f"post_{word}"] for word in STORED}
        tested = np.isfinite(stored["lfsr"])
        for lower, upper in (("lfc_lower", "lfc_median"), ("lfc_median", "lfc_upper"), ("null_probability", "lfsr")):
            assert (stored[lower] <= stored[upper] + 1e-9)[tested].all()
        assert ((stored["lfsr"] >= 0) & (stored["lfsr"] <= 1))[tested].all()
        assert (stored["dispersions"] > 0)[tested].all()
        assert "post_pareto_k" not in compared.varm

    def test_the_same_from_arrays(self, compared):
        table = compared.uns["post"]["samples"]
        prior = compared.uns["post"]["prior"]
        pseudobulk = ad.AnnData(np.stack([np.asarray(compared[(compared.obs["condition"] == c).to_numpy() & (compared.obs["replicate"] == r).to_numpy()].X.sum(axis=0)).ravel() for c, r in zip(table["condition"], table["replicate"], strict=True)]))  # fmt: skip
        side = {name: (table["condition"] == name).to_numpy() for name in ("ctrl", "c")}
        c = list(compared.uns["post"]["comparisons"]).index("c")
        tested = np.isfinite(compared.varm["post_pvals"][:, c])
        known = {name: value if name == "tail" else value[c] for name, value in prior.items()}
        known |= {"dispersion": compared.varm["post_prior_dispersions"][tested, c]}
        known |= {"dispersion_log_sd": compared.varm["post_prior_dispersion_log_sd"][tested, c]}
        counts = [pseudobulk.X[mask][:, tested].T for mask in side.values()]
        depth = [table["size_factor"].to_numpy()[mask] for mask in side.values()]
        posterior = posterior_of_arrays(
            *counts, prior=known, exposure_reference=depth[0], exposure_treated=depth[1], method="quadrature"
        )
        for word in STORED:
            assert posterior[word].to_numpy() == pytest.approx(compared.varm[f"post_{word}"][tested, c], abs=1e-8), word

    def test_table_has_the_new_columns(self, compared):
        table = get.nb_compare_df(compared, "c", key="post")
        assert {"lfc_lower", "lfc_upper", "null_probability", "lfsr", "lfc_unshrunken"} <= set(table.columns)
        assert "lfsr" not in get.nb_compare_df(compared, "c", key="mom").columns

    @pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
    def test_round_trip(self, compared, tmp_path, suffix):
        compared.uns["post"]["params"]["prior"] = {"null_proportion": 0.9, "tail": "lognormal"}
        path = tmp_path / f"x.{suffix}"
        getattr(compared, f"write_{suffix}")(path)
        back = getattr(ad, f"read_{suffix}")(path)
        for name, value in compared.uns["post"]["prior"].items():
            assert np.array_equal(back.uns["post"]["prior"][name], value)
        assert np.array_equal(back.varm["post_lfsr"], compared.varm["post_lfsr"], equal_nan=True)
        assert pl.posterior(back, "gene_010", "c", key="post").has_data()

    def test_another_method_leaves_nothing_behind(self, compared):
        compare(compared, "mom")
        assert "post_lfsr" not in compared.varm
        assert "prior" not in compared.uns["post"]

    def test_given_prior_is_used(self, cells):
        compare(cells, prior={"null_proportion": 0.999, "lfc_sd": 0.2, "tail": "lognormal"}, groups=["c"])
        prior = cells.uns["post"]["prior"]
        assert prior["null_proportion"].tolist() == [0.999]
        assert prior["lfc_sd"] == pytest.approx(0.2)
        assert prior["tail"] == "lognormal"
        assert np.nanmedian(cells.varm["post_null_probability"]) > 0.99

    def test_splits_have_priors_of_their_own(self, cells):
        cells.obs["kind"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
        compare(cells, split_by="kind", groups=["c"], min_cells=1)
        assert list(cells.uns["post"]["prior"]) == ["0", "1"]
        assert pl.posterior(cells, "gene_010", "c", split="b", key="post").has_data()


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"test": "wald"}, "test='moderated'"),
            ({"block_key": "replicate"}, "block_key cannot be combined"),
            ({"shrink": True}, "shrink cannot be combined with"),
            ({"dispersion": "pair"}, "trend of the whole data set"),
            ({"prior": {"null_proportion": [0.5, 0.6]}}, "must be one number"),
            ({"prior": {"dispersion": [0.5, 0.6]}}, r"\(2,\)"),
            ({"lfc_threshold": 1.0}, "lfc_threshold cannot be combined with"),
            ({"prior": {"null": 0.5}}, "may hold 'null_proportion'"),
            ({"prior": {"null_proportion": 1.5}}, "between 0 and 1"),
            ({"prior": {"tail": "t"}}, "'lognormal'"),
            ({"device": "cpu"}, "uses no network"),
            ({"method": "mom", "prior": {"null_proportion": 0.5}}, "prior requires method='transformer'"),
            ({"method": "mle", "device": "cuda"}, "device requires"),
        ],
    )
    def test_before_any_work(self, cells, unchanged, options, match):
        before = cells.copy()
        with pytest.raises(ValueError, match=match):
            compare(cells, **options)
        unchanged(cells, before)

    def test_without_torch(self, cells, unchanged, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        before = cells.copy()
        with pytest.raises(ImportError, match=r"pip install 'nbcompare\[transformer\]'"):
            compare(cells, "transformer")
        unchanged(cells, before)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"counts_reference": np.ones(3)}, "n_tests, n_replicates"),
            ({"counts_reference": np.full((2, 3), 0.5)}, "not counts"),
            ({"counts_treated": np.ones((3, 3))}, "2 tests"),
            ({"exposure_treated": np.ones(2)}, "must be"),
            ({"exposure_treated": -np.ones(3)}, "positive"),
            ({"exposure_reference": np.array([[1.0, 1, 1], [0, 0, 0]])}, "is 0 in all"),
            ({"prior": {"null_proportion": 0.5}}, "prior lacks 'lfc_sd'"),
            ({"method": "bayes"}, "must be one of"),
        ],
    )
    def test_arrays(self, change, match):
        known = {
            "null_proportion": 0.5,
            "lfc_sd": 1,
            "dispersion": 0.1,
            "dispersion_log_sd": 0.5,
            "mean": 9,
            "mean_log_sd": 1,
        }
        given = {
            "counts_reference": np.ones((2, 3)),
            "counts_treated": np.ones((2, 3)),
            "prior": known,
            "method": "quadrature",
        } | change
        with pytest.raises(ValueError, match=match):
            posterior_of_arrays(given.pop("counts_reference"), given.pop("counts_treated"), **given)


class TestTransformer:
    @pytest.fixture(autouse=True)
    def network(self):
        pytest.importorskip("torch")

    def test_refined_and_unrefined_are_near_the_exact_posterior(self, compared):
        for importance_sampling, key in ((True, "refined"), (False, "raw")):
            compare(compared, "transformer", importance_sampling=importance_sampling, key_added=key)
            assert np.array_equal(compared.varm[f"{key}_pvals"], compared.varm["mom_pvals"], equal_nan=True)
            inside = np.isfinite(compared.varm["post_lfsr"]) & (compared.varm[f"{key}_status"] < 32768)
            assert inside.sum() > 200
            for word, tolerance in (("null_probability", 0.02), ("logfoldchanges", 0.05), ("lfc_lower", 0.1)):
                error = (compared.varm[f"{key}_{word}"] - compared.varm[f"post_{word}"])[inside]
                assert np.sqrt(np.mean(error**2)) < tolerance, (key, word)
        assert (compared.varm["refined_pareto_k"][inside] < 0.7).mean() > 0.95
        assert np.isnan(compared.varm["raw_pareto_k"]).all()

    def test_outside_of_training_the_network_is_not_asked(self, cells):
        prior = {"lfc_sd": 9.0, "dispersion_log_sd": 3.0}
        compare(cells, "transformer", prior=prior)
        compare(cells, "quadrature", prior=prior, key_added="exact")
        tested = np.isfinite(cells.varm["post_pvals"])
        assert (cells.varm["post_status"][tested] & 32768).all()
        assert np.array_equal(cells.varm["post_lfsr"], cells.varm["exact_lfsr"], equal_nan=True)
        compare(cells, "transformer", prior=prior, importance_sampling=False)
        near = np.abs(cells.varm["post_null_probability"] - cells.varm["exact_null_probability"])[tested]
        assert np.median(near) < 0.1
        assert "outside_training" in get.nb_compare_df(cells, "c", key="post")["status"].iloc[0]
        assert pl.agreement(cells, ["exact", "post"], "c").has_data()


@pytest.mark.slow
def test_error_below_that_of_moments_and_likelihood_in_every_bin_of_the_mean():
    """On data of the kind that the prior describes, whose numbers are estimated from the data themselves."""
    rng = np.random.default_rng(0)
    n_genes, n = 1500, 5
    centre = rng.normal(3, 1.5, n_genes)
    beta = np.where(rng.random(n_genes) < 0.7, 0.0, rng.normal(0, 1, n_genes))
    phi = np.exp(rng.normal(-2, 0.7, n_genes))[:, None]
    depth = np.exp(rng.normal(0, 0.3, 2 * n))
    mean = np.exp(centre[:, None] + np.repeat([-0.5, 0.5], n) * beta[:, None]) * depth
    adata = ad.AnnData(rng.poisson(mean * rng.gamma(1 / phi, phi, mean.shape)).T.astype(float))
    adata.obs["condition"] = np.repeat(["ctrl", "c"], n)
    adata.obs_names = [f"s{i}" for i in range(2 * n)]
    for method in ("mom", "mle", "quadrature"):
        tl.nb_compare(adata, "condition", reference="ctrl", method=method, key_added=method)
    tested = np.isfinite(adata.varm["mom_pvals"][:, 0])
    truth = beta[tested] / np.log(2)
    error = {
        name: np.abs(adata.varm[word][tested, 0] - truth)
        for name, word in (
            ("mom", "mom_logfoldchanges"),
            ("mle", "mle_logfoldchanges"),
            ("posterior", "quadrature_lfc_median"),
        )
    }
    bins = np.digitize(centre[tested], np.quantile(centre[tested], [0.2, 0.4, 0.6, 0.8]))
    for b in range(5):
        assert error["posterior"][bins == b].mean() < 0.8 * min(error[m][bins == b].mean() for m in ("mom", "mle"))
    lower, upper = adata.varm["quadrature_lfc_lower"][tested, 0], adata.varm["quadrature_lfc_upper"][tested, 0]
    assert 0.87 < ((lower <= truth) & (truth <= upper)).mean() < 0.99
