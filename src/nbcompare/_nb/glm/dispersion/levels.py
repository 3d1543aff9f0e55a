"""Dispersion ratios of the levels of a factor in a design: `shared` and `dispersion_ratio` for designs that are not groups of samples.

Residuals of a level are those of the fit of all samples, and its statistic counts what leverages leave them. The policy is that of `dispersion_ratio`:
a ratio is relative to the other levels and at least one, and levels of higher dispersion do not enter the trend.
"""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Trend
from nbcompare._nb.dispersion.high_dispersion_groups import MIN_RATIO, MIN_RATIO_OF_TWO, is_suspected, robust_ratio
from nbcompare._nb.dispersion.trend import MIN_GENES_FOR_TREND, evenly_by_total
from nbcompare._nb.glm.dispersion.trend import design_statistics, fit_design_trend, statistics_of_parts
from nbcompare._nb.glm.fit.design import DesignMatrices

FEWEST_RESIDUALS = 1.0 - 1e-6  # degrees of freedom of a level with fewer, of which nothing is known


class Levels:
    """Samples of a design by level, and the genes by which levels are compared."""

    def __init__(
        self, counts: np.ndarray, offset: np.ndarray, matrices: DesignMatrices, level: np.ndarray, usable: np.ndarray
    ) -> None:
        total = counts.sum(axis=1)
        genes = evenly_by_total(np.flatnonzero(usable & (total > 0)), total, MIN_GENES_FOR_TREND)
        self.counts = np.ascontiguousarray(counts[genes])
        self.offset = offset if len(offset) == 1 else np.ascontiguousarray(offset[genes])
        self.mean = self.counts.mean(axis=1)
        self.matrices = matrices
        self.parts = (level == np.arange(level.max() + 1)[:, None]).astype(np.float64)  # (n_levels, n_samples)
        self.sizes = self.parts.sum(axis=1)
        self.free = self.parts @ matrices.residual_parts

    def part(self, levels: np.ndarray) -> np.ndarray:
        """Samples of these levels (n_levels,) bool, (n_samples,) float64."""
        return np.asarray(levels.astype(np.float64) @ self.parts)

    def trend(self, levels: np.ndarray, ratios: np.ndarray) -> Trend:
        """Trend of these levels, by the genes of the comparison."""
        return fit_design_trend(
            self.counts,
            self.offset,
            self.matrices,
            np.ones(len(self.counts), bool),
            ratio=ratios @ self.parts,
            part=self.part(levels),
        )

    def ratio_to(self, trend: Trend, levels: np.ndarray, ratios: np.ndarray) -> float:
        """The ratio to the trend of these levels together, those of the others being `ratios`."""
        expected = trend.at(self.mean)
        part = self.part(levels)
        started: list[np.ndarray] = []

        def statistics(ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            of_samples = np.where(part > 0, ratio, ratios @ self.parts)
            out, coefficients = design_statistics(
                self.counts,
                self.offset,
                self.matrices,
                expected,
                ratio=of_samples,
                part=part,
                coefficients=started[-1] if started else None,
            )
            started.append(coefficients)
            return out[:, 0], out[:, 1], np.minimum(expected * out[:, 2], 1.0)

        return robust_ratio(statistics, trend.log_dispersion_var)


def level_ratios(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    level: np.ndarray | None,
    usable: np.ndarray,
    *,
    n_threads: int = 1,
) -> tuple[np.ndarray, Trend]:
    """Dispersions of the samples relative to the gene's, (n_samples,), and the trend that they go with; `level` (n_samples,) are codes."""
    none = np.ones(counts.shape[1])
    trend = fit_design_trend(counts, offset, matrices, usable, n_threads=n_threads)
    if level is None or trend.n_genes == 0:
        return none, trend
    levels = Levels(counts, offset, matrices, np.unique(level, return_inverse=True)[1].reshape(-1), usable)
    known = levels.free >= FEWEST_RESIDUALS
    if known.sum() < 2:
        return none, trend
    ratios = _of_two(levels) if len(known) == 2 else _of_many(levels, known, trend)
    if (ratios == 1).all():
        return none, trend
    high_dispersion = ratios >= (MIN_RATIO_OF_TWO if len(known) == 2 else MIN_RATIO)
    of_samples = np.asarray(ratios @ levels.parts)
    part = levels.part(~high_dispersion) if (known & ~high_dispersion).any() else None
    return of_samples, fit_design_trend(
        counts, offset, matrices, usable, ratio=of_samples, part=part, n_threads=n_threads
    )


def _of_two(levels: Levels) -> np.ndarray:
    """Of two levels the one with fewer samples may be noisier than the other, (2,)."""
    ratios = np.ones(2)
    small = int(np.argmin(levels.sizes))
    if levels.sizes[0] == levels.sizes[1]:
        return ratios
    large = np.arange(2) != small
    alone = levels.trend(large, ratios)
    of_large = levels.ratio_to(alone, large, ratios)
    ratios[small] = max(1.0, levels.ratio_to(alone, ~large, ratios) / of_large)
    return ratios


def _of_many(levels: Levels, known: np.ndarray, trend: Trend) -> np.ndarray:
    """Levels that vary more than the others, (n_levels,), in two rounds: see `shared`."""
    ratios = np.ones(len(known))
    out = statistics_of_parts(
        levels.counts, levels.offset, levels.matrices, trend.at(levels.mean), ratio=None, parts=levels.parts
    )[0]
    by_level = out[:, :, :2].sum(axis=0)
    others = by_level.sum(axis=0) - by_level
    typical = others[:, 0] / np.maximum(others[:, 1], 1e-9)
    suspected = is_suspected(by_level, typical, 1.0) & known
    suspects = np.flatnonzero(suspected)
    if not suspects.size:
        return ratios
    for _ in range(2):
        others_known = known & ~suspected if (known & ~suspected).any() else known
        of_others = levels.ratio_to(trend, others_known, ratios)
        for j in suspects:
            own = np.arange(len(known)) == j
            ratios[j] = max(1.0, levels.ratio_to(trend, own, np.where(own, 1.0, ratios)) / of_others)
        ratios[ratios < MIN_RATIO] = 1.0
        suspected = ratios > 1
        if not (known & ~suspected).any():
            break
        trend = levels.trend(~suspected, ratios)
    return ratios
