"""The data set's own prior, recovered from simulated genes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import digamma

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.trend import prior_degrees
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.posterior.dispersion_prior import expected_dispersion
from nbcompare._nb.posterior.empirical_bayes import centre_prior, effect_prior, estimate_prior
from nbcompare._nb.posterior.prior import INVERSE_GAMMA, NORMAL, Prior, inverse_gamma_shape


def data_set(rng, n_genes, n, prior):
    centre = rng.normal(prior.log_mean, prior.log_mean_sd, n_genes)
    beta = np.where(rng.random(n_genes) < prior.null_proportion, 0.0, rng.normal(0, prior.log_fc_sd, n_genes))
    alpha = rng.normal(prior.log_dispersion, prior.log_dispersion_sd, n_genes)
    if prior.family == INVERSE_GAMMA:
        shape = inverse_gamma_shape(np.array(prior.log_dispersion_sd))
        alpha = prior.log_dispersion + digamma(shape) - np.log(rng.gamma(shape, 1, n_genes))
    exposure = np.exp(rng.normal(0, 0.3, 2 * n))
    mean = np.exp(centre[:, None] + np.repeat([-0.5, 0.5], n) * beta[:, None]) * exposure
    phi = np.exp(alpha)[:, None]
    counts = rng.poisson(mean * rng.gamma(1 / phi, phi, mean.shape)).astype(float)
    return Pseudobulk(counts, exposure, np.repeat([0, 1], n))


def estimated(pseudobulk):
    result = moderated_tests(pseudobulk, np.array([[0, 1]]))
    trend = result.trend.at(result.mean)
    informative = trend * result.mean / (1 + trend * result.mean)
    degrees = prior_degrees(result.trend.log_dispersion_var * informative**2)[0] + len(pseudobulk.group) - 2
    rates = [
        np.log(
            np.maximum(pseudobulk.counts[:, pseudobulk.group == g].sum(axis=1), 0.5)
            / pseudobulk.exposure[pseudobulk.group == g].sum()
        )
        for g in (0, 1)
    ]
    expected = expected_dispersion(result.mean, trend, result.trend.log_dispersion_var, None)
    tested = np.isfinite(result.p_value[:, 0])
    log_fc = np.where(tested, result.log_fc[:, 0], np.nan)
    return estimate_prior(0.5 * (rates[0] + rates[1]), log_fc, result.se[:, 0], degrees, expected)


@pytest.mark.parametrize(
    ("n", "log_dispersion_var", "tail", "null_proportion", "scale", "share_error"),
    [
        (3, 0.4, NORMAL, 0.5, 1.0, 0.06),
        (3, 0.8, INVERSE_GAMMA, 0.5, 1.0, 0.1),
        (6, 0.8, INVERSE_GAMMA, 0.95, 0.5, 0.05),
        (6, 1.2, NORMAL, 0.95, 0.5, 0.05),
    ],
)
def test_recovered_from_4000_genes(n, log_dispersion_var, tail, null_proportion, scale, share_error):
    truth = Prior(4.0, 1.5, -2.0, log_dispersion_var, tail, null_proportion, scale)
    found = estimated(data_set(np.random.default_rng(1), 4000, n, truth))
    assert found.log_mean == pytest.approx(4.0, abs=0.1)
    assert found.log_mean_sd == pytest.approx(1.5, abs=0.1)
    assert np.mean(found.log_dispersion) == pytest.approx(-2.0, abs=0.25)
    assert np.mean(found.log_dispersion_sd) == pytest.approx(log_dispersion_var, rel=0.15)
    assert found.null_proportion == pytest.approx(null_proportion, abs=share_error)
    assert found.log_fc_sd == pytest.approx(scale, rel=0.25 if null_proportion < 0.9 else 0.35)  # of one gene in twenty


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_changes_nearly_all_is_null(seed):
    truth = Prior(4.0, 1.5, -2.0, 0.8, INVERSE_GAMMA, 1.0, 1.0)
    found = estimated(data_set(np.random.default_rng(seed), 1000, 4, truth))
    assert found.null_proportion > 0.8 or found.log_fc_sd < 0.25  # small changes of some cannot be told from none
    assert 0.02 < found.log_fc_sd < 3


def test_few_genes_leave_the_usual_scale():
    share, scale = effect_prior(np.array([0.1, -0.2]), np.array([0.3, 0.3]), np.array([5.0, 5.0]))
    assert 0.5 < share <= 0.99
    assert 0.1 < scale < 1.0
    assert effect_prior(*np.empty((3, 0)))[0] == 0.5
    assert centre_prior(np.empty(0), np.empty(0))[1] == 3.0
    assert np.isfinite(centre_prior(np.array([1.0]), np.array([0.2]))).all()


def test_what_is_given_is_taken():
    rng = np.random.default_rng(0)
    b = rng.normal(size=50)
    trend = expected_dispersion(np.full(50, 10.0), np.full(50, 0.1), 0.5, None)
    prior = estimate_prior(b, b, np.full(50, 0.3), np.full(50, 9.0), trend, null_proportion=0.123)
    assert prior.null_proportion == 0.123
