"""The same comparisons in every split (cell type), each a data set of its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import SampleTable, as_text, level_list, the_level
from nbcompare._messages import choices
from nbcompare._nb.status import Status
from nbcompare.tl._compare.dataset import Outcome, compare_samples
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._compare.split_results import Part, absence, join, refusal, tabulate, warn_of_untested
from nbcompare.tl._formula.plan import check_plan, make_plan, number_labels


def check_levels(samples: SampleTable, reference: str, groups: str | Sequence[str]) -> None:
    """Refuse a reference and groups that no split has, before anything is summed."""
    known = list(samples.conditions)
    if reference != "rest" and reference not in known:
        msg = f"There is no group {reference!r} to be the reference. {choices(reference, [*known, 'rest'])}"
        raise ValueError(msg)
    for group in _requested(samples, reference, groups):
        if group not in known:
            msg = f"There is no group {group!r} to compare. {choices(group, known)}"
            raise ValueError(msg)


def check_splits(samples: SampleTable, adata: AnnData, options: CompareOptions) -> None:
    """The same, and the columns of a formula."""
    if options.question.contrast is None:
        check_levels(samples, str(options.question.reference), options.question.groups)
    if options.question.design is not None:
        check_plan(samples, adata, options)


def compare_splits(
    adata: AnnData, samples: SampleTable, counts: np.ndarray, options: CompareOptions
) -> tuple[Outcome, np.ndarray, pd.DataFrame]:
    """The outcomes of all splits as one, the split of each column, and the table of the columns.

    Columns are the comparisons of the first split, then those of the second, all splits with the same comparisons. What
    cannot be compared is NaN with a status; an error only if that is everything.
    """
    named = options.question.contrast is not None
    requested = [] if named else _requested(samples, str(options.question.reference), options.question.groups)
    if options.question.design is not None:
        options = options.asking(number_labels=number_labels(adata, samples, options))
    of_sample = samples.table["split"].to_numpy()
    parts = {
        split: _compared(adata, samples.of_split(split), counts[of_sample == split], options, requested)
        for split in samples.splits
    }
    if all(part.outcome is None for part in parts.values()):
        raise ValueError(refusal(parts))
    outcome = join(parts, requested)
    table = tabulate(parts, outcome)
    warn_of_untested(table)
    splits = as_text([split for split in parts for _ in outcome.comparisons])
    return replace(outcome, comparisons=outcome.comparisons * len(parts)), splits, table


def _requested(samples: SampleTable, reference: str, groups: str | Sequence[str]) -> list[str]:
    every = isinstance(groups, str) and groups == "all"
    requested = samples.conditions if every else [the_level(group, samples.conditions) for group in level_list(groups)]
    return [group for group in dict.fromkeys(requested) if group != reference]


def _compared(
    adata: AnnData, samples: SampleTable, counts: np.ndarray, options: CompareOptions, requested: list[str]
) -> Part:
    """One split: those of the comparisons asked for whose groups have samples."""
    present = [group for group in requested if (samples.table["condition"] == group).any()]
    n_samples, dropped = len(samples.table), samples.dropped
    if reason := _nothing_to_compare(samples, options, requested, present):
        return Part(n_samples, dropped, None, reason, Status.GROUP_MISSING)
    chosen, refused = ({"groups": present}, "") if requested else _possible(adata, samples, options)
    try:
        outcome = compare_samples(adata, samples, counts, options.asking(**chosen))
    except ValueError as error:
        return Part(n_samples, dropped, None, str(error), getattr(error, "status", Status.NOT_COMPARED))
    return Part(n_samples, dropped, outcome, refused, Status.OK)


def _possible(adata: AnnData, samples: SampleTable, options: CompareOptions) -> tuple[dict[str, Any], str]:
    """Of several contrasts those that this split can answer, all of them if none, and why not the others."""
    contrast: Any = options.question.contrast
    by_name = isinstance(contrast, Mapping) and not any(isinstance(value, Real) for value in contrast.values())
    if not by_name and not (isinstance(contrast, list) and all(isinstance(one, tuple) for one in contrast)):
        return {}, ""
    each = dict(contrast) if by_name else dict(enumerate(contrast))
    refused = {}
    for name, one in each.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said when all are fitted
                make_plan(adata, samples, options.asking(contrast={name: one} if by_name else [one]))
        except ValueError as error:
            refused[name] = str(error)
    if not refused or len(refused) == len(each):
        return {}, ""
    kept = {name: one for name, one in each.items() if name not in refused}
    return {"contrast": kept if by_name else list(kept.values())}, "; ".join(dict.fromkeys(refused.values()))


def _nothing_to_compare(samples: SampleTable, options: CompareOptions, requested: list[str], present: list[str]) -> str:
    """Why a split has no comparison, for want of groups; empty if it has, or if that is not for groups to say."""
    left, reference = set(samples.table["condition"]), str(options.question.reference)
    if not left:
        return f"no sample is left ({', '.join(dict.fromkeys(samples.dropped['reason']))})"
    if not requested:
        return ""
    if reference != "rest" and reference not in left:
        return absence(samples.dropped, reference)
    if not present:
        return "; ".join(absence(samples.dropped, group) for group in requested)
    return f"all samples are of {present[0]!r}" if len(left) < 2 else ""
