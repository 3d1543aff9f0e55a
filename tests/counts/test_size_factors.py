"""Size factors against DESeq2, edgeR and PyDESeq2."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbcompare._counts.size_factors import follows_depth, given_factors, measure_depths, size_factors

BULK = ["airway", "fission", "montgomery", "pasilla", "rat_methimazole_ercc"]
CELLS = {
    "gbm": ("zhao2021_glioblastoma_panobinostat", ["condition", "donor"], None),
    "kang_mono": ("kang2018_pbmc_8donors", ["condition", "donor"], "CD14+ Monocytes"),
    "papalexi_a": ("papalexi2021_eccite_a", ["perturbation", "replicate"], None),
}
METHODS = ["median_of_ratios", "pooled_ratios", "poscounts", "total", "tmm", "tmmwsp"]


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
    if method not in ("tmmwsp", "pooled_ratios"):  # the order of the genes breaks their ties
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


def test_auto_takes_pooled_ratios_where_few_genes_are_well_counted() -> None:
    counts = np.random.default_rng(2).poisson(50, (4, 30)).astype(float)
    counts[0, 9:] = 0
    assert size_factors(counts, "auto")[1] == "pooled_ratios"
    counts[0, 9] = 1
    assert size_factors(counts, "auto")[1] == "median_of_ratios"
    counts[0, :6] = 1  # positive everywhere, but more than half of them by a single count
    assert size_factors(counts, "auto")[1] == "pooled_ratios"


def test_nothing_shared() -> None:
    counts = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [3.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="No gene is positive in all samples.*pooled_ratios"):
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


def two_groups(seed: int, fold: float, n: int = 4, n_genes: int = 4000, low: float = 0.02, high: float = 3.0) -> tuple:
    """Sparse counts of n v n samples, the second group `fold` times as deep, with the depths and the groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1], n)
    depth = rng.lognormal(0, 0.3, 2 * n) * np.where(groups == 1, fold, 1)
    mean = depth[:, None] * np.exp(rng.uniform(np.log(low), np.log(high), n_genes))
    return rng.poisson(mean * rng.gamma(10, 0.1, mean.shape)).astype(float), depth, groups


def shift(factors: np.ndarray, depth: np.ndarray, groups: np.ndarray) -> float:
    """Mean log2 error of the second group, minus that of the first."""
    error = np.log2(factors / depth)
    return error[groups == 1].mean() - error[groups == 0].mean()


@pytest.mark.parametrize("fold", [1.0, 4.0, 10.0])
def test_depths_of_sparse_groups_are_recovered(fold: float) -> None:
    """Where depth differs between groups: not so the ratios of positive counts, which `auto` took before."""
    found = [
        (measure_depths(counts, "auto", groups), depth, groups)
        for counts, depth, groups in map(two_groups, range(4), [fold] * 4)
    ]
    assert {one.method for one, *_ in found} == {"pooled_ratios"}
    assert not any(one.unstable.any() for one, *_ in found)
    assert abs(np.mean([shift(one.factors, *rest) for one, *rest in found])) < 0.05
    counts, depth, groups = two_groups(0, 4.0)
    assert shift(size_factors(counts, "poscounts")[0], depth, groups) < -0.8


@pytest.mark.parametrize("high", [3.0, 1000.0])
def test_genes_that_change_in_one_group_get_no_weight(high: float) -> None:
    """A fifth of the genes up: error of the factors far below that of totals, and of the median of ratios where there is one."""
    counts, depth, groups = two_groups(1, 1.0, low=high / 150, high=high)
    effect = np.where(
        np.random.default_rng(2).random(4000) < 0.2, np.abs(np.random.default_rng(3).normal(0, 1.5, 4000)), 0
    )
    rng = np.random.default_rng(4)
    counts = np.where(groups[:, None] == 1, rng.poisson(counts * np.exp2(effect)), counts).astype(float)
    error = {method: shift(size_factors(counts, method, groups)[0], depth, groups) for method in METHODS}
    assert error["pooled_ratios"] < 0.75 * error["total"]
    assert high < 100 or error["pooled_ratios"] < 0.5 * error["median_of_ratios"]


@pytest.mark.parametrize("times", [5, 500])
def test_one_gene_in_one_sample_does_not_move_pooled_ratios(times: int) -> None:
    counts, depth, groups = two_groups(5, 1.0)
    counts[2, 7] += times * counts.sum(axis=1).max()
    found = measure_depths(counts, "auto", groups)
    np.testing.assert_allclose(np.log2(found.factors / relative_to_geometric_mean(depth)), 0, atol=0.2)
    assert not found.unstable.any()


def test_pooled_ratios_do_not_depend_on_the_order_of_the_samples() -> None:
    counts, _, groups = two_groups(6, 3.0, n=5)
    expected = size_factors(counts, "pooled_ratios", groups)[0]
    order = np.random.default_rng(0).permutation(10)
    again = size_factors(counts[order], "pooled_ratios", np.array(["b", "a"])[groups[order]])[0]
    np.testing.assert_allclose(again, expected[order], rtol=1e-12)


def test_depths_that_the_counts_do_not_determine() -> None:
    """A group of eight counts, and one whose few genes contradict each other; all else is known, whatever the totals are."""
    counts, _, groups = two_groups(7, 1.0)
    assert not measure_depths(counts, "auto", groups).unstable.any()
    counts[:4] = 0
    counts[:4, 100:102] = 1.0
    found = measure_depths(counts, "auto", groups)
    assert found.unstable.tolist() == [True] * 4 + [False] * 4
    assert not measure_depths(
        counts, "pooled_ratios", groups
    ).unstable.any()  # a method that is named is taken as it is
    panel = np.random.default_rng(8).poisson(50, (6, 4)).astype(float)
    panel[3:] *= [1, 4, 16, 64]
    assert measure_depths(panel, "auto", np.repeat([0, 1], 3)).unstable.any()
    panel[3:] = panel[:3] * [10, 10, 10, 64]  # three of four agree
    found = measure_depths(panel, "auto", np.repeat([0, 1], 3))
    assert not found.unstable.any()
    assert np.log10(found.factors[3:] / found.factors[:3]) == pytest.approx(np.ones(3), abs=0.05)


def test_poscounts_that_follow_depth() -> None:
    counts, depth, _ = two_groups(9, 4.0)
    factors = size_factors(counts, "poscounts")[0]
    assert "twice the counts gets 1." in follows_depth(factors, counts.sum(axis=1))
    assert follows_depth(depth, counts.sum(axis=1)) == ""
    dense, _, _ = two_groups(9, 4.0, low=20, high=2000)
    assert follows_depth(size_factors(dense, "poscounts")[0], dense.sum(axis=1)) == ""


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
