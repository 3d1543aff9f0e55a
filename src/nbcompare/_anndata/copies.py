"""Samples with identical counts: the same sample twice, or copied into another group."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from nbcompare._messages import counted, warn

if TYPE_CHECKING:
    from nbcompare._anndata.sample_table import SampleTable

FEWEST_GENES = 20  # with counts; with fewer, two samples can be equal by chance
MOST_NAMED = 3


def identical_samples(counts: np.ndarray, totals: np.ndarray) -> list[list[int]]:
    """Sets of samples with the same counts (n_samples, n_genes) in all genes; `totals` (n_samples,) are their sums."""
    _, place, n_equal = np.unique(totals, return_inverse=True, return_counts=True)
    found: dict[bytes, list[int]] = {}
    for sample in np.flatnonzero((n_equal[place] > 1) & (totals > 0)):
        row = np.ascontiguousarray(counts[sample])
        if np.count_nonzero(row) >= FEWEST_GENES:
            found.setdefault(hashlib.sha1(row.tobytes(), usedforsecurity=False).digest(), []).append(int(sample))
    return [same for same in found.values() if len(same) > 1]


def warn_of_copies(counts: np.ndarray, totals: np.ndarray, samples: SampleTable) -> None:
    """One warning that names samples with identical counts."""
    same = identical_samples(counts, totals)
    if not same:
        return
    names, conditions = samples.names, samples.table["condition"].to_list()
    named = "; ".join(" and ".join(repr(names[k]) for k in one) for one in same[:MOST_NAMED])
    more = f"; and {len(same) - MOST_NAMED} more sets" if len(same) > MOST_NAMED else ""
    across = any(len({conditions[k] for k in one}) > 1 for one in same)
    where = " Some of them are in different groups: a sample was copied, or labels were exchanged." if across else ""
    n_samples = counted(sum(map(len, same)), "sample")
    warn(
        f"{n_samples} have counts that are identical to those of another sample in all genes: {named}{more}. Copies are no replicates, and p-values "
        f"with them are far too small. Keep one of each.{where}"
    )
