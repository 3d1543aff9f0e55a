"""The posterior's highest point and its curvature there, given that the arms differ, and given that they do not: the network's anchors.

Two arms of counts y with exposures l are NB(l exp(eta_g), phi), alpha = log phi. The prior is normal in centre = (eta_1 + eta_2) / 2 and in
beta = eta_2 - eta_1, and normal or log-inverse-gamma in alpha. Newton's method climbs the log posterior
of (eta_1, eta_2, alpha), and of (centre, alpha) where beta = 0.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.density import SMALL, growth_slopes, mean_slopes
from nbcompare._nb.special import digamma_beyond_log, fast_log1p

MAX_STEPS = 40
PATIENCE = 10
TOLERANCE = 2e-3  # of the last step's square in posterior standard deviations: what is left is of the order of it
LOWEST_ALPHA = -18.0
HIGHEST_ALPHA = 8.0


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_alpha(alpha, location, spread, shape, rate):
    """Log density of alpha, its slope and minus its curvature; `shape` > 0 for the inverse-gamma family, exp(-shape alpha - rate exp(-alpha))."""
    if shape > 0.0:
        tail = rate * math.exp(-alpha)
        return shape * (math.log(rate) - alpha) - tail - math.lgamma(shape), tail - shape, tail
    d = (alpha - location) / spread
    return -0.5 * d * d - math.log(spread) - 0.9189385332046727, -d / spread, 1.0 / (spread * spread)


@njit(cache=True, nogil=True, error_model="numpy")
def arm_slopes(y, l, eta, phi, beyond_log, trigamma, few):
    """An arm's log likelihood: slope and minus the curvature in eta, slope and curvature in phi, the mixed derivative.

    `few` holds, for counts up to 10, the sums over j < y of j / (1 + phi j) and of its square. Then the expected information on eta, minus its slope in alpha, and the slope of that.
    """
    rate = math.exp(eta)
    k = 1.0 / phi
    slope = 0.0
    curvature = 0.0
    first = 0.0
    second = 0.0
    mixed = 0.0
    expected = 0.0
    lost = 0.0
    slower = 0.0
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
        lost += x * w
        slower += x * w * (2.0 * f - 1.0)
        if x < SMALL:
            a, b = mean_slopes(y[i], m, phi)
            first += a
            second += b
        else:
            a = k * k * (fast_log1p(phi * m) - x)
            first += a - y[i] * w
            second += k * (w * w - 2.0 * a) + y[i] * w * w
        if y[i] > 10.0:
            c, d = growth_slopes(y[i], phi, beyond_log, trigamma)
            first += c
            second += d
        elif y[i] > 1.0:
            first += few[int(y[i]), 0]
            second -= few[int(y[i]), 1]
    return slope, curvature, first, second, mixed, expected, lost, slower


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_moments(y, l, total, depth, phi):
    """Rate of an arm by weights 1/(1 + phi m); numerator and denominator of a moment estimate of the dispersion with squared weights."""
    slope = phi * total / depth
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
    lost = n / (n - 1.0)
    above = 0.0
    below = 0.0
    for i in range(n):
        m = rate * l[i]
        w = 1.0 / (1.0 + phi * m)
        e = (y[i] - m) * w
        above += lost * e * e - m * w * w
        below += m * w * m * w
    return rate, above, below


@njit(cache=True, nogil=True, error_model="numpy")
def begin(y1, l1, total1, depth1, y2, l2, total2, depth2, prior, start):
    """Where to climb from: weighted rates, and a dispersion by moments, both drawn towards the prior."""
    phi = math.exp(prior[2])
    rate1, above1, below1 = weighted_moments(y1, l1, total1, depth1, phi)
    rate2, above2, below2 = weighted_moments(y2, l2, total2, depth2, phi)
    variance = prior[1] * prior[1] + 0.25 * prior[6] * prior[6]
    expected = math.exp(prior[0])
    counts = 1.0 / variance  # the prior is worth so many counts, at its mean
    eta1 = math.log((rate1 * depth1 + counts) / (depth1 + counts / expected))
    eta2 = math.log((rate2 * depth2 + counts) / (depth2 + counts / expected))
    start[0] = prior[2]
    if below1 + below2 > 0.0:
        estimate = max((above1 + above2) / (below1 + below2), 1e-3 * phi)
        mean = (total1 + total2) / (y1.shape[0] + y2.shape[0])
        share = estimate * mean / (1.0 + estimate * mean)
        weight = 0.5 * (y1.shape[0] + y2.shape[0] - 2) * share * share
        start[0] += math.log(estimate / phi) * weight / (weight + 1.0 / (prior[3] * prior[3]))
    start[1] = 0.5 * (eta1 + eta2)
    start[2] = (eta2 - eta1) * prior[6] * prior[6] / (prior[6] * prior[6] + 0.05)


@njit(cache=True, nogil=True, error_model="numpy")
def volume(e1, e2, j1, j2, k1, k2, equal, centre_precision, beta_precision):
    """Slope and curvature in alpha of -log det(H) / 2, H the expected information on centre and beta with their prior's.

    With J = -dH/dalpha and K = dJ/dalpha: tr(H^-1 J) / 2 and (tr(H^-1 K) + tr(H^-1 J H^-1 J)) / 2.
    """
    p = e1 + e2 + centre_precision
    if equal:
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
def climb(y1, l1, y2, l2, prior, start, equal, few, out, first=0):
    """Mode and factor of the covariance, order (alpha, centre, beta): out = mode 3, factor 6 by rows.

    alpha climbs the log posterior less log det(H) / 2, with centre and beta integrated out: two replicates that two rates fit exactly
    do not draw it to -infinity. `prior` is log mean, its sd, location, spread, shape and rate of alpha, scale of beta. With `equal`, beta is 0 and its entries are not
    written. Where the likelihood has not one maximum in alpha, its curvature there is kept at .2 / spread^2 or more. `first` steps are behind.
    """
    centre_precision = 1.0 / (prior[1] * prior[1])
    beta_precision = 1.0 / (prior[6] * prior[6])
    floor = 0.2 / (prior[3] * prior[3])
    alpha, c, b = start[0], start[1], 0.0 if equal else start[2]
    p, q, r, ab_c, ab_b, left = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for number in range(first, MAX_STEPS):
        reach = 1.0 if number < PATIENCE else 0.3  # shorter steps end a walk to and fro
        phi = math.exp(alpha)
        beyond_log, trigamma = digamma_beyond_log(1.0 / phi)
        for y in range(1, 10):
            ratio = y / (1.0 + phi * y)
            few[y + 1, 0] = few[y, 0] + ratio
            few[y + 1, 1] = few[y, 1] + ratio * ratio
        s1, i1, f1, g1, x1, e1, j1, k1 = arm_slopes(y1, l1, c - 0.5 * b, phi, beyond_log, trigamma, few)
        s2, i2, f2, g2, x2, e2, j2, k2 = arm_slopes(y2, l2, c + 0.5 * b, phi, beyond_log, trigamma, few)
        _, slope_alpha, curvature_alpha = log_prior_alpha(alpha, prior[2], prior[3], prior[4], prior[5])
        slope_alpha += phi * (f1 + f2)
        curvature_alpha -= phi * (phi * (g1 + g2) + f1 + f2)
        slope_c = s1 + s2 - (c - prior[0]) * centre_precision
        slope_b = 0.5 * (s2 - s1) - b * beta_precision
        p = i1 + i2 + centre_precision  # minus the second derivatives: p of centre, q of both, r of beta
        q = 0.0 if equal else 0.5 * (i2 - i1)
        r = 0.25 * (i1 + i2) + beta_precision
        xc = -phi * (x1 + x2)
        xb = 0.0 if equal else -0.5 * phi * (x2 - x1)
        if equal:
            slope_b = 0.0
        determinant = p * r - q * q
        ab_c = (r * xc - q * xb) / determinant  # how far centre and beta move down as alpha moves up
        ab_b = (p * xb - q * xc) / determinant
        gain, bend = volume(e1, e2, j1, j2, k1, k2, equal, centre_precision, beta_precision)
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
    out[0] = alpha
    out[1] = c
    out[3] = spread_alpha
    out[4] = -ab_c * spread_alpha
    if equal:
        out[5] = 1.0 / math.sqrt(p)
        return
    out[2] = b
    out[5] = 1.0 / math.sqrt(p - q * q / r)
    out[6] = -ab_b * spread_alpha
    out[7] = -q / r * out[5]
    out[8] = 1.0 / math.sqrt(r)


@njit(cache=True, nogil=True, error_model="numpy")
def climb_on(counts1, exposure1, counts2, exposure2, priors, starts, equal, first, out):
    """`climb` for the rest of its steps from `starts` (n, 3), of tests whose absent replicates have neither counts nor exposure."""
    few = np.zeros((11, 2))
    for t in range(starts.shape[0]):
        climb(counts1[t], exposure1[t], counts2[t], exposure2[t], priors[t], starts[t], equal, few, out[t], first)
