"""One line that says what a call did: samples, genes, test. It is stored with the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._messages import counted, listed
from nbcompare._nb.status import NOT_TESTED, status_text

LEFT_OUT = {  # key of n_cells_excluded -> words
    "no_condition": "without a group",
    "no_replicate": "without a replicate",
    "no_block": "without a block",
    "no_split": "without a value of split_by",
    "other_groups": "of other groups",
}
TESTS = {
    "moderated": "moderated test",
    "wald": "Wald test",
    "lrt": "likelihood ratio test",
    "ql": "quasi-likelihood F test",
}
POSTERIORS = {"quadrature": "posterior by numerical integration", "transformer": "posterior by the trained network"}
MOST_NAMED = 3


def summary_of_comparison(
    params: Mapping[str, Any],
    comparisons: Sequence[str],
    reference: str,
    status: np.ndarray,
    samples: Mapping[str, Any],
    design: Mapping[str, Any],
    splits: Sequence[str],
    hidden_factors: Mapping[str, Any],
) -> str:
    """What `nb_compare` did, status (n_genes, n_comparisons), `samples` as they are stored."""
    what = counted(len(comparisons), "comparison")
    with_what = "of each group with the rest" if reference == "rest" else f"with reference {reference!r}"
    named = f" ({listed(comparisons, most=MOST_NAMED)})"
    parts = [f"{what}{named} {with_what}" if reference else f"{counted(len(comparisons), 'contrast')}{named}"]
    if splits:
        parts.append(f"in {counted(len(splits), 'value')} of {_columns(params['split_by'])}")
    parts += [*_samples(samples), _genes(status)]
    if design or params["design"] is not None:
        parts.append(f"design {params['design']!r}")
    elif "block" in samples["samples"]:
        parts.append(_blocks(samples["samples"]))
    parts.append(_test(params))
    if hidden_factors:
        parts.append(_hidden(hidden_factors if not splits else list(hidden_factors.values())))
    return f"nb_compare: {'; '.join(parts)}."


def _hidden(found: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """The number of hidden factors, of several comparisons or splits the smallest and the largest."""
    each = [found] if isinstance(found, Mapping) else found
    numbers = np.concatenate([one["n_factors"] for one in each])
    low, high = int(numbers.min()), int(numbers.max())
    return (
        f"adjusted for {counted(high, 'hidden factor')}"
        if low == high
        else f"adjusted for {low} to {high} hidden factors"
    )


def summary_of_screen(params: Mapping[str, Any], obs: pd.DataFrame, n_genes: int, samples: Mapping[str, Any]) -> str:
    """What `nb_screen` did, `obs` and `samples` as they are stored."""
    tested = obs["n_tested"].to_numpy() > 0
    untested = obs["status"][~tested].astype(str).value_counts()
    why = ", ".join(f"{number:,} {status}" for status, number in untested.items())
    parts = [
        f"{tested.sum():,} of {counted(len(obs), 'perturbation')} tested against {params['reference']!r}"
        + (f" ({why})" if why else ""),
        *_samples(samples),
        f"{int(obs['n_tested'].sum()):,} of {len(obs) * n_genes:,} tests made",
    ]
    if "block" in samples["samples"]:
        parts.append(f"{counted(samples['samples']['block'].nunique(), 'block')} of {_columns(params['block_key'])}")
    parts.append(_test({"test": "moderated", "dispersion": "all", "lfc_threshold": 0, **params}))
    return f"nb_screen: {'; '.join(parts)}."


def summary_of_samples(samples: Mapping[str, Any], n_genes: int) -> str:
    """What `pseudobulk` did."""
    return f"pseudobulk: {'; '.join(_samples(samples))}; {counted(n_genes, 'gene')}."


def reasons_untested(status: np.ndarray) -> dict[str, int]:
    """How many tests were not made, by the reason, the most frequent first."""
    values, counts = np.unique(status & np.uint32(NOT_TESTED), return_counts=True)
    found = {status_text(int(value)): int(n) for value, n in zip(values, counts, strict=True) if value}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _samples(samples: Mapping[str, Any]) -> list[str]:
    used, dropped = len(samples["samples"]), samples["dropped_samples"]
    text = f"{used:,} of {counted(used + len(dropped), 'sample')} used"
    if len(dropped):
        reasons = dropped["reason"].value_counts()
        why = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items()) if len(reasons) > 1 else reasons.index[0]
        text += f" ({len(dropped):,} dropped: {why})"
    left = {LEFT_OUT.get(name, name): int(n) for name, n in samples["n_cells_excluded"].items() if n}
    cells = ", ".join(f"{n:,} {words}" for words, n in left.items())
    return [text, f"rows left out: {cells}"] if left else [text]


def _genes(status: np.ndarray) -> str:
    n_tested = ((status & NOT_TESTED) == 0).sum(axis=0)
    if not len(n_tested):
        return "no gene tested"
    low, high = int(n_tested.min()), int(n_tested.max())
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in list(reasons_untested(status).items())[:MOST_NAMED])
    why = f" (not tested: {reasons})" if reasons else ""
    return f"{low:,}{f' to {high:,}' if high > low else ''} of {counted(len(status), 'gene')} tested{why}"


def _blocks(table: pd.DataFrame) -> str:
    blocks = table.drop_duplicates(["split", "block"] if "split" in table else ["block"])
    alone = int((~blocks["informative_block"].astype(bool)).sum()) if "informative_block" in blocks else 0
    return counted(len(blocks), "block") + (f" ({alone:,} with samples of one group only)" if alone else "")


def _test(params: Mapping[str, Any]) -> str:
    test = TESTS[str(params["test"])] + (" by maximum likelihood" if params["method"] == "mle" else "")
    parts = [test]
    if params["lfc_threshold"]:
        relation = "above" if params["alternative"] == "greater_abs" else "below"
        parts.append(f"absolute log2 fold change {relation} {params['lfc_threshold']:g}")
    if params["test"] in ("moderated", "ql"):
        across = "the groups of each comparison" if params["dispersion"] == "pair" else "all groups"
        parts.append(f"dispersions share information across genes and {across}")
    parts += [POSTERIORS[params["method"]]] if params["method"] in POSTERIORS else []
    return ", ".join(parts)


def _columns(columns: Any) -> str:
    return listed([columns] if isinstance(columns, str) else list(columns))
