"""Which sample each cell belongs to, and the summed counts of the samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nbcompare._anndata.copies import warn_of_copies
from nbcompare._anndata.counts import sum_counts
from nbcompare._anndata.joined import join_levels
from nbcompare._anndata.levels import level_list, the_level, warn_of_level_names
from nbcompare._anndata.obs import (
    Columns,
    Levels,
    as_text,
    column_names,
    joined_levels,
    levels_of_one,
    read_obs,
)
from nbcompare._anndata.rows import checked_rows, may_be_samples
from nbcompare._anndata.sample_table import SampleTable, cells_known, renumbered
from nbcompare._counts.chunks import CHUNK_SIZE
from nbcompare._messages import choices

if TYPE_CHECKING:
    from anndata import AnnData


def read_samples(
    adata: AnnData,
    groupby: Columns,
    *,
    replicate_key: Columns | None,
    block_key: Columns | None = None,
    groups: Columns | None = None,
    split_by: Columns | None = None,
    check_names: bool = True,
    joined: Sequence[str] = (),
    may_lack: bool = False,
    named: Collection[str] = (),
) -> SampleTable:
    """One sample for each condition and replicate that occur together (in a split); without `replicate_key` each row is one.

    The levels `joined` of `groupby` are one condition; with `may_lack` some of them may not occur.
    Cells with a missing value and cells of conditions other than `groups` are left out and counted. With `check_names`
    levels whose names look like mistakes are warned of, those that are `named` by the user less strictly.
    """
    if set(column_names(groupby)) == set(column_names(replicate_key)):
        msg = f"groupby and replicate_key are both {groupby!r}. Replicates of a condition need a column of their own."
        raise ValueError(msg)
    _check_split(split_by, groupby, replicate_key)
    columns = [name for key in (groupby, replicate_key, block_key, split_by) for name in column_names(key)]
    obs = read_obs(adata, columns)
    each = {name: levels_of_one(obs[name], name) for name in dict.fromkeys(columns)}

    def levels(key: Columns) -> Levels:
        return joined_levels([each[name] for name in column_names(key)], key)

    if check_names:
        warn_of_level_names(each, named=named)
    condition = levels(groupby)
    if len(joined) > 1:
        condition = join_levels(condition, joined, groupby, may_lack=may_lack)
    replicate = _rows(adata) if replicate_key is None else levels(replicate_key)
    block = None if block_key is None else levels(block_key)
    split = None if split_by is None else levels(split_by)
    used, left_out = _used(condition, replicate, block, split, _requested(groups, condition, groupby))
    samples = _samples(split, condition, replicate, used, left_out)
    return samples if block is None else _with_block(samples, block, block_key)


def sum_samples(
    adata: AnnData,
    samples: SampleTable,
    *,
    layer: str | None = None,
    min_cells: int = 10,
    min_counts: float = 0,
    chunk_size: int = CHUNK_SIZE,
    may_share: bool = False,
    progress: Callable[[float], object] | None = None,
) -> tuple[SampleTable, np.ndarray]:
    """The samples with enough cells and counts, and their counts (n_samples, n_genes) float64, in one pass.

    A sample without any count is always dropped: nothing says how deep it is. With `may_share` the counts may be
    those of `adata` itself and must not be changed.
    """
    if adata.n_vars == 0:
        msg = "adata has no genes (n_vars is 0), so there is nothing to sum. Check the subset of genes that was taken."
        raise ValueError(msg)
    open_question = may_be_samples(adata, samples)
    n_cells = samples.table["n_cells"].to_numpy()
    enough = (n_cells >= min_cells) | ~cells_known(samples.table) | open_question
    codes = renumbered(samples.codes, enough)
    sums = sum_counts(
        adata, codes, int(enough.sum()), layer=layer, chunk_size=chunk_size, may_share=may_share, progress=progress
    )
    counts = np.zeros(len(n_cells))
    counts[enough] = sums.counts.sum(axis=1, dtype=np.float64)
    few = (samples.codes >= 0) & (codes < 0)  # cells of the samples that are too small to be summed
    np.add.at(counts, samples.codes[few], sums.left_out[few])
    if open_question:
        samples = checked_rows(samples, counts, adata.n_vars)
    too_few = (n_cells < min_cells) & cells_known(samples.table)
    reason = np.full(len(n_cells), "", dtype=object)
    reason[counts < min_counts] = f"fewer than {min_counts:g} counts"
    reason[counts == 0] = "no counts"
    reason[too_few] = f"fewer than {min_cells} cells"
    kept = reason == ""
    table = samples.table.assign(counts=counts)
    if not kept.any():
        msg = (
            f"None of the {len(table)} samples has {min_cells} cells (min_cells) and more than 0 and at least "
            f"{min_counts:g} counts (min_counts); the largest have {n_cells.max()} cells and {counts.max():g} counts. "
            "Lower the limits, or merge replicates. If the rows are samples and not cells, pass min_cells=1."
        )
        raise ValueError(msg)
    warn_of_copies(sums.counts, counts[enough], replace(samples, table=table[enough]))
    dropped = table[[*samples.label, "n_cells", "counts"]].assign(reason=reason)[~kept]
    return replace(
        samples,
        codes=renumbered(samples.codes, kept),
        table=table[kept].reset_index(drop=True),
        dropped=dropped.reset_index(drop=True),
    ), sums.counts if kept[enough].all() else sums.counts[kept[enough]]


def _rows(adata: AnnData) -> Levels:
    return Levels(np.arange(adata.n_obs), as_text(adata.obs_names.astype(str).to_list()))


def _requested(groups: Columns | None, condition: Levels, groupby: Columns) -> np.ndarray:
    """Codes of the conditions asked for."""
    if groups is None:
        return np.arange(len(condition.labels))
    requested = [the_level(group, condition.labels) for group in level_list(groups)]
    for group in requested:
        if group not in condition.labels:
            msg = f"There is no group {group!r} in adata.obs[{groupby!r}]. {choices(group, list(condition.labels))}"
            raise ValueError(msg)
    return np.flatnonzero(np.isin(condition.labels, requested))


def _used(
    condition: Levels, replicate: Levels, block: Levels | None, split: Levels | None, requested_names: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Which cells belong to a sample, and how many do not, each counted under the first reason that holds."""
    used = np.ones(len(condition.codes), dtype=bool)
    left_out = {}
    for reason, without in {
        "no_condition": condition.codes < 0,
        "other_groups": ~np.isin(condition.codes, requested_names),
        "no_replicate": replicate.codes < 0,
        "no_block": np.zeros_like(used) if block is None else block.codes < 0,
        **({} if split is None else {"no_split": split.codes < 0}),
    }.items():
        left_out[reason] = int((used & without).sum())
        used &= ~without
    if not used.any():
        msg = f"No cell is left: of {len(used)} cells, those left out by reason are {left_out}."
        raise ValueError(msg)
    return used, left_out


def _samples(
    split: Levels | None, condition: Levels, replicate: Levels, used: np.ndarray, left_out: dict[str, int]
) -> SampleTable:
    parts = [condition, replicate] if split is None else [split, condition, replicate]
    shape = tuple(len(part.labels) for part in parts)
    flat = np.ravel_multi_index(tuple(part.codes[used] for part in parts), shape)
    found, of_cell = np.unique(flat, return_inverse=True)
    codes = np.full(len(used), -1, dtype=np.int64)
    codes[used] = of_cell
    words = ["condition", "replicate"] if split is None else ["split", "condition", "replicate"]
    levels = dict(zip(words, np.unravel_index(found, shape), strict=True))
    table = pd.DataFrame({word: part.labels[levels[word]] for word, part in zip(words, parts, strict=True)})
    table["n_cells"] = np.bincount(of_cell)
    return SampleTable(
        codes,
        table,
        left_out,
        table.iloc[:0].assign(counts=np.empty(0), reason=as_text([])),
        tuple(condition.labels[np.unique(levels["condition"])]),
        () if split is None else tuple(split.labels[np.unique(levels["split"])]),
    )


def _check_split(split_by: Columns | None, groupby: Columns, replicate_key: Columns | None) -> None:
    splits, groups, replicates = (set(column_names(columns)) for columns in (split_by, groupby, replicate_key))
    msg = ""
    if split_by is not None and not splits:
        msg = "split_by is empty. Pass a column of .obs such as the cell type, or leave it out."
    if splits & groups:
        msg = (
            f"split_by {split_by!r} and groupby {groupby!r} share a column: within a split there is nothing to compare."
        )
    if replicates and replicates <= splits:
        msg = (
            f"replicate_key {replicate_key!r} is part of split_by {split_by!r}: within a split there are no replicates."
        )
    if msg:
        raise ValueError(msg)


def _with_block(samples: SampleTable, block: Levels, block_key: Columns | None) -> SampleTable:
    used = samples.codes >= 0
    of_sample = np.empty(len(samples.table), dtype=np.int64)
    of_sample[samples.codes[used]] = block.codes[used]  # any cell's
    mixed = np.unique(samples.codes[used][block.codes[used] != of_sample[samples.codes[used]]])
    if mixed.size:
        msg = (
            f"block_key {block_key!r} has several values within {mixed.size} samples, such as "
            f"{', '.join(samples.names[i] for i in mixed[:5])}. A sample must lie in one block: add the column to "
            "replicate_key, which splits the samples by it."
        )
        raise ValueError(msg)
    table = samples.table.copy()
    table.insert(len(samples.label), "block", block.labels[of_sample])
    return replace(samples, table=table)
