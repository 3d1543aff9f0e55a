import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.discrete.discrete_model import NegativeBinomial
from statsmodels.genmod.families import NegativeBinomial as Family
from statsmodels.genmod.generalized_linear_model import GLM

from nbcompare._nb.data import Fit, Group
from nbcompare._nb.glm.likelihood_ratio import likelihood_ratio_test
from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.likelihood.wald import standard_error, wald_test
from nbcompare._nb.status import NOT_TESTED

few = settings(deadline=None, max_examples=25)
FITS = {
    "moments": fit_moments,
    "plain moments": lambda a, b: fit_moments(a, b, bias_corrected=False),
    "likelihood": fit_likelihood,
    "cox-reid": lambda a, b: fit_likelihood(a, b, cox_reid=True),
}
TESTS = (wald_test, likelihood_ratio_test)


def simulate(seed, sizes, mean=30.0, n_genes=30, exposure_sd=0.4, effect=0.0):
    rng = np.random.default_rng(seed)
    groups = []
    for n, shift in zip(sizes, (0.0, effect), strict=True):
        exposure = rng.lognormal(0, exposure_sd, n)
        m = mean * np.exp(shift) * exposure
        groups.append(Group(rng.negative_binomial(5, 5 / (5 + m), (n_genes, n)).astype(float), exposure))
    return tuple(groups)


def both(groups, i):
    """Counts, condition and exposure of one gene, all samples."""
    y = np.concatenate([g.counts[i] for g in groups])
    x = np.repeat([0.0, 1.0], [len(g.exposure) for g in groups])
    return y, np.column_stack([np.ones(len(y)), x]), np.concatenate([g.exposure for g in groups])


def test_moment_standard_error_is_the_delta_method():
    """Variance of log(T/L), T a sum of NB counts at the fitted means, by the definition."""
    groups = simulate(0, (3, 5))
    fit = fit_moments(*groups)
    variance = 0.0
    for g in groups:
        total = g.counts.sum(axis=1)
        m = np.outer(total / g.exposure.sum(), g.exposure)
        variance = variance + (m + fit.dispersion[:, None] * m**2).sum(axis=1) / total**2
    test = wald_test(fit, *groups)
    np.testing.assert_allclose(test.se, np.sqrt(variance), rtol=1e-12)
    np.testing.assert_allclose(test.statistic, fit.log_fc / np.sqrt(variance), rtol=1e-12)
    np.testing.assert_allclose(test.p_value, 2 * stats.norm.sf(np.abs(test.statistic)), rtol=1e-10)


def test_moment_standard_error_is_that_of_repeated_experiments():
    """At the true parameters: within 3 % of the standard deviation of the effect over 20,000 experiments."""
    groups = simulate(1, (4, 6), n_genes=20_000, exposure_sd=0.6)
    truth = Fit(np.full(20_000, np.log(30.0)), np.zeros(20_000), np.full(20_000, 0.2), np.zeros(20_000, np.uint32))
    assert standard_error(truth, *groups)[0] == pytest.approx(fit_moments(*groups).log_fc.std(), rel=0.03)


def test_likelihood_standard_error_matches_the_glm_at_the_fitted_dispersion():
    groups = simulate(2, (4, 4))
    fit = fit_likelihood(*groups)
    se = standard_error(fit, *groups)
    for i in np.flatnonzero(fit.dispersion > 1e-4):
        y, x, l = both(groups, i)
        theirs = GLM(y, x, family=Family(alpha=fit.dispersion[i]), exposure=l).fit(tol=1e-12)
        assert fit.log_fc[i] == pytest.approx(theirs.params[1], abs=1e-6)
        assert se[i] == pytest.approx(theirs.bse[1], rel=1e-5)


def test_likelihood_ratio_matches_statsmodels():
    groups = simulate(3, (5, 5), effect=0.5)
    fit = fit_likelihood(*groups)
    test = likelihood_ratio_test(fit, *groups)
    for i in np.flatnonzero(fit.dispersion > 0.01)[:15]:
        y, x, l = both(groups, i)
        full = NegativeBinomial(y, x, offset=np.log(l)).fit(disp=0, maxiter=300)
        null = NegativeBinomial(y, x[:, :1], offset=np.log(l)).fit(disp=0, maxiter=300)
        ratio = 2 * (full.llf - null.llf)
        assert test.statistic[i] ** 2 == pytest.approx(ratio, abs=1e-4)
        assert test.p_value[i] == pytest.approx(stats.chi2.sf(ratio, 1), rel=1e-2)
    assert (np.sign(test.statistic) == np.sign(fit.log_fc)).all()


def adjusted_best(counts, groups, exposure):
    """The highest profile log likelihood of one gene less half the log information on a common rate, over dispersions on a grid, then refined."""

    def at(log_phi):
        size = np.exp(-log_phi)
        value, information = 0.0, 0.0
        for k in np.unique(groups):
            y, l = counts[groups == k], exposure[groups == k]

            def loss(log_rate, y=y, l=l):
                return -stats.nbinom.logpmf(y, size, size / (size + np.exp(log_rate) * l)).sum()

            best = optimize.minimize_scalar(
                loss, bracket=(np.log(y.sum() / l.sum()), np.log(y.sum() / l.sum()) + 0.1), tol=1e-12
            )
            m = np.exp(best.x) * l
            value -= best.fun
            information += (m / (1 + m / size)).sum()
        return value - 0.5 * np.log(information)

    grid = np.linspace(-7, 2, 40)
    top = int(np.argmax([at(point) for point in grid]))
    found = optimize.minimize_scalar(
        lambda s: -at(s),
        bounds=(grid[max(top - 1, 0)], grid[min(top + 1, 39)]),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return at(found.x)


def test_likelihood_ratio_with_cox_reid_fits_the_adjusted_dispersion_twice():
    """By brute force: with two rates and with one, each at the maximum of its profile adjusted for a common rate."""
    groups = simulate(11, (3, 4), effect=0.5)
    fit = fit_likelihood(*groups, cox_reid=True)
    test = likelihood_ratio_test(fit, *groups)
    genes = np.flatnonzero(fit.dispersion > 0.02)[:8]
    assert len(genes) == 8
    for i in genes:
        y, x, l = both(groups, i)
        gain = adjusted_best(y, x[:, 1], l) - adjusted_best(y, np.zeros(len(y)), l)
        assert test.statistic[i] ** 2 == pytest.approx(2 * max(gain, 0), abs=2e-4)


@pytest.mark.parametrize("n", [3, 10])
def test_cox_reid_does_not_make_the_likelihood_ratio_more_liberal(n):
    """Nulls, the same counts with and without adjustment; held at the dispersion of two rates, 3 v 3 had 17 times the nominal .001."""
    rng = np.random.default_rng(n)
    mean = np.exp(rng.uniform(0, np.log(1000), (12_000, 1)))
    phi = 0.07 * 9 / rng.chisquare(9, (12_000, 1))
    y = rng.poisson(mean * rng.gamma(1 / phi, phi, (12_000, 2 * n))).astype(float)
    y = y[y.sum(axis=1) >= 10]
    groups = Group(np.ascontiguousarray(y[:, :n]), np.ones(n)), Group(np.ascontiguousarray(y[:, n:]), np.ones(n))
    plain, adjusted = (
        likelihood_ratio_test(fit_likelihood(*groups, cox_reid=flag), *groups).p_value for flag in (False, True)
    )
    for level in (0.05, 0.01, 0.001):
        assert (adjusted <= level).mean() <= (plain <= level).mean()
    assert (adjusted <= 0.05).mean() > 0.05  # still liberal: chi-squared is right for many replicates only


def test_likelihood_ratio_at_a_fixed_dispersion_matches_the_glm():
    groups = simulate(4, (4, 6), effect=-0.6)
    fit = fit_moments(*groups)
    test = likelihood_ratio_test(fit, *groups)
    for i in np.flatnonzero(fit.dispersion > 1e-4)[:15]:
        y, x, l = both(groups, i)
        family = Family(alpha=fit.dispersion[i])
        full, null = (GLM(y, design, family=family, exposure=l).fit(tol=1e-12) for design in (x, x[:, :1]))
        assert test.statistic[i] ** 2 == pytest.approx(null.deviance - full.deviance, abs=1e-6)


@pytest.mark.parametrize("run", TESTS)
@pytest.mark.parametrize("name", FITS)
def test_every_gene_has_a_p_value_or_says_why(name, run):
    rng = np.random.default_rng(5)
    scale = rng.choice([0.0, 0.3, 1e4], (400, 1))
    groups = [
        Group(rng.poisson(scale, (400, n)) * rng.choice([0.0, 1.0], (400, 1)), rng.lognormal(0, 1, n)) for n in (3, 4)
    ]
    fit = FITS[name](*groups)
    test = run(fit, *groups)
    tested = (fit.status & NOT_TESTED) == 0
    assert tested.any()
    assert not tested.all()
    for values in (test.se, test.statistic, test.p_value):
        assert (np.isfinite(values) == tested).all()
    assert ((test.p_value[tested] >= 0) & (test.p_value[tested] <= 1)).all()
    alone = [Group(g.counts[:, :1], g.exposure[:1]) for g in groups]
    assert np.isnan(run(FITS[name](*alone), *alone).p_value).all()


def test_an_empty_group_counts_half_a_count():
    groups = (Group(np.array([[20.0, 30]]), np.ones(2)), Group(np.zeros((1, 2)), np.ones(2)))
    fit = fit_moments(*groups)
    phi = fit.dispersion[0]
    assert wald_test(fit, *groups).se[0] ** 2 == pytest.approx(1 / 50 + phi / 2 + 1 / 0.5 + phi / 2)


@few
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.sampled_from([0.5, 20.0, 3000.0]),
    st.sampled_from(sorted(FITS)),
    st.sampled_from(TESTS),
)
def test_swapping_scaling_and_permuting(seed, sizes, mean, name, run):
    groups = simulate(seed, sizes, mean)
    test = run(FITS[name](*groups), *groups)
    swapped = groups[::-1]
    scaled = tuple(Group(g.counts, g.exposure * 37.5) for g in groups)
    turned = tuple(Group(g.counts[::-1, ::-1], g.exposure[::-1]) for g in groups)
    for other, sign, order in ((swapped, -1, 1), (scaled, 1, 1), (turned, 1, -1)):
        again = run(FITS[name](*other), *other)
        np.testing.assert_allclose(again.statistic[::order], sign * test.statistic, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(again.p_value[::order], test.p_value, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(again.se[::order], test.se, rtol=1e-4)


@few
@given(st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), max_size=30))
def test_adjusted_p_values_match_the_definition(values):
    p = np.array(values, float)
    tested = p[~np.isnan(p)]
    expected = np.full(len(p), np.nan)
    for i, value in enumerate(p):
        if not np.isnan(value):
            above = tested[tested >= value]
            expected[i] = min(1, min(v * len(tested) / (tested <= v).sum() for v in above))
    np.testing.assert_allclose(adjust_p_values(p), expected, rtol=1e-12)


def test_comparisons_are_adjusted_apart():
    p = np.random.default_rng(0).random((40, 3))
    p[3, 1] = p[:, 2] = np.nan
    adjusted = adjust_p_values(p)
    assert adjusted.shape == p.shape
    for column in range(3):
        np.testing.assert_array_equal(adjusted[:, column], adjust_p_values(p[:, column]))
    assert adjust_p_values(np.empty((40, 0))).shape == (40, 0)
