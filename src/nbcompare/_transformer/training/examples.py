"""From simulated tests to what the network learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nbcompare._transformer.cpu.features import compute_features
from nbcompare._transformer.layout import LOG_BAYES_FACTOR
from nbcompare._transformer.training.simulate import Simulated, simulate
from nbcompare._transformer.training_range import Ranges


@dataclass(frozen=True)
class TrainingExamples:
    """Simulated tests with their features, and what is true in units of the Laplace approximations."""

    tests: Simulated
    laplace: np.ndarray  # (n, 15)
    features: np.ndarray  # (n, 55) float32
    alternative: np.ndarray  # (n, 3) float32: alpha, centre, beta relative to the mode where beta is not 0
    null: np.ndarray  # (n, 2) float32: alpha, centre relative to the mode where it is


def training_examples(rng: np.random.Generator, n_tests: int, ranges: Ranges) -> TrainingExamples:
    """Fresh tests with their features."""
    tests = simulate(rng, n_tests, ranges)
    found = compute_features(tests.counts1, tests.exposure1, tests.counts2, tests.exposure2, tests.prior)
    return TrainingExamples(tests, found.laplace, found.features, *in_units(tests.truth, found.laplace))


def in_units(truth: np.ndarray, laplace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (alpha, centre, beta) relative to the Laplace approximations, given a change and given none."""
    alpha, centre, beta = truth.T
    a, c, b, aa, ca, cc, ba, bc, bb, a0, c0, aa0, ca0, cc0, _ = laplace.T
    u = (alpha - a) / aa
    v = (centre - c - ca * u) / cc
    w = (beta - b - ba * u - bc * v) / bb
    u0 = (alpha - a0) / aa0
    v0 = (centre - c0 - ca0 * u0) / cc0
    return np.stack([u, v, w], axis=1).astype(np.float32), np.stack([u0, v0], axis=1).astype(np.float32)


def batches(data: TrainingExamples, size: int, *, device: str) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of `size` tests."""
    for start in range(0, len(data.features), size):
        rows = slice(start, start + size)
        send = lambda x, rows=rows: torch.as_tensor(np.ascontiguousarray(x[rows])).to(device)
        yield {
            "features": send(data.features),
            "log_factor": send(data.laplace[:, LOG_BAYES_FACTOR].astype(np.float32)),
            "alternative": send(data.alternative),
            "null": send(data.null),
            "is_null": send(data.tests.null),
        }
