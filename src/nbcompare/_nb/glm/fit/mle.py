"""Maximum likelihood in a design: the coefficients, and the dispersion of each gene on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from nbcompare._nb.glm.fit.design import DesignMatrices
from nbcompare._nb.glm.fit.newton import Matrices, centre, common_depth, make_fitted, make_space, start_from_counts
from nbcompare._nb.glm.fit.profile import adjusted, maximize, poisson_slope, profile_out, search, slopes
from nbcompare._nb.likelihood.profile_maximum import may_rise_again
from nbcompare._nb.numerics.parallel import in_parallel


@dataclass(frozen=True)
class DesignMaximum:
    """Maximum likelihood estimates in a design. Natural logarithms."""

    coefficients: np.ndarray  # (n_genes, n_coefficients), NaN without counts
    dispersion: np.ndarray  # (n_genes,) 0 where the Poisson fit is the answer, NaN without counts
    log_likelihood: np.ndarray  # (n_genes,) at the estimates, without adjustment


def maximise_design(
    counts: np.ndarray, offset: np.ndarray, matrices: DesignMatrices, *, cox_reid: bool = False, n_threads: int = 1
) -> DesignMaximum:
    """Coefficients and dispersion of every gene by maximum likelihood.

    The coefficients are maximised out at every dispersion, and the profile is climbed in log phi by Newton's method, as in `maximum`.
    With `cox_reid` half the log determinant of the coefficients' information is taken off the profile [Cox and Reid 1987, JRSS B 49, 1].
    """
    p = matrices.n_coefficients
    coefficients, estimates = _maximise(counts, offset, matrices, 0, 0, 0.0, p if cox_reid else 0, n_threads)
    return DesignMaximum(matrices.coefficients(coefficients, counts, offset), estimates[:, 0], estimates[:, 1])


def adjusted_alternatives(
    counts: np.ndarray, offset: np.ndarray, matrices: DesignMatrices, *, n_threads: int = 1
) -> np.ndarray:
    """Log likelihood under the alternative of each hypothesis, adjusted for the coefficients of its null, (n_genes, n_contrasts).

    The dispersion maximises it. An adjustment for the tested coefficients on one side of a ratio alone would not be comparable, so the dispersion
    is not that of `maximise_design`.
    """
    found = np.empty((len(counts), len(matrices.tested)))
    for c, k in enumerate(matrices.tested):
        nuisance = matrices.n_coefficients - int(k)
        found[:, c] = _maximise(counts, offset, matrices, c + 1, 0, 0.0, nuisance, n_threads)[1][:, 2]
    return found


def likelihood_ratios(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    alternative: np.ndarray,
    null: np.ndarray,
    *,
    cox_reid: bool = False,
    n_threads: int = 1,
) -> np.ndarray:
    """Log likelihood lost under each hypothesis, the dispersion being fitted anew, (n_genes, n_contrasts); `null` as in `design_tests`.

    `alternative` is the log likelihood under each alternative, (n_genes, n_contrasts), with `cox_reid` that of `adjusted_alternatives`.
    """
    df_ratio = np.empty((len(counts), len(matrices.tested)))
    for c, k in enumerate(matrices.tested):
        shift = null[c] / matrices.length[c] if k == 1 else 0.0
        nuisance = matrices.n_coefficients - int(k) if cox_reid else 0
        without = _maximise(counts, offset, matrices, c + 1, int(k), shift, nuisance, n_threads)[1]
        df_ratio[:, c] = alternative[:, c] - without[:, 2]
    return df_ratio


def _maximise(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    which: int,
    left_out: int,
    shift: float,
    nuisance: int,
    n_threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, and dispersion, log likelihood and what was maximised, in one of the designs without its last columns."""
    coefficients = np.full((len(counts), matrices.n_coefficients), np.nan)
    estimates = np.full((len(counts), 3), np.nan)

    def run(part: slice) -> None:
        _maximise_genes(
            counts[part],
            offset if len(offset) == 1 else offset[part],
            matrices.rows[which],
            matrices.columns[which],
            matrices.products[which],
            matrices.n_coefficients - left_out,
            shift,
            matrices.centred,
            nuisance,
            coefficients[part],
            estimates[part],
        )

    in_parallel(run, len(counts), n_threads)
    return coefficients, estimates


@njit(cache=True, nogil=True, error_model="numpy")
def _maximise_genes(
    counts, log_exposure, rows, columns, products, p, shift, centred, nuisance, coefficients, estimates
):
    n = counts.shape[1]
    design = Matrices(rows, columns, products, np.ones(n))
    offset = np.empty(n)
    poisson = make_fitted(n, rows.shape[1])
    interior = make_fitted(n, rows.shape[1])
    space = make_space(n, rows.shape[1])
    depth = common_depth(log_exposure)
    for k in range(counts.shape[0]):
        y = counts[k]
        if centre(y, log_exposure[k if log_exposure.shape[0] > 1 else 0], depth, centred, offset) <= 0.0:
            continue
        for i in range(n):
            offset[i] += shift * columns[rows.shape[1] - 1, i]
        estimates[k, 0], estimates[k, 1], estimates[k, 2] = maximise_gene(
            y, offset, design, p, nuisance, poisson, interior, space
        )
        best = poisson if estimates[k, 0] == 0.0 else interior
        for j in range(p):
            coefficients[k, j] = best.b[j]


@njit(cache=True, nogil=True, error_model="numpy")
def maximise_gene(y, offset, design, p, nuisance, poisson, interior, space):
    """Dispersion at the maximum, log likelihood there, and what was maximised; the fit is in `poisson` if the dispersion is 0, else in `interior`."""
    start_from_counts(y, offset, design, 0.0, p, poisson, space)
    profile_out(y, design, p, 0.0, poisson, space)
    for i in range(y.shape[0]):
        interior.eta[i] = poisson.eta[i]
        interior.m[i] = poisson.m[i]
    for j in range(p):
        interior.b[j] = poisson.b[j]
    phi = _interior(y, design, p, nuisance, interior, space)
    if phi > 0.0:
        value = adjusted(y, design, p, phi, nuisance, interior, space)
        if value > adjusted(y, design, p, 0.0, nuisance, poisson, space):
            return phi, adjusted(y, design, p, phi, 0, interior, space), value
    return 0.0, adjusted(y, design, p, 0.0, 0, poisson, space), adjusted(y, design, p, 0.0, nuisance, poisson, space)


@njit(cache=True, nogil=True, error_model="numpy")
def _interior(y, design, p, nuisance, fitted, space):
    """Dispersion at the highest maximum above 0, 0 if there is none, from the Poisson fit; the logic of `maximum.interior`."""
    at_zero, moment, lowest, highest = poisson_slope(y, design, p, nuisance, fitted, space)
    if highest <= 0.0:
        return 0.0
    if not may_rise_again(y, fitted.m, lowest, highest):
        if at_zero > 0.0:
            return maximize(y, design, p, nuisance, fitted, space, moment, 0.0, math.inf)
        if nuisance == 0 and slopes(y, design, p, 1e-6 / highest, nuisance, fitted, space)[1] <= 0.0:
            return 0.0
    return search(y, design, p, nuisance, fitted, space, at_zero, lowest, highest)
