"""Arguments made plain on entry: text, numbers, arrays and lists of text, which every file can hold."""

from __future__ import annotations

from collections.abc import Mapping, Set
from os import PathLike, fspath
from typing import Any

import numpy as np
import pandas as pd

from .levels import in_order, is_one_level, level_list, level_name

COLUMNS = ("groupby", "replicate_key", "block_key", "split_by", "guide_key")  # names of columns of obs
LEVELS = ("groups",)  # values of such columns
AS_GIVEN = ("size_factors", "offset", "contrast", "prior")  # read by functions of their own, with their labels


def plain_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, as they are used and stored from there on."""
    return {name: _plain_argument(value, name) for name, value in params.items()}


def plain_columns(columns: Any, argument: str) -> str | list[str] | None:
    """The name of a column, or a list of names, from any collection; those of a set in the order of the alphabet."""
    if columns is None or isinstance(columns, str):
        return None if columns is None else str(columns)
    names = None if is_one_level(columns) else in_order(columns)
    if names is None or not all(isinstance(name, str) for name in names):
        found = "numbers or other values" if names else repr(columns)
        msg = f"{argument} is {found}, but must be the name of a column of .obs, or a list of names."
        raise TypeError(msg)
    if not names:
        msg = f"{argument} is empty. Pass the name of a column of .obs, or several names."
        raise ValueError(msg)
    return [str(name) for name in names]


def plain_levels(levels: Any) -> str | list[str] | None:
    """A level, or a list of levels each named once, as text, from any collection."""
    if levels is None:
        return None
    return level_name(levels) if is_one_level(levels) else level_list(levels)


def plain(value: Any) -> Any:
    """A value as files can hold it: Python's own numbers and text, arrays without labels, lists and dicts of these."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, pd.Series | pd.Index | pd.DataFrame):
        return value.to_numpy()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return [plain(one) for one in in_order(value)] if isinstance(value, Set) else value


def _plain_argument(value: Any, name: str) -> Any:
    if name in AS_GIVEN and not isinstance(value, str):
        return value
    if name in COLUMNS:
        return plain_columns(value, name)
    return plain_levels(value) if name in LEVELS else plain(value)
