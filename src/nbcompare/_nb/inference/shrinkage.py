"""Adaptive shrinkage of effects: a prior learnt from all genes of a comparison, the posterior of each gene, its sign.

    b | beta ~ N(beta, s^2),      beta ~ sum_k pi_k N(0, v_k),   v_0 = 0, sqrt(v_k) a grid in steps of sqrt 2,

with s the standard error that the test's own p-value implies: |b| over the normal deviate of p. Nothing here has a unit; the base
of the logarithm is that of the effects given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from scipy.special import ndtri

NULL_GENES = 9.0  # added to the genes without effect: where little is known, pi_0 is overestimated, not underestimated
STEPS, TOLERANCE, SLACK = 100, 1e-10, 1e-7  # of the weights; gradients above 1, and away from 1 where there is weight
RIDGE, LEAST_STEP = 1e-11, 1e-12
LARGEST_FALL = 0.9  # of a gene's density in one step
FIRST_NULL = 0.5
LEAST_DEVIATE = 0.3  # below, |b| / |z| is a quotient of two rounding errors
FEWEST, MOST = 0.5, 3.0  # times the model's standard error
NOT_CALLED = 2.0  # deviates below may imply a larger standard error still: one replicate made the effect


@dataclass(frozen=True)
class Shrunken:
    """Posterior of the effects of one comparison; NaN where there is no p-value."""

    mean: np.ndarray  # (n_genes,)
    sd: np.ndarray  # (n_genes,)
    lfsr: np.ndarray  # (n_genes,) local false sign rate: probability that the sign is wrong or the effect zero
    s_value: np.ndarray  # (n_genes,) mean lfsr of the genes with an lfsr no larger
    variance: np.ndarray  # (n_components,) of the prior, 0 first
    weight: np.ndarray  # (n_components,) of the prior


def shrink(effect: np.ndarray, se: np.ndarray, p_value: np.ndarray, statistic: np.ndarray) -> Shrunken:
    """Posterior means, standard deviations and signs under a prior fitted to these genes, each input (n_genes,).

    `se` is the model's standard error; `statistic` stands in for the p-value where that is too small to be a number.
    """
    implied = implied_error(effect, se, p_value, statistic)
    known = np.isfinite(effect) & np.isfinite(implied) & np.isfinite(p_value)
    b, s = effect[known], implied[known]
    out = np.full((len(effect), 4), np.nan)
    if not known.any():
        return Shrunken(out[:, 0], out[:, 1], out[:, 2], out[:, 3], np.zeros(1), np.ones(1))
    variance = prior_grid(b, s)
    density = np.empty((len(variance), len(b)))
    _densities(b, s, variance, density)
    weight = np.full(len(variance), (1 - FIRST_NULL) / (len(variance) - 1))
    weight[0] = FIRST_NULL
    weight = fit_weights(density, weight)
    found = np.empty((len(b), 3))
    _posterior(b, s, variance, weight, density, found)
    out[known, :3] = found
    out[known, 3] = s_values(found[:, 2])
    return Shrunken(out[:, 0], out[:, 1], out[:, 2], out[:, 3], variance, weight)


def implied_error(effect: np.ndarray, se: np.ndarray, p_value: np.ndarray, statistic: np.ndarray) -> np.ndarray:
    """Standard errors |b| / |z|, z the deviate of the two-sided p-value, within .5 and 3 of the model's.

    For |z| < .3 it is the model's, or |b| / .3 if that is larger. For |z| < 2 there is no upper bound: an effect far beyond its model's error
    whose p-value is large is one that a single replicate makes.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(p_value > 0, -ndtri(p_value / 2), np.abs(statistic))
        size = np.abs(effect)
        model = np.where(np.isfinite(se), se, size / z)
        s = np.where(z < LEAST_DEVIATE, np.maximum(model, size / LEAST_DEVIATE), size / z)
        return np.clip(s, FEWEST * model, np.where(z < NOT_CALLED, np.inf, MOST * model))


def prior_grid(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Variances of the prior: zero, and from a tenth of the smallest errors to twice the largest effect, in steps of 2."""
    lowest = np.quantile(s, 0.01) / 10
    highest = 2 * math.sqrt(max(np.max(b * b - s * s), 4 * lowest * lowest))
    n = math.ceil(2 * math.log2(highest / lowest)) + 1
    return np.concatenate([[0.0], lowest**2 * 2.0 ** np.arange(n)])


def s_values(lfsr: np.ndarray) -> np.ndarray:
    """Running mean of the sorted local false sign rates, equal for equal rates: the rate of wrong signs among the calls up to here."""
    order = np.argsort(lfsr, kind="stable")
    running = np.cumsum(lfsr[order]) / np.arange(1, len(lfsr) + 1)
    last = np.searchsorted(lfsr[order], lfsr, side="right") - 1
    return running[last]


@njit(cache=True, nogil=True, error_model="numpy")
def _densities(b, s, variance, density):
    """N(b; 0, s^2 + v) of every component and gene, over the largest of the gene."""
    for i in range(b.shape[0]):
        square = b[i] * b[i]
        highest = -np.inf
        for k in range(variance.shape[0]):
            total = s[i] * s[i] + variance[k]
            density[k, i] = -0.5 * (math.log(total) + square / total)
            highest = max(highest, density[k, i])
        for k in range(variance.shape[0]):
            density[k, i] = math.exp(density[k, i] - highest)


def fit_weights(density: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Weights (n_components,) that maximise sum_i log(sum_k pi_k density_ki) + 9 log pi_0, density (n_components, n_genes).

    With f_i = sum_k pi_k density_ki and M genes, those added included, the maximum is where the gradient g_k = (sum_i density_ki / f_i
    + 9 [k = 0] / pi_0) / M is 1 for all components with weight, and below for the others. The constraint sum(pi) = 1 is replaced by the term
    -M sum(pi), which has the same maximum. Newton's method: each step maximises the quadratic approximation over pi >= 0, and
    is halved until the objective rises.
    """
    weight, total = start / start.sum(), density.shape[1] + NULL_GENES
    mixed = weight @ density
    value = _penalised(weight, mixed, total)
    for _ in range(STEPS):
        share = density / mixed
        gradient, hessian = share.sum(axis=1) / total, share @ share.T / total
        gradient[0] += NULL_GENES / (total * weight[0])
        hessian[0, 0] += NULL_GENES / (total * weight[0] ** 2)
        used = weight > 0
        if gradient.max() < 1 + TOLERANCE and np.abs(gradient[used] - 1).max() < SLACK:
            break
        move = _best_quadratic(hessian, gradient, weight) - weight
        mixed_move = move @ density
        fall = max(-move[0] / weight[0], float((-mixed_move / mixed).max()))
        step = min(
            1.0, LARGEST_FALL / max(fall, 1e-300)
        )  # logarithms are not quadratic where a gene loses all of its density
        while step > LEAST_STEP:
            new, new_mixed = np.maximum(weight + step * move, 0.0), mixed + step * mixed_move
            new_value = _penalised(new, new_mixed, total)
            if new_value >= value:
                break
            step /= 2
        else:
            break  # no higher value in floating point numbers
        weight, mixed = new, new @ density
        value = _penalised(weight, mixed, total)
    return weight / weight.sum()


def _penalised(weight: np.ndarray, mixed: np.ndarray, total: float) -> float:
    with np.errstate(divide="ignore"):  # a gene without density
        logs = np.log(mixed).sum()
    return float((logs + NULL_GENES * math.log(weight[0])) / total - weight.sum())


def _best_quadratic(hessian: np.ndarray, gradient: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Argmin over y >= 0 of (y - pi)'H(y - pi) / 2 - (g - 1)'(y - pi); a little is added to H, in which neighbours are nearly alike."""
    ridge = RIDGE * np.trace(hessian) / len(weight)
    root = cholesky(hessian + ridge * np.eye(len(weight)), lower=True)
    target = gradient - 1 + (hessian + ridge * np.eye(len(weight))) @ weight
    return nnls(root.T, solve_triangular(root, target, lower=True))[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _posterior(b, s, variance, weight, density, out):
    """Mean, standard deviation and local false sign rate, out (n_genes, 3).

    With w_k the posterior weights, mu_k = b v / (v + s^2) and t_k^2 = v s^2 / (v + s^2): mean sum w mu, second moment sum w (mu^2 + t^2),
    lfsr = w_0 + min(N, 1 - w_0 - N), N = sum_{k > 0} w Phi(-mu / t).
    """
    for i in range(b.shape[0]):
        error = s[i] * s[i]
        total = weight[0] * density[0, i]
        null = total
        mean = 0.0
        square = 0.0
        negative = 0.0
        positive = 0.0
        for k in range(1, variance.shape[0]):
            w = weight[k] * density[k, i]
            share = variance[k] / (variance[k] + error)
            mu = share * b[i]
            t = math.sqrt(share * error)
            total += w
            mean += w * mu
            square += w * (mu * mu + t * t)
            negative += w * 0.5 * math.erfc(mu / t * math.sqrt(0.5))
            positive += w * 0.5 * math.erfc(-mu / t * math.sqrt(0.5))
        mean /= total
        out[i, 0] = mean
        out[i, 1] = math.sqrt(max(square / total - mean * mean, 0.0))
        out[i, 2] = (null + min(negative, positive)) / total
