import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import gammaln
from statsmodels.discrete.discrete_model import NegativeBinomial

from nbcompare._nb.data import Group
from nbcompare._nb.likelihood.mle import fit_likelihood, fit_rates, log_likelihood, maximise
from nbcompare._nb.likelihood.profile import slopes
from nbcompare._nb.log_pmf import log_density, mean_slopes, rising_factorial_slopes
from nbcompare._nb.numerics.special import digamma_minus_log, stirling_remainder
from nbcompare._nb.status import Status

few = settings(deadline=None, max_examples=25)
MAX_COUNT = 3000


def table_log_likelihood(counts, mean, phi):
    """Row sums of the log density; the gamma functions are sums of logarithms over all smaller counts, exact at any phi."""
    log_rising = np.concatenate([[0.0], np.cumsum(np.log1p(phi * np.arange(MAX_COUNT + 1)))])
    y, m = counts, np.maximum(mean, 1e-300)
    tail = m if phi == 0 else (y + 1 / phi) * np.log1p(phi * m)
    return (log_rising[y.astype(int)] + y * np.log(m) - tail - gammaln(y + 1)).sum(axis=1)


def best_rate(group, phi):
    """Rates at a given dispersion by bisection of the score, which falls in the rate."""
    ratio = group.counts / group.exposure
    low, high = np.log(np.maximum(ratio.min(axis=1), 1e-12)), np.log(np.maximum(ratio.max(axis=1), 1e-12))
    for _ in range(60):
        middle = (low + high) / 2
        m = np.exp(middle)[:, None] * group.exposure
        rising = ((group.counts - m) / (1 + phi * m)).sum(axis=1) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.where(group.counts.sum(axis=1) > 0, np.exp((low + high) / 2), 0)


def profile(groups, phi, *, cox_reid=False):
    value = 0.0
    for group in groups:
        mean = best_rate(group, phi)[:, None] * group.exposure
        value = value + table_log_likelihood(group.counts, mean, phi)
        if cox_reid:
            information = (mean / (1 + phi * mean)).sum(axis=1)
            value = value - 0.5 * np.log(np.where(information > 0, information, 1))
    return value


def simulate(rng, sizes, *, n_genes, mean, exposure_sd, dispersion):
    groups = []
    base = np.exp(rng.uniform(np.log(mean[0]), np.log(mean[1]), n_genes))
    for n in sizes:
        exposure = rng.lognormal(0, exposure_sd, n)
        phi = np.exp(rng.uniform(np.log(dispersion[0]), np.log(dispersion[1]), n_genes))[:, None]
        m = (base * rng.lognormal(0, 0.7, n_genes))[:, None] * exposure
        y = rng.poisson(m * rng.gamma(1 / phi, phi, m.shape))
        groups.append(Group(np.minimum(y, MAX_COUNT).astype(float), exposure))
    return tuple(groups)


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return simulate(
        rng,
        draw(st.tuples(st.integers(1, 5), st.integers(2, 6))),
        n_genes=20,
        mean=draw(st.sampled_from([(0.1, 3.0), (1.0, 300.0), (100.0, 1000.0)])),
        exposure_sd=draw(st.sampled_from([0.0, 0.3, 1.0, 3.0])),
        dispersion=draw(st.sampled_from([(1e-9, 1e-8), (0.01, 1.0), (1e-6, 3.0)])),
    )


def losses_against_brute_force(groups, cox_reid):
    """Log likelihood lost against the best of 60 dispersions a gene, refined by golden section in the best interval."""
    grid = np.concatenate([[0.0], np.geomspace(1e-7, 1e4, 60)])
    values = np.stack([profile(groups, phi, cox_reid=cox_reid) for phi in grid])
    rates, phi, _ = maximise(*groups, cox_reid=cox_reid)
    df_ratio = []
    for i in range(values.shape[1]):
        gene = [Group(g.counts[i : i + 1], g.exposure) for g in groups]
        top = int(np.argmax(values[:, i]))
        found = values[top, i]
        if 0 < top < len(grid) - 1:
            bracket = (np.log(max(grid[top - 1], 1e-9)), np.log(grid[top + 1]))
            refined = optimize.minimize_scalar(
                lambda s, gene=gene: -profile(gene, np.exp(s), cox_reid=cox_reid)[0],
                bounds=bracket,
                method="bounded",
                options={"xatol": 1e-6},
            )
            found = max(found, -refined.fun)
        ours = 0.0
        for group, rate in zip(gene, rates[:, i], strict=True):
            mean = rate * group.exposure
            ours += table_log_likelihood(group.counts, mean[None], phi[i])[0]
            if cox_reid and rate > 0:
                ours -= 0.5 * np.log((mean / (1 + phi[i] * mean)).sum())
        df_ratio.append(found - ours)
    return np.array(df_ratio)


@settings(deadline=None, max_examples=15)
@given(tables(), st.booleans())
def test_no_dispersion_is_more_likely(groups, cox_reid):
    assert losses_against_brute_force(groups, cox_reid).max() < 1e-6


@pytest.mark.parametrize("cox_reid", [False, True])
@pytest.mark.parametrize(
    ("reference", "treated"),
    [
        ([0.0, 0, 0], [0.0, 0, 165, 0, 0, 0, 0, 0]),
        ([1.0, 0], [1.0, 0]),
        ([5.0, 5, 5], [5.0, 5, 5]),
        ([2900.0, 2890, 2895], [1.0, 30, 7]),
        ([1.0], [3.0, 900]),
        ([0.0, 0, 0, 0], [1.0, 0, 0, 0]),
    ],
)
def test_awkward_genes_reach_the_maximum(reference, treated, cox_reid):
    groups = [Group(np.array([y]), np.ones(len(y))) for y in (reference, treated)]
    assert losses_against_brute_force(groups, cox_reid).max() < 1e-6


def test_higher_of_two_maxima_is_found():
    """A tight group at high counts and a scattered one at low counts: maxima near .0003 and .3."""
    rng = np.random.default_rng(0)
    tight = rng.poisson(2000 * rng.gamma(1e4, 1e-4, (200, 3))).astype(float)
    loose = rng.poisson(20 * rng.gamma(2, 0.5, (200, 3))).astype(float)
    groups = (Group(tight, np.ones(3)), Group(loose, np.ones(3)))
    assert losses_against_brute_force(groups, cox_reid=False).max() < 1e-6


def test_likelihood_is_never_below_statsmodels():
    rng = np.random.default_rng(5)
    groups = simulate(rng, (5, 5), n_genes=40, mean=(2.0, 500.0), exposure_sd=0.4, dispersion=(0.01, 2.0))
    rates, phi, value = maximise(*groups)
    x = np.repeat([0.0, 1.0], 5)
    offset = np.log(np.concatenate([g.exposure for g in groups]))
    agree = 0
    for i in range(40):
        y = np.concatenate([g.counts[i] for g in groups])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = NegativeBinomial(y, np.column_stack([np.ones(10), x]), offset=offset).fit(disp=0, maxiter=300)
        mu, beta, alpha = theirs.params
        their_value = table_log_likelihood(y[None], np.exp(mu + beta * x + offset)[None], max(alpha, 0.0))[0]
        assert value[i] > their_value - 1e-6
        if theirs.mle_retvals["converged"] and alpha > 1e-3:
            agree += 1
            np.testing.assert_allclose(np.log(rates[:, i]), [mu, mu + beta], atol=2e-4)
            assert phi[i] == pytest.approx(alpha, rel=2e-3)
    assert agree > 20


@few
@given(st.integers(0, MAX_COUNT), st.floats(1e-6, 1e5), st.one_of(st.just(0.0), st.floats(1e-12, 1e4)))
def test_log_density_matches_scipy_and_the_table(y, m, phi):
    rest = stirling_remainder(1 / phi) if phi > 0 else 0.0
    value = log_density(float(y), m, phi, rest)
    tabled = table_log_likelihood(np.array([[float(y)]]), np.array([[m]]), phi)[0]
    assert value == pytest.approx(tabled, rel=1e-9, abs=1e-8)
    if phi > 1e-4:
        assert value == pytest.approx(stats.nbinom.logpmf(y, 1 / phi, 1 / (1 + phi * m)), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("phi", [0.0, 1e-10, 1e-8, 1e-5, 0.3])
def test_huge_counts_keep_nine_decimals(phi):
    """At counts of 1e7 float64 log-gammas are off by 1e-7 and more; the owner here sums logarithms in extended precision."""
    y, m = 10_000_000, 10_003_000.0
    wide = np.longdouble
    j = np.arange(1, y, dtype=wide)
    exact = np.log1p(wide(phi) * j).sum() + y * np.log(wide(m)) - np.log(j).sum() - np.log(wide(y))
    exact -= wide(m) if phi == 0 else (y + 1 / wide(phi)) * np.log1p(wide(phi) * wide(m))
    rest = stirling_remainder(1 / phi) if phi > 0 else 0.0
    assert log_density(float(y), m, phi, rest) == pytest.approx(float(exact), abs=2e-8)


@few
@given(st.integers(0, 2000), st.floats(0.01, 1e4), st.floats(1e-7, 50))
def test_slopes_of_the_density_match_numeric_derivatives(y, m, phi):
    log_rising = rising_factorial_slopes(float(y), phi, *digamma_minus_log(1 / phi))
    mean = mean_slopes(float(y), m, phi)
    j = np.arange(1, y)
    exact = (j / (1 + phi * j)).sum(), -((j / (1 + phi * j)) ** 2).sum()
    np.testing.assert_allclose(log_rising[0], exact[0], rtol=1e-9)
    np.testing.assert_allclose(log_rising[1], exact[1], rtol=1e-4)

    wide, step = np.longdouble, np.longdouble(phi) * 1e-4

    def value(p):
        return -(y + 1 / p) * np.log1p(p * wide(m))

    first = (value(phi + step) - value(phi - step)) / (2 * step)
    assert mean[0] == pytest.approx(float(first), rel=1e-5, abs=1e-7 * (y + m) ** 2)


@few
@given(tables(), st.floats(1e-4, 5), st.booleans())
def test_profile_score_matches_numeric_derivative(groups, phi, cox_reid):
    counts = np.concatenate([g.counts for g in groups], axis=1)
    exposure = np.concatenate([g.exposure for g in groups])
    starts = np.array([0, len(groups[0].exposure), len(exposure)])
    h = 1e-4
    numeric = (
        profile(groups, phi * (1 + h), cox_reid=cox_reid) - profile(groups, phi * (1 - h), cox_reid=cox_reid)
    ) / (2 * h)
    for i, y in enumerate(counts):
        rates = np.array([g.counts[i].sum() / g.exposure.sum() for g in groups])
        score, _ = slopes(y, exposure, starts, phi, cox_reid, rates)
        assert score * phi == pytest.approx(numeric[i], rel=1e-4, abs=1e-4)


def test_rates_and_likelihood_at_a_fixed_dispersion():
    rng = np.random.default_rng(9)
    (group, _) = simulate(rng, (4, 2), n_genes=60, mean=(0.3, 200.0), exposure_sd=1.0, dispersion=(0.05, 1.0))
    phi = np.where(np.arange(60) % 3 == 0, 0.0, 0.2)
    log_rate = fit_rates(group, phi)
    for p in (0.0, 0.2):
        rows = phi == p
        part = Group(group.counts[rows], group.exposure)
        rate = best_rate(part, p)
        np.testing.assert_allclose(np.exp(log_rate[rows]), rate, rtol=1e-8, atol=1e-12)
        expected = table_log_likelihood(part.counts, rate[:, None] * part.exposure, p)
        np.testing.assert_allclose(log_likelihood(part, log_rate[rows], phi[rows]), expected, rtol=1e-10, atol=1e-9)
    nothing = Group(np.zeros((2, 3)), np.ones(3))
    assert fit_rates(nothing, np.array([0.1, 0.0])).tolist() == [-np.inf, -np.inf]
    assert log_likelihood(nothing, np.full(2, -np.inf), np.array([0.1, 0.0])).tolist() == [0, 0]


@pytest.mark.parametrize("cox_reid", [False, True])
def test_every_gene_is_finite_or_says_why(cox_reid):
    rng = np.random.default_rng(4)
    counts = [
        rng.poisson(rng.lognormal(0, 3, (3000, 1)), (3000, n)).astype(float) * rng.choice([0.0, 1.0, 1e5], (3000, 1))
        for n in (3, 4)
    ]
    groups = [Group(y, rng.lognormal(0, 3, y.shape[1])) for y in counts]
    fit = fit_likelihood(*groups, cox_reid=cox_reid)
    totals = np.stack([g.counts.sum(axis=1) for g in groups])
    nothing = (totals == 0).all(axis=0)
    assert ((fit.status & Status.ALL_ZERO > 0) == nothing).all()
    assert ((fit.status & Status.ZERO_GROUP > 0) == ((totals == 0).sum(axis=0) == 1)).all()
    for values in (fit.log_mean, fit.log_fc, fit.dispersion):
        assert (np.isfinite(values) == ~nothing).all()
    assert np.isfinite(fit.log_likelihood).all()
    assert (fit.dispersion[~nothing] >= 0).all()

    single = [Group(g.counts[:, :1], g.exposure[:1]) for g in groups]
    alone = fit_likelihood(*single, cox_reid=cox_reid)
    assert (alone.status & Status.NO_REPLICATES).all()
    assert np.isnan(alone.dispersion).all()
    assert np.isfinite(alone.log_fc[single[0].counts[:, 0] + single[1].counts[:, 0] > 0]).all()


def test_poisson_data_have_no_dispersion_in_half_of_the_genes():
    rng = np.random.default_rng(3)
    groups = [Group(rng.poisson(300, (2000, 20)).astype(float), np.ones(20)) for _ in "ab"]
    at_boundary = (fit_likelihood(*groups).dispersion == 0).mean()
    assert 0.5 < at_boundary < 0.75


def test_cox_reid_takes_most_of_the_bias_off():
    """3 v 3, phi = .3: the median over genes of the plain estimate is a third low, of the adjusted one 20 % at most."""
    rng = np.random.default_rng(6)
    groups = [Group(rng.negative_binomial(1 / 0.3, 1 / 61, (4000, 3)).astype(float), np.ones(3)) for _ in "ab"]
    plain, adjusted = (np.mean(fit_likelihood(*groups, cox_reid=flag).dispersion) for flag in (False, True))
    assert plain < 0.23
    assert adjusted == pytest.approx(0.3, rel=0.12)


@few
@given(tables(), st.booleans(), st.floats(1e-5, 1e5), st.integers(0, 2**32 - 1))
def test_swapping_scaling_and_permuting(groups, cox_reid, scale, seed):
    fit = fit_likelihood(*groups, cox_reid=cox_reid)
    swapped = fit_likelihood(*groups[::-1], cox_reid=cox_reid)
    scaled = fit_likelihood(*(Group(g.counts, g.exposure * scale) for g in groups), cox_reid=cox_reid)
    genes = np.random.default_rng(seed).permutation(20)
    turned = fit_likelihood(*(Group(g.counts[genes, ::-1], g.exposure[::-1]) for g in groups), cox_reid=cox_reid)
    np.testing.assert_allclose(swapped.log_fc, -fit.log_fc, atol=1e-4)
    np.testing.assert_allclose(scaled.log_fc, fit.log_fc, atol=1e-4)
    np.testing.assert_allclose(turned.log_fc, fit.log_fc[genes], atol=1e-4)
    np.testing.assert_allclose(scaled.log_mean, fit.log_mean - np.log(scale), atol=1e-4)
    np.testing.assert_array_equal(turned.status, fit.status[genes])
    if not cox_reid:
        for other in (swapped.log_likelihood, scaled.log_likelihood, turned.log_likelihood[np.argsort(genes)]):
            np.testing.assert_allclose(other, fit.log_likelihood, rtol=1e-9, atol=1e-7)
