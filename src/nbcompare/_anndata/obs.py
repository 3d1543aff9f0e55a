"""Columns of obs, and their values as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nbcompare._anndata.positions import positions_of

if TYPE_CHECKING:
    from anndata import AnnData

Columns = str | Sequence[str]

SEPARATOR = " | "  # between labels that are joined


@dataclass(frozen=True)
class Levels:
    """What one or several obs columns say of each cell."""

    codes: np.ndarray  # (n_cells,) int64, -1 where missing
    labels: np.ndarray  # (n_levels,) object array of str, in the order of the categories, else sorted


def read_obs(adata: AnnData, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of obs in memory, lazily read ones included."""
    positions_of(columns, pd.Index(adata.obs.columns), "column", "adata.obs")
    return in_memory(adata.obs[list(dict.fromkeys(columns))])


def in_memory(frame) -> pd.DataFrame:
    """A data frame, also where AnnData has read it lazily."""
    return frame.to_memory() if hasattr(frame, "to_memory") else frame


def column_names(columns: Columns | None) -> list[str]:
    """The columns as a list, whatever way they were given."""
    return [] if columns is None else [columns] if isinstance(columns, str) else list(columns)


def levels_of(obs: pd.DataFrame, columns: Columns) -> Levels:
    """One level for each value of a column, or for each combination of several columns' values that occurs."""
    return joined_levels([levels_of_one(obs[name], name) for name in column_names(columns)], columns)


def joined_levels(parts: Sequence[Levels], columns: Columns) -> Levels:
    """The combinations of the levels of several columns."""
    if len(parts) == 1:
        return parts[0]
    codes = np.stack([part.codes for part in parts])
    present = (codes >= 0).all(axis=0)
    combinations, of_cell = np.unique(codes[:, present], axis=1, return_inverse=True)
    joined = np.full(codes.shape[1], -1, dtype=np.int64)
    joined[present] = of_cell.ravel()
    words = [part.labels[row] for part, row in zip(parts, combinations, strict=True)]
    labels = as_text([SEPARATOR.join(label) for label in zip(*words, strict=True)])
    return _with_distinct_labels(Levels(joined, labels), columns)


def as_text(values: Sequence[str]) -> np.ndarray:
    """An object array of str, the only text that every version of anndata writes."""
    return np.array(values, dtype=object)


def levels_of_one(column: pd.Series, name: str) -> Levels:
    """The levels of one column: categories in their order, other values sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
    elif column.dtype == object:  # may hold several types, which have no common order: sorted as text
        column = column.astype(pd.CategoricalDtype(sorted(column.dropna().unique(), key=str)))
    else:
        column = column.astype("category")
    values = column.cat.categories
    if values.dtype in (np.float32, np.float16):  # 0.1 is not 0.10000000149011612
        values = values.to_numpy()
    labels = as_text([str(value) for value in values])
    return _with_distinct_labels(Levels(column.cat.codes.to_numpy().astype(np.int64), labels), name)


def _with_distinct_labels(levels: Levels, columns: Columns) -> Levels:
    repeated = pd.Index(levels.labels).duplicated()
    if repeated.any():
        msg = f"Different values of {columns!r} are all written {levels.labels[repeated][0]!r}. Rename one of them."
        raise ValueError(msg)
    return levels
