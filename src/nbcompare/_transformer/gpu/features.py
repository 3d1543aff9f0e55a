"""Laplace approximations and features of `summaries`, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nbcompare._transformer.gpu.batch import TestBatch, Totals
from nbcompare._transformer.gpu.laplace import find_start, maximize
from nbcompare._transformer.gpu.log_pmf import HALF_LOG_TWO_PI, log_rising_factorial
from nbcompare._transformer.layout import (
    BAYES_FACTOR,
    CENTRE,
    CENTRE_DEPARTURE,
    CENTRE_SD,
    CENTRE_WITH_DISPERSION,
    COUNTS,
    DISPERSION,
    DISPERSION_DEPARTURE,
    DISPERSION_SD,
    FAR,
    FIRST_GROUP,
    INFORMATION,
    INFORMATION_ABOVE,
    INFORMATION_BELOW,
    L0_ALPHA,
    L0_CENTRE,
    L_ALPHA,
    L_BETA,
    L_CENTRE,
    LFC,
    LFC_DEPARTURE_FAR,
    LFC_DEPARTURE_NEAR,
    LFC_SD,
    LFC_WITH_CENTRE,
    LFC_WITH_DISPERSION,
    LFC_Z,
    LOG_BAYES_FACTOR,
    MODE_ALPHA,
    MODE_BETA,
    MODE_CENTRE,
    N_FEATURES,
    NEAR,
    NULL_CENTRE,
    NULL_CENTRE_DEPARTURE,
    NULL_CENTRE_SD,
    NULL_CENTRE_SHIFT,
    NULL_CENTRE_WITH_DISPERSION,
    NULL_DISPERSION_DEPARTURE,
    NULL_DISPERSION_SD,
    NULL_DISPERSION_SHIFT,
    OVERDISPERSION,
    PRIOR_CENTRE_SD,
    PRIOR_DISPERSION,
    PRIOR_DISPERSION_SD,
    PRIOR_IS_INVERSE_GAMMA,
    PRIOR_LFC_SD,
    REPLICATES,
    SECOND_GROUP,
    ZEROS,
)
from nbcompare._transformer.training_range import MOST_REPLICATES

# Points where the log posterior is evaluated: first those whose dispersions differ, the mode, along alpha, and the same without a change.
MODE, NULL_MODE, N_DISPERSIONS = 0, 5, 10
ALONG_ALPHA, NULL_ALONG_ALPHA = slice(1, 5), slice(6, 10)
ALONG_CENTRE, ALONG_BETA, NULL_ALONG_CENTRE = slice(10, 14), slice(14, 18), slice(18, 22)
BELOW, ABOVE = 1, 4  # the dispersions 2.5 standard deviations below and above the mode


@dataclass(frozen=True)
class Points:
    """Where the log posterior is evaluated, in the order of the slices above."""

    alpha: Tensor  # (22, n)
    centre: Tensor
    beta: Tensor


@dataclass(frozen=True)
class LogPosterior:
    """The log posterior at the points."""

    value: Tensor  # (22, n) except for what depends on the dispersion alone
    of_dispersion: Tensor  # (10, n) that
    information: Tensor  # (2, 10, n) expected, of each group on its log rate


def laplace_approximations(tests: TestBatch, totals: Totals) -> Tensor:
    """Modes and factors, (15, n), rows as in `layout`; the last one, the log Bayes factor, is not filled yet."""
    alternative = maximize(tests, find_start(tests, totals), null=False)
    return torch.cat([alternative, maximize(tests, alternative[:3], null=True), torch.zeros_like(alternative[:1])])


def compute_features(tests: TestBatch, totals: Totals) -> tuple[Tensor, Tensor]:
    """Laplace approximations (15, n), of the exposures as they were given, and features (55, n), rows as in `layout`."""
    laplace = laplace_approximations(tests, totals)
    steps = torch.tensor([[-FAR], [-NEAR], [NEAR], [FAR]], dtype=laplace.dtype, device=laplace.device)
    seen = evaluate(tests, totals, lay_points(laplace, steps))
    *_, sigma = tests.prior
    at_mode = seen.value[MODE] + seen.of_dispersion[MODE]
    alternative = at_mode + torch.log(laplace[L_ALPHA] * laplace[L_CENTRE] * laplace[L_BETA] / sigma)
    at_null_mode = seen.value[NULL_MODE] + seen.of_dispersion[NULL_MODE]
    laplace[LOG_BAYES_FACTOR] = at_null_mode + torch.log(laplace[L0_ALPHA] * laplace[L0_CENTRE]) - alternative
    features = torch.empty((N_FEATURES, laplace.shape[1]), dtype=laplace.dtype, device=laplace.device)
    write_mode(tests, laplace, features)
    write_groups(totals, tests.prior, laplace, seen, features)
    write_departures(tests.prior, seen, steps, features)
    laplace[MODE_CENTRE] -= totals.shift
    laplace[NULL_CENTRE] -= totals.shift
    return laplace, features


def lay_points(laplace: Tensor, steps: Tensor) -> Points:
    """The mode and, `steps` standard deviations from it, four points along each axis; the same without a change."""
    alpha, c, b, la, lca, lc, lba, lbc, lb, alpha0, c0, la0, lca0, lc0, _ = laplace[:, None]
    zero, four = torch.zeros_like(b), torch.zeros_like(steps)
    rows = [
        (alpha, c, b),
        (alpha + steps * la, c + steps * lca, b + steps * lba),
        (alpha0, c0, zero),
        (alpha0 + steps * la0, c0 + steps * lca0, zero + four),
        (alpha + four, c + steps * lc, b + steps * lbc),
        (alpha + four, c + four, b + steps * lb),
        (alpha0 + four, c0 + steps * lc0, zero + four),
    ]
    return Points(*(torch.cat(axis) for axis in zip(*rows, strict=True)))


def evaluate(tests: TestBatch, totals: Totals, points: Points) -> LogPosterior:
    """The log posterior at the points: one round a replicate, all points in each."""
    log_mean, log_mean_sd, location, spread, shape, rate, scale = tests.prior
    etas = points.centre - 0.5 * points.beta, points.centre + 0.5 * points.beta
    value = totals.counts[0] * etas[0] + totals.counts[1] * etas[1]
    value -= 0.5 * ((points.centre - log_mean) / log_mean_sd) ** 2 + 0.5 * (points.beta / scale) ** 2
    k = torch.exp(-points.alpha)
    alpha, few = points.alpha[:N_DISPERSIONS], k[:N_DISPERSIONS]
    information = []
    for eta, counts, exposure in zip(etas, tests.groups(tests.counts), tests.groups(tests.exposure), strict=True):
        overdispersion = torch.exp(points.alpha + eta)
        seen = torch.zeros_like(few)
        for y, l in zip(counts, exposure, strict=True):
            z = overdispersion * l
            value.addcmul_(y + k, torch.log1p(z), value=-1.0)
            seen += z[:N_DISPERSIONS] / (1.0 + z[:N_DISPERSIONS])
        information.append(seen * few)
    of_dispersion = torch.where(
        shape > 0.0,
        shape * (torch.log(rate) - alpha) - rate * few - torch.lgamma(shape),
        -0.5 * ((alpha - location) / spread) ** 2 - torch.log(spread) - HALF_LOG_TWO_PI,
    )
    some_large = (tests.large > 0).any(1).tolist()
    of_dispersion += log_rising_factorial(tests.counts, tests.large, some_large, tests.beyond, 1.0 / few, few)
    return LogPosterior(value, of_dispersion, torch.stack(information))


def write_mode(tests: TestBatch, laplace: Tensor, out: Tensor) -> None:
    """The prior, and the Laplace approximations in its units."""
    log_mean, tau, location, spread, shape, _, sigma = tests.prior
    alpha, c, b, la, lca, lc, lba, lbc, lb, alpha0, c0, la0, lca0, lc0, log_factor = laplace
    row = torch.sqrt(lba * lba + lbc * lbc + lb * lb)
    out[PRIOR_CENTRE_SD] = torch.log(tau)
    out[PRIOR_LFC_SD] = torch.log(sigma)
    out[PRIOR_DISPERSION_SD] = torch.log(spread)
    out[PRIOR_IS_INVERSE_GAMMA] = (shape > 0.0).to(alpha.dtype)
    out[PRIOR_DISPERSION] = location
    out[CENTRE] = ((c - log_mean) / tau).clamp(-6.0, 6.0)
    out[DISPERSION] = ((alpha - location) / spread).clamp(-6.0, 6.0)
    out[DISPERSION_SD] = torch.log(la / spread)
    out[CENTRE_SD] = torch.log(lc / tau)
    out[LFC_SD] = torch.log(lb / sigma)
    out[CENTRE_WITH_DISPERSION] = lca / torch.hypot(lca, lc)
    out[BAYES_FACTOR] = torch.asinh(log_factor)
    out[NULL_DISPERSION_SD] = torch.log(la0 / spread)
    out[NULL_CENTRE_SD] = torch.log(lc0 / tau)
    out[NULL_CENTRE_WITH_DISPERSION] = lca0 / torch.hypot(lca0, lc0)
    out[NULL_DISPERSION_SHIFT] = torch.asinh((alpha0 - alpha) / la)
    out[NULL_CENTRE_SHIFT] = torch.asinh((c0 - c) / lc)
    out[LFC] = b / sigma
    out[LFC_WITH_DISPERSION] = lba / row
    out[LFC_WITH_CENTRE] = lbc / row
    out[LFC_Z] = torch.asinh(b / lb)


def write_groups(totals: Totals, prior: Tensor, laplace: Tensor, seen: LogPosterior, out: Tensor) -> None:
    """The features of each group but for its departures."""
    _, tau, *_, sigma = prior
    variance = tau * tau + 0.25 * sigma * sigma
    for k, first, sign in ((0, FIRST_GROUP, -0.5), (1, SECOND_GROUP, 0.5)):
        number, information = totals.number[k], seen.information[k]
        log_dispersion_rate = laplace[MODE_ALPHA] + laplace[MODE_CENTRE] + sign * laplace[MODE_BETA]
        out[first + REPLICATES] = torch.log(number.clamp(max=MOST_REPLICATES))
        out[first + COUNTS] = torch.log1p(totals.counts[k])
        out[first + INFORMATION] = torch.log1p(information[MODE] * variance)
        out[first + OVERDISPERSION] = (log_dispersion_rate + torch.log(totals.exposure[k] / number)).clamp(-8.0, 8.0)
        out[first + INFORMATION_BELOW] = torch.log(information[BELOW] / information[MODE])
        out[first + INFORMATION_ABOVE] = torch.log(information[ABOVE] / information[MODE])
        out[first + ZEROS] = totals.zeros[k] / number


def write_departures(prior: Tensor, seen: LogPosterior, steps: Tensor, out: Tensor) -> None:
    """How far the log posterior departs from a Gaussian along its axes, centre and beta integrated out along alpha."""
    _, tau, *_, sigma = prior
    value, null_mode = seen.value, seen.value[NULL_MODE]
    out[_four(CENTRE_DEPARTURE)] = departure(value[MODE] - value[ALONG_CENTRE], steps)
    down_far, down_near, up_near, up_far = departure(value[MODE] - value[ALONG_BETA], steps)
    out[FIRST_GROUP + LFC_DEPARTURE_NEAR], out[FIRST_GROUP + LFC_DEPARTURE_FAR] = down_near, down_far
    out[SECOND_GROUP + LFC_DEPARTURE_NEAR], out[SECOND_GROUP + LFC_DEPARTURE_FAR] = up_near, up_far
    out[_four(NULL_CENTRE_DEPARTURE)] = departure(null_mode - value[NULL_ALONG_CENTRE], steps)
    both = value[:N_DISPERSIONS] + seen.of_dispersion
    first, second = seen.information
    p = first + second + 1.0 / tau**2
    q = 0.5 * (second - first)
    volumes = 0.5 * torch.log(p * (0.25 * (first + second) + 1.0 / sigma**2) - q * q)
    fall = both[MODE] - both[ALONG_ALPHA] + volumes[ALONG_ALPHA] - volumes[MODE]
    out[_four(DISPERSION_DEPARTURE)] = departure(fall, steps)
    volumes = 0.5 * torch.log(p[NULL_ALONG_ALPHA] / p[NULL_MODE])
    fall = both[NULL_MODE] - both[NULL_ALONG_ALPHA] + volumes
    out[_four(NULL_DISPERSION_DEPARTURE)] = departure(fall, steps)


def _four(first: int) -> slice:
    """The four rows of a departure."""
    return slice(first, first + 4)


def departure(fall: Tensor, steps: Tensor) -> Tensor:
    """log(sqrt(2 D) / |k|), bounded."""
    return (0.5 * torch.log(2.0 * fall.clamp(min=0.0) / (steps * steps) + 1e-3)).clamp(-3.0, 4.0)
