"""The dispersion trend and its scatter on data with known ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.trend import (
    LOG_DISPERSION_VAR_GRID,
    PRIOR_LOG_DISPERSION_VAR,
    fit_log_dispersion_var,
    fit_trend,
    mean_bins,
    prior_degrees,
)

few = settings(deadline=None, max_examples=15)


def truth(mean, base=0.05, extra=1.0):
    return base + extra / mean


def simulate(
    seed, n_genes, sizes=(3, 3), log_dispersion_sd=0.7, lowest=2.0, highest=5000.0, exposure_sd=0.3, effect_sd=0.5
):
    """NB counts, log-normal dispersions around a trend, effects between the groups."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    exposure = rng.lognormal(0, exposure_sd, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(highest), n_genes))
    phi = truth(mean) * rng.lognormal(-(log_dispersion_sd**2) / 2, log_dispersion_sd, n_genes)
    m = mean[:, None] * exposure * np.exp(rng.normal(0, effect_sd, (n_genes, len(sizes))))[:, group]
    counts = rng.negative_binomial(1 / phi[:, None], 1 / (1 + phi[:, None] * m)).astype(float)
    return Pseudobulk(counts, exposure, group)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 2, 2, 2, 2, 2), (4, 40)])
def test_recovers_the_trend_and_the_spread(sizes):
    """12,000 genes: dispersions within 15 % over three decades of the mean, scatter sd .7 within .08."""
    trend = fit_trend(simulate(0, 12_000, sizes))
    at = np.geomspace(5, 2000, 30)
    assert np.abs(np.log(trend.at(at) / truth(at))).max() < 0.15
    assert np.sqrt(trend.log_dispersion_var) == pytest.approx(0.7, abs=0.08)
    assert trend.n_genes > 6000


def test_a_poisson_data_set_has_hardly_any_dispersion():
    rng = np.random.default_rng(1)
    counts = rng.poisson(np.exp(rng.uniform(1, 7, (6000, 1))), (6000, 6)).astype(float)
    trend = fit_trend(Pseudobulk(counts, np.ones(6), np.repeat([0, 1], 3)))
    assert (trend.dispersion * trend.mean < 0.15).all()


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([40, 300, 1500]))
def test_the_order_of_genes_is_nothing(seed, n_genes):
    pseudobulk = simulate(seed, n_genes)
    order = np.random.default_rng(seed).permutation(n_genes)
    one = fit_trend(pseudobulk)
    other = fit_trend(Pseudobulk(pseudobulk.counts[order], pseudobulk.exposure, pseudobulk.group))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.dispersion, other.dispersion)
    assert one.log_dispersion_var == other.log_dispersion_var


@few
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_the_unit_of_exposure_and_the_order_of_samples_are_nothing(seed, unit):
    pseudobulk = simulate(seed, 200)
    order = np.random.default_rng(seed).permutation(6)
    one = fit_trend(pseudobulk)
    other = fit_trend(
        Pseudobulk(
            np.ascontiguousarray(pseudobulk.counts[:, order]),
            pseudobulk.exposure[order] * unit,
            pseudobulk.group[order],
        )
    )
    np.testing.assert_allclose(one.dispersion, other.dispersion, rtol=1e-8)
    assert one.log_dispersion_var == pytest.approx(other.log_dispersion_var, rel=1e-6)


@pytest.mark.parametrize("n_genes", [1, 5, 9])
def test_fewer_than_ten_genes_take_the_prior_spread(n_genes):
    trend = fit_trend(simulate(2, n_genes, lowest=200))
    assert trend.log_dispersion_var == PRIOR_LOG_DISPERSION_VAR
    assert len(trend.mean) == 1
    assert np.isfinite(trend.dispersion).all()
    assert (trend.dispersion > 0).all()


def test_few_genes_stay_near_the_prior_and_many_leave_it():
    """True scatter .01: with 20 genes the estimate is between it and the prior, with 3,000 close to it."""
    few_genes = fit_trend(simulate(3, 20, log_dispersion_sd=0.1, lowest=200))
    many = fit_trend(simulate(3, 3000, log_dispersion_sd=0.1, lowest=200))
    assert many.log_dispersion_var < 0.05
    assert 0.02 < few_genes.log_dispersion_var < PRIOR_LOG_DISPERSION_VAR


def test_nothing_to_learn_from():
    empty = Pseudobulk(np.zeros((5, 4)), np.ones(4), np.array([0, 0, 1, 1]))
    assert fit_trend(empty).n_genes == 0
    single = Pseudobulk(np.ones((500, 2)), np.ones(2), np.array([0, 1]))
    trend = fit_trend(single)
    assert np.isfinite(trend.dispersion).all()
    assert trend.log_dispersion_var == PRIOR_LOG_DISPERSION_VAR


def test_usable_genes_only():
    pseudobulk = simulate(4, 2000)
    usable = np.arange(2000) < 700
    some = fit_trend(pseudobulk, usable=usable)
    alone = fit_trend(Pseudobulk(pseudobulk.counts[usable], pseudobulk.exposure, pseudobulk.group))
    np.testing.assert_array_equal(some.dispersion, alone.dispersion)
    assert some.log_dispersion_var == alone.log_dispersion_var


def test_spread_is_the_posterior_mode():
    """Against a bounded optimiser of the log density of scaled F variables written with scipy.stats."""
    rng = np.random.default_rng(5)
    rho, weight = rng.uniform(0.2, 1, 400), rng.uniform(1, 8, 400)
    s = np.exp(rng.normal(0, 0.8, 400)) * rng.chisquare(weight) / weight

    def loss(log_of_variance):
        x = np.exp(log_of_variance) * rho**2
        df = 1 + 2 / x
        shift = x / 2 + 1 / df + 1 / (3 * df**2)
        density = stats.f.logpdf(s * np.exp(shift), weight, df) + shift
        return -density.sum() + 0.5 * ((log_of_variance - np.log(0.6)) / 0.7) ** 2

    best = optimize.minimize_scalar(loss, bounds=np.log(LOG_DISPERSION_VAR_GRID[[0, -1]]), method="bounded").x
    ours = fit_log_dispersion_var(np.stack([s * weight, weight], axis=1), rho, 1.0)
    assert np.log(ours) == pytest.approx(best, abs=0.03)


def test_prior_degrees_are_the_moments_of_a_log_f():
    """The shift is minus the mean log of an F with infinite first degrees of freedom; the variance of its log is about x."""
    for x in (0.01, 0.3, 1.5):
        df, shift = prior_degrees(np.array(x))
        log_f = stats.loggamma(df / 2)
        assert shift - x / 2 == pytest.approx(np.log(df / 2) - log_f.mean(), abs=0.02)
        assert log_f.var() == pytest.approx(x, rel=0.2)


@pytest.mark.parametrize(("n", "bins", "top"), [(30, 1, 30), (120, 2, 60), (700, 11, 64), (7200, 14, 200)])
def test_bins_are_equal_and_the_top_one_is_split(n, bins, top):
    parts = mean_bins(np.arange(n), np.arange(n, dtype=float))
    assert len(parts) == bins
    assert len(parts[-1]) == top
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
