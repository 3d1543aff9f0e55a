"""Size factors of further samples on the scale of those that a reference was made from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from nbcompare._counts.exposure import FEW_GENES, check_depths

SAMPLES_AT_ONCE = 16  # stay in the processor's cache


@dataclass(frozen=True)
class DepthReference:
    """What size factors are relative to. One gene in the median, or all of a sample's positive ones, or totals."""

    method: str  # median_of_ratios, poscounts or total
    log_reference: np.ndarray  # (n_genes,) mean log count, zeros in the denominator only
    genes: np.ndarray  # (n_genes,) bool, positive in all samples of the reference
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


def fit_depths(counts: np.ndarray, method: str = "auto", *, n_threads: int = 1) -> tuple[np.ndarray, DepthReference]:
    """Size factors of (n_samples, n_genes) counts as `exposure.size_factors` gives them, and the reference for other samples."""
    if method in ("tmm", "tmmwsp"):
        msg = (
            f"size_factors is {method!r}, which compares with one sample of the set; a screen takes 'auto' or another "
            "method."
        )
        raise ValueError(msg)
    pieces = [counts[start : start + SAMPLES_AT_ONCE] for start in range(0, len(counts), SAMPLES_AT_ONCE)]
    with ThreadPoolExecutor(n_threads) as pool:
        genes = np.min(list(pool.map(lambda piece: piece.min(axis=0), pieces)), axis=0) > 0
        log_reference = np.sum(list(pool.map(_sum_of_logs, pieces)), axis=0) / len(counts)
    check_depths(counts, method, genes)
    if method == "auto":
        method = "median_of_ratios" if genes.sum() >= FEW_GENES else "poscounts"
    reference = DepthReference(method, log_reference, genes, 0.0)
    with ThreadPoolExecutor(n_threads) as pool:
        raw = np.concatenate(list(pool.map(partial(depth_factors, reference), pieces)))
    log_scale = np.log(raw).mean()
    return raw / np.exp(log_scale), replace(reference, log_scale=float(log_scale))


def depth_factors(reference: DepthReference, samples: np.ndarray) -> np.ndarray:
    """Size factors of samples (n_rows, n_genes), each on its own; NaN where most genes of the median have no counts."""
    if reference.method == "total":
        raw = samples.sum(axis=1, dtype=np.float64)
    elif reference.method == "median_of_ratios":
        inverse = np.exp(-reference.log_reference[reference.genes])
        raw = _medians(samples[:, reference.genes] * inverse)
    else:
        inverse = np.exp(-reference.log_reference)
        raw = np.array([_medians(ratios[None])[0] for ratios in _positive(samples, inverse)])
    return np.where(raw > 0, raw, np.nan) / np.exp(reference.log_scale)


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
