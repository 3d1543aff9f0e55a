"""What the network is told of a test: the posterior's mode and curvature, and how far it departs from a Gaussian along its axes.

Along an axis, k posterior standard deviations from the mode, a Gaussian log density has fallen by k^2 / 2. With D the fall of the log
posterior, log(sqrt(2 D) / |k|) is 0 for a Gaussian, positive where the tail is lighter and negative where it is heavier.

Summaries of a test lie in the order: even (unchanged when the arms are exchanged), first arm, second arm (exchanged), odd (sign changed).
The unit of exposure does not matter: only means of counts enter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.special import digamma

from nbcompare._nb.density import stirling_rest
from nbcompare._nb.prior import INVERSE_GAMMA, LEAST_SCATTER, inverse_gamma_shape
from nbcompare._transformer.laplace import begin, climb, growth_part, log_prior_alpha, rate_part

N_EVEN, N_ARM, N_ODD = 33, 9, 4
N_SUMMARIES = N_EVEN + 2 * N_ARM + N_ODD
N_ANCHORS = 15
NEAR, FAR = 1.0, 2.5  # where the posterior is looked at, in its standard deviations
LEAST_NULL_SHARE = 1e-12

_LOG_SCATTER = np.linspace(math.log(LEAST_SCATTER), math.log(20.0), 4001)
_LOG_SHAPE = np.log(inverse_gamma_shape(np.exp(_LOG_SCATTER)))


@dataclass(frozen=True)
class Summaries:
    """Anchors and summaries of n tests, at exposures of geometric mean 1."""

    anchors: np.ndarray  # (n, 15) float64: mode 3 and factor 6 of (alpha, centre, beta); mode 2 and factor 3 of (alpha, centre); log Bayes factor
    summaries: np.ndarray  # (n, 55) float32


def summarise(counts1, exposure1, counts2, exposure2, prior: np.ndarray) -> Summaries:
    """Anchors and summaries of tests (n_tests, n_replicates); prior (n_tests, 7), the columns of `Prior`.

    Exposures have a row a test, or one row for all; 0 = absent.
    """
    anchors = np.empty((len(prior), N_ANCHORS))
    summaries = np.empty((len(prior), N_SUMMARIES), dtype=np.float32)
    summarise_into([counts1, exposure1, counts2, exposure2], prior, slice(None), anchors, summaries)
    return Summaries(anchors, summaries)


def summarise_into(arms, prior: np.ndarray, part: slice, anchors: np.ndarray, summaries: np.ndarray) -> None:
    """`summarise` these tests of all, into their rows."""
    y1, l1, y2, l2 = (array if len(array) == 1 else array[part] for array in arms)
    _summarise(y1, l1, y2, l2, climbing_prior(prior[part]), anchors[part], summaries[part])


def climbing_prior(prior: np.ndarray) -> np.ndarray:
    """The prior as `climb` takes it: log mean, its sd, location, spread, shape and rate of alpha, scale; shape 0 for the log-normal."""
    log_mean, log_mean_sd, location, scatter, tail, _, scale = prior.T
    scatter = np.maximum(scatter, LEAST_SCATTER)
    shape = np.exp(np.interp(np.log(scatter), _LOG_SCATTER, _LOG_SHAPE))
    rate = np.exp(location + digamma(shape))
    heavy = tail == INVERSE_GAMMA
    columns = [log_mean, log_mean_sd, location, scatter, np.where(heavy, shape, 0.0), np.where(heavy, rate, 0.0), scale]
    return np.stack(columns, axis=1)


@njit(cache=True, nogil=True, error_model="numpy")
def alpha_part(y1, y2, prior, alpha):
    """What of the log posterior depends on the dispersion and not on the rates."""
    value, _, _ = log_prior_alpha(alpha, prior[2], prior[3], prior[4], prior[5])
    phi = math.exp(alpha)
    rest = stirling_rest(1.0 / phi)
    return value + growth_part(y1, phi, rest) + growth_part(y2, phi, rest)


@njit(cache=True, nogil=True, error_model="numpy")
def rates_part(y1, l1, y2, l2, prior, alpha, c, b):
    """What depends on the rates."""
    phi = math.exp(alpha)
    value = rate_part(y1, l1, c - 0.5 * b, phi) + rate_part(y2, l2, c + 0.5 * b, phi)
    d = (c - prior[0]) / prior[1]
    return value - 0.5 * d * d - 0.5 * b * b / (prior[6] * prior[6])


@njit(cache=True, nogil=True, error_model="numpy")
def departure(fall, k):
    """log(sqrt(2 D) / |k|), bounded."""
    return min(max(0.5 * math.log(2.0 * max(fall, 0.0) / (k * k) + 1e-3), -3.0), 4.0)


@njit(cache=True, nogil=True, error_model="numpy")
def information(l, eta, phi):
    """Expected information of an arm on its log rate."""
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
def _summarise(counts1, exposure1, counts2, exposure2, priors, anchors, summaries):
    width = max(counts1.shape[1], counts2.shape[1])
    room = np.empty((4, width))
    prior = np.empty(7)
    start = np.empty(3)
    few = np.zeros((11, 2))
    for t in range(priors.shape[0]):
        prior[:] = priors[t]
        n1, total1, depth1, logs1, zeros1 = compact(
            counts1[t], exposure1[t if exposure1.shape[0] > 1 else 0], room[0], room[1]
        )
        n2, total2, depth2, logs2, zeros2 = compact(
            counts2[t], exposure2[t if exposure2.shape[0] > 1 else 0], room[2], room[3]
        )
        shift = (logs1 + logs2) / (n1 + n2)
        unit = math.exp(-shift)
        y1, l1, y2, l2 = room[0, :n1], room[1, :n1], room[2, :n2], room[3, :n2]
        for i in range(n1):
            l1[i] *= unit
        for i in range(n2):
            l2[i] *= unit
        depth1 *= unit
        depth2 *= unit
        prior[0] += shift
        _test(
            y1, l1, y2, l2, total1, depth1, zeros1, total2, depth2, zeros2, prior, start, few, anchors[t], summaries[t]
        )
        anchors[t, 1] -= shift
        anchors[t, 10] -= shift


@njit(cache=True, nogil=True, error_model="numpy")
def _test(y1, l1, y2, l2, total1, depth1, zeros1, total2, depth2, zeros2, prior, start, few, anchor, out):
    """Anchors and summaries of one test."""
    tau, spread, sigma = prior[1], prior[3], prior[6]
    variance = tau * tau + 0.25 * sigma * sigma
    begin(y1, l1, total1, depth1, y2, l2, total2, depth2, prior, start)
    changed = climb(y1, l1, y2, l2, prior, start, False, few, anchor[:9])
    start[0] = anchor[0]
    start[1] = anchor[1]
    equal = climb(y1, l1, y2, l2, prior, start, True, few, anchor[9:14])
    # factor of (alpha, centre) at 12, 13, 14 once shifted below; `climb` writes 0, 1, 3, 4, 5
    log_factor = changed - equal
    alpha, c, b = anchor[0], anchor[1], anchor[2]
    la, lca, lc, lba, lbc, lb = anchor[3], anchor[4], anchor[5], anchor[6], anchor[7], anchor[8]
    alpha0, c0 = anchor[9], anchor[10]
    la0, lca0, lc0 = anchor[12], anchor[13], anchor[14]
    anchor[11], anchor[12], anchor[13] = la0, lca0, lc0
    anchor[14] = -log_factor  # of no change against change
    phi = math.exp(alpha)
    out[0] = math.log(tau)
    out[1] = math.log(sigma)
    out[2] = math.log(spread)
    out[3] = 1.0 if prior[4] > 0.0 else 0.0
    out[4] = prior[2]
    out[5] = min(max((c - prior[0]) / tau, -6.0), 6.0)
    out[6] = min(max((alpha - prior[2]) / spread, -6.0), 6.0)
    out[7] = math.log(la / spread)
    out[8] = math.log(lc / tau)
    out[9] = math.log(lb / sigma)
    out[10] = lca / math.sqrt(lca * lca + lc * lc)
    first = N_EVEN
    second = N_EVEN + N_ARM
    odd = N_EVEN + 2 * N_ARM
    top = rates_part(y1, l1, y2, l2, prior, alpha, c, b)
    top0 = rates_part(y1, l1, y2, l2, prior, alpha0, c0, 0.0)
    peak = alpha_part(y1, y2, prior, alpha)
    peak0 = alpha_part(y1, y2, prior, alpha0)
    info1 = information(l1, c - 0.5 * b, phi)
    info2 = information(l2, c + 0.5 * b, phi)
    phi0 = math.exp(alpha0)
    info0 = information(l1, c0, phi0) + information(l2, c0, phi0) + 1.0 / (tau * tau)
    for j in range(4):
        k = -FAR if j == 0 else (-NEAR if j == 1 else (NEAR if j == 2 else FAR))
        out[11 + j] = departure(top - rates_part(y1, l1, y2, l2, prior, alpha, c + k * lc, b + k * lbc), k)
        at_b = departure(top - rates_part(y1, l1, y2, l2, prior, alpha, c, b + k * lb), k)
        out[(first if k < 0.0 else second) + (5 if abs(k) > NEAR else 4)] = at_b
        a, ca, ba = alpha + k * la, c + k * lca, b + k * lba
        there1 = information(l1, ca - 0.5 * ba, math.exp(a))
        there2 = information(l2, ca + 0.5 * ba, math.exp(a))
        fall = top + peak - rates_part(y1, l1, y2, l2, prior, a, ca, ba) - alpha_part(y1, y2, prior, a)
        fall += 0.5 * (log_volume(there1, there2, tau, sigma) - log_volume(info1, info2, tau, sigma))
        out[15 + j] = departure(fall, k)
        if abs(k) > NEAR:
            column = 6 if k < 0.0 else 7
            out[first + column] = math.log(there1 / info1)
            out[second + column] = math.log(there2 / info2)
        out[25 + j] = departure(top0 - rates_part(y1, l1, y2, l2, prior, alpha0, c0 + k * lc0, 0.0), k)
        a, ca = alpha0 + k * la0, c0 + k * lca0
        there = information(l1, ca, math.exp(a)) + information(l2, ca, math.exp(a))
        fall = top0 + peak0 - rates_part(y1, l1, y2, l2, prior, a, ca, 0.0) - alpha_part(y1, y2, prior, a)
        out[29 + j] = departure(fall + 0.5 * math.log((there + 1.0 / (tau * tau)) / info0), k)
    out[19] = math.asinh(anchor[14])
    out[20] = math.log(la0 / spread)
    out[21] = math.log(lc0 / tau)
    out[22] = lca0 / math.sqrt(lca0 * lca0 + lc0 * lc0)
    out[23] = math.asinh((alpha0 - alpha) / la)
    out[24] = math.asinh((c0 - c) / lc)
    out[first] = math.log(min(y1.shape[0], 64))
    out[second] = math.log(min(y2.shape[0], 64))
    out[first + 1] = math.log1p(total1)
    out[second + 1] = math.log1p(total2)
    out[first + 2] = math.log1p(info1 * variance)
    out[second + 2] = math.log1p(info2 * variance)
    out[first + 3] = min(max(alpha + c - 0.5 * b + math.log(depth1 / y1.shape[0]), -8.0), 8.0)
    out[second + 3] = min(max(alpha + c + 0.5 * b + math.log(depth2 / y2.shape[0]), -8.0), 8.0)
    out[first + 8] = zeros1 / y1.shape[0]
    out[second + 8] = zeros2 / y2.shape[0]
    out[odd] = b / sigma
    out[odd + 1] = lba / math.sqrt(lba * lba + lbc * lbc + lb * lb)
    out[odd + 2] = lbc / math.sqrt(lba * lba + lbc * lbc + lb * lb)
    out[odd + 3] = math.asinh(b / lb)
