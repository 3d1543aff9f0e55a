"""The decorator of the public functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from nbcompare._arguments.table import kind_of
from nbcompare._messages import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments are checked and made plain by the table before it begins."""
    signature = inspect.signature(function)
    part = function.__module__.split(".")[1]
    kinds = {name: kind_of(f"{part}.{function.__name__}", name) for name in signature.parameters}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        unknown = [name for name in kwargs if name not in kinds]
        if unknown:
            msg = f"{function.__name__} has no argument {unknown[0]!r}.{did_you_mean(unknown[0], list(kinds))}"
            raise TypeError(msg)
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            msg = f"{function.__name__}: {error}. Its arguments are {', '.join(kinds)}."
            raise TypeError(msg) from None
        for name, value in given.arguments.items():
            given.arguments[name] = kinds[name](value, name)
        return function(*given.args, **given.kwargs)

    return call
