"""Modes of the log rates of both groups at fixed dispersions, and the integrals over both by Laplace's method."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.posterior.group_likelihood import slopes, value

LOG_TWO_PI = math.log(2.0 * math.pi)

# Rows of `modes`, (2, 6), and their entries.
CHANGE, NULL = range(2)
# Given a change: both log rates, minus the second derivative of each group's log likelihood, slopes of the log prior.
RATE1, RATE2, CURVATURE1, CURVATURE2, SLOPE1, SLOPE2 = range(6)
# Without one: the log rate, minus the second derivative of the log posterior, slope of the log prior.
RATE, CURVATURE, SLOPE = range(3)


class Groups(NamedTuple):
    """Counts and exposures of the reference (1) and the treated group (2): of one test, or with a row for each test."""

    y1: np.ndarray
    l1: np.ndarray
    y2: np.ndarray
    l2: np.ndarray


class Conditional(NamedTuple):
    """Both groups of one test, the dispersion of each given."""

    y1: np.ndarray
    l1: np.ndarray
    y2: np.ndarray
    l2: np.ndarray
    phi1: float
    phi2: float


@njit(cache=True, nogil=True, error_model="numpy")
def prior_precision(prior):
    """Information of the prior on each log rate, and between them."""
    s0, sigma = prior.log_mean_sd, prior.log_fc_sd
    return 0.25 / (s0 * s0) + 1.0 / (sigma * sigma), 0.25 / (s0 * s0) - 1.0 / (sigma * sigma)


@njit(cache=True, nogil=True, error_model="numpy")
def maximize_change(data, prior, mode):
    """Mode of both log rates by Newton's steps from where `mode` has them, which is filled."""
    m0, s0, sigma = prior.log_mean, prior.log_mean_sd, prior.log_fc_sd
    along, across = prior_precision(prior)
    first, second = mode[RATE1], mode[RATE2]
    for _ in range(40):
        slope1, bend1 = slopes(data.y1, data.l1, first, data.phi1)
        slope2, bend2 = slopes(data.y2, data.l2, second, data.phi2)
        to_centre = -0.5 * (0.5 * (first + second) - m0) / (s0 * s0)
        together = (second - first) / (sigma * sigma)
        mode[RATE1], mode[RATE2], mode[CURVATURE1], mode[CURVATURE2] = first, second, bend1, bend2
        mode[SLOPE1], mode[SLOPE2] = to_centre + together, to_centre - together
        a, d = bend1 + along, bend2 + along
        g1, g2 = slope1 + mode[SLOPE1], slope2 + mode[SLOPE2]
        determinant = a * d - across * across
        step1 = (d * g1 - across * g2) / determinant
        step2 = (a * g2 - across * g1) / determinant
        if abs(step1) * math.sqrt(a) < 0.02 and abs(step2) * math.sqrt(d) < 0.02:
            break
        longest = max(abs(step1), abs(step2))
        shrink = 2.0 / longest if longest > 2.0 else 1.0
        first += shrink * step1
        second += shrink * step2


@njit(cache=True, nogil=True, error_model="numpy")
def maximize_null(data, prior, mode):
    """Mode of the log rate that both groups share, from where `mode` has it, which is filled."""
    m0, s0 = prior.log_mean, prior.log_mean_sd
    eta = mode[RATE]
    for _ in range(40):
        slope1, bend1 = slopes(data.y1, data.l1, eta, data.phi1)
        slope2, bend2 = slopes(data.y2, data.l2, eta, data.phi2)
        mode[RATE], mode[CURVATURE], mode[SLOPE] = eta, bend1 + bend2 + 1.0 / (s0 * s0), -(eta - m0) / (s0 * s0)
        step = (slope1 + slope2 + mode[SLOPE]) / mode[CURVATURE]
        if abs(step) * math.sqrt(mode[CURVATURE]) < 0.02:
            break
        eta += max(min(step, 2.0), -2.0)


@njit(cache=True, nogil=True, error_model="numpy")
def laplace_change(data, prior, mode):
    """Log of the integral over both log rates by Laplace's method, without the terms of the dispersions alone."""
    along, across = prior_precision(prior)
    determinant = (mode[CURVATURE1] + along) * (mode[CURVATURE2] + along) - across * across
    return peak_change(data, prior, mode) + LOG_TWO_PI - 0.5 * math.log(determinant)


@njit(cache=True, nogil=True, error_model="numpy")
def laplace_null(data, prior, mode):
    """The same where both groups share their log rate."""
    return peak_null(data, prior, mode) + 0.5 * LOG_TWO_PI - 0.5 * math.log(mode[CURVATURE])


@njit(cache=True, nogil=True, error_model="numpy")
def peak_change(data, prior, mode):
    """Log of likelihood times prior at the mode."""
    first, second, s0, sigma = mode[RATE1], mode[RATE2], prior.log_mean_sd, prior.log_fc_sd
    centre = (0.5 * (first + second) - prior.log_mean) / s0
    difference = (second - first) / sigma
    log_prior = -0.5 * (centre * centre + difference * difference) - LOG_TWO_PI - math.log(s0 * sigma)
    return value(data.y1, data.l1, first, data.phi1) + value(data.y2, data.l2, second, data.phi2) + log_prior


@njit(cache=True, nogil=True, error_model="numpy")
def peak_null(data, prior, mode):
    """Log of likelihood times prior at the mode of the shared log rate."""
    eta, s0 = mode[RATE], prior.log_mean_sd
    centre = (eta - prior.log_mean) / s0
    log_prior = -0.5 * centre * centre - 0.5 * LOG_TWO_PI - math.log(s0)
    return value(data.y1, data.l1, eta, data.phi1) + value(data.y2, data.l2, eta, data.phi2) + log_prior
