"""Every gene of a data set in a design: the fit at its dispersion, and the tests of all contrasts."""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.glm.contrast import MODERATED, QUASI_LIKELIHOOD, contrast_result, hypothesis_chi2
from nbcompare._nb.glm.fit.newton import Matrices, common_depth, make_fitted, make_space
from nbcompare._nb.glm.fit.newton_vectorized import (
    GENES_AT_ONCE,
    allocate_vectors,
    fit_genes,
    fit_vectorized,
    start_null,
    take_fit,
)


@njit(cache=True, nogil=True, error_model="numpy")
def fit_and_test(
    counts,
    log_exposure,
    phi,
    phi_root,
    tau2,
    prior_df,
    own_df,
    pooled,
    test,
    rows,
    columns,
    products,
    ratio,
    tested,
    directions,
    null,
    centred,
    is_started,
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
    test, are taken at phi_root and divided by tau2. Dispersions of samples are `ratio` (n_samples,) times these. Degrees of freedom are those of
    the prior and of the gene's own statistic, see `glm_contrast.contrast_degrees`. Fits start from `coefficients` if begun.
    Written: coefficients in rows[0]; effects, standard errors, statistics and p-values, for several columns the chi-squared value alone.
    """
    n = counts.shape[1]
    p = columns.shape[1]
    base = Matrices(rows[0], columns[0], products[0], ratio)
    y = np.empty(n)
    fitted = make_fitted(n, p)
    root = make_fitted(n, p)
    space = make_space(n, p)
    full = allocate_vectors(n, p)
    at_root = allocate_vectors(n, p)
    without = allocate_vectors(n, p)
    shift = np.empty(GENES_AT_ONCE)
    several = tested.shape[0] > 0 and tested.max() > 1
    apart = test == QUASI_LIKELIHOOD or (test == MODERATED and several)
    depth = common_depth(log_exposure)
    for first in range(0, counts.shape[0], GENES_AT_ONCE):
        size = min(GENES_AT_ONCE, counts.shape[0] - first)
        fit_genes(
            counts,
            log_exposure,
            depth,
            centred,
            phi,
            first,
            size,
            is_started,
            coefficients,
            base,
            full,
            y,
            fitted,
            space,
        )
        for k in range(size):
            if full.total[k] > 0.0:
                for j in range(p):
                    coefficients[first + k, j] = full.b[j, k]
        if apart:
            fit_genes(
                counts, log_exposure, depth, centred, phi_root, first, size, True, coefficients, base, at_root, y, fitted, space
            )  # fmt: skip
        for c in range(tested.shape[0]):
            design = Matrices(rows[c + 1], columns[c + 1], products[c + 1], ratio)
            q = p - tested[c]
            rooted = at_root if test == QUASI_LIKELIHOOD or (apart and tested[c] > 1) else full
            shift[:] = null[c] if tested[c] == 1 else 0.0
            start_null(design, shift, size, q, rooted, without)
            fit_vectorized(design, size, q, without, y, fitted, space)
            for k in range(size):
                g = first + k
                if full.total[k] <= 0.0:
                    continue
                take_fit(k, q, without, y, space.null)
                for i in range(n):
                    space.offset[i] = without.offset[i, k]
                take_fit(k, p, rooted, y, root)
                scale = tau2[g] if apart else 1.0
                if tested[c] > 1:
                    statistic[g, c] = hypothesis_chi2(y, design, tested[c], rooted.phi[k], root, scale, test, space)
                    continue
                take_fit(k, p, full, y, fitted)
                value = -null[c]
                for j in range(p):
                    value += directions[c, j] * fitted.b[j]
                effect[g, c], se[g, c], statistic[g, c], p_value[g, c], separated[g, c] = contrast_result(
                    y, design, value, phi[g], fitted, rooted.phi[k], root, scale, prior_df[g], own_df[g], pooled[g], test, space
                )  # fmt: skip
