"""Which sample each cell belongs to, and the summed counts of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nbcompare._counts.blocks import BLOCK_SIZE

from .counts import sum_counts
from .obs import SEPARATOR, Columns, Levels, as_text, choices, column_names, levels_of, read_obs

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class SampleTable:
    """The samples, in the order of conditions, then replicates."""

    codes: np.ndarray  # (n_cells,) int64, row of `table`; -1 for a cell that is not used
    table: pd.DataFrame  # condition, replicate, block (if asked for), n_cells; counts once they are summed
    n_cells_left_out: dict[str, int]  # reason -> number of cells
    dropped: pd.DataFrame  # condition, replicate, n_cells, counts, reason

    @property
    def names(self) -> list[str]:
        """`condition | replicate` of each sample."""
        return [SEPARATOR.join(pair) for pair in zip(self.table["condition"], self.table["replicate"], strict=True)]


def read_samples(
    adata: AnnData,
    groupby: Columns,
    *,
    replicate_key: Columns | None,
    block_key: Columns | None = None,
    groups: Columns | None = None,
) -> SampleTable:
    """One sample for each condition and replicate that occur together; without `replicate_key` each row is one.

    Cells with a missing value and cells of conditions other than `groups` are left out and counted.
    """
    if set(column_names(groupby)) == set(column_names(replicate_key)):
        msg = f"groupby and replicate_key are both {groupby!r}. Replicates of a condition need a column of their own."
        raise ValueError(msg)
    obs = read_obs(adata, column_names(groupby) + column_names(replicate_key) + column_names(block_key))
    condition = levels_of(obs, groupby)
    replicate = _rows(adata) if replicate_key is None else levels_of(obs, replicate_key)
    block = None if block_key is None else levels_of(obs, block_key)
    used, left_out = _used(condition, replicate, block, _asked_for(groups, condition, groupby))
    samples = _samples(condition, replicate, used, left_out)
    return samples if block is None else _with_block(samples, block, block_key)


def sum_samples(
    adata: AnnData,
    samples: SampleTable,
    *,
    layer: str | None = None,
    min_cells: int = 10,
    min_counts: float = 0,
    block_size: int = BLOCK_SIZE,
    may_share: bool = False,
    progress: Callable[[float], object] | None = None,
) -> tuple[SampleTable, np.ndarray]:
    """The samples with enough cells and counts, and their counts (n_samples, n_genes) float64, in one pass.

    A sample without any count is always dropped: nothing says how deep it is. With `may_share` the counts may be
    those of `adata` itself and must not be changed.
    """
    n_cells = samples.table["n_cells"].to_numpy()
    enough = n_cells >= min_cells
    codes = _renumbered(samples.codes, enough)
    sums = sum_counts(
        adata, codes, int(enough.sum()), layer=layer, block_size=block_size, may_share=may_share, progress=progress
    )
    counts = np.zeros(len(n_cells))
    counts[enough] = sums.counts.sum(axis=1, dtype=np.float64)
    few = (samples.codes >= 0) & (codes < 0)  # cells of the samples that are too small to be summed
    np.add.at(counts, samples.codes[few], sums.left_out[few])
    reason = np.full(len(n_cells), "", dtype=object)
    reason[counts < min_counts] = f"fewer than {min_counts:g} counts"
    reason[counts == 0] = "no counts"
    reason[~enough] = f"fewer than {min_cells} cells"
    kept = reason == ""
    table = samples.table.assign(counts=counts)
    if not kept.any():
        msg = (
            f"None of the {len(table)} samples has {min_cells} cells (min_cells) and more than 0 and at least "
            f"{min_counts:g} counts (min_counts); the largest have {n_cells.max()} cells and {counts.max():g} counts. "
            "Lower the limits, or merge replicates."
        )
        raise ValueError(msg)
    dropped = table[["condition", "replicate", "n_cells", "counts"]].assign(reason=reason)[~kept]
    return replace(
        samples,
        codes=_renumbered(samples.codes, kept),
        table=table[kept].reset_index(drop=True),
        dropped=dropped.reset_index(drop=True),
    ), sums.counts if kept[enough].all() else sums.counts[kept[enough]]


def _rows(adata: AnnData) -> Levels:
    return Levels(np.arange(adata.n_obs), as_text(adata.obs_names.astype(str).to_list()))


def _asked_for(groups: Columns | None, condition: Levels, groupby: Columns) -> np.ndarray:
    """Codes of the conditions asked for."""
    if groups is None:
        return np.arange(len(condition.labels))
    asked = [str(group) for group in column_names(groups)]
    for group in asked:
        if group not in condition.labels:
            msg = f"There is no group {group!r} in adata.obs[{groupby!r}]. {choices(group, list(condition.labels))}"
            raise ValueError(msg)
    return np.flatnonzero(np.isin(condition.labels, asked))


def _used(
    condition: Levels, replicate: Levels, block: Levels | None, asked_for: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Which cells belong to a sample, and how many do not, each counted under the first reason that holds."""
    used = np.ones(len(condition.codes), dtype=bool)
    left_out = {}
    for reason, without in {
        "no_condition": condition.codes < 0,
        "other_groups": ~np.isin(condition.codes, asked_for),
        "no_replicate": replicate.codes < 0,
        "no_block": np.zeros_like(used) if block is None else block.codes < 0,
    }.items():
        left_out[reason] = int((used & without).sum())
        used &= ~without
    if not used.any():
        msg = f"No cell is left: of {len(used)} cells, those left out by reason are {left_out}."
        raise ValueError(msg)
    return used, left_out


def _samples(condition: Levels, replicate: Levels, used: np.ndarray, left_out: dict[str, int]) -> SampleTable:
    n_replicates = len(replicate.labels)
    pairs, of_cell = np.unique(condition.codes[used] * n_replicates + replicate.codes[used], return_inverse=True)
    codes = np.full(len(used), -1, dtype=np.int64)
    codes[used] = of_cell
    table = pd.DataFrame(
        {
            "condition": condition.labels[pairs // n_replicates],
            "replicate": replicate.labels[pairs % n_replicates],
            "n_cells": np.bincount(of_cell),
        }
    )
    return SampleTable(codes, table, left_out, table.iloc[:0].assign(counts=np.empty(0), reason=as_text([])))


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
    table.insert(2, "block", block.labels[of_sample])
    return replace(samples, table=table)


def _renumbered(codes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Codes of the kept samples counted anew from 0, -1 for the cells of the others."""
    return np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)[codes]
