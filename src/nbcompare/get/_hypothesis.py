"""What a small p-value of a comparison means: the only place where tables, exports and figures ask what the call tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nbcompare.get._comparison_arrays import Column, stored_splits

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["changed", "larger", "smaller", "any"]
QUIET = "not significant"  # tested genes that are not significant


@dataclass(frozen=True)
class Hypothesis:
    """What the test of a comparison shows where its p-value is small."""

    kind: Kind
    threshold: float = 0.0  # absolute log2 fold change, of "larger" and "smaller"
    n_coefficients: int = 1  # tested together, of "any"

    @property
    def has_direction(self) -> bool:
        """Whether a significant gene went up or down."""
        return self.kind in ("changed", "larger")

    @property
    def has_effect(self) -> bool:
        """Whether the comparison has one log2 fold change."""
        return self.kind != "any"

    @property
    def words(self) -> str:
        """What is shown of a significant gene, for legends."""
        if self.kind == "smaller":
            return f"|log2 FC| < {self.threshold:g}"
        return f"|log2 FC| > {self.threshold:g}" if self.kind == "larger" else "changed"

    @property
    def beyond(self) -> str:
        """The threshold that a change was tested to exceed, to follow "up", "down" or the name of an axis; empty without one."""
        return f", {self.words}" if self.kind == "larger" else ""

    def masks(self, table: pd.DataFrame, significant: np.ndarray) -> dict[str, np.ndarray]:
        """The tested genes by what was shown of each, under the words of the legend."""
        tested = table["pvals"].notna().to_numpy()
        if not self.has_direction:
            return {self.words: significant, QUIET: tested & ~significant}
        change = table["logfoldchanges"].to_numpy()
        down, up = significant & (change < 0), significant & (change > 0)
        return {"down": down, "up": up, QUIET: tested & ~(down | up)}

    def word_of(self, change: float) -> str:
        """What is shown of one significant gene."""
        if not self.has_direction:
            return self.words
        return "up" if change > 0 else "down"

    def check_effect(self, name: str, what: str) -> None:
        """Refuse a table or figure of log2 fold changes for a test of several coefficients."""
        if not self.has_effect:
            msg = (
                f"{name!r} tests {self.n_coefficients} coefficients together, so it has no log2 fold change, which {what} needs. "
                "nbcompare.pl.gene, nbcompare.pl.pvalues and nbcompare.get.nb_compare_df show its results. For fold changes test "
                "its parts as contrasts of their own."
            )
            raise ValueError(msg)

    def check_cutoff(self, lfc_cutoff: float) -> None:
        """Refuse a least fold change where the test shows that changes are small."""
        if self.kind == "smaller" and lfc_cutoff > 0:
            msg = (
                f"lfc_cutoff is {lfc_cutoff:g}, but these tests (alternative='less_abs') show that a change is smaller than "
                f"{self.threshold:g}. Leave lfc_cutoff out."
            )
            raise ValueError(msg)


def hypothesis_of(results: Mapping[str, Any], column: Column) -> Hypothesis:
    """What a stored comparison of `nb_compare` tested."""
    n_coefficients = _n_coefficients(results, column)
    if n_coefficients > 1:
        return Hypothesis("any", n_coefficients=n_coefficients)
    params = results["params"]
    threshold = float(params.get("lfc_threshold") or 0)
    if threshold == 0:
        return Hypothesis("changed")
    return Hypothesis("smaller" if params.get("alternative") == "less_abs" else "larger", threshold)


def _n_coefficients(results: Mapping[str, Any], column: Column) -> int:
    """How many coefficients the comparison tests together; 1 where nothing says so."""
    design = results.get("design", {})
    if stored_splits(results):
        design = design.get(str(column.split_number), {})
    if "contrast_of" not in design:
        return 1
    every = [str(name) for name in results["comparisons"]]
    names = [str(name) for name in design.get("comparisons", dict.fromkeys(every))]
    return int(np.sum(np.asarray(design["contrast_of"]) == names.index(column.group))) if column.group in names else 1


def order_of_evidence(p_value: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Positions from the smallest p-value up, NaN last; p-values of zero by the size of their scores, other equal ones as they stand."""
    return np.lexsort((beyond_zero(p_value, score), p_value))


def beyond_zero(p_value: np.ndarray, score: np.ndarray) -> np.ndarray:
    """A key that orders p-values that are too small for a number, the larger score first; 0 elsewhere."""
    size = np.nan_to_num(np.abs(np.asarray(score, float)), nan=0.0)
    return np.where(np.asarray(p_value) == 0, -size, 0.0)
