"""What a row stands for: one cell, a known number of cells, or a sample whose number of cells is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nbcompare._anndata.obs import read_obs
from nbcompare._anndata.sample_table import KNOWN, SampleTable
from nbcompare._messages import shown

if TYPE_CHECKING:
    from anndata import AnnData


COLUMNS = ("psbulk_cells", "psbulk_n_cells", "n_obs_aggregated")  # of this package and decoupler, of scanpy's aggregate
MOST_LANES = 8  # rows of one sample; with more, rows are cells
CELLS_A_GROUP = 20  # more rows a group than this, each with fewer counts than the next line's, look like cells
COUNTS_OF_A_SAMPLE = 100_000
COUNTS_OF_A_GENE = 30  # mean count of a gene; cells have fewer unless they are sequenced as deep as samples


def cells_column(adata: AnnData) -> str | None:
    """The column of obs that says how many cells each row is the sum of."""
    return next((name for name in COLUMNS if name in adata.obs.columns), None)


def with_cells(adata: AnnData, samples: SampleTable, *, row_is_sample: bool) -> SampleTable:
    """The samples with their numbers of cells; `cells_known` is False where rows are samples, and `n_cells` then counts rows.

    A column of numbers of cells adds up, and a missing value in it is an unknown number. Without such a column each row is a sample
    if the caller says so; otherwise `checked_rows` decides when the counts are known.
    """
    used = samples.codes >= 0
    n_rows = np.bincount(samples.codes[used], minlength=len(samples.table))
    column = cells_column(adata)
    if column is None:
        table = samples.table.assign(n_cells=n_rows)
        return replace(samples, table=table.assign(**{KNOWN: False}) if row_is_sample else table)
    cells = _numbers(adata, column)
    missing = np.bincount(samples.codes[used], np.isnan(cells[used]), len(samples.table)) > 0
    summed = np.bincount(samples.codes[used], np.nan_to_num(cells[used]), len(samples.table))
    table = samples.table.assign(n_cells=np.where(missing, n_rows, summed.round()).astype(np.int64))
    return replace(samples, table=table.assign(**{KNOWN: ~missing}) if missing.any() else table)


def may_be_samples(adata: AnnData, samples: SampleTable) -> bool:
    """Whether rows without a number of cells are so few a sample that they can be samples or their lanes."""
    if KNOWN in samples.table or cells_column(adata) is not None:
        return False
    return bool(samples.table["n_cells"].median() <= MOST_LANES)


def checked_rows(samples: SampleTable, counts: np.ndarray, n_genes: int) -> SampleTable:
    """The same where rows are samples, counts (n_samples,): deep ones, or one row each of few a group."""
    per_row = float(np.median(counts / samples.table["n_cells"].to_numpy()))
    one_each = bool((samples.table["n_cells"] == 1).all()) and rows_a_group(samples) <= CELLS_A_GROUP
    deep = per_row >= COUNTS_OF_A_SAMPLE or per_row >= COUNTS_OF_A_GENE * n_genes
    return replace(samples, table=samples.table.assign(**{KNOWN: False})) if deep or one_each else samples


def without_known(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is stored."""
    return table.drop(columns=KNOWN, errors="ignore")


def rows_a_group(samples: SampleTable) -> float:
    """The median number of samples of a group (of a split)."""
    return float(samples.table[samples.label[:-1]].value_counts().median())


def _numbers(adata: AnnData, column: str) -> np.ndarray:
    """Numbers of cells of the rows, NaN where unknown."""
    values = read_obs(adata, [column])[column]
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(float)
    wrong = (
        (np.isnan(numbers) & values.notna().to_numpy()) | (numbers < 0) | (numbers != np.floor(np.nan_to_num(numbers)))
    )
    wrong &= ~(np.isnan(numbers) & values.isna().to_numpy())
    if wrong.any() or values.dtype == bool:
        first = values[wrong].iloc[0] if wrong.any() else values.iloc[0]
        msg = (
            f"adata.obs[{column!r}] holds {shown(first)} for {adata.obs_names[int(np.argmax(wrong))]!r}, but says how many cells each row is the "
            "sum of: whole numbers, 0 or more, missing where unknown. Correct the column, or remove it if it means something else."
        )
        raise ValueError(msg)
    return numbers
