"""Confidence intervals by inversion of the likelihood ratio test: the nulls at which the log likelihood falls by less than 1.96^2 / 2.

The treated exposures are exp(x) times as large under the null hypothesis that the log fold change is x. As in `likelihood_ratio`, the
dispersion is fitted anew under every null for a maximum likelihood fit, with its adjustment, and is that of the fit otherwise.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.data import Fit, Group
from nbcompare._nb.glm.contrast import LIKELIHOOD_RATIO
from nbcompare._nb.glm.fit.mle import adjusted_alternatives
from nbcompare._nb.glm.intervals import design_intervals
from nbcompare._nb.glm.likelihood_ratio import two_groups
from nbcompare._nb.glm.run import fixed_dispersions
from nbcompare._nb.likelihood.mle import LikelihoodFit
from nbcompare._nb.likelihood.moments import stack
from nbcompare._nb.likelihood.profile import log_likelihood_of_gene, rate_at
from nbcompare._nb.likelihood.profile_maximum import WIDE, fit_gene
from nbcompare._nb.likelihood.wald import standard_error
from nbcompare._nb.numerics.interval_search import NORMAL, SIZE, X, advance, begin


def ratio_intervals(fit: Fit, reference: Group, treated: Group) -> np.ndarray:
    """Lower and upper bounds of the log fold change by `likelihood_ratio_test`, (n_genes, 2); a group without counts has one bound."""
    stacked, starts = stack(reference, treated)
    se = standard_error(fit, reference, treated)
    if isinstance(fit, LikelihoodFit) and fit.cox_reid:
        return _adjusted(fit, reference, treated, stacked, se)
    refit = isinstance(fit, LikelihoodFit)
    highest = fit.log_likelihood if isinstance(fit, LikelihoodFit) else np.zeros(len(fit.log_fc))
    out = np.full((len(fit.log_fc), 2), np.nan)
    _ratio_intervals(
        stacked.counts, stacked.exposure, int(starts[1]), fit.dispersion, fit.log_fc, se, highest, refit, out
    )
    return out


def _adjusted(fit: Fit, reference: Group, treated: Group, stacked: Group, se: np.ndarray) -> np.ndarray:
    """The same with Cox-Reid's adjustment, as a design of two groups."""
    offset, matrices = np.log(stacked.exposure)[None], two_groups(reference, treated)
    empty = (reference.counts.sum(axis=1) == 0) | (treated.counts.sum(axis=1) == 0)
    return design_intervals(
        stacked.counts,
        offset,
        matrices,
        fixed_dispersions(fit.dispersion, stacked.counts),
        fit.log_fc[:, None],
        se[:, None],
        empty[:, None],
        LIKELIHOOD_RATIO,
        searched=np.ones(1, bool),
        highest=adjusted_alternatives(stacked.counts, offset, matrices),
        cox_reid=True,
    )[:, 0]


@njit(cache=True, nogil=True, error_model="numpy")
def _ratio_intervals(counts, exposure, middle, dispersion, log_fc, se, highest, refit, out):
    n = counts.shape[1]
    state = np.empty(SIZE)
    e = exposure.copy()
    one = np.array([0, n])
    two = np.array([0, middle, n])
    rates = np.empty(2)
    null = np.empty(1)
    trial_rates = np.empty(1)
    means = np.empty(n)
    for g in range(counts.shape[0]):
        if not (se[g] < math.inf and dispersion[g] < math.inf):
            continue
        y = counts[g]
        phi = dispersion[g]
        for k in range(2):
            rates[k] = _best_rate(y, exposure, two[k], two[k + 1], phi)
        counted = min(rates[0], rates[1]) > 0.0
        centre = math.log(rates[1] / rates[0]) if counted else log_fc[g]
        top = highest[g] if refit else log_likelihood_of_gene(y, exposure, two, phi, rates)
        for side in range(2):  # lower, upper
            if rates[1 - side] <= 0.0:
                out[g, side] = -math.inf if side == 0 else math.inf
                continue
            target = NORMAL if side == 0 else -NORMAL
            begin(state, centre, centre - target * se[g], target)
            ended = False
            while not ended:
                ratio = math.exp(state[X])
                for i in range(middle, n):
                    e[i] = exposure[i] * ratio
                if refit:
                    wide = e.max() > WIDE * e.min()
                    _, value = fit_gene(y, e, one, False, wide, null, trial_rates, means)
                else:
                    null[0] = _best_rate(y, e, 0, n, phi)
                    value = log_likelihood_of_gene(y, e, one, phi, null)
                root = math.sqrt(2.0 * max(top - value, 0.0))
                sign = centre - state[X] if counted else target
                ended = advance(state, math.copysign(root, sign))
            out[g, side] = state[X]


@njit(cache=True, nogil=True, error_model="numpy")
def _best_rate(y, l, start, stop, phi):
    """Rate of samples start to stop that maximises the likelihood at phi, 0 without counts."""
    total = 0.0
    depth = 0.0
    for i in range(start, stop):
        total += y[i]
        depth += l[i]
    rate = total / depth
    return rate_at(y, l, start, stop, phi, rate) if total > 0.0 and phi > 0.0 else rate
