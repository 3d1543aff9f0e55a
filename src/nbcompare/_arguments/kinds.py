"""Kinds of arguments: each takes a value and the name of the argument, and gives a plain value or an error in words."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from os import PathLike, fspath
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata.levels import in_order, is_missing, is_one_level, level_list, level_name
from nbcompare._messages import listed, one_of, shown

Kind = Callable[[Any, str], Any]
EXAMPLES = "the name of a column of .obs, or a list of names"


def optional(kind: Kind) -> Kind:
    """None, or what `kind` takes."""
    return lambda value, name: None if value is None else kind(value, name)


def anything(value: Any, _name: str) -> Any:
    """A value that a function of its own checks, with the data at hand."""
    return value


def truth(value: Any, name: str) -> bool:
    """True or False; no text, which Python would take for True, and no number."""
    value = _scalar(value)
    if not isinstance(value, bool):
        msg = f"{name} is {shown(value)}, but must be True or False."
        raise TypeError(msg)
    return value


def number(
    what: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    whole: bool = False,
    infinite: bool = False,
    between: bool = False,
) -> Kind:
    """A number from `low` to `high`, or `between` them; `what` is the end of "must be ..."."""

    def check(value: Any, name: str) -> int | float:
        found = _scalar(value)
        if isinstance(found, bool) or not isinstance(found, int | float):
            msg = f"{name} is {shown(value)}, but must be {what}."
            raise TypeError(msg)
        inside = low < found < high if between else low <= found <= high
        if not inside or (math.isinf(found) and not infinite) or (whole and found != math.floor(found)):
            msg = f"{name} is {found!r}, but must be {what}."
            raise ValueError(msg)
        return int(found) if whole else found

    return check


def word(*allowed: str) -> Kind:
    """One of these words."""

    def check(value: Any, name: str) -> str:
        value = _scalar(value)
        if not isinstance(value, str):
            raise TypeError(one_of(name, value, allowed))
        if value not in allowed:
            raise ValueError(one_of(name, value, allowed))
        return value

    return check


def word_or(kind: Kind, allowed: str) -> Kind:
    """One word, or what `kind` takes."""

    def check(value: Any, name: str) -> Any:
        found = _scalar(value)
        return found if isinstance(found, str) and found == allowed else kind(value, name)

    return check


def text(what: str) -> Kind:
    """Text that is not empty."""

    def check(value: Any, name: str) -> str:
        value = _scalar(value)
        if not isinstance(value, str):
            msg = f"{name} is {shown(value)}, but must be {what}."
            raise TypeError(msg)
        if not value:
            msg = f"{name} is empty, but must be {what}."
            raise ValueError(msg)
        return value

    return check


def new_key(value: Any, name: str) -> str:
    """The start of names that are written to an AnnData, as files can hold them."""
    value = text("text, the start of the names of the results")(value, name)
    if "/" in value or "\0" in value or set(value) == {"."}:
        msg = (
            f"{name} is {value!r}, but names in h5ad and zarr files hold no slash and no NUL, and are not '.' or '..'."
        )
        raise ValueError(msg)
    return value


def columns(value: Any, name: str) -> str | list[str]:
    """The name of a column of obs, or several, from any collection; those of a set in the order of the alphabet."""
    value = _scalar(value)
    if isinstance(value, str):
        return str(value)
    names = None if is_one_level(value) else in_order(value)
    if names is None or not all(isinstance(one, str) for one in names):
        found = f"{shown(value)}, whose members are not all text" if names else shown(value)
        msg = f"{name} is {found}, but must be {EXAMPLES}."
        raise TypeError(msg)
    if not names:
        msg = f"{name} is empty. Pass {EXAMPLES}."
        raise ValueError(msg)
    return [str(one) for one in names]


def keys(value: Any, name: str) -> list[str]:
    """Names of results, in their order; a name may occur twice."""
    members = [value] if is_one_level(value) else in_order(value)
    if not members or not all(isinstance(one, str) for one in members):
        msg = f"{name} is {shown(value)}, but must be a list of text, the key_added of several comparisons."
        raise TypeError(msg)
    return [str(one) for one in members]


def level(value: Any, name: str) -> str:
    """One name of a level: text, a number, a truth value or a date."""
    if not (_is_a_name(value) or (isinstance(value, tuple) and value and all(map(_is_a_name, value)))):
        msg = f"{name} is {shown(value)}, but must be one name."
        raise TypeError(msg)
    return level_name(value)


def levels(value: Any, name: str) -> str | list[str]:
    """One name or several, each once, from any collection."""
    if is_one_level(value):
        if not _is_a_name(value):
            msg = f"{name} is {shown(value)}, but must be a name or a list of names."
            raise TypeError(msg)
        return level_name(value)
    members = in_order(value)
    wrong = [one for one in members if not (_is_a_name(one) or isinstance(one, tuple))]
    if wrong:
        msg = f"{name} holds {shown(wrong[0])}, which is no name. Pass a name or a list of names."
        raise TypeError(msg)
    return level_list(members)


def control(value: Any, name: str) -> str | list[str] | tuple | None:
    """The reference: one group, or several that are taken together; None where it is missing. A tuple may be one group of several columns."""
    if is_missing(value):
        return None
    found = levels(value, name)
    return value if isinstance(value, tuple) else found


def any_levels(value: Any, name: str) -> list[str]:
    """The same where None means no name."""
    return [] if value is None else level_list(levels(value, name))


def dtype(*allowed: str) -> Kind:
    """The name of a type of numbers, or numpy's type itself."""
    names = word(*allowed)

    def check(value: Any, name: str) -> str:
        is_type = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
        return names(np.dtype(value).name if is_type else value, name)

    return check


def device(value: Any, name: str) -> str:
    """The name of a device, or torch's device itself; torch is not loaded for this."""
    is_device = type(value).__module__ == "torch" and type(value).__name__ == "device"
    return text("text, such as 'auto', 'cpu' or 'cuda'")(str(value) if is_device else value, name)


def path(value: Any, name: str) -> str:
    """A path on disk."""
    if not isinstance(value, str | PathLike) or not isinstance(fspath(value), str):
        msg = f"{name} is {shown(value)}, but must be a path: text or a pathlib.Path."
        raise TypeError(msg)
    if not fspath(value) or "\0" in fspath(value):
        msg = f"{name} is {fspath(value)!r}, which is no path."
        raise ValueError(msg)
    return fspath(value)


def axes(value: Any, name: str) -> Any:
    """The Axes of a figure; matplotlib is not loaded for this."""
    if not any(parent.__name__ == "Axes" for parent in type(value).__mro__):
        first = (
            f" Pass one of them, such as {name}={name}.flat[0]." if isinstance(value, np.ndarray) and value.size else ""
        )
        msg = f"{name} is {shown(value)}, but must be one matplotlib Axes.{first}"
        raise TypeError(msg)
    return value


def data(value: Any, name: str) -> AnnData:
    """An AnnData in memory or backed."""
    if isinstance(value, AnnData) or _is_lazy(value):
        return value
    if isinstance(value, str | PathLike):
        msg = (
            f"{name} is the path {fspath(value)!r}, but must be an AnnData. Read it first: {name} = anndata.read_h5ad(path), with backed='r' "
            "where it does not fit in memory."
        )
    elif type(value).__name__ == "MuData":
        msg = f"{name} is a MuData of the modalities {listed(list(value.mod))}, but must be an AnnData. Pass one modality."
    else:
        msg = (
            f"{name} is {shown(value)}, but must be an AnnData. Wrap a table of counts first: "
            "anndata.AnnData(counts, obs=obs), with samples or cells as rows and genes as columns."
        )
    raise TypeError(msg)


def data_or_path(value: Any, name: str) -> AnnData | str:
    """An AnnData, or where it lies."""
    if isinstance(value, str | PathLike):
        return path(value, name)
    if isinstance(value, AnnData) or _is_lazy(value) or type(value).__name__ == "MuData":
        return data(value, name)
    msg = f"{name} is {shown(value)}, but must be an AnnData or the path of an h5ad file or a zarr store."
    raise TypeError(msg)


def replicates(value: Any, name: str) -> int | list[int]:
    """A number of replicates, or one for each condition."""
    count = number("a whole number, 1 or more, or a list with one number for each condition", low=1, whole=True)
    if is_one_level(value):
        return int(count(value, name))
    return [int(count(one, name)) for one in in_order(value)]


def seed(value: Any, name: str) -> int | np.random.Generator | None:
    """Where random numbers begin: a whole number, or numpy's generator; None for a seed of the system."""
    if value is None or isinstance(value, np.random.Generator):
        return value
    whole = number("a whole number, 0 or more, a numpy Generator, or None for a new seed each time", low=0, whole=True)
    return int(whole(value, name))


def _is_a_name(value: Any) -> bool:
    """Whether a value can be a level of a column: text, a number, a truth value, a date, an interval."""
    dates = datetime.date | datetime.timedelta | pd.Interval | pd.Period
    known = isinstance(value, str | bool | int | float | np.generic | dates) or (
        isinstance(value, np.ndarray) and value.ndim == 0
    )
    return known and not isinstance(value, bytes) and not is_missing(value)


def _is_lazy(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("obs", "var", "uns", "varm", "layers"))


def _scalar(value: Any) -> Any:
    """Numbers, text and truth values of numpy as those of Python."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value
