"""Two groups in blocks: which samples lie where, and what the design alone says of dispersion statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion.hat_constants import constants_of


class BlockedGroups(NamedTuple):
    """The samples of two groups in blocks, for the kernels."""

    members: np.ndarray  # (n_samples,) int64, sorted by block and group
    bounds: (
        np.ndarray
    )  # (n_blocks, 3) int64: where the first group, the second and the next block start among the members
    dispersion_ratio: np.ndarray  # (2,) dispersion of the groups relative to the trend


class BlockedData(NamedTuple):
    """Counts of two groups in blocks, and the dispersions expected of the genes."""

    counts: np.ndarray  # (n_genes, n_samples)
    exposure: np.ndarray  # (1 or n_genes, n_samples)
    groups: BlockedGroups
    trend: np.ndarray  # (n_genes,) dispersion expected at the gene's mean
    log_dispersion_var: float
    error: float  # variance of the trend itself


class Scratch(NamedTuple):
    """Arrays that the kernels write on."""

    cells: np.ndarray  # (n_blocks, 6)
    rates: np.ndarray  # (n_blocks,)
    sums: np.ndarray  # (n_blocks, 2)
    precision: np.ndarray  # (n_samples,)


@dataclass(frozen=True)
class MatchedDesign:
    """Two groups in blocks, the samples sorted by block and group, and what the design says of dispersion statistics."""

    members: np.ndarray  # (n_samples,) int64
    bounds: (
        np.ndarray
    )  # (n_blocks, 3) int64: where the first group, the second and the next block start among the members
    constants: np.ndarray  # (2,) kN and kP, see `glm_dispersion.design_constants`
    sizes: np.ndarray  # (2,) samples of the groups
    residual: int  # degrees of freedom

    @property
    def informative(self) -> np.ndarray:
        """Blocks with samples of both groups, (n_blocks,) bool: they alone inform the difference."""
        return np.asarray((np.diff(self.bounds, axis=1) > 0).all(axis=1))

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each sample is of the second group, 0 or 1, and its block."""
        second, block = np.zeros((2, len(self.members)), np.intp)
        for r, (start, middle, stop) in enumerate(self.bounds):
            block[self.members[start:stop]] = r
            second[self.members[middle:stop]] = 1
        return second, block

    def groups(self, dispersion_ratio: np.ndarray) -> BlockedGroups:
        """The samples for the kernels."""
        return BlockedGroups(self.members, self.bounds, dispersion_ratio)

    def data(self, pseudobulk: Pseudobulk, trend: Trend, dispersion_ratio: np.ndarray) -> BlockedData:
        """The counts of this design's samples for the kernels."""
        return BlockedData(
            pseudobulk.counts,
            pseudobulk.exposures,
            self.groups(dispersion_ratio),
            trend.at(pseudobulk.counts.mean(axis=1)),
            trend.log_dispersion_var,
            trend.error,
        )

    def scratch(self) -> Scratch:
        """Memory for the kernels."""
        n_blocks = len(self.bounds)
        return Scratch(
            np.empty((n_blocks, 6)), np.empty(n_blocks), np.empty((n_blocks, 2)), np.empty(len(self.members))
        )


def matched_design(pseudobulk: Pseudobulk, treated: int) -> MatchedDesign:
    """Cells of blocks and groups, the treated group second."""
    second = (pseudobulk.group == treated).astype(np.intp)
    block = np.zeros_like(second) if pseudobulk.block is None else pseudobulk.block
    cell = 2 * block + second
    members = np.argsort(cell, kind="stable").astype(np.int64)
    starts = np.searchsorted(cell[members], np.arange(2 * pseudobulk.n_blocks + 1)).astype(np.int64)
    bounds = np.stack([starts[:-1:2], starts[1::2], starts[2::2]], axis=1)
    constants, residual = block_constants(second, block)
    return MatchedDesign(members, np.ascontiguousarray(bounds), constants, np.bincount(second), residual)


def block_constants(group: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, int]:
    """`glm_dispersion.design_constants` of groups and blocks, which may be collinear, and the residual degrees of freedom."""
    x = np.column_stack([block[:, None] == np.unique(block), group]).astype(np.float64)
    u, values, _ = np.linalg.svd(x, full_matrices=False)
    basis = u[:, values > 1e-9 * values[0]]
    return np.array(constants_of(basis)), len(x) - basis.shape[1]
