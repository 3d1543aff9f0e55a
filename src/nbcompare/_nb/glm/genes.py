"""Every gene of a data set in a design: the fit at its dispersion, and the tests of all contrasts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.glm.contrast import MODERATED, QUASI_LIKELIHOOD, contrast_result, hypothesis_chi2
from nbcompare._nb.glm.fit.newton import GeneDispersions, Start, common_depth, design_at, make_fitted
from nbcompare._nb.glm.fit.newton_vectorized import (
    GENES_AT_ONCE,
    allocate_gene,
    allocate_vectors,
    fit_genes,
    fit_vectorized,
    start_null,
    take_fit,
)


class ContrastArrays(NamedTuple):
    """What the tests write, (n_genes, n_contrasts) each."""

    effect: np.ndarray
    se: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    separated: np.ndarray  # bool


@njit(cache=True, nogil=True, error_model="numpy")
def fit_and_test(data, dispersions, test, designs, null, start, out):
    """Fit every gene in the first design and test contrast c in the design c + 1, whose last tested[c] columns are tested.

    A contrast of one column is directions[c], of length one, in the coefficients of the first design; null[c] is its value under the null.
    Effects are those at the dispersions phi (n_genes,). Quasi-likelihood ratios, which are also those of several columns in the moderated
    test, are taken at phi_root and divided by tau2. Fits begin at the coefficients of `start`, and are written there.
    Written: effects, standard errors, statistics and p-values, for several columns the chi-squared value alone.
    """
    n = data.counts.shape[1]
    p = designs.columns.shape[1]
    tested, directions = designs.tested, designs.directions
    base = design_at(designs, 0)
    one = allocate_gene(n, p)
    y, fitted, space = one
    root = make_fitted(n, p)
    full = allocate_vectors(n, p)
    at_root = allocate_vectors(n, p)
    without = allocate_vectors(n, p)
    shift = np.empty(GENES_AT_ONCE)
    several = tested.shape[0] > 0 and tested.max() > 1
    apart = test == QUASI_LIKELIHOOD or (test == MODERATED and several)
    depth = common_depth(data.log_exposure)
    from_full = Start(True, start.coefficients)
    for first in range(0, data.counts.shape[0], GENES_AT_ONCE):
        size = min(GENES_AT_ONCE, data.counts.shape[0] - first)
        chunk = (first, size)
        fit_genes(data, depth, dispersions.phi, chunk, start, base, full, one)
        for k in range(size):
            if full.total[k] > 0.0:
                for j in range(p):
                    start.coefficients[first + k, j] = full.b[j, k]
        if apart:
            fit_genes(data, depth, dispersions.phi_root, chunk, from_full, base, at_root, one)
        for c in range(tested.shape[0]):
            design = design_at(designs, c + 1)
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
                scale = dispersions.tau2[g] if apart else 1.0
                if tested[c] > 1:
                    out.statistic[g, c] = hypothesis_chi2(y, design, tested[c], rooted.phi[k], root, scale, test, space)
                    continue
                take_fit(k, p, full, y, fitted)
                value = -null[c]
                for j in range(p):
                    value += directions[c, j] * fitted.b[j]
                of_gene = GeneDispersions(
                    dispersions.phi[g],
                    rooted.phi[k],
                    scale,
                    dispersions.prior_df[g],
                    dispersions.own_df[g],
                    dispersions.pooled[g],
                )
                out.effect[g, c], out.se[g, c], out.statistic[g, c], out.p_value[g, c], out.separated[g, c] = (
                    contrast_result(y, design, value, fitted, root, of_gene, test, space)
                )
