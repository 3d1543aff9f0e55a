"""Size factors that account for the common shift of each comparison, so that most genes have a log fold change of zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nbcompare._messages import counted, listed, warn
from nbcompare._nb.inference.common_shift import FEWEST_GENES, common_shift
from nbcompare._nb.moderated import Moderated, moderated_tests
from nbcompare._nb.status import NOT_TESTED
from nbcompare.tl._samples.groups import Design

LARGE = 0.5  # log2 fold changes that all genes share, from which a warning is given
LOG_2 = float(np.log(2))


def with_common_shift(design: Design, *, shared: bool, min_gene_counts: float) -> tuple[Design, np.ndarray]:
    """The samples with size factors that account for the common shifts, and these shifts, log2, (n_comparisons,).

    The size factors of the treated group of each comparison are multiplied by its shift. With all other samples as reference the
    groups share the shifts out by their size factors.
    """
    found = moderated_tests(
        design.pseudobulk, design.pairs, shared=shared, min_gene_counts=min_gene_counts, leave_out=False
    )
    shifts = np.array([_shift_of(found, c) for c in range(len(design.pairs))])
    pseudobulk = design.pseudobulk
    move = np.zeros(pseudobulk.n_groups)
    for (reference, treated), shift in zip(design.pairs, shifts, strict=True):
        depth = pseudobulk.exposure[pseudobulk.group == treated].sum() / pseudobulk.exposure.sum()
        move[treated] = shift * (1.0 - depth if reference < 0 else 1.0)
    factors = np.exp(move[pseudobulk.group] - move[pseudobulk.group].mean())
    of_gene = None if pseudobulk.of_gene is None else pseudobulk.of_gene * factors
    moved = replace(pseudobulk, exposure=pseudobulk.exposure * factors, of_gene=of_gene)
    return replace(design, pseudobulk=moved), shifts / LOG_2


def warn_of_common_shift(shifts: np.ndarray, comparisons: Sequence[str]) -> None:
    """One warning for all comparisons with a large common shift, log2, (n_comparisons,)."""
    large = [name for name, shift in zip(comparisons, shifts, strict=True) if abs(shift) > LARGE]
    if large:
        msg = (
            f"Most genes share a log2 fold change of up to {np.nanmax(np.abs(shifts)):.2f} in {len(large)} of "
            f"{counted(len(shifts), 'comparison')} ({listed(large, most=5)}). The size factors account for it (common_shift in .uns), so that "
            "log fold changes are relative to most genes. If most genes really change in one direction, use common_shift=False and size factors from "
            "spike-ins or genes that are known not to change."
        )
        warn(msg)


def _shift_of(found: Moderated, c: int) -> float:
    """The common shift of the c-th comparison, 0 where few genes are tested."""
    log_fc, se = found.log_fc[:, c], found.se[:, c]
    known = ((found.status[:, c] & NOT_TESTED) == 0) & np.isfinite(log_fc) & np.isfinite(se) & (se > 0)
    return common_shift(log_fc[known], se[known]) if known.sum() >= FEWEST_GENES else 0.0
