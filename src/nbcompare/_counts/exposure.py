"""How deep each sample was sequenced, relative to the others: size factors with geometric mean 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from .trimmed import tmm, tmmwsp

Method = Literal["auto", "median_of_ratios", "poscounts", "total", "tmm", "tmmwsp"]

FEW_GENES = 10  # with fewer genes positive in all samples, their median ratio is mostly noise
APART = 2.0  # factors by total and by positive counts that differ by more say that neither is to be trusted


def size_factors(counts: np.ndarray, method: str = "auto") -> tuple[np.ndarray, str]:
    """Size factors of (n_samples, n_genes) counts, geometric mean 1, and the method that gave them.

    `auto` is the median of ratios, or `poscounts` where fewer than ten genes are positive in all samples.
    """
    genes = _in_all_samples(counts)
    check_depths(counts, method, genes)
    if method == "auto":
        method = "median_of_ratios" if genes.sum() >= FEW_GENES else "poscounts"
    return _normalised(_METHODS[method](counts)), method


def check_depths(counts: np.ndarray, method: str, in_all: np.ndarray) -> None:
    """Refuse samples without counts, and a median of ratios without a gene that is positive in all samples."""
    empty = np.flatnonzero(counts.sum(axis=1) == 0)
    if empty.size:
        msg = f"Samples {_listed(empty)} (rows, from 0) have no counts, so no size factors. Drop them: min_counts=1."
        raise ValueError(msg)
    if method == "median_of_ratios" and not in_all.any():
        msg = (
            "No gene is positive in all samples, so there is no median of ratios. "
            "Use method 'poscounts' ('auto' does), or drop the emptiest samples with min_cells or min_counts."
        )
        raise ValueError(msg)


def given_factors(values: np.ndarray, n_samples: int) -> np.ndarray:
    """A user's own factors, checked, scaled to geometric mean 1."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n_samples,):
        msg = f"Size factors have shape {values.shape}, but one is needed for each of the {n_samples} samples."
        raise ValueError(msg)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        msg = f"Size factors must be finite and above 0, but those of samples {_listed(bad)} (rows, from 0) are not."
        raise ValueError(msg)
    return _normalised(values)


def unstable_samples(counts: np.ndarray) -> np.ndarray:
    """Samples whose depth the counts do not tell: few genes shared by all, and two methods more than twofold apart."""
    if _in_all_samples(counts).sum() >= FEW_GENES:
        return np.zeros(len(counts), dtype=bool)
    by_ratios, by_totals = size_factors(counts, "poscounts")[0], size_factors(counts, "total")[0]
    return np.abs(np.log(by_ratios / by_totals)) > np.log(APART)


def total(counts: np.ndarray) -> np.ndarray:
    """Total counts of each sample."""
    return counts.sum(axis=1)


def median_of_ratios(counts: np.ndarray) -> np.ndarray:
    """Median over genes of count / geometric mean of the gene, genes positive in all samples (Anders & Huber 2010)."""
    log_counts = np.log(counts[:, _in_all_samples(counts)])
    return np.exp(np.median(log_counts - log_counts.mean(axis=0), axis=1))


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
