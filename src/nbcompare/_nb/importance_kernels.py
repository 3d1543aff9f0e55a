"""Kernels of the importance sampling: draws, their density under the proposal, likelihood times prior, weighted moments and quantiles."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb import branchless
from nbcompare._nb.arm_likelihood import SHORT, stirling_rest
from nbcompare._nb.mixture_summary import effect_summary, level_given_change
from nbcompare._nb.pareto import smooth_weights
from nbcompare._nb.quadrature import log_prior_dispersion

DEGREES_CHANGE, DEGREES_NULL = 5.0, 6.0  # with three and two dimensions the density is a fourth power
DEFENSIVE_WEIGHT, DEFENSIVE_SCALE = 0.15, 2.0
MATTERS = 0.005  # probability of a hypothesis from which on its Pareto k counts
LOG_TWO_PI = math.log(2.0 * math.pi)


@njit(cache=True, nogil=True, error_model="numpy")
def refine_tests(
    y1, l1, y2, l2, priors, shapes, null_weight, null_mean, null_scale, weight, mean, scale,
    points, levels, summary, changes, dispersions, pareto_k,
):  # fmt: skip
    """Every test by importance sampling; columns as in `quadrature`."""
    n = points.shape[0]
    drawn, drawn_null = np.empty((3, n)), np.empty((3, n))
    weights, weights_null = np.zeros(n), np.zeros(n)
    spare = np.empty((4, n))
    for g in range(y1.shape[0]):
        prior = priors[g]
        evidence, evidence_null, k, k_null = -math.inf, -math.inf, -math.inf, -math.inf
        if prior[5] < 1.0:
            draw_change(weight[g], mean[g], scale[g], points, drawn, weights)
            evidence, k = weigh(y1[g], l1[g], y2[g], l2[g], prior, shapes[g], False, drawn, weights, spare)
        if prior[5] > 0.0:
            draw_null(null_weight[g], null_mean[g], null_scale[g], points, drawn_null, weights_null)
            evidence_null, k_null = weigh(
                y1[g], l1[g], y2[g], l2[g], prior, shapes[g], True, drawn_null, weights_null, spare
            )
        null = 1.0 / (1.0 + math.exp(min(evidence - evidence_null, 700.0)))
        pareto_k[g] = max(k if null < 1.0 - MATTERS else -math.inf, k_null if null > MATTERS else -math.inf)
        summarise(null, drawn, weights, drawn_null, weights_null, levels, summary[g], changes[g], dispersions[g])


@njit(cache=True, nogil=True, error_model="numpy")
def _overall(weight, mean, scale, centre, factor):
    """Mean and Cholesky factor of the covariance of a mixture of normals."""
    d = mean.shape[1]
    covariance = np.zeros((d, d))
    centre[:] = 0.0
    for k in range(weight.shape[0]):
        for i in range(d):
            centre[i] += weight[k] * mean[k, i]
    for k in range(weight.shape[0]):
        for i in range(d):
            for j in range(i + 1):
                value = (mean[k, i] - centre[i]) * (mean[k, j] - centre[j])
                for a in range(j + 1):
                    value += scale[k, i, a] * scale[k, j, a]
                covariance[i, j] += weight[k] * value
    for i in range(d):
        for j in range(i + 1):
            value = covariance[i, j]
            for a in range(j):
                value -= factor[i, a] * factor[j, a]
            factor[i, j] = math.sqrt(max(value, 1e-12)) if i == j else value / factor[j, j]


@njit(cache=True, nogil=True, error_model="numpy")
def draw_change(weight, mean, scale, points, drawn, density):
    """Draws of centre, log fold change and log dispersion, and the logarithm of their density under the proposal."""
    n_components = weight.shape[0]
    shares, centres, factors = (
        np.empty(n_components + 1),
        np.empty((n_components + 1, 3)),
        np.zeros((n_components + 1, 3, 3)),
    )
    for k in range(n_components):
        shares[k] = weight[k] * (1.0 - DEFENSIVE_WEIGHT)
        centres[k] = mean[k]
        for i in range(3):
            for j in range(i + 1):
                factors[k, i, j] = scale[k, i, j]
    _overall(weight, mean, scale, centres[n_components], factors[n_components])
    factors[n_components] *= DEFENSIVE_SCALE
    shares[n_components] = DEFENSIVE_WEIGHT
    n = points.shape[0]
    for s in range(n):
        k, below = 0, shares[0]
        while points[s, 0] > below and k < n_components:
            k += 1
            below += shares[k]
        a, b, c = points[s, 1] * points[s, 4], points[s, 2] * points[s, 4], points[s, 3] * points[s, 4]
        factor = factors[k]
        drawn[0, s] = centres[k, 0] + factor[0, 0] * a
        drawn[1, s] = centres[k, 1] + factor[1, 0] * a + factor[1, 1] * b
        drawn[2, s] = centres[k, 2] + factor[2, 0] * a + factor[2, 1] * b + factor[2, 2] * c
        density[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1, i2 = 1.0 / f[0, 0], 1.0 / f[1, 1], 1.0 / f[2, 2]
        top = shares[k] * i0 * i1 * i2
        for s in range(n):
            a = (drawn[0, s] - centres[k, 0]) * i0
            b = (drawn[1, s] - centres[k, 1] - f[1, 0] * a) * i1
            c = (drawn[2, s] - centres[k, 2] - f[2, 0] * a - f[2, 1] * b) * i2
            q = 1.0 + (a * a + b * b + c * c) / DEGREES_CHANGE
            density[s] += top / (q * q * q * q)
    # Gamma(4) / Gamma(5/2) / (5 pi)^(3/2)
    constant = math.lgamma(4.0) - math.lgamma(2.5) - 1.5 * math.log(DEGREES_CHANGE * math.pi)
    for s in range(n):
        density[s] = constant + branchless.log(density[s])


@njit(cache=True, nogil=True, error_model="numpy")
def draw_null(weight, mean, scale, points, drawn, density):
    """The same of centre and log dispersion where the log fold change is zero."""
    n_components = weight.shape[0]
    shares, centres, factors = (
        np.empty(n_components + 1),
        np.empty((n_components + 1, 2)),
        np.zeros((n_components + 1, 2, 2)),
    )
    for k in range(n_components):
        shares[k] = weight[k] * (1.0 - DEFENSIVE_WEIGHT)
        centres[k] = mean[k]
        for i in range(2):
            for j in range(i + 1):
                factors[k, i, j] = scale[k, i, j]
    _overall(weight, mean, scale, centres[n_components], factors[n_components])
    factors[n_components] *= DEFENSIVE_SCALE
    shares[n_components] = DEFENSIVE_WEIGHT
    n = points.shape[0]
    for s in range(n):
        k, below = 0, shares[0]
        while points[s, 0] > below and k < n_components:
            k += 1
            below += shares[k]
        a, b = points[s, 1] * points[s, 5], points[s, 2] * points[s, 5]
        factor = factors[k]
        drawn[0, s] = centres[k, 0] + factor[0, 0] * a
        drawn[1, s] = 0.0
        drawn[2, s] = centres[k, 1] + factor[1, 0] * a + factor[1, 1] * b
        density[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1 = 1.0 / f[0, 0], 1.0 / f[1, 1]
        top = shares[k] * i0 * i1
        for s in range(n):
            a = (drawn[0, s] - centres[k, 0]) * i0
            b = (drawn[2, s] - centres[k, 1] - f[1, 0] * a) * i1
            q = 1.0 + (a * a + b * b) / DEGREES_NULL
            density[s] += top / (q * q * q * q)
    constant = math.lgamma(4.0) - math.lgamma(3.0) - math.log(DEGREES_NULL * math.pi)
    for s in range(n):
        density[s] = constant + branchless.log(density[s])


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(y1, l1, y2, l2, prior, shape, null, drawn, weights, spare):
    """Log of prior probability times evidence, and the Pareto k; log densities in `weights` become weights that add up to one."""
    n = weights.shape[0]
    target, phi, rate, rest = spare
    m0, s0, scale = prior[0], prior[1], prior[6]
    constant = -0.5 * LOG_TWO_PI - math.log(s0)
    constant += math.log(prior[5]) if null else math.log((1.0 - prior[5]) / scale) - 0.5 * LOG_TWO_PI
    for s in range(n):
        alpha = min(max(drawn[2, s], -25.0), 15.0)
        phi[s] = math.exp(alpha)
        rest[s] = 0.0
        centre = (drawn[0, s] - m0) / s0
        change = 0.0 if null else drawn[1, s] / scale
        prior_alpha = log_prior_dispersion(alpha, prior, shape)
        target[s] = constant - weights[s] - 0.5 * (centre * centre + change * change) + prior_alpha
    if max(y1.max(), y2.max()) > SHORT:
        for s in range(n):
            rest[s] = stirling_rest(1.0 / phi[s])
    for side in range(2):
        half = -0.5 if side == 0 else 0.5
        for s in range(n):
            rate[s] = math.exp(min(max(drawn[0, s] + half * drawn[1, s], -100.0), 100.0))
        if side == 0:
            _add_arm(y1, l1, half, drawn, phi, rate, rest, target)
        else:
            _add_arm(y2, l2, half, drawn, phi, rate, rest, target)
    top = -math.inf
    for s in range(n):
        top = max(top, target[s])
    for s in range(n):
        weights[s] = math.exp(target[s] - top)
    k = smooth_weights(weights)
    total = weights.sum()
    for s in range(n):
        weights[s] /= total
    return top + math.log(total / n), k


@njit(cache=True, nogil=True, error_model="numpy")
def _add_arm(y, l, half, drawn, phi, rate, rest, target):
    """Add the log likelihood of one arm at every draw, as in `arm_likelihood`."""
    n = target.shape[0]
    total = y.sum()
    for s in range(n):
        target[s] += total * (drawn[0, s] + half * drawn[1, s])
    for i in range(y.shape[0]):
        depth, count = l[i], y[i]
        if depth <= 0.0:
            continue
        for s in range(n):
            target[s] -= (count + 1.0 / phi[s]) * branchless.log1p(depth * rate[s] * phi[s])
        if count > SHORT:
            for s in range(n):
                k = 1.0 / phi[s]
                x = count + k
                inverse = 1.0 / x
                square = inverse * inverse
                series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680))))
                target[s] += (x - 0.5) * branchless.log1p(phi[s] * count) - count + series - rest[s]
        elif count > 1.0:
            for s in range(n):
                product = 1.0
                for j in range(1, int(count)):
                    product *= 1.0 + phi[s] * j
                target[s] += branchless.log(product)


@njit(cache=True, nogil=True, error_model="numpy")
def summarise(null, drawn, weights, drawn_null, weights_null, levels, summary, changes, dispersions):
    """The summary's columns from weighted draws; quantiles halve the steps of the weighted distribution function."""
    n = weights.shape[0]
    mean, square, below = 0.0, 0.0, 0.0
    for s in range(n):
        mean += weights[s] * drawn[1, s]
        if drawn[1, s] < 0.0:
            below += weights[s]
    for s in range(n):
        square += weights[s] * (drawn[1, s] - mean) ** 2
    effect_summary(null, below, mean, math.sqrt(square), summary)
    order = np.argsort(drawn[1])
    for k, level in enumerate((0.5, 0.05, 0.95)):
        given_change = level_given_change(level, null, below)
        summary[4 + k] = weighted_quantile(given_change, drawn[1], weights, order) if given_change >= 0.0 else 0.0
    for k in range(levels.shape[0]):
        changes[k] = weighted_quantile(levels[k], drawn[1], weights, order)
    both, joint = np.empty(2 * n), np.empty(2 * n)
    for s in range(n):
        joint[s], joint[n + s] = (1.0 - null) * weights[s], null * weights_null[s]
        both[s], both[n + s] = drawn[0, s] - 0.5 * drawn[1, s], drawn_null[0, s]
    summary[7], summary[8] = _moments(both, joint)
    summary[9] = weighted_quantile(0.5, both, joint, np.argsort(both))
    for s in range(n):
        both[s], both[n + s] = drawn[2, s], drawn_null[2, s]
    summary[10], summary[11] = _moments(both, joint)
    order = np.argsort(both)
    summary[12] = weighted_quantile(0.5, both, joint, order)
    for k in range(levels.shape[0]):
        dispersions[k] = weighted_quantile(levels[k], both, joint, order)


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(x, weight):
    """Weighted mean and standard deviation."""
    mean, square = 0.0, 0.0
    for s in range(x.shape[0]):
        mean += weight[s] * x[s]
    for s in range(x.shape[0]):
        square += weight[s] * (x[s] - mean) ** 2
    return mean, math.sqrt(square)


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_quantile(level, x, weight, order):
    """Quantile of weighted draws, linear between the middles of their steps."""
    running, last_level, last = 0.0, 0.0, x[order[0]]
    for s in range(order.shape[0]):
        share = weight[order[s]]
        if share <= 0.0:
            continue
        middle = running + 0.5 * share
        if middle >= level:
            if running == 0.0:
                return x[order[s]]
            return last + (x[order[s]] - last) * (level - last_level) / (middle - last_level)
        running += share
        last_level, last = middle, x[order[s]]
    return last
