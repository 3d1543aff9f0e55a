"""The modified signed root r* of one contrast in any design, by the formula of Skovgaard (1996, Bernoulli 2, 145).

Hats mark the full fit, tildes the fit under the null, both at one dispersion phi, times the ratio of each sample; the tested direction is the last column of the design.
With t = log(m^ / m~) - log((1 + phi m^) / (1 + phi m~)):

    r  = sign sqrt(2 sum [y t - log(1 + phi (m^ - m~) / (1 + phi m~)) / phi])
    S  = X' diag(m^ / (1 + phi m~)) X,      I = X' diag(m^ / (1 + phi m^)) X,      g = X' (m^ t)
    J, J~ observed information X' diag(m (1 + phi y) / (1 + phi m)^2) X at hat and at tilde, the latter without the last column
    u  = [S^-1 g]_last |S| |J|^1/2 / (|I| |J~|^1/2),      r* = r + log(u / r) / r
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.cholesky import cholesky, forward, gram, half_log_determinant, transposed_times
from nbcompare._nb.numerics.special import fast_log1p

LARGEST_CORRECTION = 1.0  # larger ones come from degenerate fits alone
EMPTY = 1e-3  # samples with smaller means under both fits carry nothing


@njit(cache=True, nogil=True, error_model="numpy")
def half_deviance(y, eta, m, eta_null, m_null, phi, ratio, pull):
    """Half the likelihood ratio statistic, at least 0, and m^ t of every sample (written)."""
    half = 0.0
    for i in range(y.shape[0]):
        difference = m[i] - m_null[i]
        log_ratio = eta[i] - eta_null[i]
        if phi < 1e-13:
            half += y[i] * log_ratio - difference
        else:
            own = phi * ratio[i]
            log_rising = fast_log1p(own * difference / (1.0 + own * m_null[i]))
            log_ratio -= log_rising
            half += y[i] * log_ratio - log_rising / own
        pull[i] = m[i] * log_ratio
    return max(half, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def information_root(m, phi, design, p, w, a):
    """Cholesky's factor (written) of the expected information I, and its weights."""
    for i in range(m.shape[0]):
        w[i] = m[i] / (1.0 + phi * design.ratio[i] * m[i])
    gram(w, design.products, p, a)
    cholesky(a, p)


@njit(cache=True, nogil=True, error_model="numpy")
def usable_information(m, m_null, phi, design, p, w, a):
    """The same of samples that are not empty under both fits."""
    for i in range(m.shape[0]):
        w[i] = m[i] / (1.0 + phi * design.ratio[i] * m[i]) if m[i] + m_null[i] > EMPTY else 0.0
    gram(w, design.products, p, a)
    cholesky(a, p)


@njit(cache=True, nogil=True, error_model="numpy")
def modified_root(y, m, m_null, phi, design, log_information, root, space):
    """r* from the signed root r and m^ t (space.pull), away from the null; r itself where the correction is beyond belief."""
    correction = root_correction(y, m, m_null, phi, design, log_information, root, space)
    return root + correction if abs(correction) < LARGEST_CORRECTION else root


@njit(cache=True, nogil=True, error_model="numpy")
def root_correction(y, m, m_null, phi, design, log_information, root, space):
    """log(u / r) / r, 0 where u has the other sign; `log_information` is log |I|^1/2 of the informative samples."""
    w = space.w
    a = space.a
    g = space.g
    products = design.products
    ratio = design.ratio
    n, p = design.rows.shape
    transposed_times(space.pull, design.columns, p, g)
    for i in range(n):
        w[i] = m[i] / (1.0 + phi * ratio[i] * m_null[i]) if m[i] + m_null[i] > EMPTY else 0.0
    gram(w, products, p, a)
    cholesky(a, p)
    forward(a, g, p)
    u = g[p - 1] * a[p * (p + 1) // 2 - 1]
    if u * root <= 0.0:
        return 0.0
    log_u = 2.0 * (half_log_determinant(a, p) - log_information)
    for i in range(n):
        own = phi * ratio[i]
        f = 1.0 / (1.0 + own * m[i])
        w[i] = m[i] * (1.0 + own * y[i]) * f * f if m[i] + m_null[i] > EMPTY else 0.0
    gram(w, products, p, a)
    cholesky(a, p)
    log_u += half_log_determinant(a, p)
    for i in range(n):
        own = phi * ratio[i]
        f = 1.0 / (1.0 + own * m_null[i])
        w[i] = m_null[i] * (1.0 + own * y[i]) * f * f if m[i] + m_null[i] > EMPTY else 0.0
    gram(w, products, p - 1, a)
    cholesky(a, p - 1)
    log_u -= half_log_determinant(a, p - 1)
    return (math.log(u / root) + log_u) / root
