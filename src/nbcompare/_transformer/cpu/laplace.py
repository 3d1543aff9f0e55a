"""Laplace approximations: the posterior's mode and its curvature there, given that the groups differ, and given that they do not.

Two groups of counts y with exposures l are NB(l exp(eta_g), phi), alpha = log phi. The prior is normal in centre = (eta_1 + eta_2) / 2 and in
beta = eta_2 - eta_1, and normal or log-inverse-gamma in alpha. Newton's method maximizes the log posterior
of (eta_1, eta_2, alpha), and of (centre, alpha) where beta = 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.log_pmf import SMALL, mean_slopes, rising_factorial_slopes
from nbcompare._nb.numerics.special import digamma_minus_log, fast_log1p
from nbcompare._transformer.layout import (
    L_ALPHA,
    L_BETA,
    L_BETA_ALPHA,
    L_BETA_CENTRE,
    L_CENTRE,
    L_CENTRE_ALPHA,
    MODE_ALPHA,
    MODE_BETA,
    MODE_CENTRE,
)

MAX_STEPS = 40
PATIENCE = 10
TOLERANCE = 2e-3  # of the last step's square in posterior standard deviations: what is left is of the order of it
LOWEST_ALPHA = -18.0
HIGHEST_ALPHA = 8.0


class LaplacePrior(NamedTuple):
    """The prior of one test, a row of `summaries.laplace_prior`."""

    log_mean: float
    log_mean_sd: float
    log_dispersion: float
    log_dispersion_sd: float
    shape: float  # of the inverse gamma of phi, 0 for the log-normal
    rate: float
    log_fc_sd: float


class GroupData(NamedTuple):
    """Replicates of one group of one test that are present, and their sums."""

    counts: np.ndarray
    exposure: np.ndarray
    total: float  # of the counts
    depth: float  # sum of the exposures
    zeros: float  # replicates without counts


class Slopes(NamedTuple):
    """Derivatives of the log likelihood of one group."""

    eta: float  # slope in eta
    curvature: float  # minus the second derivative in eta
    phi: float  # slope in phi
    phi_curvature: float
    mixed: float
    information: float  # expected, on eta
    falling: float  # minus the slope of the information in alpha
    fall_slope: float  # slope of that


@njit(cache=True, nogil=True, error_model="numpy")
def prior_of(row, shift):
    """The prior in a row of `summaries.laplace_prior`, the unit of exposure moved by `shift`."""
    return LaplacePrior(row[0] + shift, row[1], row[2], row[3], row[4], row[5], row[6])


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_alpha(alpha, prior):
    """Log density of alpha, its slope and minus its curvature; `shape` > 0 for the inverse-gamma family, exp(-shape alpha - rate exp(-alpha))."""
    location, spread, shape, rate = prior.log_dispersion, prior.log_dispersion_sd, prior.shape, prior.rate
    if shape > 0.0:
        tail = rate * math.exp(-alpha)
        return shape * (math.log(rate) - alpha) - tail - math.lgamma(shape), tail - shape, tail
    d = (alpha - location) / spread
    return -0.5 * d * d - math.log(spread) - 0.9189385332046727, -d / spread, 1.0 / (spread * spread)


@njit(cache=True, nogil=True, error_model="numpy")
def group_slopes(group, eta, phi, digammas, small_sums):
    """`Slopes` of a group; `digammas` is `digamma_minus_log(1 / phi)`.

    `small_sums` holds, for counts up to 10, the sums over j < y of j / (1 + phi j) and of its square.
    """
    y, l = group.counts, group.exposure
    digamma, trigamma = digammas
    rate = math.exp(eta)
    k = 1.0 / phi
    slope = 0.0
    curvature = 0.0
    first = 0.0
    second = 0.0
    mixed = 0.0
    expected = 0.0
    falling = 0.0
    fall_slope = 0.0
    for i in range(y.shape[0]):
        m = l[i] * rate
        f = 1.0 / (1.0 + phi * m)
        e = (y[i] - m) * f
        slope += e
        curvature += m * f * (1.0 + phi * y[i]) * f
        mixed -= e * m * f
        w = m * f
        x = phi * w
        expected += w
        falling += x * w
        fall_slope += x * w * (2.0 * f - 1.0)
        if x < SMALL:
            a, b = mean_slopes(y[i], m, phi)
            first += a
            second += b
        else:
            a = k * k * (fast_log1p(phi * m) - x)
            first += a - y[i] * w
            second += k * (w * w - 2.0 * a) + y[i] * w * w
        if y[i] > 10.0:
            c, d = rising_factorial_slopes(y[i], phi, digamma, trigamma)
            first += c
            second += d
        elif y[i] > 1.0:
            first += small_sums[int(y[i]), 0]
            second -= small_sums[int(y[i]), 1]
    return Slopes(slope, curvature, first, second, mixed, expected, falling, fall_slope)


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_moments(group, phi):
    """Rate of a group by weights 1/(1 + phi m); numerator and denominator of a moment estimate of the dispersion with squared weights."""
    y, l = group.counts, group.exposure
    slope = phi * group.total / group.depth
    above = 0.0
    below = 0.0
    for i in range(y.shape[0]):
        w = 1.0 / (1.0 + slope * l[i])
        above += w * y[i]
        below += w * l[i]
    rate = above / below
    n = y.shape[0]
    if n < 2:
        return rate, 0.0, 0.0
    correction = n / (n - 1.0)
    above = 0.0
    below = 0.0
    for i in range(n):
        m = rate * l[i]
        w = 1.0 / (1.0 + phi * m)
        e = (y[i] - m) * w
        above += correction * e * e - m * w * w
        below += m * w * m * w
    return rate, above, below


@njit(cache=True, nogil=True, error_model="numpy")
def find_start(group1, group2, prior, start):
    """Where to start from: weighted rates, and a dispersion by moments, both drawn towards the prior."""
    location, sigma = prior.log_dispersion, prior.log_fc_sd
    phi = math.exp(location)
    rate1, above1, below1 = weighted_moments(group1, phi)
    rate2, above2, below2 = weighted_moments(group2, phi)
    variance = prior.log_mean_sd * prior.log_mean_sd + 0.25 * sigma * sigma
    expected = math.exp(prior.log_mean)
    counts = 1.0 / variance  # the prior is worth so many counts, at its mean
    eta1 = math.log((rate1 * group1.depth + counts) / (group1.depth + counts / expected))
    eta2 = math.log((rate2 * group2.depth + counts) / (group2.depth + counts / expected))
    start[0] = location
    n = group1.counts.shape[0] + group2.counts.shape[0]
    if below1 + below2 > 0.0:
        estimate = max((above1 + above2) / (below1 + below2), 1e-3 * phi)
        mean = (group1.total + group2.total) / n
        share = estimate * mean / (1.0 + estimate * mean)
        weight = 0.5 * (n - 2) * share * share
        spread = prior.log_dispersion_sd
        start[0] += math.log(estimate / phi) * weight / (weight + 1.0 / (spread * spread))
    start[1] = 0.5 * (eta1 + eta2)
    start[2] = (eta2 - eta1) * sigma * sigma / (sigma * sigma + 0.05)


@njit(cache=True, nogil=True, error_model="numpy")
def volume(one, other, null, centre_precision, beta_precision):
    """Slope and curvature in alpha of -log det(H) / 2, H the expected information on centre and beta with their prior's.

    With J = -dH/dalpha and K = dJ/dalpha: tr(H^-1 J) / 2 and (tr(H^-1 K) + tr(H^-1 J H^-1 J)) / 2.
    """
    e1, j1, k1 = one.information, one.falling, one.fall_slope
    e2, j2, k2 = other.information, other.falling, other.fall_slope
    p = e1 + e2 + centre_precision
    if null:
        ratio = (j1 + j2) / p
        return 0.5 * ratio, 0.5 * ((k1 + k2) / p + ratio * ratio)
    q = 0.5 * (e2 - e1)
    r = 0.25 * (e1 + e2) + beta_precision
    determinant = p * r - q * q
    jp, jq = j1 + j2, 0.5 * (j2 - j1)
    kp, kq = k1 + k2, 0.5 * (k2 - k1)
    a = (r * jp - q * jq) / determinant
    b = (r * jq - 0.25 * q * jp) / determinant
    c = (p * jq - q * jp) / determinant
    d = (0.25 * p * jp - q * jq) / determinant
    bent = (r * kp - 2.0 * q * kq + 0.25 * p * kp) / determinant
    return 0.5 * (a + d), 0.5 * (bent + a * a + 2.0 * b * c + d * d)


@njit(cache=True, nogil=True, error_model="numpy")
def maximize(group1, group2, prior, start, null, small_sums, out, first=0):
    """Mode and factor of the covariance, order (alpha, centre, beta): out = mode 3, factor 6 by rows.

    alpha maximizes the log posterior less log det(H) / 2, with centre and beta integrated out: two replicates that two rates fit exactly
    do not draw it to -infinity. With `null`, beta is 0 and its entries are not written. Where the likelihood has not one maximum in alpha,
    its curvature there is kept at .2 / spread^2 or more. `first` steps are behind; `small_sums` is workspace.
    """
    centre_precision = 1.0 / (prior.log_mean_sd * prior.log_mean_sd)
    beta_precision = 1.0 / (prior.log_fc_sd * prior.log_fc_sd)
    floor = 0.2 / (prior.log_dispersion_sd * prior.log_dispersion_sd)
    alpha, c, b = start[0], start[1], 0.0 if null else start[2]
    p, q, r, ab_c, ab_b, left = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for number in range(first, MAX_STEPS):
        reach = 1.0 if number < PATIENCE else 0.3  # shorter steps end a walk to and fro
        phi = math.exp(alpha)
        digammas = digamma_minus_log(1.0 / phi)
        for y in range(1, 10):
            ratio = y / (1.0 + phi * y)
            small_sums[y + 1, 0] = small_sums[y, 0] + ratio
            small_sums[y + 1, 1] = small_sums[y, 1] + ratio * ratio
        one = group_slopes(group1, c - 0.5 * b, phi, digammas, small_sums)
        other = group_slopes(group2, c + 0.5 * b, phi, digammas, small_sums)
        _, slope_alpha, curvature_alpha = log_prior_alpha(alpha, prior)
        slope_alpha += phi * (one.phi + other.phi)
        curvature_alpha -= phi * (phi * (one.phi_curvature + other.phi_curvature) + one.phi + other.phi)
        slope_c = one.eta + other.eta - (c - prior.log_mean) * centre_precision
        slope_b = 0.5 * (other.eta - one.eta) - b * beta_precision
        seen = one.curvature + other.curvature
        p = seen + centre_precision  # minus the second derivatives: p of centre, q of both, r of beta
        q = 0.0 if null else 0.5 * (other.curvature - one.curvature)
        r = 0.25 * seen + beta_precision
        xc = -phi * (one.mixed + other.mixed)
        xb = 0.0 if null else -0.5 * phi * (other.mixed - one.mixed)
        if null:
            slope_b = 0.0
        determinant = p * r - q * q
        ab_c = (r * xc - q * xb) / determinant  # how far centre and beta move down as alpha moves up
        ab_b = (p * xb - q * xc) / determinant
        gain, bend = volume(one, other, null, centre_precision, beta_precision)
        left = max(curvature_alpha - ab_c * xc - ab_b * xb - bend, floor)
        step = (slope_alpha + gain - ab_c * slope_c - ab_b * slope_b) / left
        step = min(max(step, -1.5 * reach), 1.5 * reach)
        step_c = (r * slope_c - q * slope_b) / determinant - ab_c * step
        step_b = (p * slope_b - q * slope_c) / determinant - ab_b * step
        step_c = min(max(step_c, -2.0 * reach), 2.0 * reach)
        step_b = min(max(step_b, -2.0 * reach), 2.0 * reach)
        alpha = min(max(alpha + step, LOWEST_ALPHA), HIGHEST_ALPHA)
        c += step_c
        b += step_b
        if step * step * left + step_c * step_c * p + step_b * step_b * r < TOLERANCE:
            break
    spread_alpha = 1.0 / math.sqrt(left)
    out[MODE_ALPHA] = alpha
    out[MODE_CENTRE] = c
    out[L_ALPHA] = spread_alpha
    out[L_CENTRE_ALPHA] = -ab_c * spread_alpha
    if null:
        out[L_CENTRE] = 1.0 / math.sqrt(p)
        return
    out[MODE_BETA] = b
    out[L_CENTRE] = 1.0 / math.sqrt(p - q * q / r)
    out[L_BETA_ALPHA] = -ab_b * spread_alpha
    out[L_BETA_CENTRE] = -q / r * out[L_CENTRE]
    out[L_BETA] = 1.0 / math.sqrt(r)


@njit(cache=True, nogil=True, error_model="numpy")
def continue_maximizing(arrays, priors, starts, null, first, out):
    """`maximize` for the rest of its steps from `starts` (n, 3), of tests whose absent replicates have neither counts nor exposure.

    `arrays` are counts and exposures of the first and the second group, (n, n_replicates) each.
    """
    y1, l1, y2, l2 = arrays
    small_sums = np.zeros((11, 2))
    for t in range(starts.shape[0]):
        group1, group2 = GroupData(y1[t], l1[t], 0.0, 0.0, 0.0), GroupData(y2[t], l2[t], 0.0, 0.0, 0.0)
        maximize(group1, group2, prior_of(priors[t], 0.0), starts[t], null, small_sums, out[t], first)
