"""Moving the size factors widens the likelihood of the log fold change: held against brute force on a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from nbcompare._nb.posterior.null_spread.null import NullDistribution
from nbcompare._nb.posterior.null_spread.widening import widened
from nbcompare._nb.posterior.prior import INVERSE_GAMMA, Prior, inverse_gamma_shape
from nbcompare._nb.posterior.summary import grid_posterior

PRIOR = Prior(0.0, 1.0, -2.0, 0.6, INVERSE_GAMMA, 0.7, 0.8)


def null_probability(counts, depths, prior, spread):
    """Brute force: at each dispersion the log likelihood of both rates, below its maximum, is divided by spread^2."""
    shape = float(inverse_gamma_shape(np.array(prior.log_dispersion_sd)))
    centre = np.mean([np.log(max(y.sum(), 0.5) / l.sum()) for y, l in zip(counts, depths, strict=True)])
    fine, fold = np.linspace(centre - 8, centre + 8, 1601), np.linspace(-6, 6, 301)[:, None]
    middle = np.linspace(centre - 3.5, centre + 3.5, 121)[None]
    before = stats.norm.logpdf(middle, prior.log_mean, prior.log_mean_sd)
    unchanged, changed = [], []
    for alpha in prior.log_dispersion + prior.log_dispersion_sd * np.linspace(-5, 5, 61):
        gamma = special.digamma(shape) - (alpha - prior.log_dispersion)
        size = np.exp(-alpha)
        curves = [
            stats.nbinom.logpmf(y[:, None], size, size / (size + l[:, None] * np.exp(fine))).sum(axis=0)
            for y, l in zip(counts, depths, strict=True)
        ]
        top = curves[0].max() + curves[1].max()

        def log_density(b, curves=curves, top=top, gamma=gamma):
            both = np.interp(middle - b / 2, fine, curves[0]) + np.interp(middle + b / 2, fine, curves[1])
            return (both - top) / spread**2 + top + before + shape * gamma - np.exp(gamma)

        unchanged.append(special.logsumexp(log_density(0.0)))
        of_fold = special.logsumexp(log_density(fold), axis=1) + stats.norm.logpdf(fold[:, 0], 0, prior.log_fc_sd)
        changed.append(special.logsumexp(of_fold) + np.log(fold[1, 0] - fold[0, 0]))
    log_odds = special.logsumexp(changed) - special.logsumexp(unchanged)
    return special.expit(np.log(prior.null_proportion) - np.log1p(-prior.null_proportion) - log_odds)


@pytest.mark.parametrize("spread", [1.0, 1.2, 1.5])
def test_against_brute_force(spread):
    rng = np.random.default_rng(3)
    differences = []
    for n, mean in ((3, 300), (3, 20), (5, 3), (8, 50)):
        for _ in range(8):
            phi, depths = np.exp(rng.normal(-2, 0.5)), rng.lognormal(0, 0.3, (2, n))
            fold = rng.choice([0, rng.normal(0, 1.2)])
            rates = mean * depths * np.exp(fold * np.array([[-0.5], [0.5]]))
            counts = rng.poisson(rates * rng.gamma(1 / phi, phi, rates.shape)).astype(float)
            prior = replace(PRIOR, log_mean=np.log(mean))
            logs = np.log(np.maximum(counts.sum(axis=1), 0.5) / depths.sum(axis=1))
            data = (counts[:1], depths[0], counts[1:], depths[1])
            moved, _ = widened(data, logs[1:] - logs[:1], NullDistribution(spread))
            found = grid_posterior(*moved, replace(prior, log_fc_sd=prior.log_fc_sd / spread))
            differences.append(abs(found.null_probability[0] - null_probability(counts, depths, prior, spread)))
    assert np.mean(differences) < (0.001 if spread == 1.0 else 0.01)
    assert max(differences) < (0.01 if spread == 1.0 else 0.05)


def test_the_usual_null_changes_nothing():
    counts, depths = np.arange(6.0).reshape(1, 6), np.ones(3)
    data = (counts[:, :3], depths, counts[:, 3:], depths)
    moved, of_mean = widened(data, np.array([1.0]), NullDistribution())
    assert moved is data
    assert not of_mean.any()


def test_a_shift_is_a_change_of_the_size_factors():
    """A posterior from a shift of log 2 is that of size factors twice as large in one group."""
    rng = np.random.default_rng(1)
    counts, depths = rng.poisson(40, (20, 6)).astype(float), np.ones(3)
    data = (counts[:, :3], depths, counts[:, 3:], depths)
    prior = replace(PRIOR, log_mean=np.log(40.0))
    moved, of_mean = widened(data, np.zeros(20), NullDistribution(1.0, np.log(2)))
    found = grid_posterior(*moved, prior).rescaled(1.0, of_mean)
    other = grid_posterior(data[0], depths / np.sqrt(2), data[2], depths * np.sqrt(2), prior)
    assert found.log_fc == pytest.approx(other.log_fc, abs=1e-9)
    assert found.log_mean == pytest.approx(other.log_mean - 0.5 * np.log(2), abs=1e-9)
