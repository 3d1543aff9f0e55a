"""Values as files can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from os import PathLike, fspath
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata.levels import in_order


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
