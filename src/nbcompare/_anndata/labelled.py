"""Numbers that a user gives for rows, genes, coefficients or tests, as an array in our order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

SHOWN = 5  # names in a message


def numbers_of(
    values: Any, axes: Mapping[str, Sequence[Any] | pd.Index | None], argument: str, needed: str = ""
) -> np.ndarray:
    """Numbers as a float64 array with one axis for each of `axes`, which maps a noun ("row", "gene") to its labels.

    A Series, DataFrame, dict or xarray object is aligned by its labels, all of which must match. Arrays and lists are taken by
    position, and so is a pandas object with the default index 0, 1, 2, ..., which names nothing. An axis whose labels are
    None has any length. `needed` ends the message about a wrong shape. Missing values become NaN and are left to the caller.
    """
    values = as_labelled(values)
    if isinstance(values, list | tuple) and any(is_labelled(part) for part in values):
        msg = (
            f"{argument} is a {type(values).__name__} of {type(next(filter(is_labelled, values))).__name__} objects, whose labels "
            "would be ignored. Give one Series or DataFrame, or an array by position."
        )
        raise ValueError(msg)
    if isinstance(values, pd.DataFrame) and len(axes) == 1:
        msg = (
            f"{argument} has shape {values.shape}, but one number is needed for each {next(iter(axes))}: give one column of the "
            f"DataFrame, such as {argument}[{values.columns[0] if len(values.columns) else 'name'!r}]."
        )
        raise ValueError(msg)
    indices = [values.index] if isinstance(values, pd.Series) else []
    indices = [values.index, values.columns] if isinstance(values, pd.DataFrame) else indices
    array = as_floats(values, argument)
    if len(indices) != len(axes) or array.ndim != len(axes):
        _check_shape(array, axes, argument, needed)
        return array
    kind = type(values).__name__
    for axis, (index, (noun, labels)) in enumerate(zip(indices, axes.items(), strict=True)):
        if labels is not None and _has_labels(index, _as_labels(labels), argument, noun):
            array = array.take(_places(index, _as_labels(labels), argument, noun, kind), axis=axis)
    _check_shape(array, axes, argument, needed)
    return array


def as_labelled(values: Any) -> Any:
    """A dict as a Series, an xarray object as its pandas equivalent; anything else as it is."""
    if isinstance(values, Mapping):
        return pd.Series(list(values.values()), index=pd.Index(list(values), dtype=object, tupleize_cols=False))
    if type(values).__module__.split(".")[0] == "xarray" and hasattr(values, "to_pandas"):
        return values.to_pandas()
    return values


def is_labelled(values: Any) -> bool:
    """Whether the values carry labels."""
    return isinstance(as_labelled(values), pd.Series | pd.DataFrame)


def as_floats(values: Any, argument: str) -> np.ndarray:
    """Numbers as float64 in the shape they have, missing ones as NaN; refuses text and dates. Labels are dropped."""
    if hasattr(values, "toarray"):
        values = values.toarray()
    try:
        array = values.to_numpy() if isinstance(values, pd.DataFrame) else np.asarray(values)
    except ValueError as error:
        msg = f"{argument} has no shape: its rows differ in length, but one number is needed in each place."
        raise ValueError(msg) from error
    if array.dtype.kind == "O":
        missing = pd.isna(array)
        for value in array[~missing]:
            if not isinstance(value, Real | np.bool_):
                msg = f"{argument} holds {value!r} ({type(value).__name__}), but numbers are needed."
                raise ValueError(msg)
        array = np.where(missing, np.nan, array)
    elif array.dtype.kind not in "biuf":
        first = f" such as {array.flat[0]!s}" if array.size else ""
        msg = f"{argument} holds values of type {array.dtype}{first}, but numbers are needed. Convert them first."
        raise ValueError(msg)
    array = array.astype(np.float64, copy=False)
    hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    return array if hidden is None else np.where(hidden, np.nan, array)


def _check_shape(
    array: np.ndarray, axes: Mapping[str, Sequence[Any] | pd.Index | None], argument: str, needed: str
) -> None:
    lengths = [None if labels is None else len(labels) for labels in axes.values()]
    if array.ndim == len(axes) and all(n in (None, m) for n, m in zip(lengths, array.shape, strict=True)):
        return
    each = " and ".join(f"each of the {n} {noun}s" for noun, n in zip(axes, lengths, strict=True) if n is not None)
    msg = f"{argument} has shape {array.shape}, but {needed or f'one number is needed for {each}.'}"
    raise ValueError(msg)


def _as_labels(labels: Sequence[Any] | pd.Index) -> pd.Index:
    """Labels as text, as AnnData holds them: 101 and "101" are the same name."""
    return pd.Index([str(label) for label in labels], dtype=object)


def _has_labels(index: pd.Index, ours: pd.Index, argument: str, noun: str) -> bool:
    """Whether an index names anything; the default one of pandas does not."""
    if not isinstance(index, pd.RangeIndex) or index.start != 0 or index.step != 1:
        return True
    given = _as_labels(index)
    if len(given) == len(ours) and not given.equals(ours) and not len(ours.difference(given)):
        msg = (
            f"{argument} has the default index 0, 1, 2, ..., and the {noun}s have these names in another order, so it is unclear whether "
            f"labels or positions are meant. Set the index to the names of the {noun}s, or pass {argument}.to_numpy() to match by position."
        )
        raise ValueError(msg)
    return False


def _places(index: pd.Index, ours: pd.Index, argument: str, noun: str, kind: str) -> np.ndarray:
    """Where each of our labels is in the index; refuses what does not match one to one."""
    given = _as_labels(index)
    if given.equals(ours) and ours.is_unique:
        return np.arange(len(ours))
    repeated, own = given[given.duplicated()].unique(), ours[ours.duplicated()].unique()
    missing, superfluous = ours[~ours.isin(given)].unique(), given[~given.isin(ours)].unique()
    faults = [
        f"{len(names)} {what} ({_some(names)})"
        for names, what in (
            (repeated, "of its labels occur more than once"),
            (own, f"of the names of {noun}s occur more than once"),
            (missing, f"of the {len(ours)} {noun}s have no number"),
            (superfluous, f"of its labels name no {noun}"),
        )
        if len(names)
    ]
    if faults:
        transposed = " Perhaps it must be transposed (.T)." if kind == "DataFrame" and len(missing) == len(ours) else ""
        msg = (
            f"{argument} is a {kind} and is matched by its labels, but {'; '.join(faults)}.{transposed} Give each {noun} exactly one label, "
            f"for example with {argument}.loc[...], or pass an array ({argument}.to_numpy()) to match by position."
        )
        raise ValueError(msg)
    return given.get_indexer(ours)


def _some(names: pd.Index) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
