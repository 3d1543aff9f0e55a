"""Known factors of every count, as users give them."""

import re

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from nbcompare import datasets, pp, tl


@pytest.fixture(scope="module")
def _thinned():
    """Samples, and the same with a known share of each count left; the logs of the shares stand in a layer."""
    adata = datasets.simulate(n_genes=300, n_replicates=4, n_cells=40, paired=True, de_fraction=0.2, rng=0)
    whole = pp.pseudobulk(adata, "condition", replicate_key="donor")
    rng = np.random.default_rng(0)
    share = rng.uniform(0.05, 0.95, whole.shape)
    thinned = whole.copy()
    thinned.X = rng.binomial(whole.X.astype(int), share).astype(float)
    thinned.layers["share"] = np.log(share)
    return whole, thinned


@pytest.fixture
def whole(_thinned):
    return _thinned[0].copy()


@pytest.fixture
def thinned(_thinned):
    return _thinned[1].copy()


DESIGNS = {"groups": {}, "formula": {"design": "~ donor + condition"}}


@pytest.mark.parametrize("name", DESIGNS)
def test_known_factors_are_taken_out(whole, thinned, name):
    options = {"reference": "ctrl", **DESIGNS[name]}
    tl.nb_compare(whole, "condition", **options)
    tl.nb_compare(thinned, "condition", **options, offset="share", key_added="with")
    tl.nb_compare(thinned, "condition", **options, key_added="without")
    enough = whole.X.min(axis=0) > 20
    expected = whole.varm["nb_compare_logfoldchanges"][enough, 0]
    off = {key: thinned.varm[f"{key}_logfoldchanges"][enough, 0] - expected for key in ("with", "without")}
    assert np.sqrt(np.mean(off["with"] ** 2)) < 0.5 * np.sqrt(np.mean(off["without"] ** 2))
    depths = thinned.uns["with"]["samples"]["size_factor"] / whole.uns["nb_compare"]["samples"]["size_factor"]
    np.testing.assert_allclose(depths, 1, atol=0.1)
    params = thinned.uns["with"]["params"]
    assert params["offset"] == "share"
    assert thinned.uns["without"]["params"]["offset"] is None


@pytest.mark.parametrize("name", DESIGNS)
def test_what_is_the_same_in_all_samples_or_genes_is_nothing(thinned, name):
    options = {"reference": "ctrl", **DESIGNS[name]}
    rng = np.random.default_rng(1)
    tl.nb_compare(thinned, "condition", **options)
    of_gene, of_sample = rng.normal(size=thinned.n_vars), rng.normal(size=(thinned.n_obs, 1))
    for offset in (np.zeros(thinned.shape), np.tile(of_gene, (thinned.n_obs, 1)), of_gene + of_sample):
        tl.nb_compare(thinned, "condition", **options, offset=offset, key_added="x")
        for word in ("pvals", "logfoldchanges", "dispersions"):
            np.testing.assert_allclose(
                thinned.varm[f"x_{word}"], thinned.varm[f"nb_compare_{word}"], rtol=1e-5, atol=1e-8, err_msg=word
            )
    assert thinned.uns["x"]["params"]["offset"] == "given"


def test_offsets_of_samples_are_size_factors(thinned):
    """A factor for each sample, given once as size factors and once as offsets."""
    factors = np.random.default_rng(2).lognormal(0, 0.3, thinned.n_obs)
    offset = np.tile(np.log(factors)[:, None], (1, thinned.n_vars))
    options = {"reference": "ctrl", "design": "~ donor + condition"}
    tl.nb_compare(thinned, "condition", **options, size_factors=factors)
    tl.nb_compare(thinned, "condition", **options, size_factors=np.ones(thinned.n_obs), offset=offset, key_added="x")
    for word in ("pvals", "logfoldchanges"):
        np.testing.assert_allclose(thinned.varm[f"x_{word}"], thinned.varm[f"nb_compare_{word}"], rtol=1e-5, atol=1e-8)


def test_offsets_follow_their_rows(thinned):
    tl.nb_compare(thinned, "condition", reference="ctrl", offset="share")
    shuffled = thinned[np.random.default_rng(0).permutation(thinned.n_obs)].copy()
    tl.nb_compare(shuffled, "condition", reference="ctrl", offset="share")
    np.testing.assert_allclose(shuffled.varm["nb_compare_pvals"], thinned.varm["nb_compare_pvals"], rtol=1e-9)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, np.float32])
def test_offsets_as_they_are_stored(thinned, kind, tmp_path):
    tl.nb_compare(thinned, "condition", reference="ctrl", offset="share")
    other = thinned.copy()
    other.layers["share"] = kind(thinned.layers["share"])
    other.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    tl.nb_compare(back, "condition", reference="ctrl", offset="share")
    np.testing.assert_allclose(back.varm["nb_compare_pvals"], thinned.varm["nb_compare_pvals"], rtol=1e-4)
    back.file.close()


REFUSED = {
    "no layer": ({"offset": "length"}, KeyError, "no layer 'length'"),
    "shape": ({"offset": np.zeros((2, 3))}, ValueError, r"shape \(2, 3\), but a natural logarithm"),
    "nan": ({"offset": "holes"}, ValueError, "not finite in 2 entries, such as gene 'gene_004'"),
    "factors": ({"offset": "factors"}, ValueError, "natural logarithms are needed: pass np.log"),
    "blocks": (
        {"offset": "share", "block_key": "donor"},
        ValueError,
        "Without a design.*cannot be combined with block_key",
    ),
    "wald": ({"offset": "share", "test": "wald"}, ValueError, "Set a design"),
    "pair": ({"offset": "share", "dispersion": "pair"}, ValueError, "Set a design"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(thinned, name):
    options, error, message = REFUSED[name]
    thinned.layers["holes"] = thinned.layers["share"].copy()
    thinned.layers["holes"][[1, 2], 4] = np.nan
    thinned.layers["factors"] = np.exp(thinned.layers["share"] - thinned.layers["share"].mean(axis=0))
    with pytest.raises(error) as caught:
        tl.nb_compare(thinned, "condition", reference="ctrl", **options)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert not thinned.varm


def test_cells_have_no_offsets():
    adata = datasets.simulate(n_genes=30, n_cells=20, rng=0)
    with pytest.raises(ValueError, match="offset belongs to samples, but .* rows are summed into 6.*pp.pseudobulk"):
        tl.nb_compare(
            adata, "condition", reference="ctrl", replicate_key="replicate", offset=np.zeros(adata.shape), min_cells=1
        )
