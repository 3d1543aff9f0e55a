"""Levels of a factor whose samples scatter more than the others: their dispersion ratio, and the tests with it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.glm.dispersion.trend import design_statistics, statistics_of_parts
from nbcompare._nb.glm.fit.design import design_matrices
from nbcompare._nb.glm.run import TESTS, fixed_dispersions, run_tests
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.status import NOT_TESTED, Status


def simulate(seed, level, ratios, n_genes=6000, low=1.0, high=1000.0):
    """Null counts; dispersions of samples are ratios[level] times the gene's."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(np.log(low), np.log(high), n_genes))[:, None]
    phi = 0.1 * 9 / rng.chisquare(9, n_genes)[:, None] * np.asarray(ratios)[level]
    exposure = np.exp(0.3 * rng.normal(size=len(level)))
    counts = rng.poisson(mean * exposure * rng.gamma(1 / phi, phi)).astype(float)
    return counts, np.log(exposure)[None], phi


def with_covariate(level, seed=0):
    """A coefficient per level and a covariate."""
    covariate = np.random.default_rng(seed).normal(size=len(level))
    return np.column_stack([level[:, None] == np.arange(level.max() + 1), covariate]).astype(float)


def within(p, at, most):
    """Whether null p-values reach a level no more often than so many times, by a binomial bound."""
    p = p[np.isfinite(p)]
    return (p <= at).sum() <= stats.binom.ppf(0.999, len(p), min(most * at, 1))


TWO, FOUR = np.repeat([0, 1], [30, 3]), np.repeat([0, 1, 2, 3], 4)


@pytest.mark.parametrize(
    ("level", "ratios"), [(TWO, (1, 4.0)), (np.repeat([0, 1], [12, 3]), (1, 4.0)), (FOUR, (1, 1, 1, 4.0))]
)
def test_a_high_dispersion_level_has_its_own_dispersion_and_tests_keep_their_level(level, ratios):
    """Without a ratio p < .001 comes up 14 to 30 times too often."""
    design = with_covariate(level)
    contrast = np.zeros(design.shape[1])
    contrast[[0, level.max()]] = -1, 1
    counts, offset, _ = simulate(1, level, ratios)
    found = design_tests(counts, offset, design, [contrast], level=level)
    p = found.p_value[:, 0]
    assert found.ratios[0, 0] == 1
    assert found.ratios[0, 1] == pytest.approx(4, rel=0.2)
    tested = (found.status[:, 0] & NOT_TESTED) == 0
    assert (found.status[tested, 0] & Status.HIGH_DISPERSION_GROUP).all()
    np.testing.assert_allclose(found.dispersions[tested, 0], found.dispersion[tested] * found.ratios[0, 1])
    for at, most in ((0.05, 1.15), (0.01, 1.15), (0.001, 1.3)):
        assert within(p, at, most)
    assert np.mean(p[np.isfinite(p)] < 0.05) > 0.035
    ignored = design_tests(counts, offset, design, [contrast]).p_value[:, 0]
    assert not within(ignored, 0.001, 1.6 if level is FOUR else 5)


@pytest.mark.parametrize("level", [TWO, FOUR, np.repeat([0, 1], 6)])
def test_levels_of_one_dispersion_have_no_ratio(level):
    design = with_covariate(level)
    contrast = np.zeros(design.shape[1])
    contrast[[0, 1]] = -1, 1
    counts, offset, _ = simulate(2, level, np.ones(4), 4000)
    found = design_tests(counts, offset, design, [contrast], level=level)
    plain = design_tests(counts, offset, design, [contrast])
    assert found.ratios.max() < 1.15
    np.testing.assert_allclose(
        np.log10(found.p_value), np.log10(plain.p_value), atol=0.12 if found.ratios.max() > 1 else 1e-12, rtol=0.05
    )


def test_pairs_do_not_say_which_of_two_levels_is_high_dispersion():
    """The residuals of a pair are each other's opposite: no ratio can be estimated, and none is made up."""
    level = np.tile([0, 1], 8)
    design = np.column_stack([np.eye(8)[np.repeat(np.arange(8), 2)], level])
    counts, offset, _ = simulate(3, level, (1, 4.0), 4000)
    found = design_tests(counts, offset, design, [np.eye(9)[-1]], level=level)
    np.testing.assert_array_equal(found.ratios, 1)
    plain = design_tests(counts, offset, design, [np.eye(9)[-1]])
    np.testing.assert_allclose(found.p_value, plain.p_value, rtol=1e-9)


@pytest.mark.parametrize(("level", "ratios"), [(TWO, (1, 4.0)), (FOUR, (1, 1, 1, 4.0)), (FOUR, (1, 1, 1, 1))])
def test_designs_that_are_groups_are_the_plain_call_also_with_a_high_dispersion_group(level, ratios):
    counts, offset, _ = simulate(4, level, ratios, 2000)
    others = np.arange(1, level.max() + 1)
    plain = moderated_tests(
        Pseudobulk(counts, np.exp(offset[0]), level), np.stack([np.zeros_like(others), others], axis=1)
    )
    design = np.column_stack([np.ones(len(level)), level[:, None] == others]).astype(float)
    found = design_tests(counts, offset, design, [np.eye(design.shape[1])[k] for k in others])
    for name in ("p_value", "p_value_all", "statistic", "log_fc", "se"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(found.dispersions, plain.dispersion)
    np.testing.assert_array_equal(found.status, plain.status)
    np.testing.assert_allclose(found.ratios, plain.dispersion_ratio)
    assert (found.ratios.max() > 2) == (max(ratios) > 1)


def test_hypotheses_of_several_groups_know_the_high_dispersion_one():
    counts, offset, _ = simulate(5, FOUR, (1, 1, 1, 4.0))
    design = np.column_stack([np.ones(16), FOUR[:, None] == [1, 2, 3]]).astype(float)
    found = design_tests(counts, offset, design, [np.eye(4)[:, 1:], np.array([0, 0.5, 0.5, -1])])
    assert found.ratios.min() >= 1
    assert found.ratios[0].max() == pytest.approx(4, rel=0.2)
    assert within(found.p_value[:, 0], 0.001, 2.5)
    assert within(found.p_value[:, 1], 0.001, 1.6)


def fitted(y, x, phi):
    """Maximum likelihood at known dispersions (n_samples,), by Newton's method with inverse matrices."""
    b = np.linalg.lstsq(x, np.log(y + 0.5), rcond=None)[0]
    for _ in range(200):
        m = np.exp(x @ b)
        information = x.T * (m * (1 + phi * y) / (1 + phi * m) ** 2) @ x
        b = b + np.linalg.solve(information, x.T @ ((y - m) / (1 + phi * m)))
    return np.exp(x @ b)


def test_modified_root_with_a_dispersion_for_each_sample_is_skovgaards():
    counts, _, _ = simulate(6, FOUR, (1, 1, 2.0, 4.0), 30, low=20)
    ratio = np.array([1, 1, 2.0, 4.0])[FOUR]
    design = with_covariate(FOUR)
    contrast = np.array([-1.0, 0, 0.5, 0.5, 0])
    matrices = design_matrices(design, [contrast])
    basis = replace(fixed_dispersions(np.full(len(counts), 0.12), counts), ratio=ratio)
    found = run_tests(counts, np.zeros((1, 16)), matrices, basis, TESTS["moderated"], np.zeros(1), 1)
    x, phi, checked = matrices.rows[1], 0.12 * ratio, 0
    for g in range(len(counts)):
        y = counts[g]
        hat, tilde = fitted(y, x, phi), fitted(y, x[:, :-1], phi)
        t = np.log(hat / tilde) - np.log((1 + phi * hat) / (1 + phi * tilde))
        r = np.sign(found.log_fc[g, 0]) * np.sqrt(
            2 * np.sum(y * t - np.log1p(phi * (hat - tilde) / (1 + phi * tilde)) / phi)
        )
        s, i = (x.T * (hat / (1 + phi * m)) @ x for m in (tilde, hat))
        j, null = (x.T * (m * (1 + phi * y) / (1 + phi * m) ** 2) @ x for m in (hat, tilde))
        det = np.linalg.det
        u = (np.linalg.inv(s) @ x.T @ (hat * t))[-1] * det(s) * np.sqrt(det(j) / det(null[:-1, :-1])) / det(i)
        if abs(r) > 0.1:
            checked += 1
            assert found.statistic[g, 0] == pytest.approx(r + np.log(u / r) / r, abs=1e-4)
        assert found.se[g, 0] / matrices.length[0] == pytest.approx(np.sqrt(np.linalg.inv(i)[-1, -1]), rel=1e-5)
    assert checked > 20


def test_parts_of_a_design_have_statistics_of_mean_one_at_the_true_dispersions():
    """4 against 12 samples in two batches, and all samples as one part."""
    level = np.repeat([0, 1], [12, 4])
    batch = np.arange(16) % 2
    design = np.column_stack([np.ones(16), batch, level]).astype(float)
    matrices = design_matrices(design, [])
    rng = np.random.default_rng(7)
    ratio = np.array([1, 3.0])[level]
    mean = np.exp(rng.uniform(np.log(10), np.log(500), 20_000))
    phi = np.full(len(mean), 0.1)
    counts = rng.poisson(mean[:, None] * rng.gamma(1 / (0.1 * ratio), 0.1 * ratio, (len(mean), 16))).astype(float)
    parts = np.stack([level == 0, level == 1, level >= 0]).astype(float)
    out, _ = statistics_of_parts(counts, np.zeros((1, 16)), matrices, phi, ratio=ratio, parts=parts)
    numerator, degrees = out[:, :, 0].sum(axis=0), out[:, :, 1].sum(axis=0)
    np.testing.assert_allclose(numerator / degrees, 1, atol=0.05)
    whole, _ = design_statistics(counts, np.zeros((1, 16)), matrices, phi, ratio=ratio)
    np.testing.assert_allclose(out[:, 2], whole, rtol=1e-6)
