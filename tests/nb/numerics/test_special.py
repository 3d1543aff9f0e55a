import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from nbcompare._nb.numerics.special import digamma_trigamma, fast_log1p, normal_from_t, normal_tail

few = settings(deadline=None, max_examples=50)


@few
@given(st.floats(0.01, 1e12))
def test_digamma_and_trigamma_match_scipy(x):
    digamma, trigamma = digamma_trigamma(x)
    assert digamma == pytest.approx(special.digamma(x), abs=1e-10, rel=1e-14)
    assert trigamma == pytest.approx(special.polygamma(1, x), abs=1e-10, rel=1e-14)


@few
@given(st.floats(1e-12, 0.01))
def test_near_the_pole_the_error_is_relative(x):
    digamma, trigamma = digamma_trigamma(x)
    assert digamma == pytest.approx(special.digamma(x), rel=1e-13)
    assert trigamma == pytest.approx(special.polygamma(1, x), rel=1e-13)


@few
@given(st.floats(-37, 37))
def test_normal_tail_matches_scipy_far_out(z):
    assert normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-9, abs=0)


@few
@given(st.one_of(st.floats(-0.999, 1e12), st.floats(-1e-6, 1e-6)))
def test_log1p_is_exact_to_a_few_ulp(x):
    assert fast_log1p(x) == pytest.approx(math.log1p(x), rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("df", "error"),
    [(1.0, 0.022), (1.2, 0.012), (1.5, 0.006), (2.0, 0.002), (3.0, 6e-4), (4.0, 4e-4)]
    + [(df, 2e-4) for df in (5.0, 7.0, 10.0, 30.0, 100.0, 1e3, 1e6, 1e9)],
)
def test_t_on_the_normal_scale_keeps_its_tail_probability(df, error):
    """Error in decades of p; where the tail is below 1e-300 scipy has nothing to compare with."""
    t = np.geomspace(1e-3, 1e3, 400)
    z = np.array([normal_from_t(value, df) for value in t])
    exact = stats.t.sf(t, df)
    seen = exact > 1e-300
    decades = (stats.norm.logsf(z[seen]) - np.log(exact[seen])) / math.log(10)
    assert np.abs(decades).max() < error


@pytest.mark.parametrize("df", [2.0, 2.5, 3.7, 8.0, 40.0, 1e9, math.inf])
def test_t_on_the_normal_scale_is_even_increasing_and_zero_at_zero(df):
    t = np.geomspace(1e-6, 1e5, 2000)
    z = np.array([normal_from_t(value, df) for value in t])
    assert np.all(np.diff(z) > 0)
    assert normal_from_t(0.0, df) == 0
    assert normal_from_t(-2.5, df) == normal_from_t(2.5, df)


def test_infinite_df_is_the_normal():
    assert normal_from_t(3.25, math.inf) == 3.25
    assert normal_from_t(3.25, 1e9) == pytest.approx(3.25, abs=1e-7)
