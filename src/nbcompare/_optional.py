from __future__ import annotations

from importlib import import_module
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """An optional package, or an error with the command that installs it.

    >>> require("math", "plot").sqrt(4.0)
    2.0
    """
    try:
        return import_module(module)
    except ImportError as error:
        msg = f"This needs {module.split('.')[0]}, which is not installed. Install it with: pip install 'nbcompare[{extra}]'"
        raise ImportError(msg) from error
