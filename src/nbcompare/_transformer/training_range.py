"""What a network was trained on, and whether tests lie within it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from nbcompare._nb.posterior.prior import Prior, prior_matrix, with_one_dispersion

MOST_REPLICATES = 64  # of a group in training
MOST_MEASURED = 3000  # replicates of a group up to which the network was found as close to quadrature as below 64
CONFLICT = 5.0  # prior standard deviations from the prior's mean, where data and prior contradict each other
HIGHEST_LOG_MEAN = 14.5  # one and a half standard deviations above the prior's mean: counts of millions are rare


@dataclass(frozen=True)
class Ranges:
    """Bounds of the training distribution; natural logarithms but for counts and dispersions.

    The names are those in the files of weights.
    """

    mean: tuple[float, float] = (0.02, 1e5)  # the prior's mean count, log-uniform
    log_mean_sd: tuple[float, float] = (0.3, 4.0)  # log-uniform
    dispersion: tuple[float, float] = (1e-4, 10.0)  # the trend: half of the tests log-uniform, half around .14
    log_dispersion_sd: tuple[float, float] = (
        0.0,
        1.25,
    )  # sd of log dispersion, uniform; one in ten below .1 log-uniform
    scale: tuple[float, float] = (0.08, 2.2)  # sd of log fold changes, log-uniform
    exposure_sd: tuple[float, float] = (0.0, 1.5)  # of log exposure, uniform
    replicates: tuple[int, int] = (1, MOST_REPLICATES)  # seven in ten uniform on 2..10, the others log-uniform
    heavy_share: float = 0.5  # of tests with inverse-gamma dispersions

    def as_dict(self) -> dict:
        """The bounds by name."""
        return asdict(self)


def in_range(
    counts1: np.ndarray,
    exposure1: np.ndarray,
    counts2: np.ndarray,
    exposure2: np.ndarray,
    prior: Prior,
    *,
    ranges: Ranges,
) -> np.ndarray:
    """Whether each test lies where a network that was trained on these `ranges` can be used, (n_tests,) bool.

    Its prior must lie within the bounds of the training distribution, both groups must have the same dispersion ratio and 1 to 3,000
    replicates present, and the groups' rates and their ratio must be within five standard deviations of what the prior says.
    """
    prior, alike = with_one_dispersion(prior, len(counts1))
    log_mean, log_mean_sd, location, spread, family, _, sigma = prior_matrix(prior, len(counts1)).T
    rates, depths, numbers, logs = [], [], [], np.zeros(1)
    for counts, exposure in ((counts1, exposure1), (counts2, exposure2)):
        exposure = np.atleast_2d(np.asarray(exposure, dtype=np.float64))
        present = exposure > 0
        numbers.append(present.sum(axis=1))
        depths.append(_sums(exposure))
        weight = present.astype(np.float64)
        total = counts @ weight[0] if len(weight) == 1 else np.einsum("ij,ij->i", counts, weight)
        rates.append(np.log((total + 0.5) / depths[-1]))
        logs = logs + _sums(np.log(np.where(present, exposure, 1.0)))
    count = log_mean + logs / (numbers[0] + numbers[1])
    within = lambda x, low, high: (x >= low - 1e-9) & (x <= high + 1e-9)
    least = np.sqrt(sum(1.0 / np.maximum(np.exp(rate) * depth, 0.5) for rate, depth in zip(rates, depths, strict=True)))
    standard_error = np.hypot(least, np.exp(0.5 * np.minimum(location, 4.0)) * np.sqrt(1 / numbers[0] + 1 / numbers[1]))
    fold = np.abs(rates[1] - rates[0])
    centre = np.abs(0.5 * (rates[0] + rates[1]) - log_mean)
    return (
        alike
        & within(
            count, np.log(ranges.mean[0]), np.minimum(np.log(ranges.mean[1]), HIGHEST_LOG_MEAN - 1.5 * log_mean_sd)
        )
        & within(log_mean_sd, *ranges.log_mean_sd)
        & within(location, *np.log(ranges.dispersion))
        & within(spread, *ranges.log_dispersion_sd)
        & within(sigma, *ranges.scale)
        & within(family, 0.0, 1.0)
        & within(np.minimum(*numbers), ranges.replicates[0], np.inf)
        & within(np.maximum(*numbers), 1, max(ranges.replicates[1], MOST_MEASURED))
        & (fold <= CONFLICT * np.hypot(sigma, standard_error))
        & (centre <= CONFLICT * np.hypot(log_mean_sd, 0.5 * standard_error))
    )


def _sums(rows: np.ndarray) -> np.ndarray:
    """Sums of rows, added up one after the other, so that zeros behind a row do not change the last digit."""
    return np.cumsum(rows, axis=1)[:, -1]
