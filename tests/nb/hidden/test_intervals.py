from __future__ import annotations

import numpy as np
from scipy import stats

from nbcompare._nb.hidden.intervals import NORMAL_QUANTILE, BlendedTest, blended_interval


def made(own_weight: float, n: int = 400) -> BlendedTest:
    rng = np.random.default_rng(0)
    weights = np.array([0.5, 0.5]) * (1 - own_weight)
    t = rng.normal(0, 3, n) + rng.normal(0, 0.3, (2, n))
    return BlendedTest(
        t,
        rng.uniform(0.1, 0.4, (2, n)),
        rng.uniform(10, 40, (2, n)),
        weights,
        own_weight,
        t.mean(axis=0),
        rng.uniform(0.1, 0.4, n),
        rng.uniform(1, 1.3, n),
    )


def test_the_deviate_is_the_blend():
    test = made(0.2)
    null = np.linspace(-1, 1, 400)
    z = stats.norm.isf(stats.t.sf(test.t - null / test.se, test.degrees))
    expected = (0.4 * z[0] + 0.4 * z[1] + 0.2 * (test.own_statistic - null / test.own_se)) / test.root_inflation
    np.testing.assert_allclose(test.at(null), expected, atol=2e-3)


def test_bounds_are_where_the_test_just_rejects():
    """With the log fold change at which the deviate is zero nothing is moved: the bounds are the roots."""
    for own_weight in (0.0, 0.3):
        test = made(own_weight)
        low, high = np.full(400, -20.0), np.full(400, 20.0)
        for _ in range(60):  # bisection for the middle
            middle = (low + high) / 2
            positive = test.at(middle) > 0
            low, high = np.where(positive, middle, low), np.where(positive, high, middle)
        se, lower, upper = blended_interval(test, middle)
        np.testing.assert_allclose(test.at(lower), NORMAL_QUANTILE, atol=1e-4)
        np.testing.assert_allclose(test.at(upper), -NORMAL_QUANTILE, atol=1e-4)
        np.testing.assert_allclose(se, (upper - lower) / (2 * NORMAL_QUANTILE), rtol=1e-6)


def test_zero_is_outside_exactly_where_the_test_rejects_it():
    test = made(0.1)
    log_fc = np.random.default_rng(1).normal(test.t.mean(axis=0) * 0.2, 0.2)
    _, lower, upper = blended_interval(test, log_fc)
    rejected = np.abs(test.at(np.zeros(400))) > NORMAL_QUANTILE
    np.testing.assert_array_equal((lower > 0) | (upper < 0), rejected)
