"""Multiple testing of a screen against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import combine_pvalues, false_discovery_control, norm

from nbcompare._nb.inference.screen_fdr import TAIL, PooledPValues, adjust_rows, count_hits, select_rows

P_VALUES = st.one_of(
    st.just(np.nan),
    st.sampled_from([0.0, 1.0, 0.05, TAIL, 5e-324, 1e-300]),
    st.floats(0, 1),
    st.floats(1 - 1e-8, 1),  # agree in all but the last bits
)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    adjusted = np.full(p.shape, np.nan)
    adjusted[~np.isnan(p)] = false_discovery_control(p[~np.isnan(p)]) if (~np.isnan(p)).any() else 0
    return adjusted


def screen(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """P-values of which a tenth are small, some are not there, and some are 1."""
    z = rng.normal(0, np.where(rng.random(shape) < 0.1, 6, 1))
    p = np.minimum(2 * norm.sf(np.abs(z)), 1)
    p[rng.random(shape) < 0.1] = np.nan
    p[rng.random(shape) < 0.05] = 1.0
    return p


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=P_VALUES))
def test_within_rows_is_scipys(p: np.ndarray) -> None:
    np.testing.assert_array_equal(adjust_rows(p), np.stack([benjamini_hochberg(row) for row in p]))


def test_within_long_rows_is_scipys() -> None:
    p = screen(np.random.default_rng(0), (20, 5000))
    p[0] = np.nan
    p[1] = 10.0 ** -np.linspace(0, 300, p.shape[1])
    p[2] = 1 - np.arange(p.shape[1])[::-1] * 2.0**-52
    np.testing.assert_array_equal(adjust_rows(p), np.stack([benjamini_hochberg(row) for row in p]))
    np.testing.assert_array_equal(adjust_rows(p[:, ::2]), adjust_rows(p[:, ::2].copy()))


def test_simes_by_hand() -> None:
    p = screen(np.random.default_rng(1), (50, 200))
    p[3] = np.nan
    expected = [
        min(
            (np.sort(row[~np.isnan(row)]) * (~np.isnan(row)).sum() / np.arange(1, (~np.isnan(row)).sum() + 1)),
            default=np.nan,
        )
        for row in p
    ]
    np.testing.assert_allclose(count_hits(adjust_rows(p), 0.05).overall, expected, rtol=1e-14)
    assert count_hits(np.array([[0.3]]), 0.05).overall[0] == combine_pvalues([0.3], method="tippett").pvalue


def test_hits_are_counted() -> None:
    adjusted = adjust_rows(screen(np.random.default_rng(4), (30, 100)))
    adjusted[7] = np.nan
    hits = count_hits(adjusted, 0.05)
    np.testing.assert_array_equal(hits.n_tested, (~np.isnan(adjusted)).sum(axis=1))
    np.testing.assert_array_equal(hits.n_hits, (adjusted <= 0.05).sum(axis=1))
    np.testing.assert_array_equal(hits.rows_of_gene, (adjusted <= 0.05).sum(axis=0))
    assert np.isnan(hits.overall[7])


def test_selected_rows_by_hand() -> None:
    p = np.array([1e-4, 0.02, 0.03, 0.2, np.nan, 0.9])
    selection = select_rows(p, 0.05)
    np.testing.assert_array_equal(selection.selected, [True, True, True, False, False, False])
    np.testing.assert_allclose(selection.adjusted[:3], [5e-4, 0.05, 0.05])
    assert selection.level_within == pytest.approx(0.05 * 3 / 5)
    assert select_rows(np.array([np.nan]), 0.05).level_within == 0


def test_average_false_discoveries_of_selected_rows() -> None:
    rng = np.random.default_rng(2)
    proportions = []
    for _ in range(400):
        shared = rng.normal(size=(40, 1))  # genes of a row lean together
        effect = np.zeros((40, 100))
        effect[:8, :5] = 4
        z = np.sqrt(0.7) * rng.normal(size=effect.shape) + np.sqrt(0.3) * shared + effect
        adjusted = adjust_rows(norm.sf(z))
        selection = select_rows(count_hits(adjusted, 0.1).overall, 0.1)
        hits = adjusted[selection.selected] <= selection.level_within
        false = (hits & (effect[selection.selected] == 0)).sum(axis=1)
        proportions.append((false / np.maximum(hits.sum(axis=1), 1)).mean() if len(hits) else 0.0)
    assert np.mean(proportions) < 0.1


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(float, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=P_VALUES))
def test_pooled_is_never_below_the_exact_and_hardly_above(p: np.ndarray) -> None:
    pool = PooledPValues()
    for row in p:
        pool.add(row)
    adjusted, exact = pool.adjustment().adjust(p), benjamini_hochberg(p.ravel()).reshape(p.shape)
    np.testing.assert_array_equal(np.isnan(adjusted), np.isnan(exact))
    tested = ~np.isnan(exact)
    assert (adjusted[tested] >= exact[tested]).all()
    np.testing.assert_allclose(adjusted[tested], exact[tested], rtol=2e-5, atol=0)


@pytest.mark.parametrize("n_ranges", [1, 7])
def test_pooled_over_a_screen(n_ranges: int) -> None:
    p = screen(np.random.default_rng(3), (40, 5000))
    pool = PooledPValues()
    for chunk in np.array_split(p, n_ranges)[::-1]:
        pool.add(chunk)
    adjustment = pool.adjustment()
    adjusted, exact = adjustment.adjust(p), benjamini_hochberg(p.ravel()).reshape(p.shape)
    np.testing.assert_array_equal(adjusted[p < TAIL], exact[p < TAIL])
    tested = ~np.isnan(p)
    np.testing.assert_allclose(adjusted[tested], exact[tested], rtol=2e-5)
    np.testing.assert_array_equal(adjusted <= 0.05, exact <= 0.05)
    np.testing.assert_array_equal(adjustment.adjust(p[5]), adjusted[5])


def test_pooled_without_tests() -> None:
    pool = PooledPValues()
    assert np.isnan(pool.adjustment().adjust(np.full((2, 3), np.nan))).all()
