"""The dispersion statistic against exact enumeration of what it claims."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nbcompare._nb.dispersion.pearson import (
    MAX_DISPERSION,
    dirichlet_multinomial,
    moment_equation,
    solve_moments,
    sorted_members,
    sum_statistics,
)

few = settings(deadline=None, max_examples=25)


def one_group(n):
    return sorted_members(np.zeros(n, np.intp))


def statistics(counts, phi, exposure=None, group=None):
    """Numerator and weight of each gene, summed over groups, and of each group, summed over genes."""
    counts = np.ascontiguousarray(counts, float)
    exposure = np.ones(counts.shape[1]) if exposure is None else exposure
    members, starts = one_group(counts.shape[1]) if group is None else sorted_members(group)
    by_gene, by_group = np.empty((len(counts), 2)), np.empty((len(starts) - 1, 2))
    sum_statistics(counts, exposure[None, :], members, starts, np.full(len(counts), phi), by_gene, by_group)
    return by_gene, by_group


def moments(counts, exposure=None, group=None):
    counts = np.ascontiguousarray(counts, float)
    exposure = np.ones(counts.shape[1]) if exposure is None else exposure
    members, starts = one_group(counts.shape[1]) if group is None else sorted_members(group)
    out = np.empty((len(counts), 3))
    moment_equation(counts, exposure[None, :], members, starts, 1.0, out)
    return out


def all_tables(n, total):
    """Every way to spread a total over n samples."""
    return np.array([y for y in product(range(total + 1), repeat=n) if sum(y) == total], float)


def probabilities(tables, phi):
    """NB counts of equal means are Dirichlet-multinomial given their total; without dispersion, multinomial."""
    n, total = tables.shape[1], int(tables[0].sum())
    if phi == 0:
        return stats.multinomial(total, np.full(n, 1 / n)).pmf(tables)
    return stats.dirichlet_multinomial(np.full(n, 1 / phi), total).pmf(tables.astype(int))


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("total", [2, 3, 7])
@pytest.mark.parametrize("phi", [0.0, 0.05, 1.0, 8.0])
def test_mean_one_and_the_stated_variance_given_the_total(n, total, phi):
    """S, taken back from numerator d (1 + (S - 1)/kappa) and weight d, has mean 1 and variance v, and d = 2 kappa^2 / v."""
    tables = all_tables(n, total)
    p = probabilities(tables, phi)
    variance, kappa = dirichlet_multinomial(n, float(total), 1 / max(phi, 1e-9))
    numerator, weight = statistics(tables, phi)[0].T
    assert weight == pytest.approx(np.full(len(tables), 2 * kappa**2 / max(variance, 1e-3)), rel=1e-12)
    s = 1 + kappa * (numerator / weight - 1)
    assert p @ s == pytest.approx(1, abs=1e-6)
    assert p @ (s - 1) ** 2 == pytest.approx(variance, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("phi", [0.02, 0.5, 4.0])
def test_kappa_is_how_fast_the_mean_moves_with_the_dispersion(phi):
    """d mean(S) / d log(phi + 1/m), S at a fixed working dispersion, by central differences of the exact mean."""
    n, total = 3, 8
    tables = all_tables(n, total)
    _, kappa = dirichlet_multinomial(n, float(total), 1 / phi)
    numerator, weight = statistics(tables, phi)[0].T
    s = 1 + kappa * (numerator / weight - 1)
    h = 1e-5 * phi
    slope = (probabilities(tables, phi + h) @ s - probabilities(tables, phi - h) @ s) / (2 * h)
    assert slope * (phi + n / total) == pytest.approx(kappa, rel=1e-4)


def test_poisson_limit_is_smooth():
    near, far = dirichlet_multinomial(4, 30.0, 0.99e6), dirichlet_multinomial(4, 30.0, 1.01e6)
    assert near == pytest.approx(far, rel=1e-3)


def test_high_counts_have_n_minus_one_degrees_of_freedom():
    variance, kappa = dirichlet_multinomial(6, 1e7, 1 / 0.01)
    assert 2 * kappa**2 / variance == pytest.approx(5, rel=0.05)


def test_unequal_exposures_keep_the_mean():
    """100,000 genes at the true dispersion, exposures up to eightfold apart: mean numerator over mean weight within 5 % of 1."""
    rng = np.random.default_rng(0)
    exposure = np.array([0.3, 0.6, 1.0, 2.4])
    for mean, phi in ((5.0, 0.3), (200.0, 0.1)):
        m = mean * exposure
        y = rng.negative_binomial(1 / phi, 1 / (1 + phi * m), (100_000, 4))
        numerator, weight = statistics(y, phi, exposure)[0].mean(axis=0)
        assert numerator / weight == pytest.approx(1, abs=0.05)


def test_groups_without_information_say_nothing():
    group = np.array([0, 0, 0, 1, 2, 2])
    counts = np.array([[0, 1, 0, 9, 0, 0], [2, 0, 0, 9, 0, 0]])
    by_gene, by_group = statistics(counts, 0.1, group=group)
    assert (by_gene[0] == 0).all()  # one count, one sample, no count
    assert by_gene[1, 1] > 0
    assert (by_group[1:] == 0).all()


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 2.0]))
def test_sums_over_groups_and_over_genes_are_those_of_single_groups(seed, phi):
    rng = np.random.default_rng(seed)
    group = rng.permutation([0, 0, 0, 1, 1, 2])
    counts = rng.poisson(rng.choice([0.3, 20.0], (7, 1)), (7, 6))
    exposure = rng.lognormal(0, 0.5, 6)
    by_gene, by_group = statistics(counts, phi, exposure, group)
    alone = [statistics(counts[:, group == k], phi, exposure[group == k])[0] for k in range(3)]
    np.testing.assert_allclose(by_gene, sum(alone), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(by_group, [one.sum(axis=0) for one in alone], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("exposure", [(1.0, 1.0), (0.3, 2.5)])
@pytest.mark.parametrize("phi", [0.1, 1.5])
def test_moment_equation_is_unbiased_at_any_exposures(exposure, phi):
    """E[X - phi D] = 0: the sum over all pairs of counts up to 400, beyond which less than 1e-12 of the probability lies."""
    exposure = np.array(exposure)
    y = np.arange(401)
    pmf = [stats.nbinom.pmf(y, 1 / phi, 1 / (1 + phi * 3 * l)) for l in exposure]
    tables = np.stack(np.meshgrid(y, y, indexing="ij"), axis=-1).reshape(-1, 2)
    x, d, mean = moments(tables, exposure).T
    p = np.outer(*pmf).ravel()
    assert p.sum() == pytest.approx(1, abs=1e-10)
    assert p @ (x - phi * d) == pytest.approx(0, abs=1e-6 * (p @ np.abs(x)))
    np.testing.assert_allclose(mean, tables.mean(axis=1))


def test_moment_equation_is_unbiased_for_three_samples():
    phi, exposure = 0.4, np.array([0.5, 1.0, 2.0])
    y = np.arange(41)
    pmf = [stats.nbinom.pmf(y, 1 / phi, 1 / (1 + phi * l)) for l in exposure]
    tables = np.stack(np.meshgrid(y, y, y, indexing="ij"), axis=-1).reshape(-1, 3)
    x, d, _ = moments(tables, exposure).T
    p = np.einsum("i,j,k", *pmf).ravel()
    assert p @ (x - phi * d) == pytest.approx(0, abs=1e-6 * (p @ np.abs(x)))


@few
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_equal_exposures_give_the_closed_form(seed, n):
    """phi = n (n SS - (n-1) T) / ((n-1) T^2 - n SS), SS the sum of squares around the mean."""
    y = np.random.default_rng(seed).negative_binomial(3, 0.1, (20, n))
    y = y[(y > 0).sum(axis=1) > 1]  # all counts in one sample: no finite root
    total, squares = y.sum(axis=1), ((y - y.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    expected = n * (n * squares - (n - 1) * total) / ((n - 1) * total**2 - n * squares)
    x, d, _ = moments(y).T
    np.testing.assert_allclose(solve_moments(x, d), np.clip(expected, 0, MAX_DISPERSION), rtol=1e-9, atol=1e-12)


def test_the_root_of_a_moment_equation_is_within_bounds():
    x, d = np.array([1.0, -1, 1, 0, 5, 1e9]), np.array([2.0, 3, 0, 0, -1, 1])
    np.testing.assert_array_equal(solve_moments(x, d), [0.5, 0, MAX_DISPERSION, 0, MAX_DISPERSION, MAX_DISPERSION])


def test_members_are_sorted_by_group_and_stable():
    members, starts = sorted_members(np.array([1, 0, 2, 1, 0]))
    np.testing.assert_array_equal(members, [1, 4, 0, 3, 2])
    np.testing.assert_array_equal(starts, [0, 2, 4, 5])
