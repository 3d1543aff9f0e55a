"""A design in coordinates in which neither its coding nor the scale of its columns matters, turned to each contrast.

With X = Q R, columns of Q orthonormal times sqrt(n), coefficients of Q are R b, and a contrast c'b is d'(R b), d = R^-T c. The design of the
contrast is Q turned by an orthonormal matrix whose last columns span the d's: its last coefficients are zero under the hypothesis, and the
ridge of `packed`, the same in all directions, is the same in all designs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nbcompare._nb.dispersion.hat_constants import part_constants
from nbcompare._nb.glm.fit.newton import Designs
from nbcompare._nb.numerics.cholesky import products_of

TOUCHED = 1e-8  # of a column with mean square one
LEVEL_TOUCHED = 1e-6  # the same of its mean over the samples of a level


@dataclass(frozen=True)
class DesignMatrices:
    """The design of the fit (first) and those of the contrasts; D is one more than the number of contrasts, p that of coefficients."""

    rows: np.ndarray  # (D, n_samples, p)
    columns: np.ndarray  # (D, p, n_samples)
    products: np.ndarray  # (D, n_samples, p (p + 1) / 2)
    tested: np.ndarray  # (n_contrasts,) int64, how many of the last columns are tested
    directions: (
        np.ndarray
    )  # (n_contrasts, p), of a contrast of one column, in the coefficients of the fit's design, length one
    length: np.ndarray  # (n_contrasts,) the contrast over its direction, NaN for several columns
    to_coefficients: np.ndarray  # (p, p), from coefficients of the fit's design to those of the design given
    intercept: (
        np.ndarray
    )  # (p,) in coefficients of the design given, whose columns it sums to one; zeros if not `centred`
    centred: bool  # there is one, and no contrast asks for it: genes are fitted around their pooled rate
    touched: np.ndarray  # (n_contrasts, n_samples) bool, samples with weight in the contrast
    group: np.ndarray | None  # (n_samples,) intp, where the design is groups of samples with a mean each
    pairs: list[
        tuple[int, int, float] | None
    ]  # where a contrast is so many times one group's log mean over another's: these, that

    def kernels(self, ratio: np.ndarray) -> Designs:
        """The designs for the kernels; `ratio` (n_samples,) is the dispersion of each sample relative to the gene's."""
        return Designs(self.rows, self.columns, self.products, ratio, self.tested, self.directions)

    @property
    def n_coefficients(self) -> int:
        """Columns of the design."""
        return self.rows.shape[2]

    @property
    def residual_degrees(self) -> int:
        """Samples less coefficients."""
        return self.rows.shape[1] - self.rows.shape[2]

    @property
    def residual_parts(self) -> np.ndarray:
        """What each sample adds to the residual degrees of freedom, (n_samples,): one less its leverage."""
        return np.asarray(1 - np.square(self.rows[0]).sum(axis=1) / len(self.rows[0]))

    def constants(self, parts: np.ndarray, ratio: np.ndarray) -> np.ndarray:
        """`glm_dispersion.part_constants` of the design."""
        return part_constants(self.rows[0] / np.sqrt(len(self.rows[0])), parts, ratio)

    def sides(self, contrast: int, level: np.ndarray | None) -> np.ndarray:
        """Samples that lower and that raise the contrast, (2, n_samples) bool; for one of several columns those with weight in it, twice.

        Samples of a `level` (n_samples,) are on one side, that of their mean weight, and on none if it is zero: they carry information through
        the other columns alone. Without levels, or where it is zero for all of them, each sample has its own side.
        """
        touched = self.touched[contrast]
        if self.tested[contrast] > 1:
            return np.stack([touched, touched])
        weight = self.rows[contrast + 1][:, -1]
        if level is not None:
            codes = np.unique(level, return_inverse=True)[1].reshape(-1)
            mean = (np.bincount(codes, weights=weight) / np.bincount(codes))[codes]
            if np.abs(mean).max() > LEVEL_TOUCHED:
                weight = np.where(touched, mean, 0.0)
        return np.stack([weight < -LEVEL_TOUCHED, weight > LEVEL_TOUCHED])

    def coefficients(self, fitted: np.ndarray, counts: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Coefficients of the design given, from those of the fit's, (n_genes, p)."""
        with np.errstate(divide="ignore"):
            pooled = np.log(counts.sum(axis=1) / np.exp(offset).sum(axis=1)) if self.centred else np.zeros(len(counts))
        return fitted @ self.to_coefficients.T + np.where(np.isfinite(pooled), pooled, 0.0)[:, None] * self.intercept


def design_matrices(design: np.ndarray, contrasts: Sequence[np.ndarray]) -> DesignMatrices:
    """The designs of these contrasts, each (n_coefficients,) or (n_coefficients, k)."""
    n, p = design.shape
    basis, triangle = np.linalg.qr(design)
    basis, triangle = basis * np.sqrt(n), triangle / np.sqrt(n)
    contrasts = [np.asarray(contrast, np.float64).reshape(p, -1) for contrast in contrasts]
    rows = [basis]
    tested, directions, length, touched = [], [], [], []
    for contrast in contrasts:
        turned = np.linalg.solve(triangle.T, contrast)
        k = turned.shape[1]
        complete = np.linalg.qr(turned, mode="complete")[0]
        one = k == 1
        if one:  # with the sign of the contrast
            complete[:, 0] = turned[:, 0] / np.linalg.norm(turned)
        rows.append(basis @ np.concatenate([complete[:, k:], complete[:, :k]], axis=1))
        tested.append(k)
        directions.append(complete[:, 0])
        length.append(np.linalg.norm(turned) if one else np.nan)
        touched.append((np.abs(rows[-1][:, p - k :]) > TOUCHED).any(axis=1))
    intercept = np.linalg.lstsq(design, np.ones(n), rcond=None)[0]
    centred = np.abs(design @ intercept - 1).max() < TOUCHED and all(
        np.abs(contrast.T @ intercept).max() < TOUCHED * np.abs(contrast).max() for contrast in contrasts
    )
    stacked = np.stack(rows)
    columns = np.ascontiguousarray(stacked.transpose(0, 2, 1))
    return DesignMatrices(
        stacked,
        columns,
        np.stack([products_of(one) for one in rows]),
        np.array(tested, np.int64),
        np.array(directions).reshape(len(tested), p),
        np.array(length),
        np.linalg.inv(triangle),
        intercept if centred else np.zeros(p),
        bool(centred),
        np.array(touched, bool).reshape(len(tested), n),
        *_groups(design, contrasts),
    )


def _groups(
    design: np.ndarray, contrasts: Sequence[np.ndarray]
) -> tuple[np.ndarray | None, list[tuple[int, int, float] | None]]:
    """The group of every sample if samples are either alike or free of each other, and contrasts between two groups."""
    cells, group = np.unique(design, axis=0, return_inverse=True)
    if len(cells) != design.shape[1]:
        return None, [None] * len(contrasts)
    return group.reshape(-1).astype(np.intp), [_pair(np.linalg.solve(cells.T, contrast)) for contrast in contrasts]


def _pair(of_cells: np.ndarray) -> tuple[int, int, float] | None:
    """The two groups between which a contrast of group means is taken, and its factor."""
    if of_cells.shape[1] > 1:
        return None
    weight = of_cells[:, 0] / np.abs(of_cells).max()
    used = np.flatnonzero(np.abs(weight) > TOUCHED)
    if len(used) != 2 or abs(weight[used].sum()) > TOUCHED:
        return None
    first, second = used if weight[used[0]] < 0 else used[::-1]
    return int(first), int(second), float(of_cells[second, 0])
