from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import nbinom

from nbcompare._nb.hidden.stabilise import (
    LOG_DISPERSIONS,
    LOG_MEANS,
    exact_moments,
    residuals,
    stabilised,
    stabilised_moments,
)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (20, 12), (59, 0), (45, 18), (30, 24)])
def test_the_table_holds_the_exact_moments(i, j):
    found = stabilised_moments()[:, i, j]
    np.testing.assert_allclose(found, exact_moments(np.exp(LOG_MEANS[i]), np.exp(LOG_DISPERSIONS[j])), atol=1e-9)


def test_exact_moments_are_those_of_many_draws():
    bias, sd = exact_moments(7.0, 0.4)
    draws = stabilised(nbinom.rvs(2.5, 2.5 / 9.5, size=400_000, random_state=1), 0.4)
    assert abs(draws.mean() - stabilised(np.array(7.0), 0.4) - bias) < 5 * draws.std() / 632
    assert abs(draws.std() - sd) < 0.01


@pytest.mark.parametrize(("mean", "dispersion"), [(0.3, 0.2), (3.0, 0.05), (40.0, 0.3), (900.0, 1.5)])
def test_residuals_have_mean_zero_and_variance_one(mean, dispersion):
    """Between the points of the grid the mean is within 0.01 of zero and the variance within 2% of one."""
    size = 1 / dispersion
    counts = np.arange(int(nbinom.isf(1e-10, size, size / (size + mean))) + 1, dtype=float)[None, :]
    weight = nbinom.pmf(counts[0], size, size / (size + mean))
    e = residuals(counts, np.full(counts.shape, mean), np.array([[dispersion]]))[0]
    assert abs(e @ weight) < 0.01
    assert abs((e - e @ weight) ** 2 @ weight - 1) < 0.02


def test_residuals_are_the_formula_at_a_point_of_the_grid():
    mean, dispersion = np.exp(LOG_MEANS[40]), np.exp(LOG_DISPERSIONS[15])
    counts = np.array([[0.0, 3.0, 50.0, 400.0]])
    bias, sd = stabilised_moments()[:, 40, 15]
    expected = (stabilised(counts, dispersion) - stabilised(np.array(mean), dispersion) - bias) / sd
    np.testing.assert_allclose(residuals(counts, np.full((1, 4), mean), np.array([[dispersion]])), expected, rtol=1e-9)


def test_dispersions_of_samples():
    counts, means = np.array([[5.0, 20.0]]), np.array([[9.0, 9.0]])
    both = residuals(counts, means, np.array([[0.1, 0.6]]))
    alone = [residuals(counts, means, np.array([[phi]])) for phi in (0.1, 0.6)]
    np.testing.assert_array_equal(both[0], [alone[0][0, 0], alone[1][0, 1]])
