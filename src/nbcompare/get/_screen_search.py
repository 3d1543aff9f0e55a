"""Search of a screen's tests, block after block, of which only those within the limits are kept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

from nbcompare._nb.inference.hierarchical import adjust_hierarchically
from nbcompare.get._comparison_arrays import is_significant
from nbcompare.get._hypothesis import beyond_zero
from nbcompare.get._screen_arrays import read_obs, read_tests

if TYPE_CHECKING:
    from anndata import AnnData

FdrScope = Literal["perturbation", "global", "hierarchical"]


@dataclass(frozen=True)
class ScreenHits:
    """Some tests of the screen: where they are, and how they rank."""

    row: np.ndarray
    column: np.ndarray
    p: np.ndarray
    adjusted: np.ndarray
    beyond: np.ndarray  # orders p-values of zero by their scores

    @classmethod
    def none(cls) -> ScreenHits:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0))

    def __getitem__(self, which: np.ndarray) -> ScreenHits:
        return ScreenHits(self.row[which], self.column[which], self.p[which], self.adjusted[which], self.beyond[which])

    def joined(self, other: ScreenHits) -> ScreenHits:
        return ScreenHits(*(np.concatenate([getattr(one, f.name) for one in (self, other)]) for f in fields(self)))

    def sorted(self) -> ScreenHits:
        """The smallest p-value first, NaN last; those of zero by the size of their scores, other equal ones in the order of the screen."""
        return self[np.lexsort((self.column, self.row, self.beyond, self.p))]

    def first(self, n: int | None) -> ScreenHits:
        """The first so many of the sorted; all, in any order, for None."""
        if n is None or self.p.size <= n:
            return self
        last = np.partition(self.p, n - 1)[n - 1]
        return self[~(self.p > last)].sorted()[np.arange(n)]

    def worst(self, n: int | None) -> float:
        """The p-value above which nothing is among the first so many any more."""
        return np.inf if n is None or self.p.size < n or np.isnan(self.p).any() else float(self.p.max())


@dataclass(frozen=True)
class Adjustment:
    """How the stored p-values are adjusted, and what that says of whole rows."""

    word: str
    least: np.ndarray | None  # (n_perturbations,) no adjusted p-value of the row is below
    of_rows: np.ndarray | None  # (n_perturbations,) for the hierarchical adjustment

    @classmethod
    def of(cls, screen: AnnData, scope: FdrScope) -> Adjustment:
        if scope == "global":
            return cls("pvals_adj_global", None, None)
        overall = read_obs(screen, ["pval", "pval_adj"])  # Simes: the least adjusted p-value of the row
        if scope == "perturbation":
            return cls("pvals_adj", overall["pval"].to_numpy(float), None)
        of_rows = overall["pval_adj"].to_numpy(float)
        return cls("pvals_adj", of_rows, of_rows)

    def may_pass(self, rows: np.ndarray, cutoff: float | None) -> np.ndarray:
        """Rows that can hold a test within the cutoff."""
        return rows if cutoff is None or self.least is None else rows[is_significant(self.least[rows], cutoff)]

    def adjusted(self, stored: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if self.of_rows is None:
            return stored
        return adjust_hierarchically(stored, self.of_rows[rows], self.of_rows)


def read_block(
    screen: AnnData,
    adjustment: Adjustment,
    rows: np.ndarray,
    columns: np.ndarray,
    cutoff: float | None,
    change: tuple[float | None, float | None],
    worst: float,
) -> ScreenHits:
    """The tests of a block of rows within the limits."""
    p = read_tests(screen, "pvals", rows, columns)
    adjusted = adjustment.adjusted(read_tests(screen, adjustment.word, rows, columns), rows)
    keep = p <= worst if np.isfinite(worst) else np.ones(p.shape, bool)
    if cutoff is not None:
        keep &= is_significant(adjusted, cutoff)
    for limit, beyond in zip(change, (np.greater, np.less), strict=True):
        if limit is not None:
            keep &= beyond(read_tests(screen, "logfoldchanges", rows, columns), limit)
    i, j = np.nonzero(keep)
    found, beyond = p[i, j], np.zeros(i.size)
    if (zero := found == 0).any():
        scores = read_tests(screen, "scores", rows, columns)[i, j]
        beyond[zero] = beyond_zero(found[zero], scores[zero])
    return ScreenHits(rows[i], columns[j], found, adjusted[i, j], beyond)
