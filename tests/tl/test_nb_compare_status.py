"""Every status code, made to happen."""

import numpy as np
import pytest
from scipy.stats import binom

from nbcompare import tl
from nbcompare._nb.status import NOT_TESTED, Status

CONDITIONS = np.repeat(["ctrl", "t1", "t2"], 3)


@pytest.fixture
def counts():
    """Nine samples of 100 genes of about 200 counts, no effects."""
    rng = np.random.default_rng(0)
    return rng.negative_binomial(10, 10 / 210, (9, 100)).astype(float)


def status_of(adata, key="nb_compare"):
    return adata.varm[f"{key}_status"]


def has(adata, bit, key="nb_compare"):
    return (status_of(adata, key) & bit) > 0


def assert_consistent(adata, key="nb_compare"):
    """P-values exactly where no reason says that there is none; no flag beside such a reason."""
    status = status_of(adata, key)
    untested = (status & NOT_TESTED) > 0
    for word in ("pvals", "pvals_adj", "scores", "dispersions"):
        np.testing.assert_array_equal(np.isnan(adata.varm[f"{key}_{word}"]), untested)
    assert (status[untested] <= NOT_TESTED).all()
    return untested


@pytest.mark.parametrize("test", ["moderated", "wald", "lrt"])
@pytest.mark.parametrize("method", ["mom", "mle"])
def test_zero_and_low_counts(samples, counts, test, method):
    """No counts at all, none in one comparison, few in one, none in one arm."""
    counts[:, 0] = 0
    counts[:6, 1] = 0
    counts[:, 2] = 0
    counts[[0, 4], 2] = 3, 2
    counts[6:, 2] = 40
    counts[:3, 3] = 0
    counts[3:6, 4] = 0
    adata = samples(counts, CONDITIONS)
    tl.nb_compare(adata, "condition", reference="ctrl", test=test, method=method)
    untested = assert_consistent(adata)
    zero, low = has(adata, Status.ALL_ZERO), has(adata, Status.LOW_COUNTS)
    assert zero[0].all()
    assert zero[1].tolist() == [True, False]
    assert low[2].tolist() == [True, False]
    assert not (zero | low)[3:].any()
    assert untested.sum() == 4
    lfc, se = adata.varm["nb_compare_logfoldchanges"], adata.varm["nb_compare_lfc_se"]
    assert np.isnan(lfc[0]).all()
    side = has(adata, Status.ZERO_GROUP)
    assert side[1].tolist() == [False, True]
    assert side[3].tolist() == [True, True]
    assert side[4].tolist() == [True, False]
    assert side.sum() == 4
    for values in (lfc, se, adata.varm["nb_compare_pvals"]):
        assert np.isfinite(values[side]).all()
    # half a count against 600: 2^10, give or take
    assert 8 < lfc[3, 0] < 12.5
    assert -12.5 < lfc[4, 0] < -8
    assert (np.abs(lfc[3:5, 0]) < 6 * se[3:5, 0]).all()
    if test == "moderated":
        assert (adata.varm["nb_compare_pvals"][3] < 1e-3).all()


def test_a_min_total_of_zero_tests_single_counts(samples, counts):
    counts[:, 0] = 0
    counts[0, 0] = 1
    counts[:, 1] = 0
    adata = samples(counts, CONDITIONS)
    tl.nb_compare(adata, "condition", reference="ctrl", min_gene_counts=0)
    assert_consistent(adata)
    assert (status_of(adata)[0] == Status.ZERO_GROUP).all()
    assert (adata.varm["nb_compare_pvals"][0] > 0.3).all()
    assert (status_of(adata)[1] == Status.ALL_ZERO).all()


def test_one_replicate_group_borrows(samples, counts):
    """t1 has one sample: tested with the dispersion of the others, and it says so; alone it is not tested by a pair without replicates."""
    condition = np.array(["ctrl", "ctrl", "ctrl", "t1", "t2", "t2", "t2", "t3", "t3"])
    adata = samples(counts, condition)
    tl.nb_compare(adata, "condition", reference="ctrl")
    assert_consistent(adata)
    assert has(adata, Status.ONE_REPLICATE_GROUP).all(axis=0).tolist() == [True, False, False]
    assert not has(adata, Status.ONE_REPLICATE_GROUP)[:, 1:].any()
    assert (adata.varm["nb_compare_pvals_adj"] < 0.05).mean() < 0.02
    tl.nb_compare(adata, "condition", reference="t1")  # the reference has one
    assert has(adata, Status.ONE_REPLICATE_GROUP).all()
    tl.nb_compare(adata, "condition", reference="ctrl", dispersion="pair")
    assert has(adata, Status.ONE_REPLICATE_GROUP)[:, 0].all()


@pytest.mark.filterwarnings("ignore:No gene is tested:UserWarning")
@pytest.mark.parametrize("options", [{"dispersion": "pair"}, {"test": "wald"}, {"test": "lrt", "method": "mle"}])
def test_no_replicates_alone(samples, counts, options):
    condition = np.array(["ctrl", *["t1"], *["t2"] * 7])
    adata = samples(counts, condition)
    tl.nb_compare(adata, "condition", reference="ctrl", **options)
    assert_consistent(adata)
    assert has(adata, Status.NO_REPLICATES).all(axis=0).tolist() == [True, False]
    assert np.isfinite(adata.varm["nb_compare_logfoldchanges"][:, 0]).all()
    tl.nb_compare(adata, "condition", reference="ctrl")
    assert not has(adata, Status.NO_REPLICATES).any()
    assert has(adata, Status.ONE_REPLICATE_GROUP).all()


@pytest.mark.filterwarnings("ignore:No gene is tested:UserWarning")
def test_confounded(samples, counts):
    """t2 lies in a batch of its own: no p-value for it; t1 is compared within batches."""
    batch = ["b1", "b2", "b1", "b1", "b2", "b2", "b3", "b3", "b3"]
    adata = samples(counts, CONDITIONS, batch=batch)
    with pytest.warns(UserWarning, match="one condition only, 'b3', do not contribute"):
        tl.nb_compare(adata, "condition", reference="ctrl", block_key="batch")
    untested = assert_consistent(adata)
    assert has(adata, Status.CONFOUNDED).all(axis=0).tolist() == [False, True]
    assert not untested[:, 0].any()


@pytest.mark.filterwarnings("ignore:No gene is tested:UserWarning")
def test_unstable_size_factors(samples):
    """A group of a few counts has no depth; a comparison without it is tested, and so is one sample with a giant gene."""
    rng = np.random.default_rng(1)
    condition = np.repeat(["ctrl", "giant", "tiny"], 4)
    counts = rng.poisson(np.exp(rng.uniform(np.log(0.05), np.log(3), 600)), (12, 600)).astype(float)
    counts[4, 0] = 20 * counts[4].sum()
    counts[8:] = 0
    counts[8:, :2] = 1
    adata = samples(counts, condition)
    with pytest.warns(UserWarning, match="1 of 2 comparisons .600 tests. are not tested .status size_factor_unstable"):
        tl.nb_compare(adata, "condition", reference="ctrl", min_gene_counts=1)
    assert adata.uns["nb_compare"]["params"]["size_factors_used"] == "pooled_ratios"
    assert has(adata, Status.SIZE_FACTOR_UNSTABLE).all(axis=0).tolist() == [False, True]
    untested = assert_consistent(adata)
    assert untested.all(axis=0).tolist() == [False, True]
    factors = adata.uns["nb_compare"]["samples"]["size_factor"].to_numpy()[:8]
    np.testing.assert_allclose(factors / factors.mean(), 1, atol=0.2)
    tl.nb_compare(adata, "condition", reference="ctrl", min_gene_counts=1, size_factors="total")
    assert not has(adata, Status.SIZE_FACTOR_UNSTABLE).any()


@pytest.mark.slow
def test_levels_of_sparse_groups_of_unequal_depth(samples):
    """Nulls whose second group is four times as deep: `poscounts`, which `auto` took, has 4 to 7 times the nominal level."""
    p = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        depth = rng.lognormal(0, 0.3, 16) * np.repeat([1, 4], 8)
        mean = depth[:, None] * np.exp(rng.uniform(np.log(0.02), np.log(3), 3000))
        adata = samples(rng.poisson(mean * rng.gamma(10, 0.1, mean.shape)), np.repeat(["ctrl", "t"], 8))
        tl.nb_compare(adata, "condition", reference="ctrl")
        p.append(adata.varm["nb_compare_pvals"][:, 0])
        tested = np.asarray(adata.X.sum(axis=0)).ravel() >= 10
        assert np.isfinite(p[-1][tested]).all()
    p = np.concatenate(p)
    p = p[np.isfinite(p)]
    for level in (0.05, 0.001):
        assert (p <= level).sum() <= binom.ppf(0.999, p.size, level)
    assert (p <= 0.05).sum() >= 0.7 * 0.05 * p.size


@pytest.mark.filterwarnings("error")
def test_poscounts_that_follow_depth_warn(samples):
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.repeat([1, 6], 4)[:, None] * rng.gamma(0.3, 0.5, 1500))
    adata = samples(counts, np.repeat(["ctrl", "t"], 4))
    with pytest.warns(UserWarning, match="size_factors='poscounts' underestimates"):
        tl.nb_compare(adata, "condition", reference="ctrl", size_factors="poscounts")
    tl.nb_compare(adata, "condition", reference="ctrl")


def test_tiny_pseudobulk(cells):
    """Seven cells in one sample of c; rows that are samples from the start are not tiny."""
    mine = np.flatnonzero(cells.obs["replicate"] == cells.obs["replicate"].cat.categories[-1])
    few = cells[np.setdiff1d(np.arange(cells.n_obs), mine[7:])].copy()
    tl.nb_compare(few, "condition", reference="ctrl", replicate_key="replicate", min_cells=5)
    tested = ~assert_consistent(few)
    assert has(few, Status.TINY_PSEUDOBULK)[tested[:, 1], 1].all()
    assert not has(few, Status.TINY_PSEUDOBULK)[:, 0].any()


def test_rows_are_not_tiny(samples, counts):
    adata = samples(counts, CONDITIONS)
    tl.nb_compare(adata, "condition", reference="ctrl")
    assert not has(adata, Status.TINY_PSEUDOBULK).any()


@pytest.mark.parametrize(("n_genes", "few"), [(12, True), (100, False)])
def test_few_genes(samples, counts, n_genes, few):
    adata = samples(counts[:, :n_genes], CONDITIONS)
    tl.nb_compare(adata, "condition", reference="ctrl")
    assert (has(adata, Status.FEW_GENES) == few).all()
    assert_consistent(adata)


def test_one_gene(samples, counts):
    adata = samples(counts[:, :1], CONDITIONS)
    tl.nb_compare(adata, "condition", reference="ctrl", size_factors=np.ones(9))
    assert np.isfinite(adata.varm["nb_compare_pvals"]).all()
    assert has(adata, Status.FEW_GENES).all()


def test_high_dispersion_group(samples):
    rng = np.random.default_rng(2)
    condition = np.repeat(["ctrl", "t1", "t2", "t3", "t4", "t5"], 3)
    phi = np.where(condition == "t3", 0.5, 0.05)[:, None]
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * 300), (18, 800))
    adata = samples(counts, condition)
    tl.nb_compare(adata, "condition", reference="ctrl")
    flagged = has(adata, Status.HIGH_DISPERSION_GROUP)
    assert flagged.all(axis=0).tolist() == [False, False, True, False, False]
    assert not flagged[:, [0, 1, 3, 4]].any()
    dispersion_ratio = adata.uns["nb_compare"]["trend"]["dispersion_ratio"]
    assert dispersion_ratio[2, 1] == pytest.approx(10, rel=0.35)
    assert (np.delete(dispersion_ratio, 2, axis=0) == 1).all()
    assert (adata.varm["nb_compare_pvals"][:, 2] < 0.01).mean() < 0.02


def test_single_replicate(samples):
    rng = np.random.default_rng(3)
    condition = np.repeat(["ctrl", "t1"], [20, 4])
    counts = rng.negative_binomial(20, 20 / 220, (24, 300)).astype(float)
    counts[23, :5] *= 8
    adata = samples(counts, condition)
    tl.nb_compare(adata, "condition", reference="ctrl")
    flagged = has(adata, Status.OUTLIER_REPLICATE)[:, 0]
    assert flagged[:5].sum() >= 4
    assert flagged[5:].mean() < 0.02
    p, p_all = (adata.varm[f"nb_compare_{word}"][:, 0] for word in ("pvals", "pvals_unfiltered"))
    assert (p_all[flagged] < 0.02).all()
    assert (p[flagged] > p_all[flagged]).all()
    np.testing.assert_array_equal(p[~flagged], p_all[~flagged])


def test_high_mean(samples, counts):
    """One gene with ten thousand times the counts of the others lies beyond the trend."""
    counts = np.repeat(counts, 5, axis=1)
    counts[:, 0] = counts[:, 0] * 1e5
    adata = samples(counts, CONDITIONS)
    tl.nb_compare(adata, "condition", reference="ctrl")
    flagged = has(adata, Status.HIGH_MEAN_EXTRAPOLATED)
    assert flagged[0].all()
    assert not flagged[1:].any()
    assert np.isfinite(adata.varm["nb_compare_pvals"][0]).all()
