"""The columns of obs that a formula names, one value for each sample: labels as categories, numbers as they are."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import SampleTable, levels_of, read_obs

MOST_NAMED = 5  # samples in a message


def read_covariates(
    adata: AnnData, samples: SampleTable, columns: list[str], *, labels: Collection[str] = ()
) -> pd.DataFrame:
    """Values (n_samples, n_columns) of these columns; those in `labels` are categories even if they are numbers.

    A column that varies within a sample, or is missing in one, is refused with the names of the samples.
    """
    obs = read_obs(adata, columns)
    used = np.flatnonzero(samples.codes >= 0)
    of_cell = samples.codes[used]
    first_cell = np.empty(len(samples.table), dtype=np.int64)
    first_cell[of_cell[::-1]] = used[::-1]
    values: dict[str, Any] = {}
    for name in columns:
        column = obs[name]
        codes = pd.factorize(column)[0]  # -1 where missing
        _check_constant(name, samples, of_cell[codes[used] != codes[first_cell][of_cell]], column)
        _check_present(name, samples, np.flatnonzero(codes[first_cell] < 0))
        if name in labels or column.dtype.kind not in "iuf":
            values[name] = _as_categories(column, name, first_cell)
        else:
            values[name] = _as_numbers(column, name, samples, first_cell)
    return pd.DataFrame(values, index=pd.Index(samples.names, dtype=object))


def _as_categories(column: pd.Series, name: str, first_cell: np.ndarray) -> pd.Categorical:
    """Levels in the order of the categories, else sorted; those that no sample has are left out."""
    levels = levels_of(column.iloc[first_cell].to_frame(name), name)
    return pd.Categorical.from_codes(levels.codes, pd.Index(levels.labels))


def _as_numbers(column: pd.Series, name: str, samples: SampleTable, first_cell: np.ndarray) -> np.ndarray:
    whole = column.dtype.kind in "iu"
    values = column.iloc[first_cell].to_numpy(np.int64 if whole else np.float64)
    if (bad := np.flatnonzero(~np.isfinite(values))).size:
        msg = f"adata.obs[{name!r}] is infinite in {_named(samples, bad)}. Leave these samples out, or mend the column."
        raise ValueError(msg)
    return values


def warn_of_codes(covariates: pd.DataFrame, slopes: Collection[str]) -> None:
    """Whole numbers 1, 2, ..., that repeat are mostly labels of batches or donors, and a slope over them means nothing."""
    for name in slopes:
        values, repeats = np.unique(covariates[name], return_counts=True)
        counted = len(values) > 2 and values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values)))
        if covariates[name].dtype.kind in "iu" and counted and (repeats > 1).all():
            msg = (
                f"{name!r} holds the whole numbers {values[0]} to {values[-1]} and is taken for a quantity: one slope. If they are "
                f"labels, write C({name}) in the design; if it is a quantity, make the column float to be rid of this warning."
            )
            warnings.warn(msg, UserWarning, stacklevel=6)


def _check_constant(name: str, samples: SampleTable, mixed: np.ndarray, column: pd.Series) -> None:
    mixed = np.unique(mixed)
    if not mixed.size:
        return
    if column.dtype.kind == "f":
        advice = "Average it over the cells of a sample first, or take a column that belongs to samples."
    else:
        advice = (
            "A sample has one value of each column of the design: add the column to groupby if it is compared, or to "
            "replicate_key, which splits the samples by it."
        )
    msg = f"design names {name!r}, which has several values within {_named(samples, mixed)}. {advice}"
    raise ValueError(msg)


def _check_present(name: str, samples: SampleTable, missing: np.ndarray) -> None:
    if missing.size:
        msg = (
            f"adata.obs[{name!r}] is missing in {_named(samples, missing)}. A design needs every value: fill it in, leave these "
            f"samples out, or leave {name!r} out of the design."
        )
        raise ValueError(msg)


def _named(samples: SampleTable, which: np.ndarray) -> str:
    names = ", ".join(repr(samples.names[i]) for i in which[:MOST_NAMED])
    return f"{which.size} of {len(samples.table)} samples: {names}{', ...' if which.size > MOST_NAMED else ''}"
