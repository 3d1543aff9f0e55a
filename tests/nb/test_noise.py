"""Dispersion ratios of noisy groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.noise import fit_ratio, noise_of_group, noise_of_small_arm, noisy_groups
from nbcompare._nb.status import Status
from nbcompare._nb.trend import fit_trend

few = settings(deadline=None, max_examples=10)


def simulate(seed, sizes, ratios, n_genes=3000, base=0.05, changed=0.0):
    """Null NB counts (or a share of genes changed fourfold in the last group), dispersion of each group multiplied."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(3), np.log(2000), n_genes))
    phi = (base + 0.5 / mean)[:, None] * np.array(ratios)[group]
    m = mean[:, None] * exposure
    m[: int(changed * n_genes), group == len(sizes) - 1] *= 4
    return Pseudobulk(rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float), exposure, group)


def ratio_of_small_arm(pseudobulk):
    return noise_of_small_arm(pseudobulk, pseudobulk.exposure[None], 1.0)


@pytest.mark.parametrize(("sizes", "small"), [((4, 60), 0), ((60, 4), 1)])
@pytest.mark.parametrize("ratio", [1.0, 3.0, 8.0])
def test_the_small_arm_of_an_unbalanced_comparison(sizes, small, ratio):
    """Recovered within 15 %; never below one; the large arm is the measure."""
    ratios = [1.0, 1.0]
    ratios[small] = ratio
    noise = ratio_of_small_arm(simulate(0, sizes, ratios))
    assert noise[small] == pytest.approx(ratio, rel=0.15)
    assert noise[1 - small] == 1
    assert (ratio_of_small_arm(simulate(1, sizes, [0.3 if r == 1 else 1 for r in (small == 1, small == 0)])) >= 1).all()


@pytest.mark.parametrize("sizes", [(3, 3), (4, 19), (1, 30)])
def test_balanced_arms_and_single_replicates_are_left_alone(sizes):
    np.testing.assert_array_equal(ratio_of_small_arm(simulate(2, sizes, [1.0, 5.0])), [1, 1])


def test_noisy_groups_are_found_and_measured():
    """Twelve groups of three, one three times as noisy: the only one found, its ratio within 15 % of the others'."""
    ratios = np.ones(12)
    ratios[7] = 3
    pseudobulk = simulate(3, [3] * 12, ratios)
    trend = fit_trend(pseudobulk)
    found = noisy_groups(pseudobulk, pseudobulk.exposure[None], trend, 1.0)
    np.testing.assert_array_equal(np.flatnonzero(found), [7])
    calm = simulate(3, [3] * 12, np.ones(12))
    assert not noisy_groups(calm, calm.exposure[None], fit_trend(calm), 1.0).any()
    measured = noise_of_group(pseudobulk, pseudobulk.exposure[None], fit_trend(calm), 1.0, 7, None)
    assert measured == pytest.approx(3, rel=0.15)
    assert noise_of_group(calm, calm.exposure[None], fit_trend(calm), 1.0, 7, None) < 1.15


def test_changed_genes_do_not_make_a_group_noisy():
    """The test's whole way: a group with a third of its genes changed fourfold is not noisier; one that is, is flagged."""
    pairs = np.array([(0, k) for k in range(1, 8)])
    changed = moderated_tests(simulate(4, [3] * 8, np.ones(8), changed=0.33), pairs)
    np.testing.assert_array_equal(changed.noise, 1)
    ratios = np.ones(8)
    ratios[7] = 4
    noisy = moderated_tests(simulate(5, [3] * 8, ratios), pairs)
    np.testing.assert_array_equal(noisy.noise[:6], 1)
    assert noisy.noise[6, 0] == 1
    assert noisy.noise[6, 1] == pytest.approx(4, rel=0.2)
    flagged = (noisy.status & Status.NOISY_GROUP) > 0
    assert flagged[:, 6].any()
    assert not flagged[:, :6].any()
    ratio = noisy.dispersion[:, 6] / noisy.dispersion[:, 0]
    assert np.nanmedian(ratio) == pytest.approx(4, rel=0.3)


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0, 4.0]))
def test_the_ratio_is_where_the_mean_statistic_is_one(seed, ratio):
    """Invariant to the order of genes and to the unit of exposure."""
    pseudobulk = simulate(seed, [5], [ratio], n_genes=400)
    members, trend = np.arange(5), 0.05 + 0.5 / np.maximum(pseudobulk.counts.mean(axis=1), 0.2)
    one = fit_ratio(pseudobulk.counts, pseudobulk.exposure[None], members, trend, 1.0)
    order = np.random.default_rng(seed).permutation(400)
    other = fit_ratio(pseudobulk.counts[order], 7 * pseudobulk.exposure[None], members, trend[order], 1.0)
    assert one == pytest.approx(other, rel=1e-6)
    assert one == pytest.approx(ratio, rel=0.35)


def test_nothing_to_learn_from():
    assert fit_ratio(np.zeros((4, 3)), np.ones((1, 3)), np.arange(3), np.full(4, 0.1), 1.0) == 1
