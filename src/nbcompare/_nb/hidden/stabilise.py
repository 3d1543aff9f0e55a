"""Variance-stabilized residuals of counts, with the exact mean and standard deviation of the stabilized count."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from numba import njit
from scipy.stats import nbinom

LOG_MEANS = np.linspace(np.log(0.01), np.log(3000.0), 60)
LOG_DISPERSIONS = np.linspace(np.log(1e-4), np.log(20.0), 25)
SMALLEST_DISPERSION = 1e-4
SMALLEST_SD = 0.05
TABLE = Path(__file__).with_name("stabilised_moments.npy")


def residuals(counts: np.ndarray, means: np.ndarray, dispersions: np.ndarray) -> np.ndarray:
    """Stabilized counts less their mean, over their standard deviation, (n_genes, n_samples).

    e = (g(y) - E g(Y)) / sd g(Y), g(y) = 2 asinh(sqrt(phi (y + 3/8))) / sqrt(phi), Y negative binomial with mean m and dispersion phi.

    Parameters
    ----------
    counts
        (n_genes, n_samples) float64.
    means
        Fitted means, (n_genes, n_samples).
    dispersions
        (n_genes, 1 or n_samples).
    """
    out = np.empty(counts.shape)
    _residuals(
        np.ascontiguousarray(counts),
        np.ascontiguousarray(means),
        np.ascontiguousarray(np.maximum(dispersions, SMALLEST_DISPERSION)),
        stabilised_moments(),
        out,
    )
    return out


def stabilised(counts: np.ndarray, dispersion: np.ndarray | float) -> np.ndarray:
    """The stabilized count g(y): its variance is about one."""
    root = np.sqrt(dispersion)
    return np.asarray(2 / root * np.arcsinh(root * np.sqrt(counts + 0.375)))


@cache
def stabilised_moments() -> np.ndarray:
    """E g(Y) - g(m) and sd g(Y) on the grid of log means and log dispersions, (2, 60, 25), from the file of the package."""
    return np.asarray(np.load(TABLE))


def exact_moments(mean: float, dispersion: float) -> tuple[float, float]:
    """E g(Y) - g(m) and sd g(Y), summed over the counts that have all but 1e-10 of the probability."""
    size = 1 / dispersion
    chance = size / (size + mean)
    low, high = int(nbinom.ppf(1e-11, size, chance)), int(nbinom.isf(1e-10, size, chance))
    counts = np.arange(low, high + 1)
    weight = nbinom.pmf(counts, size, chance)
    weight /= weight.sum()
    values = stabilised(counts, dispersion)
    expected = values @ weight
    return float(expected - stabilised(np.array(mean), dispersion)), float(np.sqrt((values - expected) ** 2 @ weight))


def write_table() -> None:
    """Compute the table anew and write its file."""
    grid = [[exact_moments(mean, phi) for phi in np.exp(LOG_DISPERSIONS)] for mean in np.exp(LOG_MEANS)]
    np.save(TABLE, np.array(grid).transpose(2, 0, 1))


@njit(cache=True, nogil=True, error_model="numpy")
def _residuals(counts, means, dispersions, moments, out):
    for g in range(counts.shape[0]):
        for i in range(counts.shape[1]):
            phi = dispersions[g, i if dispersions.shape[1] > 1 else 0]
            root = math.sqrt(phi)
            bias, sd = _moments(math.log(max(means[g, i], 1e-9)), math.log(phi), moments)
            observed = math.asinh(root * math.sqrt(counts[g, i] + 0.375))
            expected = math.asinh(root * math.sqrt(means[g, i] + 0.375))
            out[g, i] = (2 / root * (observed - expected) - bias) / max(sd, SMALLEST_SD)


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(log_mean, log_phi, moments):
    """Bilinear between the points of the grid, the values of its edge beyond."""
    i, x = _cell(log_mean, LOG_MEANS)
    j, y = _cell(log_phi, LOG_DISPERSIONS)
    found = moments[:, i : i + 2, j : j + 2]
    bias = (1 - x) * ((1 - y) * found[0, 0, 0] + y * found[0, 0, 1]) + x * (
        (1 - y) * found[0, 1, 0] + y * found[0, 1, 1]
    )
    sd = (1 - x) * ((1 - y) * found[1, 0, 0] + y * found[1, 0, 1]) + x * ((1 - y) * found[1, 1, 0] + y * found[1, 1, 1])
    return bias, sd


@njit(cache=True, nogil=True, error_model="numpy")
def _cell(value, grid):
    """Where a value lies in an even grid: the point below, and the fraction of the way to the next."""
    at = (value - grid[0]) / (grid[1] - grid[0])
    at = min(max(at, 0.0), grid.shape[0] - 1.0)
    below = min(int(at), grid.shape[0] - 2)
    return below, at - below
