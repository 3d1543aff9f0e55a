"""The trend of a design comes to rest at its bins' roots, also where the design leaves few residual degrees of freedom."""

import numpy as np
import pytest

from nbcompare._nb.dispersion.trend import Brackets, mean_bins
from nbcompare._nb.glm.dispersion.trend import design_statistics, fit_design_trend
from nbcompare._nb.glm.fit.design import design_matrices


def donors_and_batches():
    """Eight donors in both groups and four batches: 16 samples, 12 coefficients."""
    donor, batch = np.repeat(np.arange(8), 2), np.eye(4)[(np.arange(16) * 3 // 2) % 4][:, 1:]
    return np.column_stack([np.ones(16), np.tile([0, 1.0], 8), np.eye(8)[donor][:, 1:], batch])


def visits():
    """Two groups of four donors, three visits with dropouts: 20 samples, 12 coefficients."""
    efficiency = np.sort(np.random.default_rng(1).permutation(24)[:20])
    donor, visit = np.repeat(np.arange(8), 3)[efficiency], np.eye(3)[np.tile([0, 1, 2], 8)[efficiency]][:, 1:]
    return np.column_stack([np.eye(8)[donor], visit, visit * (donor % 2)[:, None]])


def pairs():
    return np.column_stack([np.eye(8)[np.repeat(np.arange(8), 2)], np.tile([0, 1.0], 8)])


def simulate(n, seed=1, n_genes=8000):
    """Counts with means of .7 to 300, and the dispersion expected at a mean."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(np.log(0.7), np.log(300), n_genes))
    phi = 0.08 * (1 + 5 / mean) * rng.lognormal(0, 0.5, n_genes)
    exposure = np.exp(0.3 * rng.normal(size=n))
    m = mean[:, None] * exposure
    counts = rng.poisson(m * rng.gamma(1 / phi[:, None], phi[:, None], m.shape)).astype(float)
    return counts, np.log(exposure)[None], lambda at: 0.08 * (1 + 5 / at) * np.exp(0.125)


@pytest.mark.parametrize("design", [donors_and_batches(), visits(), pairs()])
def test_every_bin_of_the_trend_is_at_its_root(design):
    """A step of full length jumps between two dispersions for ever in bins of mean 1-3; truth within 20 % there."""
    counts, offset, truth = simulate(len(design))
    matrices = design_matrices(design, [])
    usable = counts.sum(axis=1) >= 10
    trend = fit_design_trend(counts, offset, matrices, usable)
    counts = counts[usable]
    mean = counts.mean(axis=1)
    out, _ = design_statistics(counts, offset, matrices, trend.at(mean))
    bins = mean_bins(np.argsort(mean, kind="stable"), mean)
    assert len(bins) > 8
    for b in bins:
        numerator, degrees = out[b, :2].sum(axis=0)
        if degrees > 50:
            assert abs(numerator / degrees - 1) < 0.05
    informative = trend.mean > 1  # genes of fewer counts are those that pass the filter
    np.testing.assert_allclose(trend.dispersion[informative], truth(trend.mean[informative]), rtol=0.2)


def test_brackets_find_roots_that_the_step_jumps_over():
    """S - 1 = (root / phi)^4 - 1: the step phi (1 + S - 1) never comes to rest, from either side."""
    root, phi = np.array([0.2, 0.03, 1.0]), np.array([0.1, 0.1, 0.1])
    plain, brackets = phi.copy(), Brackets.none(3)
    for _ in range(16):
        excess = (root / phi) ** 4 - 1
        phi = brackets.next(phi, excess, np.clip(phi * (1 + excess), 0.2 * phi, 5 * phi))
        excess = (root / plain) ** 4 - 1
        plain = np.clip(plain * (1 + excess), 0.2 * plain, 5 * plain)
    assert (np.abs(np.log(plain / root)) > 0.1).any()
    np.testing.assert_allclose(phi, root, rtol=0.01)


def test_brackets_follow_a_root_that_moves_and_leave_bins_without_information():
    phi, brackets = np.array([0.1, 0.7]), Brackets.none(2)
    for step in range(40):
        root = 0.2 if step < 10 else 0.5
        excess = np.array([root / phi[0] - 1, np.nan])
        phi = brackets.next(phi, excess, np.clip(phi * (1 + excess), 0.2 * phi, 5 * phi))
    np.testing.assert_allclose(phi, [0.5, 0.7], rtol=0.02)
