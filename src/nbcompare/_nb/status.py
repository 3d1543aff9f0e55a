"""Why a gene has no p-value, and what a reader of its p-value should know."""

from __future__ import annotations

from enum import IntFlag

import numpy as np


class Status(IntFlag):
    """Bits of the stored status (uint32): the first eight say why there is no p-value, the others stand beside one."""

    OK = 0
    ALL_ZERO = 1
    LOW_COUNTS = 2
    NO_REPLICATES = 4
    CONFOUNDED = 8
    SIZE_FACTOR_UNSTABLE = 16
    GROUP_MISSING = 32
    NOT_COMPARED = 64
    NOT_COMPUTED = 128

    FEW_GENES = 256
    ZERO_GROUP = 512
    OUTLIER_REPLICATE = 1024
    HIGH_MEAN_EXTRAPOLATED = 2048
    TINY_PSEUDOBULK = 4096
    ONE_REPLICATE_GROUP = 8192
    HIGH_DISPERSION_GROUP = 16384
    OUTSIDE_TRAINING = 32768
    REPLICATE_NOT_LEFT_OUT = 65536
    POSTERIOR_NOT_COMPUTED = 131072
    UNDERDISPERSED = 262144


NOT_TESTED = 255

MEANING = {
    "ok": "tested, nothing to remark",
    "all_zero": "not tested: no count in either group",
    "low_counts": "not tested: fewer counts in the two groups together than min_gene_counts",
    "no_replicates": "not tested: the dispersion cannot be estimated (one replicate each, or blocks use all degrees of freedom), and no other group has replicates",
    "confounded": "not tested: blocks and conditions coincide, less than 5 % of the information is left",
    "size_factor_unstable": "not tested: the counts are too few or too different to determine the sequencing depth of a group of this comparison (95 % interval beyond twofold)",
    "group_missing": "not tested: a group of this comparison has no sample left (of this cell type, with split_by)",
    "not_compared": "not tested: nothing could be compared in this split (cell type), for the reason in the table of splits",
    "not_computed": "not tested: the counts or size factors are too extreme for a number to be computed",
    "few_genes": "tested: fewer than 30 usable genes, the spread of the dispersions is the prior's",
    "zero_group": "tested: a group has no counts, the effect and its interval use half a count",
    "outlier_replicate": "tested: the difference rests on one replicate, the p-value is the largest without one of them",
    "high_mean_extrapolated": "tested: the mean lies more than tenfold above the dispersion trend's last knot",
    "tiny_pseudobulk": "tested: a sample of the comparison is the sum of fewer than 10 cells",
    "one_replicate_group": "tested: a group has one replicate, the dispersion is that of the other groups; in real data without a difference (1 against 20 replicates) p < 0.001 came up four to five times too often",
    "high_dispersion_group": "tested: the replicates of a group vary more than those of the other groups; the test uses the dispersion of its own two groups",
    "outside_training": "tested: outside the range that the network was trained on; the posterior is by quadrature, or a Gaussian approximation with importance_sampling=False",
    "replicate_not_left_out": "tested: too few replicates are left to test without one of them, so it is not known whether the difference rests on one replicate",
    "underdispersed": "tested: replicates vary less than independent counts can (copies of one sample, or no raw counts), so the p-value is not valid",
    "posterior_not_computed": "tested: the counts or size factors are too extreme for the numbers of a posterior",
}


def status_of(p_value: np.ndarray, status: np.ndarray) -> np.ndarray:
    """The status where each missing p-value has a reason: `NOT_COMPUTED` where no other is known. What stands beside a test goes with it."""
    status = np.where(np.isnan(p_value) & ((status & NOT_TESTED) == 0), np.uint32(Status.NOT_COMPUTED), status)
    return np.where((status & NOT_TESTED) > 0, status & NOT_TESTED, status).astype(np.uint32)


def status_codes() -> dict[str, int]:
    """Every code's name and value, as stored beside the results."""
    return {"ok": 0} | {member.name.lower(): int(member) for member in Status if member.name}


def status_text(value: int) -> str:
    """The names of the bits of one stored status, joined by `|`.

    >>> status_text(0), status_text(256 + 512)
    ('ok', 'few_genes|zero_group')
    """
    return "|".join(name for name, bit in status_codes().items() if bit and value & bit) or "ok"
