from __future__ import annotations

import numpy as np
from scipy import stats

from nbcompare._nb.hidden.compare import largest_number
from nbcompare._nb.hidden.dataset import gene_residuals


def p_values(z: np.ndarray) -> np.ndarray:
    return 2 * stats.norm.sf(np.abs(z))


def test_a_factor_along_the_condition_is_adjusted_for(factor_data, adjusted):
    """Cosine 0.6: without the option null genes pass p < 0.01 too often, with it no more often than chance allows."""
    model, own, found = adjusted
    null = factor_data.effect == 0
    before, after = (p_values(one.statistic)[null & np.isfinite(one.statistic)] for one in (own, found.result))
    assert found.used
    assert found.weights[1] == found.weights.max()
    assert (after < 0.01).sum() <= stats.binom.ppf(0.9999, len(after), 0.01)
    assert (before < 0.01).sum() > 2 * (after < 0.01).sum()
    error = np.abs(found.result.log_fc - factor_data.effect)
    assert np.median(error) < np.median(np.abs(own.log_fc - factor_data.effect))
    covered = (factor_data.effect >= found.result.lower) & (factor_data.effect <= found.result.upper)
    assert 0.92 < covered.mean() < 0.98


def test_level_where_genes_are_independent(hidden):
    """No factor is used, and the comparison is untouched."""
    data = hidden.simulate(5, strength=0.0, changed=0.0)
    _, own, found = hidden.adjust(data.counts, data.group)
    assert not found.used
    assert found.result is own


def test_level_with_a_random_factor_and_no_effects(hidden):
    """p < 0.05 and 0.01 in three data sets together, within wide binomial bounds: tests of one data set share slopes."""
    p = []
    for seed in (11, 12, 13):
        data = hidden.simulate(seed, changed=0.0, cosine=0.2)
        p.append(p_values(hidden.adjust(data.counts, data.group)[2].result.statistic))
    p = np.concatenate(p)
    for level in (0.05, 0.01):
        assert 0.4 * level < (p < level).mean() < 1.5 * level


def test_samples_and_genes_in_any_order(hidden, factor_data, adjusted):
    """Sums in another order: deviates agree to 1e-5 of the tests, far below any use."""
    rng = np.random.default_rng(0)
    samples, genes = rng.permutation(len(factor_data.group)), rng.permutation(len(factor_data.counts))
    counts = np.ascontiguousarray(factor_data.counts[np.ix_(genes, samples)])
    other = hidden.adjust(counts, factor_data.group[samples])[2]
    np.testing.assert_allclose(other.weights, adjusted[2].weights, atol=1e-5)
    np.testing.assert_allclose(other.result.statistic, adjusted[2].result.statistic[genes], atol=1e-4)
    np.testing.assert_allclose(np.abs(other.factors), np.abs(adjusted[2].factors[samples]), atol=1e-4)


def test_the_same_twice(hidden, factor_data, adjusted):
    """No random number is used."""
    again = hidden.adjust(factor_data.counts, factor_data.group)[2]
    np.testing.assert_array_equal(again.result.statistic, adjusted[2].result.statistic)


def test_swapped_groups_have_opposite_signs(hidden, factor_data, adjusted):
    other = hidden.adjust(factor_data.counts, 1 - factor_data.group)[2]
    np.testing.assert_allclose(other.result.statistic, -adjusted[2].result.statistic, atol=1e-4)
    np.testing.assert_allclose(other.result.log_fc, -adjusted[2].result.log_fc, atol=1e-4)


def test_intervals_and_p_values_agree(factor_data, adjusted):
    model, _, found = adjusted
    outside = (found.result.lower > 0) | (found.result.upper < 0)
    deep = model.mean >= 2
    np.testing.assert_array_equal(outside[deep], (p_values(found.result.statistic_all) < 0.05)[deep])


def test_a_given_number_of_factors(hidden, factor_data):
    _, own, found = hidden.adjust(factor_data.counts, factor_data.group, 2)
    np.testing.assert_array_equal(found.weights, [0, 0, 1])
    assert found.factors.shape == (16, 2)


def test_rare_genes_keep_the_unadjusted_test(hidden, factor_data):
    """Genes below two counts a sample: the statistic over the root of the inflation."""
    counts = factor_data.counts.copy()
    counts[:100] = np.random.default_rng(0).poisson(1.2, (100, 16))
    counts = np.ascontiguousarray(counts[counts.sum(axis=1) >= 10])
    model, own, found = hidden.adjust(counts, factor_data.group)
    rare = model.mean < 2
    assert rare.sum() > 50
    np.testing.assert_allclose(
        found.result.statistic[rare], (own.statistic / np.sqrt(found.inflation))[rare], rtol=1e-12
    )
    np.testing.assert_array_equal(found.result.log_fc[rare], own.log_fc[rare])


def test_factors_are_found_in_the_samples(hidden):
    """The stored factor is the simulated one: correlation above 0.95 with the leading factor."""
    data = hidden.simulate(3, strength=0.5)
    _, _, found = hidden.adjust(data.counts, data.group, 1)
    centered = np.log(data.counts + 0.5) - np.log(data.counts + 0.5).mean(axis=1, keepdims=True)
    leading = np.linalg.svd(centered, full_matrices=False)[2][0]
    assert abs(np.corrcoef(leading, found.factors[:, 0])[0, 1]) > 0.95


def test_residuals_of_a_fit_have_about_unit_variance(hidden):
    """The trend's dispersion is below the mean of the genes' dispersions (log-normal, sd 0.5), so the mean square is a little above one."""
    data = hidden.simulate(7, strength=0.0)
    residuals = gene_residuals(hidden.prepare(data.counts, data.group)[0])[0]
    assert 0.95 < (residuals.along**2).mean() < 1.25


def test_largest_number_of_factors():
    assert [largest_number(n, 2) for n in (7, 8, 16, 30)] == [0, 3, 7, 14]
