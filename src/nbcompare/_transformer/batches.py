"""From simulated tests to what the network learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nbcompare._transformer.simulate import Simulated, simulate
from nbcompare._transformer.summaries import summarise
from nbcompare._transformer.training_range import Ranges


@dataclass(frozen=True)
class Anchored:
    """Simulated tests with their summaries, and what is true in units of the anchors."""

    tests: Simulated
    anchors: np.ndarray  # (n, 15)
    summaries: np.ndarray  # (n, 55) float32
    changed: np.ndarray  # (n, 3) float32: alpha, centre, beta from the anchors where beta is not 0
    equal: np.ndarray  # (n, 2) float32: alpha, centre from the anchors where it is


def anchored(rng: np.random.Generator, n_tests: int, ranges: Ranges) -> Anchored:
    """Fresh tests, anchored."""
    tests = simulate(rng, n_tests, ranges)
    found = summarise(tests.counts1, tests.exposure1, tests.counts2, tests.exposure2, tests.prior)
    return Anchored(tests, found.anchors, found.summaries, *in_units(tests.truth, found.anchors))


def in_units(truth: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameters (alpha, centre, beta) seen from the anchors, given a change and given none."""
    alpha, centre, beta = truth.T
    a, c, b, aa, ca, cc, ba, bc, bb, a0, c0, aa0, ca0, cc0, _ = anchors.T
    u = (alpha - a) / aa
    v = (centre - c - ca * u) / cc
    w = (beta - b - ba * u - bc * v) / bb
    u0 = (alpha - a0) / aa0
    v0 = (centre - c0 - ca0 * u0) / cc0
    return np.stack([u, v, w], axis=1).astype(np.float32), np.stack([u0, v0], axis=1).astype(np.float32)


def batches(data: Anchored, size: int, *, device: str) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of `size` tests."""
    for start in range(0, len(data.summaries), size):
        rows = slice(start, start + size)
        send = lambda x, rows=rows: torch.as_tensor(np.ascontiguousarray(x[rows])).to(device)
        yield {
            "summaries": send(data.summaries),
            "log_factor": send(data.anchors[:, 14].astype(np.float32)),
            "changed": send(data.changed),
            "equal": send(data.equal),
            "null": send(data.tests.null),
        }
