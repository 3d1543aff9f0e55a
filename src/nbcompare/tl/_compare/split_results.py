"""The results of all splits as columns of one set of arrays, the table of these columns, and what is said of those without a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata import as_text
from nbcompare._messages import warn
from nbcompare._nb.status import NOT_TESTED, Status, status_text
from nbcompare.tl._compare.dataset import Outcome

MOST_LISTED = 5  # reasons in a message


@dataclass(frozen=True)
class Part:
    """What became of one split."""

    n_samples: int
    dropped: pd.DataFrame  # samples that were too small
    outcome: Outcome | None  # None where nothing could be compared
    reason: str  # why, for all comparisons that the split lacks
    status: Status  # the same as a bit


def join(parts: Mapping[str, Part], requested: Sequence[str]) -> Outcome:
    """One outcome with the columns of all splits."""
    found = {split: part.outcome for split, part in parts.items() if part.outcome is not None}
    comparisons = list(
        dict.fromkeys([*requested, *(name for outcome in found.values() for name in outcome.comparisons)])
    )
    n_genes = next(iter(found.values())).arrays["pvals"].shape[0]
    words = dict.fromkeys(word for outcome in found.values() for word in outcome.arrays)
    arrays = {word: _empty(found, word, (n_genes, len(parts) * len(comparisons))) for word in words}
    columns = {word: np.full((n_genes, len(parts)), np.nan) for word in next(iter(found.values())).columns}
    trend: dict[str, Any] = {}
    for number, (split, part) in enumerate(parts.items()):
        first = number * len(comparisons)
        arrays["status"][:, first : first + len(comparisons)] = int(part.status or Status.GROUP_MISSING)
        trend[str(number)] = {}
        if (outcome := found.get(split)) is None:
            continue
        positions = [comparisons.index(name) for name in outcome.comparisons]
        for word, values in outcome.arrays.items():
            arrays[word][:, [first + place for place in positions]] = values
        for word, of_gene in outcome.columns.items():
            columns[word][:, number] = of_gene
        trend[str(number)] = _with_ratios_of_all(outcome.trend, positions, len(comparisons))
    samples = pd.concat([_named(outcome.samples, split) for split, outcome in found.items()], ignore_index=True)
    resolved = _resolved([outcome.resolved for outcome in found.values()])
    priors = {str(n): found[split].prior for n, split in enumerate(parts) if split in found and found[split].prior}
    null = _null_of_all(found, list(parts), comparisons)
    factors = [outcome.offset_factors for outcome in found.values() if outcome.offset_factors is not None]
    of_offsets = np.concatenate(factors, axis=1) if factors else None  # columns as the rows of samples
    hidden = {
        str(n): found[split].hidden_factors
        for n, split in enumerate(parts)
        if split in found and found[split].hidden_factors
    }
    return Outcome(
        arrays,
        columns,
        trend,
        comparisons,
        samples,
        resolved,
        *_designs(found, list(parts)),
        priors,
        null,
        of_offsets,
        hidden,
        max(outcome.shared_variation for outcome in found.values()),
    )


def tabulate(parts: Mapping[str, Part], outcome: Outcome) -> pd.DataFrame:
    """One row a column of the arrays: how many samples the split has, how many genes were tested, why none."""
    n_tested = (~np.isnan(outcome.arrays["pvals"])).sum(axis=0).reshape(len(parts), -1)
    status = outcome.arrays["status"].reshape(-1, len(parts), len(outcome.comparisons))
    rows = []
    for number, (split, part) in enumerate(parts.items()):
        for c, name in enumerate(outcome.comparisons):
            reason = "" if n_tested[number, c] else _reason(part, name, status[:, number, c])
            rows.append((split, name, part.n_samples, int(n_tested[number, c]), reason))
    table = pd.DataFrame(rows, columns=["split", "comparison", "n_samples", "n_tested", "reason"])
    return table.astype({"split": object, "comparison": object, "reason": object})


def refusal(parts: Mapping[str, Part]) -> str:
    """The reasons of all splits, or the one that they share."""
    reasons = {split: part.reason for split, part in parts.items()}
    if len(set(reasons.values())) == 1 and len(parts) > 1:
        return f"In each of the {len(parts)} splits the same: {next(iter(reasons.values()))}"
    return f"Nothing can be compared in any of the {len(parts)} splits. {_reasons(reasons)}"


def warn_of_untested(table: pd.DataFrame) -> None:
    """One warning for all columns without a test."""
    untested = table[table["n_tested"] == 0]
    if len(untested):
        reasons = dict(zip(untested["split"] + ", " + untested["comparison"], untested["reason"], strict=True))
        msg = (
            f"{len(untested)} of {len(table)} comparisons could not be made, their p-values are NaN (the table of splits in "
            f".uns has all reasons). {_reasons(reasons)}"
        )
        warn(msg)


def absence(dropped: pd.DataFrame, group: str) -> str:
    """Why a group has no sample in a split."""
    reasons = ", ".join(dict.fromkeys(dropped.loc[dropped["condition"] == group, "reason"]))
    return f"no sample of {group!r}" + (f" is left ({reasons})" if reasons else "")


def _null_of_all(found: Mapping[str, Outcome], splits: list[str], comparisons: list[str]) -> dict[str, np.ndarray]:
    """Null spreads and common shifts of the columns of all splits, NaN where nothing was compared."""
    joined: dict[str, np.ndarray] = {}
    for split, outcome in found.items():
        for word, values in outcome.null.items():
            column = joined.setdefault(word, np.full((len(splits), len(comparisons)), np.nan))
            column[splits.index(split), [comparisons.index(name) for name in outcome.comparisons]] = values
    return {word: values.ravel() for word, values in joined.items()}


def _designs(found: Mapping[str, Outcome], splits: list[str]) -> tuple[dict[str, Any], np.ndarray | None]:
    """The designs by the number of the split, and the coefficients of all splits side by side; nothing without designs."""
    designs = {str(splits.index(split)): outcome.design for split, outcome in found.items() if outcome.design}
    parts = [outcome.coefficients for outcome in found.values() if outcome.coefficients is not None]
    return designs, np.concatenate(parts, axis=1) if parts else None


def _empty(found: Mapping[str, Outcome], word: str, shape: tuple[int, int]) -> np.ndarray:
    """An array of what was not compared: NaN, or 0 where the results are whole numbers."""
    kind = next(outcome.arrays[word].dtype for outcome in found.values() if word in outcome.arrays)
    return np.full(shape, np.nan if kind.kind == "f" else 0, kind)


def _with_ratios_of_all(trend: Mapping[str, Any], positions: list[int], n_comparisons: int) -> dict[str, Any]:
    """The trend with a row of `dispersion_ratio` for each comparison, also for those that this split lacks."""
    if "dispersion_ratio" not in trend:
        return dict(trend)
    dispersion_ratio = np.ones((n_comparisons, 2))
    dispersion_ratio[positions] = trend["dispersion_ratio"]
    return {**trend, "dispersion_ratio": dispersion_ratio}


def _resolved(of_splits: list[dict[str, Any]]) -> dict[str, Any]:
    """What the arguments became where all splits agree, else the different values."""
    different = {name: list(dict.fromkeys(one[name] for one in of_splits)) for name in of_splits[0]}
    return {name: values[0] if len(values) == 1 else values for name, values in different.items()}


def _named(samples: pd.DataFrame, split: str) -> pd.DataFrame:
    named = samples.copy()
    named.insert(0, "split", as_text([split] * len(samples)))
    return named


def _reason(part: Part, name: str, status: np.ndarray) -> str:
    """Why a comparison has no tested gene in a split."""
    if part.outcome is None or name not in part.outcome.comparisons:
        return part.reason or absence(part.dropped, name)
    values, counts = np.unique(status & np.uint32(NOT_TESTED), return_counts=True)
    return f"no gene was tested, most of them for {status_text(int(values[np.argmax(counts)]))!r}"


def _reasons(reasons: Mapping[str, str]) -> str:
    shown = [f"{name}: {reason}" for name, reason in list(reasons.items())[:MOST_LISTED]]
    more = f" And {len(reasons) - MOST_LISTED} more." if len(reasons) > MOST_LISTED else ""
    return "; ".join(shown).rstrip(".") + "." + more
