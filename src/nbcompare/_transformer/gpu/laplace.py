"""The Laplace approximations of `laplace`, on any device: Newton's method maximizes the log posteriors of all tests of a batch at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nbcompare._transformer.cpu.laplace import (
    HIGHEST_ALPHA,
    LOWEST_ALPHA,
    MAX_STEPS,
    PATIENCE,
    TOLERANCE,
    continue_maximizing,
)
from nbcompare._transformer.gpu.batch import TestBatch, Totals
from nbcompare._transformer.gpu.log_pmf import excess, rising_factorial_slopes
from nbcompare._transformer.layout import L_ALPHA, L_CENTRE, L_CENTRE_ALPHA, MODE_ALPHA, MODE_CENTRE

STRAGGLERS = 256  # tests that are finished on the CPU


def find_start(tests: TestBatch, totals: Totals) -> Tensor:
    """Where to start from, (3, n): weighted rates, and a dispersion by moments, both drawn towards the prior."""
    log_mean, log_mean_sd, location, spread, _, _, scale = tests.prior
    phi = torch.exp(location)
    counts = 1.0 / (log_mean_sd * log_mean_sd + 0.25 * scale * scale)  # the prior is worth so many counts, at its mean
    exposures = counts / torch.exp(log_mean)
    etas, above, below = [], torch.zeros_like(phi), torch.zeros_like(phi)
    for k, (y, l) in enumerate(zip(tests.groups(tests.counts), tests.groups(tests.exposure), strict=True)):
        number, depth = totals.number[k], totals.exposure[k]
        weight = 1.0 / (1.0 + phi * totals.counts[k] / depth * l)
        rate = (weight * y).sum(0) / (weight * l).sum(0)
        etas.append(torch.log((rate * depth + counts) / (depth + exposures)))
        mean = rate * l
        weight = 1.0 / (1.0 + phi * mean)
        several = number > 1
        correction = torch.where(several, number / (number - 1.0), 0.0)
        squares = correction * (((y - mean) * weight) ** 2).sum(0) - (mean * weight * weight).sum(0)
        above = above + torch.where(several, squares, 0.0)
        below = below + torch.where(several, ((mean * weight) ** 2).sum(0), 0.0)
    estimate = torch.maximum(above / below, 1e-3 * phi)
    number = totals.number.sum(0)
    overdispersion = estimate * totals.counts.sum(0) / number
    share = overdispersion / (1.0 + overdispersion)
    weight = 0.5 * (number - 2.0) * share * share
    move = torch.log(estimate / phi) * weight / (weight + 1.0 / (spread * spread))
    alpha = location + torch.where(below > 0.0, move, 0.0)
    kept = scale * scale / (scale * scale + 0.05)
    return torch.stack([alpha, 0.5 * (etas[0] + etas[1]), (etas[1] - etas[0]) * kept])


def maximize(tests: TestBatch, start: Tensor, *, null: bool) -> Tensor:
    """Modes and factors of the covariance, (9, n) in the order of `laplace.maximize`, (5, n) with `null`; `start` (3, n).

    Tests that have converged stay as they are, and leave the batch once they are half of it. The last few go on elsewhere.
    """
    result = start.new_empty((5 if null else 9, start.shape[1]))
    index = torch.arange(start.shape[1], device=start.device)  # of the tests that are not finished
    found = torch.cat(
        [start[:2], start.new_empty((3, len(index)))] if null else [start, start.new_empty((6, len(index)))]
    )
    converged = torch.zeros_like(index, dtype=torch.bool)
    n_active = len(index)
    for number in range(MAX_STEPS):
        if n_active <= STRAGGLERS:
            result[:, index] = found
            keep = torch.nonzero(~converged)[:, 0]
            result[:, index[keep]] = on_host(tests.take(keep), found[:, keep], number, null=null)
            return result
        if 2 * n_active <= len(index):
            result[:, index] = found
            keep = torch.nonzero(~converged)[:, 0]
            tests, found, converged, index = tests.take(keep), found[:, keep], converged[keep], index[keep]
        stepped, near = advance(tests, found, 1.0 if number < PATIENCE else 0.3, null=null)
        found = torch.where(converged, found, stepped)
        converged = converged | near
        n_active = int((~converged).sum())
    result[:, index] = found
    return result


def on_host(tests: TestBatch, found: Tensor, number: int, *, null: bool) -> Tensor:
    """The remaining steps of a few tests on the CPU: to a device, one of them is as long as one of a hundred thousand tests."""
    if found.shape[1] == 0:
        return found
    y1, y2 = (as_columns(group) for group in tests.groups(tests.counts))
    l1, l2 = (as_columns(group) for group in tests.groups(tests.exposure.expand_as(tests.counts)))
    starts = as_columns(torch.cat([found[:2], torch.zeros_like(found[:1])]) if null else found[:3])
    out = np.empty((len(starts), 9))
    continue_maximizing((y1, l1, y2, l2), as_columns(tests.prior), starts, null, number, out)
    without_beta = [MODE_ALPHA, MODE_CENTRE, L_ALPHA, L_CENTRE_ALPHA, L_CENTRE]
    return torch.from_numpy(out[:, without_beta] if null else out).to(found.device).T


def as_columns(rows: Tensor) -> np.ndarray:
    """Rows there as columns here."""
    return rows.T.contiguous().cpu().numpy()


def advance(tests: TestBatch, at: Tensor, reach: float, *, null: bool) -> tuple[Tensor, Tensor]:
    """One of Newton's steps from the mode's coordinates in the first rows of `at`: rows as of `maximize`, and whether it was a small one, (n,) bool."""
    log_mean, log_mean_sd, location, spread, shape, rate, scale = tests.prior
    centre_precision, beta_precision = 1.0 / (log_mean_sd * log_mean_sd), 1.0 / (scale * scale)
    alpha, centre = at[0], at[1]
    beta = torch.zeros_like(alpha) if null else at[2]
    phi, k = torch.exp(alpha), torch.exp(-alpha)
    sums, slope_alpha, curvature_alpha = likelihood_slopes(tests, centre, beta, phi, k, null=null)
    (slope, slope_odd), (seen, seen_odd), (mixed, mixed_odd), expected, falling, fall_slope = sums
    tail = rate * k
    tight = 1.0 / (spread * spread)
    slope_alpha = slope_alpha + torch.where(shape > 0.0, tail - shape, (location - alpha) * tight)
    curvature_alpha = curvature_alpha + torch.where(shape > 0.0, tail, tight)
    slope_c = slope - (centre - log_mean) * centre_precision
    slope_b = slope_odd - beta * beta_precision
    p = seen + centre_precision  # minus the second derivatives: p of centre, q of both, r of beta
    q = seen_odd
    r = 0.25 * seen + beta_precision
    determinant = p * r - q * q
    ab_c = (r * mixed - q * mixed_odd) / determinant  # how far centre and beta move down as alpha moves up
    ab_b = (p * mixed_odd - q * mixed) / determinant
    gain, bend = volume(expected, falling, fall_slope, centre_precision, beta_precision, null=null)
    left = torch.maximum(curvature_alpha - ab_c * mixed - ab_b * mixed_odd - bend, 0.2 * tight)
    step = ((slope_alpha + gain - ab_c * slope_c - ab_b * slope_b) / left).clamp(-1.5 * reach, 1.5 * reach)
    step_c = ((r * slope_c - q * slope_b) / determinant - ab_c * step).clamp(-2.0 * reach, 2.0 * reach)
    step_b = ((p * slope_b - q * slope_c) / determinant - ab_b * step).clamp(-2.0 * reach, 2.0 * reach)
    alpha = (alpha + step).clamp(LOWEST_ALPHA, HIGHEST_ALPHA)
    near = step * step * left + step_c * step_c * p + step_b * step_b * r < TOLERANCE
    spread_alpha = torch.rsqrt(left)
    if null:
        return torch.stack([alpha, centre + step_c, spread_alpha, -ab_c * spread_alpha, torch.rsqrt(p)]), near
    spread_c = torch.rsqrt(p - q * q / r)
    factor = [spread_alpha, -ab_c * spread_alpha, spread_c, -ab_b * spread_alpha, -q / r * spread_c, torch.rsqrt(r)]
    return torch.stack([alpha, centre + step_c, beta + step_b, *factor]), near


def likelihood_slopes(
    tests: TestBatch, centre: Tensor, beta: Tensor, phi: Tensor, k: Tensor, *, null: bool
) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Derivatives of the log likelihood: sums of the groups in the rates, then slope and minus the curvature in alpha.

    The sums, each with half the difference of second and first group: slope and minus the curvature in the log rate, what mixes it with alpha,
    expected information, minus its slope in alpha, and the slope of that. With z = phi m, x = z / (1 + z) and A = log(1 + z) - x, those
    in alpha are k A - y x and k (A - x^2) + y x (1 - x), with the growth of the counts.
    """
    y, phi_y = tests.counts, tests.counts * phi
    if null:
        m = tests.exposure * torch.exp(centre)
    else:
        rates = torch.exp(centre - 0.5 * beta), torch.exp(centre + 0.5 * beta)
        m = torch.cat([l * rate for l, rate in zip(tests.groups(tests.exposure), rates, strict=True)])
    z = phi * m
    f = 1.0 / (1.0 + z)
    x, w = z * f, m * f
    residual = (y - m) * f
    above = excess(z, x)
    yx = y * x
    slope = (k * above - yx).sum(0)
    curvature = (k * (above - x * x) + yx * (1.0 - x)).sum(0)
    rising, rising_curvature = rising_factorial_slopes(y, tests.large, tests.beyond, phi, k)
    falling = x * w
    parts = [residual, w * f * (1.0 + phi_y), residual * x, w, falling, falling * (1.0 - 2.0 * x)]
    return [even_and_odd(tests, part, null=null) for part in parts], slope + rising, curvature + rising_curvature


def even_and_odd(tests: TestBatch, part: Tensor, *, null: bool) -> tuple[Tensor, Tensor]:
    """Sum of the groups' sums, and half their difference; without a change there is none."""
    if null:
        both = part.sum(0)
        return both, torch.zeros_like(both)
    first, second = (rows.sum(0) for rows in tests.groups(part))
    return first + second, 0.5 * (second - first)


def volume(
    expected, falling, fall_slope, centre_precision: Tensor, beta_precision: Tensor, *, null: bool
) -> tuple[Tensor, Tensor]:
    """`laplace.volume`: slope and curvature in alpha of minus half the log determinant of the information on centre and beta."""
    (e, q), (jp, jq), (kp, kq) = expected, falling, fall_slope
    p = e + centre_precision
    if null:
        ratio = jp / p
        return 0.5 * ratio, 0.5 * (kp / p + ratio * ratio)
    r = 0.25 * e + beta_precision
    determinant = p * r - q * q
    a = (r * jp - q * jq) / determinant
    b = (r * jq - 0.25 * q * jp) / determinant
    c = (p * jq - q * jp) / determinant
    d = (0.25 * p * jp - q * jq) / determinant
    bent = (r * kp - 2.0 * q * kq + 0.25 * p * kp) / determinant
    return 0.5 * (a + d), 0.5 * (bent + a * a + 2.0 * b * c + d * d)
