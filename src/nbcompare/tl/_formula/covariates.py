"""The columns of obs that a formula names, one value for each sample: labels as categories, quantities as numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import infer_dtype

from nbcompare._anndata import SampleTable, levels_of, read_obs
from nbcompare._anndata.levels import MISSING_NAMES
from nbcompare._messages import warn
from nbcompare.tl._formula.model_matrix import formula_columns, plain_columns

MOST_NAMED = 5  # samples in a message
NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")  # pandas' names of what an object column holds


@dataclass(frozen=True)
class Covariates:
    """The columns that a formula names."""

    values: pd.DataFrame  # (n_samples, n_columns), categories or numbers
    assumed: list[str]  # columns of numbers that are labels because nothing states that they are quantities


def read_covariates(
    adata: AnnData,
    samples: SampleTable,
    design: str,
    *,
    labels: Collection[str] = (),
    assumed: Collection[str] | None = None,
) -> Covariates:
    """Values of the columns of `design`, labels as categories and quantities as numbers.

    A column of whole numbers that repeat is a label, unless the formula uses it as a number (`I(minute)`), however the
    numbers are spaced. Numbers that do not repeat, or have fractions, are quantities. Columns in `labels` are
    labels unless the formula uses them as numbers. `assumed` gives the answer for numbers that repeat where it was found before, from more samples.

    A column that varies within a sample, or is missing in one, is refused with the names of the samples.
    """
    columns = formula_columns(design, list(map(str, adata.obs.columns)))
    plain, stated = plain_columns(design)
    obs = read_obs(adata, columns)
    used = np.flatnonzero(samples.codes >= 0)
    of_cell = samples.codes[used]
    first_cell = np.empty(len(samples.table), dtype=np.int64)
    first_cell[of_cell[::-1]] = used[::-1]
    values: dict[str, Any] = {}
    found: list[str] = []
    for name in columns:
        column = obs[name]
        codes = pd.factorize(column)[0]  # -1 where missing
        _check_constant(name, samples, of_cell[codes[used] != codes[first_cell][of_cell]], column)
        _check_present(name, samples, np.flatnonzero(codes[first_cell] < 0))
        if name in stated:
            numbers = _numbers_in(column, name)
        else:
            numbers = None if name in labels else _plain_numbers(column)
        if numbers is not None and name in plain and name not in stated:
            repeat = _repeat_whole(numbers.iloc[first_cell]) if assumed is None else name in assumed
            if repeat:
                found.append(name)
                column, numbers = numbers, None  # levels in the order of the numbers
        if numbers is None:
            if name in plain and name not in stated and name not in labels:
                _refuse_text_of_numbers(column.iloc[first_cell], name)
            values[name] = _as_categories(column, name, first_cell)
        else:
            values[name] = _as_numbers(numbers, name, samples, first_cell)
    return Covariates(pd.DataFrame(values, index=pd.Index(samples.names, dtype=object)), found)


def _refuse_text_of_numbers(column: pd.Series, name: str) -> None:
    """Refuse text that reads as numbers with fractions, or as numbers most of which occur once: a quantity, not labels."""
    values = column.dropna()
    if values.dtype.kind in "Mm":
        return
    text = values.astype(str)
    text = text[~text.str.strip().str.lower().isin(MISSING_NAMES)]
    numbers = pd.to_numeric(text, errors="coerce")
    if not len(text) or numbers.isna().any() or not all(isinstance(value, str) for value in values):
        return
    if (numbers % 1 != 0).any() or numbers.nunique() > len(values) / 2 > 1:
        missing = f", apart from {sorted(set(values.astype(str)) - set(text))}" if len(text) < len(values) else ""
        msg = (
            f"adata.obs[{name!r}] holds text that reads as numbers, such as {text.iloc[0]!r}{missing}, and each number would be a level of its own. If it "
            f"is a quantity, convert it: adata.obs[{name!r}] = pd.to_numeric(adata.obs[{name!r}], errors='coerce'). If these are labels, write "
            f"C({_quoted(name)}) in the design."
        )
        raise ValueError(msg)


def warn_of_labels(assumed: Collection[str]) -> None:
    """One warning that names the columns of numbers that are used as labels."""
    if assumed:
        warn(_labels_assumed(assumed))


def with_hint(error: ValueError, assumed: Collection[str]) -> ValueError:
    """The same error, with the columns of numbers that are used as labels, which may be its reason."""
    if assumed:
        error.args = (f"{error.args[0]} {_labels_assumed(assumed)}", *error.args[1:])
    return error


def _labels_assumed(assumed: Collection[str]) -> str:
    names, several = ", ".join(map(repr, assumed)), len(assumed) > 1
    slopes, labels = (" and ".join(f"{word}({_quoted(name)})" for name in assumed) for word in ("I", "C"))
    return (
        f"{names} {'hold' if several else 'holds'} whole numbers that repeat between samples, and {'are' if several else 'is'} used as "
        f"labels, one level for each number. In the design write {slopes} for a slope, or {labels} to confirm the labels."
    )


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"


def _plain_numbers(column: pd.Series) -> pd.Series | None:
    """A column of numbers, also one of Python numbers in an object column; None for text, categories, booleans and dates."""
    if column.dtype.kind in "iuf":
        return column
    if column.dtype == object and infer_dtype(column, skipna=True) in NUMBERS:
        return pd.to_numeric(column)
    return None


def _numbers_in(column: pd.Series, name: str) -> pd.Series | None:
    """Numbers of a column that the formula uses as such, also if they are written as text; None for other text."""
    if column.dtype.kind in "Mm":
        msg = (
            f"The design uses adata.obs[{name!r}] as a number, but it holds dates or times. Make a column of numbers first, such as "
            f"(obs[{name!r}] - obs[{name!r}].min()) / pd.Timedelta('1D')."
        )
        raise ValueError(msg)
    if column.dtype.kind == "b":
        return None
    numbers = _plain_numbers(column)
    if numbers is not None:
        return numbers
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    return None if (numbers.isna() & column.notna()).any() else numbers.astype(np.float64)


def _repeat_whole(numbers: pd.Series) -> bool:
    """Whether all numbers are whole, and at least two samples have the same one."""
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    return bool(
        np.isfinite(values).all() and (values == np.round(values)).all() and len(np.unique(values)) < len(values)
    )


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
