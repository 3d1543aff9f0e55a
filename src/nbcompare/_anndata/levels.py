"""Names of levels: what a user calls a level, and levels whose names look like mistakes."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata.obs import SEPARATOR, Columns, Levels, column_names, levels_of, read_obs
from nbcompare._messages import warn

Level = str | float | bool | np.generic | datetime.date  # what a user may call a level; it is stored as text

MISSING_NAMES = ("", "nan", "na", "n/a", "none", "<na>")  # in lower case, without spaces at the ends
MOST_NAMED = 5


def is_one_level(values: Any) -> bool:
    """Whether this is one level and not a collection of levels: text, a number, a truth value, a date."""
    if isinstance(values, np.ndarray):
        return values.ndim == 0
    return isinstance(values, str | bytes) or not isinstance(values, Iterable)


def level_list(values: Any) -> list[str]:
    """One level or several as a list of text, each once; none for None."""
    if values is None:
        return []
    return list(dict.fromkeys(map(level_name, [values] if is_one_level(values) else in_order(values))))


def in_order(values: Iterable[Any]) -> list[Any]:
    """The members of a collection in their order, sorted where they have none."""
    members = list(values)
    return sorted(members, key=str) if isinstance(values, set | frozenset) else members


def level_name(value: Any) -> str:
    """A level as text, the way `levels_of` writes it; a tuple names one level of several columns."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, tuple):
        return SEPARATOR.join(map(level_name, value))
    if isinstance(value, np.datetime64 | datetime.date):
        return str(pd.Timestamp(value))
    return str(value)


def the_level(value: Any, known: Collection[str]) -> str:
    """The one of the known levels that a user means by this value, or its text if there is none.

    0, "0" and 0.0 mean the level "0", or "0.0" where the column is float. True is not 1, and 7 is not "007".
    """
    name = level_name(value)
    if name in known or (number := _number(name)) is None:
        return name
    same = [level for level in known if _number(level) == number]
    return same[0] if len(same) == 1 else name


def requested_levels(
    adata, groupby: Columns, reference: Any, groups: Any, *, required: bool, rest: bool
) -> tuple[str | None, str | list[str]]:
    """Reference and groups as levels of `groupby`; with `required` a missing reference is refused, naming the levels."""
    known: list[str] = []
    if column_names(groupby):
        known = list(levels_of(read_obs(adata, column_names(groupby)), groupby).labels)
    if is_missing(reference):
        if required:
            raise ValueError(reference_missing(known, rest=rest))
        reference = None
    else:
        reference = the_level(reference, known)
    if isinstance(groups, str):
        return reference, the_level(groups, known)
    return reference, list(dict.fromkeys(the_level(group, known) for group in level_list(groups)))


def is_missing(value: Any) -> bool:
    """Whether an argument is None or another missing value."""
    return value is None or (np.ndim(value) == 0 and not isinstance(value, str) and bool(pd.isna(value)))


def reference_missing(known: Collection[str], *, rest: bool) -> str:
    """The error of a call without reference."""
    shown = ", ".join(map(repr, list(known)[:20])) + (f", ... ({len(known)} in all)" if len(known) > 20 else "")
    or_rest = " (or 'rest')" if rest else ""
    return f"reference is required. Available groups: {shown or 'none'}{or_rest}."


def warn_of_level_names(columns: Mapping[str, Levels], *, named: Collection[str] = ()) -> None:
    """One warning of text that stands for missing values, and one of levels that differ only by spaces or case.

    A level in `named` (the reference, the groups asked for) is meant by the user and is not taken for missing.
    """
    missing, similar = [], []
    for name, levels in columns.items():
        n_cells = np.bincount(levels.codes[levels.codes >= 0], minlength=len(levels.labels))
        words = [
            k for k, level in enumerate(levels.labels) if level.strip().lower() in MISSING_NAMES and level not in named
        ]
        if words:
            found = " and ".join(f"{levels.labels[k]!r} in {n_cells[k]} cells" for k in words)
            listed = [str(levels.labels[k]) for k in words]
            missing.append(
                f"adata.obs[{name!r}] holds the text {found}. If that means missing, write adata.obs[{name!r}] = "
                f"adata.obs[{name!r}].where(~adata.obs[{name!r}].isin({listed}))."
            )
        if alike := _alike(levels.labels, n_cells):
            more = f" and {len(alike) - MOST_NAMED} more" if len(alike) > MOST_NAMED else ""
            similar.append(f"adata.obs[{name!r}]: {'; '.join(alike[:MOST_NAMED])}{more}")
    if missing:
        msg = f"Text that usually means missing is used as a level. {' '.join(missing)} Such cells are then left out."
        warn(msg)
    if similar:
        msg = f"Levels that differ only by spaces or case are different levels. Rename them if they are the same. {'. '.join(similar)}."
        warn(msg)


def _alike(labels: np.ndarray, n_cells: np.ndarray) -> list[str]:
    """Levels that are the same but for spaces at the ends and case, as text with their numbers of cells."""
    spelled: dict[str, list[int]] = {}
    for k, level in enumerate(labels):
        spelled.setdefault(level.strip().casefold(), []).append(k)
    return [
        ", ".join(f"{labels[k]!r} ({n_cells[k]} cells)" for k in same)
        for word, same in spelled.items()
        if len(same) > 1 and word not in MISSING_NAMES
    ]


def _number(text: str) -> float | None:
    """The number that a text is the usual spelling of; None for other text, so that "007" is not 7."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not np.isfinite(number):
        return None
    return number if text == repr(number) or (number.is_integer() and text == str(int(number))) else None
