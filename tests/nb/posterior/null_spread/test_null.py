"""Common shift and null spread from log fold changes with known ones."""

from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.posterior.null_spread.null import NullDistribution, fit_null


def estimates(spread, shift=0.0, n=5000, share=0.1, seed=0):
    rng = np.random.default_rng(seed)
    se, degrees = rng.uniform(0.1, 0.4, n), np.full(n, 8.0)
    changed = np.where(rng.random(n) < share, rng.normal(0, 0.8, n), 0.0)
    return shift + changed + spread * se * rng.standard_t(8, n), se, degrees


@pytest.mark.parametrize("spread", [1.0, 1.3, 1.6])
def test_recovered(spread):
    found = fit_null(*estimates(spread, shift=0.2), cap=2.0)
    assert found.spread == pytest.approx(spread, rel=0.1)
    assert found.shift == pytest.approx(0.2, abs=0.02)


def test_not_above_the_cap():
    assert fit_null(*estimates(2.0), cap=1.2).spread == pytest.approx(1.2)
    assert fit_null(*estimates(2.0), cap=1.0).spread == 1.0


def test_few_genes_have_the_usual_null():
    log_fc, se, degrees = estimates(2.0, shift=1.0, n=250)
    assert fit_null(log_fc[:150], se[:150], degrees[:150], 2.0) == NullDistribution()
    se[:100] = np.nan  # genes that were not tested do not count
    assert fit_null(log_fc, se, degrees, 2.0) == NullDistribution()
