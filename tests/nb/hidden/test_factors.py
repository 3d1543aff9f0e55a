from __future__ import annotations

import numpy as np

from nbcompare._nb.hidden.factors import GeneResiduals, leading_factors
from nbcompare._nb.hidden.moderation import mean_trend, moderate_squares


def residuals_of(seed: int = 0, d: int = 9, n: int = 700) -> GeneResiduals:
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(1, 7, n))
    along = rng.normal(size=(n, d)) + np.outer(rng.normal(0, 1, n), np.eye(d)[2])
    rho = 0.1 * mean / (1 + 0.1 * mean)
    return GeneResiduals(along, rho, np.sqrt(mean / (1 + 0.1 * mean)), mean_trend(mean))


def test_factors_are_the_leading_eigenvectors():
    residuals = residuals_of()
    found = leading_factors(residuals, 3)
    total = moderate_squares((residuals.along**2).mean(axis=1), 9, residuals.trend, residuals.rho)
    gram = sum(
        w * np.outer(r, r) / v for w, r, v in zip(residuals.weight, residuals.along, total.variance, strict=True)
    )
    gram = gram / residuals.weight.sum()
    np.testing.assert_allclose(gram @ found.vectors, found.vectors * found.eigenvalues[:3], atol=1e-10)
    assert abs(found.vectors[2, 0]) > 0.9
    assert (np.diff(found.eigenvalues) <= 0).all()
    np.testing.assert_allclose(found.loadings, residuals.along @ found.vectors)


def test_what_is_left_without_factors():
    residuals = residuals_of(1)
    found = leading_factors(residuals, 2)
    for k in (0, 1, 2):
        v = found.vectors[:, :k]
        left = residuals.along - residuals.along @ v @ v.T
        expected = moderate_squares((left**2).sum(axis=1) / (9 - k), 9 - k, residuals.trend, residuals.rho)
        np.testing.assert_allclose(found.variance[k], expected.variance, rtol=1e-9)
        np.testing.assert_allclose(found.degrees[k], expected.degrees, rtol=1e-9)
        load = np.sqrt((found.loadings[:, :k] ** 2).sum(axis=1) / expected.variance)
        np.testing.assert_allclose(found.load[k], load, rtol=1e-9)


def test_a_rotation_of_the_directions_changes_nothing():
    residuals = residuals_of(2)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 9)))[0]
    same = GeneResiduals(residuals.along @ turned, residuals.rho, residuals.root_information, residuals.trend)
    one, other = leading_factors(residuals, 2), leading_factors(same, 2)
    np.testing.assert_allclose(other.loadings, one.loadings, atol=1e-8)
    np.testing.assert_allclose(turned @ other.vectors, one.vectors, atol=1e-8)
