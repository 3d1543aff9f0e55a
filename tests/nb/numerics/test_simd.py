from __future__ import annotations

import numpy as np
from numba import njit
from scipy import stats

from nbcompare._nb.numerics import simd as inline_simd

log, log1p, exp, normal_tail = inline_simd.log, inline_simd.log1p, inline_simd.exp, inline_simd.normal_tail


@njit
def _all(x, out):
    for j in range(x.size):
        out[0, j] = log(x[j])
        out[1, j] = log1p(x[j])
        out[2, j] = exp(-x[j])
        out[3, j] = normal_tail(x[j])


def test_logarithms_exponential_and_tail_against_numpy_and_scipy():
    x = np.concatenate([np.geomspace(1e-12, 37, 20_001), np.linspace(0.9, 1.1, 2001), np.linspace(1, 37, 20_001)])
    out = np.empty((4, x.size))
    _all(x, out)
    np.testing.assert_allclose(out[0], np.log(x), rtol=2e-15, atol=2e-16)
    np.testing.assert_allclose(out[1], np.log1p(x), rtol=1e-15)
    np.testing.assert_allclose(out[2], np.exp(-x), rtol=1e-14)
    np.testing.assert_allclose(out[3], stats.norm.sf(x), rtol=1e-12)


def test_log1p_below_zero_and_log_of_extremes():
    x = -np.geomspace(1e-14, 0.999, 5001)
    out = np.empty((4, x.size))
    _all(x, out)
    np.testing.assert_allclose(out[1], np.log1p(x), rtol=3e-15)
    large = np.geomspace(1e-300, 1e300, 1001)
    out = np.empty((4, large.size))
    _all(np.minimum(large, 1e300), out)
    np.testing.assert_allclose(out[0], np.log(large), rtol=1e-14)
