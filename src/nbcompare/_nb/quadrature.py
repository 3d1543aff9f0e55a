"""The posterior of one test by quadrature: a lattice of log dispersions, at each of them a lattice of log rates.

The dispersion of each group is phi times its own ratio; the lattice and the summary are those of log phi.

Kernels. Sums with steps of .65 posterior standard deviations of log phi, outwards from the mode until nothing is left.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.arm_likelihood import growth
from nbcompare._nb.lattice import (
    SIZE,
    climb_change,
    climb_null,
    laplace_change,
    laplace_null,
    peak_change,
    peak_null,
    possible,
    sum_change,
    sum_null,
)
from nbcompare._nb.mixture_summary import INTERVAL, effect_summary, level_given_change
from nbcompare._nb.special import digamma_trigamma
from nbcompare._nb.tabulated import accumulate, distribution, quantile

NODES = 160  # dispersions of one test at most
NEGLIGIBLE = 1e-6  # weight, relative to the largest, at which the lattice of dispersions ends
SUMMARIES = 14  # columns of the summary
STEP = 0.65  # of the lattice, in posterior standard deviations


@njit(cache=True, nogil=True, error_model="numpy")
def integrate_tests(y1, l1, y2, l2, priors, ratios, shapes, levels, fineness, summary, changes, dispersions):
    """Every test's posterior into `summary`, `changes` (quantiles given a change) and `dispersions` (quantiles)."""
    density = np.empty((3, NODES, SIZE))
    cumulative = np.empty((3, NODES, SIZE))
    for g in range(y1.shape[0]):
        integrate(
            y1[g], l1[g], y2[g], l2[g], priors[g], ratios[g], shapes[g], levels, fineness, density, cumulative,
            summary[g], changes[g], dispersions[g],
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_dispersion(alpha, prior, shape):
    """Log density of log phi up to a constant: normal, or that of minus the logarithm of a gamma variable."""
    distance = alpha - prior[2]
    if prior[4] < 0.5:
        z = distance / prior[3]
        return -0.5 * z * z
    log_gamma = digamma_trigamma(shape)[0] - distance
    return shape * (log_gamma - math.log(shape)) - math.exp(log_gamma) + shape


@njit(cache=True, nogil=True, error_model="numpy")
def climb(y1, l1, y2, l2, prior, phi1, phi2, modes):
    """Modes of the log rates under both hypotheses at these dispersions, from where `modes` has them."""
    if prior[5] < 1.0:
        climb_change(y1, l1, y2, l2, phi1, phi2, prior[0], prior[1], prior[6], (modes[0, 0], modes[0, 1]), modes[0])
    if prior[5] > 0.0:
        climb_null(y1, l1, y2, l2, phi1, phi2, prior[0], prior[1], modes[1, 0], modes[1])


@njit(cache=True, nogil=True, error_model="numpy")
def laplace(y1, l1, y2, l2, prior, ratio, shape, alpha, modes):
    """Log of prior times evidence of this dispersion by Laplace's method, both hypotheses together."""
    phi1, phi2 = ratio[0] * math.exp(alpha), ratio[1] * math.exp(alpha)
    climb(y1, l1, y2, l2, prior, phi1, phi2, modes)
    change, null = -math.inf, -math.inf
    if prior[5] < 1.0:
        change = math.log(1.0 - prior[5]) + laplace_change(
            y1, l1, y2, l2, phi1, phi2, prior[0], prior[1], prior[6], modes[0]
        )
    if prior[5] > 0.0:
        null = math.log(prior[5]) + laplace_null(y1, l1, y2, l2, phi1, phi2, prior[0], prior[1], modes[1])
    top = max(change, null)
    both = top + math.log(math.exp(change - top) + math.exp(null - top))
    return both + growth(y1, phi1) + growth(y2, phi2) + log_prior_dispersion(alpha, prior, shape)


@njit(cache=True, nogil=True, error_model="numpy")
def find_dispersion(y1, l1, y2, l2, prior, ratio, shape, modes):
    """Mode of log phi and the standard deviation there, by a parabola through three points about one standard deviation apart."""
    step = 0.7 * prior[3]
    alpha = prior[2]
    middle = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha, modes)
    left = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha - step, modes)
    right = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha + step, modes)
    for _ in range(60):
        if right > middle and right >= left:
            alpha, left, middle = alpha + step, middle, right
            right = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha + step, modes)
            continue
        if left > middle:
            alpha, right, middle = alpha - step, middle, left
            left = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha - step, modes)
            continue
        bend = 2.0 * middle - left - right
        if bend <= 2.0:
            break
        alpha += 0.5 * step * (right - left) / bend
        step *= max(1.0 / math.sqrt(bend), 0.2)
        middle = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha, modes)
        left = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha - step, modes)
        right = laplace(y1, l1, y2, l2, prior, ratio, shape, alpha + step, modes)
    return alpha, min(step / math.sqrt(max(bend, 1e-6)), prior[3])


@njit(cache=True, nogil=True, error_model="numpy")
def integrate(
    y1, l1, y2, l2, prior, ratio, shape, levels, fineness, density, cumulative, summary, changes, dispersions
):  # fmt: skip
    """One test; the columns of the summary are the fields of `posterior.Posterior`, NaN where counts or exposures are too extreme for a number."""
    modes = np.zeros((2, 6))
    modes[0, 0] = modes[1, 0] = modes[0, 1] = prior[0]
    _start(y1, l1, y2, l2, modes)
    alpha, sd = find_dispersion(y1, l1, y2, l2, prior, ratio, shape, modes)
    summary[:], changes[:], dispersions[:] = math.nan, math.nan, math.nan
    if not possible(sd, STEP * sd):
        return
    start = modes.copy()
    step = STEP * fineness * sd
    nodes, evidence = np.empty(NODES), np.full((NODES, 2), -np.inf)
    layouts = np.zeros((NODES, 9))
    n = 0
    top = -math.inf
    for side in (1, -1):
        modes[:] = start
        for k in range(NODES // 2):
            if side < 0 and k == 0:
                continue
            nodes[n] = alpha + side * k * step
            _node(
                y1, l1, y2, l2, prior, ratio, shape, nodes[n], fineness, modes, density[:, n], evidence[n], layouts[n]
            )
            highest = max(evidence[n, 0], evidence[n, 1])
            if not (highest < math.inf and evidence[n, 0] == evidence[n, 0] and evidence[n, 1] == evidence[n, 1]):
                return
            top = max(top, highest)
            n += 1
            if k > 1 and highest < top + math.log(NEGLIGIBLE):
                break
    if top == -math.inf:
        return
    _summarise(n, step, nodes, evidence, layouts, top, levels, density, cumulative, summary, changes, dispersions)


@njit(cache=True, nogil=True, error_model="numpy")
def _start(y1, l1, y2, l2, modes):
    """Log rates to climb from: half a count added to every arm."""
    total1, total2 = y1.sum() + 0.5, y2.sum() + 0.5
    depth1, depth2 = l1.sum(), l2.sum()
    if depth1 > 0.0:
        modes[0, 0] = math.log(total1 / depth1)
    if depth2 > 0.0:
        modes[0, 1] = math.log(total2 / depth2)
    if depth1 + depth2 > 0.0:
        modes[1, 0] = math.log((total1 + total2) / (depth1 + depth2))


@njit(cache=True, nogil=True, error_model="numpy")
def _node(y1, l1, y2, l2, prior, ratio, shape, alpha, fineness, modes, density, evidence, layout):
    """Both hypotheses at one dispersion: log of prior times evidence, and the tabulated marginals."""
    phi1, phi2 = ratio[0] * math.exp(alpha), ratio[1] * math.exp(alpha)
    climb(y1, l1, y2, l2, prior, phi1, phi2, modes)
    common = growth(y1, phi1) + growth(y2, phi2) + log_prior_dispersion(alpha, prior, shape)
    m0, s0, scale = prior[0], prior[1], prior[6]
    if prior[5] < 1.0:
        integral = sum_change(
            y1, l1, y2, l2, phi1, phi2, s0, scale, modes[0], fineness, density[0], density[1], layout[:6]
        )  # fmt: skip
        peak = peak_change(y1, l1, y2, l2, phi1, phi2, m0, s0, scale, modes[0])
        evidence[0] = math.log(1.0 - prior[5]) + common + peak + math.log(integral)
    if prior[5] > 0.0:
        integral = sum_null(y1, l1, y2, l2, phi1, phi2, s0, modes[1], fineness, density[2], layout[6:])
        peak = peak_null(y1, l1, y2, l2, phi1, phi2, m0, s0, modes[1, 0])
        evidence[1] = math.log(prior[5]) + common + peak + math.log(integral)


@njit(cache=True, nogil=True, error_model="numpy")
def _summarise(n, step, nodes, evidence, layouts, top, levels, density, cumulative, summary, changes, dispersions):
    """Weights of the nodes, moments, quantiles."""
    weight = np.empty((2, n))
    total = np.zeros(2)
    moments = np.zeros((3, 2))  # the first two, of log fold change given a change, log rate, log dispersion
    around = np.empty(3)  # near their means, so that neither rounding nor the nodes left out weigh on the variances
    likelier = 2 if evidence[0, 1] > evidence[0, 0] else 1
    for row, kind in enumerate((0, likelier)):
        around[row] = layouts[0, 3 * kind] + 0.5 * layouts[0, 3 * kind + 1] * layouts[0, 3 * kind + 2]
    around[2] = nodes[0]
    for k in range(n):
        for hypothesis in range(2):
            weight[hypothesis, k] = math.exp(evidence[k, hypothesis] - top)
            total[hypothesis] += weight[hypothesis, k]
    whole = total[0] + total[1]
    for k in range(n):
        share = (weight[0, k] + weight[1, k]) / whole
        moments[2, 0] += share * (nodes[k] - around[2])
        moments[2, 1] += share * (nodes[k] - around[2]) ** 2
        for kind in range(3):
            hypothesis = 1 if kind == 2 else 0
            if weight[hypothesis, k] < 0.1 * NEGLIGIBLE * whole:
                weight[hypothesis, k] = 0.0
                continue
            start, width, size = layouts[k, 3 * kind], layouts[k, 3 * kind + 1], int(layouts[k, 3 * kind + 2])
            accumulate(density[kind, k], size, width, cumulative[kind, k])
            first, second = 0.0, 0.0
            row = 0 if kind == 0 else 1
            for j in range(size):
                x = start + j * width - around[row]
                first += density[kind, k, j] * x
                second += density[kind, k, j] * x * x
            over = total[0] if kind == 0 else whole
            moments[row, 0] += weight[hypothesis, k] / over * width * first
            moments[row, 1] += weight[hypothesis, k] / over * width * second
    null = total[1] / whole
    change = weight[0] / total[0] if total[0] > 0.0 else weight[0]
    below = 0.0
    mean, sd = 0.0, 0.0
    if total[0] > 0.0:
        mean = around[0] + moments[0, 0]
        sd = math.sqrt(max(moments[0, 1] - moments[0, 0] * moments[0, 0], 0.0))
        below = distribution(0.0, change, layouts[:n, 0], layouts[:n, 1], layouts[:n, 2], density[0], cumulative[0])[0]
    effect_summary(null, below, mean, sd, summary)
    for k, level in enumerate(INTERVAL):
        given_change = level_given_change(level, null, below)
        summary[4 + k] = 0.0
        if total[0] > 0.0 and given_change >= 0.0:
            summary[4 + k] = quantile(
                given_change, mean, change, layouts[:n, 0], layouts[:n, 1], layouts[:n, 2], density[0], cumulative[0]
            )  # fmt: skip
    for k in range(levels.shape[0]):
        changes[k] = np.nan
        if total[0] > 0.0:
            changes[k] = quantile(
                levels[k], mean, change, layouts[:n, 0], layouts[:n, 1], layouts[:n, 2], density[0], cumulative[0]
            )  # fmt: skip
    summary[7] = around[1] + moments[1, 0]
    summary[8] = math.sqrt(max(moments[1, 1] - moments[1, 0] ** 2, 0.0))
    summary[9] = _shared_quantile(0.5, summary[7], n, weight, whole, layouts, density, cumulative)
    summary[10] = around[2] + moments[2, 0]
    summary[11] = math.sqrt(max(moments[2, 1] - moments[2, 0] ** 2, 0.0))
    _dispersion_quantiles(n, step, nodes, evidence, top, levels, summary, dispersions)
    summary[13] = top + math.log(whole * step)


@njit(cache=True, nogil=True, error_model="numpy")
def _shared_quantile(level, guess, n, weight, whole, layouts, density, cumulative):
    """Quantile of the reference's log rate under both hypotheses together."""
    both = np.empty(2 * n)
    layout = np.empty((3, 2 * n))
    tables, sums = np.empty((2 * n, SIZE)), np.empty((2 * n, SIZE))
    for hypothesis in range(2):
        for k in range(n):
            row = hypothesis * n + k
            both[row] = weight[hypothesis, k] / whole
            for column in range(3):
                layout[column, row] = layouts[k, 3 * (hypothesis + 1) + column]
            for j in range(int(layout[2, row])):
                tables[row, j] = density[hypothesis + 1, k, j]
                sums[row, j] = cumulative[hypothesis + 1, k, j]
    return quantile(level, guess, both, layout[0], layout[1], layout[2], tables, sums)


@njit(cache=True, nogil=True, error_model="numpy")
def _dispersion_quantiles(n, step, nodes, evidence, top, levels, summary, dispersions):
    """Of log phi: its log density at the nodes, interpolated by polynomials through six of them to a lattice four times as fine."""
    order = np.argsort(nodes[:n])
    log_density = np.empty(n)
    for k in range(n):
        both = math.exp(evidence[order[k], 0] - top) + math.exp(evidence[order[k], 1] - top)
        log_density[k] = math.log(max(both, 1e-300))
    fine = 4 * (n - 1) + 1
    density, cumulative = np.empty((1, fine)), np.empty((1, fine))
    points = min(n, 6)
    for j in range(fine):
        first = min(max(j // 4 - points // 2 + 1, 0), n - points)
        t = j / 4.0 - first
        value = 0.0
        for a in range(points):
            factor = 1.0
            for b in range(points):
                if b != a:
                    factor *= (t - b) / (a - b)
            value += factor * log_density[first + a]
        density[0, j] = math.exp(value)
    accumulate(density[0], fine, step / 4.0, cumulative[0])
    one, start, width, size = np.ones(1), np.array([nodes[order[0]]]), np.array([step / 4.0]), np.array([float(fine)])
    summary[12] = quantile(0.5, summary[10], one, start, width, size, density, cumulative)
    for k in range(levels.shape[0]):
        dispersions[k] = quantile(levels[k], summary[10], one, start, width, size, density, cumulative)
