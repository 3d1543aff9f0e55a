"""The same comparisons in every split (cell type), each a data set of its own, in one set of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import SampleTable, as_text, choices, column_names
from nbcompare._nb.status import NOT_TESTED, Status, status_text

from ._data_set import Outcome, compare_samples
from ._designed import check_plan, make_plan

MOST_LISTED = 5  # reasons in a message
OK, GROUP_MISSING, NOT_COMPARED = (np.uint16(bit) for bit in (Status.OK, Status.GROUP_MISSING, Status.NOT_COMPARED))


@dataclass(frozen=True)
class Part:
    """What became of one split."""

    samples: SampleTable
    outcome: Outcome | None  # None where nothing could be compared
    reason: str  # why, for all comparisons that the split lacks
    status: np.uint16  # the same as a bit of `Status`


def check_levels(samples: SampleTable, reference: str, groups: str | Sequence[str]) -> None:
    """Refuse a reference and groups that no split has, before anything is summed."""
    known = list(samples.conditions)
    if reference != "rest" and reference not in known:
        msg = f"There is no group {reference!r} to be the reference. {choices(reference, [*known, 'rest'])}"
        raise ValueError(msg)
    for group in _asked(samples, reference, groups):
        if group not in known:
            msg = f"There is no group {group!r} to compare. {choices(group, known)}"
            raise ValueError(msg)


def check_splits(samples: SampleTable, adata: AnnData, options: Mapping[str, Any]) -> None:
    """The same, and the columns of a formula."""
    if options["contrast"] is None:
        check_levels(samples, str(options["reference"]), options["groups"])
    if options["design"] is not None:
        check_plan(samples, adata, options)


def compare_splits(
    adata: AnnData, samples: SampleTable, counts: np.ndarray, options: Mapping[str, Any]
) -> tuple[Outcome, np.ndarray, pd.DataFrame]:
    """The outcomes of all splits as one, the split of each column, and the table of the columns.

    Columns are the comparisons of the first split, then those of the second, all splits with the same comparisons. What
    cannot be compared is NaN with a status; an error only if that is everything.
    """
    named = options["contrast"] is not None
    asked = [] if named else _asked(samples, str(options["reference"]), options["groups"])
    of_sample = samples.table["split"].to_numpy()
    parts = {
        split: _compared(adata, samples.of_split(split), counts[of_sample == split], options, asked)
        for split in samples.splits
    }
    if all(part.outcome is None for part in parts.values()):
        raise ValueError(_refusal(parts))
    outcome = _joined(parts, asked)
    table = _table(parts, outcome)
    _tell(table)
    splits = as_text([split for split in parts for _ in outcome.comparisons])
    return replace(outcome, comparisons=outcome.comparisons * len(parts)), splits, table


def _asked(samples: SampleTable, reference: str, groups: str | Sequence[str]) -> list[str]:
    every = isinstance(groups, str) and groups == "all"
    asked = samples.conditions if every else [str(group) for group in column_names(groups)]
    return [group for group in dict.fromkeys(asked) if group != reference]


def _compared(
    adata: AnnData, samples: SampleTable, counts: np.ndarray, options: Mapping[str, Any], asked: list[str]
) -> Part:
    """One split: those of the comparisons asked for whose groups have samples."""
    present = [group for group in asked if (samples.table["condition"] == group).any()]
    if reason := _nothing_to_compare(samples, options, asked, present):
        return Part(samples, None, reason, GROUP_MISSING)
    chosen, refused = ({"groups": present}, "") if asked else _possible(adata, samples, options)
    try:
        return Part(samples, compare_samples(adata, samples, counts, {**options, **chosen}), refused, OK)
    except ValueError as error:
        return Part(samples, None, str(error), np.uint16(getattr(error, "status", NOT_COMPARED)))


def _possible(adata: AnnData, samples: SampleTable, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Of several contrasts those that this split can answer, all of them if none, and why not the others."""
    contrast, refused = options["contrast"], {}
    by_name = isinstance(contrast, Mapping) and not any(isinstance(value, Real) for value in contrast.values())
    one_by_one = isinstance(contrast, list) and all(isinstance(one, tuple) for one in contrast)
    each = (
        [{name: one} for name, one in contrast.items()]
        if by_name
        else [[one] for one in contrast]
        if one_by_one
        else []
    )
    for number, one in enumerate(each):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said when all are fitted
                make_plan(adata, samples, {**options, "contrast": one})
        except ValueError as error:
            refused[number] = str(error)
    if not refused or len(refused) == len(each):
        return {}, ""
    kept = [number for number in range(len(each)) if number not in refused]
    names = list(contrast)  # of a dict its keys
    joined = (
        {names[number]: contrast[names[number]] for number in kept} if by_name else [names[number] for number in kept]
    )
    return {"contrast": joined}, "; ".join(dict.fromkeys(refused.values()))


def _nothing_to_compare(samples: SampleTable, options: Mapping[str, Any], asked: list[str], present: list[str]) -> str:
    """Why a split has no comparison, for want of groups; empty if it has, or if that is not for groups to say."""
    left, reference = set(samples.table["condition"]), str(options["reference"])
    if not left:
        return f"no sample is left ({', '.join(dict.fromkeys(samples.dropped['reason']))})"
    if not asked:
        return ""
    if reference != "rest" and reference not in left:
        return _absence(samples, reference)
    if not present:
        return "; ".join(_absence(samples, group) for group in asked)
    return f"all samples are of {present[0]!r}" if len(left) < 2 else ""


def _absence(samples: SampleTable, group: str) -> str:
    """Why a group has no sample here."""
    reasons = ", ".join(dict.fromkeys(samples.dropped.loc[samples.dropped["condition"] == group, "reason"]))
    return f"no sample of {group!r}" + (f" is left ({reasons})" if reasons else "")


def _joined(parts: Mapping[str, Part], asked: Sequence[str]) -> Outcome:
    """One outcome with the columns of all splits."""
    found = {split: part.outcome for split, part in parts.items() if part.outcome is not None}
    comparisons = list(dict.fromkeys([*asked, *(name for outcome in found.values() for name in outcome.comparisons)]))
    n_genes = next(iter(found.values())).arrays["pvals"].shape[0]
    words = dict.fromkeys(word for outcome in found.values() for word in outcome.arrays)
    arrays = {word: _empty(found, word, (n_genes, len(parts) * len(comparisons))) for word in words}
    columns = {word: np.full((n_genes, len(parts)), np.nan) for word in next(iter(found.values())).columns}
    trend: dict[str, Any] = {}
    for number, (split, part) in enumerate(parts.items()):
        first = number * len(comparisons)
        arrays["status"][:, first : first + len(comparisons)] = part.status or GROUP_MISSING
        trend[str(number)] = {}
        if (outcome := found.get(split)) is None:
            continue
        places = [comparisons.index(name) for name in outcome.comparisons]
        for word, values in outcome.arrays.items():
            arrays[word][:, [first + place for place in places]] = values
        for word, of_gene in outcome.columns.items():
            columns[word][:, number] = of_gene
        trend[str(number)] = _with_noise_of_all(outcome.trend, places, len(comparisons))
    samples = pd.concat([_named(outcome.samples, split) for split, outcome in found.items()], ignore_index=True)
    became = _became([outcome.became for outcome in found.values()])
    priors = {str(n): found[split].prior for n, split in enumerate(parts) if split in found and found[split].prior}
    return Outcome(arrays, columns, trend, comparisons, samples, became, *_designs(found, list(parts)), priors)


def _designs(found: Mapping[str, Outcome], splits: list[str]) -> tuple[dict[str, Any], np.ndarray | None]:
    """The designs by the number of the split, and the coefficients of all splits side by side; nothing without designs."""
    designs = {str(splits.index(split)): outcome.design for split, outcome in found.items() if outcome.design}
    parts = [outcome.coefficients for outcome in found.values() if outcome.coefficients is not None]
    return designs, np.concatenate(parts, axis=1) if parts else None


def _empty(found: Mapping[str, Outcome], word: str, shape: tuple[int, int]) -> np.ndarray:
    """An array of what was not compared: NaN, or 0 where the results are whole numbers."""
    kind = next(outcome.arrays[word].dtype for outcome in found.values() if word in outcome.arrays)
    return np.full(shape, np.nan if kind.kind == "f" else 0, kind)


def _with_noise_of_all(trend: Mapping[str, Any], places: list[int], n_comparisons: int) -> dict[str, Any]:
    """The trend with a row of `noise` for each comparison, also for those that this split lacks."""
    if "noise" not in trend:
        return dict(trend)
    noise = np.ones((n_comparisons, 2))
    noise[places] = trend["noise"]
    return {**trend, "noise": noise}


def _became(of_splits: list[dict[str, Any]]) -> dict[str, Any]:
    """What the arguments became where all splits agree, else the different values."""
    return {
        name: next(iter(values))
        if len(values := dict.fromkeys(part[name] for part in of_splits)) == 1
        else list(values)
        for name in of_splits[0]
    }


def _named(samples: pd.DataFrame, split: str) -> pd.DataFrame:
    named = samples.copy()
    named.insert(0, "split", as_text([split] * len(samples)))
    return named


def _table(parts: Mapping[str, Part], outcome: Outcome) -> pd.DataFrame:
    """One row a column of the arrays: how many samples the split has, how many genes were tested, why none."""
    n_tested = (~np.isnan(outcome.arrays["pvals"])).sum(axis=0).reshape(len(parts), -1)
    status = outcome.arrays["status"].reshape(-1, len(parts), len(outcome.comparisons))
    rows = []
    for number, (split, part) in enumerate(parts.items()):
        for c, name in enumerate(outcome.comparisons):
            reason = "" if n_tested[number, c] else _reason(part, name, status[:, number, c])
            rows.append((split, name, len(part.samples.table), int(n_tested[number, c]), reason))
    table = pd.DataFrame(rows, columns=["split", "comparison", "n_samples", "n_tested", "reason"])
    return table.astype({"split": object, "comparison": object, "reason": object})


def _reason(part: Part, name: str, status: np.ndarray) -> str:
    """Why a comparison has no tested gene in a split."""
    if part.outcome is None or name not in part.outcome.comparisons:
        return part.reason or _absence(part.samples, name)
    values, counts = np.unique(status & np.uint16(NOT_TESTED), return_counts=True)
    return f"no gene was tested, most of them for {status_text(int(values[np.argmax(counts)]))!r}"


def _refusal(parts: Mapping[str, Part]) -> str:
    """The reasons of all splits, or the one that they share."""
    reasons = {split: part.reason for split, part in parts.items()}
    if len(set(reasons.values())) == 1 and len(parts) > 1:
        return f"In each of the {len(parts)} splits the same: {next(iter(reasons.values()))}"
    return f"Nothing can be compared in any of the {len(parts)} splits. {_reasons(reasons)}"


def _tell(table: pd.DataFrame) -> None:
    """One warning for all columns without a test."""
    untested = table[table["n_tested"] == 0]
    if len(untested):
        reasons = dict(zip(untested["split"] + ", " + untested["comparison"], untested["reason"], strict=True))
        msg = (
            f"{len(untested)} of {len(table)} comparisons could not be made, their p-values are NaN (the table of splits in "
            f".uns has all reasons). {_reasons(reasons)}"
        )
        warnings.warn(msg, UserWarning, stacklevel=4)


def _reasons(reasons: Mapping[str, str]) -> str:
    shown = [f"{name}: {reason}" for name, reason in list(reasons.items())[:MOST_LISTED]]
    more = f" And {len(reasons) - MOST_LISTED} more." if len(reasons) > MOST_LISTED else ""
    return "; ".join(shown).rstrip(".") + "." + more
