from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy import stats

from nbcompare._nb.hidden.slopes import deviates, fit_slopes, near_contrast


def bisquare(y, columns, weight, dispersion_ratio=None, corrected=None, start=None):
    """As the formula is written: at most 30 rounds, 3.5 MADs."""
    a = np.zeros(columns.shape[1]) if start is None else start.copy()
    for _ in range(30):
        r = y - columns @ a
        mad = 1.4826 * np.median(np.abs(r - np.median(r)))
        w = weight * np.clip(1 - (r / (3.5 * mad)) ** 2, 0, None) ** 2
        m = (columns * w[:, None]).T @ columns
        less = (
            np.zeros(len(a))
            if dispersion_ratio is None
            else np.where(corrected, np.minimum((w * dispersion_ratio).sum(), 0.9 * np.diag(m)), 0)
        )
        new = np.linalg.solve(m - np.diag(less) + 1e-9 * np.eye(len(a)), (columns * w[:, None]).T @ y)
        done = np.abs(new - a).max() < 1e-3
        a = new
        if done:
            break
    return a


def made(slope: float, seed: int = 0, n: int = 900, d: int = 12):
    rng = np.random.default_rng(seed)
    loadings, root = rng.normal(0, 2, (n, 2)), rng.uniform(1, 5, n)
    variance = rng.uniform(0.5, 2, (3, n))
    total = rng.uniform(1, 3, n)
    factors = SimpleNamespace(loadings=loadings, total=total, variance=variance, degrees=np.full((3, n), 15.0))
    y = 0.1 * root + loadings @ [slope, 0.05] + rng.standard_t(4, n)
    y[:50] += 20  # genes that respond
    return y, root, rng.uniform(0.1, 1, n), factors, d


def test_slopes_are_those_of_the_formula():
    y, root, weight, factors, d = made(0.3)
    found = fit_slopes(y, root, weight, factors, d, held_out=True)
    sd = np.sqrt(factors.total)
    for k in (0, 1, 2):
        columns = np.c_[root, factors.loadings[:, :k]]
        a = bisquare(y / sd, columns / sd[:, None], weight)
        np.testing.assert_allclose(np.r_[found.shift[k], found.slopes[k, :k]], a, rtol=1e-9)
        variance = factors.variance[k] * (1 + (a[1:] ** 2).sum())
        np.testing.assert_allclose(found.variance[k], variance, rtol=1e-9)
        np.testing.assert_allclose(found.t[k], (y - columns @ a) / np.sqrt(variance), rtol=1e-8, atol=1e-9)
    assert abs(found.shift[2] - 0.1) < 0.05
    assert abs(found.slopes[2, 0] - 0.3) < 0.05


def test_factors_near_the_contrast_are_corrected_for_the_dispersion_ratio_of_loadings():
    y, root, weight, factors, d = made(1.5)
    found = fit_slopes(y, root, weight, factors, d)
    sd = np.sqrt(factors.total)
    columns = np.c_[root, factors.loadings] / sd[:, None]
    start = bisquare(y / sd, columns, weight)
    near = d * start[1:] ** 2 > stats.f.isf(0.05 / 2, 1, d)
    assert near.tolist() == [True, False]
    assert found.near == 1
    expected = bisquare(y / sd, columns, weight, factors.variance[2] / factors.total, np.r_[False, near], start)
    np.testing.assert_allclose(np.r_[found.shift[2], found.slopes[2]], expected, rtol=1e-9)
    assert found.inflation[2] > 1 + start[1] ** 2


def test_genes_without_weight_do_not_count():
    y, root, weight, factors, d = made(0.3)
    weight[:50] = 0
    spoiled = y.copy()
    spoiled[:50] = 1e6
    for one, other in zip(
        (fit_slopes(y, root, weight, factors, d).slopes,),
        (fit_slopes(spoiled, root, weight, factors, d).slopes,),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_near_has_the_level_of_its_test():
    """Slopes of pure chance, b = g / |h| with d normal h: one of two is near in about 5% (binomial bounds of 2,000 draws)."""
    rng = np.random.default_rng(0)
    d = 10
    b = rng.normal(size=(2000, 2)) / np.sqrt(rng.chisquare(d, (2000, 2)))
    n = sum(near_contrast(one, d).any() for one in b)
    assert stats.binom.ppf(1e-4, 2000, 0.049) <= n <= stats.binom.ppf(1 - 1e-4, 2000, 0.051)


def test_deviates_have_the_p_values_of_t():
    t = np.array([[-6.0, -0.5, 0.0, 1.0, 12.0]])
    degrees = np.array([[5.0, 8.0, 12.0, 30.0, 20.0]])
    expected = stats.norm.isf(stats.t.sf(t, degrees))
    np.testing.assert_allclose(deviates(t, degrees), expected, atol=2e-4)
