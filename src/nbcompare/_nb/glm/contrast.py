"""From one gene's fits in a design to the test of a contrast, and of a hypothesis of several degrees of freedom."""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.glm.fit.newton import newton, project, start_from_counts
from nbcompare._nb.glm.fit.separation import free_direction, half_a_count, is_separated
from nbcompare._nb.glm.skovgaard import (
    LARGEST_CORRECTION,
    half_deviance,
    information_root,
    modified_root,
    root_correction,
    usable_information,
)
from nbcompare._nb.numerics.cholesky import backward, half_log_determinant
from nbcompare._nb.numerics.special import normal_from_t, normal_tail

MODERATED, LIKELIHOOD_RATIO, QUASI_LIKELIHOOD, WALD = range(4)
CLOSE_TO_NULL = 0.05  # roots by which the correction is not divided
NEARBY = 0.15  # standard deviations


@njit(cache=True, nogil=True, error_model="numpy")
def contrast_result(y, design, effect, full, full_root, dispersion, test, space):
    """Effect over the null's and its standard error, both in units of the last column, signed statistic, p-value, whether separated.

    `dispersion` are the `GeneDispersions` of the gene. `full` is the fit at its phi, `full_root` that at its phi_root, where the likelihood ratio
    is taken; space.null is the null's fit there, at the offsets space.offset.
    """
    phi, phi_root = dispersion.phi, dispersion.phi_root
    p = design.rows.shape[1]
    null = space.null
    root = signed_root(y, full_root, null, phi_root, design.ratio, effect, space)
    separated = is_separated(y, full_root.m, null.m) and half_a_count(
        y, full_root.m, null.m, phi_root, design, effect > 0.0, space
    )
    if separated:
        y = space.counts
        full = space.refit
        start_from_counts(y, space.offset, design, phi, p, full, space)
        newton(y, design, phi, p, full, space)
        effect = full.b[p - 1]
    usable_information(full.m, null.m, phi, design, p, space.w, space.a)
    df = contrast_degrees(design, null.m, dispersion, space)
    se = space.a[p * (p + 1) // 2 - 1]
    log_information = half_log_determinant(space.a, p)
    share = 1.0
    if test == MODERATED:
        if separated:
            share = 0.5
            newton(y, design, phi, p - 1, null, space)
            root = signed_root(y, full, null, phi, design.ratio, effect, space)
        if abs(root) < CLOSE_TO_NULL:
            root += correction_at_null(y, phi, design, root, space)
        else:
            root = modified_root(y, full.m, null.m, phi, design, log_information, root, space)
    elif test == WALD:
        root = effect / se
    else:
        root /= math.sqrt(dispersion.tau2)
    deviate = normal_from_t(root, df)
    return effect, se, math.copysign(deviate, root), min(2.0 * share * normal_tail(deviate), 1.0), separated


@njit(cache=True, nogil=True, error_model="numpy")
def contrast_degrees(design, m_null, dispersion, space):
    """Degrees of freedom of the dispersion in the variance of the contrast.

    The weights space.w and Cholesky's factor space.a are those of the full fit. With the share q, at most one, of the information on the
    dispersion at the null's fit in that of samples that differ in exposure alone (`pooled`), the gene's own degrees count q^2: what a
    gene's residuals say where its means are low is no knowledge of the dispersion where they are high. With the influences h = w x' e of the
    samples on the contrast, e the last column of the inverse information, its variance depends on the dispersion through the weight
    wc = sum c h^2 / sum h^2 / w, c the ratios of the samples. An error of the dispersion weighs more than on average where wc exceeds the
    mean of c w: degrees are divided by wc over that, if above one.
    """
    n, p = design.rows.shape
    phi, pooled = dispersion.phi, dispersion.pooled
    g = space.g
    at_null = 0.0
    average = 0.0
    for i in range(n):
        c = design.ratio[i]
        at_null += c * m_null[i] / (1.0 + phi * c * m_null[i])
        average += c * space.w[i]
    share = min(at_null / (n * pooled), 1.0)
    for j in range(p):
        g[j] = 0.0
    g[p - 1] = space.a[p * (p + 1) // 2 - 1]
    backward(space.a, g, p)
    squares = 0.0
    variance = 0.0
    for i in range(n):
        e = 0.0
        for j in range(p):
            e += design.rows[i, j] * g[j]
        h = space.w[i] * e
        squares += design.ratio[i] * h * h
        variance += h * e
    df = dispersion.prior_df + dispersion.own_df * share * share
    return df / max(squares * n / (variance * average), 1.0) if variance > 0.0 else df


@njit(cache=True, nogil=True, error_model="numpy")
def correction_at_null(y, phi, design, root, space):
    """log(u / r) / r of a root too small to divide by: interpolated between counts moved a little either way.

    They are moved as in `separation`, so that the null's fit is theirs too.
    """
    null = space.null
    p = design.rows.shape[1]
    for i in range(y.shape[0]):
        space.w[i] = null.m[i]
    step = NEARBY / math.sqrt(max(free_direction(null.m, phi, design, space), 1e-12))
    for i in range(y.shape[0]):
        space.leverage[i] = space.w[i]
        if space.w[i] != 0.0:
            step = min(step, 0.5 * max(y[i], null.m[i]) / abs(space.w[i]))
    roots = (0.0, 0.0)
    corrections = (0.0, 0.0)
    for side in range(2):
        for i in range(y.shape[0]):
            space.counts[i] = y[i] + (step if side else -step) * space.leverage[i]
            space.refit.eta[i] = null.eta[i]
        for j in range(p - 1):
            space.refit.b[j] = null.b[j]
        space.refit.b[p - 1] = 0.0
        newton(space.counts, design, phi, p, space.refit, space)
        moved = signed_root(space.counts, space.refit, null, phi, design.ratio, space.refit.b[p - 1], space)
        correction = 0.0
        if moved != 0.0:
            usable_information(space.refit.m, null.m, phi, design, p, space.w, space.a)
            log_information = half_log_determinant(space.a, p)
            correction = root_correction(
                space.counts, space.refit.m, null.m, phi, design, log_information, moved, space
            )
        roots = (roots[1], moved)
        corrections = (corrections[1], correction)
    if not roots[0] < root < roots[1] or max(abs(corrections[0]), abs(corrections[1])) >= LARGEST_CORRECTION:
        return 0.0
    return corrections[0] + (corrections[1] - corrections[0]) * (root - roots[0]) / (roots[1] - roots[0])


@njit(cache=True, nogil=True, error_model="numpy")
def signed_root(y, full, null, phi, ratio, effect, space):
    """Root of the likelihood ratio statistic, with the sign of the effect; space.pull is written for `modified_root`."""
    half = half_deviance(y, full.eta, full.m, null.eta, null.m, phi, ratio, space.pull)
    return math.copysign(math.sqrt(2.0 * half), effect)


@njit(cache=True, nogil=True, error_model="numpy")
def hypothesis_chi2(y, design, k, phi, full, tau2, test, space):
    """Chi-squared value with k degrees of freedom of the hypothesis that the last k columns have no effect.

    `full` is the fit at phi; space.null and space.offset are as for `contrast_result`.
    """
    p = design.rows.shape[1]
    if test != WALD:
        half = half_deviance(y, full.eta, full.m, space.null.eta, space.null.m, phi, design.ratio, space.pull)
        return 2.0 * half / tau2
    for i in range(y.shape[0]):
        space.refit.eta[i] = full.eta[i]
        space.w[i] = 1.0
    project(space.offset, design, p, space.refit, space)  # the fit's coefficients in this design
    information_root(full.m, phi, design, p, space.w, space.a)
    value = 0.0
    for j in range(p - k, p):
        t = space.refit.b[j] / space.a[j * (j + 3) // 2]
        for i in range(j + 1, p):
            t += space.a[i * (i + 1) // 2 + j] * space.refit.b[i]
        value += t * t
    return value
