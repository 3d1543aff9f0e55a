"""Laplace approximations and features, against scipy's densities and a general maximiser, under priors of both families."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from nbcompare._nb.posterior.prior import inverse_gamma_shape
from nbcompare._transformer import layout
from nbcompare._transformer.cpu.evaluate import DISPERSIONS, POINTS, add_log_rising_factorial, add_rates
from nbcompare._transformer.cpu.features import compute_features, compute_features_into
from nbcompare._transformer.training.simulate import Simulated


def log_density(y: np.ndarray, mean: np.ndarray, phi: float) -> float:
    return stats.nbinom.logpmf(y, 1 / phi, 1 / (1 + phi * mean)).sum()


def log_prior_alpha(alpha: float, location: float, log_dispersion_sd: float, tail: float) -> float:
    if not tail:
        return stats.norm.logpdf(alpha, location, log_dispersion_sd)
    shape = float(inverse_gamma_shape(np.array([log_dispersion_sd]))[0])
    rate = np.exp(location + stats.loggamma.stats(shape, moments="m"))
    return stats.invgamma.logpdf(np.exp(alpha), shape, scale=rate) + alpha


def objective(x: np.ndarray, two_groups, prior: np.ndarray, *, equal: bool) -> float:
    """Log posterior less half the log determinant of the expected information on centre and beta."""
    log_mean, log_mean_sd, location, log_dispersion_sd, tail, _, scale = prior
    alpha, centre, beta = (*x, 0.0) if equal else x
    value = log_prior_alpha(alpha, location, log_dispersion_sd, tail) + stats.norm.logpdf(centre, log_mean, log_mean_sd)
    phi = np.exp(alpha)
    information = np.diag([1 / log_mean_sd**2, 1 / scale**2])
    for (y, l), sign in zip(two_groups, (-0.5, 0.5), strict=True):
        mean = l * np.exp(centre + sign * beta)
        value += log_density(y, mean, phi)
        direction = np.array([1.0, sign])
        information += np.outer(direction, direction) * (mean / (1 + phi * mean)).sum()
    if equal:
        return value - 0.5 * np.log(information[0, 0])
    return value + stats.norm.logpdf(beta, 0, scale) - 0.5 * np.linalg.slogdet(information)[1]


@pytest.fixture(scope="module")
def usual(drawn: Simulated) -> list[int]:
    """Simulated whose dispersion scipy can handle."""
    return [i for i in range(len(drawn.null)) if -5 < drawn.truth[i, 0] < 1.5 and drawn.counts1[i].max() < 1e5][:12]


@pytest.mark.parametrize("equal", [False, True])
def test_modes(drawn: Simulated, usual: list[int], equal: bool) -> None:
    found = compute_features(drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2, drawn.prior)
    for i in usual:
        two_groups = [
            (counts[i][exposure[i] > 0], exposure[i][exposure[i] > 0])
            for counts, exposure in ((drawn.counts1, drawn.exposure1), (drawn.counts2, drawn.exposure2))
        ]
        start, spread = (
            (found.laplace[i, 9:11], found.laplace[i, [11, 13]])
            if equal
            else (found.laplace[i, :3], found.laplace[i, [3, 5, 8]])
        )
        top = minimize(
            lambda x, two_groups=two_groups, i=i: -objective(x, two_groups, drawn.prior[i], equal=equal),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-5},
        )
        # Centre and beta lie at the mode given alpha; that they move with alpha's shift by their own spread is allowed for.
        assert np.all(np.abs(top.x - start) < 0.1 * spread + 0.02), (i, top.x, start)


def test_probes() -> None:
    """The log likelihood at several places, against scipy, with counts on both sides of 10."""
    rng = np.random.default_rng(1)
    y = np.array([0.0, 1, 2, 9, 10, 11, 40, 3000, 7, 5, 3, 8, 10])
    l = rng.uniform(0.5, 2, len(y))
    alpha = np.linspace(-9, 4, POINTS)
    eta = rng.normal(2, 1, POINTS)
    rates, log_rising = np.zeros(POINTS), np.zeros(DISPERSIONS)
    add_rates(y, l, np.exp(alpha + eta), np.exp(-alpha), rates)
    phi = np.exp(alpha[:DISPERSIONS])
    add_log_rising_factorial(y, phi, 1 / phi, np.empty(DISPERSIONS), log_rising)
    for j in range(DISPERSIONS):
        mean = l * np.exp(eta[j])
        expected = log_density(y, mean, phi[j])
        found = rates[j] + log_rising[j] + (y * np.log(mean)).sum()
        found -= np.array([np.sum(np.log(np.arange(1, k + 1))) for k in y]).sum()
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-6)


def test_columns_are_those_of_the_tables() -> None:
    """The trained weights depend on the order."""
    assert (layout.N_EVEN, layout.N_GROUP, layout.N_ODD, layout.N_FEATURES) == (33, 9, 4, 55)
    for features, start in ((layout.EVEN, 0), (layout.GROUP, 0), (layout.ODD, layout.FIRST_ODD)):
        named = [getattr(layout, feature.name.upper()) for feature in features]
        assert named == layout.first_columns(features, start)
    assert layout.LOG_BAYES_FACTOR == layout.N_LAPLACE - 1


def test_every_feature_is_written(drawn: Simulated) -> None:
    laplace = np.full((20, layout.N_LAPLACE), np.nan)
    features = np.full((20, layout.N_FEATURES), np.nan, dtype=np.float32)
    two_groups = [array[:20] for array in (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)]
    compute_features_into(two_groups, drawn.prior[:20], slice(None), laplace, features)
    assert np.isfinite(laplace).all()
    assert np.isfinite(features).all()


def test_the_table_of_the_docs_is_that_of_the_features() -> None:
    text = (Path(__file__).parents[3] / "docs" / "transformer.md").read_text()
    for features in (layout.EVEN, layout.GROUP, layout.ODD):
        assert layout.as_markdown(features) in text
