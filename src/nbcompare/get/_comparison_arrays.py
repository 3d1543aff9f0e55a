"""What a comparison has stored, and the words of an error about what it has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._anndata import check_format, level_list, the_level
from nbcompare._messages import did_you_mean, listed
from nbcompare._nb.status import status_text

if TYPE_CHECKING:
    from anndata import AnnData


INTERVAL = ("lfc_lower", "lfc_upper")  # 95%: of the test, or of the posterior if there is one
POSTERIOR = ("lfc_unshrunken", "lfc_median", "lfc_sd", "null_probability", "lfsr", "pareto_k")
SHRUNKEN = ("lfc_shrunken", "lfc_shrunken_se", "lfsr", "svalue")


@dataclass(frozen=True)
class Column:
    """One comparison, in one split if there are several: a column of the stored arrays."""

    number: int
    group: str
    split: str | None  # None where there are no splits
    split_number: int  # its place among the splits, 0 where there are none

    @property
    def name(self) -> str:
        """As a figure's title has it."""
        return self.group if self.split is None else f"{self.split}: {self.group}"


def compared_keys(adata: AnnData) -> list[str]:
    """The keys of all calls of `nb_compare` whose results are stored."""
    return [
        k for k, v in adata.uns.items() if isinstance(v, Mapping) and "comparisons" in v and f"{k}_pvals" in adata.varm
    ]


def stored_results(adata: AnnData, key: str) -> Mapping[str, Any]:
    """What `.uns` holds of a call, or an error that lists the keys of all calls."""
    if not hasattr(adata, "varm"):
        msg = f"adata is a {type(adata).__name__}, but must be an AnnData with results of nbcompare.tl.nb_compare."
        if isinstance(adata, str | PathLike):
            msg += f" Read the file first: anndata.read_h5ad({fspath(adata)!r})."
        raise TypeError(msg)
    found = compared_keys(adata)
    if key not in found:
        if "nb_screen" in adata.uns and "pvals" in adata.layers:
            msg = (
                "This AnnData is a screen, a result of nbcompare.tl.nb_screen, and holds no results of nb_compare. Its table is "
                "nbcompare.get.nb_screen_df(screen, perturbation)."
            )
            raise KeyError(msg)
        there = f"there are: {listed(found)}" if found else "there are none: run nbcompare.tl.nb_compare first"
        msg = f"No results of nb_compare are stored as {key!r}; {there}."
        raise KeyError(msg)
    check_format(adata.uns[key], f"The comparison {key!r}", "nb_compare")
    return adata.uns[key]


def chosen_groups(results: Mapping[str, Any], group: str | Sequence[str] | None, key: str) -> list[str]:
    """Names of comparisons, all of them for None."""
    known = list(dict.fromkeys(str(name) for name in results["comparisons"]))
    if group is None:
        return known
    return _requested(group, known, key, "group", "comparison")


def stored_splits(results: Mapping[str, Any]) -> list[str]:
    """Names of the splits (cell types) in their order, none where there are none."""
    return list(dict.fromkeys(str(name) for name in results.get("splits", ())))


def chosen_splits(results: Mapping[str, Any], split: str | Sequence[str] | None, key: str) -> list[str]:
    """Names of splits, all of them for None."""
    known = stored_splits(results)
    if split is None:
        return known
    if not known:
        msg = f"split is {split!r}, but {key!r} was compared without split_by, so there are no splits. Leave split out."
        raise ValueError(msg)
    return _requested(split, known, key, "split", "split")


def chosen_columns(
    results: Mapping[str, Any], group: str | Sequence[str] | None, split: str | Sequence[str] | None, key: str
) -> list[Column]:
    """The comparisons asked for in the splits asked for, one split after the other."""
    groups, splits, known = (
        chosen_groups(results, group, key),
        chosen_splits(results, split, key),
        stored_splits(results),
    )
    names = [str(name) for name in results["comparisons"]]
    if not known:
        return [Column(names.index(name), name, None, 0) for name in groups]
    positions = {place: k for k, place in enumerate(zip((str(name) for name in results["splits"]), names, strict=True))}
    return [Column(positions[part, name], name, part, known.index(part)) for part in splits for name in groups]


def one_column(adata: AnnData, group: str | None, split: str | None, key: str) -> Column:
    """The comparison of a figure: what there is only one of may go unnamed."""
    results = stored_results(adata, key)
    one_split(results, split, key)
    found = chosen_columns(results, group, split, key)
    if len(found) > 1:
        msg = f"{key!r} holds {len(found)} comparisons, name one of them as group: {listed([c.group for c in found])}."
        raise ValueError(msg)
    return found[0]


def one_split(results: Mapping[str, Any], split: str | None, key: str) -> str | None:
    """The split of a figure: it may go unnamed when it is the only one, and is None where there are none."""
    splits = chosen_splits(results, split, key)
    if len(splits) > 1:
        msg = f"{key!r} holds {len(splits)} splits, name one of them as split: {listed(splits)}."
        raise ValueError(msg)
    return splits[0] if splits else None


def stored_trend(results: Mapping[str, Any], split_number: int) -> Mapping[str, Any]:
    """What is stored of the trend, in a split if there are several; empty where there is none."""
    trend = results.get("trend", {})
    return trend.get(str(split_number), {}) if stored_splits(results) else trend


def stored_prior(results: Mapping[str, Any], column: Column) -> dict[str, float]:
    """The prior of one comparison, empty where there is no posterior."""
    prior = results.get("prior", {})
    if stored_splits(results):
        prior = prior.get(str(column.split_number), {})
    known = list(dict.fromkeys(str(name) for name in results["comparisons"]))
    place = known.index(column.group)
    numbers = {name: np.asarray(value) for name, value in prior.items() if name != "tail"}
    return {
        name: float(value if value.ndim == 0 else value[min(place, len(value) - 1)]) for name, value in numbers.items()
    }


def why_untested(results: Mapping[str, Any], column: Column) -> str:
    """The words of an error about a comparison that a split could not make."""
    reason = results["split_table"]["reason"].iloc[column.number]
    return f"{column.group!r} was not compared in the split {column.split!r}, so there is nothing to show: {reason}."


def stored_comparison(adata: AnnData, column: Column, key: str) -> pd.DataFrame:
    """Everything stored of one comparison, under the stored words, genes in their own order."""
    table = {"names": adata.var_names.to_numpy(object)}
    for word in (
        "scores",
        "logfoldchanges",
        "pvals",
        "pvals_adj",
        "lfc_se",
        *INTERVAL,
        "dispersions",
        "dispersions_genewise",
        *POSTERIOR,
        *SHRUNKEN,
    ):
        if f"{key}_{word}" in adata.varm:
            table[word] = np.asarray(adata.varm[f"{key}_{word}"])[:, column.number]
    for word in ("base_mean", "dispersion_trend"):
        if column.split is not None and f"{key}_{word}" in adata.varm:
            table[word] = np.asarray(adata.varm[f"{key}_{word}"])[:, column.split_number]
        elif f"{key}_{word}" in adata.var:
            table[word] = adata.var[f"{key}_{word}"].to_numpy()
    values, which = np.unique(np.asarray(adata.varm[f"{key}_status"])[:, column.number], return_inverse=True)
    table["status"] = np.array([status_text(int(value)) for value in values], dtype=object)[which]
    return pd.DataFrame(table)


def stored_interval(adata: AnnData, key: str, gene: int, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of one gene's log2 fold changes in these columns, infinite on the side of a group without counts."""
    lower, upper = (np.asarray(adata.varm[f"{key}_{word}"])[gene, numbers] for word in INTERVAL)
    return lower, upper


def check_symbols(gene_symbols: str | None, columns: Sequence[str] | pd.Index) -> None:
    """Refuse a column of `.var` that has the name of a column of the table."""
    if gene_symbols is not None and gene_symbols in columns:
        msg = (
            f"gene_symbols is {gene_symbols!r}, but the table has a column of this name already. Give the column of .var another "
            f"name: adata.var = adata.var.rename(columns={{{gene_symbols!r}: 'gene_symbol'}}), then gene_symbols='gene_symbol'."
        )
        raise ValueError(msg)


def is_significant(adjusted: Any, cutoff: float) -> Any:
    """Where adjusted p-values are at most the cut-off, the rule of Benjamini and Hochberg; NaN is not. The only such rule for tables and figures."""
    return adjusted <= cutoff


def _requested(names: str | Sequence[str], known: list[str], key: str, argument: str, noun: str) -> list[str]:
    """One name or several, all of them known."""
    requested = list(dict.fromkeys(the_level(name, known) for name in level_list(names)))
    if not requested:
        msg = f"{argument} is empty; name {noun}s of {key!r}, or give None for all: {listed(known)}."
        raise ValueError(msg)
    for name in requested:
        if name not in known:
            msg = f"{key!r} has no {noun} {name!r}; there are: {listed(known)}.{did_you_mean(name, known)}"
            raise KeyError(msg)
    return requested
