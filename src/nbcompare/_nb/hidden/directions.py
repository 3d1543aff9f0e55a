"""Directions of the sample space: those that the design leaves free, and the direction of a contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.glm.dispersion.trend import design_statistics
from nbcompare._nb.glm.fit.design import design_matrices

ONE_WAY_TOLERANCE = 1e-12


@dataclass(frozen=True)
class ContrastDirection:
    """Where a contrast of coefficients lies among the samples."""

    direction: np.ndarray  # (n_samples,) q, of length one, orthogonal to the rest of the design
    length: float  # the contrast of coefficients over the coordinate along q
    null_design: np.ndarray  # (n_samples, p - 1) the design without the contrast


def residual_directions(design: np.ndarray) -> np.ndarray:
    """Orthonormal directions that are orthogonal to all columns of the design, (n_samples, n_samples - p)."""
    return np.ascontiguousarray(np.linalg.qr(design, mode="complete")[0][:, design.shape[1] :])


def contrast_direction(design: np.ndarray, contrast: np.ndarray) -> ContrastDirection:
    """With X = Q T and u = T^-T a, the contrast a of coefficients is |u| times the coordinate along q = Q u / |u|."""
    basis, triangle = np.linalg.qr(design)
    turned = np.linalg.solve(triangle.T, contrast)
    length = float(np.linalg.norm(turned))
    others = np.linalg.qr(turned[:, None], mode="complete")[0][:, 1:]
    return ContrastDirection(basis @ (turned / length), length, basis @ others)


def null_groups(group: np.ndarray, reference: int, treated: int) -> np.ndarray:
    """Groups of samples (n_samples,) if reference and treated do not differ; reference -1 are all other groups together."""
    joined = np.unique(group) if reference < 0 else np.array([reference, treated])
    return np.asarray(np.where(np.isin(group, joined), treated, group))


def group_contrast(group: np.ndarray, reference: int, treated: int) -> np.ndarray:
    """Weights of the log means of the groups: treated less reference; reference -1 is the mean of all other samples, (n_groups,)."""
    sizes = np.bincount(group).astype(np.float64)
    weights = np.zeros(len(sizes))
    if reference < 0:
        sizes[treated] = 0
        weights -= sizes / sizes.sum()
    else:
        weights[reference] = -1.0
    weights[treated] = 1.0
    return weights


def group_design(group: np.ndarray, block: np.ndarray | None = None) -> np.ndarray:
    """One column for each group, and for each block but those that the other columns determine, (n_samples, p)."""
    design = (group[:, None] == np.arange(group.max() + 1)).astype(np.float64)
    if block is None:
        return design
    for k in range(1, int(block.max()) + 1):
        wider = np.c_[design, (block == k).astype(np.float64)]
        design = wider if np.linalg.matrix_rank(wider) > design.shape[1] else design
    return design


def group_means(counts: np.ndarray, exposures: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Means of samples with one rate in each group: the sum of counts over the sum of exposures, (n_genes, n_samples)."""
    members = (group[:, None] == np.unique(group)).astype(np.float64)
    rates = (counts @ members) / (np.broadcast_to(exposures, counts.shape) @ members)
    return np.asarray(exposures * (rates @ members.T))


def fitted_means(counts: np.ndarray, exposures: np.ndarray, design: np.ndarray, dispersions: np.ndarray) -> np.ndarray:
    """Means of the negative binomial fit of a design at given dispersions (n_genes,), (n_genes, n_samples)."""
    if design.shape[1] == 1 and np.ptp(design) < ONE_WAY_TOLERANCE * np.abs(design).max():
        return group_means(counts, exposures, np.zeros(len(design), np.intp))
    matrices = design_matrices(design, [])
    log_exposures = np.log(exposures)
    fitted = design_statistics(counts, log_exposures, matrices, dispersions)[1]
    coefficients = matrices.coefficients(fitted, counts, log_exposures)
    return np.exp(np.clip(log_exposures + coefficients @ design.T, -50.0, 50.0))
