"""Confidence intervals of contrasts in any design, by inversion of their test: the nulls of the contrast that are not rejected at 5 %.

Under the null hypothesis that a contrast is x its column moves to the offset, and the other coefficients are fitted anew. One group against
another, which `moderated` tests, has its interval from there; Wald's test on the normal that of estimate and standard error.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.glm.contrast import MODERATED, QUASI_LIKELIHOOD, WALD, contrast_result
from nbcompare._nb.glm.dispersion.moderation import Moderation
from nbcompare._nb.glm.fit.design import DesignMatrices
from nbcompare._nb.glm.fit.mle import maximise_gene
from nbcompare._nb.glm.fit.newton import (
    GeneCounts,
    GeneDispersions,
    Start,
    centre,
    common_depth,
    design_at,
    make_fitted,
    make_space,
)
from nbcompare._nb.glm.fit.newton_vectorized import (
    GENES_AT_ONCE,
    allocate_gene,
    allocate_vectors,
    fit_genes,
    fit_vectorized,
    start_null,
    take_fit,
)
from nbcompare._nb.numerics.interval_search import NORMAL, ONE_SIDED, SIZE, X, advance, begin, t_critical
from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._nb.two_group.intervals import wald_intervals

LOWER, UPPER = 0, 1


def design_intervals(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    basis: Moderation,
    log_fc: np.ndarray,
    se: np.ndarray,
    separated: np.ndarray,
    test: int,
    *,
    searched: np.ndarray,
    highest: np.ndarray | None = None,
    cox_reid: bool = False,
    n_threads: int = 1,
) -> np.ndarray:
    """Lower and upper bounds of the contrasts of `glm.design_tests`, (n_genes, n_contrasts, 2); NaN for those that are not `searched`.

    Parameters
    ----------
    counts, offset
        As for `design_tests`.
    matrices
        Of its design and contrasts.
    basis
        The dispersions of its tests.
    log_fc, se
        Its estimates and their standard errors, (n_genes, n_contrasts). Genes without finite ones are not searched.
    separated
        Where the contrast sets samples without counts apart, (n_genes, n_contrasts) bool.
    test
        Which of `glm_contrast`'s.
    searched
        Contrasts of one column whose bounds are asked for, (n_contrasts,) bool.
    highest
        Where likelihood ratios refit the dispersion under each null: the log likelihood of the alternatives, (n_genes, n_contrasts).
    cox_reid
        Whether these are adjusted for the coefficients of the null.
    n_threads
        Genes are shared out among so many threads.
    """
    out = np.full((*log_fc.shape, 2), np.nan)
    if matrices.residual_degrees < 1 or not len(matrices.tested):
        return out
    if test == WALD and not np.isfinite(basis.degrees).any():
        out[...] = np.stack(wald_intervals(log_fc, se, basis.degrees), axis=-1)
        out[:, ~searched] = np.nan
        return out
    if not searched.any():
        return out
    length = np.where(searched, matrices.length, 1.0)
    requested = np.flatnonzero(np.isfinite(log_fc[:, searched] * se[:, searched]).any(axis=1))
    starts, errors = log_fc[requested] / length, se[requested] / length
    counts = np.ascontiguousarray(counts[requested])
    offset = offset if len(offset) == 1 else np.ascontiguousarray(offset[requested])
    separated = np.ascontiguousarray(separated[requested])
    dispersions, designs = basis.part(requested), matrices.kernels(basis.ratio)
    alternative = np.zeros((len(requested), 0)) if highest is None else np.ascontiguousarray(highest[requested])
    found = np.full((*starts.shape, 2), np.nan)
    search = _search if highest is None else _search_refitted

    def run(part: slice) -> None:
        search(
            GeneCounts(counts[part], offset if len(offset) == 1 else offset[part], matrices.centred),
            GeneDispersions(*(values[part] for values in dispersions)),
            test,
            designs,
            Targets(searched, separated[part], starts[part], errors[part]),
            Alternatives(alternative[part], cox_reid),
            found[part],
        )

    in_parallel(run, len(requested), n_threads)
    found[:, searched] *= length[searched][:, None]
    out[requested] = found
    return out


class Targets(NamedTuple):
    """What is searched."""

    searched: np.ndarray  # (n_contrasts,) bool
    separated: np.ndarray  # (n_genes, n_contrasts) bool
    starts: np.ndarray  # (n_genes, n_contrasts) estimates
    errors: np.ndarray  # (n_genes, n_contrasts) their standard errors


class Alternatives(NamedTuple):
    """Where likelihood ratios refit the dispersion: the log likelihoods of the alternatives, and whether those of the nulls are adjusted."""

    highest: np.ndarray  # (n_genes, n_contrasts)
    cox_reid: bool


@njit(cache=True, nogil=True, error_model="numpy")
def _search(data, dispersions, test, designs, targets, _alternatives, out):
    """Searches of several genes side by side, in units of the designs' last columns; nulls are fitted as in `genes.fit_and_test`."""
    searched, separated, starts, errors = targets
    directions = designs.directions
    n = data.counts.shape[1]
    p = designs.columns.shape[1]
    base = design_at(designs, 0)
    one = allocate_gene(n, p)
    y, fitted, space = one
    root = make_fitted(n, p)
    full = allocate_vectors(n, p)
    at_root = allocate_vectors(n, p)
    without = allocate_vectors(n, p)
    apart = test == QUASI_LIKELIHOOD
    depth = common_depth(data.log_exposure)
    unknown = Start(False, np.empty((0, p)))
    state = np.empty((GENES_AT_ONCE, SIZE))
    done = np.empty(GENES_AT_ONCE, np.bool_)
    shift = np.zeros(GENES_AT_ONCE)
    for first in range(0, data.counts.shape[0], GENES_AT_ONCE):
        size = min(GENES_AT_ONCE, data.counts.shape[0] - first)
        fit_genes(data, depth, dispersions.phi, (first, size), unknown, base, full, one)
        rooted = full
        if apart:
            fit_genes(data, depth, dispersions.phi_root, (first, size), unknown, base, at_root, one)
            rooted = at_root
        for c in range(searched.shape[0]):
            if not searched[c]:
                continue
            design = design_at(designs, c + 1)
            for side in range(2):
                n_left = 0
                for k in range(size):
                    g = first + k
                    done[k] = True
                    shift[k] = 0.0
                    if not (full.total[k] > 0.0 and errors[g, c] < math.inf and abs(starts[g, c]) < math.inf):
                        continue
                    target = NORMAL if side == LOWER else -NORMAL
                    if separated[g, c]:
                        value = 0.0
                        for j in range(p):
                            value += directions[c, j] * full.b[j, k]
                        if value * target < 0.0:  # nothing bounds a group without counts on that side
                            out[g, c, side] = -math.inf if side == LOWER else math.inf
                            continue
                    degrees = dispersions.prior_df[g] + dispersions.own_df[g]
                    width = math.copysign(t_critical(degrees, NORMAL) * errors[g, c], target)
                    begin(state[k], starts[g, c], starts[g, c] - width, target)
                    shift[k] = state[k, X]
                    done[k] = False
                    n_left += 1
                while n_left > 0:
                    start_null(design, shift, size, p - 1, rooted, without)
                    fit_vectorized(design, size, p - 1, without, y, fitted, space)
                    for k in range(size):
                        if done[k]:
                            continue
                        g = first + k
                        take_fit(k, p - 1, without, y, space.null)
                        for i in range(n):
                            space.offset[i] = without.offset[i, k]
                        take_fit(k, p, rooted, y, root)
                        take_fit(k, p, full, y, fitted)
                        value = -shift[k]
                        for j in range(p):
                            value += directions[c, j] * fitted.b[j]
                        of_gene = GeneDispersions(
                            dispersions.phi[g],
                            rooted.phi[k],
                            dispersions.tau2[g] if apart else 1.0,
                            dispersions.prior_df[g],
                            dispersions.own_df[g],
                            dispersions.pooled[g],
                        )
                        _, _, deviate, _, halved = contrast_result(y, design, value, fitted, root, of_gene, test, space)
                        if test == MODERATED and halved:  # as its p-value is
                            deviate *= NORMAL / ONE_SIDED
                        done[k] = advance(state[k], deviate)
                        shift[k] = state[k, X]
                        if done[k]:
                            n_left -= 1
                            out[g, c, side] = state[k, X]
                            shift[k] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _search_refitted(data, _dispersions, _test, designs, targets, alternatives, out):
    """The same for likelihood ratios with the dispersion at its maximum under each null; the arguments are those of `_search`."""
    searched, separated, starts, errors = targets
    highest, cox_reid = alternatives
    counts, log_exposure, centred = data
    n = counts.shape[1]
    p = designs.columns.shape[1]
    poisson = make_fitted(n, p)
    interior = make_fitted(n, p)
    space = make_space(n, p)
    offset = np.empty(n)
    shifted = np.empty(n)
    state = np.empty(SIZE)
    depth = common_depth(log_exposure)
    for g in range(counts.shape[0]):
        y = counts[g]
        if centre(y, log_exposure[g if log_exposure.shape[0] > 1 else 0], depth, centred, offset) <= 0.0:
            continue
        for c in range(searched.shape[0]):
            if not (searched[c] and errors[g, c] < math.inf and abs(starts[g, c]) < math.inf):
                continue
            design = design_at(designs, c + 1)
            for side in range(2):
                target = NORMAL if side == LOWER else -NORMAL
                if separated[g, c] and starts[g, c] * target < 0.0:
                    out[g, c, side] = -math.inf if side == LOWER else math.inf
                    continue
                begin(state, starts[g, c], starts[g, c] - target * errors[g, c], target)
                ended = False
                while not ended:
                    for i in range(n):
                        shifted[i] = offset[i] + state[X] * design.columns[p - 1, i]
                    value = maximise_gene(
                        y, shifted, design, p - 1, p - 1 if cox_reid else 0, poisson, interior, space
                    )[2]
                    root = math.sqrt(2.0 * max(highest[g, c] - value, 0.0))
                    sign = target if separated[g, c] else starts[g, c] - state[X]
                    ended = advance(state, math.copysign(root, sign))
                out[g, c, side] = state[X]
