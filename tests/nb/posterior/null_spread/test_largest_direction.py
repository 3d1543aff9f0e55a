"""The upper limit of the null spread: 1 with independent genes, more where samples share a direction that is no group or block."""

from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.posterior.null_spread.largest_direction import WIDEST, largest_direction


def limit(hidden, n=5, block=None, n_genes=3000, mean=100.0, seed=0, of_reference=0.05):
    """The limit of counts to whose log rates each gene's loading times `hidden`, (2 n,), is added."""
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(0, 0.3, 2 * n)
    rates = mean * depth * np.exp(rng.normal(0, 1, (n_genes, 1)) * np.asarray(hidden))
    phi = np.repeat([of_reference, 0.05], n)
    counts = rng.poisson(rates * rng.gamma(1 / phi, phi, rates.shape)).astype(float)
    dispersions = np.full(n_genes, of_reference), np.full(n_genes, 0.05)
    return largest_direction((counts[:, :n], depth[:n], counts[:, n:], depth[n:]), dispersions, block)


def test_independent_genes():
    assert 1.0 <= limit(np.zeros(10)) < 1.1


def test_a_group_with_a_larger_dispersion_is_no_hidden_difference():
    assert limit(np.zeros(10), of_reference=0.25) < 1.1


def test_a_hidden_difference():
    batch = 0.3 * np.tile([1.0, -1.0], 5)
    assert limit(batch) > 1.4
    assert limit(10 * batch) <= WIDEST


def test_groups_and_blocks_are_no_hidden_difference():
    assert limit(0.5 * np.repeat([1.0, -1.0], 5)) < 1.1
    block = np.tile([0, 1], 5)
    assert limit(0.3 * np.where(block == 1, 1.0, -1.0), block=block) < 1.1


@pytest.mark.parametrize("case", [{"n": 1}, {"n_genes": 150}, {"n": 2, "block": np.array([0, 1, 0, 1])}])
def test_too_little_to_know(case):
    assert limit(np.zeros(2 * case.get("n", 5)), **case) == 1.0
