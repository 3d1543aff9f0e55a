"""A posterior as mixtures of Gaussians, one where nothing changes and one where something does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np


class Components(NamedTuple):
    """Components of mixtures, a row for each test, or of one test. Without a change the axes are centre and log dispersion."""

    weight: np.ndarray  # (n, K)
    mean: np.ndarray  # (n, K, axes) of centre, log fold change and log dispersion
    cholesky: np.ndarray  # (n, K, axes, axes)


class MixtureArrays(NamedTuple):
    """Mixtures as the kernels take them."""

    null_probability: np.ndarray  # (n,)
    null: Components
    change: Components

    def take(self, part: slice) -> MixtureArrays:
        """The mixtures of these tests."""
        null, change = (Components(*(array[part] for array in one)) for one in (self.null, self.change))
        return MixtureArrays(self.null_probability[part], null, change)


@dataclass(frozen=True)
class Mixture:
    """What the network says of n tests, and the proposal of the refinement. Natural logarithms.

    `cholesky` is the lower Cholesky factor of a component's covariance. Weights of a test add up to one.
    """

    null_probability: np.ndarray  # (n,) P(log fold change = 0 | counts)
    null_weight: np.ndarray  # (n, K0)
    null_mean: np.ndarray  # (n, K0, 2) of centre and log dispersion, given no change
    null_cholesky: np.ndarray  # (n, K0, 2, 2)
    weight: np.ndarray  # (n, K)
    mean: np.ndarray  # (n, K, 3) of centre, log fold change and log dispersion, given a change
    cholesky: np.ndarray  # (n, K, 3, 3)

    def __len__(self) -> int:
        return len(self.null_probability)

    @classmethod
    def joined(cls, parts: Sequence[Mixture]) -> Mixture:
        """The mixtures of several runs of tests, one after the other."""
        return cls(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )

    def take(self, tests: np.ndarray) -> Mixture:
        """The mixtures of these tests."""
        return Mixture(**{field.name: getattr(self, field.name)[tests] for field in fields(self)})

    def arrays(self) -> MixtureArrays:
        """The same as contiguous float64, for the kernels."""
        plain = {
            field.name: np.ascontiguousarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)
        }
        null = Components(plain["null_weight"], plain["null_mean"], plain["null_cholesky"])
        return MixtureArrays(
            plain["null_probability"], null, Components(plain["weight"], plain["mean"], plain["cholesky"])
        )
