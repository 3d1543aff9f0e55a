"""The posterior of one test by quadrature: a grid of log dispersions, at each of them a grid of log rates.

The dispersion of each group is phi times its own ratio; the grid and the summary are those of log phi.

Kernels. Sums with steps of .65 posterior standard deviations of log phi, outwards from the mode until nothing is left.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.arm_likelihood import log_rising_factorial
from nbcompare._nb.lattice import (
    CHANGE,
    NULL,
    OF_CHANGE,
    OF_NULL_RATE,
    OF_RATE,
    POINTS,
    RATE,
    RATE1,
    RATE2,
    SIZE,
    START,
    STEP,
    Conditional,
    Groups,
    laplace_change,
    laplace_null,
    maximize_change,
    maximize_null,
    peak_change,
    peak_null,
    possible,
    sum_change,
    sum_null,
)
from nbcompare._nb.mixture_summary import effect_summary, level_given_change
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
from nbcompare._nb.special import digamma_trigamma
from nbcompare._nb.tabulated import Tables, accumulate, distribution, quantile

MOST_NODES = 160  # dispersions of one test at most
NEGLIGIBLE = 1e-6  # weight, relative to the largest, at which the grid of dispersions ends
NODE_STEP = 0.65  # of the grid, in posterior standard deviations
MEAN, SQUARE = range(2)  # columns of the moments in `_moments_of`
CHANGE_MOMENTS, RATE_MOMENTS, DISPERSION_MOMENTS = range(3)  # and its rows


class Nodes(NamedTuple):
    """Both hypotheses at each dispersion of one test; arrays that are used again for the next test."""

    log_dispersion: np.ndarray  # (MOST_NODES,)
    evidence: np.ndarray  # (MOST_NODES, 2) log of prior times evidence, with a change and without
    layouts: np.ndarray  # (MOST_NODES, 3, 3) grids of the three marginals
    density: np.ndarray  # (3, MOST_NODES, SIZE) the marginals
    cumulative: np.ndarray  # (3, MOST_NODES, SIZE)


class Gene(NamedTuple):
    """Data and prior of one gene in one comparison."""

    groups: Groups
    prior: NamedTuple  # GenePrior
    ratio: np.ndarray  # (2,) dispersion of each group relative to phi


@njit(cache=True, nogil=True, error_model="numpy")
def integrate_tests(groups, priors, ratios, levels, fineness, out):
    """The posterior of every test into the columns `out`."""
    nodes = Nodes(
        np.empty(MOST_NODES),
        np.empty((MOST_NODES, 2)),
        np.empty((MOST_NODES, 3, 3)),
        np.empty((3, MOST_NODES, SIZE)),
        np.empty((3, MOST_NODES, SIZE)),
    )
    for g in range(priors.shape[0]):
        data = Groups(groups.y1[g], groups.l1[g], groups.y2[g], groups.l2[g])
        row = Columns(out.summary[g], out.changes[g], out.dispersions[g])
        integrate(Gene(data, gene_prior(priors[g]), ratios[g]), levels, fineness, nodes, row)


@njit(cache=True, nogil=True, error_model="numpy")
def log_prior_dispersion(alpha, prior):
    """Log density of log phi up to a constant: normal, or that of minus the logarithm of a gamma variable."""
    distance = alpha - prior.log_dispersion
    if prior.family < 0.5:
        z = distance / prior.log_dispersion_sd
        return -0.5 * z * z
    shape = prior.shape
    log_gamma = digamma_trigamma(shape)[0] - distance
    return shape * (log_gamma - math.log(shape)) - math.exp(log_gamma) + shape


@njit(cache=True, nogil=True, error_model="numpy")
def at_dispersion(gene, alpha):
    """Both groups at this log phi."""
    data, phi = gene.groups, math.exp(alpha)
    return Conditional(data.y1, data.l1, data.y2, data.l2, gene.ratio[0] * phi, gene.ratio[1] * phi)


@njit(cache=True, nogil=True, error_model="numpy")
def maximize_rates(data, prior, modes):
    """Modes of the log rates under both hypotheses at these dispersions, from where `modes` has them."""
    if prior.null_share < 1.0:
        maximize_change(data, prior, modes[CHANGE])
    if prior.null_share > 0.0:
        maximize_null(data, prior, modes[NULL])


@njit(cache=True, nogil=True, error_model="numpy")
def laplace(gene, alpha, modes):
    """Log of prior times evidence of this dispersion by Laplace's method, both hypotheses together."""
    prior, data = gene.prior, at_dispersion(gene, alpha)
    maximize_rates(data, prior, modes)
    change, null = -math.inf, -math.inf
    if prior.null_share < 1.0:
        change = math.log(1.0 - prior.null_share) + laplace_change(data, prior, modes[CHANGE])
    if prior.null_share > 0.0:
        null = math.log(prior.null_share) + laplace_null(data, prior, modes[NULL])
    top = max(change, null)
    both = top + math.log(math.exp(change - top) + math.exp(null - top))
    return (
        both
        + log_rising_factorial(data.y1, data.phi1)
        + log_rising_factorial(data.y2, data.phi2)
        + log_prior_dispersion(alpha, prior)
    )


@njit(cache=True, nogil=True, error_model="numpy")
def find_dispersion(gene, modes):
    """Mode of log phi and the standard deviation there, by a parabola through three points about one standard deviation apart."""
    step = 0.7 * gene.prior.log_dispersion_sd
    alpha = gene.prior.log_dispersion
    middle = laplace(gene, alpha, modes)
    left = laplace(gene, alpha - step, modes)
    right = laplace(gene, alpha + step, modes)
    for _ in range(60):
        if right > middle and right >= left:
            alpha, left, middle = alpha + step, middle, right
            right = laplace(gene, alpha + step, modes)
            continue
        if left > middle:
            alpha, right, middle = alpha - step, middle, left
            left = laplace(gene, alpha - step, modes)
            continue
        bend = 2.0 * middle - left - right
        if bend <= 2.0:
            break
        alpha += 0.5 * step * (right - left) / bend
        step *= max(1.0 / math.sqrt(bend), 0.2)
        middle = laplace(gene, alpha, modes)
        left = laplace(gene, alpha - step, modes)
        right = laplace(gene, alpha + step, modes)
    return alpha, min(step / math.sqrt(max(bend, 1e-6)), gene.prior.log_dispersion_sd)


@njit(cache=True, nogil=True, error_model="numpy")
def integrate(gene, levels, fineness, nodes, out):
    """One test into the columns `out`, NaN where counts or exposures are too extreme for a number."""
    modes = np.zeros((2, 6))
    modes[CHANGE, RATE1] = modes[NULL, RATE] = modes[CHANGE, RATE2] = gene.prior.log_mean
    _start(gene.groups, modes)
    alpha, sd = find_dispersion(gene, modes)
    out.summary[:], out.changes[:], out.dispersions[:] = math.nan, math.nan, math.nan
    if not possible(sd, NODE_STEP * sd):
        return
    start = modes.copy()
    step = NODE_STEP * fineness * sd
    evidence = nodes.evidence
    evidence[:], nodes.layouts[:] = -math.inf, 0.0
    n = 0
    top = -math.inf
    for side in (1, -1):
        modes[:] = start
        for k in range(MOST_NODES // 2):
            if side < 0 and k == 0:
                continue
            nodes.log_dispersion[n] = alpha + side * k * step
            _add_node(gene, fineness, modes, nodes, n)
            highest = max(evidence[n, CHANGE], evidence[n, NULL])
            if not highest < math.inf or math.isnan(evidence[n, CHANGE]) or math.isnan(evidence[n, NULL]):
                return
            top = max(top, highest)
            n += 1
            if k > 1 and highest < top + math.log(NEGLIGIBLE):
                break
    if top == -math.inf:
        return
    _summarise(nodes, n, step, top, levels, out)


@njit(cache=True, nogil=True, error_model="numpy")
def _start(data, modes):
    """Log rates to start from: half a count added to every group."""
    total1, total2 = data.y1.sum() + 0.5, data.y2.sum() + 0.5
    depth1, depth2 = data.l1.sum(), data.l2.sum()
    if depth1 > 0.0:
        modes[CHANGE, RATE1] = math.log(total1 / depth1)
    if depth2 > 0.0:
        modes[CHANGE, RATE2] = math.log(total2 / depth2)
    if depth1 + depth2 > 0.0:
        modes[NULL, RATE] = math.log((total1 + total2) / (depth1 + depth2))


@njit(cache=True, nogil=True, error_model="numpy")
def _add_node(gene, fineness, modes, nodes, n):
    """Both hypotheses at the n-th dispersion: log of prior times evidence, and the tabulated marginals."""
    alpha, prior, layouts, density = nodes.log_dispersion[n], gene.prior, nodes.layouts[n], nodes.density
    data = at_dispersion(gene, alpha)
    maximize_rates(data, prior, modes)
    common = (
        log_rising_factorial(data.y1, data.phi1)
        + log_rising_factorial(data.y2, data.phi2)
        + log_prior_dispersion(alpha, prior)
    )
    if prior.null_share < 1.0:
        integral = sum_change(data, prior, modes[CHANGE], fineness, density[OF_CHANGE, n], density[OF_RATE, n], layouts)
        peak = peak_change(data, prior, modes[CHANGE])
        nodes.evidence[n, CHANGE] = math.log(1.0 - prior.null_share) + common + peak + math.log(integral)
    if prior.null_share > 0.0:
        integral = sum_null(data, prior, modes[NULL], fineness, density[OF_NULL_RATE, n], layouts[OF_NULL_RATE])
        peak = peak_null(data, prior, modes[NULL])
        nodes.evidence[n, NULL] = math.log(prior.null_share) + common + peak + math.log(integral)


@njit(cache=True, nogil=True, error_model="numpy")
def _summarise(nodes, n, step, top, levels, out):
    """Moments and quantiles from the first n nodes."""
    weight, total = np.empty((2, n)), np.zeros(2)
    for k in range(n):
        for hypothesis in range(2):
            weight[hypothesis, k] = math.exp(nodes.evidence[k, hypothesis] - top)
            total[hypothesis] += weight[hypothesis, k]
    whole = total[CHANGE] + total[NULL]
    around, moments = _moments_of(nodes, weight, total)
    summary = out.summary
    null = total[NULL] / whole
    possible_change = total[CHANGE] > 0.0
    change = weight[CHANGE] / total[CHANGE] if possible_change else weight[CHANGE]
    tables = _tables_of(nodes, n, OF_CHANGE)
    mean, sd, below = 0.0, 0.0, 0.0
    if possible_change:
        mean = around[CHANGE_MOMENTS] + moments[CHANGE_MOMENTS, MEAN]
        sd = _sd(moments[CHANGE_MOMENTS])
        below = distribution(0.0, change, tables)[0]
    effect_summary(null, below, mean, sd, summary)
    for k, level in enumerate(INTERVAL):
        given_change = level_given_change(level, null, below)
        summary[LOG_FC_MEDIAN + k] = 0.0
        if possible_change and given_change >= 0.0:
            summary[LOG_FC_MEDIAN + k] = quantile(given_change, mean, change, tables)
    for k in range(levels.shape[0]):
        out.changes[k] = np.nan
        if possible_change:
            out.changes[k] = quantile(levels[k], mean, change, tables)
    summary[LOG_MEAN] = around[RATE_MOMENTS] + moments[RATE_MOMENTS, MEAN]
    summary[LOG_MEAN_SD] = _sd(moments[RATE_MOMENTS])
    summary[LOG_MEAN_MEDIAN] = _rate_quantile(0.5, summary[LOG_MEAN], nodes, weight, whole)
    summary[LOG_DISPERSION] = around[DISPERSION_MOMENTS] + moments[DISPERSION_MOMENTS, MEAN]
    summary[LOG_DISPERSION_SD] = _sd(moments[DISPERSION_MOMENTS])
    _dispersion_quantiles(nodes, n, step, top, levels, out)


@njit(cache=True, nogil=True, error_model="numpy")
def _moments_of(nodes, weight, total):
    """First two moments of log fold change given a change, log rate, and log dispersion, around points near their means.

    So neither rounding nor the nodes left out change the variances. Marginals are scaled to one and summed up; weights that are
    negligible become zero.
    """
    n, layouts, evidence = weight.shape[1], nodes.layouts, nodes.evidence
    moments, around = np.zeros((3, 2)), np.empty(3)
    likelier = OF_NULL_RATE if evidence[0, NULL] > evidence[0, CHANGE] else OF_RATE
    for row, kind in enumerate((OF_CHANGE, likelier)):
        around[row] = layouts[0, kind, START] + 0.5 * layouts[0, kind, STEP] * layouts[0, kind, POINTS]
    around[DISPERSION_MOMENTS] = nodes.log_dispersion[0]
    whole = total[CHANGE] + total[NULL]
    for k in range(n):
        share = (weight[CHANGE, k] + weight[NULL, k]) / whole
        distance = nodes.log_dispersion[k] - around[DISPERSION_MOMENTS]
        moments[DISPERSION_MOMENTS, MEAN] += share * distance
        moments[DISPERSION_MOMENTS, SQUARE] += share * distance**2
        for kind in range(3):
            hypothesis = NULL if kind == OF_NULL_RATE else CHANGE
            if weight[hypothesis, k] < 0.1 * NEGLIGIBLE * whole:
                weight[hypothesis, k] = 0.0
                continue
            density = nodes.density[kind, k]
            start, width, size = layouts[k, kind, START], layouts[k, kind, STEP], int(layouts[k, kind, POINTS])
            accumulate(density, size, width, nodes.cumulative[kind, k])
            first, second = 0.0, 0.0
            row = CHANGE_MOMENTS if kind == OF_CHANGE else RATE_MOMENTS
            for j in range(size):
                x = start + j * width - around[row]
                first += density[j] * x
                second += density[j] * x * x
            over = total[CHANGE] if kind == OF_CHANGE else whole
            moments[row, MEAN] += weight[hypothesis, k] / over * width * first
            moments[row, SQUARE] += weight[hypothesis, k] / over * width * second
    return around, moments


@njit(cache=True, nogil=True, error_model="numpy")
def _sd(moments):
    """Standard deviation from the first two moments around any point."""
    return math.sqrt(max(moments[SQUARE] - moments[MEAN] ** 2, 0.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _tables_of(nodes, n, kind):
    """One marginal at the first n nodes."""
    layout = nodes.layouts[:n, kind]
    return Tables(layout[:, START], layout[:, STEP], layout[:, POINTS], nodes.density[kind], nodes.cumulative[kind])


@njit(cache=True, nogil=True, error_model="numpy")
def _rate_quantile(level, guess, nodes, weight, whole):
    """Quantile of the reference's log rate under both hypotheses together."""
    n = weight.shape[1]
    both = np.empty(2 * n)
    layout = np.empty((3, 2 * n))
    tables, sums = np.empty((2 * n, SIZE)), np.empty((2 * n, SIZE))
    for hypothesis in range(2):
        kind = OF_RATE if hypothesis == CHANGE else OF_NULL_RATE
        for k in range(n):
            row = hypothesis * n + k
            both[row] = weight[hypothesis, k] / whole
            for column in range(3):
                layout[column, row] = nodes.layouts[k, kind, column]
            for j in range(int(layout[POINTS, row])):
                tables[row, j] = nodes.density[kind, k, j]
                sums[row, j] = nodes.cumulative[kind, k, j]
    return quantile(level, guess, both, Tables(layout[START], layout[STEP], layout[POINTS], tables, sums))


@njit(cache=True, nogil=True, error_model="numpy")
def _dispersion_quantiles(nodes, n, step, top, levels, out):
    """Of log phi: its log density at the nodes, interpolated by polynomials through six of them to a grid four times as fine."""
    order = np.argsort(nodes.log_dispersion[:n])
    log_density = np.empty(n)
    for k in range(n):
        at = nodes.evidence[order[k]]
        log_density[k] = math.log(max(math.exp(at[CHANGE] - top) + math.exp(at[NULL] - top), 1e-300))
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
    start, width, size = np.array([nodes.log_dispersion[order[0]]]), np.array([step / 4.0]), np.array([float(fine)])
    one, tables = np.ones(1), Tables(start, width, size, density, cumulative)
    mean = out.summary[LOG_DISPERSION]
    out.summary[LOG_DISPERSION_MEDIAN] = quantile(0.5, mean, one, tables)
    for k in range(levels.shape[0]):
        out.dispersions[k] = quantile(levels[k], mean, one, tables)
