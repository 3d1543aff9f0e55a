"""Nulls other than zero against the exact binomial test, the slow version and simulation at the boundary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.inference.threshold import larger, smaller
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.numerics.special import normal_from_t
from nbcompare._nb.status import Status

PAIR = np.array([[0, 1]])
DESIGNS = {
    "4 v 4": (np.repeat([0, 1], 4), None),
    "4 donors": (np.repeat([0, 1], 4), np.tile(np.arange(4), 2)),
    "4 groups of 3": (np.repeat(np.arange(4), 3), None),
    "3 groups in 3 blocks": (np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)),
}


def pairs_of(group):
    return np.array([(0, k) for k in range(1, group.max() + 1)])


def simulate(seed, group, block, effect, n_genes=500, lowest=10.0, exposure_sd=0.3, phi0=0.1):
    """Counts with this log fold change (a number, or one a gene) of every group over the first."""
    rng = np.random.default_rng(seed)
    exposure = rng.lognormal(0, exposure_sd, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(2000), n_genes))[:, None]
    phi = (phi0 + 0.5 / mean) * rng.lognormal(0, 0.5, mean.shape)
    m = mean * exposure * np.exp(np.reshape(effect, (-1, 1)) * (group > 0))
    if block is not None:
        m = m * rng.lognormal(0, 0.4, (n_genes, block.max() + 1))[:, block]
    return Pseudobulk(rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float), exposure, group, block)


def both(result):
    return result.shifted[..., 0], result.shifted[..., 1]


@pytest.mark.parametrize("name", DESIGNS)
def test_no_threshold_is_the_plain_test(name):
    """A threshold of next to nothing gives the two-sided p-value to 1e-11 relative, empty arms included."""
    group, block = DESIGNS[name]
    pseudobulk = simulate(0, group, block, 1.0, lowest=2.0)
    pseudobulk.counts[:10, group == 0] = 0
    result = moderated_tests(pseudobulk, pairs_of(group), threshold=1e-16)
    p, statistic = larger(*both(result), result.log_fc)
    tested = np.isfinite(result.p_value)
    np.testing.assert_array_equal(np.isfinite(p), tested)
    np.testing.assert_allclose(p[tested], result.p_value_all[tested], rtol=1e-11, atol=1e-300)
    seen = tested & (result.p_value_all < 0.9)
    np.testing.assert_array_equal(np.sign(statistic[seen]), np.sign(result.log_fc[seen]))
    assert ((result.status[:10] & Status.ZERO_GROUP) > 0).any(axis=1).all()


def test_poisson_counts_against_the_binomial():
    """Without dispersion, given the total, the treated count is binomial: one-sided mid-p within .15 decades down to 1e-8."""
    rng = np.random.default_rng(1)
    group, tau = np.repeat([0, 1], [3, 4]), np.log(1.5)
    counts = rng.poisson(np.exp(rng.uniform(2, 4, (2000, 1))) * np.exp(rng.normal(0.2, 0.3, (2000, 1)) * group)).astype(
        float
    )
    result = moderated_tests(Pseudobulk(counts, np.ones(7), group), PAIR, threshold=tau, leave_out=False)
    near = result.dispersion[:, 0] * result.mean < 0.02
    assert near.sum() > 20
    T2, T = counts[near][:, group == 1].sum(axis=1), counts[near].sum(axis=1)
    for k, shift in enumerate((-tau, tau)):
        share = 4 * np.exp(shift) / (3 + 4 * np.exp(shift))
        exact = stats.binom.sf(T2, T, share) + 0.5 * stats.binom.pmf(T2, T, share)
        ours = stats.norm.sf(result.shifted[near, 0, k])
        used = (exact > 1e-8) & (exact < 0.999)
        assert used.sum() > 5
        assert np.abs(np.log10(ours / exact))[used].max() < 0.15


def test_two_groups_match_the_slow_version(slow):
    """Deviates at equal exposures from the totals, the null's rate by root finding: to 1e-6."""
    group, tau = np.repeat([0, 1], 4), 0.7
    pseudobulk = simulate(2, group, None, 0.5, exposure_sd=0)
    pseudobulk = Pseudobulk(pseudobulk.counts, np.ones(8), group)
    ours = moderated_tests(pseudobulk, PAIR, threshold=tau, leave_out=False)
    theirs = slow.test(
        pseudobulk.counts, pseudobulk.exposure, group, ours.trend.at(ours.mean), ours.trend.log_dispersion_var
    )
    T1, T2 = (pseudobulk.counts[:, group == k].sum(axis=1) for k in (0, 1))
    delta = ours.dispersion[:, 0] / 4
    for k, shift in enumerate((-tau, tau)):
        root = np.array(
            [slow.signed_root(a, b, 4.0, 4.0 * np.exp(shift), d, d) for a, b, d in zip(T1, T2, delta, strict=True)]
        )
        seen = np.isfinite(root)
        z = [np.copysign(normal_from_t(abs(r), df), r) for r, df in zip(root[seen], theirs.df[seen], strict=True)]
        np.testing.assert_allclose(ours.shifted[seen, 0, k], z, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(DESIGNS)))
def test_thresholds_order_and_mirror(seed, name):
    """A larger threshold makes `larger` less and `smaller` more significant; other order of two groups, other signs."""
    group, block = DESIGNS[name]
    pseudobulk = simulate(seed, group, block, 0.8, n_genes=150, lowest=2.0)
    pairs = pairs_of(group)
    results = [moderated_tests(pseudobulk, pairs, threshold=t, leave_out=False) for t in (0.2, 0.5, 1.0)]
    tested = np.isfinite(results[0].p_value)
    large = np.array([larger(*both(r), r.log_fc)[0][tested] for r in results])
    clear = large[0] < 0.9  # of almost no change, two tails together may exceed one by their corrections
    small = np.array([smaller(*both(r), r.log_fc)[0][tested] for r in results])
    assert (np.diff(large, axis=0) > -1e-9)[:, clear].all()
    assert (np.diff(small, axis=0) < 1e-9).all()
    assert (large >= results[0].p_value_all[tested] * (1 - 1e-9))[:, clear].all()
    if group.max() == 1:
        other = moderated_tests(pseudobulk, np.array([[1, 0]]), threshold=0.5, leave_out=False)
        np.testing.assert_allclose(other.shifted[..., 0], -results[1].shifted[..., 1], atol=1e-3)


@pytest.mark.parametrize("name", ["4 v 4", "4 donors", "3 groups in 3 blocks"])
def test_level_at_the_boundary(name):
    """Effects of exactly the threshold: neither hypothesis is rejected more often than nominal, the first not much less."""
    group, block = DESIGNS[name]
    tau, n_genes = np.log(1.5), 8000
    sign = np.where(np.arange(n_genes) % 2, 1.0, -1.0)
    pseudobulk = simulate(4, group, block, tau * sign, n_genes=n_genes, lowest=30.0, phi0=0.03)
    result = moderated_tests(pseudobulk, PAIR, threshold=tau, leave_out=False)
    for k, p in enumerate((larger(*both(result), result.log_fc)[0], smaller(*both(result), result.log_fc)[0])):
        for level in (0.05, 0.01):
            rate = (p[:, 0] < level).mean()
            assert rate < level + 4 * np.sqrt(level / n_genes) + 0.1 * level
            assert k or rate > 0.5 * level  # two one-sided tests may never reject where errors are large
