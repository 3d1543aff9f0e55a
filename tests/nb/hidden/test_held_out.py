from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.hidden.factors import GeneResiduals, gram_eigenvectors, leading_factors
from nbcompare._nb.hidden.held_out import genes_of_base, held_out_basis, held_out_tests
from nbcompare._nb.hidden.moderation import mean_trend
from nbcompare._nb.hidden.slopes import deviates, fit_slopes


@pytest.mark.parametrize("d", [6, 8, 13, 28])
def test_bases_are_orthogonal_and_differ(d):
    bases = [held_out_basis(d, base) for base in range(3)]
    for basis in bases:
        np.testing.assert_allclose(basis.T @ basis, np.eye(d), atol=1e-10)
    assert np.abs(bases[1] - bases[2]).max() > 0.1


def test_genes_are_evenly_spaced():
    first, second = genes_of_base(5000, 0, 2), genes_of_base(5000, 1, 2)
    assert len(first) == len(second) == 2000
    assert len(np.unique(first)) == 2000
    assert (first != second).mean() > 0.5
    np.testing.assert_array_equal(genes_of_base(700, 1, 2), np.arange(700))


def test_one_direction_by_hand():
    """The first held-out direction: its own tests, with the others as residual directions."""
    rng = np.random.default_rng(0)
    mean = np.exp(rng.uniform(1, 6, 400))
    along = rng.normal(size=(400, 7)) + np.outer(rng.normal(size=400), np.eye(7)[0])
    rho = 0.1 * mean / (1 + 0.1 * mean)
    residuals = GeneResiduals(along, rho, np.sqrt(mean), mean_trend(mean))
    factors = leading_factors(residuals, 2)
    found = held_out_tests(residuals, factors, mean)
    assert found.z.shape == (56, 3, 400)
    vectors = gram_eigenvectors(along, factors.total, residuals.weight)[1]
    order = np.argsort(mean)
    turned = along[order] @ vectors @ held_out_basis(7, 0)
    others = GeneResiduals(turned[:, 1:], rho[order], np.sqrt(mean[order]), mean_trend(mean[order]))
    left = leading_factors(others, 2, factors.varies_too_much)
    slopes = fit_slopes(turned[:, 0].copy(), np.sqrt(mean[order]), others.weight, left, 6, held_out=True)
    np.testing.assert_allclose(found.z[0], deviates(slopes.t, left.degrees), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.load[0], left.load, rtol=1e-6)


def test_the_score_falls_where_there_is_a_factor_and_not_otherwise():
    rng = np.random.default_rng(3)
    mean = np.exp(rng.uniform(3, 6, 1500))
    for strength in (0.0, 1.5):
        along = rng.normal(size=(1500, 10)) + strength * np.outer(rng.normal(size=1500), np.eye(10)[0])
        residuals = GeneResiduals(along, np.full(1500, 0.9), np.sqrt(mean), mean_trend(mean))
        score = held_out_tests(residuals, leading_factors(residuals, 2), mean).score
        assert (score[1] < score[0] - 0.03) == (strength > 0)
