"""How much more the samples of a comparison vary together in their largest direction than on average: the upper limit of the null spread."""

from __future__ import annotations

import numpy as np
from scipy.linalg import null_space

from nbcompare._nb.inference.common_shift import FEWEST_GENES

FEWEST_DIRECTIONS = 2  # residual directions
LEAST_MEAN = 5.0  # counts a sample in each group
WIDEST = 2.5
BY_CHANCE = (
    1.02  # root of the largest eigenvalue that independent genes may have; what they have beyond it is divided out
)
PRIOR_DEGREES = 4.0  # of the mean square of a gene's residuals
LEAST_DISPERSION = 1e-4


def largest_direction(
    data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    dispersions: tuple[np.ndarray, np.ndarray],
    block: np.ndarray | None = None,
) -> float:
    """Root of the largest eigenvalue of the residuals' Gram matrix over the mean eigenvalue, from 1 to 2.5.

    Residuals are on the variance-stabilised scale, without the means of groups and blocks. With independent genes all directions of the
    samples are alike, also those of a group with a larger dispersion. The result is 1 where there are few genes or fewer than two residual directions.

    Parameters
    ----------
    data
        Counts (n_tests, n_replicates) and exposures, (n_replicates,) or (n_tests, n_replicates), of both groups.
    dispersions
        Of the reference and of the treated group, (n_tests,) each.
    block
        Block of the samples, those of the reference first, (n_samples,).
    """
    reference, exposure1, treated, exposure2 = data
    basis = _residual_directions(reference.shape[1], treated.shape[1], block)
    if basis.shape[1] < FEWEST_DIRECTIONS or len(reference) < FEWEST_GENES:
        return 1.0
    least = np.minimum(reference.mean(axis=1), treated.mean(axis=1))
    chosen = least >= LEAST_MEAN
    if chosen.sum() < FEWEST_GENES:
        chosen = least > 0
    if chosen.sum() < FEWEST_GENES:
        return 1.0
    groups = [(reference, exposure1, dispersions[0]), (treated, exposure2, dispersions[1])]
    parts = [_residuals(y[chosen], l if l.ndim == 1 else l[chosen], phi[chosen]) for y, l, phi in groups]
    if not np.array_equal(*dispersions, equal_nan=True):
        parts = [_of_unit_variance(part) for part in parts]
    residuals = np.concatenate(parts, axis=1)
    found = residuals @ basis
    n_directions, square = basis.shape[1], (found**2).mean(axis=1)
    total = PRIOR_DEGREES + n_directions
    scaled = found / np.sqrt((PRIOR_DEGREES * square.mean() + n_directions * square) / total)[:, None]
    values = np.linalg.eigvalsh(scaled.T @ scaled)
    by_chance = max((1.0 + np.sqrt(n_directions / len(scaled))) / BY_CHANCE, 1.0)  # by the law of Marchenko and Pastur
    return float(np.clip(np.sqrt(values.max() / values.mean()) / by_chance, 1.0, WIDEST))


def _residual_directions(n_reference: int, n_treated: int, block: np.ndarray | None) -> np.ndarray:
    """Orthonormal directions without the means of groups and blocks, (n_samples, n_directions)."""
    labels = [np.repeat([0, 1], [n_reference, n_treated])]
    if block is not None:
        labels.append(np.asarray(block))
    columns = [(one == level).astype(float) for one in labels for level in np.unique(one)]
    return null_space(np.array(columns))


def _residuals(counts: np.ndarray, exposure: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Stabilised counts less the stabilised mean of the group, (n_tests, n_replicates)."""
    phi = np.maximum(np.nan_to_num(dispersion, nan=1.0), LEAST_DISPERSION)[:, None]
    depth = np.broadcast_to(exposure, counts.shape)
    mean = depth * (np.maximum(counts.sum(axis=1), 0.5) / depth.sum(axis=1))[:, None]
    return _stabilised(counts + 0.375, phi) - _stabilised(mean + 0.375, phi)


def _of_unit_variance(residuals: np.ndarray) -> np.ndarray:
    """Residuals of a group over their standard deviation: at large dispersions the stabilised variance still depends on the dispersion."""
    variance = (residuals**2).sum() / (len(residuals) * max(residuals.shape[1] - 1, 1))
    return residuals / np.sqrt(variance) if variance > 0 else residuals


def _stabilised(counts: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """A function of negative binomial counts whose variance is about one."""
    return 2.0 * np.arcsinh(np.sqrt(phi * counts)) / np.sqrt(phi)
