from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import Prior
from nbcompare._transformer.posterior import posterior_of
from nbcompare._transformer.training.simulate import Simulated, simulate
from nbcompare._transformer.training_range import Ranges


@pytest.fixture(scope="session")
def drawn() -> Simulated:
    """Simulated from the whole training distribution, of a seed that training has not seen."""
    return simulate(np.random.default_rng([2026, 11]), 400, Ranges())


def posterior(tests: Simulated, **options) -> Mixture:
    """Of drawn tests."""
    two_groups = (tests.counts1, tests.exposure1, tests.counts2, tests.exposure2)
    return posterior_of(*two_groups, Prior(*tests.prior.T), device="cpu", **options)


def exchanged(tests: Simulated) -> Simulated:
    """With the arms exchanged."""
    return replace(
        tests,
        counts1=tests.counts2,
        exposure1=tests.exposure2,
        counts2=tests.counts1,
        exposure2=tests.exposure1,
        truth=tests.truth * [1, 1, -1],
    )


def assert_same(found: Mixture, expected: Mixture, tolerance: float) -> None:
    """Weights, means in standard deviations, and factors relative to the standard deviations."""
    for name in ("null_probability", "weight", "null_weight"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=tolerance, err_msg=name)
    for mean, scale in (("mean", "cholesky"), ("null_mean", "null_cholesky")):
        sd = np.sqrt((getattr(expected, scale) ** 2).sum(axis=-1))
        assert np.max(np.abs(getattr(found, mean) - getattr(expected, mean)) / sd) < tolerance
        assert np.max(np.abs(getattr(found, scale) - getattr(expected, scale)) / sd[..., None]) < tolerance
