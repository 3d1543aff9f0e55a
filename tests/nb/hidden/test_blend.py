from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from nbcompare._nb.hidden.blend import blend_weights, blended_load, fixed_weights, inflation_of, load_inflation


def test_weights_are_exponentials_of_the_score():
    score = np.array([1.0, 0.9, 0.88, 0.95])
    expected = np.exp(-(score - [0.03, 0, 0, 0]) / 0.02)
    np.testing.assert_allclose(blend_weights(score), expected / expected.sum(), rtol=1e-12)


def test_no_factors_unless_the_score_gains():
    assert blend_weights(np.array([1.0, 0.98, 0.971]))[0] == 1
    assert blend_weights(np.array([1.0, 0.98, 0.969]))[0] < 1


def test_factors_near_the_contrast_are_adjusted_for():
    weights = blend_weights(np.array([1.0, 1.01, 1.02]), near=1)
    np.testing.assert_allclose(weights, np.r_[0, 1, np.exp(-0.5)] / (1 + np.exp(-0.5)))


def test_a_given_number_of_factors():
    np.testing.assert_array_equal(fixed_weights(2, 3), [0, 0, 1, 0])


def test_load_is_that_of_the_factors():
    load = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(blended_load(load, np.array([0.5, 0.25, 0.25])), [2, 3])


def test_inflation_of_deviates():
    rng = np.random.default_rng(0)
    assert inflation_of(np.abs(rng.normal(0, 0.8, 100_000))) == 1
    assert inflation_of(np.abs(rng.normal(0, 1.3, 400_000))) == pytest.approx(1.69, rel=0.02)


def test_inflation_grows_with_the_load():
    """In each group of load the blended deviates over the root of their inflation have the tail of a normal deviate, or less."""
    rng = np.random.default_rng(1)
    load = np.stack([np.zeros((40, 1500)), rng.exponential(1, (40, 1500))], axis=1)
    z = rng.normal(size=(40, 2, 1500)) * np.sqrt(1 + 0.3 * load[:, 1:])
    found = load_inflation(z, load, np.array([0.0, 1.0]))
    assert (np.diff(found.inflation) >= 0).all()
    assert found.inflation[-1] > 1.5
    scaled = np.abs(z[:, 1]) / np.sqrt(found.at(load[:, 1]))
    assert abs((scaled > norm.isf(0.005)).mean() - 0.01) < 0.003
