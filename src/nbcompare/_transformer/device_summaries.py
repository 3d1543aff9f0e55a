"""Anchors and summaries of `summaries`, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nbcompare._transformer.device_density import HALF_LOG_TWO_PI, growth
from nbcompare._transformer.device_laplace import begin, climb
from nbcompare._transformer.device_tests import Tests, Totals
from nbcompare._transformer.summaries import FAR, N_ARM, N_EVEN, N_SUMMARIES, NEAR
from nbcompare._transformer.training_range import MOST_REPLICATES

N_DISPERSIONS = (
    10  # places whose dispersions differ, the first of all: the mode, along alpha, the mode without change, along alpha
)
NULL = 5  # the mode without change


@dataclass(frozen=True)
class Places:
    """Where the log posterior is looked at: after the ten dispersions along centre, along beta, and along centre without change, four each."""

    alpha: Tensor  # (22, n)
    centre: Tensor
    beta: Tensor


@dataclass(frozen=True)
class Looks:
    """What is seen there."""

    value: Tensor  # (22, n) log posterior but for what depends on the dispersion alone
    growth: Tensor  # (10, n) that
    information: Tensor  # (2, 10, n) expected, of each arm on its log rate


def find_anchors(tests: Tests, totals: Totals) -> Tensor:
    """Modes and factors as of `summaries`, (15, n); the last row, the log Bayes factor, is yet to be filled."""
    changed = climb(tests, begin(tests, totals), equal=False)
    return torch.cat([changed, climb(tests, changed[:3], equal=True), torch.zeros_like(changed[:1])])


def summarise(tests: Tests, totals: Totals) -> tuple[Tensor, Tensor]:
    """Anchors (15, n), of the exposures as they were given, and summaries (55, n)."""
    anchors = find_anchors(tests, totals)
    steps = torch.tensor([[-FAR], [-NEAR], [NEAR], [FAR]], dtype=anchors.dtype, device=anchors.device)
    seen = look(tests, totals, lay_places(anchors, steps))
    sigma = tests.prior[6]
    changed = seen.value[0] + seen.growth[0] + torch.log(anchors[3] * anchors[5] * anchors[8] / sigma)
    anchors[14] = seen.value[NULL] + seen.growth[NULL] + torch.log(anchors[11] * anchors[13]) - changed
    summaries = torch.empty((N_SUMMARIES, anchors.shape[1]), dtype=anchors.dtype, device=anchors.device)
    of_the_anchors(tests, anchors, summaries)
    of_the_arms(totals, tests.prior, anchors, seen, summaries)
    of_the_departures(tests.prior, seen, steps, summaries)
    anchors[1] -= totals.shift
    anchors[10] -= totals.shift
    return anchors, summaries


def lay_places(anchors: Tensor, steps: Tensor) -> Places:
    """The mode and, `steps` standard deviations from it, four places along each axis; the same without change."""
    alpha, c, b, la, lca, lc, lba, lbc, lb, alpha0, c0, la0, lca0, lc0, _ = anchors[:, None]
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
    return Places(*(torch.cat(axis) for axis in zip(*rows, strict=True)))


def look(tests: Tests, totals: Totals, places: Places) -> Looks:
    """The log posterior at the places: one round a replicate, all places in each."""
    log_mean, log_mean_sd, location, spread, shape, rate, scale = tests.prior
    etas = places.centre - 0.5 * places.beta, places.centre + 0.5 * places.beta
    value = totals.counts[0] * etas[0] + totals.counts[1] * etas[1]
    value -= 0.5 * ((places.centre - log_mean) / log_mean_sd) ** 2 + 0.5 * (places.beta / scale) ** 2
    k = torch.exp(-places.alpha)
    alpha, few = places.alpha[:N_DISPERSIONS], k[:N_DISPERSIONS]
    information = []
    for eta, counts, exposure in zip(etas, tests.arms(tests.counts), tests.arms(tests.exposure), strict=True):
        noise = torch.exp(places.alpha + eta)
        seen = torch.zeros_like(few)
        for y, l in zip(counts, exposure, strict=True):
            z = noise * l
            value.addcmul_(y + k, torch.log1p(z), value=-1.0)
            seen += z[:N_DISPERSIONS] / (1.0 + z[:N_DISPERSIONS])
        information.append(seen * few)
    of_dispersion = torch.where(
        shape > 0.0,
        shape * (torch.log(rate) - alpha) - rate * few - torch.lgamma(shape),
        -0.5 * ((alpha - location) / spread) ** 2 - torch.log(spread) - HALF_LOG_TWO_PI,
    )
    some_large = (tests.large > 0).any(1).tolist()
    of_dispersion += growth(tests.counts, tests.large, some_large, tests.beyond, 1.0 / few, few)
    return Looks(value, of_dispersion, torch.stack(information))


def of_the_anchors(tests: Tests, anchors: Tensor, out: Tensor) -> None:
    """The prior, and the anchors in its units."""
    log_mean, tau, location, spread, shape, _, sigma = tests.prior
    alpha, c, b, la, lca, lc, lba, lbc, lb, alpha0, c0, la0, lca0, lc0, log_factor = anchors
    row = torch.sqrt(lba * lba + lbc * lbc + lb * lb)
    even = [
        torch.log(tau),
        torch.log(sigma),
        torch.log(spread),
        (shape > 0.0).to(alpha.dtype),
        location,
        ((c - log_mean) / tau).clamp(-6.0, 6.0),
        ((alpha - location) / spread).clamp(-6.0, 6.0),
        torch.log(la / spread),
        torch.log(lc / tau),
        torch.log(lb / sigma),
        lca / torch.hypot(lca, lc),
    ]
    out[: len(even)] = torch.stack(even)
    null = [
        torch.asinh(log_factor),
        torch.log(la0 / spread),
        torch.log(lc0 / tau),
        lca0 / torch.hypot(lca0, lc0),
        torch.asinh((alpha0 - alpha) / la),
        torch.asinh((c0 - c) / lc),
    ]
    out[19:25] = torch.stack(null)
    out[N_EVEN + 2 * N_ARM :] = torch.stack([b / sigma, lba / row, lbc / row, torch.asinh(b / lb)])


def of_the_arms(totals: Totals, prior: Tensor, anchors: Tensor, seen: Looks, out: Tensor) -> None:
    """What each arm holds."""
    variance = prior[1] * prior[1] + 0.25 * prior[6] * prior[6]
    for arm, sign in ((0, -0.5), (1, 0.5)):
        first = N_EVEN + arm * N_ARM
        number, information = totals.number[arm], seen.information[arm]
        noise = anchors[0] + anchors[1] + sign * anchors[2] + torch.log(totals.exposure[arm] / number)
        out[first] = torch.log(number.clamp(max=MOST_REPLICATES))
        out[first + 1] = torch.log1p(totals.counts[arm])
        out[first + 2] = torch.log1p(information[0] * variance)
        out[first + 3] = noise.clamp(-8.0, 8.0)
        out[first + 6] = torch.log(information[1] / information[0])
        out[first + 7] = torch.log(information[4] / information[0])
        out[first + 8] = totals.zeros[arm] / number


def of_the_departures(prior: Tensor, seen: Looks, steps: Tensor, out: Tensor) -> None:
    """How far the log posterior departs from a Gaussian along its axes, centre and beta integrated out along alpha."""
    value, growth = seen.value, seen.growth
    mode, null = value[0], value[NULL]
    out[11:15] = departure(mode - value[10:14], steps)
    along_beta = departure(mode - value[14:18], steps)
    out[N_EVEN + 5], out[N_EVEN + 4] = along_beta[0], along_beta[1]
    out[N_EVEN + N_ARM + 4], out[N_EVEN + N_ARM + 5] = along_beta[2], along_beta[3]
    out[25:29] = departure(null - value[18:22], steps)
    both = value[:N_DISPERSIONS] + growth
    first, second = seen.information
    p = first + second + 1.0 / prior[1] ** 2
    q = 0.5 * (second - first)
    volumes = 0.5 * torch.log(p * (0.25 * (first + second) + 1.0 / prior[6] ** 2) - q * q)
    out[15:19] = departure(both[0] - both[1:NULL] + volumes[1:NULL] - volumes[0], steps)
    out[29:33] = departure(both[NULL] - both[NULL + 1 :] + 0.5 * torch.log(p[NULL + 1 :] / p[NULL]), steps)


def departure(fall: Tensor, steps: Tensor) -> Tensor:
    """log(sqrt(2 D) / |k|), bounded."""
    return (0.5 * torch.log(2.0 * fall.clamp(min=0.0) / (steps * steps) + 1e-3)).clamp(-3.0, 4.0)
