from __future__ import annotations

import numpy as np

from nbcompare._nb.dispersion.trend import mean_bins
from nbcompare._nb.hidden.moderation import mean_trend, moderate_squares


def brute_force(squares, degrees, mean, rho, log_dispersion_var):
    """The formulas gene by gene."""
    bins = mean_bins(np.argsort(mean, kind="stable"), mean)
    knots = [np.log(mean[b]).mean() for b in bins]
    levels = [np.log(squares[b].mean()) for b in bins]
    variance, total = [], []
    for g in range(len(mean)):
        level = np.exp(np.interp(np.log(mean[g]), knots, levels))
        left = min(max(1 - (1 - rho[g]) / level, 0), 1)
        x = log_dispersion_var * max(left, 1e-3) ** 2
        d0 = 1 + 2 / max(x, 1e-6)
        k = x / 2 + 1 / d0 + 1 / (3 * d0**2)
        variance.append(max((d0 * level * np.exp(-k) + degrees * squares[g]) / (d0 + degrees), 0.02))
        total.append(d0 + degrees)
    return np.array(variance), np.array(total)


def test_moderated_squares_are_the_formula():
    rng = np.random.default_rng(0)
    mean = np.exp(rng.uniform(0, 7, 900))
    rho = 0.1 * mean / (1 + 0.1 * mean)
    squares = rng.chisquare(6, 900) / 6 * rng.lognormal(0, 0.4, 900)
    found = moderate_squares(squares, 6, mean_trend(mean), rho, 0.5)
    variance, degrees = brute_force(squares, 6, mean, rho, 0.5)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-10)
    np.testing.assert_allclose(found.degrees, degrees, rtol=1e-10)


def test_spread_is_found_where_it_is_not_given():
    """Chi-squared means times log-normal variances of sd 0.7: the scatter 0.49 is found within 25%."""
    rng = np.random.default_rng(2)
    mean = np.exp(rng.uniform(4, 8, 4000))
    squares = rng.chisquare(12, 4000) / 12 * rng.lognormal(-0.245, 0.7, 4000)
    found = moderate_squares(squares, 12, mean_trend(mean), np.full(4000, 0.97))
    assert 0.37 < found.log_dispersion_var < 0.61


def test_few_genes_share_one_level():
    found = moderate_squares(np.array([0.5, 1.0, 1.5]), 6, mean_trend(np.array([5.0, 5.0, 9.0])), np.full(3, 0.5))
    assert (np.diff(found.variance) > 0).all()
