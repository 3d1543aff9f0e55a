"""Kernels of the importance sampling: draws, their density under the proposal, likelihood times prior, the corrections that they make."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb import branchless
from nbcompare._nb.arm_likelihood import SHORT, stirling_remainder
from nbcompare._nb.lattice import Groups
from nbcompare._nb.mixture_summary import (
    CENTRE,
    DISPERSION,
    FOLD_CHANGE,
    OF_DISPERSION,
    OF_FOLD_CHANGE,
    OF_RATE,
    components_of_test,
    distribution_of_normals,
    effect_summary,
    empty_marginals,
    fill_marginals,
    level_given_change,
    moments,
)
from nbcompare._nb.pareto import pareto_shape
from nbcompare._nb.posterior_columns import (
    INTERVAL,
    LOG_DISPERSION,
    LOG_DISPERSION_MEDIAN,
    LOG_DISPERSION_SD,
    LOG_FC_MEDIAN,
    LOG_MEAN,
    LOG_MEAN_MEDIAN,
    LOG_MEAN_SD,
    Columns,
)
from nbcompare._nb.prior import gene_prior
from nbcompare._nb.quadrature import log_prior_dispersion

DEGREES_CHANGE, DEGREES_NULL = 5.0, 6.0  # with three and two dimensions the density is a fourth power
DEFENSIVE_WEIGHT, DEFENSIVE_SCALE = 0.15, 2.0
TAIL, MIDDLE = 0.03, 0.2  # probabilities beyond a point up to which draws say nothing, and from which on they say all
NOISE_OF_LOG_SD = 0.05  # of the log of a standard deviation that is known from the draws
MATTERS = 0.005  # probability of a hypothesis from which on its Pareto k counts
LOG_TWO_PI = math.log(2.0 * math.pi)

# Columns of the quasi-random points: which component, three normal deviates, and what makes them Student's t given a change, and without.
COMPONENT, FIRST, SECOND, THIRD, STRETCH_CHANGE, STRETCH_NULL = range(6)


class Draws(NamedTuple):
    """Draws of one hypothesis of one test."""

    value: np.ndarray  # (3, n) centre, log fold change, log dispersion
    proposed: np.ndarray  # (n,) log density under the proposal
    surplus: np.ndarray  # (n,) density under the mixture, then the posterior's weights minus the mixture's


class Corrected(NamedTuple):
    """A mixture of normals and its correction by draws."""

    weight: np.ndarray  # (K,)
    mean: np.ndarray
    sd: np.ndarray
    drawn: np.ndarray  # (n,)
    surplus: np.ndarray  # (n,) the posterior's weights of the draws minus the mixture's
    centre: float  # corrected mean
    spread: float  # corrected standard deviation
    mixture_centre: float
    mixture_spread: float
    stretch: float  # of the mixture's tails: ratio of the two standard deviations, but for what may be the noise of the draws


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
        if (
            prior.null_share <= 0.0 or prior.null_share >= 1.0
        ):  # a hypothesis that is not drawn from has nothing to correct
            draws.value[:], draws_null.value[:], draws.surplus[:], draws_null.surplus[:] = 0.0, 0.0, 0.0, 0.0
        if prior.null_share < 1.0:
            draw_change(change, points, draws)
            evidence, k = weigh(data, prior, False, draws, workspace)
        if prior.null_share > 0.0:
            draw_null(no_change, points, draws_null)
            evidence_null, k_null = weigh(data, prior, True, draws_null, workspace)
        null = 1.0 / (1.0 + math.exp(evidence - evidence_null))
        pareto_k[g] = max(k if null < 1.0 - MATTERS else -math.inf, k_null if null > MATTERS else -math.inf)
        row = Columns(out.summary[g], out.changes[g], out.dispersions[g])
        summarise(null, no_change, change, draws_null, draws, levels, row)


@njit(cache=True, nogil=True, error_model="numpy")
def _overall(weight, mean, cholesky, centre, factor):
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
                    value += cholesky[k, i, a] * cholesky[k, j, a]
                covariance[i, j] += weight[k] * value
    for i in range(d):
        for j in range(i + 1):
            value = covariance[i, j]
            for a in range(j):
                value -= factor[i, a] * factor[j, a]
            factor[i, j] = math.sqrt(max(value, 1e-12)) if i == j else value / factor[j, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _proposal(components):
    """Shares, centres and Cholesky factors of the components, and last of the defensive one, as wide as all of them and more."""
    weight, mean, cholesky = components
    n, d = mean.shape
    shares, centres, factors = np.empty(n + 1), np.empty((n + 1, d)), np.zeros((n + 1, d, d))
    for k in range(n):
        shares[k] = weight[k] * (1.0 - DEFENSIVE_WEIGHT)
        centres[k] = mean[k]
        for i in range(d):
            for j in range(i + 1):
                factors[k, i, j] = cholesky[k, i, j]
    _overall(weight, mean, cholesky, centres[n], factors[n])
    factors[n] *= DEFENSIVE_SCALE
    shares[n] = DEFENSIVE_WEIGHT
    return shares, centres, factors


@njit(cache=True, nogil=True, error_model="numpy")
def draw_change(components, points, draws):
    """Draws of centre, log fold change and log dispersion, the logarithm of their density under the proposal, and their density under the mixture."""
    drawn, density, normal = draws
    n_components = components.weight.shape[0]
    shares, centres, factors = _proposal(components)
    constant_normal = math.exp(-1.5 * LOG_TWO_PI) / (1.0 - DEFENSIVE_WEIGHT)
    n = points.shape[0]
    for s in range(n):
        k, below = 0, shares[0]
        while points[s, COMPONENT] > below and k < n_components:
            k += 1
            below += shares[k]
        stretch = points[s, STRETCH_CHANGE]
        a, b, c = points[s, FIRST] * stretch, points[s, SECOND] * stretch, points[s, THIRD] * stretch
        factor = factors[k]
        drawn[CENTRE, s] = centres[k, 0] + factor[0, 0] * a
        drawn[FOLD_CHANGE, s] = centres[k, 1] + factor[1, 0] * a + factor[1, 1] * b
        drawn[DISPERSION, s] = centres[k, 2] + factor[2, 0] * a + factor[2, 1] * b + factor[2, 2] * c
        density[s] = 0.0
        normal[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1, i2 = 1.0 / f[0, 0], 1.0 / f[1, 1], 1.0 / f[2, 2]
        top = shares[k] * i0 * i1 * i2
        for s in range(n):
            a = (drawn[CENTRE, s] - centres[k, 0]) * i0
            b = (drawn[FOLD_CHANGE, s] - centres[k, 1] - f[1, 0] * a) * i1
            c = (drawn[DISPERSION, s] - centres[k, 2] - f[2, 0] * a - f[2, 1] * b) * i2
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
def draw_null(components, points, draws):
    """The same of centre and log dispersion where the log fold change is zero."""
    drawn, density, normal = draws
    n_components = components.weight.shape[0]
    shares, centres, factors = _proposal(components)
    constant_normal = math.exp(-LOG_TWO_PI) / (1.0 - DEFENSIVE_WEIGHT)
    n = points.shape[0]
    for s in range(n):
        k, below = 0, shares[0]
        while points[s, COMPONENT] > below and k < n_components:
            k += 1
            below += shares[k]
        stretch = points[s, STRETCH_NULL]
        a, b = points[s, FIRST] * stretch, points[s, SECOND] * stretch
        factor = factors[k]
        drawn[CENTRE, s] = centres[k, 0] + factor[0, 0] * a
        drawn[FOLD_CHANGE, s] = 0.0
        drawn[DISPERSION, s] = centres[k, 1] + factor[1, 0] * a + factor[1, 1] * b
        density[s] = 0.0
        normal[s] = 0.0
    for k in range(n_components + 1):
        if shares[k] <= 0.0:
            continue
        f = factors[k]
        i0, i1 = 1.0 / f[0, 0], 1.0 / f[1, 1]
        top = shares[k] * i0 * i1
        for s in range(n):
            a = (drawn[CENTRE, s] - centres[k, 0]) * i0
            b = (drawn[DISPERSION, s] - centres[k, 1] - f[1, 0] * a) * i1
            square = a * a + b * b
            q = 1.0 + square / DEGREES_NULL
            density[s] += top / (q * q * q * q)
            if k < n_components:
                normal[s] += top * constant_normal * branchless.exp(max(-0.5 * square, -700.0))
    constant = math.lgamma(4.0) - math.lgamma(3.0) - math.log(DEGREES_NULL * math.pi)
    for s in range(n):
        density[s] = constant + branchless.log(density[s])


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
    constant += math.log(prior.null_share) if null else math.log((1.0 - prior.null_share) / sigma) - 0.5 * LOG_TWO_PI
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
    """Add the log likelihood of one group at every draw, as in `arm_likelihood`."""
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
def summarise(null_probability, null, change, draws_null, draws, levels, out):
    """The summary's columns of one test: those of the mixture, corrected by the draws."""
    summary = out.summary
    n, k0 = draws.surplus.shape[0], null.weight.shape[0]
    marginal = empty_marginals(k0 + change.weight.shape[0])
    fill_marginals(null_probability, null, change, marginal)
    shared, mean, sd = marginal
    weight = shared[k0:] / max(1.0 - null_probability, 1e-300)
    if null_probability >= 1.0:
        weight[:] = change.weight
    beta = correct(weight, mean[OF_FOLD_CHANGE, k0:], sd[OF_FOLD_CHANGE, k0:], draws.value[FOLD_CHANGE], draws.surplus)
    below = _distribution(0.0, beta)
    effect_summary(null_probability, below, beta.centre, beta.spread, summary)
    for k, level in enumerate(INTERVAL):
        wanted = level_given_change(level, null_probability, below)
        summary[LOG_FC_MEDIAN + k] = 0.0
        if wanted >= 0.0:
            summary[LOG_FC_MEDIAN + k] = _quantile(wanted, beta)
    for k in range(levels.shape[0]):
        out.changes[k] = _quantile(levels[k], beta)
    both, joint = np.empty(2 * n), np.empty(2 * n)
    for s in range(n):
        joint[s] = (1.0 - null_probability) * draws.surplus[s]
        joint[n + s] = null_probability * draws_null.surplus[s]
        both[s] = draws.value[CENTRE, s] - 0.5 * draws.value[FOLD_CHANGE, s]
        both[n + s] = draws_null.value[CENTRE, s]
    rate = correct(shared, mean[OF_RATE], sd[OF_RATE], both, joint)
    summary[LOG_MEAN], summary[LOG_MEAN_SD] = rate.centre, rate.spread
    summary[LOG_MEAN_MEDIAN] = _quantile(0.5, rate)
    for s in range(n):
        both[s], both[n + s] = draws.value[DISPERSION, s], draws_null.value[DISPERSION, s]
    alpha = correct(shared, mean[OF_DISPERSION], sd[OF_DISPERSION], both, joint)
    summary[LOG_DISPERSION], summary[LOG_DISPERSION_SD] = alpha.centre, alpha.spread
    summary[LOG_DISPERSION_MEDIAN] = _quantile(0.5, alpha)
    for k in range(levels.shape[0]):
        out.dispersions[k] = _quantile(levels[k], alpha)


@njit(cache=True, nogil=True, error_model="numpy")
def correct(weight, mean, sd, drawn, surplus):
    """A mixture of normals with the correction by these draws."""
    centre, spread = moments(weight, mean, sd)
    first, second = 0.0, 0.0
    for s in range(drawn.shape[0]):
        first += surplus[s] * (drawn[s] - centre)
        second += surplus[s] * (drawn[s] - centre) ** 2
    corrected = math.sqrt(max(spread * spread + second - first * first, 0.01 * spread * spread))
    log_ratio = math.log(corrected / spread)
    stretch = math.exp(log_ratio**3 / (log_ratio**2 + NOISE_OF_LOG_SD**2))
    return Corrected(weight, mean, sd, drawn, surplus, centre + first, corrected, centre, spread, stretch)


@njit(cache=True, nogil=True, error_model="numpy")
def _distribution(x, corrected):
    """Distribution function at x: in the middle the mixture's with the draws' correction, in the tails the mixture's moved and stretched.

    A tail of probability .002 holds a quarter of 128 draws: they cannot correct it, but the mean and standard deviation, which they know
    well, can.
    """
    weight, mean, sd, drawn, surplus, centre, _, mixture_centre, _, stretch = corrected
    moved = distribution_of_normals(mixture_centre + (x - centre) / stretch, weight, mean, sd)[0]
    carried = (min(moved, 1.0 - moved) - TAIL) / (MIDDLE - TAIL)
    if carried <= 0.0:
        return moved
    reached = distribution_of_normals(x, weight, mean, sd)[0]
    for s in range(drawn.shape[0]):
        reached += surplus[s] if drawn[s] <= x else 0.0
    carried = min(carried, 1.0)
    return carried * reached + (1.0 - carried) * moved


@njit(cache=True, nogil=True, error_model="numpy")
def _quantile(level, corrected):
    """Where the corrected distribution function reaches `level`: bisection between lines, for it is not smooth."""
    reach = 12.0 * corrected.mixture_spread * max(corrected.stretch, 1.0)
    low, high = corrected.centre - reach, corrected.centre + reach
    miss_low, miss_high = -level, 1.0 - level
    for step in range(40):
        x = 0.5 * (low + high)
        if step % 2 == 1:
            x = low - miss_low * (high - low) / (miss_high - miss_low)
        miss = _distribution(x, corrected) - level
        if abs(miss) < 1e-6 or high - low < 1e-5 * corrected.mixture_spread:
            return x
        if miss > 0.0:
            high, miss_high = x, miss
        else:
            low, miss_low = x, miss
    return 0.5 * (low + high)
