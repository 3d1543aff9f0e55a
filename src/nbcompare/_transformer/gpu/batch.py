"""Tests as the device takes them: one a column, replicates of the first group above those of the second."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nbcompare._nb.posterior.prior import INVERSE_GAMMA, LEAST_LOG_DISPERSION_SD
from nbcompare._transformer.cpu.features import LOG_OF_SD, LOG_SHAPE
from nbcompare._transformer.gpu.log_pmf import SMALL_COUNT


@dataclass(frozen=True)
class TestBatch:
    """What the log posterior of n tests needs. Exposures have the geometric mean 1 in each test."""

    counts: Tensor  # (replicates, n), 0 where absent
    exposure: Tensor  # (replicates, n), or (replicates, 1) for all; 0 = absent
    first: int  # replicates of the first group
    large: Tensor  # (replicates, n) 1.0 for counts above 10
    beyond: Tensor  # (9, n) how many of the other counts are above 1 .. 9
    prior: Tensor  # (7, n) as `maximize` takes it: log mean, its sd, location, spread, shape and rate of alpha, sd of beta; shape 0 for the log-normal

    def take(self, tests: Tensor) -> TestBatch:
        """These tests alone."""
        one_row = self.exposure.shape[1] == 1
        return replace(
            self,
            counts=self.counts[:, tests],
            exposure=self.exposure if one_row else self.exposure[:, tests],
            large=self.large[:, tests],
            beyond=self.beyond[:, tests],
            prior=self.prior[:, tests],
        )

    def groups(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of each group."""
        return values[: self.first], values[self.first :]


@dataclass(frozen=True)
class Totals:
    """Sums of each group, (2, n) or, of exposures that are those of all tests, (2, 1)."""

    number: Tensor  # present replicates
    counts: Tensor
    exposure: Tensor
    zeros: Tensor  # of the present
    shift: Tensor  # (n,) or (1,): mean log exposure of both, that was taken from the exposures


def as_tests(groups: list[Tensor], prior: Tensor) -> tuple[TestBatch, Totals]:
    """Tests from counts and exposures of both groups, (n_replicates, n) or one column of exposures, and the prior's rows (7, n)."""
    exposures = groups[1::2]
    present = [exposure > 0 for exposure in exposures]
    counts = [torch.where(here, y, 0.0) for here, y in zip(present, groups[0::2], strict=True)]
    number = _stack([here.sum(0).to(prior.dtype) for here in present])
    logs = [torch.where(here, torch.log(l), 0.0).sum(0) for here, l in zip(present, exposures, strict=True)]
    shift = (logs[0] + logs[1]) / number.sum(0)
    scaled = [exposure * torch.exp(-shift) for exposure in exposures]
    zeros = [(here & (y <= 0)).sum(0).to(prior.dtype) for here, y in zip(present, counts, strict=True)]
    totals = Totals(
        number, _stack([y.sum(0) for y in counts]), _stack([l.sum(0) for l in scaled]), _stack(zeros), shift
    )
    y = torch.cat(counts)
    width = max(scaled[0].shape[1], scaled[1].shape[1])
    small = torch.where(y > SMALL_COUNT, 0.0, torch.floor(y))
    tests = TestBatch(
        counts=y,
        exposure=torch.cat([l.expand(len(l), width) for l in scaled]),
        first=len(counts[0]),
        large=(y > SMALL_COUNT).to(y.dtype),
        beyond=torch.stack([(small > j).sum(0) for j in range(1, SMALL_COUNT)]).to(y.dtype),
        prior=laplace_prior(prior, shift),
    )
    return tests, totals


def laplace_prior(prior: Tensor, shift: Tensor) -> Tensor:
    """`summaries.laplace_prior` of the prior's rows (7, n), at exposures of geometric mean 1."""
    log_mean, log_mean_sd, location, spread, family, _, sigma = prior
    spread = spread.clamp(min=LEAST_LOG_DISPERSION_SD)
    log_shape = torch.from_numpy(LOG_SHAPE).to(prior.device)
    start, width = float(LOG_OF_SD[0]), float(LOG_OF_SD[1] - LOG_OF_SD[0])
    position = ((torch.log(spread) - start) / width).clamp(0, len(LOG_OF_SD) - 1)
    left = position.floor().clamp(max=len(LOG_OF_SD) - 2)
    index = left.long()
    shape = torch.exp(torch.lerp(log_shape[index], log_shape[index + 1], position - left))
    rate = torch.exp(location + torch.digamma(shape))
    heavy = family == INVERSE_GAMMA
    rows = [log_mean + shift, log_mean_sd, location, spread]
    return torch.stack([*rows, torch.where(heavy, shape, 0.0), torch.where(heavy, rate, 0.0), sigma])


def _stack(groups: list[Tensor]) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*groups))
