from __future__ import annotations

import numpy as np

from nbcompare._nb.hidden.samples import chosen_number, sample_factors


def test_factors_of_two_groups_are_those_of_the_comparison(adjusted, factor_data):
    model, _, found = adjusted
    k = found.factors.shape[1]
    factors = sample_factors(model, factor_data.group, k).factors
    expected = found.factors - found.factors.mean(axis=0)
    np.testing.assert_allclose(factors, expected, atol=1e-9)
    assert chosen_number(model) <= k


def test_loadings_predict_the_log_counts(adjusted, factor_data):
    """Of genes with many counts, log counts within groups are the loadings times the factor: slope within 10% of one."""
    model, _, _ = adjusted
    found = sample_factors(model, factor_data.group, 1)
    high = model.mean > 200
    logs = np.log(factor_data.counts[high] + 0.5)
    for group in (0, 1):
        logs[:, factor_data.group == group] -= logs[:, factor_data.group == group].mean(axis=1, keepdims=True)
    factor = (
        found.factors[:, 0]
        - np.array([found.factors[factor_data.group == g, 0].mean() for g in (0, 1)])[factor_data.group]
    )
    slope = logs @ factor / (factor @ factor)
    assert abs(np.polyfit(found.loadings[high, 0], slope, 1)[0] - 1) < 0.1
