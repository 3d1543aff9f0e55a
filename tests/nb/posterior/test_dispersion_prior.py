"""What other groups say of a gene's dispersion: as wide as it is wrong, and nothing where they say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.dispersion.trend import prior_dispersion
from nbcompare._nb.posterior.dispersion_prior import Statistics, expected_dispersion, statistics_of_group

TREND = 0.1
N_GENES = 1500


def from_others_by(
    rng: np.random.Generator, phi: np.ndarray, mean: float, variance: float, n_groups: int, n: int
) -> Statistics:
    """Summed statistics of groups of n replicates."""
    shape = 1 / phi[:, None, None]
    counts = rng.poisson(mean * rng.gamma(shape, 1 / shape, (len(phi), n_groups, n))).astype(float)
    prior_phi = prior_dispersion(np.full(len(phi), mean), np.full(len(phi), TREND), variance)[0]
    of_group = [statistics_of_group(counts[:, k], np.ones((1, n)), prior_phi) for k in range(n_groups)]
    return Statistics(sum(one.statistic_sum for one in of_group), sum(one.df for one in of_group))


@pytest.mark.parametrize("mean", [5.0, 50.0, 500.0])
@pytest.mark.parametrize("sd", [0.4, 0.8])
@pytest.mark.parametrize(("n_groups", "n"), [(8, 2), (10, 3), (50, 3)])
def test_calibrated(mean: float, sd: float, n_groups: int, n: int) -> None:
    rng = np.random.default_rng(0)
    phi = TREND * np.exp(rng.normal(-0.5 * sd**2, sd, N_GENES))
    from_others = from_others_by(rng, phi, mean, sd**2, n_groups, n)
    found = expected_dispersion(np.full(N_GENES, mean), np.full(N_GENES, TREND), sd**2, from_others)
    error = np.log(phi) - found.log_dispersion
    deviate = error / found.log_dispersion_sd
    assert abs(deviate.mean()) < 0.15
    assert 0.9 < deviate.std() < 1.2
    assert abs((np.abs(deviate) < 1.645).mean() - 0.9) < 0.05
    assert (found.log_dispersion_sd <= sd + 1e-12).all()
    assert np.sqrt(np.mean(error**2)) < (sd if mean > 5 else 1.05 * sd)
    if mean == 500.0:
        assert np.median(found.log_dispersion_sd) == pytest.approx(
            np.sqrt(1 / (1 / sd**2 + 0.5 * n_groups * (n - 1))), rel=0.1
        )


def test_nothing_shared_is_the_trend() -> None:
    mean, trend = np.array([1.0, 30.0, 1e4]), np.array([0.5, 0.1, 0.02])
    nothing = Statistics(np.zeros(3), np.zeros(3))
    for from_others in (None, nothing):
        found = expected_dispersion(mean, trend, 0.49, from_others)
        np.testing.assert_allclose(found.log_dispersion, np.log(trend) - 0.245)
        np.testing.assert_allclose(found.log_dispersion_sd, 0.7)


@pytest.mark.parametrize("mean", [5.0, 500.0])
def test_the_error_of_a_trend_of_few_genes(mean: float) -> None:
    """A trend whose relative variance is off by a log-normal error: the spread covers it, and does not without."""
    rng = np.random.default_rng(2)
    sd, error = 0.4, 0.3
    phi = TREND * np.exp(rng.normal(-0.5 * sd**2, sd, 20_000))
    trend = (TREND + 1 / mean) * np.exp(rng.normal(-0.5 * error, np.sqrt(error), 20_000)) - 1 / mean
    seen = trend > 0.02  # others are not told from none
    known, unknown = (
        expected_dispersion(np.full(seen.sum(), mean), trend[seen], sd**2, None, share) for share in (error, 0.0)
    )
    deviates = [(np.log(phi[seen]) - one.log_dispersion) / one.log_dispersion_sd for one in (known, unknown)]
    assert 0.7 < np.sqrt(np.mean(deviates[0] ** 2)) < 1.2
    assert np.sqrt(np.mean(deviates[1] ** 2)) > 1.5
    nothing = expected_dispersion(np.full(3, mean), np.full(3, TREND), sd**2, None, 1e3)
    np.testing.assert_allclose(nothing.log_dispersion_sd, 2.0)


def test_groups_are_taken_off() -> None:
    rng = np.random.default_rng(1)
    one, two = (Statistics(rng.gamma(3, 1, 5), rng.gamma(3, 1, 5)) for _ in range(2))
    both = Statistics(one.statistic_sum + two.statistic_sum, one.df + two.df)
    np.testing.assert_allclose(both.without(one).statistic_sum, two.statistic_sum)
    np.testing.assert_allclose(both.without(one).df, two.df)
    left = both.without(one, two)
    assert not left.df.any()
    assert not left.statistic_sum.any()
    np.testing.assert_allclose(both.after(2.0).df, both.df / 2)


def test_a_gene_without_any_spread_stays_finite() -> None:
    from_others = Statistics(np.zeros(2), np.array([50.0, 5000.0]))
    found = expected_dispersion(np.array([100.0, 100.0]), np.array([0.1, 0.1]), 0.5, from_others)
    assert np.isfinite(found.log_dispersion).all()
    assert (found.log_dispersion >= np.log(1e-4)).all()
    assert (found.log_dispersion_sd > 0).all()
