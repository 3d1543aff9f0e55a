"""Mixtures of Gaussians on any device: `assemble`, and the summaries of `_nb.mixture_summary`. Tests are the last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nbcompare._nb.posterior.columns import (
    COLUMNS,
    INTERVAL,
    LFSR,
    LOG_DISPERSION,
    LOG_DISPERSION_MEDIAN,
    LOG_DISPERSION_SD,
    LOG_FC,
    LOG_FC_MEDIAN,
    LOG_FC_SD,
    LOG_MEAN,
    LOG_MEAN_MEDIAN,
    LOG_MEAN_SD,
    NULL_PROBABILITY,
)
from nbcompare._nb.posterior.mixture import Mixture

ROOT_HALF, ROOT_TWO_PI = math.sqrt(0.5), math.sqrt(2.0 * math.pi)
MOST_STEPS = 80
MISS = 1e-9  # of a quantile's level


@dataclass(frozen=True)
class Normals:
    """A mixture of normals for each test, (components, n)."""

    weight: Tensor
    mean: Tensor
    sd: Tensor

    def take(self, tests: Tensor) -> Normals:
        """Of these tests."""
        return Normals(self.weight[:, tests], self.mean[:, tests], self.sd[:, tests])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (n,)."""
        mean = (self.weight * self.mean).sum(0)
        return mean, torch.sqrt((self.weight * (self.sd * self.sd + (self.mean - mean) ** 2)).sum(0))

    def distribution(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distribution function and density at x (n,)."""
        z = (x - self.mean) / self.sd
        density = self.weight * torch.exp(-0.5 * z * z) / (ROOT_TWO_PI * self.sd)
        return 0.5 * (self.weight * torch.erfc(-ROOT_HALF * z)).sum(0), density.sum(0)

    def quantile(self, level: Tensor, guess: Tensor) -> Tensor:
        """X at which the distribution function is `level` (n,): Newton's steps kept within a bracket; 0 where the level is negative."""
        result = torch.zeros_like(guess)
        index = torch.nonzero(level >= 0.0)[:, 0]
        own, level = self.take(index), level[index]
        there = own.weight > 0.0
        low = torch.where(there, own.mean - 9.0 * own.sd, 1e300).amin(0)
        high = torch.where(there, own.mean + 9.0 * own.sd, -1e300).amax(0)
        level = level * own.weight.sum(0)
        x = torch.minimum(torch.maximum(guess[index], low), high)
        converged = torch.zeros_like(x, dtype=torch.bool)
        for _ in range(MOST_STEPS):
            reached, slope = own.distribution(x)
            miss = reached - level
            converged = converged | (miss.abs() < MISS)
            n_active = int((~converged).sum())
            if n_active == 0:
                break
            high, low = torch.where(miss > 0.0, x, high), torch.where(miss > 0.0, low, x)
            following = torch.where(slope > 0.0, x - miss / slope, low)
            following = torch.where((low < following) & (following < high), following, 0.5 * (low + high))
            x = torch.where(converged, x, following)
            if 2 * n_active <= len(x):
                result[index] = x
                keep = torch.nonzero(~converged)[:, 0]
                own, index, converged = own.take(keep), index[keep], converged[keep]
                x, low, high, level = x[keep], low[keep], high[keep], level[keep]
        result[index] = x
        return result


@dataclass(frozen=True)
class DeviceMixture:
    """A `Mixture` with the axes reversed: entries, components, tests."""

    null_probability: Tensor  # (n,)
    null_weight: Tensor  # (K0, n)
    null_mean: Tensor  # (2, K0, n) of centre and log dispersion
    null_cholesky: Tensor  # (3, K0, n) of the factor by rows
    weight: Tensor  # (K, n)
    mean: Tensor  # (3, K, n) of centre, log fold change and log dispersion
    cholesky: Tensor  # (6, K, n)

    def to_host(self) -> Mixture:
        """The same as arrays."""
        arrays = {name: value.cpu().numpy().T for name, value in vars(self).items()}
        for name, axes in (("cholesky", 3), ("null_cholesky", 2)):
            rows, columns = torch.tril_indices(axes, axes)
            full = torch.zeros((*arrays[name].shape[:2], axes, axes), dtype=torch.float64).numpy()
            full[:, :, rows, columns] = arrays[name]
            arrays[name] = full
        return Mixture(**arrays)

    def change(self) -> Normals:
        """Of the log fold change, given a change."""
        return Normals(self.weight, self.mean[1], torch.hypot(self.cholesky[1], self.cholesky[2]))

    def log_mean(self) -> Normals:
        """Of the reference's log rate."""
        c00, c10, c11 = self.cholesky[:3]
        sd = torch.hypot(c00 - 0.5 * c10, 0.5 * c11)
        return self._with_null(self.null_mean[0], self.null_cholesky[0].abs(), self.mean[0] - 0.5 * self.mean[1], sd)

    def log_dispersion(self) -> Normals:
        """Of the log dispersion."""
        sd = torch.sqrt((self.cholesky[3:] ** 2).sum(0))
        return self._with_null(
            self.null_mean[1], torch.hypot(self.null_cholesky[1], self.null_cholesky[2]), self.mean[2], sd
        )

    def _with_null(self, null_mean: Tensor, null_sd: Tensor, mean: Tensor, sd: Tensor) -> Normals:
        null = self.null_probability
        weight = torch.cat([null * self.null_weight, (1.0 - null) * self.weight])
        return Normals(weight, torch.cat([null_mean, mean]), torch.cat([null_sd, sd]))


def assemble(laplace: Tensor, log_odds: Tensor, alternative: Tensor, null: Tensor) -> DeviceMixture:
    """The mixtures of tests with these Laplace approximations (15, n) and `log_odds` (n,) of no change; `alternative` (n, K, 10) and `null` (n, K0, 6) as the network gives them."""
    alpha, c, b, a00, a10, a11, a20, a21, a22, alpha0, c0, n00, n10, n11, _ = laplace
    weight, u, v, w, d0, d1, d2, m10, m20, m21 = alternative.to(laplace.dtype).permute(2, 1, 0).contiguous()
    d0, d1, d2 = torch.exp(d0), torch.exp(d1), torch.exp(d2)
    mean = torch.stack([c + a10 * u + a11 * v, b + a20 * u + a21 * v + a22 * w, alpha + a00 * u])
    g00 = a00 * d0  # the factor A M, by rows alpha, centre, beta
    g10, g11 = a10 * d0 + a11 * m10, a11 * d1
    g20, g21, g22 = a20 * d0 + a21 * m10 + a22 * m20, a21 * d1 + a22 * m21, a22 * d2
    s00 = torch.hypot(g10, g11)  # its rows in the order centre, beta, alpha, made triangular
    s10, s20 = (g20 * g10 + g21 * g11) / s00, g00 * g10 / s00
    s11 = torch.sqrt(torch.maximum(g20 * g20 + g21 * g21 + g22 * g22 - s10 * s10, 1e-12 * g22 * g22))
    cholesky = torch.stack([s00, s10, s11, s20, (g00 * g20 - s20 * s10) / s11, g00 * g11 * g22 / (s00 * s11)])
    null_weight, u, v, d0, d1, m10 = null.to(laplace.dtype).permute(2, 1, 0).contiguous()
    null_mean = torch.stack([c0 + n10 * u + n11 * v, alpha0 + n00 * u])
    g00, g10, g11 = n00 * torch.exp(d0), n10 * torch.exp(d0) + n11 * m10, n11 * torch.exp(d1)
    s00 = torch.hypot(g10, g11)
    return DeviceMixture(
        null_probability=torch.sigmoid(log_odds),
        null_weight=null_weight / null_weight.sum(0),
        null_mean=null_mean,
        null_cholesky=torch.stack([s00, g00 * g10 / s00, g00 * g11 / s00]),
        weight=weight / weight.sum(0),
        mean=mean,
        cholesky=cholesky,
    )


def summarise(mixture: DeviceMixture, levels: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 13 columns of `Posterior`, mean and standard deviation of the log fold change given a change, its quantiles, those of log dispersion; rows."""
    null, beta = mixture.null_probability, mixture.change()
    mean, sd = beta.moments()
    below = beta.distribution(torch.zeros_like(null))[0]
    change = 1.0 - null
    rows = null.new_empty((len(COLUMNS), len(null)))
    rows[NULL_PROBABILITY], rows[LFSR] = null, null + change * torch.minimum(below, 1.0 - below)
    rows[LOG_FC] = change * mean
    rows[LOG_FC_SD] = torch.sqrt(change * (sd * sd + null * mean * mean))
    for k, level in enumerate(INTERVAL):
        rows[LOG_FC_MEDIAN + k] = beta.quantile(level_given_change(level, null, below), mean)
    rate, dispersion, half = mixture.log_mean(), mixture.log_dispersion(), torch.full_like(null, 0.5)
    rows[LOG_MEAN], rows[LOG_MEAN_SD] = rate.moments()
    rows[LOG_MEAN_MEDIAN] = rate.quantile(half, rows[LOG_MEAN])
    rows[LOG_DISPERSION], rows[LOG_DISPERSION_SD] = dispersion.moments()
    rows[LOG_DISPERSION_MEDIAN] = dispersion.quantile(half, rows[LOG_DISPERSION])
    none = null.new_empty((0, len(null)))
    requested_levels = [torch.full_like(null, level) for level in levels]
    changes = torch.stack([beta.quantile(level, mean) for level in requested_levels]) if requested_levels else none
    dispersions = (
        torch.stack([dispersion.quantile(level, rows[LOG_DISPERSION]) for level in requested_levels])
        if requested_levels
        else none
    )
    return rows, torch.stack([mean, sd]), changes, dispersions


def level_given_change(level: float, null: Tensor, below: Tensor) -> Tensor:
    """The level, given a change, whose quantile is that of both hypotheses together; -1 where that is the mass at zero."""
    change = 1.0 - null
    above = torch.where(level > change * below + null, (level - null) / change, -1.0)
    return torch.where(level < change * below, level / change, above)
