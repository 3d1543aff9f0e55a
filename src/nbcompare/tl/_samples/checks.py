"""Samples that their tests must warn of: few cells, an uncertain sequencing depth, replicates that vary less than counts can."""

from __future__ import annotations

import numpy as np

from nbcompare._messages import warn
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.underdispersion import variance_to_mean, varies_too_little
from nbcompare._nb.status import Status


def warn_of_underdispersion(pseudobulk: Pseudobulk) -> bool:
    """Whether replicates vary less than independent counts can, with one warning where they do."""
    ratio, degrees = variance_to_mean(pseudobulk)
    if not varies_too_little(ratio, degrees):
        return False
    warn(
        f"Replicates vary less than counts can: their variance is {ratio:.2g} times that of Poisson counts, and independent samples have 1 or more. "
        "Is the same sample in the data more than once, or are these no raw counts (smoothed, averaged, corrected)? All tests have the status "
        "underdispersed, and their p-values are not valid."
    )
    return True


def sample_flags(tiny: np.ndarray, unstable: np.ndarray) -> np.ndarray:
    """Status bits of samples, (n_samples,) uint32: fewer than 10 cells (`tiny`), or an uncertain sequencing depth (`unstable`)."""
    bits = np.where(tiny, Status.TINY_PSEUDOBULK, 0) | np.where(unstable, Status.SIZE_FACTOR_UNSTABLE, 0)
    return bits.astype(np.uint32)


def flags_of_comparisons(flags: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Status bits (n_comparisons,) that comparisons take over from the samples that they use, (n_samples, n_comparisons) bool."""
    return np.asarray(np.bitwise_or.reduce(np.where(used, flags[:, None], np.uint32(0)), axis=0), dtype=np.uint32)
