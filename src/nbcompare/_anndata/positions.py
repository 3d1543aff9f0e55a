"""Positions of names in an index (genes, samples, perturbations, columns): the only place where names are looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from nbcompare._messages import choices

MOST_POSITIONS = 5

UNIQUE = {  # how repeated names are mended
    "var_names": "Make the names unique, for instance with adata.var_names_make_unique().",
    "obs_names": "Make the names unique, for instance with adata.obs_names_make_unique().",
}


def positions_of(
    names: Iterable[str],
    index: pd.Index,
    noun: str,
    where: str,
    *,
    missing: Callable[[str], str] | None = None,
) -> np.ndarray:
    """Where each name stands in the index, in the order asked for (n_names,).

    A name that the index lacks is a KeyError with the closest names (or with the words of `missing`); one that it holds several
    times is a ValueError with the positions. Other names of the index may repeat. `noun` and `where` are the words of the errors,
    such as "gene" and "var_names".
    """
    requested = [str(name) for name in names]
    positions = known_positions(requested, index)
    for name, place in zip(requested, positions, strict=True):
        if place >= 0:
            continue
        found = np.flatnonzero(index.astype(str) == name)
        if found.size:
            raise ValueError(_repeated(name, found, noun, where))
        labels = f"There is no {noun} {name!r} in {where}. {choices(name, list(index))}"
        raise KeyError(labels if missing is None else missing(name))
    return positions


def position_of(name: str, index: pd.Index, noun: str, where: str) -> int:
    """The same of one name."""
    return int(positions_of([name], index, noun, where)[0])


def known_positions(names: Iterable[str], index: pd.Index) -> np.ndarray:
    """The same without errors: -1 for a name that the index lacks, or holds several times."""
    labels = index.astype(str)
    if labels.is_unique:
        return labels.get_indexer(pd.Index(list(names), dtype=object))
    once = np.flatnonzero(~labels.duplicated(keep=False))
    positions = labels[once].get_indexer(pd.Index(list(names), dtype=object))
    return np.where(positions < 0, -1, np.append(once, -1)[positions])


def repeated_names(names: Iterable[str], index: pd.Index) -> list[str]:
    """Which of the names the index holds several times."""
    twice = index[index.duplicated()].astype(str)
    return (
        [] if not len(twice) else [str(name) for name in pd.Index(list(names), dtype=object).unique() if name in twice]
    )


def _repeated(name: str, found: np.ndarray, noun: str, where: str) -> str:
    shown = ", ".join(map(str, found[:MOST_POSITIONS])) + (", ..." if found.size > MOST_POSITIONS else "")
    advice = UNIQUE.get(where, f"Rename or remove the others, so that each {noun} has a name of its own.")
    return f"The {noun} {name!r} occurs {found.size} times in {where} (positions {shown}). {advice}"
