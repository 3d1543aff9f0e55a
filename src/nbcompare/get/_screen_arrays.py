"""What a screen has stored, read from arrays that may lie on disk: only the rows and genes that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nbcompare._anndata import (
    check_format,
    in_memory,
    known_positions,
    level_list,
    position_of,
    positions_of,
    the_level,
)
from nbcompare._messages import did_you_mean, listed
from nbcompare._nb.status import status_text
from nbcompare.get._comparison_arrays import INTERVAL, POSTERIOR, compared_keys

if TYPE_CHECKING:
    from anndata import AnnData

KEY = "nb_screen"
TESTS_AT_ONCE = 2**22  # of a block of rows: 32 MiB of p-values


def is_screen(adata: AnnData) -> bool:
    """Whether this is a result of `tl.nb_screen`: perturbations by genes."""
    return KEY in adata.uns and "pvals" in adata.layers


def check_screen(screen: AnnData) -> None:
    """Refuse cells, and screens without their arrays."""
    if not hasattr(screen, "layers"):
        msg = (
            f"screen is a {type(screen).__name__}, but must be the AnnData that nbcompare.tl.nb_screen returned, or its path read "
            "with anndata.experimental.read_lazy."
        )
        raise TypeError(msg)
    if not is_screen(screen):
        msg = (
            "This AnnData is no screen (uns['nb_screen'] and layers['pvals'] are not both there): give what "
            "nbcompare.tl.nb_screen returned, or its path read with anndata.experimental.read_lazy."
        )
        if compared := compared_keys(screen):
            msg = (
                f"This AnnData is no screen, but holds results of nbcompare.tl.nb_compare ({listed(compared)}). Their table is "
                "nbcompare.get.nb_compare_df(adata, group)."
            )
        raise ValueError(msg)
    check_format(screen.uns[KEY], "The screen", "nb_screen")


def perturbation_rows(screen: AnnData, names: str | Sequence[str] | None) -> np.ndarray:
    """Rows of the perturbations asked for, ascending; all for None."""
    if names is None:
        return np.arange(screen.n_obs)
    requested = [the_level(name, screen.obs_names) for name in _requested(names, "perturbation", "perturbations")]

    def missing(name: str) -> str:
        if name == screen.uns[KEY].get("reference"):
            hint = " It is the reference, with which all are compared."
        elif name in screen.var_names:
            hint = f" There is a gene of this name: gene={name!r} gives the perturbations that move it."
        else:
            hint = did_you_mean(name, screen.obs_names) or f" There are: {listed(screen.obs_names, most=10)}."
        return f"The screen has no perturbation {name!r}.{hint}"

    return np.unique(positions_of(requested, screen.obs_names, "perturbation", "obs_names", missing=missing))


def gene_columns(screen: AnnData, names: str | Sequence[str] | None) -> np.ndarray:
    """Columns of the genes asked for, ascending; all for None."""
    if names is None:
        return np.arange(screen.n_vars)
    requested = _requested(names, "gene", "genes")
    return np.unique(positions_of(requested, screen.var_names, "gene", "var_names"))


def gene_column(adata: AnnData, name: str) -> int:
    """Column of one gene."""
    return position_of(name, adata.var_names, "gene", "var_names")


def own_columns(screen: AnnData, rows: np.ndarray) -> np.ndarray:
    """Columns of the genes that perturbations are named after, -1 where there is none, or the name repeats."""
    return known_positions(screen.obs_names[rows], screen.var_names)


def read_tests(screen: AnnData, word: str, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A layer at ascending rows and columns, in memory (n_rows, n_columns)."""
    return np.asarray(screen.layers[word][_span(rows, screen.n_obs)][:, _span(columns, screen.n_vars)])


def row_blocks(screen: AnnData, rows: np.ndarray, n_columns: int) -> Iterator[np.ndarray]:
    """Ascending rows in pieces that fit into memory and begin where a chunk of the stored array begins."""
    chunks = getattr(screen.layers["pvals"], "chunks", None)
    first = chunks[0] if chunks else 1
    chunk = int(np.max(first))  # dask gives the sizes of all chunks, zarr and h5py that of one
    size = max(1, TESTS_AT_ONCE // max(n_columns, 1) // chunk) * chunk
    for rows_at_once in np.split(rows, np.flatnonzero(np.diff(rows // size)) + 1):
        if rows_at_once.size:
            yield rows_at_once


def pick_tests(screen: AnnData, word: str, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A layer at pairs of row and column in any order, (n_pairs,)."""
    unique_columns, column = np.unique(columns, return_inverse=True)
    picked = np.empty(rows.size, dtype=screen.layers[word].dtype)
    for block in row_blocks(screen, np.unique(rows), unique_columns.size):
        inside = np.flatnonzero((rows >= block[0]) & (rows <= block[-1]))
        values = read_tests(screen, word, block, unique_columns)
        picked[inside] = values[np.searchsorted(block, rows[inside]), column[inside]]
    return picked


def stored_perturbation(screen: AnnData, name: str | None) -> pd.DataFrame:
    """Everything stored of one perturbation under the stored words, genes in their own order."""
    if name is None and screen.n_obs > 1:
        msg = f"The screen holds {screen.n_obs} perturbations, name one of them as group: {listed(screen.obs_names)}."
        raise ValueError(msg)
    rows, columns = perturbation_rows(screen, name), gene_columns(screen, None)
    table = {"names": screen.var_names.to_numpy(object)}
    words = ("scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", *interval_names(screen), "dispersions")
    for word in (*words, *posterior_names(screen)):
        table[word] = read_tests(screen, word, rows, columns)[0]
    table["base_mean"] = read_var(screen, "base_mean")
    table["status"] = status_texts(read_tests(screen, "status", rows, columns)[0])
    return pd.DataFrame(table)


def zero_order(screen: AnnData, overall: np.ndarray) -> np.ndarray:
    """A key for perturbations whose overall p-value is zero, the largest score first; 0 elsewhere. Scores of these alone are read."""
    key, columns = np.zeros(screen.n_obs), np.arange(screen.n_vars)
    for rows in row_blocks(screen, np.flatnonzero(overall == 0), columns.size):
        key[rows] = -np.nan_to_num(np.abs(read_tests(screen, "scores", rows, columns))).max(axis=1)
    return key


def posterior_names(screen: AnnData) -> list[str]:
    """Layers that only a posterior has; none without one."""
    return [word for word in POSTERIOR if word in screen.layers]


def interval_names(screen: AnnData) -> list[str]:
    """Layers with bounds of log2 fold changes: of a posterior, or with `intervals=True`."""
    return [word for word in INTERVAL if word in screen.layers]


def prior_of_perturbation(screen: AnnData, name: str | None) -> dict[str, float]:
    """The prior that a perturbation's genes have, as `stored_prior` gives it; empty where there is no posterior."""
    columns = [column for column in screen.obs.columns if column.startswith("prior_")]
    if not columns:
        return {}
    row = read_obs(screen, columns).iloc[perturbation_rows(screen, name)[0]]
    return {column.removeprefix("prior_"): float(row[column]) for column in columns}


def read_obs(screen: AnnData, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of the table of perturbations, in memory."""
    return in_memory(screen.obs[list(columns)])


def read_var(screen: AnnData, column: str) -> np.ndarray:
    """A column of the table of genes, in memory."""
    known = pd.Index(screen.var.columns)
    if column not in known:
        msg = f"{column!r} is no column of .var; there are: {listed(list(known))}."
        raise KeyError(msg)
    position_of(column, known, "column", ".var")
    return in_memory(screen.var[[column]])[column].to_numpy()


def status_texts(status: np.ndarray) -> np.ndarray:
    """Stored status values as words, an object array of the same shape."""
    values, which = np.unique(status, return_inverse=True)
    words = np.array([status_text(int(value)) for value in values], dtype=object)
    return words[which].reshape(status.shape)


def _requested(names: str | Sequence[str], argument: str, what: str) -> list[str]:
    requested = level_list(names)
    if not requested:
        msg = f"{argument} is empty; name {what} of the screen, or give None for all."
        raise ValueError(msg)
    return requested


def _span(positions: np.ndarray, n: int) -> slice | np.ndarray:
    """A slice where the positions are without gaps: arrays on disk are read faster so, those in memory not copied."""
    if positions.size == n:
        return slice(None)
    if positions.size and positions[-1] - positions[0] + 1 == positions.size:
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions
