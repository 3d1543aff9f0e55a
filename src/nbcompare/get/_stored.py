"""What a comparison has stored, and the words of an error about what it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._nb.status import status_text

if TYPE_CHECKING:
    from anndata import AnnData


def stored_results(adata: AnnData, key: str) -> Mapping[str, Any]:
    """What `.uns` holds of a call, or an error that lists the keys of all calls."""
    found = [
        k for k, v in adata.uns.items() if isinstance(v, Mapping) and "comparisons" in v and f"{k}_pvals" in adata.varm
    ]
    if key not in found:
        there = f"there are: {listed(found)}" if found else "there are none: run nbcompare.tl.nb_compare first"
        msg = f"No results of nb_compare are stored as {key!r}; {there}."
        raise KeyError(msg)
    return adata.uns[key]


def chosen_groups(results: Mapping[str, Any], group: str | Sequence[str] | None, key: str) -> list[str]:
    """Names of comparisons, all of them for None."""
    known = [str(name) for name in results["comparisons"]]
    if group is None:
        return known
    asked = [group] if isinstance(group, str) else [str(name) for name in group]
    if not asked:
        msg = f"group is empty; name comparisons of {key!r}, or give None for all: {listed(known)}."
        raise ValueError(msg)
    for name in asked:
        if name not in known:
            msg = f"{key!r} has no comparison {name!r}; there are: {listed(known)}.{close(name, known)}"
            raise KeyError(msg)
    return asked


def one_group(adata: AnnData, group: str | None, key: str) -> str:
    """The comparison of a figure: it may go unnamed when it is the only one."""
    known = chosen_groups(stored_results(adata, key), group, key)
    if len(known) > 1:
        msg = f"{key!r} holds {len(known)} comparisons, name one of them as group: {listed(known)}."
        raise ValueError(msg)
    return known[0]


def stored_comparison(adata: AnnData, results: Mapping[str, Any], name: str, key: str) -> pd.DataFrame:
    """Everything stored of one comparison, under the stored words, genes in their own order."""
    column = [str(level) for level in results["comparisons"]].index(name)
    table = {"names": adata.var_names.to_numpy(object)}
    for word in ("scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "dispersions", "dispersions_genewise"):
        if f"{key}_{word}" in adata.varm:
            table[word] = np.asarray(adata.varm[f"{key}_{word}"])[:, column]
    for word in ("base_mean", "dispersion_trend"):
        if f"{key}_{word}" in adata.var:
            table[word] = adata.var[f"{key}_{word}"].to_numpy()
    values, which = np.unique(np.asarray(adata.varm[f"{key}_status"])[:, column], return_inverse=True)
    table["status"] = np.array([status_text(int(value)) for value in values], dtype=object)[which]
    return pd.DataFrame(table)


def listed(names: Sequence[str] | pd.Index, *, most: int = 20) -> str:
    """Names in a message, no more than fit."""
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"


def close(name: str, known: Sequence[str] | pd.Index) -> str:
    """A suggestion for a mistyped name."""
    near = get_close_matches(str(name), [str(other) for other in known], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
