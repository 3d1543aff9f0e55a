"""Every gene of a data set in a design: the fit at its dispersion, and the tests of all contrasts."""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.glm_contrast import MODERATED, QUASI_LIKELIHOOD, contrast_result, hypothesis_chi2
from nbcompare._nb.glm_fit import (
    Matrices,
    centre,
    common_depth,
    make_fitted,
    make_space,
    newton,
    predict,
    start_from_counts,
)


@njit(cache=True, nogil=True, error_model="numpy")
def fit_and_test(
    counts,
    log_exposure,
    phi,
    phi_root,
    tau2,
    df,
    test,
    rows,
    columns,
    products,
    tested,
    directions,
    null,
    centred,
    begun,
    coefficients,
    effect,
    se,
    statistic,
    p_value,
    separated,
):
    """Fit every gene in the design rows[0] and test contrast c in the design rows[c + 1], whose last tested[c] columns are tested.

    A contrast of one column is directions[c], of length one, in the coefficients of rows[0]; null[c] is its value under the null.
    Effects are those at the dispersions phi (n_genes,). Quasi-likelihood ratios, which are also those of several columns in the moderated
    test, are taken at phi_root and divided by tau2. Fits start from `coefficients` if begun.
    Written: coefficients in rows[0]; effects, standard errors, statistics and p-values, for several columns the chi-squared value alone.
    """
    n = counts.shape[1]
    p = columns.shape[1]
    base = Matrices(rows[0], columns[0], products[0])
    offset = np.empty(n)
    fitted = make_fitted(n, p)
    at_root = make_fitted(n, p)
    space = make_space(n, p)
    several = tested.shape[0] > 0 and tested.max() > 1
    apart = test == QUASI_LIKELIHOOD or (test == MODERATED and several)
    depth = common_depth(log_exposure)
    for k in range(counts.shape[0]):
        y = counts[k]
        if centre(y, log_exposure[k if log_exposure.shape[0] > 1 else 0], depth, centred, offset) <= 0.0:
            continue
        if begun:
            for j in range(p):
                fitted.b[j] = coefficients[k, j]
            predict(offset, base.columns, p, fitted.b, fitted.eta)
        else:
            start_from_counts(y, offset, base, phi[k], p, fitted, space)
        root = fitted
        phi_of_root = phi[k]
        scale = 1.0
        if apart:
            phi_of_root = phi_root[k]
            scale = tau2[k]
            newton(y, base, phi_of_root, p, fitted, space)
            root = at_root
            for i in range(n):
                root.eta[i] = fitted.eta[i]
                root.m[i] = fitted.m[i]
        newton(y, base, phi[k], p, fitted, space)
        for j in range(p):
            coefficients[k, j] = fitted.b[j]
        for c in range(tested.shape[0]):
            design = Matrices(rows[c + 1], columns[c + 1], products[c + 1])
            if tested[c] > 1:
                statistic[k, c] = hypothesis_chi2(y, offset, design, tested[c], phi_of_root, root, scale, test, space)
                continue
            value = 0.0
            for j in range(p):
                value += directions[c, j] * fitted.b[j]
            if test == QUASI_LIKELIHOOD:
                result = contrast_result(
                    y, offset, design, null[c], value, phi[k], fitted, phi_of_root, root, scale, df[k], test, space
                )
            else:
                result = contrast_result(
                    y, offset, design, null[c], value, phi[k], fitted, phi[k], fitted, 1.0, df[k], test, space
                )
            effect[k, c], se[k, c], statistic[k, c], p_value[k, c], separated[k, c] = result
