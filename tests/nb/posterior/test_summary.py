"""The posterior by quadrature, of mixtures and by importance sampling, against sums over dense grids written with scipy."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from nbcompare._nb.posterior import columns as posterior_columns
from nbcompare._nb.posterior import prior as prior_module
from nbcompare._nb.posterior.columns import GRID, NETWORK, REFINED
from nbcompare._nb.posterior.gaussian import contradicts, gaussian_approximation
from nbcompare._nb.posterior.importance.pareto import fit_pareto, pareto_shape
from nbcompare._nb.posterior.importance.sampling import refine
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import (
    INVERSE_GAMMA,
    NORMAL,
    GenePrior,
    Prior,
    gene_prior,
    inverse_gamma_shape,
    kernel_prior,
    prior_matrix,
    ratio_matrix,
    with_one_dispersion,
)
from nbcompare._nb.posterior.summary import grid_posterior, summarise_mixture

FIELDS = ("null_probability", "log_fc", "log_fc_sd", "log_mean", "log_dispersion", "log_dispersion_sd")
LEVELS = (0.05, 0.5, 0.95)
#        reference       treated        m0  s0 log phi scatter tail null scale
CASES = [
    ([4, 6, 5, 9], [22, 30, 14], 2.0, 2.0, -2.0, 0.8, NORMAL, 0.6, 1.0),
    ([3, 0, 5], [1, 1], 0.5, 2.5, -2.0, 1.2, INVERSE_GAMMA, 0.6, 1.0),
    ([0, 0, 0, 0], [0, 0, 0, 0], -1.0, 2.0, -1.0, 0.8, NORMAL, 0.5, 1.0),
    ([20, 28, 25], [0, 0, 0], 2.0, 2.0, -2.0, 0.6, INVERSE_GAMMA, 0.5, 2.0),
    ([812, 1100, 930], [1500, 1420, 1710], 7.0, 1.5, -4.0, 0.4, NORMAL, 0.9, 0.3),
    ([7], [12], 2.0, 1.0, -1.0, 0.5, INVERSE_GAMMA, 0.5, 0.5),
    ([2, 31, 8, 4], [9, 3, 14, 11], 2.0, 2.0, -0.5, 1.0, NORMAL, 0.0, 1.0),
    ([5, 9, 4], [6, 8, 7], 2.0, 2.0, -2.0, 0.8, NORMAL, 1.0, 1.0),
]


def arrays(case):
    y1, y2, *numbers = case
    rng = np.random.default_rng(len(y1))
    l1, l2 = np.exp(rng.normal(0, 0.3, len(y1))), np.exp(rng.normal(0, 0.3, len(y2)))
    return (np.array([y1], float), l1, np.array([y2], float), l2), Prior(*numbers)


def slow(data, prior):
    """Moments and quantiles by sums over dense grids of log phi and both log rates."""
    (y1,), l1, (y2,), l2 = data
    m0, s0, location, log_dispersion_var, tail, share, scale = prior_matrix(prior, 1)[0]
    if tail == INVERSE_GAMMA:
        shape = inverse_gamma_shape(np.array([log_dispersion_var]))[0]
        alpha = np.linspace(location - 5 * log_dispersion_var, location + 11 * log_dispersion_var, 181)
        log_prior = stats.loggamma(shape).logpdf(special.digamma(shape) - (alpha - location))
    else:
        alpha = np.linspace(location - 6 * log_dispersion_var, location + 6 * log_dispersion_var, 121)
        log_prior = stats.norm(location, log_dispersion_var).logpdf(alpha)

    of_first, of_second = ratio_matrix(prior, 1)[0]

    def log_likelihood(y, l, eta, ratio):
        k = np.exp(-alpha)[:, None, None] / ratio
        return stats.nbinom.logpmf(y, k, k / (k + l * np.exp(eta)[:, None])).sum(axis=2)

    def around(y, l):
        half = 8 * np.sqrt(1 / (y.sum() + 0.7) + np.exp(location + 3 * log_dispersion_var) / len(y)) + (
            7 if y.sum() < 3 else 0
        )
        return np.log((y.sum() + 0.5) / l.sum()) + np.linspace(-half, half, 261)

    eta1, eta2 = around(y1, l1), around(y2, l2)
    both = np.linspace(min(eta1[0], eta2[0]), max(eta1[-1], eta2[-1]), 901)
    first, second = log_likelihood(y1, l1, eta1, of_first), log_likelihood(y2, l2, eta2, of_second)
    equal = log_likelihood(y1, l1, both, of_first) + log_likelihood(y2, l2, both, of_second)
    equal += stats.norm(m0, s0).logpdf(both)
    difference = eta2 - eta1[:, None]
    log_prior_pair = stats.norm(m0, s0).logpdf((eta1[:, None] + eta2) / 2) + stats.norm(0, scale).logpdf(difference)
    top = max(first.max() + second.max(), equal.max())
    cell = (eta1[1] - eta1[0]) * (eta2[1] - eta2[0])
    sums = np.zeros((4, len(alpha)))
    for k in range(len(alpha)):
        pair = (1 - share) * cell * np.exp(first[k][:, None] + second[k] + log_prior_pair + log_prior[k] - top)
        sums[:, k] = pair.sum(), (pair * difference).sum(), (pair * difference**2).sum(), (pair * eta1[:, None]).sum()
    null = share * (both[1] - both[0]) * np.exp(equal + log_prior[:, None] - top)
    whole = sums[0].sum() + null.sum()
    mean = sums[1].sum() / whole
    weight = (sums[0] + null.sum(axis=1)) / whole
    log_phi = (weight * alpha).sum()
    spline = CubicSpline(alpha, weight).antiderivative()
    median = brentq(lambda x: spline(x) / spline(alpha[-1]) - 0.5, alpha[0], alpha[-1])
    found = {
        "null_probability": null.sum() / whole,
        "log_fc": mean,
        "log_fc_sd": np.sqrt(sums[2].sum() / whole - mean**2),
        "log_mean": (sums[3].sum() + (null * both).sum()) / whole,
        "log_dispersion": log_phi,
        "log_dispersion_sd": np.sqrt((weight * (alpha - log_phi) ** 2).sum()),
    }
    return found, median


@pytest.mark.parametrize("case", CASES)
def test_quadrature_is_the_sum_over_a_dense_grid(case):
    data, prior = arrays(case)
    posterior = grid_posterior(*data, prior, levels=LEVELS)
    expected, median = slow(data, prior)
    for name in FIELDS:
        assert getattr(posterior, name)[0] == pytest.approx(expected[name], rel=2e-4, abs=2e-4), name
    assert posterior.log_dispersion_median[0] == pytest.approx(median, abs=5e-4)
    assert posterior.source[0] == GRID


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4]])
@pytest.mark.parametrize("ratios", [(4.0, 1.0), (1.0, 2.5), (3.0, 3.0)])
def test_groups_of_different_dispersion(case, ratios):
    """Each group's dispersion is phi times its own ratio; the dispersion that is given back is the treated group's."""
    data, prior = arrays(case)
    prior = replace(prior, ratio_reference=ratios[0], ratio_treated=ratios[1])
    posterior = grid_posterior(*data, prior, levels=LEVELS)
    expected, median = slow(data, prior)
    of_treated = np.log(ratios[1])
    for name in FIELDS:
        shift = of_treated if name == "log_dispersion" else 0.0
        assert getattr(posterior, name)[0] == pytest.approx(expected[name] + shift, rel=3e-4, abs=3e-4), name
    assert posterior.log_dispersion_median[0] == pytest.approx(median + of_treated, abs=1e-3)
    assert abs(posterior.log_fc_sd[0] - grid_posterior(*data, arrays(case)[1]).log_fc_sd[0]) > 1e-3


def test_equal_ratios_are_one_dispersion(tests):
    data, prior, _ = tests
    both = replace(prior, ratio_reference=2.0, ratio_treated=2.0)
    one, alike = with_one_dispersion(both, 200)
    assert alike.all()
    assert (one.ratio_treated == 1.0).all()
    expected, found = grid_posterior(*data, one), grid_posterior(*data, both)
    for name in (*FIELDS, "lfsr", "log_fc_lower", "log_fc_upper", "log_dispersion_median"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-5), name
    mixed = replace(prior, ratio_reference=np.linspace(1, 2, 200))
    assert with_one_dispersion(mixed, 200)[1].tolist() == [True] + [False] * 199
    with pytest.raises(ValueError, match="one dispersion"):
        refine(*data, mixed, mixture_of(expected))


@pytest.fixture(scope="module")
def tests():
    """200 tests of a data set with its prior, and the truth."""
    rng = np.random.default_rng(3)
    prior = Prior(2.0, 1.5, -2.0, 0.8, NORMAL, 0.5, 1.0)
    n = 200
    centre, alpha = rng.normal(2, 1.5, n), rng.normal(-2, 0.8, n)
    beta = np.where(rng.random(n) < 0.5, 0.0, rng.normal(0, 1, n))
    l = np.exp(rng.normal(0, 0.4, (2, 4)))
    phi = np.exp(alpha)[:, None]
    rates = [np.exp(centre + sign * beta)[:, None] for sign in (-0.5, 0.5)]
    y1, y2 = (rng.poisson(l[k] * rates[k] * rng.gamma(1 / phi, phi, (n, 4))).astype(float) for k in range(2))
    return (y1, l[0], y2, l[1]), prior, beta


def test_finer_lattices_change_nothing(tests):
    data, prior, _ = tests
    once, twice = (grid_posterior(*data, prior, levels=LEVELS, fineness=fineness) for fineness in (1.0, 0.6))
    for name, values in vars(once).items():
        if name not in ("pareto_k", "source"):
            assert values == pytest.approx(getattr(twice, name), abs=1e-3), name


def test_quantiles_are_where_the_truth_lies_that_often(tests):
    data, prior, beta = tests
    posterior = grid_posterior(*data, prior, levels=(0.1, 0.9))
    changed = beta != 0
    inside = (beta > posterior.change_quantiles[:, 0]) & (beta < posterior.change_quantiles[:, 1])
    assert stats.binomtest(int(inside[changed].sum()), int(changed.sum()), 0.8).pvalue > 1e-3
    p = posterior.null_probability
    assert abs((p - ~changed).sum()) < 3.5 * np.sqrt((p * (1 - p)).sum())


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=4),
    st.lists(st.integers(0, 500), min_size=1, max_size=4),
    st.floats(0.1, 1.2),
    st.floats(0.1, 2.0),
)
def test_exchanging_the_groups_changes_the_sign_and_nothing_else(y1, y2, log_dispersion_var, scale):
    prior = Prior(2.0, 2.0, -2.0, log_dispersion_var, INVERSE_GAMMA, 0.5, scale)
    ones = np.ones(len(y1)), np.ones(len(y2))
    there = grid_posterior(np.array([y1]), ones[0], np.array([y2]), ones[1], prior)
    back = grid_posterior(np.array([y2]), ones[1], np.array([y1]), ones[0], prior)
    assert there.log_fc == pytest.approx(-back.log_fc, abs=2e-4)
    assert there.log_fc_lower == pytest.approx(-back.log_fc_upper, abs=2e-3)
    for name in ("null_probability", "lfsr", "log_fc_sd", "log_dispersion"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), abs=2e-4), name


def test_an_absent_replicate_is_no_replicate(tests):
    (y1, l1, y2, l2), prior, _ = tests
    padded = [np.pad(y1[:20], ((0, 0), (0, 2))), np.pad(l1, (0, 2)), y2[:20], l2]
    with_absent, without = grid_posterior(*padded, prior), grid_posterior(y1[:20], l1, y2[:20], l2, prior)
    assert with_absent.log_fc == pytest.approx(without.log_fc, abs=1e-10)


def test_extreme_counts_have_finite_posteriors():
    y1 = np.array([[0.0, 0, 0], [1e6, 1.1e6, 9e5], [0, 0, 1], [1e5, 2, 30]])
    y2 = np.array([[1e5, 1.2e5, 9e4], [0, 0, 0], [0, 0, 0], [50.0, 7, 1e4]])
    prior = Prior(5.0, 4.0, np.array([-2.0, -9.0, 2.0, -2.0]), 0.5, INVERSE_GAMMA, 0.5, 2.0)
    posterior = grid_posterior(y1, np.ones(3), y2, np.ones(3), prior, levels=LEVELS)
    for name, values in vars(posterior).items():
        assert name == "pareto_k" or np.isfinite(values).all(), name
    assert posterior.log_fc[0] > 3
    assert posterior.log_fc[1] < -3


def mixture_of(posterior, *, sd=1.0, shift=0.0):
    """Normals with the posterior's moments, or wrong ones: wider by `sd`, `shift` standard deviations off."""
    sds = (
        np.stack(
            [
                posterior.log_mean_sd,
                np.maximum(posterior.log_fc_sd, posterior.log_mean_sd),
                posterior.log_dispersion_sd,
            ],
            axis=1,
        )
        * sd
    )
    mean = (
        np.stack([posterior.log_mean + posterior.log_fc / 2, posterior.log_fc, posterior.log_dispersion], axis=1)
        + shift * sds
    )
    n = len(posterior)
    one = np.ones((n, 1))
    scale = sds[:, None, :, None] * np.eye(3)
    return Mixture(
        np.full(n, 0.3), one, mean[:, None, [0, 2]], scale[:, :, [0, 2]][..., [0, 2]], one, mean[:, None], scale
    )


@pytest.mark.parametrize(
    ("sd", "shift", "tolerance"), [(1.0, 0.0, 0.04), (1.5, 0.5, 0.1), (0.7, 0.0, 0.12), (1.0, 6.0, 0.01)]
)
def test_refinement_does_not_need_the_mixture_to_be_right(tests, sd, shift, tolerance):
    data, prior, _ = tests
    exact = grid_posterior(*data, prior)
    refined = refine(*data, prior, mixture_of(exact, sd=sd, shift=shift), n_draws=512)
    assert (refined.pareto_k[refined.source == REFINED] <= 0.7).all()
    assert (refined.source == GRID).mean() > 0.98 if shift > 3 else (refined.source == REFINED).any()
    for name, unit in (
        ("null_probability", 1.0),
        ("log_fc", exact.log_fc_sd),
        ("log_dispersion", exact.log_dispersion_sd),
    ):
        error = (getattr(refined, name) - getattr(exact, name)) / unit
        assert np.sqrt(np.mean(error**2)) < tolerance, name


def test_refinement_does_not_depend_on_the_batch(tests):
    data, prior, _ = tests
    y1, l1, y2, l2 = data
    mixture = mixture_of(grid_posterior(*data, prior))
    everything = refine(*data, prior, mixture)
    some = np.array([150, 3, 77])
    alone = refine(y1[some], l1, y2[some], l2, prior, mixture.take(some))
    assert np.array_equal(alone.log_fc, everything.log_fc[some])
    assert np.array_equal(alone.log_fc_lower, everything.log_fc_lower[some])


def test_mixture_summary_is_that_of_its_draws():
    rng = np.random.default_rng(0)
    factor = np.array([[0.5, 0, 0], [0.2, 0.4, 0], [-0.1, 0.3, 0.6]])
    mean = np.array([[2.0, 1.0, -2.0], [2.2, -0.2, -1.0]])
    weight = np.array([0.7, 0.3])
    mixture = Mixture(
        np.array([0.25]),
        np.ones((1, 1)),
        np.array([[[2.1, -1.5]]]),
        np.array([[[[0.3, 0], [0.1, 0.5]]]]),
        weight[None],
        mean[None],
        np.stack([factor, 0.5 * factor])[None],
    )
    posterior = summarise_mixture(mixture, levels=LEVELS)
    n = 400_000
    which = rng.random(n) < weight[0]
    draws = np.where(which[:, None], mean[0], mean[1]) + np.where(which, 1.0, 0.5)[:, None] * (
        rng.normal(size=(n, 3)) @ factor.T
    )
    null = rng.normal(size=(n, 2)) @ np.array([[0.3, 0], [0.1, 0.5]]).T + [2.1, -1.5]
    is_null = rng.random(n) < 0.25
    beta = np.where(is_null, 0.0, draws[:, 1])
    alpha = np.where(is_null, null[:, 1], draws[:, 2])
    log_rate = np.where(is_null, null[:, 0], draws[:, 0] - draws[:, 1] / 2)
    assert posterior.log_fc[0] == pytest.approx(beta.mean(), abs=0.005)
    assert posterior.log_fc_sd[0] == pytest.approx(beta.std(), abs=0.005)
    assert posterior.lfsr[0] == pytest.approx((beta <= 0).mean(), abs=0.003)
    for value, level in (
        (posterior.log_fc_lower, 0.025),
        (posterior.log_fc_median, 0.5),
        (posterior.log_fc_upper, 0.975),
    ):
        assert value[0] == pytest.approx(np.quantile(beta, level), abs=0.01)
    assert posterior.change_quantiles[0] == pytest.approx(np.quantile(draws[:, 1], LEVELS), abs=0.01)
    assert posterior.dispersion_quantiles[0] == pytest.approx(np.quantile(alpha, LEVELS), abs=0.01)
    assert posterior.log_mean_median[0] == pytest.approx(np.median(log_rate), abs=0.005)
    assert posterior.source[0] == NETWORK


class TestPareto:
    @pytest.mark.parametrize("k", [-0.2, 0.3, 1.0])
    def test_shape_and_scale_of_a_large_sample(self, k):
        sample = np.sort(stats.genpareto(k, scale=2.0).rvs(20_000, random_state=1))
        shape, scale = fit_pareto(sample)
        assert shape == pytest.approx(k, abs=0.03)
        assert scale == pytest.approx(2.0, rel=0.04)

    def test_weights_that_hardly_differ_have_no_heavy_tail(self):
        rng = np.random.default_rng(0)
        assert pareto_shape(rng.uniform(0.9, 1.1, 500)) < 0.1
        assert pareto_shape(rng.pareto(0.8, 500)) > 0.7
        assert pareto_shape(np.ones(100)) == np.inf


def test_narrow_rates():
    """Of many deep replicates: the standard deviation of the log rate is that of both arms' information, nothing changed, to its last digits."""
    rng = np.random.default_rng(0)
    n, mean, phi = 20, 1e5, 1e-4
    counts = [rng.poisson(mean * rng.gamma(1 / phi, phi, (40, n))).astype(float) for _ in range(2)]
    prior = Prior(np.log(mean), 2.0, np.log(phi), 0.05, 0.0, 0.999, 0.5)
    found, finer = (
        grid_posterior(counts[0], np.ones(n), counts[1], np.ones(n), prior, fineness=fineness) for fineness in (1, 0.5)
    )
    assert found.log_mean_sd == pytest.approx(finer.log_mean_sd, rel=1e-4)
    unchanged = found.null_probability > 0.995
    assert unchanged.sum() > 20
    expected = np.sqrt((1 + phi * mean) / (2 * n * mean))
    assert found.log_mean_sd[unchanged] == pytest.approx(expected, rel=0.1)


class TestClosedForm:
    def test_is_the_posterior_of_a_normal_estimate(self):
        prior = Prior(1.0, 2.0, -2.0, 0.5, NORMAL, 0.4, 0.8)
        b, s = np.array([0.9]), np.array([0.5])
        mixture = gaussian_approximation(np.array([1.3]), b, s, np.array([0.1]), np.array([20.0]), prior)
        null = 0.4 * stats.norm.pdf(0.9, 0, 0.5)
        change = 0.6 * stats.norm.pdf(0.9, 0, np.hypot(0.5, 0.8))
        assert mixture.null_probability[0] == pytest.approx(null / (null + change))
        assert mixture.mean[0, 0, 1] == pytest.approx(0.9 * 0.64 / 0.89)
        assert mixture.cholesky[0, 0, 1, 1] == pytest.approx(np.sqrt(0.64 * 0.25 / 0.89))

    def test_far_apart(self):
        prior = Prior(1.0, 2.0, -2.0, 0.5, NORMAL, 0.4, 2.0)
        s = np.full(4, 0.3)
        one, other = (
            gaussian_approximation(np.zeros(4), b, s, np.full(4, 0.1), np.full(4, 9.0), prior)
            for b in np.array([[0, 1, 2, np.nan], [0, 1.5, 9, 1]])
        )
        assert contradicts(one, other).tolist() == [False, False, True, True]


@pytest.mark.parametrize("log_dispersion_var", [1e-3, 0.1, 0.8, 1.2, 3.0])
def test_inverse_gamma_has_the_standard_deviation_asked_for(log_dispersion_var):
    shape = inverse_gamma_shape(np.array([log_dispersion_var]))[0]
    assert np.sqrt(special.polygamma(1, shape)) == pytest.approx(log_dispersion_var, rel=1e-8)


def test_columns_are_the_fields_in_their_order():
    """A field put between others would otherwise shift all numbers."""
    numbers = [field.name for field in fields(posterior_columns.Posterior)][: len(posterior_columns.COLUMNS)]
    assert tuple(numbers) == posterior_columns.COLUMNS
    assert [getattr(posterior_columns, name.upper()) for name in posterior_columns.COLUMNS] == list(range(13))
    assert [getattr(prior_module, name.upper()) for name in (*prior_module.FIELDS, "shape")] == list(range(8))
    assert GenePrior._fields == (*prior_module.FIELDS, "shape")


def test_the_prior_of_a_kernel_holds_the_fields_by_name():
    prior = Prior(1.0, 2.0, -3.0, 0.4, INVERSE_GAMMA, 0.5, 0.6)
    gene = gene_prior(kernel_prior(prior, 2)[1])
    for name in prior_module.FIELDS:
        assert getattr(gene, name) == getattr(prior, name), name
    assert gene.shape == inverse_gamma_shape(np.array([0.4]))[0]
