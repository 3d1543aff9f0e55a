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

from nbcompare._nb.prior import INVERSE_GAMMA, LEAST_SCATTER, inverse_gamma_shape
from nbcompare._transformer.laplace import begin, climb, log_prior_alpha
from nbcompare._transformer.probes import DISPERSIONS, PLACES, add_growth, add_rates
from nbcompare._transformer.training_range import MOST_REPLICATES

N_EVEN, N_ARM, N_ODD = 33, 9, 4
N_SUMMARIES = N_EVEN + 2 * N_ARM + N_ODD
N_ANCHORS = 15
NEAR, FAR = 1.0, 2.5  # where the posterior is looked at, in its standard deviations
SECOND = 13  # the place of the mode without change

LOG_SCATTER = np.linspace(math.log(LEAST_SCATTER), math.log(20.0), 4001)
LOG_SHAPE = np.log(inverse_gamma_shape(np.exp(LOG_SCATTER)))


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
    shape = np.exp(np.interp(np.log(scatter), LOG_SCATTER, LOG_SHAPE))
    rate = np.exp(location + digamma(shape))
    heavy = tail == INVERSE_GAMMA
    columns = [log_mean, log_mean_sd, location, scatter, np.where(heavy, shape, 0.0), np.where(heavy, rate, 0.0), scale]
    return np.stack(columns, axis=1)


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
    arms = np.empty((4, width))
    room = np.empty((9, PLACES))
    prior = np.empty(7)
    few = np.zeros((11, 2))
    for t in range(priors.shape[0]):
        prior[:] = priors[t]
        n1, total1, depth1, logs1, zeros1 = compact(
            counts1[t], exposure1[t if exposure1.shape[0] > 1 else 0], arms[0], arms[1]
        )
        n2, total2, depth2, logs2, zeros2 = compact(
            counts2[t], exposure2[t if exposure2.shape[0] > 1 else 0], arms[2], arms[3]
        )
        shift = (logs1 + logs2) / (n1 + n2)
        unit = math.exp(-shift)
        y1, l1, y2, l2 = arms[0, :n1], arms[1, :n1], arms[2, :n2], arms[3, :n2]
        for i in range(n1):
            l1[i] *= unit
        for i in range(n2):
            l2[i] *= unit
        depth1 *= unit
        depth2 *= unit
        prior[0] += shift
        _test(
            y1, l1, y2, l2, total1, depth1, zeros1, total2, depth2, zeros2, prior, room, few, anchors[t], summaries[t]
        )
        anchors[t, 1] -= shift
        anchors[t, 10] -= shift


@njit(cache=True, nogil=True, error_model="numpy")
def lay_places(anchor, alpha, c, b):
    """Where the log posterior is looked at: the mode, along centre, beta and alpha; the mode without change, along centre and alpha."""
    for j in range(PLACES):
        at = 0 if j < SECOND else 9
        alpha[j], c[j], b[j] = anchor[at], anchor[at + 1], anchor[2] if j < SECOND else 0.0
    for j in range(4):
        k = step(j)
        c[1 + j] += k * anchor[5]
        b[1 + j] += k * anchor[7]
        b[5 + j] += k * anchor[8]
        alpha[9 + j] += k * anchor[3]
        c[9 + j] += k * anchor[4]
        b[9 + j] += k * anchor[6]
        c[SECOND + 1 + j] += k * anchor[13]
        alpha[SECOND + 5 + j] += k * anchor[11]
        c[SECOND + 5 + j] += k * anchor[12]


@njit(cache=True, nogil=True, error_model="numpy")
def step(j):
    """Minus far, minus near, near, far."""
    size = FAR if j == 0 or j == 3 else NEAR
    return -size if j < 2 else size


@njit(cache=True, nogil=True, error_model="numpy")
def look(y1, l1, y2, l2, total1, total2, prior, anchor, room, value, growth):
    """Log posterior at the places but for what depends on the dispersion alone; that, at the ten dispersions: mode and along alpha, twice."""
    alpha, c, b, scale, inverse, phi = room[0], room[1], room[2], room[3], room[4], room[5]
    lay_places(anchor, alpha, c, b)
    for j in range(PLACES):
        eta1, eta2 = c[j] - 0.5 * b[j], c[j] + 0.5 * b[j]
        d = (c[j] - prior[0]) / prior[1]
        value[j] = total1 * eta1 + total2 * eta2 - 0.5 * d * d - 0.5 * b[j] * b[j] / (prior[6] * prior[6])
        inverse[j] = math.exp(-alpha[j])
        scale[j] = math.exp(alpha[j] + eta1)
        phi[j] = math.exp(alpha[j] + eta2)
    add_rates(y1, l1, scale, inverse, value)
    add_rates(y2, l2, phi, inverse, value)
    for j in range(DISPERSIONS):
        at = dispersion_place(min(j, 9))
        inverse[j] = inverse[at]
        phi[j] = 1.0 / inverse[j]
        growth[j], _, _ = log_prior_alpha(alpha[at], prior[2], prior[3], prior[4], prior[5])
    add_growth(y1, phi, inverse, scale, growth)
    add_growth(y2, phi, inverse, scale, growth)


@njit(cache=True, nogil=True, error_model="numpy")
def dispersion_place(j):
    """The place of the j-th dispersion; places are at or behind it."""
    if j == 0:
        return 0
    if j < 5:
        return 8 + j
    return SECOND if j == 5 else SECOND - 1 + j


@njit(cache=True, nogil=True, error_model="numpy")
def _test(y1, l1, y2, l2, total1, depth1, zeros1, total2, depth2, zeros2, prior, room, few, anchor, out):
    """Anchors and summaries of one test."""
    tau, spread, sigma = prior[1], prior[3], prior[6]
    start, value, growth = room[6], room[7], room[8]
    begin(y1, l1, total1, depth1, y2, l2, total2, depth2, prior, start)
    climb(y1, l1, y2, l2, prior, start, False, few, anchor[:9])
    start[0], start[1] = anchor[0], anchor[1]
    climb(y1, l1, y2, l2, prior, start, True, few, anchor[9:15])
    anchor[11], anchor[12], anchor[13] = anchor[12], anchor[13], anchor[14]  # beta's place is not used
    look(y1, l1, y2, l2, total1, total2, prior, anchor, room, value, growth)
    alpha, c, b, la, lca, lc, lba, lbc, lb, alpha0, c0, la0, lca0, lc0, _ = anchor
    changed = value[0] + growth[0] + math.log(la * lc * lb / sigma)
    anchor[14] = value[SECOND] + growth[5] + math.log(la0 * lc0) - changed  # log Bayes factor of no change
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
    phi = math.exp(alpha)
    info1 = information(l1, c - 0.5 * b, phi)
    info2 = information(l2, c + 0.5 * b, phi)
    variance = tau * tau + 0.25 * sigma * sigma
    volume = log_volume(info1, info2, tau, sigma)
    phi0 = math.exp(alpha0)
    info0 = information(l1, c0, phi0) + information(l2, c0, phi0) + 1.0 / (tau * tau)
    for j in range(4):
        k = step(j)
        far = 1 if abs(k) > NEAR else 0
        out[11 + j] = departure(value[0] - value[1 + j], k)
        out[(first if k < 0.0 else second) + 4 + far] = departure(value[0] - value[5 + j], k)
        a, ca, ba = alpha + k * la, c + k * lca, b + k * lba
        there1 = information(l1, ca - 0.5 * ba, math.exp(a))
        there2 = information(l2, ca + 0.5 * ba, math.exp(a))
        fall = value[0] + growth[0] - value[9 + j] - growth[1 + j]
        out[15 + j] = departure(fall + 0.5 * (log_volume(there1, there2, tau, sigma) - volume), k)
        if far == 1:
            column = 6 if k < 0.0 else 7
            out[first + column] = math.log(there1 / info1)
            out[second + column] = math.log(there2 / info2)
        out[25 + j] = departure(value[SECOND] - value[SECOND + 1 + j], k)
        a, ca = alpha0 + k * la0, c0 + k * lca0
        there = information(l1, ca, math.exp(a)) + information(l2, ca, math.exp(a))
        fall = value[SECOND] + growth[5] - value[SECOND + 5 + j] - growth[6 + j]
        out[29 + j] = departure(fall + 0.5 * math.log((there + 1.0 / (tau * tau)) / info0), k)
    out[19] = math.asinh(anchor[14])
    out[20] = math.log(la0 / spread)
    out[21] = math.log(lc0 / tau)
    out[22] = lca0 / math.sqrt(lca0 * lca0 + lc0 * lc0)
    out[23] = math.asinh((alpha0 - alpha) / la)
    out[24] = math.asinh((c0 - c) / lc)
    out[first] = math.log(min(y1.shape[0], MOST_REPLICATES))
    out[second] = math.log(min(y2.shape[0], MOST_REPLICATES))
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
