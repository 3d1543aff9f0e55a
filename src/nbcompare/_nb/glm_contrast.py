"""From one gene's fits in a design to the test of a contrast, and of a hypothesis of several degrees of freedom."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.glm_fit import newton, project, start_from_counts
from nbcompare._nb.separation import half_a_count, is_separated
from nbcompare._nb.skovgaard import half_deviance, information_root, modified_root
from nbcompare._nb.special import normal_from_t, normal_tail

MODERATED, LIKELIHOOD_RATIO, QUASI_LIKELIHOOD, WALD = range(4)


class Matrices(NamedTuple):
    """One design, its tested columns last; see `glm_fit`."""

    rows: np.ndarray
    columns: np.ndarray
    products: np.ndarray


class Fitted(NamedTuple):
    """A fit at one dispersion."""

    b: np.ndarray  # (p,) coefficients
    eta: np.ndarray  # (n_samples,) linear predictor
    m: np.ndarray  # (n_samples,) means


class Space(NamedTuple):
    """Arrays that a gene's tests write to."""

    null: Fitted
    refit: Fitted
    offset: np.ndarray  # (n_samples,)
    counts: np.ndarray  # (n_samples,)
    pull: np.ndarray  # (n_samples,)
    w: np.ndarray  # (n_samples,)
    g: np.ndarray  # (p,)
    z: np.ndarray  # (p, n_samples)
    a: np.ndarray  # (p (p + 1) / 2,)


@njit(cache=True, nogil=True, error_model="numpy")
def make_fitted(n, p):
    return Fitted(np.empty(p), np.empty(n), np.empty(n))


@njit(cache=True, nogil=True, error_model="numpy")
def make_space(n, p):
    return Space(
        make_fitted(n, p),
        make_fitted(n, p),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(p),
        np.empty((p, n)),
        np.empty(p * (p + 1) // 2),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def fit_null(y, offset, design, q, phi, full, space):
    """Fit the first q columns, from the projection of the full fit on them."""
    null = space.null
    for i in range(y.shape[0]):
        null.eta[i] = full.eta[i]
        space.w[i] = full.m[i] / (1.0 + phi * full.m[i])
    project(offset, design.rows, design.columns, design.products, q, null.b, null.eta, space.w, space.a)
    newton(y, design.rows, design.columns, design.products, phi, q, null.b, null.eta, null.m, space.w, space.a, space.g)


@njit(cache=True, nogil=True, error_model="numpy")
def test_contrast(y, offset, design, shift, effect, phi, full, phi_root, full_root, tau2, df, test, space):
    """Effect less `shift` and its standard error, both in units of the last column, signed statistic, p-value, whether separated.

    `full` is the fit at `phi`, `full_root` that at `phi_root`, where the likelihood ratio is taken; `shift` is the effect under the null.
    """
    n = y.shape[0]
    p = design.rows.shape[1]
    null = space.null
    for i in range(n):
        space.offset[i] = offset[i] + shift * design.rows[i, p - 1]
    fit_null(y, space.offset, design, p - 1, phi_root, full_root, space)
    effect -= shift
    half = half_deviance(y, full_root.eta, full_root.m, null.eta, null.m, phi_root, space.pull)
    root = math.copysign(math.sqrt(2.0 * half), effect)
    separated = is_separated(y, full_root.m, null.m) and half_a_count(
        y,
        full_root.m,
        null.m,
        phi_root,
        design.rows,
        design.products,
        p,
        effect > 0.0,
        space.w,
        space.a,
        space.g,
        space.counts,
    )
    if separated:
        y = space.counts
        full = space.refit
        start_from_counts(
            y, space.offset, design.rows, design.columns, design.products, phi, p, full.b, full.eta, space.w, space.a
        )
        newton(
            y, design.rows, design.columns, design.products, phi, p, full.b, full.eta, full.m, space.w, space.a, space.g
        )
        effect = full.b[p - 1]
    information_root(full.m, phi, design.products, p, space.w, space.a)
    se = space.a[p * (p + 1) // 2 - 1]
    share = 1.0
    if test == QUASI_LIKELIHOOD:
        root /= math.sqrt(tau2)
    elif test == WALD:
        root = effect / se
    elif test == MODERATED:
        if separated:
            share = 0.5
            newton(
                y,
                design.rows,
                design.columns,
                design.products,
                phi,
                p - 1,
                null.b,
                null.eta,
                null.m,
                space.w,
                space.a,
                space.g,
            )
            half = half_deviance(y, full.eta, full.m, null.eta, null.m, phi, space.pull)
            root = math.copysign(math.sqrt(2.0 * half), effect)
        root = modified_root(
            y, full.m, null.m, phi, design.rows, design.products, p, root, space.pull, space.w, space.a, space.g
        )
    deviate = normal_from_t(abs(root), df)
    return effect, se, math.copysign(deviate, root), min(2.0 * share * normal_tail(deviate), 1.0), separated


@njit(cache=True, nogil=True, error_model="numpy")
def test_hypothesis(y, offset, design, k, phi, full, tau2, test, space):
    """Chi-squared value with k degrees of freedom of the hypothesis that the last k columns have no effect; `full` is the fit at phi."""
    n = y.shape[0]
    p = design.rows.shape[1]
    if test != WALD:
        fit_null(y, offset, design, p - k, phi, full, space)
        half = half_deviance(y, full.eta, full.m, space.null.eta, space.null.m, phi, space.pull)
        return 2.0 * half / tau2 if test == QUASI_LIKELIHOOD else 2.0 * half
    for i in range(n):
        space.refit.eta[i] = full.eta[i]
        space.w[i] = 1.0
    project(
        offset, design.rows, design.columns, design.products, p, space.refit.b, space.refit.eta, space.w, space.a
    )  # the coefficients in this design
    information_root(full.m, phi, design.products, p, space.w, space.a)
    value = 0.0
    for j in range(p - k, p):
        t = space.refit.b[j] / space.a[j * (j + 3) // 2]
        for i in range(j + 1, p):
            t += space.a[i * (i + 1) // 2 + j] * space.refit.b[i]
        value += t * t
    return value
