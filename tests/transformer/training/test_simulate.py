"""The training distribution has the moments that it states."""

from __future__ import annotations

import numpy as np
import pytest

from nbcompare._transformer.training.simulate import Simulated, draw_truth, simulate
from nbcompare._transformer.training_range import Ranges


@pytest.mark.parametrize("tail", [0.0, 1.0])
def test_parameters_have_the_prior_that_is_given(tail: float) -> None:
    prior = np.tile([1.0, 0.7, -2.0, 0.8, tail, 0.3, 0.5], (40_000, 1))
    truth, null = draw_truth(np.random.default_rng(1), prior)
    alpha, centre, beta = truth.T
    error = 4 / np.sqrt(len(prior))
    assert abs(alpha.mean() + 2.0) < 0.8 * error
    assert abs(alpha.std() - 0.8) < 0.8 * error * 1.5
    assert abs(centre.mean() - 1.0) < 0.7 * error
    assert abs(null.mean() - 0.3) < 0.5 * error
    assert np.all(beta[null] == 0)
    assert abs(beta[~null].std() - 0.5) < 0.5 * error
    skewness = ((alpha + 2.0) ** 3).mean() / 0.8**3
    assert (skewness > 0.4) if tail else (abs(skewness) < 0.1)  # inverse gamma: heavier towards large dispersions


def test_counts_have_the_mean_and_variance_of_the_model(drawn: Simulated) -> None:
    tests = simulate(np.random.default_rng(2), 20_000, Ranges())
    eta, phi = tests.truth[:, 1] - 0.5 * tests.truth[:, 2], np.exp(tests.truth[:, 0])
    mean = tests.exposure1[:, 0] * np.exp(eta)
    use = (mean < 1e6) & (phi < 2)
    deviate = (tests.counts1[:, 0] - mean) / np.sqrt(mean + phi * mean**2)
    assert abs(deviate[use].mean()) < 0.03
    assert abs(deviate[use].std() - 1.0) < 0.1


def test_bounds(drawn: Simulated) -> None:
    ranges = Ranges()
    numbers = (drawn.exposure1 > 0).sum(axis=1)
    assert numbers.min() >= ranges.replicates[0]
    assert numbers.max() <= ranges.replicates[1]
    assert np.all(drawn.prior[:, 3] <= ranges.log_dispersion_sd[1])
    assert np.all(np.exp(drawn.prior[:, 0]) <= ranges.mean[1])
