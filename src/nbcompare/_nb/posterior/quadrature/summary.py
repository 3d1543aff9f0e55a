"""Moments and quantiles of a posterior by quadrature, from its values on a grid of log dispersions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.posterior.columns import (
    INTERVAL,
    LOG_DISPERSION,
    LOG_DISPERSION_MEDIAN,
    LOG_DISPERSION_SD,
    LOG_FC_MEDIAN,
    LOG_MEAN,
    LOG_MEAN_MEDIAN,
    LOG_MEAN_SD,
)
from nbcompare._nb.posterior.mixture_summary import effect_summary, level_given_change
from nbcompare._nb.posterior.quadrature.grid_distribution import Tables, accumulate, distribution, quantile
from nbcompare._nb.posterior.quadrature.rate_grid import OF_CHANGE, OF_NULL_RATE, OF_RATE, POINTS, SIZE, START, STEP
from nbcompare._nb.posterior.quadrature.rate_modes import CHANGE, NULL

MOST_NODES = 160  # dispersions of one test at most
NEGLIGIBLE = 1e-6  # weight, relative to the largest, at which the grid of dispersions ends
MEAN, SQUARE = range(2)  # columns of the moments in `_moments_of`
CHANGE_MOMENTS, RATE_MOMENTS, DISPERSION_MOMENTS = range(3)  # and its rows


class Nodes(NamedTuple):
    """Both hypotheses at each dispersion of one test; arrays that are used again for the next test."""

    log_dispersion: np.ndarray  # (MOST_NODES,)
    evidence: np.ndarray  # (MOST_NODES, 2) log of prior times evidence, with a change and without
    layouts: np.ndarray  # (MOST_NODES, 3, 3) grids of the three marginals
    density: np.ndarray  # (3, MOST_NODES, SIZE) the marginals
    cumulative: np.ndarray  # (3, MOST_NODES, SIZE)


@njit(cache=True, nogil=True, error_model="numpy")
def summarise_nodes(nodes, n, step, top, levels, out):
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
