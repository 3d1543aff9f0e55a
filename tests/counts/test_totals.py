from __future__ import annotations

import numpy as np
import pytest

from nbcompare._counts.totals import totals


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_totals(kind: type) -> None:
    counts = np.random.default_rng(0).poisson(3e4, (7, 600)).astype(kind)
    of_samples, of_genes = totals(counts)
    exact = counts.astype(np.int64)
    np.testing.assert_array_equal(of_samples[:, 0], exact.sum(axis=1))
    np.testing.assert_array_equal(of_samples[:, 1], exact @ (1 + np.arange(600) % 251))
    np.testing.assert_array_equal(of_genes, exact.sum(axis=0))
