"""The leave-one-replicate-out rule against tests of the data without each replicate."""

import numpy as np
import pytest

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import Status

PAIR = np.array([[0, 1]])


def simulate(seed, sizes, n_genes=800, de=0.3, phi=0.1):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(5), np.log(1000), (n_genes, 1)))
    effect = np.where(rng.random((n_genes, 1)) < de, rng.normal(0, 1.2, (n_genes, 1)), 0)
    spread = phi * rng.lognormal(0, 0.5, (n_genes, 1))
    m = mean * exposure * np.exp(effect * (group == 1))
    return Pseudobulk(rng.negative_binomial(1 / spread, 1 / (1 + spread * m)).astype(float), exposure, group)


def without(pseudobulk, sample, genes):
    left = np.arange(len(pseudobulk.group)) != sample
    return pseudobulk.counts[np.ix_(genes, left)], pseudobulk.exposure[left], pseudobulk.group[left]


def flagged(result):
    return (result.status & Status.OUTLIER_REPLICATE) > 0


@pytest.mark.parametrize("sizes", [(3, 3), (4, 6)])
def test_largest_p_value_without_one_replicate_by_brute_force(slow, sizes):
    """Each replicate removed from the data, the trend kept; a change of sign is p = 1; the rule p -> max where max > max(sqrt p, .2)."""
    pseudobulk = simulate(0, sizes, phi=0.02)
    pseudobulk.counts[:300, 0] *= np.random.default_rng(0).integers(1, 4, 300)
    pseudobulk.counts[300:600, -1] *= np.random.default_rng(1).integers(1, 4, 300)
    whole = moderated_tests(pseudobulk, PAIR)
    genes = np.flatnonzero(whole.p_value_all[:, 0] < 0.02)
    trend = whole.trend.at(whole.mean[genes])
    signs = np.sign(moderated_tests(pseudobulk, PAIR, leave_out=False).statistic[genes, 0])
    worst = whole.p_value_all[genes, 0].copy()
    for sample in range(sum(sizes)):
        y, l, group = without(pseudobulk, sample, genes)
        result = slow.test(y, l, group, trend, whole.trend.log_dispersion_var)
        near = ~np.isfinite(result.root)
        p = np.where(near | (np.sign(result.root) != signs), 1, slow.p_values(result))
        worst = np.maximum(worst, p)
    replaced = worst > np.maximum(np.sqrt(whole.p_value_all[genes, 0]), 0.2)
    assert replaced.any() == (sizes != (3, 3))  # there an outlier raises the dispersion, and p with it
    assert not replaced.all()
    np.testing.assert_array_equal(flagged(whole)[genes, 0], replaced)
    expected = np.where(replaced, worst, whole.p_value_all[genes, 0])
    assert np.abs(np.log10(whole.p_value[genes, 0] / expected)).max() < 1e-5
    assert flagged(whole).sum() == replaced.sum()


@pytest.mark.parametrize("sizes", [(4, 40), (3, *[3] * 15)])
def test_an_outlier_replicate_is_caught(sizes):
    """A replicate with eight times the counts in 20 null genes, beside many controls or many groups: called without the rule, not with it."""
    pseudobulk = simulate(1, sizes, de=0.0, phi=0.02)
    outliers = np.flatnonzero(pseudobulk.counts.mean(axis=1) > 50)[:20]
    pseudobulk.counts[outliers, 0] *= 8
    result = moderated_tests(pseudobulk, PAIR)
    called = result.p_value_all[outliers, 0] < 0.01
    assert called.mean() > 0.8
    caught = flagged(result)[outliers, 0]
    assert caught[called].mean() > 0.9
    assert (result.p_value[outliers, 0][caught] > 0.1).mean() > 0.8  # those of nulls, without the outlier


@pytest.mark.parametrize("sizes", [(3, 3), (5, 5), (4, 40)])
def test_true_effects_keep_their_p_values(sizes):
    """Effects of four and more standard errors, every replicate showing them: fewer than 3 % are questioned."""
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1], sizes)
    m = np.exp(rng.uniform(np.log(50), np.log(2000), (1000, 1))) * np.where(group == 1, 4.0, 1.0)
    counts = rng.negative_binomial(20, 20 / (20 + m)).astype(float)
    result = moderated_tests(Pseudobulk(counts, np.ones(sum(sizes)), group), PAIR)
    called = result.p_value_all[:, 0] < 1e-3
    assert called.mean() > 0.9
    assert flagged(result)[called].mean() < 0.03


@pytest.mark.parametrize("sizes", [(3, 3), (4, 30), (3, 3, 3, 3)])
def test_the_rule_only_raises_p_values_and_keeps_the_rest(sizes):
    pseudobulk = simulate(3, sizes)
    pairs = np.array([(0, k) for k in range(1, len(sizes))])
    result = moderated_tests(pseudobulk, pairs)
    plain = moderated_tests(pseudobulk, pairs, leave_out=False)
    raised = flagged(result)
    assert raised.any()
    np.testing.assert_array_equal(result.p_value_all, plain.p_value)
    np.testing.assert_array_equal(plain.p_value_all, plain.p_value)
    np.testing.assert_array_equal(result.p_value[~raised], plain.p_value[~raised])
    assert (result.p_value[raised] > np.sqrt(plain.p_value[raised])).all()
    assert (plain.p_value[raised] < 0.02).all()
    for name in ("log_fc", "se", "dispersion", "genewise"):
        np.testing.assert_array_equal(getattr(result, name), getattr(plain, name))


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (25, 25)])
def test_two_replicates_and_large_groups_are_left_alone(sizes):
    pseudobulk = simulate(4, sizes)
    pseudobulk.counts[:60, 0] *= 30
    assert not flagged(moderated_tests(pseudobulk, PAIR)).any()


def test_a_change_of_sign_is_a_p_value_of_one():
    """Without its outlier the effect turns round: stored p 1, statistic 0."""
    rng = np.random.default_rng(5)
    counts = rng.negative_binomial(50, 1 / 3, (300, 44)).astype(float)
    counts[0, :4] = [90, 88, 91, 500]
    result = moderated_tests(Pseudobulk(counts, np.ones(44), np.repeat([0, 1], [4, 40])), PAIR)
    assert result.p_value_all[0, 0] < 0.02
    assert result.p_value[0, 0] == 1
    assert result.statistic[0, 0] == 0
    assert flagged(result)[0, 0]


def test_blocks_without_spare_degrees_of_freedom_are_left_alone():
    """Three pairs have two residual degrees, and the rule applies; 3 v 3 in blocks that leave one have none to spare."""
    rng = np.random.default_rng(6)
    counts = rng.negative_binomial(5, 5 / 105, (800, 6)).astype(float)
    counts[:, 5] *= rng.choice([1, 15], 800, p=[0.8, 0.2])
    group = np.repeat([0, 1], 3)
    three = moderated_tests(Pseudobulk(counts, np.ones(6), group, np.array([0, 1, 2, 0, 1, 2])), PAIR)
    assert np.isfinite(three.p_value).all()
    one_left = Pseudobulk(counts, np.ones(6), group, np.array([0, 1, 2, 0, 1, 3]))
    assert not flagged(moderated_tests(one_left, PAIR)).any()


@pytest.mark.parametrize("sizes", [(3, 5), (2, 8), (3, 8), (3, 12), (4, 16)])
def test_one_outlying_replicate_of_the_smaller_group(sizes):
    """Nulls, one gene in twenty with a count ten times too large: below 0.001 are 1 % of them at most, where without the rule there are many."""
    p, before = [], []
    for seed in range(4):
        pseudobulk = simulate(seed, sizes, n_genes=4000, de=0.0, phi=0.05)
        pseudobulk.counts[::20, 0] *= 10
        result = moderated_tests(pseudobulk, PAIR)
        p.append(result.p_value[::20, 0])
        before.append(result.p_value_all[::20, 0])
    p, before = np.concatenate(p), np.concatenate(before)
    assert (p < 1e-3).mean() <= 0.01
    assert (p < 1e-2).mean() <= 0.1
    if sizes[1] > 5:
        assert (before < 1e-3).mean() > 0.1
