"""Size factors against DESeq2, edgeR and PyDESeq2."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbcompare._counts.exposure import given_factors, size_factors, unstable_samples

BULK = ["airway", "fission", "montgomery", "pasilla", "rat_methimazole_ercc"]
CELLS = {
    "gbm": ("zhao2021_glioblastoma_panobinostat", ["condition", "donor"], None),
    "kang_mono": ("kang2018_pbmc_8donors", ["condition", "donor"], "CD14+ Monocytes"),
    "papalexi_a": ("papalexi2021_eccite_a", ["perturbation", "replicate"], None),
}
METHODS = ["median_of_ratios", "poscounts", "total", "tmm"]


def relative_to_geometric_mean(values: np.ndarray) -> np.ndarray:
    return values / np.exp(np.log(values).mean())


def reference(shared: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The counts, samples x genes, and the table of R's factors."""
    samples = pd.read_csv(shared / "data" / "r_reference" / f"{name}_samples.csv", dtype={"donor": str})
    if name in BULK:
        table = pd.read_csv(shared / "data" / f"{name}_counts.csv.gz", index_col=0)
        return table[samples["sample"]].T.astype(float), samples
    file, keys, cell_type = CELLS[name]
    adata = ad.read_h5ad(shared / "data" / f"{file}.h5ad")
    if cell_type is not None:
        adata = adata[adata.obs["cell_type"] == cell_type]
    cells = adata.obs[keys].astype(str).reset_index(drop=True)
    rows = cells.groupby(keys).indices
    summed = [np.asarray(adata.X[rows[tuple(key)]].sum(axis=0)).ravel() for key in samples[keys].to_numpy()]
    return pd.DataFrame(np.array(summed, dtype=float), columns=adata.var_names), samples


@pytest.mark.parametrize("name", [*BULK, *CELLS])
def test_median_of_ratios_is_that_of_deseq2(shared: Path, name: str) -> None:
    counts, samples = reference(shared, name)
    factors, used = size_factors(counts.to_numpy(), "auto")
    assert used == "median_of_ratios"
    expected = relative_to_geometric_mean(samples["deseq2_sizeFactor"].to_numpy())
    np.testing.assert_allclose(factors, expected, rtol=1e-10)


@pytest.mark.parametrize("name", sorted({*BULK, *CELLS} - {"fission"}))  # edgeR was not run on it
def test_tmm_is_that_of_edger(shared: Path, name: str) -> None:
    counts, samples = reference(shared, name)
    table = pd.read_csv(shared / "data" / "r_reference" / f"{name}_de.csv.gz")
    kept = table.loc[table["edger_ql_logFC"].notna(), "gene"].unique()
    expressed = counts[kept].to_numpy()
    np.testing.assert_array_equal(expressed.sum(axis=1), samples["edger_lib_size"])
    expected = relative_to_geometric_mean((samples["edger_tmm_normFactor"] * samples["edger_lib_size"]).to_numpy())
    np.testing.assert_allclose(size_factors(expressed, "tmm")[0], expected, rtol=1e-10)


@pytest.mark.filterwarnings("ignore")
def test_poscounts_is_that_of_pydeseq2() -> None:
    from pydeseq2.dds import DeseqDataSet

    counts = np.random.default_rng(0).negative_binomial(1, 0.5, (8, 80))
    counts = counts[:, counts.max(axis=0) > 1]  # DESeq2 uses genes that are 0 or 1 everywhere, PyDESeq2 does not
    assert (counts == 0).any(axis=0).all()
    obs = pd.DataFrame({"condition": ["a", "b"] * 4}, index=[f"s{i}" for i in range(8)])
    data = DeseqDataSet(counts=pd.DataFrame(counts, index=obs.index), metadata=obs, design="~condition", quiet=True)
    data.fit_size_factors(fit_type="poscounts")
    expected = relative_to_geometric_mean(np.asarray(data.obs["size_factors"]))
    np.testing.assert_allclose(size_factors(counts.astype(float), "poscounts")[0], expected, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_depths_are_recovered(method: str) -> None:
    rng = np.random.default_rng(1)
    depth = relative_to_geometric_mean(np.array([0.2, 0.5, 1.0, 2.0, 5.0]))
    counts = rng.poisson(depth[:, None] * rng.gamma(2, 200, 2000)).astype(float)
    np.testing.assert_allclose(size_factors(counts, method)[0], depth, rtol=0.02)


@given(st.integers(0, 2**32), st.sampled_from(METHODS))
@settings(deadline=None, max_examples=25)
def test_invariants(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(2, 0.05, (6, 80)).astype(float)
    factors, used = size_factors(counts, method)
    assert used == method
    np.testing.assert_allclose(np.log(factors).mean(), 0, atol=1e-12)
    genes = rng.permutation(80)
    np.testing.assert_allclose(size_factors(counts[:, genes], method)[0], factors, rtol=1e-12)
    if method != "tmm":  # its reference, nearest to the mean, may tie
        samples = rng.permutation(6)
        np.testing.assert_allclose(size_factors(counts[samples], method)[0], factors[samples], rtol=1e-12)
    with_empty = np.concatenate([counts, np.zeros((6, 5))], axis=1)
    np.testing.assert_allclose(size_factors(with_empty, method)[0], factors, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_one_sample_and_equal_samples(method: str) -> None:
    assert size_factors(np.array([[3.0, 0.0, 7.0]]), method)[0].tolist() == [1.0]
    np.testing.assert_allclose(size_factors(np.tile([3.0, 1.0, 7.0], (4, 1)), method)[0], 1, rtol=1e-15)


def test_auto_takes_poscounts_where_few_genes_are_shared() -> None:
    counts = np.random.default_rng(2).poisson(50, (4, 30)).astype(float)
    counts[0, 9:] = 0
    assert size_factors(counts, "auto")[1] == "poscounts"
    counts[0, 9] = 1
    assert size_factors(counts, "auto")[1] == "median_of_ratios"


def test_nothing_shared() -> None:
    counts = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="No gene is positive in all samples.*poscounts"):
        size_factors(counts, "median_of_ratios")
    assert np.isfinite(size_factors(counts, "auto")[0]).all()
    with pytest.raises(ValueError, match="no gene in common with the reference"):
        size_factors(np.array([[1.0, 0.0], [0.0, 1.0]]), "tmm")


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_empty_samples(method: str) -> None:
    counts = np.ones((9, 20))
    counts[[1, 8]] = 0
    with pytest.raises(ValueError, match="Samples 1, 8 .* have no counts.*min_counts"):
        size_factors(counts, method)


def test_unstable_samples() -> None:
    rng = np.random.default_rng(3)
    steady = rng.poisson(50, (4, 200)).astype(float)
    assert not unstable_samples(steady).any()
    sparse = rng.poisson(1.0, (6, 300)).astype(float)
    sparse[:, :9] += 1
    sparse[0, 9:] = 0  # nine shared genes at the usual level, one of them with most of the sample's counts
    sparse[0, 0] = 5000
    assert unstable_samples(sparse).tolist() == [True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1.0, 2.0], "shape .2,., but one is needed for each of the 3 samples"),
        ([1.0, 0.0, 2.0], "above 0, but those of samples 1 "),
        ([1.0, np.nan, -2.0], "above 0, but those of samples 1, 2 "),
        ([[1.0], [1.0], [1.0]], "shape"),
    ],
)
def test_bad_given_factors(values: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        given_factors(np.array(values), 3)


def test_given_factors_are_scaled() -> None:
    np.testing.assert_allclose(given_factors([1, 2, 4], 3), [0.5, 1, 2])
