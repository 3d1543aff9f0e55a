"""Dispersion ratios of noisy groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.high_dispersion_groups import _expected, ratio_to_trend, ratios_of_two, suspected_groups
from nbcompare._nb.dispersion.trend import fit_trend
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.dataset_fit import fit_shared

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


def of_two(pseudobulk):
    """Ratios of two groups and the trend that goes with them."""
    exposure = pseudobulk.exposure[None]
    return ratios_of_two(pseudobulk, exposure, fit_trend(pseudobulk), 1.0, np.ones(len(pseudobulk.counts), bool))


def of_group(pseudobulk, trend, group):
    """Ratio of one group to a trend."""
    chosen = np.arange(pseudobulk.n_groups) == group
    return ratio_to_trend(
        pseudobulk, pseudobulk.exposure[None], trend, 1.0, chosen, np.ones(len(pseudobulk.counts), bool)
    )


@pytest.mark.parametrize(("sizes", "small"), [((4, 60), 0), ((60, 4), 1), ((3, 5), 0), ((9, 3), 1)])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 8.0])
def test_the_smaller_of_two_groups(sizes, small, ratio):
    """Recovered within 15 %; never below one; the larger group is the measure, and its trend is taken where the smaller is noisy."""
    ratios = [1.0, 1.0]
    ratios[small] = ratio
    pseudobulk = simulate(0, sizes, ratios)
    dispersion_ratio, trend = of_two(pseudobulk)
    assert dispersion_ratio[small] == pytest.approx(ratio, rel=0.15)
    assert dispersion_ratio[1 - small] == 1
    truth = 0.05 + 0.5 / trend.mean
    np.testing.assert_allclose(np.median(trend.dispersion / truth), 1, atol=0.15)
    lower = simulate(1, sizes, [0.3 if r == 1 else 1 for r in (small == 1, small == 0)])
    assert (of_two(lower)[0] >= 1).all()


@pytest.mark.parametrize("sizes", [(3, 3), (8, 8), (1, 30)])
def test_groups_of_one_size_and_single_replicates_are_left_alone(sizes):
    np.testing.assert_array_equal(of_two(simulate(2, sizes, [5.0, 1.0]))[0], [1, 1])


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_outlying_replicates_of_some_genes_do_not_make_a_group_high_dispersion(ratio):
    """One gene in twenty has a count ten times too large in the smaller group: its ratio moves by less than 15 %."""
    clean = simulate(6, (3, 12), (ratio, 1.0))
    counts = clean.counts.copy()
    counts[::20, 0] *= 10
    found = of_two(Pseudobulk(counts, clean.exposure, clean.group))[0][0]
    assert found == pytest.approx(of_two(clean)[0][0], rel=0.15)


def test_high_dispersion_groups_are_found_and_measured():
    """Twelve groups of three, one three times as noisy: the only one found, its ratio within 15 % of the others'."""
    ratios = np.ones(12)
    ratios[7] = 3
    pseudobulk = simulate(3, [3] * 12, ratios)
    found = suspected_groups(pseudobulk, pseudobulk.exposure[None], fit_trend(pseudobulk), 1.0)
    np.testing.assert_array_equal(np.flatnonzero(found), [7])
    even = simulate(3, [3] * 12, np.ones(12))
    trend = fit_trend(even)
    assert not suspected_groups(even, even.exposure[None], trend, 1.0).any()
    assert of_group(pseudobulk, trend, 7) == pytest.approx(3, rel=0.15)
    assert of_group(even, trend, 7) == pytest.approx(1, abs=0.15)


def test_frequent_outlying_replicates_set_a_group_apart():
    """In one gene in seven of a group of many the replicates differ wildly: ratio just above one, its statistics are its own."""
    pseudobulk = simulate(9, [3] * 8, np.ones(8))
    extreme_outlier = np.random.default_rng(0).lognormal(0, 1.0, pseudobulk.counts[::7, 15:18].shape)
    pseudobulk.counts[::7, 15:18] = np.round(pseudobulk.counts[::7, 15:18] * extreme_outlier)
    pairs = np.array([(0, k) for k in range(1, 8)])
    shared = fit_shared(pseudobulk, pairs, min_gene_counts=10)
    assert 1 < shared.dispersion_ratio[5] < 1.5
    np.testing.assert_array_equal(np.delete(shared.dispersion_ratio, 5), 1)
    assert shared.in_fit.tolist() == [k != 5 for k in range(8)]
    flagged = (moderated_tests(pseudobulk, pairs).status & Status.HIGH_DISPERSION_GROUP) > 0
    assert flagged[:, 4].any()
    assert not np.delete(flagged, 4, axis=1).any()


@pytest.mark.parametrize("ratio", [2.0, 4.0])
@pytest.mark.parametrize("high_dispersion", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(3, 3, 3), (30, 3, 3, 3, 3, 3, 3), (8, 4, 4, 4)])
def test_any_group_of_a_data_set_may_be_the_high_dispersion_one(sizes, high_dispersion, ratio):
    """The reference too, and one of many replicates: its ratio is found, the others have one, the trend is theirs."""
    ratios = np.ones(len(sizes))
    ratios[high_dispersion] = ratio
    pairs = np.array([(0, k) for k in range(1, len(sizes))])
    shared = fit_shared(simulate(8, sizes, ratios), pairs, min_gene_counts=10)
    assert shared.dispersion_ratio[high_dispersion] == pytest.approx(ratio, rel=0.2)
    np.testing.assert_array_equal(np.delete(shared.dispersion_ratio, high_dispersion), 1)
    truth = 0.05 + 0.5 / shared.trend.mean
    np.testing.assert_allclose(np.median(shared.trend.dispersion / truth), 1, atol=0.15)


def test_changed_genes_do_not_make_a_group_high_dispersion():
    """The test's whole way: a group with a third of its genes changed fourfold is not noisier; one that is, is flagged."""
    pairs = np.array([(0, k) for k in range(1, 8)])
    changed = moderated_tests(simulate(4, [3] * 8, np.ones(8), changed=0.33), pairs)
    np.testing.assert_array_equal(changed.dispersion_ratio, 1)
    ratios = np.ones(8)
    ratios[7] = 4
    high_dispersion = moderated_tests(simulate(5, [3] * 8, ratios), pairs)
    np.testing.assert_array_equal(high_dispersion.dispersion_ratio[:6], 1)
    assert high_dispersion.dispersion_ratio[6, 0] == 1
    assert high_dispersion.dispersion_ratio[6, 1] == pytest.approx(4, rel=0.2)
    flagged = (high_dispersion.status & Status.HIGH_DISPERSION_GROUP) > 0
    assert flagged[:, 6].any()
    assert not flagged[:, :6].any()
    ratio = high_dispersion.dispersion[:, 6] / high_dispersion.dispersion[:, 0]
    assert np.nanmedian(ratio) == pytest.approx(4, rel=0.3)


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0, 4.0]))
def test_a_ratio_to_a_trend(seed, ratio):
    """Invariant to the order of genes and to the unit of exposure."""
    pseudobulk = simulate(seed, [5], [ratio], n_genes=400)
    knots = np.geomspace(1, 3000, 20)
    trend = Trend(knots, 0.05 + 0.5 / knots, 0.05, 400)
    one = of_group(pseudobulk, trend, 0)
    order = np.random.default_rng(seed).permutation(400)
    other = of_group(Pseudobulk(pseudobulk.counts[order], 7 * pseudobulk.exposure, pseudobulk.group), trend, 0)
    assert one == pytest.approx(other, rel=1e-6)
    assert one == pytest.approx(ratio, rel=0.35)


def test_the_mean_of_ordinary_statistics():
    """Limit and mean of an F variable over its mean, below its 95 % quantile: against numerical integration."""
    for degrees, prior_df in ((2.0, 8.0), (0.7, 3.0), (30.0, 1e6)):
        limit, expected = _expected(np.array([degrees]), np.array([prior_df]))
        law = stats.f(degrees, prior_df, scale=(prior_df - 2) / prior_df)
        assert law.cdf(limit[0]) == pytest.approx(0.95)
        assert expected[0] == pytest.approx(law.expect(lambda x: x, ub=limit[0]) / 0.95, rel=1e-4)


def test_nothing_to_learn_from():
    nothing = Pseudobulk(np.zeros((4, 3)), np.ones(3), np.zeros(3, np.intp))
    assert of_group(nothing, Trend(np.ones(1), np.full(1, 0.1), 0.3, 0), 0) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [
        ((3, 5), (4, 1)),
        ((3, 12), (4, 1)),
        ((3, 12), (2, 1)),
        ((3, 30), (4, 1)),
        ((2, 8), (4, 1)),
        ((4, 4, 4, 4), (4, 1, 1, 1)),
    ],
)
def test_levels_with_a_high_dispersion_group(sizes, ratios):
    """Nulls: 0.05 within 0.8 to 1.25 of what is realised, 0.001 no more than 1.8, 0.0001 no more than 2.5 times."""
    pairs = np.array([(0, k) for k in range(1, len(sizes))])
    p = np.concatenate(
        [moderated_tests(simulate(100 + seed, sizes, ratios, 6000), pairs).p_value.ravel() for seed in range(8)]
    )
    p = p[np.isfinite(p)]
    assert 0.8 < (p < 0.05).mean() / 0.05 < 1.25
    for level, most in ((1e-3, 1.8), (1e-4, 2.5)):
        assert (p < level).sum() <= stats.binom.ppf(0.999, len(p), most * level)
    assert p.min() > 1e-8
