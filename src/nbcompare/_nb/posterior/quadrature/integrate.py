"""The posterior of one test by quadrature: a grid of log dispersions, at each of them a grid of log rates.

The dispersion of each group is phi times its own ratio; the grid and the summary are those of log phi.

Kernels. Sums with steps of .65 posterior standard deviations of log phi, outwards from the mode until nothing is left.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics.special import digamma_trigamma
from nbcompare._nb.posterior.columns import Columns
from nbcompare._nb.posterior.group_likelihood import log_rising_factorial
from nbcompare._nb.posterior.prior import gene_prior
from nbcompare._nb.posterior.quadrature.rate_grid import (
    OF_CHANGE,
    OF_NULL_RATE,
    OF_RATE,
    SIZE,
    possible,
    sum_change,
    sum_null,
)
from nbcompare._nb.posterior.quadrature.rate_modes import (
    CHANGE,
    NULL,
    RATE,
    RATE1,
    RATE2,
    Conditional,
    Groups,
    laplace_change,
    laplace_null,
    maximize_change,
    maximize_null,
    peak_change,
    peak_null,
)
from nbcompare._nb.posterior.quadrature.summary import MOST_NODES, NEGLIGIBLE, Nodes, summarise_nodes

NODE_STEP = 0.65  # of the grid, in posterior standard deviations


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
    if prior.null_proportion < 1.0:
        maximize_change(data, prior, modes[CHANGE])
    if prior.null_proportion > 0.0:
        maximize_null(data, prior, modes[NULL])


@njit(cache=True, nogil=True, error_model="numpy")
def laplace(gene, alpha, modes):
    """Log of prior times evidence of this dispersion by Laplace's method, both hypotheses together."""
    prior, data = gene.prior, at_dispersion(gene, alpha)
    maximize_rates(data, prior, modes)
    change, null = -math.inf, -math.inf
    if prior.null_proportion < 1.0:
        change = math.log(1.0 - prior.null_proportion) + laplace_change(data, prior, modes[CHANGE])
    if prior.null_proportion > 0.0:
        null = math.log(prior.null_proportion) + laplace_null(data, prior, modes[NULL])
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
    summarise_nodes(nodes, n, step, top, levels, out)


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
    if prior.null_proportion < 1.0:
        integral = sum_change(data, prior, modes[CHANGE], fineness, density[OF_CHANGE, n], density[OF_RATE, n], layouts)
        peak = peak_change(data, prior, modes[CHANGE])
        nodes.evidence[n, CHANGE] = math.log(1.0 - prior.null_proportion) + common + peak + math.log(integral)
    if prior.null_proportion > 0.0:
        integral = sum_null(data, prior, modes[NULL], fineness, density[OF_NULL_RATE, n], layouts[OF_NULL_RATE])
        peak = peak_null(data, prior, modes[NULL])
        nodes.evidence[n, NULL] = math.log(prior.null_proportion) + common + peak + math.log(integral)
