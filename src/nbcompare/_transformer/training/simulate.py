"""The training distribution: tests of every kind that a data set may hold, each with its own prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.posterior.prior import FAMILY, INVERSE_GAMMA, LOG_FC_SD, LOG_MEAN, LOG_MEAN_SD, NULL_PROPORTION
from nbcompare._transformer.cpu.features import laplace_prior
from nbcompare._transformer.training_range import HIGHEST_LOG_MEAN, Ranges


@dataclass(frozen=True)
class Simulated:
    """Simulated tests with what is true of them."""

    counts1: np.ndarray  # (n, n_most) float64
    exposure1: np.ndarray  # (n, n_most), 0 = absent
    counts2: np.ndarray
    exposure2: np.ndarray
    prior: np.ndarray  # (n, 7), columns of `Prior`
    truth: np.ndarray  # (n, 3) alpha, centre, beta
    null: np.ndarray  # (n,) bool, beta = 0


def simulate(
    rng: np.random.Generator, n_tests: int, ranges: Ranges, *, null_proportion: np.ndarray | float = 0.5
) -> Simulated:
    """Fresh tests. In training half of them are null, whatever the share in the data: the network learns the Bayes factor."""
    prior = draw_prior(rng, n_tests, ranges)
    prior[:, NULL_PROPORTION] = null_proportion
    truth, null = draw_truth(rng, prior)
    present = [replicates(rng, n_tests, ranges)]
    other = replicates(rng, n_tests, ranges)
    present.append(np.where(rng.random(n_tests) < 0.5, present[0], other))
    spread = rng.uniform(*ranges.exposure_sd, n_tests) * (rng.random(n_tests) > 0.1)
    deeper = rng.normal(0.0, 1.5, n_tests) * (rng.random(n_tests) < 0.3)
    groups: list[np.ndarray] = []
    for n, sign in zip(present, (-0.5, 0.5), strict=True):
        eta = truth[:, 1] + sign * truth[:, 2]
        groups += draw_group(rng, n, eta, truth[:, 0], spread, sign * deeper)
    counts1, exposure1, counts2, exposure2 = groups
    return Simulated(counts1, exposure1, counts2, exposure2, prior, truth, null)


def draw_prior(rng: np.random.Generator, n: int, ranges: Ranges) -> np.ndarray:
    """A prior for each test, columns of `Prior`."""
    log_uniform = lambda low, high: np.exp(rng.uniform(np.log(low), np.log(high), n))
    low, high = np.log(ranges.dispersion)
    usual = np.clip(rng.normal(-2.0, 1.3, n), low, high)
    least, most = ranges.log_dispersion_sd
    log_dispersion_sd = rng.uniform(least, most, n)
    small = log_uniform(1e-3, 0.1)
    log_dispersion_sd = np.where((rng.random(n) < 0.1) & (least < small), np.minimum(small, most), log_dispersion_sd)
    log_mean_sd = log_uniform(*ranges.log_mean_sd)
    lowest, highest = np.log(ranges.mean)
    highest = np.maximum(np.minimum(highest, HIGHEST_LOG_MEAN - 1.5 * log_mean_sd), lowest)
    return np.stack(
        [
            rng.uniform(lowest, highest),
            log_mean_sd,
            np.where(rng.random(n) < 0.5, rng.uniform(low, high, n), usual),
            log_dispersion_sd,
            (rng.random(n) < ranges.heavy_share).astype(np.float64),
            np.full(n, 0.5),
            log_uniform(*ranges.scale),
        ],
        axis=1,
    )


def draw_truth(rng: np.random.Generator, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (alpha, centre, beta) from the prior, and whether beta = 0."""
    n = len(prior)
    _, _, location, spread, shape, rate, _ = laplace_prior(prior).T
    heavy = prior[:, FAMILY] == INVERSE_GAMMA
    inverse = np.log(np.where(heavy, rate, 1.0)) - log_gamma_draw(rng, np.where(heavy, shape, 1.0))
    alpha = np.where(heavy, inverse, location + spread * rng.standard_normal(n))
    centre = prior[:, LOG_MEAN] + prior[:, LOG_MEAN_SD] * rng.standard_normal(n)
    null = rng.random(n) < prior[:, NULL_PROPORTION]
    beta = np.where(null, 0.0, prior[:, LOG_FC_SD] * rng.standard_normal(n))
    return np.stack([alpha, centre, beta], axis=1), null


def log_gamma_draw(rng: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    """Log of gamma variates, without underflow at small shapes."""
    return np.log(rng.standard_gamma(shape + 1.0)) + np.log(rng.random(len(shape))) / shape


def replicates(rng: np.random.Generator, n: int, ranges: Ranges) -> np.ndarray:
    """Numbers of replicates."""
    low, high = ranges.replicates
    usual = rng.integers(min(max(low, 2), high), min(10, high) + 1, n)
    any_number = np.exp(rng.uniform(np.log(low), np.log(high + 1), n)).astype(np.int64)
    return np.where(rng.random(n) < 0.7, usual, np.minimum(any_number, high))


def draw_group(rng, n: np.ndarray, eta, alpha, spread, shift) -> list[np.ndarray]:
    """Counts and exposures of a group, ragged: a test's replicates first, exposure 0 behind them."""
    width = int(n.max())
    here = np.arange(width) < n[:, None]
    rows = np.repeat(np.arange(len(n)), n)
    exposure = np.exp(shift[rows] + spread[rows] * rng.standard_normal(len(rows)))
    mean = exposure * np.exp(eta[rows])
    shape = np.exp(-alpha[rows])
    gamma_factor = np.where(shape > 1e8, 1.0, rng.standard_gamma(np.minimum(shape, 1e8)) / shape)
    counts = rng.poisson(np.minimum(mean * gamma_factor, 1e12))
    padded_counts, padded_exposure = np.zeros((len(n), width)), np.zeros((len(n), width))
    padded_counts[here] = counts
    padded_exposure[here] = exposure
    return [padded_counts, padded_exposure]
