"""r* against the exact conditional distribution, and against the general formulas evaluated by finite differences."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from nbcompare._nb.two_group.rstar import _root_and_correction, modified_root

few = settings(deadline=None, max_examples=50)
DESIGNS = [(2, 2), (3, 3), (10, 10), (3, 10), (4, 100)]


def exact_mid_p(total, n1, n2, phi):
    """P(Y2 > y) + P(Y2 = y)/2 and the same below, given the total, for every y: beta-binomial at equal exposures."""
    y = np.arange(total + 1)
    pmf = (stats.betabinom(total, n2 / phi, n1 / phi) if phi else stats.binom(total, n2 / (n1 + n2))).pmf(y)
    return np.cumsum(pmf[::-1])[::-1] - pmf / 2, np.cumsum(pmf) - pmf / 2


@pytest.mark.parametrize(("total", "decades"), [(10, 0.32), (30, 0.19), (100, 0.13), (1000, 0.07), (20_000, 0.05)])
@pytest.mark.parametrize("phi", [0.0, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("sizes", DESIGNS)
def test_tail_is_the_exact_conditional_mid_p(total, decades, phi, sizes):
    """Decades of p that either tail is off, down to 1e-7 (1e-12 from 1,000 counts on); the tolerances of the method page."""
    n1, n2 = sizes
    if n2 == 100:
        decades = max(decades, 0.2)
    up, down = exact_mid_p(total, n1, n2, phi)
    y2 = np.arange(1, total) if total < 5000 else np.unique(np.linspace(1, total - 1, 2000).astype(int))
    root = np.array([modified_root(total - y, float(y), n1, n2, phi / n1, phi / n2) for y in y2])
    least = 1e-12 if total >= 1000 else 1e-7
    exact = np.concatenate([up[y2], down[y2]])
    tail = np.concatenate([stats.norm.sf(root), stats.norm.cdf(root)])
    seen = (exact > least) & (exact < 0.3)
    assert seen.any()
    assert np.abs(np.log10(tail[seen] / exact[seen])).max() < decades


def log_density(y, m, d):
    """NB log density at a real count; Poisson without dispersion."""
    if d == 0:
        return y * np.log(m) - m - special.gammaln(y + 1)
    k = 1 / d
    return (
        special.gammaln(y + k) - special.gammaln(k) - special.gammaln(y + 1)
        - k * np.log1p(d * m) + y * (np.log(d * m) - np.log1p(d * m))
    )  # fmt: skip


def general_root(y, E, d):
    """Signed root and Fraser and Reid's Q of the log rate ratio, without any closed form.

    The null rate by numerical maximisation. In an exponential family of canonical parameters t,
    Q = (chi(hat) - chi(null)) (|j(hat)| / (j_nuisance |dt/dnuisance|^-2))^(1/2) with chi(t) = grad psi(null) . t / |grad psi(null)|.
    """
    y, E, d = map(np.asarray, (y, E, d))

    def loss(log_rate):
        return -sum(log_density(*one) for one in zip(y, E * np.exp(log_rate), d, strict=True))

    centre = np.log(y.sum() / E.sum())
    width = abs(np.log(y / E) - centre).max() + 1e-3
    low, high = centre - width, centre + width
    null = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    best = sum(log_density(*one) for one in zip(y, y, d, strict=True))
    m_null = E * np.exp(null)
    r = np.sign(y[1] - m_null[1]) * np.sqrt(2 * max(best + loss(null), 0.0))

    def canonical(m):
        return np.log(m) - np.log1p(d * m)

    def slope(f, x, h):
        return (f(x + h) - f(x - h)) / (2 * h)

    t_hat, t_null = canonical(y), canonical(m_null)
    # psi = log(m2 / E2) - log(m1 / E1), so d psi / d t_g = +- (1/m) dm/dt
    by_t = np.array([-1, 1]) / slope(lambda u: canonical(m_null * np.exp(u)), 0.0, 1e-5)
    chi = by_t @ (t_hat - t_null) / np.linalg.norm(by_t)
    # information about t at the estimate: minus the second derivative of the log density, which is 1 / (dt/dm)
    information = np.prod(y / slope(lambda u: canonical(y * np.exp(u)), 0.0, 1e-5))
    h = 1e-3
    nuisance = (loss(null + h) - 2 * loss(null) + loss(null - h)) / h**2
    by_rate = slope(lambda u: canonical(E * np.exp(u)), null, 1e-5)
    return r, chi * np.sqrt(information / (nuisance / (by_rate @ by_rate)))


@few
@given(
    st.tuples(st.floats(0.7, 300), st.floats(0.7, 300)),
    st.tuples(st.floats(0.3, 30), st.floats(0.3, 30)),
    st.tuples(st.sampled_from([0.0, 0.01, 0.2, 1.5]), st.sampled_from([0.01, 0.2, 1.5])),
)
def test_matches_the_general_formulas(y, E, d):
    r, q = general_root(y, E, d)
    if abs(r) < 0.05:
        return  # the correction log(Q/r)/r amplifies the error of the finite differences
    root = modified_root(*y, *E, *d)
    assert root == pytest.approx(r + np.log(q / r) / r, rel=1e-3, abs=1e-3)


@few
@given(
    st.tuples(st.floats(1, 300), st.floats(1, 300)),
    st.tuples(st.floats(0.3, 30), st.floats(0.3, 30)),
    st.tuples(st.sampled_from([0.0, 0.01, 0.2, 1.5]), st.sampled_from([0.01, 0.2, 1.5])),
)
def test_root_is_that_of_the_likelihood_ratio(y, E, d):
    """The null rate where the derivative of scipy's likelihood is zero, the ratio from log densities."""
    y, E, d = map(np.array, (y, E, d))

    def score(log_rate):
        m = E * np.exp(log_rate)
        return ((y - m) / (1 + d * m)).sum()

    rates = np.log(y / E)
    null = optimize.brentq(score, rates.min() - 1e-3, rates.max() + 1e-3, xtol=1e-15, rtol=1e-15)
    m = E * np.exp(null)
    ratio = 2 * sum(log_density(a, a, c) - log_density(a, b, c) for a, b, c in zip(y, m, d, strict=True))
    r, _ = _root_and_correction(*y, *m, *d, *(1 + d * m))
    assert r**2 == pytest.approx(ratio, abs=1e-8)
    assert np.sign(r) == np.sign(y[1] - m[1]) or abs(r) < 1e-6


@few
@given(
    st.tuples(st.floats(0.7, 1e4), st.floats(0.7, 1e4)),
    st.tuples(st.floats(0.3, 30), st.floats(0.3, 30)),
    st.tuples(st.floats(0, 2), st.floats(0, 2)),
    st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_swapping_and_the_unit_of_exposure(y, E, d, unit):
    root = modified_root(*y, *E, *d)
    assert modified_root(*y[::-1], *E[::-1], *d[::-1]) == pytest.approx(-root, rel=1e-6, abs=1e-6)
    assert modified_root(*y, E[0] * unit, E[1] * unit, *d) == pytest.approx(root, rel=1e-6, abs=1e-6)


def exact_root(y, E, d):
    """The closed form with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        y, E, d = ([Decimal(float(v)) for v in values] for values in (y, E, d))
        total = y[0] + y[1]
        a = E[0] * d[1] * E[1] + E[1] * d[0] * E[0]
        b = y[0] * d[1] * E[1] + y[1] * d[0] * E[0] - E[0] - E[1]
        rate = (b + (b * b + 4 * a * total).sqrt()) / (2 * a) if a else total / (E[0] + E[1])
        m = [e * rate for e in E]
        la = [(v / w).ln() for v, w in zip(y, m, strict=True)]
        lc = [((1 + k * v) / (1 + k * w)).ln() for v, w, k in zip(y, m, d, strict=True)]
        half = sum(v * (p - q) - (q / k if k else v - w) for v, w, k, p, q in zip(y, m, d, la, lc, strict=True))
        r = (2 * half).sqrt() * (1 if y[1] > m[1] else -1)
        f, e = [1 + k * w for k, w in zip(d, m, strict=True)], [1 + k * v for k, v in zip(d, y, strict=True)]
        information = sum(w * p / (q * q) for w, p, q in zip(m, e, f, strict=True))
        q = ((la[1] - lc[1]) / f[0] - (la[0] - lc[0]) / f[1]) * (y[0] * e[0] * y[1] * e[1] / information).sqrt()
        return float(r + (q / r).ln() / r)


@pytest.mark.parametrize("count", [3.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("d", [0.0, 1e-4, 0.03, 1.0])
@pytest.mark.parametrize("sizes", [(1.0, 1.0), (3.0, 40.0)])
def test_keeps_its_digits_at_huge_counts_and_near_the_null(count, d, sizes):
    """Sixty digits against sixteen, from a ten-thousandth of a standard error on: r* to .0002."""
    spread = np.sqrt(1 / count + d)
    for standard_errors in (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 1.0, 5.0):
        y = count * sizes[0], count * sizes[1] * np.exp(standard_errors * spread)
        assert modified_root(*y, *sizes, d, d) == pytest.approx(exact_root(y, sizes, (d, d)), abs=2e-4)


def test_passes_the_null_smoothly():
    """The correction has a limit where r is 0, so r* rises evenly through it."""
    y2 = 40 + np.linspace(-1, 1, 2001)
    root = np.array([modified_root(3.0, y, 3.0, 40.0, 0.1, 0.01) for y in y2])
    steps = np.diff(root)
    assert (steps > 0).all()
    assert steps.max() < 1.2 * steps.min()


def test_equal_groups_at_equal_rates_give_nothing():
    assert modified_root(5.0, 5.0, 1.0, 1.0, 0.1, 0.1) == pytest.approx(0, abs=1e-9)
    assert modified_root(1e9, 1e9, 2.0, 2.0, 0.0, 0.0) == pytest.approx(0, abs=1e-9)
