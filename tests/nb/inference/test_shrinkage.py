"""Shrinkage against numerical integration of the posterior and other optimisers of the prior, and what it must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm

from nbcompare._nb.inference.shrinkage import fit_weights, implied_error, prior_grid, s_values, shrink


def simulate(seed, n_genes=3000, share=0.2, width=1.0):
    """Effects, a share of them not zero, with errors of different size; p-values of the normal test."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, width, n_genes) * (rng.random(n_genes) < share)
    se = rng.gamma(4, 0.1, n_genes) + 0.05
    effect = truth + rng.normal(0, se)
    z = effect / se
    return truth, effect, se, 2 * norm.sf(np.abs(z)), z


def test_posterior_is_the_integral_over_the_fitted_prior():
    """Mean, standard deviation and sign of single genes by quadrature of prior times likelihood, to 1e-6."""
    _, effect, se, p, z = simulate(0)
    found = shrink(effect, se, p, z)
    s = implied_error(effect, se, p, z)
    sd = np.sqrt(found.variance[1:])
    nodes, rule = np.polynomial.legendre.leggauss(20)
    for i in np.r_[0:3, np.argsort(p)[:2], np.argsort(-se)[:2]]:

        def moment(power, low, high, i=i):
            cuts = np.unique(np.clip(np.r_[low, high, np.outer([-6, -3, -1, 1, 3, 6], sd).ravel()], low, high))
            half = np.diff(cuts)[:, None] / 2
            x = cuts[:-1, None] + half * (nodes + 1)
            prior = (found.weight[1:] * norm.pdf(x[..., None], 0, sd)).sum(axis=-1)
            return (half * rule * x**power * prior * norm.pdf(effect[i], x, s[i])).sum()

        reach = np.abs(effect[i]) + 12 * s[i]
        null = found.weight[0] * norm.pdf(effect[i], 0, s[i])
        below, above = moment(0, -reach, 0), moment(0, 0, reach)
        total = null + below + above
        mean = moment(1, -reach, reach) / total
        assert found.mean[i] == pytest.approx(mean, rel=1e-6, abs=1e-9)
        assert found.sd[i] == pytest.approx(np.sqrt(moment(2, -reach, reach) / total - mean**2), rel=1e-6)
        assert found.lfsr[i] == pytest.approx((null + min(below, above)) / total, rel=1e-6)


def objective(weight, density):
    """Penalised log likelihood, nine genes without effect added; density (n_components, n_genes)."""
    return np.log(weight @ density).sum() + 9 * np.log(weight[0])


@pytest.fixture(
    params=[(1, 1500, 0.2, 1.0), (2, 1500, 0.0, 1.0), (3, 1500, 1.0, 0.3), (4, 50, 0.5, 2.0), (5, 1500, 0.03, 3.0)]
)
def mixture(request):
    """Densities of genes under each component, and the variances."""
    _, effect, se, p, z = simulate(*request.param)
    if request.param[0] == 5:  # a few effects that only the widest components explain, hundreds of errors wide
        effect[:3] = [-300.0, 40.0, 1000.0]
        z = effect / se
        p = 2 * norm.sf(np.abs(z))
    s = implied_error(effect, se, p, z)
    variance = prior_grid(effect, s)
    log_density = norm.logpdf(effect, 0, np.sqrt(s**2 + variance[:, None]))
    return shrink(effect, se, p, z), variance, np.exp(log_density - log_density.max(axis=0))


def test_weights_are_those_of_a_long_em(mixture):
    """The maximum, which a plain EM reaches after thousands of steps; the null share was .1 lower where it stopped early."""
    found, variance, density = mixture
    np.testing.assert_allclose(found.variance, variance)
    weight = np.full(len(variance), 1 / len(variance))
    for _ in range(20_000):
        new = weight * (density / (weight @ density)).sum(axis=1)
        new[0] += 9
        new /= density.shape[1] + 9
        done = np.abs(new - weight).max() < 1e-10
        weight = new
        if done:
            break
    assert objective(found.weight, density) - objective(weight, density) == pytest.approx(0, abs=1e-6)
    assert found.weight[0] == pytest.approx(weight[0], abs=1e-4)


def test_weights_are_those_of_another_optimiser(mixture):
    found, variance, density = mixture
    scale = density.shape[1]
    start = np.full(len(variance), 1 / len(variance))

    def gradient(w):
        slope = (density / (w @ density)).sum(axis=1)
        slope[0] += 9 / w[0]
        return -slope / scale

    other = minimize(
        lambda w: -objective(w, density) / scale,
        start,
        jac=gradient,
        method="SLSQP",
        bounds=[(1e-9, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    assert objective(found.weight, density) > objective(other.x, density) - 1e-6
    assert objective(found.weight, density) == pytest.approx(objective(other.x, density), rel=1e-6)
    assert found.weight[0] == pytest.approx(other.x[0], abs=0.002)


def test_no_component_can_be_raised_from_any_start(mixture):
    """The gradient is 1 where there is weight and lower elsewhere, whatever the weights began with."""
    found, variance, density = mixture
    for seed in range(3):
        weight = fit_weights(density, np.random.default_rng(seed).dirichlet(np.ones(len(variance))))
        np.testing.assert_allclose(weight, found.weight, atol=1e-6)
        slope = (density / (weight @ density)).sum(axis=1)
        slope[0] += 9 / weight[0]
        slope /= density.shape[1] + 9
        assert slope.max() < 1 + 1e-6
        np.testing.assert_allclose(slope[weight > 1e-6], 1, atol=1e-6)


def test_standard_errors_carry_the_p_value():
    """Effect over error is the deviate of p; close to zero the model's error, and far from it within .5 to 3 times that."""
    effect = np.array([2.0, -2.0, 0.01, 5.0, 0.5, 5.0, 3.0])
    se = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, np.nan])
    p = np.array([2 * norm.sf(3), 2 * norm.sf(5), 0.95, 2 * norm.sf(2.5), 2 * norm.sf(1.25), 1.0, 2 * norm.sf(3)])
    expected = [2 / 3, 0.4, 0.5, 1.5, 0.4, 5 / 0.3, 1.0]
    np.testing.assert_allclose(implied_error(effect, se, p, np.zeros(7)), expected, rtol=1e-9)
    beyond = implied_error(np.array([40.0]), np.array([1.0]), np.zeros(1), np.array([50.0]))
    assert beyond[0] == pytest.approx(0.8)


def test_an_effect_that_one_replicate_makes_is_not_called():
    """A large effect whose reported p-value is 1 (a sign change without one replicate) stays uncertain."""
    _, effect, se, p, z = simulate(2)
    effect[0], se[0], p[0], z[0] = 5.0, 0.3, 1.0, 0.0
    assert shrink(effect, se, p, z).lfsr[0] > 0.2


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.01, 100))
def test_invariances(seed, n_genes, scale):
    """Signs flip with the signs, units scale with the units, untested genes change nothing, and estimates only shrink."""
    _, effect, se, p, z = simulate(seed, n_genes)
    found = shrink(effect, se, p, z)
    flipped = shrink(-effect * scale, se * scale, p, -z)
    np.testing.assert_allclose(flipped.mean, -scale * found.mean, rtol=1e-6, atol=1e-9 * scale)
    np.testing.assert_allclose(flipped.sd, scale * found.sd, rtol=1e-6)
    np.testing.assert_allclose(flipped.lfsr, found.lfsr, rtol=1e-6)
    more = [np.append(values, np.nan) for values in (effect, se, p, z)]
    wider = shrink(*more)
    assert np.isnan([wider.mean[-1], wider.sd[-1], wider.lfsr[-1], wider.s_value[-1]]).all()
    np.testing.assert_array_equal(wider.mean[:-1], found.mean)
    assert (np.abs(found.mean) <= np.abs(effect) + 1e-12).all()
    assert (found.mean * effect >= 0).all()
    assert ((found.lfsr > 0) & (found.lfsr <= 1)).all()


def test_s_values_are_the_mean_of_the_smaller_rates():
    rng = np.random.default_rng(3)
    lfsr = rng.choice([0.01, 0.02, 0.1, 0.4, 0.9], 50)
    expected = [lfsr[lfsr <= one].mean() for one in lfsr]
    np.testing.assert_allclose(s_values(lfsr), expected)


def test_nothing_tested_gives_nothing():
    nothing = np.full(4, np.nan)
    found = shrink(nothing, nothing, nothing, nothing)
    assert np.isnan(found.mean).all()
    assert np.isnan(found.s_value).all()


def test_calls_have_the_signs_they_claim():
    """Of the calls with s-value below .05 no more than 5 % (three standard errors more) have a wrong or no sign."""
    truth, effect, se, p, z = simulate(4, n_genes=20_000)
    found = shrink(effect, se, p, z)
    called = found.s_value < 0.05
    wrong = np.sign(truth) != np.sign(found.mean)
    assert called.sum() > 500
    assert wrong[called].mean() < 0.05 + 3 * np.sqrt(0.05 / called.sum())
    assert np.sqrt(np.mean((found.mean - truth) ** 2)) < 0.6 * np.sqrt(np.mean((effect - truth) ** 2))


@pytest.mark.filterwarnings("error")
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 30, 300]), st.sampled_from([0.7, 2.0]), st.floats(-3, 3))
@settings(deadline=None, max_examples=60)
def test_weights_reach_the_maximum_whatever_the_tails(seed, n_genes, tails, log_scale):
    """Effects from a thousandth of an error to far beyond where densities are no longer numbers."""
    rng = np.random.default_rng(seed)
    effect = rng.standard_t(tails, n_genes) * 10**log_scale * (rng.random(n_genes) < rng.random())
    s = rng.gamma(0.5, 1, n_genes) + 1e-4
    effect += rng.normal(0, s)
    variance = prior_grid(effect, s)
    log_density = norm.logpdf(effect, 0, np.sqrt(s**2 + variance[:, None]))
    density = np.exp(log_density - log_density.max(axis=0))
    weight = fit_weights(density, np.full(len(variance), 1 / len(variance)))
    slope = (density / (weight @ density)).sum(axis=1)
    slope[0] += 9 / weight[0]
    assert slope.max() / (n_genes + 9) < 1 + 1e-6
    assert weight.sum() == pytest.approx(1)
