"""The samples of a call: which cells they are, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .obs import SEPARATOR

KNOWN = "cells_known"  # column of the table of samples, where some numbers of cells are unknown
TINY = 10  # cells


@dataclass(frozen=True)
class SampleTable:
    """The samples, in the order of splits (if asked for), then conditions, then replicates."""

    codes: np.ndarray  # (n_cells,) int64, row of `table`; -1 for a cell that is not used
    table: (
        pd.DataFrame
    )  # split, condition, replicate, block (split, block if asked for), n_cells; counts once they are summed
    n_cells_excluded: dict[str, int]  # reason -> number of cells
    dropped: pd.DataFrame  # split (if asked for), condition, replicate, n_cells, counts, reason
    conditions: tuple[str, ...] = ()  # those that occur, in order, samples dropped later included
    splits: tuple[str, ...] = ()  # the same of the splits

    @property
    def label(self) -> list[str]:
        """The columns that name a sample."""
        return ["split", "condition", "replicate"] if self.splits else ["condition", "replicate"]

    @property
    def names(self) -> list[str]:
        """`condition | replicate` of each sample, the split before them."""
        return [SEPARATOR.join(words) for words in self.table[self.label].itertuples(index=False, name=None)]

    @property
    def tiny(self) -> np.ndarray:
        """Which samples are known to be the sum of few cells, (n_samples,) bool; none where every row is a sample."""
        n_cells = self.table["n_cells"].to_numpy()
        return cells_known(self.table) & (n_cells < TINY) & bool((n_cells > 1).any())

    def of_cells(self, min_cells: int) -> SampleTable:
        """The samples of this many cells or more, and those whose number of cells is unknown."""
        kept = (self.table["n_cells"] >= min_cells).to_numpy() | ~cells_known(self.table)
        table = self.table[kept].reset_index(drop=True)
        return replace(self, codes=renumbered(self.codes, kept), table=table)

    def of_split(self, split: str) -> SampleTable:
        """The samples of one split as a data set of their own."""
        kept = (self.table["split"] == split).to_numpy()
        return replace(
            self,
            codes=renumbered(self.codes, kept),
            table=self.table[kept].drop(columns="split").reset_index(drop=True),
            dropped=self.dropped[self.dropped["split"] == split].drop(columns="split").reset_index(drop=True),
            splits=(),
        )


def cells_known(table: pd.DataFrame) -> np.ndarray:
    """Of which samples the number of cells is known, (n_samples,) bool."""
    return table[KNOWN].to_numpy(bool) if KNOWN in table else np.ones(len(table), bool)


def renumbered(codes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Codes of the kept samples counted anew from 0, -1 for the cells of the others."""
    return np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)[codes]
