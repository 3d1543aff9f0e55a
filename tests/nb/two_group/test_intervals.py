"""Confidence intervals against scans of the null hypothesis, exact distributions and simulation; agreement with the p-values."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from nbcompare._nb.data import Group, Pseudobulk
from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.glm.likelihood_intervals import ratio_intervals
from nbcompare._nb.glm.likelihood_ratio import likelihood_ratio_test
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.numerics.interval_search import NORMAL, SIZE, X, advance, begin, t_critical
from nbcompare._nb.numerics.special import normal_from_t
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.intervals import counts_interval, critical_values

PAIR = np.array([[0, 1]])
LOG_2 = np.log(2)
CLOSE = 1e-3 * LOG_2
SETTINGS = {
    "4 v 4": (np.repeat([0, 1], 4), None),
    "4 pairs": (np.repeat([0, 1], 4), np.tile(np.arange(4), 2)),
    "3 v 12": (np.repeat([0, 1], [3, 12]), None),
    "4 groups of 3": (np.repeat(np.arange(4), 3), None),
    "3 groups in 3 blocks": (np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)),
}


def pairs_of(group):
    return np.array([(0, k) for k in range(1, group.max() + 1)])


def simulate(seed, group, block=None, effect=1.0, n_genes=400, lowest=1.0, phi0=0.1):
    """Counts with this log fold change (a number, or one a gene) of every group over the first; some genes are absent from a group."""
    rng = np.random.default_rng(seed)
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(2000), n_genes))[:, None]
    phi = (phi0 + 0.5 / mean) * rng.lognormal(0, 0.5, mean.shape)
    m = mean * exposure * np.exp(np.reshape(effect, (-1, 1)) * (group > 0))
    if block is not None:
        m = m * rng.lognormal(0, 0.4, (n_genes, block.max() + 1))[:, block]
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float)
    counts[:10, group == 0] = 0
    counts[10:20, group == 1] = 0
    return Pseudobulk(counts, exposure, group, block)


def designs(pseudobulk, seed=0):
    """Samples by columns: donors and group, and a covariate and group."""
    x = (pseudobulk.group > 0).astype(float)
    donor = np.arange(len(x)) % 4
    age = np.random.default_rng(seed).normal(size=len(x))
    return {"donors": np.column_stack([np.eye(4)[donor], x]), "age": np.column_stack([np.ones(len(x)), age, x])}


def last(design):
    weights = np.zeros(design.shape[1])
    weights[-1] = 1
    return weights


def disagree(interval, p, score, status):
    """Tests whose interval leaves out zero but whose p-value is not below .05, or the reverse; near .05 both may be.

    Left aside are groups without counts whose score points upwards from nothing: that p-value is no test of a fall.
    """
    lower, upper = interval[..., 0], interval[..., 1]
    out = (lower > 0) | (upper < 0)
    up = np.isinf(upper)  # the first group has no counts
    aside = ((status & Status.ZERO_GROUP) > 0) & (np.isinf(lower) | up) & (np.sign(score) != np.where(up, 1, -1))
    return ~np.isnan(p) & (np.abs(p - 0.05) > 5e-4) & ~aside & (out != (p < 0.05))


def test_search_finds_the_crossing():
    """Of smooth, kinked and jumping functions, from starts far off; infinite where there is none."""
    state = np.empty(SIZE)

    def solve(deviate, start, target):
        begin(state, 0.0, start, target)
        for n in range(100):
            if advance(state, deviate(state[X])):
                return state[X], n + 1
        raise AssertionError

    for start in (-0.01, -3.0, -25.0):
        for deviate in (
            lambda x: -x,
            lambda x: -np.sinh(x),
            lambda x: -np.arctan(x) * 2,
            lambda x: -np.sign(x + 0.7) * 3,
        ):
            expected = -25.0 if deviate(-25.0) < 1.5 else brentq(lambda x, f=deviate: f(x) - 1.5, -25, 1)
            found, n = solve(deviate, start, 1.5)
            assert abs(found - expected) < 2e-3
            assert n < 30
    assert solve(lambda x: -np.tanh(x), -1.0, 1.5)[0] == -np.inf
    assert solve(lambda x: -np.tanh(x), 1.0, -1.5)[0] == np.inf
    assert np.isnan(solve(lambda x: np.nan, 1.0, -1.5)[0])


def test_critical_values():
    """Student's quantile, to the accuracy of the p-values' t tail, which they invert to 1e-6."""
    degrees = np.array([2.0, 3.0, 5.0, 10.0, 40.0, 1e5, np.inf])
    ours = critical_values(degrees)
    np.testing.assert_allclose(ours, stats.t.ppf(0.975, degrees), rtol=2e-3)
    for t, df in zip(ours, degrees, strict=True):
        assert abs(normal_from_t(t, df) - NORMAL) < 1e-6
    assert abs(normal_from_t(t_critical(1.0, NORMAL), 1.0) - NORMAL) < 1e-6


def test_poisson_counts_against_the_binomial():
    """Without dispersion the second count given the total is binomial: the bounds are about those of the mid-p interval."""
    state = np.empty(SIZE)
    for first, second in [(5, 5), (20, 8), (3, 60), (400, 500), (2, 30)]:
        total = first + second

        def tail(x, above, second=second, total=total):
            share = np.exp(x) / (1 + np.exp(x))
            one = stats.binom.sf(second, total, share) if above else stats.binom.cdf(second - 1, total, share)
            return one + 0.5 * stats.binom.pmf(second, total, share) - 0.025

        expected = brentq(partial(tail, above=True), -15, 15), brentq(partial(tail, above=False), -15, 15)
        ours = counts_interval(first, 1.0, 0.0, second, 1.0, 0.0, np.inf, 0.0, state)
        np.testing.assert_allclose(ours, expected, atol=0.01 + 0.3 / min(first, second))


@pytest.mark.parametrize("name", SETTINGS)
def test_scan_of_the_null(name):
    """Bounds are where the deviates of the threshold test, on a grid of nulls, cross 1.96: within .001 log2; one bound without counts."""
    group, block = SETTINGS[name]
    pseudobulk = simulate(1, group, block, n_genes=120, lowest=3.0)
    pairs = pairs_of(group)
    result = moderated_tests(pseudobulk, pairs, intervals=True)
    grid = np.linspace(0.02, 10, 400)
    both = [moderated_tests(pseudobulk, pairs, threshold=t, leave_out=False).shifted for t in grid]
    nulls = np.concatenate([-grid[::-1], grid])
    deviates = np.stack([*(b[..., 0] for b in both[::-1]), *(b[..., 1] for b in both)])
    n_checked = 0
    for g, c in zip(*np.nonzero(np.isfinite(result.p_value)), strict=True):
        for side, target in ((0, NORMAL), (1, -NORMAL)):
            bound = result.interval[g, c, side]
            if np.isinf(bound):
                assert result.status[g, c] & Status.ZERO_GROUP
                continue
            z = deviates[:, g, c]
            if not (z[0] > target > z[-1]) or np.abs(bound) < 0.1:
                continue
            (k,) = np.flatnonzero(np.diff(z > target))
            crossing = nulls[k] + (z[k] - target) / (z[k] - z[k + 1]) * (nulls[k + 1] - nulls[k])
            assert abs(crossing - bound) < CLOSE
            n_checked += 1
    assert n_checked > 80 * len(pairs)
    empty = np.isinf(result.interval)
    assert empty[:10, :, 1].all()
    assert empty[10:20, 0, 0].all()
    assert not empty[20:].any()


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(SETTINGS)), st.floats(-2, 2))
def test_interval_and_p_value_agree(seed, name, effect):
    """Zero lies outside just where p from all replicates is below .05, and the estimate inside; untested genes have neither."""
    group, block = SETTINGS[name]
    pseudobulk = simulate(seed, group, block, effect, n_genes=250)
    result = moderated_tests(pseudobulk, pairs_of(group), intervals=True)
    tested = ~np.isnan(result.p_value_all)
    np.testing.assert_array_equal(np.isnan(result.interval).any(axis=-1), ~tested)
    assert not disagree(result.interval, result.p_value_all, result.statistic, result.status).any()
    inside = (result.interval[..., 0] < result.log_fc) & (result.log_fc < result.interval[..., 1])
    assert inside[tested].all()


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["donors", "age"]),
    st.sampled_from([("moderated", "moderated"), ("ql", "moderated"), ("wald", "moderated"), ("wald", "genewise-ml")]),
)
def test_interval_and_p_value_agree_in_designs(seed, name, how):
    test, dispersion = how
    pseudobulk = simulate(seed, np.repeat([0, 1], 4), n_genes=200)
    design = designs(pseudobulk, seed)[name]
    result = design_tests(
        pseudobulk.counts,
        np.log(pseudobulk.exposure)[None],
        design,
        [last(design), np.eye(design.shape[1])[:, -2:]],
        test=test,
        dispersion=dispersion,
        intervals=True,
    )
    assert np.isnan(result.interval[:, 1]).all()  # a hypothesis of two degrees
    one = (values[:, :1] for values in (result.interval, result.p_value_all, result.statistic, result.status))
    assert not disagree(*one).any()
    np.testing.assert_array_equal(np.isnan(result.interval[:, 0]).any(axis=-1), np.isnan(result.p_value[:, 0]))
    inside = (result.interval[:, 0, 0] < result.log_fc[:, 0]) & (result.log_fc[:, 0] < result.interval[:, 0, 1])
    assert inside[~np.isnan(result.p_value[:, 0])].all()


@pytest.mark.parametrize("how", [("moderated", "moderated"), ("ql", "moderated"), ("lrt", "genewise-ml")])
def test_a_null_at_the_bound_has_p_of_five_percent(how):
    """In a design, bound by bound: the test of that null, all genes fitted again."""
    test, dispersion = how
    pseudobulk = simulate(2, np.repeat([0, 1], 4), n_genes=150)
    design = designs(pseudobulk)["donors"]
    run = partial(
        design_tests,
        pseudobulk.counts,
        np.log(pseudobulk.exposure)[None],
        design,
        [last(design)],
        test=test,
        dispersion=dispersion,
    )
    result = run(intervals=True)
    genes = [3, 7, 13, *range(20, 150, 13)]
    assert np.isinf(result.interval[genes]).sum() >= 3
    for g in genes:
        for bound in result.interval[g, 0]:
            if np.isfinite(bound):
                assert run(null=np.array([bound])).p_value[g, 0] == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("fit", [fit_moments, fit_likelihood, partial(fit_likelihood, cox_reid=True)])
def test_likelihood_ratio_at_the_bound(fit):
    """With the exposures of the treated group times the fold change, the test has p = .05; a group without counts has one bound."""
    group = np.repeat([0, 1], [4, 5])
    pseudobulk = simulate(3, group, n_genes=60, lowest=5.0)
    two_groups = pseudobulk.take(np.flatnonzero(group == 0)), pseudobulk.take(np.flatnonzero(group == 1))
    interval = ratio_intervals(fit(*two_groups), *two_groups)
    np.testing.assert_array_equal(interval[:10, 1], np.inf)
    np.testing.assert_array_equal(interval[10:20, 0], -np.inf)
    for g in range(0, 60, 5):
        one = [Group(group_of_two.counts[g : g + 1], group_of_two.exposure) for group_of_two in two_groups]
        for bound in interval[g][np.isfinite(interval[g])]:
            shifted = Group(one[1].counts, one[1].exposure * np.exp(bound))
            estimates = fit(one[0], shifted) if fit is not fit_moments else fit(*one)
            p = likelihood_ratio_test(estimates, one[0], shifted).p_value[0]
            assert p == pytest.approx(0.05, rel=0.01)


def test_designs_of_two_groups_have_the_plain_intervals():
    group = np.repeat([0, 1], 4)
    pseudobulk = simulate(4, group)
    plain = moderated_tests(pseudobulk, PAIR, intervals=True)
    design = np.column_stack([np.ones(8), group])
    found = design_tests(
        pseudobulk.counts, np.log(pseudobulk.exposure)[None], design, [np.array([0.0, 1.0])], intervals=True
    )
    np.testing.assert_allclose(found.interval, plain.interval, atol=CLOSE)


@pytest.mark.parametrize("name", ["4 v 4", "4 pairs"])
def test_the_other_order_of_groups_mirrors(name):
    group, block = SETTINGS[name]
    pseudobulk = simulate(5, group, block, n_genes=200)
    there, back = (moderated_tests(pseudobulk, np.array([pair]), intervals=True) for pair in ((0, 1), (1, 0)))
    np.testing.assert_allclose(there.interval, -back.interval[..., ::-1], atol=CLOSE)


def covering(interval, truth):
    tested = ~np.isnan(interval[:, 0])
    assert tested.mean() > 0.75
    return ((interval[:, 0] <= truth) & (truth <= interval[:, 1]))[tested].mean()


def near_empty(seed, *, paired):
    """Mean .4 in 8 samples of the reference and a log2 fold change of 8, among genes without change."""
    rng = np.random.default_rng(seed)
    group, n_genes = np.repeat([0, 1], 8), 1000
    block = np.tile(np.arange(8), 2) if paired else None
    mean = np.append(np.full(n_genes, 0.4), np.exp(rng.uniform(np.log(2), np.log(1000), 3000)))[:, None]
    effect = np.append(np.full(n_genes, 8 * LOG_2), np.zeros(3000))[:, None]
    exposure = rng.lognormal(0, 0.3, 16)
    phi = (0.1 + 0.5 / np.maximum(mean * np.exp(effect / 2), 1)) * rng.lognormal(0, 0.5, mean.shape)
    m = mean * exposure * np.exp(effect * group)
    if paired:
        m = m * rng.lognormal(0, 0.4, (len(m), 8))[:, block]
    return Pseudobulk(rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float), exposure, group, block)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unpaired", "blocks", "design"])
def test_coverage_of_near_empty_groups(how):
    """Where 1.96 |estimate / score| covered .75 to .82 of pairs."""
    pseudobulk = near_empty(0, paired=how != "unpaired")
    if how == "design":
        design = np.column_stack([np.eye(8)[pseudobulk.block], pseudobulk.group])
        offset = np.log(pseudobulk.exposure)[None]
        interval = design_tests(pseudobulk.counts, offset, design, [last(design)], intervals=True).interval[:, 0]
    else:
        interval = moderated_tests(pseudobulk, PAIR, intervals=True).interval[:, 0]
    assert 0.93 < covering(interval[:1000], 8 * LOG_2) < 0.985


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "lowest", "highest", "ratio"),
    [
        ((2, 2), 5, 500, 1.0),
        ((3, 3), 5, 500, 1.0),
        ((20, 20), 5, 500, 1.0),
        ((4, 4), 1, 4, 1.0),
        ((3, 30), 5, 500, 1.0),
        ((30, 3), 5, 500, 4.0),
    ],
)
def test_coverage(sizes, lowest, highest, ratio):
    """Of 95 % intervals, from 2 v 2 to 20 v 20, at low counts, and where the second group has other dispersions."""
    rng = np.random.default_rng(6)
    group, n_genes = np.repeat([0, 1], sizes), 4000
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(highest), n_genes))[:, None]
    effect = np.where(np.arange(n_genes) % 4 == 0, 1.0, 0.0)
    phi = (0.1 + 0.5 / np.maximum(mean, 1)) * rng.lognormal(0, 0.5, mean.shape) * np.where(group == 1, ratio, 1.0)
    m = mean * exposure * np.exp(effect[:, None] * group)
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float)
    result = moderated_tests(Pseudobulk(counts, exposure, group), PAIR, intervals=True)
    assert 0.93 < covering(result.interval[:, 0], effect) < 0.97
