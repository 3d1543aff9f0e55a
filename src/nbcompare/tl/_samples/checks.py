"""Samples that cannot be independent replicates: copies of one another, or numbers that vary less than counts do."""

from __future__ import annotations

from nbcompare._messages import warn
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.underdispersion import variance_to_mean, varies_too_little


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
