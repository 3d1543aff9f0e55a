"""The test within blocks from the formulas of the methods page, with matrices and roots in place of closed forms; its rule; its designs."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.hat_constants import design_constants
from nbcompare._nb.dispersion.trend import mean_bins
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.stratified.compare import applies, fit_matched_trend, matched_shifted, matched_tests
from nbcompare._nb.stratified.design import block_constants, matched_design
from nbcompare._nb.stratified.pearson import BOTH, group_statistics

PAIR = np.array([[0, 1]])
DESIGNS = {
    "4 donors": (np.repeat([0, 1], 4), np.tile(np.arange(4), 2)),
    "one donor without control": (np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2, 3])),
    "two replicates": (np.repeat([0, 1], 6), np.tile(np.repeat(np.arange(3), 2), 2)),
    "4 v 3 in 2 batches": (np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 1, 1])),
}


def simulate(seed, group, block, n_genes=300, lowest=2.0, exposure_sd=0.3, effect=0.7, phi0=0.1):
    rng = np.random.default_rng(seed)
    exposure = rng.lognormal(0, exposure_sd, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(2000), n_genes))[:, None]
    phi = (phi0 + 0.5 / mean) * rng.lognormal(0, 0.5, mean.shape)
    change = np.exp(rng.normal(0, effect, mean.shape) * group)
    m = mean * exposure * change * rng.lognormal(0, 0.4, (n_genes, block.max() + 1))[:, block]
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float)
    return Pseudobulk(counts, exposure, group.astype(np.intp), block.astype(np.intp))


def slow_cells(y, l, group, block, phi):
    """Y, E, D of the two groups in every block, each (n_blocks, 2), zero where there is no sample."""
    found = np.zeros((3, block.max() + 1, 2))
    for r in np.unique(block):
        rate = y[block == r].sum() / l[block == r].sum()
        for g in (0, 1):
            of = (block == r) & (group == g)
            if of.any():
                w = 1 / (1 + phi * rate * l[of])
                depth = (w * l[of]).sum() ** 2 / (w**2 * l[of]).sum()
                factor = (w**2 * l[of] ** 2).sum() / (w * l[of]).sum() ** 2
                found[:, r, g] = (w * y[of]).sum() / (w * l[of]).sum() * depth, depth, factor
    return found


def slow_sums(cells, phi, ratio=1.0):
    """Mantel-Haenszel sums over the blocks with both groups."""
    Y, E, D = cells
    E = E * [1, ratio]
    both = (E > 0).all(axis=1) & (Y.sum(axis=1) > 0)
    Y, E, of_groups = Y[both], E[both], D[both]
    D = of_groups.sum(axis=1)
    L, x = E.sum(axis=1), Y.sum(axis=1) * E.prod(axis=1) / E.sum(axis=1) ** 2
    k = 1 / (1 + phi * x * D)
    a, b = (k * Y[:, 1] * E[:, 0] / L).sum(), (k * Y[:, 0] * E[:, 1] / L).sum()
    slope = (k * x).sum()
    scales = [slope / (k**2 * x * E[:, 1 - g] / L).sum() for g in (0, 1)]
    delta = phi * ((k**2 * x**2)[:, None] * of_groups).sum(axis=0) / slope**2
    return SimpleNamespace(
        a=a,
        b=b,
        y1=scales[0] * b,
        y2=scales[1] * a,
        E1=scales[0] * slope,
        E2=scales[1] * slope,
        delta1=delta[0],
        delta2=delta[1],
        A=(k**2 * x**2 * D).sum() / slope,
    )


def slow_statistic(y, l, group, block, phi):
    """Pearson's statistic at Mantel-Haenszel's ratio, blocks' rates by root finding, leverages from the weighted hat matrix."""
    cells = slow_cells(y, l, group, block, phi)
    sums = slow_sums(cells, phi)
    ratio = max(sums.a, 0.25) / max(sums.b, 0.25)
    rates = np.zeros(block.max() + 1)
    for r in range(len(rates)):
        (Y, E, D) = (cells[j, r][cells[1, r] > 0] for j in range(3))
        E = E * np.array([1, ratio])[cells[1, r] > 0]
        if Y.sum() > 0:
            rates[r] = brentq(lambda x, Y=Y, E=E, D=D: ((Y - x * E) / (1 + phi * D * E * x)).sum(), 0, 1e9, xtol=1e-13)
    m = rates[block] * l * np.where(group == 1, ratio, 1)
    live = m >= 1e-3
    x = np.column_stack([block[:, None] == np.unique(block), group == 1])[:, np.r_[rates > 0, True]].astype(float)
    w = m / (1 + phi * m)
    root = np.sqrt(w)[:, None] * x
    h = np.einsum("ij,ij->i", root, np.linalg.pinv(root).T)
    P = (1 - h)[live]
    kn, kp = block_constants(group, block)[0]
    n, V = m[live], (m * (1 + phi * m))[live]
    R, K = P.sum(), (P * np.maximum(0, 1 - h[live] / n)).sum() / (1 + phi * kn)
    g = (h[live] + kn) / 2
    D = 1 / ((1 + 2 * phi * g) * (1 + 3 * phi * g))
    v = P * (1 + 2 * phi * n) * np.sqrt(D * w[live] / V)
    pull = v @ x[live]
    variance = (D * (2 * P * (np.maximum(0, 1 - h[live] / n) + phi * g) + P**2 * (1 / V + 6 * phi))).sum()
    variance -= pull @ np.linalg.pinv(x.T @ (w[:, None] * x)) @ pull
    d = 2 * K**2 / max(variance, 0.3 * K)
    X2 = ((y - m)[live] ** 2 / V).sum() * (1 + phi * kn) / (1 + kp / n.mean())
    return d * (1 + (X2 - R) / K), d, (P * w[live]).sum() / R


def slow_prior(A, trend, log_dispersion_var):
    x = log_dispersion_var * (trend * A) ** 2
    d0 = 1 + 2 / max(x, 1e-6)
    return d0, max(trend - (1 - np.exp(-(x / 2 + 1 / d0 + 1 / (3 * d0**2)))) / A, 0)


@pytest.mark.parametrize("name", DESIGNS)
def test_single_genes_match_the_formulas(slow, name):
    """Given the trend: dispersion to 1e-6, effect to 1e-8, p-values to 2e-3 decades (the approximated t tail)."""
    group, block = DESIGNS[name]
    pseudobulk = simulate(0, group, block, n_genes=40, lowest=8)
    trend = Trend(np.array([1.0, 1000.0]), np.array([0.3, 0.1]), 0.4, 1000)
    ours = matched_tests(pseudobulk, matched_design(pseudobulk, 1), trend, leave_out=False)
    from_conftest = slow.signed_root
    for i, y in enumerate(pseudobulk.counts):
        m = y.mean()
        at = trend.at(np.array([m]))[0]
        _, p0 = slow_prior(m / (1 + at * m), at, trend.log_dispersion_var)
        numerator, d, A = slow_statistic(y, pseudobulk.exposure, group, block, p0)
        at_test = slow_sums(slow_cells(y, pseudobulk.exposure, group, block, p0), p0).A
        d0, _ = slow_prior(at_test / (1 + (at - p0) * at_test), at, trend.log_dispersion_var)
        part = min(A / at_test, 1)
        excess = part * (numerator - d) / (d0 + part**2 * d)  # of the variance under the null hypothesis
        phi = max(p0 + max(excess, 0.02 - 1) / at_test, 0)
        assert ours.dispersion[i] == pytest.approx(phi, rel=1e-6, abs=1e-9)
        assert ours.genewise[i] == pytest.approx(max(p0 + (numerator / d - 1) / A, 0), rel=1e-5, abs=1e-8)
        sums = slow_sums(slow_cells(y, pseudobulk.exposure, group, block, p0), phi)
        assert ours.log_fc[i] == pytest.approx(np.log(sums.a / sums.b), abs=1e-7)
        assert ours.se[i] == pytest.approx(np.sqrt(1 / sums.y1 + 1 / sums.y2 + sums.delta1 + sums.delta2), rel=1e-6)
        root = from_conftest(sums.y1, sums.y2, sums.E1, sums.E2, sums.delta1, sums.delta2)
        if np.isfinite(root):
            p = 2 * stats.t.sf(abs(root), d0 + d)
            assert abs(np.log10(ours.p_value[i] / p)) < 2e-3


def levels_of_nulls(n_genes, group, block, cuts, **kwargs):
    """Share of p-values below each cut over the cut, and the smallest, of genes with log-normal dispersions around 0.05."""
    rng = np.random.default_rng(11)
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(2), np.log(500), (n_genes, 1)))
    phi = 0.05 * rng.lognormal(0, 1.35, mean.shape)
    m = mean * exposure * rng.lognormal(0, 0.3, (n_genes, block.max() + 1))[:, block]
    counts = rng.poisson(m * rng.gamma(1 / phi, phi, m.shape)).astype(float)
    p_value = moderated_tests(Pseudobulk(counts, exposure, group, block), PAIR, **kwargs).p_value[:, 0]
    p_value = p_value[np.isfinite(p_value)]
    return [(p_value < cut).mean() / cut for cut in cuts], p_value.min()


@pytest.mark.parametrize("donors", [2, 4, 8])
@pytest.mark.parametrize("phi0", [0.3, 2.0])
def test_the_trend_settles_at_low_counts(donors, phi0):
    """In every bin that has information the mean statistic is one; steps alone jumped between two dispersions, at means below 5."""
    group, block = np.repeat([0, 1], donors), np.tile(np.arange(donors), 2)
    rng = np.random.default_rng(7)
    exposure, mean = rng.lognormal(0, 0.3, len(group)), np.exp(rng.uniform(np.log(0.5), np.log(5), (3000, 1)))
    phi = phi0 * rng.lognormal(0, 0.7, mean.shape)
    m = mean * exposure * rng.lognormal(0, 0.3, (3000, donors))[:, block]
    counts = rng.poisson(m * rng.gamma(1 / phi, phi, m.shape)).astype(float)
    counts = np.ascontiguousarray(counts[counts.sum(axis=1) >= 5])
    pseudobulk = Pseudobulk(counts, exposure, group, block)
    design = matched_design(pseudobulk, 1)
    trend = fit_matched_trend(pseudobulk, design, np.ones(len(counts), bool))
    out, mean = np.empty((len(counts), 3)), counts.mean(axis=1)
    group_statistics(counts, exposure[None], design, trend.at(mean), np.ones(2), BOTH, out)
    checked = 0
    for genes in mean_bins(np.lexsort((np.square(counts).sum(axis=1), mean)), mean):
        numerator, degrees, _ = out[genes].sum(axis=0)
        if degrees > 50:
            assert numerator / degrees == pytest.approx(1, abs=0.05)
            checked += 1
    assert checked > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2 donors", "4 donors", "8 donors", "two batches"])
def test_the_far_tail_of_null_genes(name):
    """With the dispersions of real data (variance of the logarithm 1.8) p-values of 60,000 null genes stay in proportion to the last."""
    donors = {"2 donors": 2, "4 donors": 4, "8 donors": 8, "two batches": 4}[name]
    group = np.repeat([0, 1], donors)
    block = np.tile(np.arange(donors) // (2 if name == "two batches" else 1), 2)
    (far, farther), smallest = levels_of_nulls(60_000, group, block, (1e-4, 1e-5))
    assert smallest > 1e-8
    assert far * 1e-4 <= stats.binom.ppf(0.999, 60_000, 1.4e-4) / 60_000
    assert farther * 1e-5 <= stats.binom.ppf(0.999, 60_000, 2.2e-5) / 60_000


UNEQUAL = {
    "3 v 12 in 3 batches": (np.repeat([1, 0], [3, 12]), np.r_[0:3, np.repeat([0, 1, 2], 4)]),
    "4 v 16 in 2 batches": (np.repeat([1, 0], [4, 16]), np.r_[0, 0, 1, 1, np.repeat([0, 1], 8)]),
}


def counts_of_two_dispersions(seed, group, block, ratio, n_genes):
    """Null genes; the second group has `ratio` times the dispersion of the first."""
    rng = np.random.default_rng(seed)
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(10), np.log(1000), (n_genes, 1)))
    phi = 0.45 / rng.chisquare(9, mean.shape) * np.where(group == 1, ratio, 1)
    m = mean * exposure * rng.lognormal(0, 0.5, (n_genes, block.max() + 1))[:, block]
    return Pseudobulk(rng.poisson(m * rng.gamma(1 / phi, phi)).astype(float), exposure, group, block)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1, 2, 4])
@pytest.mark.parametrize("name", UNEQUAL)
def test_a_more_dispersed_group_within_blocks(name, ratio):
    """Its ratio is found within a tenth, the other group's is 1, and p-values of 24,000 null genes keep their level."""
    p_value = []
    for seed in range(3):
        result = moderated_tests(counts_of_two_dispersions(seed, *UNEQUAL[name], ratio, 8000), PAIR)
        assert result.dispersion_ratio[0, 1] == pytest.approx(ratio, rel=0.1)
        assert result.dispersion_ratio[0, 0] == 1
        assert ((result.status[:, 0] & Status.HIGH_DISPERSION_GROUP > 0) == (result.dispersion_ratio[0, 1] > 1)).all()
        p_value.append(result.p_value[:, 0])
    p_value = np.concatenate(p_value)
    for cut, most in ((0.05, 1.1), (1e-3, 1.4), (1e-4, 1.9)):
        assert (p_value < cut).sum() <= stats.binom.ppf(0.999, p_value.size, most * cut)
    assert (p_value < 0.05).mean() > 0.04


def test_pairs_have_no_dispersion_ratio():
    """In pairs of single samples each residual belongs to both groups; in groups of one size neither is more dispersed."""
    for name in ("4 donors", "two replicates", "one donor without control"):
        group, block = DESIGNS[name]
        result = moderated_tests(counts_of_two_dispersions(0, group, block, 4, 500), PAIR)
        np.testing.assert_array_equal(result.dispersion_ratio, 1)
        assert not (result.status & Status.HIGH_DISPERSION_GROUP).any()


@pytest.mark.parametrize("name", UNEQUAL)
def test_statistics_of_one_group(name):
    """At the dispersions of both groups the statistic of either has mean 1 and the variance 2 / d, also where all its residuals are between blocks."""
    group, block = UNEQUAL[name]
    rng = np.random.default_rng(0)
    exposure, phi = rng.lognormal(0, 0.3, len(group)), 0.05
    m = 200 * exposure * rng.lognormal(0, 0.5, (8000, block.max() + 1))[:, block]
    shape = 1 / (phi * np.where(group == 1, 3, 1))
    counts = rng.poisson(m * rng.gamma(shape, 1 / shape, m.shape)).astype(float)
    design = matched_design(Pseudobulk(counts, exposure, group, block), 1)
    out = np.empty((8000, 3))
    for only in (0, 1, BOTH):
        group_statistics(counts, exposure[None], design, np.full(8000, phi), np.array([1.0, 3.0]), only, out)
        numerator, degrees, _ = out.T
        assert numerator.sum() / degrees.sum() == pytest.approx(1, abs=0.06)
        assert (numerator / degrees).var() * degrees.mean() / 2 == pytest.approx(1, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["4 donors", "8 donors", "3 v 12 in 3 batches", "4 v 16 in 2 batches"])
def test_one_outlying_count(name):
    """Genes with one count tenfold in the smaller group: of 1,600 at most 1 % have p < .001; the other genes keep their level."""
    n = {"4 donors": 4, "8 donors": 8}.get(name)
    group, block = (np.repeat([0, 1], n), np.tile(np.arange(n), 2)) if n else UNEQUAL[name]
    pseudobulk = counts_of_two_dispersions(5, group, block, 1, 16_000)
    outlying = np.arange(16_000) % 50 < 1 if n is None else np.arange(16_000) % 10 < 1
    of_second = np.flatnonzero(group == 1)
    sample = of_second[np.arange(16_000) % len(of_second)][outlying]
    pseudobulk.counts[np.flatnonzero(outlying), sample] *= 10
    p_value = moderated_tests(pseudobulk, PAIR).p_value[:, 0]
    assert (p_value[outlying] < 0.001).mean() <= 0.01
    assert 0.03 < (p_value[~outlying] < 0.05).mean() < 0.056


def test_where_no_replicate_can_be_left_out():
    """Two pairs: small p-values are flagged, others are not; three pairs: the rule is applied."""
    for donors in (2, 3):
        group, block = np.repeat([0, 1], donors), np.tile(np.arange(donors), 2)
        result = moderated_tests(simulate(8, group, block, n_genes=400, lowest=50, effect=2, phi0=0.02), PAIR)
        flagged = (result.status & Status.REPLICATE_NOT_LEFT_OUT) > 0
        expected = (result.p_value < 0.02) if donors == 2 else np.zeros_like(flagged)
        assert (result.p_value < 0.02).sum() > 10
        np.testing.assert_array_equal(flagged, expected)


def test_a_group_without_counts_leaves_the_dispersion_unknown():
    """Its samples are those whose residuals are free: the others' dispersion remains the prior's guess, as uncertain as among genes."""
    group, block = DESIGNS["4 donors"]
    counts = np.tile([0.0, 1, 0, 0, 500, 400, 450, 620], (2, 1))
    trend = Trend(np.ones(1), np.full(1, 0.05), 1.8, 1000)
    pseudobulk = Pseudobulk(counts, np.ones(8), group, block)
    design = matched_design(pseudobulk, 1)
    found = matched_tests(pseudobulk, design, trend, leave_out=False)
    prior_degrees = 1 + 2 / (1.8 * (0.05 * 246 / (1 + 0.05 * 246)) ** 2)
    assert found.p_value[0] > 2 * stats.t.sf(40, prior_degrees + design.residual)  # no r* of such counts is above 40
    assert 0.005 < found.dispersion[0] < 0.2


@pytest.mark.parametrize("name", DESIGNS)
def test_constants_are_those_of_the_design(name):
    group, block = DESIGNS[name]
    columns = np.column_stack([block[:, None] == np.unique(block), group]).astype(float).T
    constants, residual = block_constants(group, block)
    np.testing.assert_allclose(constants, design_constants(columns), rtol=1e-9)
    assert residual == len(group) - np.linalg.matrix_rank(columns)


def test_one_block_is_two_groups():
    """Without blocks to take out, effects are those of the plain test and p-values nearly: the dispersion statistic's variance is approximate."""
    group = np.repeat([0, 1], 4)
    pseudobulk = simulate(1, group, np.zeros(8, int), exposure_sd=0, lowest=20)
    blocked = moderated_tests(pseudobulk, PAIR, leave_out=False)
    plain = moderated_tests(Pseudobulk(pseudobulk.counts, pseudobulk.exposure, group), PAIR, leave_out=False)
    np.testing.assert_allclose(blocked.log_fc, plain.log_fc, atol=1e-9)
    apart = np.abs(np.log10(blocked.p_value / plain.p_value))
    assert (apart < 0.05 - 0.1 * np.log10(plain.p_value)).all()
    assert np.median(apart) < 0.02


def test_a_donor_of_one_group_informs_nothing_of_the_effect():
    """Whatever its counts are: the ratio at given dispersion is that of the others."""
    group, block = DESIGNS["one donor without control"]
    pseudobulk = simulate(2, group, block)
    pseudobulk.counts[:, 6] *= 3
    trend = Trend(np.ones(1), np.full(1, 1e-8), 0.01, 1000)
    whole = matched_tests(pseudobulk, matched_design(pseudobulk, 1), trend)
    three = Pseudobulk(np.ascontiguousarray(pseudobulk.counts[:, :6]), pseudobulk.exposure[:6], group[:6], block[:6])
    design = matched_design(three, 1)
    assert matched_design(pseudobulk, 1).informative.tolist() == [True, True, True, False]
    same = np.abs(matched_tests(three, design, trend).dispersion - whole.dispersion) < 1e-4
    assert same.sum() > 10
    np.testing.assert_allclose(matched_tests(three, design, trend).log_fc[same], whole.log_fc[same], atol=5e-3)
    result = moderated_tests(pseudobulk, PAIR)
    pseudobulk.counts[0, :6] = 0
    low = moderated_tests(pseudobulk, PAIR)
    assert np.isfinite(result.p_value[0, 0])
    assert low.status[0, 0] & Status.ALL_ZERO


def test_donors_left_out_one_by_one():
    """The rule's p-value is the largest of the tests on the data without one donor, trend given."""
    group, block = DESIGNS["4 donors"]
    pseudobulk = simulate(3, group, block, n_genes=400, effect=1.2)
    pseudobulk.counts[:60, 7] = np.round(pseudobulk.counts[:60, 7] * 40) + 60
    trend = Trend(
        np.ones(1), np.full(1, 0.02), 0.05, 400
    )  # few dispersions above it: outlying counts do not raise them
    ours = matched_tests(pseudobulk, matched_design(pseudobulk, 1), trend)
    assert 0 < ours.rests_on_one.sum() < 100
    p, sign = [], []
    for donor in range(4):
        use = block != donor
        counts = np.ascontiguousarray(pseudobulk.counts[:, use])
        part = Pseudobulk(counts, pseudobulk.exposure[use], group[use], np.unique(block[use], return_inverse=True)[1])
        at_mean = trend.at(pseudobulk.counts.mean(axis=1))
        found = [
            matched_tests(
                Pseudobulk(counts[[g]], part.exposure, part.group, part.block),
                matched_design(part, 1),
                Trend(np.ones(1), at_mean[[g]], trend.log_dispersion_var, 400),
                leave_out=False,
            )
            for g in range(120)
        ]
        p.append([one.p_value[0] for one in found])
        sign.append([np.sign(one.statistic[0]) for one in found])
    whole = matched_tests(pseudobulk, matched_design(pseudobulk, 1), trend, leave_out=False)
    worst = np.where(np.array(sign) == np.sign(whole.statistic[:120]), p, 1.0).max(axis=0)
    before = whole.p_value[:120]
    replaced = (before < 0.02) & (worst > np.maximum(np.sqrt(before), 0.2))
    np.testing.assert_array_equal(ours.rests_on_one[:120], replaced)
    expected = np.where(replaced, worst, before)
    np.testing.assert_allclose(ours.p_value[:120], expected, rtol=1e-2)  # the partner still counts in the gene's mean
    np.testing.assert_allclose(ours.p_value[:120][~replaced], expected[~replaced], rtol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_any_two_groups_in_any_blocks(seed):
    """Every gene has a finite result or says why; swapping the groups flips signs; the rest has the statistics of their opposite."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 12))
    group, block = rng.integers(0, 2, n), np.unique(rng.integers(0, 4, n), return_inverse=True)[1]
    group[:2] = [0, 1]
    scale = rng.choice([0.0, 0.5, 5.0, 1e3, 1e7], (80, 1))
    counts = np.floor(rng.gamma(1.0, scale + 1e-12, (80, n))) * rng.choice([0.0, 1.0], (80, n), p=[0.3, 0.7])
    one = Pseudobulk(counts, rng.lognormal(0, 1, n), group, block)
    if not applies(one):
        return
    result, swapped = moderated_tests(one, PAIR), moderated_tests(one, np.array([[1, 0]]))
    tested = (result.status & NOT_TESTED) == 0
    for values in (result.p_value, result.statistic, result.dispersion):
        np.testing.assert_array_equal(np.isfinite(values), tested)
    assert np.isfinite(result.se[tested]).all()
    np.testing.assert_array_equal(result.status, swapped.status)
    np.testing.assert_allclose(swapped.p_value, result.p_value, rtol=1e-4)
    np.testing.assert_allclose(swapped.log_fc, -result.log_fc, atol=1e-6)


def test_shifted_null_moves_the_exposure():
    """At a null of log 2 the statistic is that of data whose treated samples are twice as deep."""
    group, block = DESIGNS["4 donors"]
    pseudobulk = simulate(5, group, block, n_genes=50, exposure_sd=0, lowest=20)
    design = matched_design(pseudobulk, 1)
    trend = Trend(np.ones(1), np.full(1, 1e-9), 0.01, 1000)  # no moderation: dispersions do not depend on the exposures
    deeper = Pseudobulk(pseudobulk.counts, pseudobulk.exposure * 2.0**group, group, block)
    shifted = matched_shifted(pseudobulk, design, trend, np.ones(2), np.log(2))
    moved = matched_shifted(deeper, design, trend, np.ones(2), 0.0)
    np.testing.assert_allclose(shifted, moved, rtol=0.05, atol=0.05)
    whole = matched_tests(pseudobulk, design, trend, leave_out=False)
    np.testing.assert_array_equal(matched_shifted(pseudobulk, design, trend, np.ones(2), 0.0)[:, 0], whole.statistic)


def test_genes_with_exposures_of_their_own():
    """Rows that are all alike are the size factors; a gene's own row is that of a data set with these size factors."""
    group, block = DESIGNS["two replicates"]
    pseudobulk = simulate(6, group, block, n_genes=120)
    rows = np.tile(pseudobulk.exposure, (120, 1))
    alike = Pseudobulk(pseudobulk.counts, pseudobulk.exposure, group, block, rows)
    np.testing.assert_array_equal(moderated_tests(alike, PAIR).p_value, moderated_tests(pseudobulk, PAIR).p_value)
    other = pseudobulk.exposure * np.linspace(0.5, 2, len(group))
    rows[7] = other
    trend = Trend(np.ones(1), np.full(1, 0.2), 0.4, 100)
    design = matched_design(pseudobulk, 1)
    own = matched_tests(Pseudobulk(pseudobulk.counts, pseudobulk.exposure, group, block, rows), design, trend)
    whole = matched_tests(Pseudobulk(pseudobulk.counts, other, group, block), design, trend)
    assert own.p_value[7] == whole.p_value[7]
    assert own.p_value[8] != whole.p_value[8]
