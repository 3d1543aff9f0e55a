from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.hidden.directions import (
    contrast_direction,
    fitted_means,
    group_contrast,
    group_design,
    group_means,
    null_groups,
    residual_directions,
)

GROUP = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])


def test_residual_directions_are_orthonormal_and_free_of_the_design():
    design = group_design(GROUP, np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]))
    directions = residual_directions(design)
    assert directions.shape == (10, 6)
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(design.T @ directions, 0, atol=1e-12)


@pytest.mark.parametrize("reference", [0, 2, -1])
def test_a_contrast_is_its_length_times_the_coordinate(reference):
    """Least squares: a'b of any samples y is |u| q'y, and q is orthogonal to what the null hypothesis leaves."""
    design = group_design(GROUP)
    weights = group_contrast(GROUP, reference, 1)
    found = contrast_direction(design, weights)
    y = np.random.default_rng(0).normal(size=10)
    b = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(found.length * (found.direction @ y), weights @ b, atol=1e-12)
    np.testing.assert_allclose(found.null_design.T @ found.direction, 0, atol=1e-12)
    rest = y[GROUP != 1] if reference < 0 else y[GROUP == reference]
    np.testing.assert_allclose(weights @ b, y[GROUP == 1].mean() - rest.mean(), atol=1e-12)


def test_blocks_that_groups_determine_have_no_column():
    assert group_design(GROUP, (GROUP == 2).astype(int)).shape == (10, 3)


def test_groups_under_the_null_hypothesis():
    assert len(np.unique(null_groups(GROUP, 0, 1))) == 2
    assert len(np.unique(null_groups(GROUP, -1, 1))) == 1


def test_means_of_groups_and_of_their_design_agree():
    """With equal exposures the fit of a design of groups has the mean of each group, to the tolerance of the fit."""
    counts = np.random.default_rng(0).poisson(30, (50, 10)).astype(float)
    fitted = fitted_means(counts, np.ones((1, 10)), group_design(GROUP), np.full(50, 0.1))
    np.testing.assert_allclose(fitted, group_means(counts, np.ones((1, 10)), GROUP), rtol=2e-3)
