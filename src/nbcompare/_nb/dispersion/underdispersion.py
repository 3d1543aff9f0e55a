r"""Whether replicates vary less than counts can: copies of one sample, or numbers that are no raw counts.

Independent counts vary at least as Poisson counts do. The Pearson statistic :math:`\sum (y - m)^2 / m` within groups, over its degrees of
freedom, is then about 1 or more.
"""

from __future__ import annotations

import numpy as np

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.status import NOT_TESTED, Status

GENES_LOOKED_AT = 2000
LEAST_MEAN = 1.0  # of a gene in a group
LEAST_DEGREES = 100  # below them the ratio is chance
LARGEST_RATIO = 0.7
DEVIATIONS = 6.0  # standard deviations that the ratio of Poisson counts would lie below 1


def variance_to_mean(pseudobulk: Pseudobulk) -> tuple[float, float]:
    """Variance within groups over that of Poisson counts, over evenly spaced genes, and its degrees of freedom."""
    step = max(1, len(pseudobulk.counts) // GENES_LOOKED_AT)
    of_genes = pseudobulk.counts[::step]
    exposures = np.broadcast_to(pseudobulk.exposures, pseudobulk.counts.shape)[::step]
    statistic, degrees = 0.0, 0.0
    for group in range(pseudobulk.n_groups):
        own = pseudobulk.group == group
        if own.sum() < 2:
            continue
        counts, depth = of_genes[:, own], exposures[:, own]
        fitted = depth * (counts.sum(axis=1) / depth.sum(axis=1))[:, None]
        used = fitted.min(axis=1) >= LEAST_MEAN
        statistic += float((np.square(counts[used] - fitted[used]) / fitted[used]).sum())
        degrees += float(used.sum() * (own.sum() - 1))
    return statistic / max(degrees, 1.0), degrees


def varies_too_little(ratio: float, degrees: float) -> bool:
    """Whether this ratio of variances cannot be that of independent counts."""
    return degrees >= LEAST_DEGREES and ratio < min(LARGEST_RATIO, 1 - DEVIATIONS * np.sqrt(3 / degrees))


def flagged(status: np.ndarray) -> np.ndarray:
    """The status of tests of such replicates: it is not the genes that are few."""
    tested = (status & NOT_TESTED) == 0
    marked = (status & ~np.uint32(Status.FEW_GENES)) | np.uint32(Status.UNDERDISPERSED)
    return np.where(tested, marked, status).astype(np.uint32)
