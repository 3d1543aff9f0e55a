"""How deep each sample was sequenced, relative to the others: size factors with geometric mean 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nbcompare._counts.pooled_ratios import Units, common_rates, group_depths, rows_of_groups
from nbcompare._counts.tmm import tmm, tmmwsp

Method = Literal["auto", "median_of_ratios", "pooled_ratios", "poscounts", "total", "tmm", "tmmwsp"]

FEW_GENES = 10  # with fewer genes positive in all samples, their median ratio is mostly chance
# Where most of these genes have fewer counts in some sample, being positive there selects those that are high by chance.
FEW_COUNTS = 2
FOLLOWS = 0.1  # slope of the log ratio of poscounts to totals over log totals that is warned of
LEAST_RANGE = 0.3  # standard deviation of the log totals from which the slope is looked at


@dataclass(frozen=True)
class SizeFactors:
    """How deep samples are."""

    factors: np.ndarray  # (n_samples,) geometric mean 1
    method: str  # that gave them
    unstable: np.ndarray  # (n_samples,) bool, under "auto" alone: the counts do not determine the depth


def measure_depths(counts: np.ndarray, method: str = "auto", groups: np.ndarray | None = None) -> SizeFactors:
    """Size factors of (n_samples, n_genes) counts; `groups` (n_samples,) are pooled by `pooled_ratios`, else each sample is a group."""
    smallest = counts.min(axis=0)
    check_depths(counts, method, smallest > 0)
    used = chosen(smallest) if method == "auto" else method
    unstable = np.zeros(len(counts), bool)
    if used == "pooled_ratios":
        raw, unknown = pooled_ratios(counts, np.arange(len(counts)) if groups is None else groups)
        unstable = unknown if method == "auto" else unstable
    else:
        raw = _METHODS[used](counts)
    return SizeFactors(_normalised(raw), used, unstable)


def size_factors(counts: np.ndarray, method: str = "auto", groups: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    """The factors alone, and the method that gave them."""
    found = measure_depths(counts, method, groups)
    return found.factors, found.method


def chosen(smallest: np.ndarray) -> str:
    """What `auto` takes, by the smallest count of each gene (n_genes,): the median of ratios where shared genes are well counted."""
    shared = smallest[smallest > 0]
    return "median_of_ratios" if shared.size >= FEW_GENES and np.median(shared) >= FEW_COUNTS else "pooled_ratios"


def follows_depth(factors: np.ndarray, totals: np.ndarray) -> str:
    """A warning where factors by `poscounts` fall behind the totals the deeper a sample is; empty if they do not."""
    log_total = np.log(totals) - np.log(totals).mean()
    if log_total.std() < LEAST_RANGE:
        return ""
    slope = float(log_total @ (np.log(factors) - np.log(totals)) / (log_total @ log_total))
    if slope > -FOLLOWS:
        return ""
    return (
        f"size_factors='poscounts' underestimates differences of sequencing depth here: a sample with twice the counts gets "
        f"{2 ** (1 + slope):.2f} times the size factor, because zeros are left out of the ratios. If depth differs between groups, p-values "
        "and fold changes are wrong. Use size_factors='auto' or 'pooled_ratios'."
    )


def check_depths(counts: np.ndarray, method: str, in_all: np.ndarray) -> None:
    """Refuse samples without counts, and a median of ratios without a gene that is positive in all samples."""
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    if empty.size:
        msg = f"Samples {_listed(empty)} (rows, from 0) have no counts, so no size factors. Drop them: min_counts=1."
        raise ValueError(msg)
    if method == "median_of_ratios" and not in_all.any():
        msg = (
            "No gene is positive in all samples, so there is no median of ratios. "
            "Use method 'pooled_ratios' ('auto' does), or drop the emptiest samples with min_cells or min_counts."
        )
        raise ValueError(msg)


def given_factors(values: np.ndarray, n_samples: int) -> np.ndarray:
    """A user's own factors, checked, scaled to geometric mean 1."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n_samples,):
        msg = f"Size factors have shape {values.shape}, but one is needed for each of the {n_samples} samples."
        raise ValueError(msg)
    check_factors(values)
    return _normalised(values)


def check_factors(values: np.ndarray, argument: str = "size_factors", names: Sequence[str] | None = None) -> None:
    """Refuse factors (n_samples,) that are no depths; the message names the argument, and the samples if they have names."""
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        which = (
            f"{_listed(bad)} (rows, from 0)" if names is None else _listed(np.array([repr(names[int(i)]) for i in bad]))
        )
        msg = f"Size factors ({argument}) must be finite and above 0, but those of samples {which} are not."
        raise ValueError(msg)


def total(counts: np.ndarray) -> np.ndarray:
    """Total counts of each sample."""
    return counts.sum(axis=1)


def median_of_ratios(counts: np.ndarray) -> np.ndarray:
    """Median over genes of count / geometric mean of the gene, genes positive in all samples (Anders & Huber 2010)."""
    log_counts = np.log(counts[:, _in_all_samples(counts)])
    return np.exp(np.median(log_counts - log_counts.mean(axis=0), axis=1))


def pooled_ratios(counts: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depths by the counts of pooled groups (n_samples,), and which of them the counts do not determine; see `pooled`."""
    units = Units(common_rates(counts, groups))
    raw, unknown = np.empty(len(counts)), np.empty(len(counts), bool)
    for rows in rows_of_groups(groups):
        found = group_depths(units, counts[rows])
        raw[rows], unknown[rows] = found.factors, found.unknown
    return raw, unknown


def poscounts(counts: np.ndarray) -> np.ndarray:
    """Median over a sample's positive genes of count / exp(sum of the gene's positive log counts / all samples).

    The zeros count in the denominator only: a gene of few samples has a small reference (DESeq2's `poscounts`).
    """
    log_reference = np.zeros(counts.shape[1])
    for sample in counts:
        log_reference += np.log(np.maximum(sample, 1.0)) / len(counts)
    return np.array([np.exp(np.median(np.log(sample[sample > 0]) - log_reference[sample > 0])) for sample in counts])


def _in_all_samples(counts: np.ndarray) -> np.ndarray:
    return counts.min(axis=0) > 0


def _normalised(factors: np.ndarray) -> np.ndarray:
    log_factors = np.log(factors)
    return np.exp(log_factors - log_factors.mean())


def _listed(rows: np.ndarray) -> str:
    return ", ".join(map(str, rows[:5])) + (f" and {rows.size - 5} more" if rows.size > 5 else "")


_METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median_of_ratios": median_of_ratios,
    "poscounts": poscounts,
    "total": total,
    "tmm": tmm,
    "tmmwsp": tmmwsp,
}
