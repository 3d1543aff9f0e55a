"""Block effects against statsmodels, kept information and degrees of freedom against design matrices."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.genmod.families import NegativeBinomial, Poisson
from statsmodels.genmod.generalized_linear_model import GLM

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.screen.compare import compare_targets
from nbcompare._nb.screen.model import fit_screen
from nbcompare._nb.two_group.block_effects import connected_parts, fit_blocks, residual_degrees

few = settings(deadline=None, max_examples=40)


def design(group, block):
    """Indicator columns of groups and of blocks but the first."""
    return np.column_stack([group[:, None] == np.unique(group), block[:, None] == np.unique(block)[1:]]).astype(float)


def simulate(seed, group, block, n_genes=20, mean=1e4, phi=0.0, exposure_sd=0.3):
    rng = np.random.default_rng(seed)
    exposure = rng.lognormal(0, exposure_sd, len(group))
    effects = (
        rng.normal(0, 0.6, (n_genes, group.max() + 1))[:, group]
        + rng.normal(0, 0.6, (n_genes, block.max() + 1))[:, block]
    )
    m = mean * exposure * np.exp(effects)
    counts = rng.poisson(m) if phi == 0 else rng.negative_binomial(1 / phi, 1 / (1 + phi * m))
    return Pseudobulk(counts.astype(float), exposure, group, block)


DESIGNS = {
    "paired": (np.repeat([0, 1], 4), np.tile(np.arange(4), 2)),
    "screen": (np.repeat(np.arange(6), 3), np.tile(np.arange(3), 6)),
    "two batches": (np.repeat([0, 1], 4), np.array([0, 0, 0, 1, 0, 1, 1, 1])),
    "incomplete": (np.array([0, 0, 0, 1, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 1, 2, 0, 2])),
}


def block_contrasts(exposures, pseudobulk):
    """Log effects of the blocks relative to the first, one row a gene."""
    first = [np.flatnonzero(pseudobulk.block == r)[0] for r in range(pseudobulk.n_blocks)]
    effect = np.log(exposures / pseudobulk.exposure)[:, first]
    return effect[:, 1:] - effect[:, :1]


@pytest.mark.parametrize("name", DESIGNS)
def test_sweeps_reach_the_poisson_maximum_likelihood(name):
    """Without dispersion: log effects within .002 where sweeps converge at once (complete designs), .02 after four sweeps elsewhere."""
    pseudobulk = simulate(0, *DESIGNS[name])
    exposures, _ = fit_blocks(pseudobulk, np.zeros(len(pseudobulk.counts)))
    ours = block_contrasts(exposures, pseudobulk)
    x = design(pseudobulk.group, pseudobulk.block)
    theirs = np.array(
        [GLM(y, x, family=Poisson(), exposure=pseudobulk.exposure).fit(tol=1e-12).params for y in pseudobulk.counts]
    )[:, pseudobulk.n_groups :]
    assert np.abs(ours - theirs).max() < (0.002 if name in ("paired", "screen") else 0.02)


def test_sweeps_are_near_the_negative_binomial_maximum_likelihood():
    """At dispersion .1 groups are weighted alike: log effects are off by a third of their standard error of .18 on average."""
    pseudobulk = simulate(1, *DESIGNS["screen"], phi=0.1, exposure_sd=0)
    exposures, _ = fit_blocks(pseudobulk, np.full(len(pseudobulk.counts), 0.1))
    x = design(pseudobulk.group, pseudobulk.block)
    theirs = np.array([GLM(y, x, family=NegativeBinomial(alpha=0.1)).fit().params for y in pseudobulk.counts])
    difference = block_contrasts(exposures, pseudobulk) - theirs[:, pseudobulk.n_groups :]
    assert np.abs(difference).mean() < 0.07
    assert abs(difference.mean()) < 0.03


def test_half_a_count_holds_empty_blocks():
    group, block = DESIGNS["paired"]
    counts = np.array([[0.0, 3, 2, 4, 0, 5, 3, 6], np.zeros(8), [0, 0, 0, 0, 0, 0, 0, 1]])
    exposures, efficiency = fit_blocks(
        Pseudobulk(counts, np.ones(8), group, block), np.full(3, 0.1), np.array([[0, 1]])
    )
    assert np.isfinite(exposures).all()
    assert (exposures > 0).all()
    assert exposures[0, 0] < 0.4
    np.testing.assert_array_equal(exposures[1], 1)
    assert np.isfinite(efficiency).all()


def test_without_blocks_nothing_changes():
    pseudobulk = Pseudobulk(np.ones((3, 4)), np.array([1.0, 2, 1, 2]), np.array([0, 0, 1, 1]))
    exposures, efficiency = fit_blocks(pseudobulk, np.zeros(3), np.array([[0, 1]]))
    np.testing.assert_array_equal(exposures, pseudobulk.exposure[None])
    np.testing.assert_array_equal(efficiency, 1)


def information_efficiency(group, block, weight, first, second):
    """Variance of the contrast of two groups without blocks over that with blocks, weighted least squares."""

    def variance(x):
        inverse = np.linalg.pinv(x.T @ (weight[:, None] * x))
        c = np.zeros(x.shape[1])
        c[first], c[second] = -1, 1
        return c @ inverse @ c

    return variance(design(group, np.zeros_like(block))) / variance(design(group, block))


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from(["paired", "two batches"]))
def test_kept_information_of_two_groups(seed, name):
    group, block = DESIGNS[name]
    pseudobulk = simulate(seed, group, block, n_genes=3, mean=50, phi=0.1)
    phi = np.full(3, 0.1)
    exposures, efficiency = fit_blocks(pseudobulk, phi, np.array([[0, 1], [-1, 1]]))
    for g, y in enumerate(pseudobulk.counts):
        rate = y.sum() / pseudobulk.exposure.sum()
        weight = exposures[g] / (1 + phi[g] * rate * exposures[g])
        assert efficiency[g, 0] == pytest.approx(information_efficiency(group, block, weight, 0, 1), rel=1e-6)
        assert efficiency[g, 1] == pytest.approx(efficiency[g, 0], rel=1e-9)


@few
@given(st.integers(0, 2**32 - 1))
def test_kept_information_of_many_groups_is_that_of_the_whole_design(seed):
    """Also in unbalanced designs where some groups miss blocks: the other groups help to estimate the blocks."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 3, (5, 4))
    cells[:, 0] += cells.sum(axis=1) == 0  # every group has a sample
    cells[0] += cells.sum(axis=0) == 0  # every block too
    group, block = (np.repeat(codes.ravel(), cells.ravel()) for codes in np.indices(cells.shape))
    parts = connected_parts(group, block)
    pseudobulk = simulate(seed, group, block, n_genes=2, mean=50, phi=0.1)
    pairs = np.array([(0, k) for k in range(1, 5)])
    phi = np.full(2, 0.1)
    exposures, efficiency = fit_blocks(pseudobulk, phi, pairs)
    for g, y in enumerate(pseudobulk.counts):
        weight = exposures[g] / (1 + phi[g] * y.sum() / pseudobulk.exposure.sum() * exposures[g])
        for c, (_, treated) in enumerate(pairs):
            if parts[treated] != parts[0]:
                assert efficiency[g, c] == 0
            else:
                assert efficiency[g, c] == pytest.approx(
                    information_efficiency(group, block, weight, 0, treated), rel=1e-4
                )


def test_kept_information_against_the_rest_is_that_of_two_groups():
    group, block = DESIGNS["incomplete"]
    pseudobulk = simulate(2, group, block, n_genes=4, mean=50)
    _, efficiency = fit_blocks(pseudobulk, np.zeros(4), np.array([[-1, 2]]))
    exposures, _ = fit_blocks(pseudobulk, np.zeros(4))
    for g in range(4):
        expected = information_efficiency((group == 2).astype(int), block, exposures[g], 0, 1)
        assert efficiency[g, 0] == pytest.approx(expected, rel=1e-9)


@few
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=14),
)
def test_degrees_and_parts_match_the_rank_of_the_design(cells):
    group, block = (pd.factorize(np.array(column))[0].astype(np.intp) for column in zip(*cells, strict=True))
    pseudobulk = Pseudobulk(np.zeros((1, len(group))), np.ones(len(group)), group, block)
    x = design(group, block)
    assert residual_degrees(pseudobulk) == len(group) - np.linalg.matrix_rank(x)
    parts = connected_parts(group, block)
    for k in range(group.max() + 1):
        # estimable: the contrast of the groups is a combination of the rows of the design
        c = np.zeros(x.shape[1])
        c[0] -= 1
        c[k] += 1
        estimable = np.linalg.matrix_rank(np.vstack([x, c])) == np.linalg.matrix_rank(x)
        assert (parts[k] == parts[0]) == estimable
    alone = Pseudobulk(np.zeros((1, len(group))), np.ones(len(group)), group)
    assert residual_degrees(alone) == len(group) - (group.max() + 1)


def null_genes(seed, group, block, n_genes, sd, lowest=1.0):
    """Counts without differences between groups, with block effects of this standard deviation (natural log)."""
    rng = np.random.default_rng(seed)
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(lowest), np.log(1000), (n_genes, 1)))
    phi = 0.9 / rng.chisquare(9, mean.shape)
    m = mean * exposure * np.exp(rng.normal(0, sd, (n_genes, block.max() + 1)))[:, block]
    return Pseudobulk(rng.poisson(m * rng.gamma(1 / phi, phi, m.shape)).astype(float), exposure, group, block)


UNEVEN = (
    np.array([0, 1, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0, 1, 2, 2]),
    np.repeat([0, 1], [7, 8]),
)  # blocks of 1:5:1 and 5:1:2


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.3, 2.0])
def test_strong_block_effects_keep_the_level(sd):
    """Samples are weighted at the rate of their block: at the gene's pooled rate p < .05 came up twice as often as it should."""
    p_value = moderated_tests(null_genes(0, *UNEVEN, 24_000, sd), np.array([[0, 1]])).p_value
    p_value = p_value[np.isfinite(p_value)]
    assert (0.9 if sd > 1 else 0.8) < (p_value < 0.05).mean() / 0.05 < 1.1
    assert (p_value < 0.001).sum() <= stats.binom.ppf(0.999, p_value.size, 1.3e-3)


def test_a_screen_weights_blocks_as_the_comparison_does():
    """Block effects of sd 2: information kept by the blocks and p-values are the same in both."""
    pseudobulk = null_genes(1, *UNEVEN, 300, 2.0, lowest=5)
    of_targets = np.flatnonzero(pseudobulk.group > 0)
    of_targets = of_targets[np.argsort(pseudobulk.group[of_targets], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(pseudobulk.group)[1:])])
    slow = moderated_tests(pseudobulk, np.array([[0, 1], [0, 2]]))
    fast = compare_targets(
        fit_screen(pseudobulk, 0),
        pseudobulk.counts.T[of_targets],
        pseudobulk.exposure[of_targets],
        pseudobulk.block[of_targets],
        starts,
        np.array([1, 2]),
    )
    assert np.isfinite(slow.p_value).mean() > 0.9
    np.testing.assert_allclose(np.log10(fast.p_value.T), np.log10(slow.p_value), atol=1e-6, equal_nan=True)
    np.testing.assert_allclose(fast.se.T, slow.se, rtol=1e-8)


def test_samples_are_weighted_at_the_rate_of_their_block():
    """Four sweeps reach the fixed point of the docstring's equations, weights included."""
    pseudobulk = null_genes(2, *DESIGNS["paired"], 30, 1.5, lowest=50)
    phi = np.full(30, 0.2)
    exposures, _ = fit_blocks(pseudobulk, phi)
    for g, y in enumerate(pseudobulk.counts):
        e, group, block = exposures[g], pseudobulk.group, pseudobulk.block
        w = 1 / (1 + phi[g] * y.sum() / pseudobulk.exposure.sum() * e)
        rate = np.bincount(group, w * y) / np.bincount(group, w * e)
        effect = (0.5 + np.bincount(block, w * y)) / (0.5 + np.bincount(block, w * pseudobulk.exposure * rate[group]))
        np.testing.assert_allclose(np.log(effect[block] * pseudobulk.exposure / e), 0, atol=0.15)
