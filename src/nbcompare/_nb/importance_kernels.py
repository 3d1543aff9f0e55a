"""Kernels of the importance sampling: draws, their density under the proposal, likelihood times prior, the corrections that they make."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb import branchless
from nbcompare._nb.arm_likelihood import SHORT, stirling_rest
from nbcompare._nb.mixture_summary import (
    INTERVAL,
    distribution_of_normals,
    effect_summary,
    level_given_change,
    marginals,
    moments,
)
from nbcompare._nb.pareto import pareto_shape
from nbcompare._nb.quadrature import log_prior_dispersion

DEGREES_CHANGE, DEGREES_NULL = 5.0, 6.0  # with three and two dimensions the density is a fourth power
DEFENSIVE_WEIGHT, DEFENSIVE_SCALE = 0.15, 2.0
TAIL, MIDDLE = 0.03, 0.2  # probabilities beyond a point up to which draws say nothing, and from which on they say all
NOISE_OF_LOG_SD = 0.05  # of the log of a standard deviation that is known from the draws
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
    surplus, surplus_null, proposed = np.zeros(n), np.zeros(n), np.empty(n)
    spare = np.empty((4, n))
    for g in range(y1.shape[0]):
        prior = priors[g]
        evidence, evidence_null, k, k_null = -math.inf, -math.inf, -math.inf, -math.inf
        if prior[5] <= 0.0 or prior[5] >= 1.0:  # a hypothesis that is not drawn from has nothing to correct
            drawn[:], drawn_null[:], surplus[:], surplus_null[:] = 0.0, 0.0, 0.0, 0.0
        if prior[5] < 1.0:
            draw_change(weight[g], mean[g], scale[g], points, drawn, proposed, surplus)
            evidence, k = weigh(y1[g], l1[g], y2[g], l2[g], prior, shapes[g], False, drawn, proposed, surplus, spare)
        if prior[5] > 0.0:
            draw_null(null_weight[g], null_mean[g], null_scale[g], points, drawn_null, proposed, surplus_null)
            evidence_null, k_null = weigh(
                y1[g], l1[g], y2[g], l2[g], prior, shapes[g], True, drawn_null, proposed, surplus_null, spare
            )  # fmt: skip
        null = 1.0 / (1.0 + math.exp(evidence - evidence_null))
        pareto_k[g] = max(k if null < 1.0 - MATTERS else -math.inf, k_null if null > MATTERS else -math.inf)
        summarise(
            null, null_weight[g], null_mean[g], null_scale[g], weight[g], mean[g], scale[g], drawn, surplus, drawn_null,
            surplus_null, levels, summary[g], changes[g], dispersions[g],
        )  # fmt: skip


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
def _proposal(weight, mean, scale):
    """Shares, centres and Cholesky factors of the components, and last of the defensive one, as wide as all of them and more."""
    n, d = mean.shape
    shares, centres, factors = np.empty(n + 1), np.empty((n + 1, d)), np.zeros((n + 1, d, d))
    for k in range(n):
        shares[k] = weight[k] * (1.0 - DEFENSIVE_WEIGHT)
        centres[k] = mean[k]
        for i in range(d):
            for j in range(i + 1):
                factors[k, i, j] = scale[k, i, j]
    _overall(weight, mean, scale, centres[n], factors[n])
    factors[n] *= DEFENSIVE_SCALE
    shares[n] = DEFENSIVE_WEIGHT
    return shares, centres, factors


@njit(cache=True, nogil=True, error_model="numpy")
def draw_change(weight, mean, scale, points, drawn, density, normal):
    """Draws of centre, log fold change and log dispersion, the logarithm of their density under the proposal, and their density under the mixture."""
    n_components = weight.shape[0]
    shares, centres, factors = _proposal(weight, mean, scale)
    constant_normal = math.exp(-1.5 * LOG_TWO_PI) / (1.0 - DEFENSIVE_WEIGHT)
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
        normal[s] = 0.0
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
            square = a * a + b * b + c * c
            q = 1.0 + square / DEGREES_CHANGE
            density[s] += top / (q * q * q * q)
            if k < n_components:
                normal[s] += top * constant_normal * branchless.exp(max(-0.5 * square, -700.0))
    # Gamma(4) / Gamma(5/2) / (5 pi)^(3/2)
    constant = math.lgamma(4.0) - math.lgamma(2.5) - 1.5 * math.log(DEGREES_CHANGE * math.pi)
    for s in range(n):
        density[s] = constant + branchless.log(density[s])


@njit(cache=True, nogil=True, error_model="numpy")
def draw_null(weight, mean, scale, points, drawn, density, normal):
    """The same of centre and log dispersion where the log fold change is zero."""
    n_components = weight.shape[0]
    shares, centres, factors = _proposal(weight, mean, scale)
    constant_normal = math.exp(-LOG_TWO_PI) / (1.0 - DEFENSIVE_WEIGHT)
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
        normal[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1 = 1.0 / f[0, 0], 1.0 / f[1, 1]
        top = shares[k] * i0 * i1
        for s in range(n):
            a = (drawn[0, s] - centres[k, 0]) * i0
            b = (drawn[2, s] - centres[k, 1] - f[1, 0] * a) * i1
            square = a * a + b * b
            q = 1.0 + square / DEGREES_NULL
            density[s] += top / (q * q * q * q)
            if k < n_components:
                normal[s] += top * constant_normal * branchless.exp(max(-0.5 * square, -700.0))
    constant = math.lgamma(4.0) - math.lgamma(3.0) - math.log(DEGREES_NULL * math.pi)
    for s in range(n):
        density[s] = constant + branchless.log(density[s])


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(y1, l1, y2, l2, prior, shape, null, drawn, proposed, surplus, spare):
    """Log of prior probability times evidence, and the Pareto k.

    `surplus` holds the mixture's density, and becomes the posterior's weights minus the mixture's.
    """
    n = proposed.shape[0]
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
        target[s] = constant - proposed[s] - 0.5 * (centre * centre + change * change) + prior_alpha
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
def _add_arm(y, l, half, drawn, phi, rate, rest, target):
    """Add the log likelihood of one arm at every draw, as in `arm_likelihood`."""
    n = target.shape[0]
    product = np.empty(n)
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
                product[s] = 1.0 + phi[s]
            for j in range(2, int(count)):
                for s in range(n):
                    product[s] *= 1.0 + phi[s] * j
            for s in range(n):
                target[s] += branchless.log(product[s])


@njit(cache=True, nogil=True, error_model="numpy")
def summarise(
    null, null_weight, null_mean, null_scale, weight, mean, scale, drawn, surplus, drawn_null, surplus_null,
    levels, summary, changes, dispersions,
):  # fmt: skip
    """The summary's columns: those of the mixture, corrected by the draws."""
    n, k0, k1 = surplus.shape[0], null_weight.shape[0], weight.shape[0]
    shared = np.empty(k0 + k1)
    centres, sds = np.empty((3, k0 + k1)), np.empty((3, k0 + k1))  # of log fold change, log rate, log dispersion
    marginals(null, null_weight, null_mean, null_scale, weight, mean, scale, shared, centres, sds)
    change_weight, change, change_sd = shared[k0:] / max(1.0 - null, 1e-300), centres[0, k0:], sds[0, k0:]
    if null >= 1.0:
        change_weight[:] = weight
    fit = np.empty(5)
    _fit(change_weight, change, change_sd, drawn[1], surplus, fit)
    below = _distribution(0.0, change_weight, change, change_sd, fit, drawn[1], surplus)
    effect_summary(null, below, fit[0], fit[1], summary)
    for k, level in enumerate(INTERVAL):
        wanted = level_given_change(level, null, below)
        summary[4 + k] = 0.0
        if wanted >= 0.0:
            summary[4 + k] = _quantile(wanted, change_weight, change, change_sd, fit, drawn[1], surplus)
    for k in range(levels.shape[0]):
        changes[k] = _quantile(levels[k], change_weight, change, change_sd, fit, drawn[1], surplus)
    both, joint = np.empty(2 * n), np.empty(2 * n)
    for s in range(n):
        joint[s], joint[n + s] = (1.0 - null) * surplus[s], null * surplus_null[s]
        both[s], both[n + s] = drawn[0, s] - 0.5 * drawn[1, s], drawn_null[0, s]
    _fit(shared, centres[1], sds[1], both, joint, fit)
    summary[7], summary[8] = fit[0], fit[1]
    summary[9] = _quantile(0.5, shared, centres[1], sds[1], fit, both, joint)
    for s in range(n):
        both[s], both[n + s] = drawn[2, s], drawn_null[2, s]
    _fit(shared, centres[2], sds[2], both, joint, fit)
    summary[10], summary[11] = fit[0], fit[1]
    summary[12] = _quantile(0.5, shared, centres[2], sds[2], fit, both, joint)
    for k in range(levels.shape[0]):
        dispersions[k] = _quantile(levels[k], shared, centres[2], sds[2], fit, both, joint)


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(weight, mean, sd, x, surplus, out):
    """Of a mixture of normals with the draws' correction: mean and standard deviation; the mixture's mean and standard deviation, and what stretches it.

    The stretch is the ratio of the standard deviations, but for what may be the noise of the draws.
    """
    centre, spread = moments(weight, mean, sd)
    first, second = 0.0, 0.0
    for s in range(x.shape[0]):
        first += surplus[s] * (x[s] - centre)
        second += surplus[s] * (x[s] - centre) ** 2
    out[0] = centre + first
    out[1] = math.sqrt(max(spread * spread + second - first * first, 0.01 * spread * spread))
    out[2], out[3] = centre, spread
    log_ratio = math.log(out[1] / spread)
    out[4] = math.exp(log_ratio**3 / (log_ratio**2 + NOISE_OF_LOG_SD**2))


@njit(cache=True, nogil=True, error_model="numpy")
def _distribution(x, weight, mean, sd, fit, drawn, surplus):
    """Distribution function at x: in the middle the mixture's with the draws' correction, in the tails the mixture's moved and stretched.

    A tail of probability .002 holds a quarter of 128 draws: they cannot correct it, but the mean and standard deviation, which they know
    well, can.
    """
    moved = distribution_of_normals(fit[2] + (x - fit[0]) / fit[4], weight, mean, sd)[0]
    carried = (min(moved, 1.0 - moved) - TAIL) / (MIDDLE - TAIL)
    if carried <= 0.0:
        return moved
    corrected = distribution_of_normals(x, weight, mean, sd)[0]
    for s in range(drawn.shape[0]):
        corrected += surplus[s] if drawn[s] <= x else 0.0
    carried = min(carried, 1.0)
    return carried * corrected + (1.0 - carried) * moved


@njit(cache=True, nogil=True, error_model="numpy")
def _quantile(level, weight, mean, sd, fit, drawn, surplus):
    """Where the corrected distribution function reaches `level`: bisection between lines, for it is not smooth."""
    reach = 12.0 * fit[3] * max(fit[4], 1.0)
    low, high = fit[0] - reach, fit[0] + reach
    miss_low, miss_high = -level, 1.0 - level
    for step in range(40):
        x = 0.5 * (low + high)
        if step % 2 == 1:
            x = low - miss_low * (high - low) / (miss_high - miss_low)
        miss = _distribution(x, weight, mean, sd, fit, drawn, surplus) - level
        if abs(miss) < 1e-6 or high - low < 1e-5 * fit[3]:
            return x
        if miss > 0.0:
            high, miss_high = x, miss
        else:
            low, miss_low = x, miss
    return 0.5 * (low + high)
