"""The modified signed root r* for the ratio of two negative binomial means, in closed form.

Two pseudo-counts y_g ~ NB(E_g lam_g, d_g). Under lam_1 = lam_2 = lam the likelihood's rate is the positive root of
-A lam^2 + B lam + (y_1 + y_2) = 0 with h_g = d_g E_g, A = E_1 h_2 + E_2 h_1, B = y_1 h_2 + y_2 h_1 - E_1 - E_2. With M_g = E_g lam,
a_g = log(y_g / M_g), c_g = log((1 + d_g y_g) / (1 + d_g M_g)), f_g = 1 + d_g M_g and e_g = 1 + d_g y_g,

    r  = sign(y_2 - M_2) sqrt(2 sum y_g (a_g - c_g) - c_g / d_g)
    Q  = ((a_2 - c_2) / f_1 - (a_1 - c_1) / f_2) sqrt(y_1 e_1 y_2 e_2 / (M_1 e_1 / f_1^2 + M_2 e_2 / f_2^2))
    r* = r + log(Q / r) / r
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.special import fast_log1p

SMALL = 1e-6  # deviance below which rounding would spoil log(Q / r) / r


@njit(cache=True, nogil=True, error_model="numpy")
def modified_root(y1, y2, E1, E2, d1, d2):
    """Signed r*, positive where the second rate is larger; both pseudo-counts must be positive.

    Close to the null the correction log(Q / r) / r is interpolated between two points with the same fitted rate, y_g = M_g -+ t f_g.
    """
    total = y1 + y2
    a = E1 * d2 * E2 + E2 * d1 * E1
    b = y1 * d2 * E2 + y2 * d1 * E1 - E1 - E2
    root = math.sqrt(b * b + 4.0 * a * total)
    rate = (b + root) / (2.0 * a) if b > 0.0 else 2.0 * total / (root - b)
    m1 = E1 * rate
    m2 = E2 * rate
    f1 = 1.0 + d1 * m1
    f2 = 1.0 + d2 * m2
    r, correction = _root_and_correction(y1, y2, m1, m2, d1, d2, f1, f2)
    if r * r < SMALL:
        t = min(0.02 / math.sqrt(f1 / m1 + f2 / m2), 0.5 * m1 / f1, 0.5 * m2 / f2)
        below, low = _root_and_correction(m1 + t * f1, m2 - t * f2, m1, m2, d1, d2, f1, f2)
        above, high = _root_and_correction(m1 - t * f1, m2 + t * f2, m1, m2, d1, d2, f1, f2)
        correction = low + (high - low) * (r - below) / (above - below)
    return r + correction


@njit(cache=True, nogil=True, error_model="numpy")
def _root_and_correction(y1, y2, m1, m2, d1, d2, f1, f2):
    """The signed root r and log(Q / r) / r."""
    e1 = 1.0 + d1 * y1
    e2 = 1.0 + d2 * y2
    log_ratio1, half1 = _half_deviance(y1, m1, d1, e1, f1)
    log_ratio2, half2 = _half_deviance(y2, m2, d2, e2, f2)
    deviance = 2.0 * (half1 + half2)
    if deviance <= 0.0:
        return 0.0, 0.0
    r = math.sqrt(deviance)
    if y2 < m2:
        r = -r
    information = m1 * e1 / (f1 * f1) + m2 * e2 / (f2 * f2)
    q = (log_ratio2 / f1 - log_ratio1 / f2) * math.sqrt(y1 * e1 * y2 * e2 / information)
    return r, math.log(q / r) / r if q * r > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _half_deviance(y, m, d, e, f):
    """The difference a - c = log(y f / (m e)) = log(1 + (y - m) / (m e)), and y (a - c) - c / d, of one group; no digits are lost where y is near m."""
    difference = y - m
    log_ratio = fast_log1p(difference / (m * e))
    if d < 1e-13:
        return log_ratio, y * log_ratio - difference
    return log_ratio, y * log_ratio - fast_log1p(d * difference / f) / d
