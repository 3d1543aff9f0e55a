"""What is compared with what: samples, depths, groups, blocks and pairs of one call, checked before any work is done on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import (
    SampleTable,
    column_names,
    level_list,
    numbers_of,
    read_obs,
    read_samples,
    sum_samples,
    the_level,
)
from nbcompare._anndata.rows import (
    CELLS_A_GROUP,
    COUNTS_OF_A_SAMPLE,
    cells_column,
    may_be_samples,
    rows_a_group,
    with_cells,
)
from nbcompare._counts.chunks import CHUNK_SIZE
from nbcompare._counts.size_factors import Method, check_factors, follows_depth, given_factors, measure_depths
from nbcompare._messages import choices, warn
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.block_effects import connected_parts, residual_degrees
from nbcompare.tl._samples.offsets import read_offsets
from nbcompare.tl._samples.options import SampleOptions

METHODS = get_args(Method)


class UntestableError(ValueError):
    """Samples that cannot answer: the message says why, `status` is the bit that genes get where a call goes on without them."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Design:
    """The samples of a call and the pairs of groups among them."""

    samples: SampleTable
    pseudobulk: Pseudobulk
    comparisons: list[str]  # treated level of every comparison
    pairs: np.ndarray  # (n_comparisons, 2) int64, reference and treated group; reference -1 is all others together
    unstable: np.ndarray  # (n_samples,) bool, depth not determined by the counts
    factors_used: str  # method that gave the size factors


def read_sample_counts(
    adata: AnnData,
    options: SampleOptions,
    *,
    joined: Sequence[str] = (),
    may_lack: bool = False,
    named: Collection[str] = (),
    check: Callable[[SampleTable], None] | None = None,
    chunk_size: int = CHUNK_SIZE,
    may_share: bool = False,
    progress: Callable[[float], object] | None = None,
) -> tuple[SampleTable, np.ndarray]:
    """The samples that are large enough, and their counts (n_samples, n_genes); with `may_share` perhaps those of `adata`.

    `joined` are levels that are one group. `named` are the levels that the user names as reference or groups. `check` may refuse the
    samples of enough cells before they are summed.
    """
    replicate_key, insist = options.replicate_key, options.allow_cells_as_replicates
    samples = read_samples(
        adata,
        options.groupby,
        replicate_key=replicate_key,
        block_key=options.block_key,
        split_by=options.split_by,
        joined=joined,
        may_lack=may_lack,
        named=[*named, *joined],
    )
    samples = with_cells(adata, samples, row_is_sample=replicate_key is None)
    least = 1 if may_be_samples(adata, samples) else options.min_cells
    if check is not None and len((large := samples.of_cells(least)).table):
        check(large)
    samples, counts = sum_samples(
        adata,
        samples,
        layer=options.layer,
        min_cells=options.min_cells,
        min_counts=options.min_counts,
        chunk_size=chunk_size,
        may_share=may_share,
        progress=progress,
    )
    one_each = replicate_key is None or bool((np.bincount(samples.codes[samples.codes >= 0]) == 1).all())
    if one_each and cells_column(adata) is None and not insist:
        _refuse_cells(samples, options.groupby, replicate_key, can_insist=insist is not None)
    return samples, counts


def make_design(
    adata: AnnData,
    samples: SampleTable,
    counts: np.ndarray,
    *,
    reference: str,
    groups: str | Sequence[str],
    factors: str | Sequence[float],
    replicate_key: str | Sequence[str] | None,
    offset: str | np.ndarray | None = None,
) -> Design:
    """Groups, blocks, depths and pairs; refuses a design that cannot answer anything, and says how."""
    levels = list(dict.fromkeys(samples.table["condition"]))
    comparisons = comparisons_with(samples, levels, str(reference), groups)
    code = {level: k for k, level in enumerate(levels)}
    group = samples.table["condition"].map(code).to_numpy(np.intp)
    blocked = "block" in samples.table
    block = pd.factorize(samples.table["block"])[0].astype(np.intp) if blocked else None
    pairs = np.array([[-1 if reference == "rest" else code[str(reference)], code[name]] for name in comparisons])
    exposure, of_gene, unstable, used = sample_depths(adata, samples, counts, factors, replicate_key, offset)
    pseudobulk = Pseudobulk(np.ascontiguousarray(counts.T), exposure, group, block, of_gene)
    check_replicates(samples, pseudobulk, pairs)
    return Design(samples, pseudobulk, comparisons, pairs.astype(np.int64), unstable, used)


def _refuse_cells(
    samples: SampleTable, groupby: str | Sequence[str], replicate_key: str | Sequence[str] | None, *, can_insist: bool
) -> None:
    """Refuse rows that look like cells where each is a replicate."""
    a_group, counts = rows_a_group(samples), samples.table["counts"].median()
    if a_group > CELLS_A_GROUP and counts < COUNTS_OF_A_SAMPLE:
        why = (
            "replicate_key is None" if replicate_key is None else f"replicate_key is {replicate_key!r}, one value a row"
        )
        msg = (
            f"{why}, so each of the {len(samples.table)} rows is a replicate, but they look like cells: "
            f"{a_group:.0f} a group of {groupby!r}, with {counts:.0f} counts each. Cells of one donor or culture are not "
            "replicates, and taking them for such gives p-values that are far too small. Pass replicate_key, the column of "
            ".obs with donor, animal, well or batch"
        )
        msg += "; or, if each row is an independent sample, allow_cells_as_replicates=True." if can_insist else "."
        raise ValueError(msg)


def comparisons_with(
    samples: SampleTable, levels: list[str], reference: str, groups: str | Sequence[str], *, name_dropped: bool = True
) -> list[str]:
    """The groups that are compared with the reference, those that have samples; warns of those that have none."""
    lost = [level for level in dict.fromkeys(samples.dropped["condition"]) if level not in levels]
    known = levels + lost
    if reference == "rest" and "rest" in known:
        msg = "reference='rest' stands for all other samples together, but a group is called 'rest' as well. Rename it."
        raise ValueError(msg)
    if reference != "rest" and reference not in known:
        msg = f"There is no group {reference!r} to be the reference. {choices(reference, [*known, 'rest'])}"
        raise ValueError(msg)
    if reference in lost:
        msg = (
            f"No sample of the reference {reference!r} is left: {_reasons(samples, reference)}. "
            "Lower min_cells or min_counts, or choose another reference."
        )
        raise ValueError(msg)
    requested = (
        known
        if isinstance(groups, str) and groups == "all"
        else [the_level(group, known) for group in level_list(groups)]
    )
    for group in requested:
        if group not in known:
            msg = f"There is no group {group!r} to compare. {choices(group, known)}"
            raise ValueError(msg)
    gone = [group for group in requested if group in lost]
    if gone and name_dropped:
        msg = f"No sample of {', '.join(map(repr, gone))} is left ({_reasons(samples, gone[0])}): not compared."
        warn(msg)
    comparisons = [group for group in dict.fromkeys(requested) if group in levels and group != reference]
    if not comparisons or len(levels) < 2:
        msg = f"There is nothing to compare with the reference {reference!r}: the groups with samples are {levels}."
        raise ValueError(msg)
    return comparisons


def _reasons(samples: SampleTable, condition: str) -> str:
    return ", ".join(dict.fromkeys(samples.dropped.loc[samples.dropped["condition"] == condition, "reason"]))


def sample_depths(
    adata: AnnData,
    samples: SampleTable,
    counts: np.ndarray,
    factors: str | Sequence[float],
    replicate_key: str | Sequence[str] | None,
    offset: str | np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, str]:
    """Size factors (n_samples,), exposures (n_genes, n_samples) if there are offsets, samples of unknown depth, the method used.

    Depths are measured on counts that are rid of the factors of the offsets.
    """
    log_factors = None if offset is None else read_offsets(adata, samples, offset)
    corrected = counts if log_factors is None else counts / np.exp(log_factors)
    unstable = np.zeros(len(counts), bool)
    if isinstance(factors, str) and factors in METHODS:
        found = measure_depths(corrected, factors, pd.factorize(samples.table["condition"])[0])
        exposure, used, unstable = found.factors, found.method, found.unstable
        if used == "poscounts" and (text := follows_depth(exposure, corrected.sum(axis=1))):
            warn(text)
    else:
        of_sample = factors_of_samples(adata, samples, factors, replicate_key)
        exposure, used = given_factors(of_sample, len(of_sample)), "given"
    of_gene = None if log_factors is None else np.ascontiguousarray((exposure[:, None] * np.exp(log_factors)).T)
    return exposure, of_gene, unstable, used


def factors_of_samples(
    adata: AnnData,
    samples: SampleTable,
    factors: str | Sequence[float],
    replicate_key: str | Sequence[str] | None,
) -> np.ndarray:
    """Numbers of the samples, (n_samples,), finite and positive, from a column of obs or one for each row."""
    used = samples.codes >= 0
    if isinstance(factors, str):
        if factors not in adata.obs.columns:
            msg = f"size_factors is {factors!r}: neither a method ({', '.join(METHODS)}) nor a column of .obs. "
            raise KeyError(msg + choices(factors, [*METHODS, *map(str, adata.obs.columns)]))
        column = read_obs(adata, [factors])[factors]
        if column.dtype.kind not in "biuf":
            msg = f"adata.obs[{factors!r}] holds {column.dtype}, but size factors are numbers."
            raise ValueError(msg)
        of_row = column.to_numpy(np.float64, na_value=np.nan)
        of_sample = np.full(len(samples.table), np.nan)
        of_sample[samples.codes[used]] = of_row[used]
        if not np.array_equal(of_row[used], of_sample[samples.codes[used]], equal_nan=True):
            msg = f"adata.obs[{factors!r}] is not one number within each sample. Size factors belong to samples, not to cells."
            raise ValueError(msg)
        check_factors(of_sample, names=samples.names)
        return of_sample
    needed = (
        f"numbers are taken only where each row is a sample (replicate_key=None), one for each of the {adata.n_obs} rows. Sum the cells "
        "with pp.pseudobulk first, or put the numbers in a column of .obs and pass its name."
    )
    if replicate_key is not None:
        msg = f"size_factors has shape {np.shape(factors)}, but {needed}"
        raise ValueError(msg)
    values = numbers_of(factors, {"row": adata.obs_names}, "size_factors", needed)
    of_sample = np.empty(len(samples.table))
    of_sample[samples.codes[used]] = values[used]
    check_factors(of_sample, names=samples.names)
    return of_sample


def check_replicates(samples: SampleTable, pseudobulk: Pseudobulk, pairs: np.ndarray) -> None:
    sizes = np.bincount(pseudobulk.group)
    if sizes.max() == 1:
        msg = (
            f"Each of the {len(sizes)} groups has one replicate, but the dispersion can only be estimated from two or more biological replicates in "
            f"at least one group. {len(samples.dropped)} samples were dropped (min_cells, min_counts): lower these limits, or add replicates."
        )
        raise UntestableError(msg, Status.NO_REPLICATES)
    if pseudobulk.block is None:
        return
    parts = connected_parts(pseudobulk.group, pseudobulk.block)
    if all(parts[b] not in (np.delete(parts, b) if a < 0 else parts[[a]]) for a, b in pairs):
        msg = (
            "No block holds samples of both groups of any comparison: conditions and blocks are confounded, and the effect of the condition cannot "
            "be separated from the effect of the blocks. Leave block_key out, or choose another column."
        )
        raise UntestableError(msg, Status.CONFOUNDED)
    if residual_degrees(pseudobulk) < 1:
        msg = (
            f"{len(pseudobulk.group)} samples in {len(sizes)} groups and {pseudobulk.n_blocks} blocks leave no residual degrees of "
            "freedom to estimate the dispersion. Leave block_key out, or use coarser blocks."
        )
        raise UntestableError(msg, Status.NO_REPLICATES)


def informative_blocks(samples: SampleTable) -> dict[str, np.ndarray]:
    """Whether the block of each sample has samples of several conditions, as a column `informative_block`; none without blocks."""
    if "block" not in samples.table:
        return {}
    return {"informative_block": (samples.table.groupby("block")["condition"].transform("nunique") > 1).to_numpy()}


def warn_uninformative_blocks(table: pd.DataFrame) -> None:
    """Say which blocks hold samples of one condition alone, which hold no information on a difference."""
    if "informative_block" not in table or table["informative_block"].all():
        return
    uninformative = list(dict.fromkeys(table.loc[~table["informative_block"], "block"].astype(str)))
    shown = ", ".join(map(repr, uninformative[:10])) + (
        f", ... ({len(uninformative)} in all)" if len(uninformative) > 10 else ""
    )
    msg = (
        f"Blocks with samples of one condition only, {shown}, do not contribute to the comparison. They are marked in the table of samples "
        "(column 'informative_block')."
    )
    warn(msg)


def suggest_design(
    table: pd.DataFrame,
    comparisons: Sequence[str],
    reference: str,
    groupby: str | Sequence[str],
    block_key: str | Sequence[str],
) -> None:
    """Warn of comparisons whose two groups share no block, but are linked through blocks with other groups.

    Block effects as factors of the exposures are then uncertain, and the test within blocks has hardly any power; in a design it has.
    """
    if "block" not in table or reference == "rest":
        return
    linked: dict[str, None] = {}
    for _, part in table.groupby("split", observed=True) if "split" in table else [("", table)]:
        names, group = np.unique(part["condition"].to_numpy(str), return_inverse=True)
        blocks, block = np.unique(part["block"].to_numpy(str), return_inverse=True)
        if reference not in names:
            continue
        held = np.zeros((len(names), len(blocks)), bool)
        held[group, block] = True
        parts = connected_parts(group, block)
        start = int(np.flatnonzero(names == reference)[0])
        for k in np.flatnonzero((parts == parts[start]) & ~(held & held[start]).any(axis=1)):
            if names[k] in comparisons:
                linked[str(names[k])] = None
    if not linked:
        return
    shown = ", ".join(map(repr, list(linked)[:10])) + (f", ... ({len(linked)} in all)" if len(linked) > 10 else "")
    formula = f"~ {_term(block_key)} + {_term(groupby)}"
    msg = (
        f"No block holds samples of both {reference!r} and {shown}: with block_key these comparisons have almost no power, though other groups "
        f"link the blocks. Fit one model to all groups instead: leave block_key out and pass design={formula!r}."
    )
    warn(msg)


def _term(columns: str | Sequence[str]) -> str:
    """Columns of obs as one term of a formula, names that are not Python's between backticks."""
    return ":".join(name if name.isidentifier() else f"`{name}`" for name in column_names(columns))


def suggest_block_key(samples: SampleTable, replicate_key: str | Sequence[str] | None) -> None:
    shared = samples.table.groupby("replicate")["condition"].nunique()
    if replicate_key is not None and len(shared) > 1 and (shared > 1).all():
        msg = (
            f"Every replicate in {replicate_key!r} occurs in several groups. If these are the same donors, animals or batches, pass "
            f"block_key={replicate_key!r}: the comparison is then made within them, which usually increases power."
        )
        warn(msg)
