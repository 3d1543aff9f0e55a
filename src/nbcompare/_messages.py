"""Phrases of errors and warnings that all parts share."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Collection, Sized
from difflib import get_close_matches
from pathlib import Path
from typing import Any

FOLDER = str(Path(__file__).parent)
MOST_SHOWN = 60  # letters of a value
MOST_LISTED = 20  # names in a list

SEE_COMBINATIONS = "See the page 'Which options can be combined' of the documentation."


def warn(message: str) -> None:
    """Warn the user, at the line of their code that called nbcompare."""
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(FOLDER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def inform(message: str) -> None:
    """Say what was done, by the logger `nbcompare`; on stderr where the user has set up no logging."""
    logger = logging.getLogger("nbcompare")
    if not logger.hasHandlers():
        logger.addHandler(_ToStderr())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.info(message)


class _ToStderr(logging.Handler):
    """Writes to what `sys.stderr` is at the time, as notebooks and tests exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "gene"), counted(2000, "gene")
    ('1 gene', '2,000 genes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(value: Any) -> str:
    """A value as it is named in an error: text in quotes, small values as they are, large ones by type and size."""
    if isinstance(value, str | bytes | bool | int | float | complex) or value is None:
        text = repr(value)
    elif hasattr(value, "shape") and getattr(value, "ndim", True):
        text = f"a {type(value).__name__} of shape {tuple(value.shape)}"
    elif hasattr(value, "item"):
        text = repr(value.item())
    elif isinstance(value, list | tuple | dict | set | frozenset):
        text = repr(value)
    else:
        size = f" of length {len(value)}" if isinstance(value, Sized) else ""
        text = f"a {type(value).__name__}{size}"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 4]} ..."


def listed(names: Collection[Any], *, most: int = MOST_LISTED) -> str:
    """Names in quotes, the first ones of many.

    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b', ... (3 in all)"
    """
    names = [str(name) for name in names]
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def did_you_mean(name: Any, known: Collection[Any], *, most: int = 1) -> str:
    """A sentence with the closest names, with a space before it; empty if none is close.

    >>> did_you_mean("condtion", ["condition", "donor"])
    " Did you mean 'condition'?"
    """
    near = get_close_matches(str(name), [str(other) for other in known], n=most)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def choices(given: Any, known: Collection[Any]) -> str:
    """The end of an error: names close to the one given, else those there are.

    >>> choices("x", ["condition", "donor"])
    "There are: 'condition', 'donor'."
    """
    return did_you_mean(given, known, most=3).strip() or f"There are: {listed(known) or 'none'}."


def one_of(name: str, value: Any, allowed: Collection[str]) -> str:
    """The error of a word that is none of the allowed ones.

    >>> one_of("method", "mlle", ["mom", "mle"])
    "method is 'mlle', but must be one of 'mom', 'mle'. Did you mean 'mle'?"
    """
    words = ", ".join(map(repr, allowed))
    return f"{name} is {shown(value)}, but must be one of {words}.{did_you_mean(value, allowed)}"
