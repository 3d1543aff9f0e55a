from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.screen.compare import compare_targets
from nbcompare._nb.screen.model import ScreenModel, fit_screen
from nbcompare._nb.status import Status


def _screen(
    n_targets=8, n_genes=600, n_replicates=3, n_control=3, high_dispersion=False, blocks=False, changed=0.1, seed=0
):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_targets + 1), [n_control] + [n_replicates] * n_targets)
    mean = np.exp(rng.uniform(-1, 7, n_genes))
    phi = (0.05 + 0.5 / mean) * np.exp(rng.normal(0, 0.5, n_genes))
    phi = np.repeat(phi[:, None], len(group), axis=1)
    if high_dispersion:
        phi[:, group == 2] *= 4
    effect = np.where(rng.random((n_genes, n_targets + 1)) < changed, rng.normal(0, 1, (n_genes, n_targets + 1)), 0)
    effect[:, 0] = 0
    effect[:5, 1] = -30  # knocked out
    depth = np.exp(rng.normal(0, 0.3, len(group)))
    depth /= np.exp(np.log(depth).mean())
    block = np.arange(len(group)) % 3
    batch = np.exp(rng.normal(0, 0.3 if blocks else 0, (n_genes, 3)))[:, block]
    expected = mean[:, None] * depth * np.exp(effect)[:, group] * batch
    counts = rng.poisson(expected * rng.gamma(1 / phi, phi)).astype(float)
    counts[7, group == 3] = [200] + [0] * (n_replicates - 1)  # one replicate carries the difference
    counts[-1] = 0
    return Pseudobulk(counts, depth, group, block.astype(np.intp) if blocks else None), effect


def _targets(pseudobulk):
    keep = pseudobulk.group > 0
    starts = np.concatenate([[0], np.cumsum(np.bincount(pseudobulk.group)[1:])])
    block = None if pseudobulk.block is None else pseudobulk.block[keep]
    fit_group = np.arange(1, pseudobulk.n_groups)
    return pseudobulk.counts.T[keep], pseudobulk.exposure[keep], block, starts, fit_group


@pytest.mark.parametrize("n_control", [3, 40])
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("high_dispersion", [False, True])
def test_the_fast_path_is_the_readable_test(n_control, blocks, high_dispersion):
    pseudobulk, _ = _screen(n_control=n_control, blocks=blocks, high_dispersion=high_dispersion)
    pairs = np.stack([np.zeros(8, int), np.arange(1, 9)], axis=1)
    slow = moderated_tests(pseudobulk, pairs)
    fast = compare_targets(fit_screen(pseudobulk, 0), *_targets(pseudobulk))
    np.testing.assert_array_equal(fast.status.T, slow.status)
    np.testing.assert_array_equal(np.isnan(fast.p_value.T), np.isnan(slow.p_value))
    np.testing.assert_allclose(np.log10(fast.p_value.T), np.log10(slow.p_value), rtol=0, atol=1e-6, equal_nan=True)
    np.testing.assert_allclose(fast.log_fc.T, slow.log_fc, atol=1e-9)
    np.testing.assert_allclose(fast.se.T, slow.se, rtol=1e-8)
    np.testing.assert_allclose(fast.statistic.T, slow.statistic, atol=1e-6)
    np.testing.assert_allclose(fast.dispersion.T, slow.dispersion, rtol=1e-7)
    np.testing.assert_allclose(fast.dispersion_ratio, slow.dispersion_ratio[:, 1], rtol=1e-12)
    if high_dispersion:
        assert fast.dispersion_ratio[1] > 2
        assert (fast.status[1] & Status.HIGH_DISPERSION_GROUP).any()
    assert (fast.status & Status.OUTLIER_REPLICATE).any()
    assert (fast.status[:, -1] & Status.ALL_ZERO).all()


def test_two_groups_alone_are_the_two_group_test():
    pseudobulk, _ = _screen(n_targets=3)
    two = pseudobulk.group < 2
    alone = Pseudobulk(np.ascontiguousarray(pseudobulk.counts[:, two]), pseudobulk.exposure[two], pseudobulk.group[two])
    slow = moderated_tests(alone, np.array([[0, 1]]))
    fast = compare_targets(fit_screen(alone, 0), *_targets(alone))
    np.testing.assert_allclose(np.log10(fast.p_value[0]), np.log10(slow.p_value[:, 0]), atol=1e-6, equal_nan=True)


def test_threads_parts_and_storage_change_nothing():
    pseudobulk, _ = _screen(n_targets=20, high_dispersion=True, blocks=True)
    model = fit_screen(pseudobulk, 0)
    samples, exposure, block, starts, fit_group = _targets(pseudobulk)
    whole = compare_targets(model, samples, exposure, block, starts, fit_group)
    stored = ScreenModel.from_arrays(model.to_arrays())
    threaded = compare_targets(stored, samples, exposure, block, starts, fit_group, n_threads=3)
    rows = slice(starts[5], starts[9])
    part = compare_targets(model, samples[rows], exposure[rows], block[rows], starts[5:10] - starts[5], fit_group[5:9])
    for name in ("log_fc", "se", "statistic", "p_value", "dispersion", "status", "dispersion_ratio"):
        np.testing.assert_array_equal(getattr(threaded, name), getattr(whole, name))
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[5:9])


def test_a_target_that_did_not_inform_has_nearly_the_same_answer():
    pseudobulk, _ = _screen(n_targets=40, high_dispersion=True)
    whole = compare_targets(fit_screen(pseudobulk, 0), *_targets(pseudobulk))
    dispersion_priors = pseudobulk.group % 2 == 0  # the control and every other target
    fit = Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[:, dispersion_priors]),
        pseudobulk.exposure[dispersion_priors],
        pseudobulk.group[dispersion_priors] // 2,
    )
    samples, exposure, block, starts, _ = _targets(pseudobulk)
    fit_group = np.where(np.arange(1, 41) % 2 == 0, np.arange(1, 41) // 2, -1)
    half = compare_targets(fit_screen(fit, 0), samples, exposure, block, starts, fit_group)
    tested = ~np.isnan(whole.p_value) & ~np.isnan(half.p_value)
    difference = np.abs(np.log10(half.p_value[tested]) - np.log10(whole.p_value[tested]))
    assert np.median(difference) < 0.02
    assert half.dispersion_ratio[1] > 2


@pytest.mark.slow
@pytest.mark.parametrize("dispersion_ratio", [1.0, 3.0])
def test_nulls_of_a_screen_keep_their_level(dispersion_ratio):
    """120 targets x 4,000 genes of which 300 lend nothing: binomial bounds widened for the shared control."""
    rng = np.random.default_rng(5)
    n_genes, n_targets = 4000, 120
    group = np.repeat(np.arange(n_targets + 1), [100] + [3] * n_targets)
    mean = np.exp(rng.uniform(0.7, 7, n_genes))
    phi = (0.05 + 0.5 / mean) * np.exp(rng.normal(0, 0.5, n_genes))
    phi = phi[:, None] * np.where(group == 0, 1.0, dispersion_ratio)
    depth = np.exp(rng.normal(0, 0.3, len(group)))
    counts = rng.poisson(mean[:, None] * depth * rng.gamma(1 / phi, phi)).astype(float)
    pseudobulk = Pseudobulk(counts, depth / np.exp(np.log(depth).mean()), group)
    p_value = compare_targets(fit_screen(pseudobulk, 0), *_targets(pseudobulk)).p_value
    p_value = p_value[~np.isnan(p_value)]
    for level, low, high in ((0.05, 0.9, 1.1), (1e-3, 0.8, 1.25)):
        assert low < (p_value < level).mean() / level < high
