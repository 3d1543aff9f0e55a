"""The leave-one-replicate-out rule in designs: against samples taken off by hand, and what it does to genes with one outlying count."""

from dataclasses import replace

import numpy as np
import pytest

from nbcompare._nb.glm import compare as glm
from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.glm.dispersion.moderation import moderate, moderate_design
from nbcompare._nb.glm.fit.design import design_matrices
from nbcompare._nb.glm.leave_one_out import leave_one_out
from nbcompare._nb.glm.run import TESTS, run_tests
from nbcompare._nb.status import Status


def pairs(n):
    return np.column_stack([np.eye(n)[np.repeat(np.arange(n), 2)], np.tile([0.0, 1], n)])


def covariate(first, second, seed=0):
    n = first + second
    return np.column_stack(
        [np.ones(n), np.random.default_rng(seed).normal(size=n), np.repeat([0.0, 1], [second, first])]
    )


def simulate(design, seed=0, n_genes=3000, changed=0.3, outlying=0.0, log_dispersion_var=0.25, size=0.7):
    """Counts, log exposures, effects of the last column, and genes without one of which a sample has ten times its count."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(np.log(10), np.log(500), n_genes))
    phi = (0.05 * np.exp(rng.normal(0, np.sqrt(log_dispersion_var), n_genes)))[:, None]
    exposure = np.exp(0.3 * rng.normal(size=len(design)))
    effect = np.where(rng.random(n_genes) < changed, rng.choice([-size, size], n_genes), 0)
    m = mean[:, None] * exposure * np.exp(effect[:, None] * (design[:, -1] - design[:, -1].mean()))
    counts = rng.poisson(m * rng.gamma(1 / phi, phi, m.shape)).astype(float)
    outlier = (rng.random(n_genes) < outlying) & (effect == 0)
    sample = rng.choice(np.flatnonzero(design[:, -1] == 1), n_genes)
    counts[outlier, sample[outlier]] = np.round(10 * counts[outlier, sample[outlier]])
    return counts, np.log(exposure)[None], effect, outlier


def last(design):
    return np.eye(design.shape[1])[-1]


def test_largest_p_value_without_one_pair_by_hand():
    """Both samples of a pair and its coefficient removed; trend, prior and working dispersion stay."""
    design = pairs(5)
    counts, offset, _, _ = simulate(design, n_genes=6000, changed=1, log_dispersion_var=0.05, size=0.3)
    found = design_tests(counts, offset, design, [last(design)])
    matrices = design_matrices(design, [last(design)])
    basis = moderate_design(counts, offset, matrices, found.trend, np.ones(10))
    p = found.p_value_all[:, 0]
    worst = p.copy()
    sign = np.sign(found.log_fc[:, 0])
    for pair in range(5):
        left = np.delete(np.arange(10), [2 * pair, 2 * pair + 1])
        small = pairs(4)
        without = design_matrices(small, [last(small)])
        some, some_offset = np.ascontiguousarray(counts[:, left]), offset[:, left]
        own = moderate(
            some, some_offset, without, basis.working, basis.prior_degrees, basis.trend, basis.mean, np.ones(8)
        )
        own = replace(own, dispersion=np.where(np.isfinite(own.dispersion), own.dispersion, basis.working))
        tests = run_tests(some, some_offset, without, own, TESTS["moderated"], np.zeros(1), 1)
        turned = ~(tests.p_value[:, 0] < 1) | (tests.statistic[:, 0] * sign <= 0)
        worst = np.fmax(worst, np.where(turned, 1.0, tests.p_value[:, 0]))
    replaced = (p < 0.02) & (worst > np.maximum(np.sqrt(p), 0.2))
    flagged = (found.status[:, 0] & Status.OUTLIER_REPLICATE) > 0
    assert replaced.sum() > 10
    np.testing.assert_array_equal(flagged, replaced)
    np.testing.assert_allclose(found.p_value[replaced, 0], worst[replaced], rtol=1e-4)
    np.testing.assert_array_equal(found.p_value[~replaced, 0], p[~replaced])


@pytest.mark.parametrize(
    ("design", "outlying"), [(pairs(5), 0), (covariate(4, 16), 0.5), (covariate(5, 5), 0), (covariate(3, 8), 0.5)]
)
def test_samples_passed_over_for_their_influence_would_not_have_mattered(design, outlying, monkeypatch):
    counts, offset, _, _ = simulate(design, 1, 6000, changed=0.9, outlying=outlying, log_dispersion_var=0.05, size=0.3)
    level = design[:, -1].astype(int)
    some = design_tests(counts, offset, design, [last(design)], level=level)
    monkeypatch.setattr(glm, "leave_one_out", lambda *args, **options: leave_one_out(*args, every=True, **options))
    every = design_tests(counts, offset, design, [last(design)], level=level)
    flagged = (every.status & Status.OUTLIER_REPLICATE) > 0
    assert flagged.sum() > 10
    missed = flagged & ((some.status & Status.OUTLIER_REPLICATE) == 0)
    assert missed.sum() <= 0.02 * flagged.sum()
    both = flagged & ~missed
    assert np.mean(some.p_value[both] < every.p_value[both] * 0.999) <= 0.02


@pytest.mark.parametrize("design", [pairs(4), pairs(8), covariate(4, 16), covariate(3, 12), covariate(6, 6)])
def test_one_outlying_count_makes_no_difference_and_true_ones_stay(design):
    """Of genes with one count x 10 at most 1 % below .001 (4 against 16: half of them were); power within 2 %."""
    counts, offset, effect, outlier = simulate(design, 2, 12_000, outlying=0.04)
    found = design_tests(counts, offset, design, [last(design)], level=design[:, -1].astype(int))
    p, before = found.p_value[:, 0], found.p_value_all[:, 0]
    assert (p[outlier] < 0.001).mean() <= 0.012
    true = effect != 0
    assert (p[true] < 0.01).mean() > 0.98 * (before[true] < 0.01).mean()
    null = ~true & ~outlier
    assert (p[null] < 0.01).mean() > 0.85 * (before[null] < 0.01).mean()
    assert (p >= before).all()


def test_the_rule_is_flagged_where_it_cannot_be_asked():
    """Two pairs leave no residual degree of freedom without one; a slope that one sample decides cannot do without it."""
    counts, offset, _, _ = simulate(pairs(2), 3)
    found = design_tests(counts, offset, pairs(2), [last(pairs(2))])
    small = found.p_value[:, 0] < 0.02
    assert small.sum() > 20
    assert (found.status[small, 0] & Status.REPLICATE_NOT_LEFT_OUT).all()
    assert not (found.status[~small, 0] & Status.REPLICATE_NOT_LEFT_OUT).any()
    np.testing.assert_array_equal(found.p_value, found.p_value_all)

    slope = np.column_stack([np.ones(9), np.r_[np.linspace(-1, 1, 8), 30]])
    counts, offset, _, _ = simulate(np.column_stack([np.ones(9), slope[:, 1] / 30]), 4)
    found = design_tests(counts, offset, slope, [last(slope)])
    small = found.p_value_all[:, 0] < 0.02
    assert (found.status[small, 0] & Status.REPLICATE_NOT_LEFT_OUT).all()


def test_the_rule_is_for_the_moderated_test_and_can_be_left_off():
    design = covariate(4, 16)
    counts, offset, _, _ = simulate(design, 5, outlying=0.2)
    for options in ({"leave_out": False}, {"test": "ql"}, {"test": "wald"}, {"null": np.zeros(1)}):
        found = design_tests(counts, offset, design, [last(design)], **options)
        np.testing.assert_allclose(found.p_value, found.p_value_all, rtol=1e-9)
        assert not (found.status & Status.OUTLIER_REPLICATE).any()
