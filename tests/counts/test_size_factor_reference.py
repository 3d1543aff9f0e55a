from __future__ import annotations

import numpy as np
import pytest

from nbcompare._counts.size_factor_reference import DepthReference, depth_factors, fit_depths
from nbcompare._counts.size_factors import size_factors


def _counts(mean: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    genes, depth = np.exp(rng.normal(np.log(mean), 1, 400)), np.exp(rng.normal(0, 0.5, 30))
    counts = rng.poisson(genes * depth[:, None]).astype(float)
    return counts[:, counts.sum(axis=0) > 0]


@pytest.mark.parametrize(("mean", "used"), [(50, "median_of_ratios"), (0.1, "pooled_ratios")])
def test_samples_of_the_reference_get_the_factors_of_the_whole(mean, used):
    counts = _counts(mean)
    factors, reference = fit_depths(counts)
    assert reference.method == used
    np.testing.assert_allclose(factors, size_factors(counts)[0], rtol=1e-12)
    again = DepthReference.from_arrays(reference.to_arrays())
    np.testing.assert_allclose(depth_factors(again, counts)[0], factors, rtol=1e-9)


@pytest.mark.parametrize("method", ["total", "median_of_ratios", "pooled_ratios", "poscounts"])
def test_a_further_sample_is_on_the_same_scale_whatever_its_company(method):
    counts = _counts(50)
    _, reference = fit_depths(counts[:20], method)
    together = depth_factors(reference, counts[20:])[0]
    alone = np.concatenate([depth_factors(reference, counts[i : i + 1])[0] for i in range(20, 30)])
    np.testing.assert_array_equal(together, alone)
    whole = size_factors(counts, method)[0]
    np.testing.assert_allclose(together / whole[20:], np.full(10, (together / whole[20:]).mean()), rtol=0.06)


def test_what_a_reference_cannot_do_is_refused():
    with pytest.raises(ValueError, match="tmm"):
        fit_depths(_counts(50), "tmm")
    with pytest.raises(ValueError, match="tmmwsp"):
        fit_depths(_counts(50), "tmmwsp")
    with pytest.raises(ValueError, match="no counts"):
        fit_depths(np.vstack([_counts(50), np.zeros_like(_counts(50)[:1])]))


@pytest.mark.parametrize("method", ["total", "median_of_ratios", "pooled_ratios", "poscounts"])
def test_a_further_sample_without_counts_has_no_depth(method):
    _, reference = fit_depths(_counts(50), method)
    factors, unknown = depth_factors(reference, np.zeros((2, reference.genes.size)))
    assert np.isnan(factors).all()
    assert unknown.all()


def test_groups_are_measured_alone():
    """Groups of the fit, in any order and in threads, and rows of a larger table, get the same pooled ratios."""
    counts = _counts(0.5)
    groups = np.repeat(np.arange(10), 3)
    factors, reference = fit_depths(counts, "pooled_ratios", groups)
    np.testing.assert_allclose(factors, size_factors(counts, "pooled_ratios", groups)[0], rtol=1e-12)
    rows = np.r_[12:15, 3:6]
    some = depth_factors(reference, counts, groups[rows], rows=rows, n_threads=2)[0]
    np.testing.assert_array_equal(some, factors[rows])
