"""Size factors of further samples on the scale of those that a reference was made from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np

from nbcompare._counts.pooled_ratios import Units, common_rates, group_depths, rows_of_groups
from nbcompare._counts.size_factors import check_depths, chosen

SAMPLES_AT_ONCE = 16  # stay in the processor's cache


@dataclass(frozen=True)
class DepthReference:
    """What size factors are relative to: genes of a median, rates of pooled groups, or totals."""

    method: str  # median_of_ratios, pooled_ratios, poscounts or total
    log_reference: np.ndarray  # (n_genes,) mean log count, zeros in the denominator only; log rates of pooled groups
    genes: np.ndarray  # (n_genes,) bool, positive in all samples of the reference; in any of pooled groups
    log_scale: float  # log geometric mean of the raw factors of those samples

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every field as an array."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> DepthReference:
        """The reference that `to_arrays` took apart."""
        return cls(
            str(np.asarray(arrays["method"]).item()),
            np.asarray(arrays["log_reference"]),
            np.asarray(arrays["genes"]),
            float(np.asarray(arrays["log_scale"]).item()),
        )


def fit_depths(
    counts: np.ndarray, method: str = "auto", groups: np.ndarray | None = None, *, n_threads: int = 1
) -> tuple[np.ndarray, DepthReference]:
    """Size factors of (n_samples, n_genes) counts as `exposure.size_factors` gives them, and the reference for other samples."""
    if method in ("tmm", "tmmwsp"):
        msg = (
            f"size_factors is {method!r}, which compares with one sample of the set; a screen takes 'auto' or another "
            "method."
        )
        raise ValueError(msg)
    groups = np.arange(len(counts)) if groups is None else groups
    chunks = [counts[start : start + SAMPLES_AT_ONCE] for start in range(0, len(counts), SAMPLES_AT_ONCE)]
    with ThreadPoolExecutor(n_threads) as pool:
        smallest = np.min(list(pool.map(lambda chunk: chunk.min(axis=0), chunks)), axis=0)
        genes = smallest > 0
        check_depths(counts, method, genes)
        method = chosen(smallest) if method == "auto" else method
        if method == "pooled_ratios":
            rates = common_rates(counts, groups)
            with np.errstate(divide="ignore"):
                log_reference, genes = np.log(rates), rates > 0
        else:
            log_reference = np.sum(list(pool.map(_sum_of_logs, chunks)), axis=0) / len(counts)
    reference = DepthReference(method, log_reference, genes, 0.0)
    raw = depth_factors(reference, counts, groups, n_threads=n_threads)[0]
    log_scale = np.log(raw).mean()
    return raw / np.exp(log_scale), replace(reference, log_scale=float(log_scale))


def depth_factors(
    reference: DepthReference,
    samples: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    rows: np.ndarray | None = None,
    n_threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Size factors of samples (n_samples, n_genes), or of some rows of them, NaN without counts, and which the counts do not determine.

    Each sample is measured on its own; by pooled ratios each group (n_rows,) is, whatever other groups there are.
    """
    rows = np.arange(len(samples)) if rows is None else rows
    factors, unknown = np.empty(len(rows)), np.zeros(len(rows), bool)
    if reference.method == "pooled_ratios":
        units = Units(np.exp(reference.log_reference))
        chunks = rows_of_groups(np.arange(len(rows)) if groups is None else groups)
    else:
        chunks = np.split(np.arange(len(rows)), range(SAMPLES_AT_ONCE, len(rows), SAMPLES_AT_ONCE))

    def measure(chunk: np.ndarray) -> None:
        if reference.method == "pooled_ratios":
            found = group_depths(units, samples[rows[chunk]])
            factors[chunk], unknown[chunk] = found.factors, found.unknown
        else:
            factors[chunk] = _each(reference, samples[rows[chunk]])

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(measure, chunks))
    factors = np.where(factors > 0, factors, np.nan) / np.exp(reference.log_scale)
    return factors, unknown | np.isnan(factors)


def _each(reference: DepthReference, samples: np.ndarray) -> np.ndarray:
    """Depths of samples (n_rows, n_genes) that do not depend on each other; 0 where most genes of the median have no counts."""
    if reference.method == "total":
        return samples.sum(axis=1, dtype=np.float64)
    if reference.method == "median_of_ratios":
        inverse = np.exp(-reference.log_reference[reference.genes])
        return _medians(samples[:, reference.genes] * inverse)
    inverse = np.exp(-reference.log_reference)
    return np.array([_medians(ratios[None])[0] for ratios in _positive(samples, inverse)])


def _sum_of_logs(samples: np.ndarray) -> np.ndarray:
    """Sum of the log counts of each gene, a zero's being zero."""
    return np.log(np.maximum(samples, 1.0)).sum(axis=0)


def _positive(samples: np.ndarray, inverse: np.ndarray) -> Iterator[np.ndarray]:
    """The positive ratios of each sample, a single zero where there are none."""
    for sample in samples:
        yield sample[sample > 0] * inverse[sample > 0] if sample.any() else np.zeros(1)


def _medians(ratios: np.ndarray) -> np.ndarray:
    """Median of each row, between two middle values their geometric mean."""
    n = ratios.shape[1]
    parted = np.partition(ratios, n // 2, axis=1)  # for one place this is several times faster than for two
    upper = parted[:, n // 2]
    return np.sqrt(upper * (upper if n % 2 else parted[:, : n // 2].max(axis=1)))
