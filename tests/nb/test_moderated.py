"""The whole moderated test against a slow version of itself, and its invariants."""

import importlib
import sys

import numba
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.two_group.block_effects import fit_blocks, residual_degrees

few = settings(deadline=None, max_examples=12)
PAIR = np.array([[0, 1]])


def simulate(
    seed, sizes, n_genes=600, lowest=0.5, highest=3000.0, exposure_sd=0.4, phi0=0.05, extra=1.0, sd=0.6, de=0.2
):
    """Counts of groups with effects in a share of the genes; dispersions scattered around a trend."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    exposure = rng.lognormal(0, exposure_sd, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(highest), n_genes))
    phi = (phi0 + extra / mean) * rng.lognormal(0, sd, n_genes)
    effect = np.where(rng.random((n_genes, len(sizes))) < de, rng.normal(0, 1.5, (n_genes, len(sizes))), 0)
    m = mean[:, None] * exposure * np.exp(effect[:, group])
    counts = rng.negative_binomial(1 / phi[:, None], 1 / (1 + phi[:, None] * m)).astype(float)
    return Pseudobulk(counts, exposure, group)


def all_pairs(n_groups):
    return np.array([(0, k) for k in range(1, n_groups)])


def efficiency(pseudobulk, genes):
    return Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[genes]), pseudobulk.exposure, pseudobulk.group, pseudobulk.block
    )


def decades(p, q):
    return np.abs(np.log10(p) - np.log10(q))


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (4, 7), (10, 10)])
def test_two_groups_match_the_slow_version(slow, sizes):
    """From counts to p-values, trend and scatter included: log10 p to 1e-6, all else to 1e-8; every gene above the total of 10."""
    pseudobulk = simulate(0, sizes)
    pseudobulk = efficiency(pseudobulk, pseudobulk.counts.sum(axis=1) >= 10)
    y, l, group = pseudobulk.counts, pseudobulk.exposure, pseudobulk.group
    ours = moderated_tests(pseudobulk, PAIR, leave_out=False)
    trend, log_dispersion_var = slow.trend(y, l, group)
    np.testing.assert_allclose(ours.trend.at(ours.mean), trend, rtol=1e-8)
    assert ours.trend.log_dispersion_var == pytest.approx(log_dispersion_var, rel=1e-6)
    theirs = slow.test(y, l, group, trend, log_dispersion_var)
    seen = np.isfinite(theirs.root)
    assert seen.mean() > 0.95
    assert decades(ours.p_value[seen, 0], slow.p_values(theirs)[seen]).max() < 1e-6
    np.testing.assert_allclose(ours.log_fc[:, 0], theirs.log_fc, atol=1e-8)
    np.testing.assert_allclose(ours.se[:, 0], theirs.se, rtol=1e-8)
    np.testing.assert_allclose(ours.dispersion[:, 0], theirs.dispersion, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(np.sign(ours.statistic[seen, 0]), np.sign(theirs.root[seen]))
    exact = np.minimum(2 * theirs.halve * stats.t.sf(np.abs(theirs.root), theirs.df), 1)
    assert decades(ours.p_value[seen, 0], exact[seen])[exact[seen] > 1e-12].max() < 2e-3


def test_an_empty_group_matches_the_slow_version(slow):
    """Half a count and half the p-value, on either side."""
    pseudobulk = simulate(1, (3, 3), lowest=10)
    pseudobulk.counts[:80, :3] = 0
    pseudobulk.counts[80:160, 3:] = 0
    pseudobulk = efficiency(pseudobulk, pseudobulk.counts.sum(axis=1) >= 10)
    ours = moderated_tests(pseudobulk, PAIR, leave_out=False)
    theirs = slow.test(
        pseudobulk.counts,
        pseudobulk.exposure,
        pseudobulk.group,
        ours.trend.at(ours.mean),
        ours.trend.log_dispersion_var,
    )
    empty = (ours.status[:, 0] & Status.ZERO_GROUP) > 0
    assert empty.sum() > 100
    assert np.isfinite(ours.log_fc[empty]).all()
    assert decades(ours.p_value[empty, 0], slow.p_values(theirs)[empty]).max() < 1e-6
    np.testing.assert_allclose(ours.se[empty, 0], theirs.se[empty], rtol=1e-8)


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (4, 2, 1, 5)])
def test_many_groups_match_the_slow_version(slow, sizes):
    """Dispersion statistics summed over all groups, samples weighted at the reference's rate; given the trend."""
    pseudobulk = simulate(2, sizes, sd=0.4)
    ours = moderated_tests(pseudobulk, all_pairs(len(sizes)), leave_out=False)
    assert (ours.dispersion_ratio == 1).all()
    for c in range(len(sizes) - 1):
        use = np.isfinite(ours.p_value[:, c])
        y = pseudobulk.counts[use]
        trend = ours.trend.at(ours.mean[use])
        theirs = slow.test(
            y, pseudobulk.exposure, pseudobulk.group, trend, ours.trend.log_dispersion_var, two_groups=(0, c + 1)
        )
        seen = np.isfinite(theirs.root)
        assert decades(ours.p_value[use, c][seen], slow.p_values(theirs)[seen]).max() < 1e-6
        np.testing.assert_allclose(ours.log_fc[use, c], theirs.log_fc, atol=1e-8)


@pytest.mark.parametrize("sizes", [(4, 4, 3), (3, 3, 3)])
def test_blocks_match_the_slow_version(slow, sizes):
    """Three groups, given exposures with block effects and the kept information: trend, weights shared by the blocks, p-values."""
    plain = simulate(3, sizes)
    block = np.concatenate([np.arange(n) for n in sizes])
    shift = np.random.default_rng(3).lognormal(0, 0.4, (len(plain.counts), max(sizes)))
    counts = np.random.default_rng(4).poisson(plain.counts * shift[:, block]).astype(float)
    counts = counts[counts.sum(axis=1) >= 10]
    pseudobulk = Pseudobulk(counts, plain.exposure, plain.group, block)
    ours = moderated_tests(pseudobulk, all_pairs(len(sizes)), leave_out=False)
    df_ratio = (len(block) - len(sizes)) / residual_degrees(pseudobulk)
    trend, _ = slow.trend(counts, plain.exposure, plain.group)
    for _ in range(2):
        exposure, share = fit_blocks(pseudobulk, trend, all_pairs(len(sizes)))
        trend, log_dispersion_var = slow.trend(counts, plain.exposure, plain.group, e=exposure, df_ratio=df_ratio)
    np.testing.assert_allclose(ours.trend.at(ours.mean), trend, rtol=1e-7)
    for c in range(len(sizes) - 1):
        use = np.isfinite(ours.p_value[:, c])
        assert use.mean() > 0.9
        theirs = slow.test(
            counts[use],
            exposure[use],
            plain.group,
            trend[use],
            log_dispersion_var,
            two_groups=(0, c + 1),
            efficiency=share[use, c],
            df_ratio=df_ratio,
        )
        seen = np.isfinite(theirs.root)
        assert decades(ours.p_value[use, c][seen], slow.p_values(theirs)[seen]).max() < 1e-5


def test_a_high_dispersion_small_group_matches_the_slow_version(slow):
    """The ratio multiplies dispersions and weights of its arm only."""
    pseudobulk = simulate(5, (3, 30), lowest=5)
    pseudobulk.counts[:, :3] = np.round(pseudobulk.counts[:, :3] * np.random.default_rng(0).gamma(3, 1 / 3, (600, 3)))
    ours = moderated_tests(pseudobulk, PAIR, leave_out=False)
    assert ours.dispersion_ratio[0, 0] > 1.5
    assert ours.dispersion_ratio[0, 1] == 1
    use = np.isfinite(ours.p_value[:, 0])
    theirs = slow.test(
        pseudobulk.counts[use],
        pseudobulk.exposure,
        pseudobulk.group,
        ours.trend.at(ours.mean[use]),
        ours.trend.log_dispersion_var,
        dispersion_ratio=ours.dispersion_ratio[0],
    )
    seen = np.isfinite(theirs.root)
    assert decades(ours.p_value[use, 0][seen], slow.p_values(theirs)[seen]).max() < 1e-6


def test_two_groups_match_the_prototype(shared, monkeypatch, tmp_path):
    """The research code behind the method page, where it lies beside the checkout; far tails of t are approximated differently."""
    folder = shared / "method" / "prototype"
    if not (folder / "nbfast.py").exists():
        pytest.skip("no prototype beside this checkout")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(folder))
    prototype = importlib.import_module("nbfast")
    pseudobulk = simulate(6, (3, 4), n_genes=2000)
    ours = moderated_tests(pseudobulk, PAIR, leave_out=False)
    use = np.isfinite(ours.p_value[:, 0])
    out = np.zeros((use.sum(), 5))
    y = np.ascontiguousarray(pseudobulk.counts[use])
    prototype.all_(y, pseudobulk.exposure, 3, ours.trend.at(ours.mean[use]), ours.trend.log_dispersion_var, out)
    far = (out[:, 4] < 0.9) & (ours.dispersion[use, 0] * ours.mean[use] > 1e-6)
    difference = decades(ours.p_value[use, 0], out[:, 4])[far]
    np.testing.assert_allclose(ours.log_fc[use, 0], out[:, 0], atol=1e-8)
    np.testing.assert_allclose(ours.se[use, 0], out[:, 1], rtol=1e-7)
    np.testing.assert_allclose(ours.dispersion[use, 0], out[:, 2], rtol=1e-6, atol=1e-9)
    assert np.median(difference) < 1e-10
    assert difference.max() < 1e-3


def same(one, other, *, sign=1, genes=slice(None)):
    """Results agree to rounding, columns in the same order."""
    finite = np.isfinite(one.p_value)
    np.testing.assert_array_equal(finite, np.isfinite(other.p_value[genes]))
    np.testing.assert_array_equal(one.status, other.status[genes])
    for name in ("p_value", "p_value_all"):
        a, b = getattr(one, name)[finite], getattr(other, name)[genes][finite]
        assert decades(a, b).max() < 1e-5
    np.testing.assert_allclose(one.log_fc, sign * other.log_fc[genes], atol=1e-7)
    np.testing.assert_allclose(one.se, other.se[genes], rtol=1e-7)


@few
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(2, 6), st.integers(2, 6)), st.booleans())
def test_swapping_two_groups(seed, sizes, blocked):
    pseudobulk = simulate(seed, sizes, n_genes=150)
    block = np.arange(sum(sizes)) % 2 if blocked and min(sizes) > 2 else None
    one = Pseudobulk(pseudobulk.counts, pseudobulk.exposure, pseudobulk.group, block)
    other = Pseudobulk(pseudobulk.counts, pseudobulk.exposure, 1 - pseudobulk.group, block)
    same(moderated_tests(one, PAIR), moderated_tests(other, PAIR), sign=-1)


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([(3, 3), (3, 4, 2), (2, 1, 3, 4)]), st.booleans(), st.booleans())
def test_order_of_genes_and_samples_and_unit_of_exposure(seed, sizes, blocked, shared_dispersion):
    rng = np.random.default_rng(seed)
    pseudobulk = simulate(seed, sizes, n_genes=150)
    block = rng.permutation(np.arange(sum(sizes)) % 2) if blocked else None
    one = Pseudobulk(pseudobulk.counts, pseudobulk.exposure, pseudobulk.group, block)
    genes, samples = rng.permutation(150), rng.permutation(sum(sizes))
    other = Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[genes][:, samples]),
        pseudobulk.exposure[samples] * 13.7,
        pseudobulk.group[samples],
        None if block is None else block[samples],
    )
    pairs = all_pairs(len(sizes))
    back = np.argsort(genes)
    first = moderated_tests(one, pairs, shared=shared_dispersion)
    second = moderated_tests(other, pairs, shared=shared_dispersion)
    finite = np.isfinite(first.p_value)
    np.testing.assert_array_equal(finite, np.isfinite(second.p_value[back]))
    assert finite.any() or blocked  # blocks may be the groups
    assert decades(first.p_value[finite], second.p_value[back][finite]).max(initial=0) < 1e-4
    np.testing.assert_allclose(first.log_fc, second.log_fc[back], atol=1e-6)


@few
@given(st.integers(0, 2**32 - 1))
def test_a_group_that_nobody_compares_changes_nothing_pairwise(seed):
    pseudobulk = simulate(seed, (3, 3, 4), n_genes=150)
    two = pseudobulk.group < 2
    alone = Pseudobulk(np.ascontiguousarray(pseudobulk.counts[:, two]), pseudobulk.exposure[two], pseudobulk.group[two])
    same(moderated_tests(alone, PAIR), moderated_tests(pseudobulk, PAIR, shared=False))
    from_others = moderated_tests(pseudobulk, PAIR)
    assert not np.allclose(from_others.p_value, moderated_tests(alone, PAIR).p_value, equal_nan=True)


@few
@given(st.integers(0, 2**32 - 1))
def test_the_rest_is_several_groups(seed):
    """Its rate is the mean of its samples' rates, its variance the sum of that of its groups: by hand at equal exposures."""
    pseudobulk = simulate(seed, (3, 2, 4), n_genes=150, exposure_sd=0)
    rest = moderated_tests(pseudobulk, np.array([[-1, 2]]))
    same(moderated_tests(pseudobulk, np.array([[-1, 2]]), shared=False), rest)
    sizes = np.array([3, 2, 4])
    totals = np.stack([pseudobulk.counts[:, pseudobulk.group == k].sum(axis=1) for k in range(3)], axis=1)
    some = (totals > 0).all(axis=1) & ((rest.status[:, 0] & NOT_TESTED) == 0)
    totals, phi = totals[some], rest.dispersion[some, :1]
    assume((rest.dispersion_ratio == 1).all())  # 150 genes may make a group look noisy
    rates = totals / sizes
    share = sizes[:2] / 5
    rate = (share * rates[:, :2]).sum(axis=1)
    variance = (share**2 * (rates[:, :2] + phi * rates[:, :2] ** 2) / sizes[:2]).sum(axis=1)
    se = np.sqrt(variance / rate**2 + 1 / totals[:, 2] + phi[:, 0] / 4)
    np.testing.assert_allclose(rest.log_fc[some, 0], np.log(rates[:, 2] / rate), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rest.se[some, 0], se, rtol=1e-9)


@few
@given(st.integers(0, 2**32 - 1))
def test_the_rest_of_two_groups_is_the_other_group(seed):
    pseudobulk = simulate(seed, (3, 4), n_genes=150)
    same(moderated_tests(pseudobulk, PAIR), moderated_tests(pseudobulk, np.array([[-1, 1]])))


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(1, 1, 16), (1, 2, 4), (1, 1, 1)])
def test_the_rest_may_differ_among_itself(rates):
    """Nulls: the tested group of 4 has the mean rate of 12 others that differ; levels of 0.05, 0.01 and 0.001 within their bounds."""
    p = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(4), 4)
        phi = (0.1 * 6 / rng.chisquare(6, 5000))[:, None]
        relative = np.append(rates, np.mean(rates)).astype(float)[group]
        m = np.exp(rng.uniform(np.log(5), np.log(1000), (5000, 1))) * relative
        counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float)
        p.append(moderated_tests(Pseudobulk(counts, np.ones(16), group), np.array([[-1, 3]])).p_value[:, 0])
    p = np.concatenate(p)
    for level, most in ((0.05, 1.15), (0.01, 1.3), (0.001, 1.5), (0.0001, 2.5)):
        assert (p < level).sum() <= stats.binom.ppf(0.999, len(p), most * level)
    assert (p < 0.05).mean() > 0.04


def test_every_gene_has_a_p_value_or_says_why():
    rng = np.random.default_rng(7)
    scale = rng.choice([0.0, 0.05, 1.0, 1e3, 1e8], (500, 1))
    counts = np.floor(rng.gamma(1.0, scale + 1e-12, (500, 9))) * rng.choice([0.0, 1.0], (500, 9), p=[0.3, 0.7])
    pseudobulk = Pseudobulk(counts, rng.lognormal(0, 1, 9), np.array([0, 0, 0, 1, 1, 1, 2, 2, 3]))
    for shared_dispersion in (True, False):
        result = moderated_tests(pseudobulk, all_pairs(4), shared=shared_dispersion)
        tested = (result.status & NOT_TESTED) == 0
        for values in (result.p_value, result.p_value_all, result.statistic, result.dispersion):
            np.testing.assert_array_equal(np.isfinite(values), tested)
        assert np.isfinite(result.se[tested]).all()
        assert (result.se[tested] > 0).all()
        assert (result.dispersion[tested] >= 0).all()
        assert ((result.p_value[tested] >= 0) & (result.p_value[tested] <= 1)).all()
        nothing = (result.status & Status.ALL_ZERO) > 0
        np.testing.assert_array_equal(np.isfinite(result.log_fc), ~nothing)
    z = result.statistic[tested]
    p = result.p_value[tested]
    two_sided = 2 * stats.norm.sf(np.abs(z))
    assert ((np.abs(p / two_sided - 1) < 1e-6) | (np.abs(p / two_sided - 0.5) < 1e-6) | (p == 1)).all()


def test_a_pair_alone_without_degrees_of_freedom_is_not_tested():
    """2 v 2 in three blocks: each pair of samples that shares a block is used up by it; a third group can lend."""
    rng = np.random.default_rng(8)
    group, block = np.array([0, 0, 1, 1, 2, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 1, 2, 2])
    pseudobulk = Pseudobulk(rng.poisson(100, (50, 8)).astype(float), np.ones(8), group, block)
    pairs = np.array([[0, 1], [0, 2]])
    alone = moderated_tests(pseudobulk, pairs, shared=False)
    assert ((alone.status[:, 0] & Status.NO_REPLICATES) > 0).all()
    assert np.isnan(alone.p_value[:, 0]).all()
    assert np.isfinite(alone.p_value[:, 1]).all()
    assert np.isfinite(moderated_tests(pseudobulk, pairs).p_value).all()


def null_counts(rng, group, n_genes, *, phi0=0.1, extra=0.5, sd=0.5, block=None, ratios=None, exposure_sd=0.3):
    """No effects: log-uniform means from 3 to 3,000, log-normal dispersions around a trend, perhaps block effects."""
    exposure = rng.lognormal(0, exposure_sd, len(group))
    mean = np.exp(rng.uniform(np.log(3), np.log(3000), n_genes))
    phi = ((phi0 + extra / mean) * rng.lognormal(0, sd, n_genes))[:, None]
    if ratios is not None:
        phi = phi * np.asarray(ratios)[group]
    m = mean[:, None] * exposure
    if block is not None:
        m = m * rng.lognormal(0, 0.4, (n_genes, block.max() + 1))[:, block]
    return Pseudobulk(rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float), exposure, group, block)


def paired(n_donors, n_groups=2):
    return np.repeat(np.arange(n_groups), n_donors), np.tile(np.arange(n_donors), n_groups)


def replicates(*sizes):
    return np.repeat(np.arange(len(sizes)), sizes), None


REGIMES = {
    "2 v 2": (replicates(2, 2), {}),
    "3 v 3": (replicates(3, 3), {}),
    "5 v 5, wide scatter": (replicates(5, 5), {"phi0": 0.02, "sd": 1.0}),
    "3 v 10, unequal depths": (replicates(3, 10), {"exposure_sd": 1.0}),
    "4 v 100": (replicates(4, 100), {}),
    "4 v 100, targets three times as noisy": (replicates(4, 100), {"ratios": [3, 1]}),
    "3 donors": (paired(3), {}),
    "8 donors": (paired(8), {}),
    "12 groups of 3": (replicates(*[3] * 12), {}),
    "6 groups in 3 blocks": (paired(3, 6), {}),
    "12 groups, one three times as noisy": (replicates(*[3] * 12), {"ratios": [1] * 11 + [3]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REGIMES)
def test_type_one_error(name):
    """Realised rates of false positives of the whole procedure at .05, .01 and .001, on fixed seeds.

    Bounds: nominal x .7 to 1.15, widened by four binomial standard errors. Tests of one gene share its reference, so their number is
    counted as that of the genes.
    """
    (group, block), options = REGIMES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    n_genes, repeats = (8000, 2) if len(group) > 30 else (20_000, 2)
    p = []
    for _ in range(repeats):
        pseudobulk = null_counts(rng, group, n_genes, block=block, **options)
        p.append(moderated_tests(pseudobulk, all_pairs(group.max() + 1)).p_value)
    p = np.concatenate(p)
    for level in (0.05, 0.01, 0.001):
        margin = 4 * np.sqrt(level / len(p))
        rate = (p < level).sum(axis=0) / np.isfinite(p).sum(axis=0)
        assert (rate < 1.15 * level + margin).all()
        assert rate.mean() > 0.7 * level - margin
