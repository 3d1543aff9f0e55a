"""Several levels that are one reference: their list, the name of the joined group, and the cells under that name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata.levels import is_missing, is_one_level, level_list, level_name, the_level
from nbcompare._anndata.obs import Columns, Levels, as_text, column_names
from nbcompare._messages import choices


def reference_levels(reference: Any, groupby: Columns) -> list[str]:
    """The levels of a reference as text: none, one or several, in the order of the alphabet.

    A tuple is one level where `groupby` has several columns, otherwise several levels.
    """
    if is_missing(reference):
        return []
    if is_one_level(reference) or (isinstance(reference, tuple) and len(column_names(groupby)) > 1):
        return [level_name(reference)]
    names = sorted(level_list(reference))
    if not names:
        msg = f"reference is {reference!r}, but must name a group, or several groups that together are the reference."
        raise ValueError(msg)
    if len(names) > 1 and "rest" in names:
        msg = f"reference is {names}, but 'rest' already means all other samples. Pass reference='rest', or only names of groups."
        raise ValueError(msg)
    return names


def joined_name(names: Sequence[str]) -> str:
    """The name of the group that these levels form together."""
    return " + ".join(names)


def join_levels(levels: Levels, names: Sequence[str], groupby: Columns, *, may_lack: bool = False) -> Levels:
    """These levels as one, in the place of the first of them; all must occur unless they `may_lack`."""
    requested = [the_level(name, levels.labels) for name in names]
    known = [str(label) for label in levels.labels]
    for name in requested:
        if name not in known and not may_lack:
            msg = f"reference is {list(names)}, but {groupby!r} has no group {name!r}. {choices(name, known)}"
            raise ValueError(msg)
    joined = joined_name(names)
    if joined in known:
        msg = (
            f"reference is {list(names)}, and the joined group is called {joined!r}, but {groupby!r} has a group of this name "
            "already. Rename that group."
        )
        raise ValueError(msg)
    labels = [joined if label in requested else label for label in known]
    codes, distinct = pd.factorize(np.array(labels, dtype=object))
    return Levels(np.append(codes, -1)[levels.codes].astype(np.int64), as_text(list(distinct)))
