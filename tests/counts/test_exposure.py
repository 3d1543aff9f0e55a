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
METHODS = ["median_of_ratios", "poscounts", "total", "tmm", "tmmwsp"]


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


def tmmwsp_slowly(counts: np.ndarray) -> np.ndarray:
    """TMM with singleton pairing as edgeR's documentation and its trimming limits have it, one gene after the other."""
    totals = counts.sum(axis=1)
    reference = max(range(len(counts)), key=lambda i: sum(np.sqrt(counts[i])))
    factors = []
    for sample, depth in zip(counts, totals, strict=True):
        pairs = [(y, x) for y, x in zip(sample, counts[reference], strict=True) if y > 0 and x > 0]
        mine = sorted((y for y, x in zip(sample, counts[reference], strict=True) if y > 0 and x == 0), reverse=True)
        theirs = sorted((x for y, x in zip(sample, counts[reference], strict=True) if y == 0 and x > 0), reverse=True)
        pairs += list(zip(mine, theirs, strict=False))
        n, there = len(pairs), totals[reference]
        ratio = [np.log2((y / depth) / (x / there)) for y, x in pairs]
        tie = [np.log2(((y + 0.5) / (depth + 0.5)) / ((x + 0.5) / (there + 0.5))) for y, x in pairs]
        level = [0.5 * np.log2((y / depth) * (x / there)) for y, x in pairs]
        by_ratio = sorted(range(n), key=lambda i: (ratio[i], tie[i]))
        by_level = sorted(range(n), key=lambda i: level[i])
        cut, cut_level = int(0.3 * n), int(0.05 * n)
        kept = set(by_ratio[cut : n - cut]) & set(by_level[cut_level : n - cut_level])
        upper = lower = 0.0
        for i in kept:
            y, x = pairs[i]
            weight = (1 + 1e-6) / ((1 - y / depth) / y + (1 - x / there) / x + 1e-6)
            upper, lower = upper + weight * ratio[i], lower + weight
        factors.append(2 ** (upper / lower) if max(map(abs, ratio)) > 1e-6 else 1.0)
    return relative_to_geometric_mean(totals * np.array(factors))


@pytest.mark.parametrize("mean", [0.3, 1.0, 20.0])
def test_tmmwsp_slowly(mean: float) -> None:
    rng = np.random.default_rng(0)
    expected = mean * rng.lognormal(0, 1.5, 300) * rng.lognormal(0, 0.5, (6, 1))
    counts = rng.negative_binomial(2, 2 / (2 + expected)).astype(float)
    np.testing.assert_allclose(size_factors(counts, "tmmwsp")[0], tmmwsp_slowly(counts), rtol=1e-10)


def test_singletons_add_to_tmm_where_counts_are_sparse() -> None:
    rng = np.random.default_rng(1)
    depth = relative_to_geometric_mean(rng.lognormal(0, 0.5, 8))
    counts = rng.poisson(0.3 * depth[:, None] * rng.lognormal(0, 1, 3000)).astype(float)
    error = {method: np.abs(np.log(size_factors(counts, method)[0] / depth)).mean() for method in ("tmm", "tmmwsp")}
    assert error["tmmwsp"] < error["tmm"]


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
    if method != "tmmwsp":  # the order of the genes breaks its ties
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
    np.testing.assert_allclose(size_factors(np.array([[1.0, 0.0], [0.0, 1.0]]), "tmmwsp")[0], 1)  # paired


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
