"""Laplace approximations and features of tests, by compiled kernels: the posterior's mode and curvature, and how far it departs from a Gaussian along its axes.

The columns of both are named in `layout`. The unit of exposure does not matter: only means of counts enter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.special import digamma

from nbcompare._nb.posterior.prior import INVERSE_GAMMA, LEAST_LOG_DISPERSION_SD, inverse_gamma_shape
from nbcompare._transformer.cpu.evaluate import (
    ALONG_ALPHA,
    ALONG_BETA,
    ALONG_CENTRE,
    AT_ALPHA,
    AT_MODE,
    AT_NULL_ALPHA,
    AT_NULL_MODE,
    MODE,
    NULL_ALONG_ALPHA,
    NULL_ALONG_CENTRE,
    NULL_MODE,
    POINTS,
    Workspace,
    evaluate,
    step,
)
from nbcompare._transformer.cpu.laplace import GroupData, find_start, maximize, prior_of
from nbcompare._transformer.layout import (
    BAYES_FACTOR,
    CENTRE,
    CENTRE_DEPARTURE,
    CENTRE_SD,
    CENTRE_WITH_DISPERSION,
    COUNTS,
    DISPERSION,
    DISPERSION_DEPARTURE,
    DISPERSION_SD,
    FIRST_GROUP,
    INFORMATION,
    INFORMATION_ABOVE,
    INFORMATION_BELOW,
    L0_ALPHA,
    L0_CENTRE,
    L0_CENTRE_ALPHA,
    L_ALPHA,
    L_BETA,
    L_CENTRE,
    L_CENTRE_ALPHA,
    LFC,
    LFC_DEPARTURE_FAR,
    LFC_DEPARTURE_NEAR,
    LFC_SD,
    LFC_WITH_CENTRE,
    LFC_WITH_DISPERSION,
    LFC_Z,
    LOG_BAYES_FACTOR,
    MODE_ALPHA,
    MODE_CENTRE,
    N_FEATURES,
    N_LAPLACE,
    NEAR,
    NULL_ALPHA,
    NULL_CENTRE,
    NULL_CENTRE_DEPARTURE,
    NULL_CENTRE_SD,
    NULL_CENTRE_SHIFT,
    NULL_CENTRE_WITH_DISPERSION,
    NULL_DISPERSION_DEPARTURE,
    NULL_DISPERSION_SD,
    NULL_DISPERSION_SHIFT,
    OVERDISPERSION,
    PRIOR_CENTRE_SD,
    PRIOR_DISPERSION,
    PRIOR_DISPERSION_SD,
    PRIOR_IS_INVERSE_GAMMA,
    PRIOR_LFC_SD,
    REPLICATES,
    SECOND_GROUP,
    ZEROS,
)
from nbcompare._transformer.training_range import MOST_REPLICATES

LOG_OF_SD = np.linspace(math.log(LEAST_LOG_DISPERSION_SD), math.log(20.0), 4001)
LOG_SHAPE = np.log(inverse_gamma_shape(np.exp(LOG_OF_SD)))


@dataclass(frozen=True)
class Features:
    """Laplace approximations and features of n tests, columns as in `layout`."""

    laplace: np.ndarray  # (n, 15) float64
    features: np.ndarray  # (n, 55) float32


def compute_features(counts1, exposure1, counts2, exposure2, prior: np.ndarray) -> Features:
    """Laplace approximations and features of tests (n_tests, n_replicates); prior (n_tests, 7), the columns of `Prior`.

    Exposures have a row a test, or one row for all; 0 = absent.
    """
    laplace = np.empty((len(prior), N_LAPLACE))
    features = np.empty((len(prior), N_FEATURES), dtype=np.float32)
    compute_features_into([counts1, exposure1, counts2, exposure2], prior, slice(None), laplace, features)
    return Features(laplace, features)


def compute_features_into(groups, prior: np.ndarray, part: slice, laplace: np.ndarray, features: np.ndarray) -> None:
    """`compute_features` of these tests of all, into their rows."""
    y1, l1, y2, l2 = (array if len(array) == 1 else array[part] for array in groups)
    _compute_features(y1, l1, y2, l2, laplace_prior(prior[part]), laplace[part], features[part])


def laplace_prior(prior: np.ndarray) -> np.ndarray:
    """The prior as `laplace.prior_of` takes it: log mean, its sd, mean, sd, shape and rate of alpha, sd of beta; shape 0 for the log-normal."""
    log_mean, log_mean_sd, location, spread, family, _, sigma = prior.T
    spread = np.maximum(spread, LEAST_LOG_DISPERSION_SD)
    shape = np.exp(np.interp(np.log(spread), LOG_OF_SD, LOG_SHAPE))
    rate = np.exp(location + digamma(shape))
    heavy = family == INVERSE_GAMMA
    columns = [log_mean, log_mean_sd, location, spread, np.where(heavy, shape, 0.0), np.where(heavy, rate, 0.0), sigma]
    return np.stack(columns, axis=1)


@njit(cache=True, nogil=True, error_model="numpy")
def departure(fall, k):
    """log(sqrt(2 D) / |k|), bounded."""
    return min(max(0.5 * math.log(2.0 * max(fall, 0.0) / (k * k) + 1e-3), -3.0), 4.0)


@njit(cache=True, nogil=True, error_model="numpy")
def information(l, eta, phi):
    """Expected information of a group on its log rate."""
    rate = math.exp(eta)
    value = 0.0
    for i in range(l.shape[0]):
        m = l[i] * rate
        value += m / (1.0 + phi * m)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def log_volume(info1, info2, tau, sigma):
    """Log determinant of the information on centre and beta, the prior's included."""
    p = info1 + info2 + 1.0 / (tau * tau)
    q = 0.5 * (info2 - info1)
    return math.log(p * (0.25 * (info1 + info2) + 1.0 / (sigma * sigma)) - q * q)


@njit(cache=True, nogil=True, error_model="numpy")
def compact(y, l, into_y, into_l):
    """Present replicates to the front: how many, sum of counts, sum of exposures, sum of log exposures, number of zeros."""
    n = 0
    total = 0.0
    depth = 0.0
    logs = 0.0
    zeros = 0.0
    for i in range(y.shape[0]):
        if l[i] > 0.0:
            into_y[n] = y[i]
            into_l[n] = l[i]
            total += y[i]
            depth += l[i]
            logs += math.log(l[i])
            if y[i] <= 0.0:
                zeros += 1.0
            n += 1
    return n, total, depth, logs, zeros


@njit(cache=True, nogil=True, error_model="numpy")
def _compute_features(counts1, exposure1, counts2, exposure2, priors, laplace, features):
    width = max(counts1.shape[1], counts2.shape[1])
    arrays = np.empty((4, width))
    rows = np.empty((9, POINTS))
    workspace = Workspace(
        rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7], rows[8], np.zeros((11, 2))
    )
    for t in range(priors.shape[0]):
        n1, total1, depth1, logs1, zeros1 = compact(
            counts1[t], exposure1[t if exposure1.shape[0] > 1 else 0], arrays[0], arrays[1]
        )
        n2, total2, depth2, logs2, zeros2 = compact(
            counts2[t], exposure2[t if exposure2.shape[0] > 1 else 0], arrays[2], arrays[3]
        )
        shift = (logs1 + logs2) / (n1 + n2)
        unit = math.exp(-shift)
        for i in range(n1):
            arrays[1, i] *= unit
        for i in range(n2):
            arrays[3, i] *= unit
        group1 = GroupData(arrays[0, :n1], arrays[1, :n1], total1, depth1 * unit, zeros1)
        group2 = GroupData(arrays[2, :n2], arrays[3, :n2], total2, depth2 * unit, zeros2)
        prior = prior_of(priors[t], shift)
        _approximate(group1, group2, prior, workspace, laplace[t])
        _write_features(group1, group2, prior, workspace, laplace[t], features[t])
        laplace[t, MODE_CENTRE] -= shift
        laplace[t, NULL_CENTRE] -= shift


@njit(cache=True, nogil=True, error_model="numpy")
def _approximate(group1, group2, prior, workspace, laplace):
    """Both Laplace approximations of one test, the log posterior at the points around them, and the log Bayes factor of no change."""
    start, small_sums = workspace.start, workspace.small_sums
    find_start(group1, group2, prior, start)
    maximize(group1, group2, prior, start, False, small_sums, laplace[:NULL_ALPHA])
    start[0], start[1] = laplace[MODE_ALPHA], laplace[MODE_CENTRE]
    null = laplace[NULL_ALPHA:]
    maximize(group1, group2, prior, start, True, small_sums, null)
    # The mode and the factor of alpha and centre, moved together: the columns of beta are not used.
    laplace[L0_ALPHA], laplace[L0_CENTRE_ALPHA], laplace[L0_CENTRE] = (
        null[L_ALPHA],
        null[L_CENTRE_ALPHA],
        null[L_CENTRE],
    )
    evaluate(group1, group2, prior, laplace, workspace)
    value, of_dispersion = workspace.value, workspace.of_dispersion
    factor = laplace[L_ALPHA] * laplace[L_CENTRE] * laplace[L_BETA]
    alternative = value[MODE] + of_dispersion[AT_MODE] + math.log(factor / prior.log_fc_sd)
    null_factor = laplace[L0_ALPHA] * laplace[L0_CENTRE]
    laplace[LOG_BAYES_FACTOR] = value[NULL_MODE] + of_dispersion[AT_NULL_MODE] + math.log(null_factor) - alternative


@njit(cache=True, nogil=True, error_model="numpy")
def _write_features(group1, group2, prior, workspace, laplace, out):
    """The features of one test."""
    tau, spread, sigma = prior.log_mean_sd, prior.log_dispersion_sd, prior.log_fc_sd
    alpha, c, b, la, lca, lc, lba, lbc, lb, alpha0, c0, la0, lca0, lc0, log_factor = laplace
    row = math.sqrt(lba * lba + lbc * lbc + lb * lb)
    out[PRIOR_CENTRE_SD] = math.log(tau)
    out[PRIOR_LFC_SD] = math.log(sigma)
    out[PRIOR_DISPERSION_SD] = math.log(spread)
    out[PRIOR_IS_INVERSE_GAMMA] = 1.0 if prior.shape > 0.0 else 0.0
    out[PRIOR_DISPERSION] = prior.log_dispersion
    out[CENTRE] = min(max((c - prior.log_mean) / tau, -6.0), 6.0)
    out[DISPERSION] = min(max((alpha - prior.log_dispersion) / spread, -6.0), 6.0)
    out[DISPERSION_SD] = math.log(la / spread)
    out[CENTRE_SD] = math.log(lc / tau)
    out[LFC_SD] = math.log(lb / sigma)
    out[CENTRE_WITH_DISPERSION] = lca / math.sqrt(lca * lca + lc * lc)
    out[BAYES_FACTOR] = math.asinh(log_factor)
    out[NULL_DISPERSION_SD] = math.log(la0 / spread)
    out[NULL_CENTRE_SD] = math.log(lc0 / tau)
    out[NULL_CENTRE_WITH_DISPERSION] = lca0 / math.sqrt(lca0 * lca0 + lc0 * lc0)
    out[NULL_DISPERSION_SHIFT] = math.asinh((alpha0 - alpha) / la)
    out[NULL_CENTRE_SHIFT] = math.asinh((c0 - c) / lc)
    out[LFC] = b / sigma
    out[LFC_WITH_DISPERSION] = lba / row
    out[LFC_WITH_CENTRE] = lbc / row
    out[LFC_Z] = math.asinh(b / lb)
    _write_group(group1, alpha + c - 0.5 * b, out[FIRST_GROUP:])
    _write_group(group2, alpha + c + 0.5 * b, out[SECOND_GROUP:])
    _write_departures(group1, group2, prior, workspace, laplace, out)


@njit(cache=True, nogil=True, error_model="numpy")
def _write_group(group, log_dispersion_rate, out):
    """The features of one group of one test that need its sums alone."""
    n = group.counts.shape[0]
    out[REPLICATES] = math.log(min(n, MOST_REPLICATES))
    out[COUNTS] = math.log1p(group.total)
    out[OVERDISPERSION] = min(max(log_dispersion_rate + math.log(group.depth / n), -8.0), 8.0)
    out[ZEROS] = group.zeros / n


@njit(cache=True, nogil=True, error_model="numpy")
def _write_departures(group1, group2, prior, workspace, laplace, out):
    """Information in the groups, and the features of one test along the axes: centre and beta are integrated out along alpha."""
    tau, sigma = prior.log_mean_sd, prior.log_fc_sd
    alpha, c, b, la, lca, _, lba, _, _, alpha0, c0, la0, lca0, _, _ = laplace
    l1, l2, value, of_dispersion = group1.exposure, group2.exposure, workspace.value, workspace.of_dispersion
    phi, phi0 = math.exp(alpha), math.exp(alpha0)
    info1, info2 = information(l1, c - 0.5 * b, phi), information(l2, c + 0.5 * b, phi)
    volume, variance = log_volume(info1, info2, tau, sigma), tau * tau + 0.25 * sigma * sigma
    out[FIRST_GROUP + INFORMATION] = math.log1p(info1 * variance)
    out[SECOND_GROUP + INFORMATION] = math.log1p(info2 * variance)
    info0 = information(l1, c0, phi0) + information(l2, c0, phi0) + 1.0 / (tau * tau)
    for j in range(4):
        k = step(j)
        far = abs(k) > NEAR
        out[CENTRE_DEPARTURE + j] = departure(value[MODE] - value[ALONG_CENTRE + j], k)
        group = FIRST_GROUP if k < 0.0 else SECOND_GROUP
        column = LFC_DEPARTURE_FAR if far else LFC_DEPARTURE_NEAR
        out[group + column] = departure(value[MODE] - value[ALONG_BETA + j], k)
        a, ca, ba = alpha + k * la, c + k * lca, b + k * lba
        there1 = information(l1, ca - 0.5 * ba, math.exp(a))
        there2 = information(l2, ca + 0.5 * ba, math.exp(a))
        fall = value[MODE] + of_dispersion[AT_MODE] - value[ALONG_ALPHA + j] - of_dispersion[AT_ALPHA + j]
        out[DISPERSION_DEPARTURE + j] = departure(fall + 0.5 * (log_volume(there1, there2, tau, sigma) - volume), k)
        if far:
            column = INFORMATION_BELOW if k < 0.0 else INFORMATION_ABOVE
            out[FIRST_GROUP + column] = math.log(there1 / info1)
            out[SECOND_GROUP + column] = math.log(there2 / info2)
        out[NULL_CENTRE_DEPARTURE + j] = departure(value[NULL_MODE] - value[NULL_ALONG_CENTRE + j], k)
        a, ca = alpha0 + k * la0, c0 + k * lca0
        there = information(l1, ca, math.exp(a)) + information(l2, ca, math.exp(a))
        fall = (
            value[NULL_MODE]
            + of_dispersion[AT_NULL_MODE]
            - value[NULL_ALONG_ALPHA + j]
            - of_dispersion[AT_NULL_ALPHA + j]
        )
        out[NULL_DISPERSION_DEPARTURE + j] = departure(fall + 0.5 * math.log((there + 1.0 / (tau * tau)) / info0), k)
