"""Kernels of the importance sampling: the loop over tests, and the weights of their draws."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.numerics import simd as inline_simd
from nbcompare._nb.numerics.special import stirling_remainder
from nbcompare._nb.posterior.columns import Columns
from nbcompare._nb.posterior.group_likelihood import SHORT
from nbcompare._nb.posterior.importance.draws import LOG_TWO_PI, Draws, draw_change, draw_null
from nbcompare._nb.posterior.importance.pareto import pareto_shape
from nbcompare._nb.posterior.importance.summary import summarise
from nbcompare._nb.posterior.mixture_summary import CENTRE, DISPERSION, FOLD_CHANGE, components_of_test
from nbcompare._nb.posterior.prior import gene_prior
from nbcompare._nb.posterior.quadrature.integrate import log_prior_dispersion
from nbcompare._nb.posterior.quadrature.rate_modes import Groups

MATTERS = 0.005  # probability of a hypothesis from which on its Pareto k counts


@njit(cache=True, nogil=True, error_model="numpy")
def refine_tests(groups, priors, mixture, points, levels, out, pareto_k):
    """Every test by importance sampling into the columns `out`."""
    n = points.shape[0]
    proposed = np.empty(n)
    draws, draws_null = Draws(np.empty((3, n)), proposed, np.zeros(n)), Draws(np.empty((3, n)), proposed, np.zeros(n))
    workspace = np.empty((4, n))
    for g in range(priors.shape[0]):
        prior = gene_prior(priors[g])
        data = Groups(groups.y1[g], groups.l1[g], groups.y2[g], groups.l2[g])
        change, no_change = components_of_test(mixture.change, g), components_of_test(mixture.null, g)
        evidence, evidence_null, k, k_null = -math.inf, -math.inf, -math.inf, -math.inf
        if not 0.0 < prior.null_proportion < 1.0:  # a hypothesis that is not drawn from has nothing to correct
            draws.value[:], draws_null.value[:], draws.surplus[:], draws_null.surplus[:] = 0.0, 0.0, 0.0, 0.0
        if prior.null_proportion < 1.0:
            draw_change(change, points, draws)
            evidence, k = weigh(data, prior, False, draws, workspace)
        if prior.null_proportion > 0.0:
            draw_null(no_change, points, draws_null)
            evidence_null, k_null = weigh(data, prior, True, draws_null, workspace)
        null = 1.0 / (1.0 + math.exp(evidence - evidence_null))
        pareto_k[g] = max(k if null < 1.0 - MATTERS else -math.inf, k_null if null > MATTERS else -math.inf)
        row = Columns(out.summary[g], out.changes[g], out.dispersions[g])
        summarise(null, no_change, change, draws_null, draws, levels, row)


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(data, prior, null, draws, workspace):
    """Log of prior probability times evidence, and the Pareto k.

    The draws' `surplus` holds the mixture's density, and becomes the posterior's weights minus the mixture's.
    """
    drawn, proposed, surplus = draws
    n = proposed.shape[0]
    target, phi, rate, rest = workspace
    m0, s0, sigma = prior.log_mean, prior.log_mean_sd, prior.log_fc_sd
    constant = -0.5 * LOG_TWO_PI - math.log(s0)
    constant += (
        math.log(prior.null_proportion) if null else math.log((1.0 - prior.null_proportion) / sigma) - 0.5 * LOG_TWO_PI
    )
    for s in range(n):
        alpha = min(max(drawn[DISPERSION, s], -25.0), 15.0)
        phi[s] = math.exp(alpha)
        rest[s] = 0.0
        centre = (drawn[CENTRE, s] - m0) / s0
        change = 0.0 if null else drawn[FOLD_CHANGE, s] / sigma
        prior_alpha = log_prior_dispersion(alpha, prior)
        target[s] = constant - proposed[s] - 0.5 * (centre * centre + change * change) + prior_alpha
    if max(data.y1.max(), data.y2.max()) > SHORT:
        for s in range(n):
            rest[s] = stirling_remainder(1.0 / phi[s])
    for side in range(2):
        half = -0.5 if side == 0 else 0.5
        for s in range(n):
            rate[s] = math.exp(min(max(drawn[CENTRE, s] + half * drawn[FOLD_CHANGE, s], -100.0), 100.0))
        if side == 0:
            _add_group(data.y1, data.l1, half, drawn, phi, rate, rest, target)
        else:
            _add_group(data.y2, data.l2, half, drawn, phi, rate, rest, target)
    top = -math.inf
    for s in range(n):
        top = max(top, target[s])
    whole, whole_mixture = 0.0, 0.0
    for s in range(n):
        target[s] = math.exp(target[s] - top)
        whole += target[s]
        surplus[s] *= math.exp(-proposed[s])
        whole_mixture += surplus[s]
    k = pareto_shape(target)
    for s in range(n):
        surplus[s] = target[s] / whole - surplus[s] / whole_mixture
    return top + math.log(whole / whole_mixture), k


@njit(cache=True, nogil=True, error_model="numpy")
def _add_group(y, l, half, drawn, phi, rate, rest, target):
    """Add the log likelihood of one group at every draw, as in `group_likelihood`."""
    n = target.shape[0]
    product = np.empty(n)
    total = y.sum()
    for s in range(n):
        target[s] += total * (drawn[CENTRE, s] + half * drawn[FOLD_CHANGE, s])
    for i in range(y.shape[0]):
        depth, count = l[i], y[i]
        if depth <= 0.0:
            continue
        for s in range(n):
            target[s] -= (count + 1.0 / phi[s]) * inline_simd.log1p(depth * rate[s] * phi[s])
        if count > SHORT:
            for s in range(n):
                k = 1.0 / phi[s]
                x = count + k
                inverse = 1.0 / x
                square = inverse * inverse
                series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680))))
                target[s] += (x - 0.5) * inline_simd.log1p(phi[s] * count) - count + series - rest[s]
        elif count > 1.0:
            for s in range(n):
                product[s] = 1.0 + phi[s]
            for j in range(2, int(count)):
                for s in range(n):
                    product[s] *= 1.0 + phi[s] * j
            for s in range(n):
                target[s] += inline_simd.log(product[s])
