"""The prior of log fold changes, estimated from a comparison's own genes: fraction of non-DE genes, and spread of the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from nbcompare._nb.numerics.simd import exp, log, log1p

PSEUDO_NULLS = 10.0  # genes that are taken to be unchanged before any is seen [as in ashr]
USUAL_SCALE, SCALE_LOG_SD = 0.5, 1.0  # prior of the scale, log-normal
SCALES = np.geomspace(0.03, 5.0, 31)
NULL_PROPORTION = (0.01, 0.99)
LEAST_SHARE = 1e-6


class EffectFit(NamedTuple):
    """The likeliest prior of log fold changes."""

    log_likelihood: float  # penalized, relative to that of genes which are all unchanged
    null_proportion: float
    log_fc_sd: float


def effect_prior(log_fc: np.ndarray, se: np.ndarray, degrees: np.ndarray) -> tuple[float, float]:
    r"""Share of unchanged genes and scale of the others' log fold changes, by penalised maximum likelihood.

    .. math::  b_g / s_g \sim \pi_0 t_{d_g} + (1 - \pi_0) \sqrt{1 + \tau^2 / s_g^2}\; t_{d_g}

    For every scale the likelihood is concave in the share, maximized by Newton's steps; the scale is the highest of a list, refined by a
    parabola. Ten unchanged genes are added :cite:p:`stephens2017`, and log tau has a wide normal prior, for where nearly all genes are
    unchanged there is nothing to learn it from.
    """
    if len(log_fc) == 0:
        return 0.5, USUAL_SCALE
    found = likeliest_effects(log_fc, se, degrees)
    return float(np.clip(found.null_proportion, *NULL_PROPORTION)), found.log_fc_sd


def likeliest_effects(
    log_fc: np.ndarray, se: np.ndarray, degrees: np.ndarray, scales: np.ndarray = SCALES
) -> EffectFit:
    """The prior of `effect_prior` with its penalized likelihood; `scales` is the list of standard deviations, a geometric series."""
    square, variance = (log_fc / se) ** 2 / degrees, se**2
    data = (square, np.log1p(square), 0.5 * (degrees + 1.0), variance, np.empty_like(square))
    profile = np.array([_penalised(likeliest_share(*data, scale), scale) for scale in scales])
    best = int(np.argmax(profile))
    scale = scales[best]
    if 0 < best < len(scales) - 1:
        left, middle, right = profile[best - 1 : best + 2]
        bend = 2 * middle - left - right
        scale *= (scales[1] / scales[0]) ** float(0.5 * (right - left) / bend)
    likeliest = likeliest_share(*data, scale)
    return EffectFit(float(_penalised(likeliest, scale)), float(likeliest[0]), float(scale))


def _penalised(likeliest: tuple[float, float], scale: float) -> float:
    """The log likelihood at a share with the pseudo-nulls and the prior of the scale."""
    share, log_likelihood = likeliest
    return log_likelihood + PSEUDO_NULLS * np.log(share) - 0.5 * (np.log(scale / USUAL_SCALE) / SCALE_LOG_SD) ** 2


@njit(cache=True, nogil=True, error_model="numpy")
def likeliest_share(square, log_square, half, variance, ratio, scale):
    """Most likely share of unchanged genes at this scale, and the log likelihood there, relative to all unchanged.

    `square` is t^2 / d, `log_square` log(1 + t^2 / d), `half` (d + 1) / 2; `ratio` is filled. Newton's steps within a bracket.
    """
    for g in range(square.shape[0]):
        widened = 1.0 + scale * scale / variance[g]
        log_ratio = half[g] * (log_square[g] - log1p(square[g] / widened)) - 0.5 * log(widened)
        ratio[g] = exp(min(log_ratio, 600.0))
    low, high, share = LEAST_SHARE, 1.0, 0.9
    for _ in range(50):
        slope, bend = PSEUDO_NULLS / share, PSEUDO_NULLS / (share * share)
        for g in range(square.shape[0]):
            part = (1.0 - ratio[g]) / (share + (1.0 - share) * ratio[g])
            slope += part
            bend += part * part
        if slope > 0.0:
            low = share
        else:
            high = share
        following = share + slope / bend
        following = following if low < following < high else 0.5 * (low + high)
        if abs(following - share) < 1e-9:
            break
        share = following
    total = 0.0
    for g in range(square.shape[0]):
        total += log(share + (1.0 - share) * ratio[g])
    return share, total
