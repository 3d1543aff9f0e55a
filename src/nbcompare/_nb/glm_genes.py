"""Every gene of a data set in a design: fit, moderated dispersion, tests of all contrasts."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.glm_contrast import (
    QUASI_LIKELIHOOD,
    Matrices,
    make_fitted,
    make_space,
    test_contrast,
    test_hypothesis,
)
from nbcompare._nb.glm_dispersion import pearson
from nbcompare._nb.glm_fit import centre, newton, start_from_counts

SMALLEST_TAU2 = 0.02


@njit(cache=True, nogil=True, error_model="numpy")
def prior_at(trend, scatter, information):
    """Prior dispersion and its degrees of freedom, `information` being A = 1 / (phi + 1/m) at the trend; see `contrast.prior`."""
    rho = min(trend * information, 1.0)
    x = scatter * rho * rho
    df = 1.0 + 2.0 / max(x, 1e-6)
    shift = 0.5 * x + 1.0 / df + 1.0 / (3.0 * df * df)
    return max(trend - (1.0 - math.exp(-shift)) / max(information, 1e-12), 0.0), df


@njit(cache=True, nogil=True, error_model="numpy")
def moderate_gene(y, m, phi, trend, scatter, design, k_noise, k_count, space):
    """Moderated dispersion, tau2, degrees of freedom and the gene's own dispersion, from means m fitted at the prior dispersion phi."""
    numerator, degrees, information = pearson(
        y,
        m,
        phi,
        design.columns,
        design.products,
        design.rows.shape[1],
        k_noise,
        k_count,
        space.w,
        space.offset,
        space.pull,
        space.z,
        space.a,
    )
    df = prior_at(trend, scatter, information / (1.0 + (trend - phi) * information))[1]
    tau2 = max((df + numerator) / (df + degrees), SMALLEST_TAU2)
    own = max(phi + (numerator / degrees - 1.0) / information, 0.0) if degrees > 0.0 else np.nan
    return max(phi + (tau2 - 1.0) / information, 0.0), tau2, df + degrees, own


@njit(cache=True, nogil=True, error_model="numpy")
def test_genes(
    counts,
    log_exposure,
    trend,
    scatter,
    k_noise,
    k_count,
    moderated,
    test,
    rows,
    columns,
    products,
    tested,
    directions,
    null,
    coefficients,
    of_gene,
    effect,
    se,
    statistic,
    p_value,
    separated,
):
    """Fit every gene in the design rows[0] and test contrast c in the design rows[c + 1], whose last tested[c] columns are tested.

    A contrast of one column is directions[c], of length one, in the coefficients of rows[0]; null[c] is its value under the null.
    `trend` is the dispersion to test at unless `moderated`. Written: coefficients in rows[0]; of_gene (n_genes, 3: dispersion, own
    dispersion, degrees of freedom); effects, standard errors, statistics and p-values, for several columns the chi-squared value alone.
    """
    n = counts.shape[1]
    p = columns.shape[1]
    base = Matrices(rows[0], columns[0], products[0])
    offset = np.empty(n)
    at_prior = make_fitted(n, p)
    fitted = make_fitted(n, p)
    space = make_space(n, p)
    for k in range(counts.shape[0]):
        y = counts[k]
        total = centre(y, log_exposure[k if log_exposure.shape[0] > 1 else 0], offset)
        if total <= 0.0:
            continue
        prior_phi = trend[k]
        if moderated:
            mean = total / n
            prior_phi = prior_at(trend[k], scatter, mean / (1.0 + trend[k] * mean))[0]
        start_from_counts(
            y, offset, base.rows, base.columns, base.products, prior_phi, p, fitted.b, fitted.eta, space.w, space.a
        )
        newton(
            y,
            base.rows,
            base.columns,
            base.products,
            prior_phi,
            p,
            fitted.b,
            fitted.eta,
            fitted.m,
            space.w,
            space.a,
            space.g,
        )
        phi = prior_phi
        tau2 = 1.0
        df = math.inf
        root = fitted
        phi_root = phi
        if moderated:
            phi, tau2, df, of_gene[k, 1] = moderate_gene(
                y, fitted.m, prior_phi, trend[k], scatter, base, k_noise, k_count, space
            )
            phi_root = phi
            if test == QUASI_LIKELIHOOD:
                phi_root = prior_phi
                root = at_prior
                for i in range(n):
                    root.eta[i] = fitted.eta[i]
                    root.m[i] = fitted.m[i]
            newton(
                y,
                base.rows,
                base.columns,
                base.products,
                phi,
                p,
                fitted.b,
                fitted.eta,
                fitted.m,
                space.w,
                space.a,
                space.g,
            )
        of_gene[k, 0] = phi
        of_gene[k, 2] = df
        for j in range(p):
            coefficients[k, j] = fitted.b[j]
        for c in range(tested.shape[0]):
            design = Matrices(rows[c + 1], columns[c + 1], products[c + 1])
            if tested[c] > 1:
                statistic[k, c] = test_hypothesis(y, offset, design, tested[c], phi_root, root, tau2, test, space)
                continue
            value = 0.0
            for j in range(p):
                value += directions[c, j] * fitted.b[j]
            effect[k, c], se[k, c], statistic[k, c], p_value[k, c], separated[k, c] = test_contrast(
                y, offset, design, null[c], value, phi, fitted, phi_root, root, tau2, df, test, space
            )
