"""Dispersion against mean, and the spread of genes around it, in any design: `trend` with the statistics of `glm.dispersion.pearson`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Trend
from nbcompare._nb.dispersion.trend import (
    PRIOR_LOG_DISPERSION_VAR,
    Brackets,
    evenly_by_total,
    mean_bins,
    next_of_bins,
    trend_of_bins,
)
from nbcompare._nb.glm.dispersion.pearson import pearson_of_genes
from nbcompare._nb.glm.fit.design import DesignMatrices
from nbcompare._nb.glm.fit.newton import GeneCounts, Matrices, Start
from nbcompare._nb.numerics.parallel import in_parallel

START = 0.1
MOST_STEPS = 16
SETTLED = 0.01  # change of a log dispersion by a step, after which the next would be a hundred times smaller
ENOUGH_TO_APPROACH = 2_000  # genes that the bins step to near their place with
MAX_GENES = 20_000  # of more, genes evenly spaced by mean make the trend


def fit_design_trend(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    usable: np.ndarray,
    *,
    ratio: np.ndarray | None = None,
    part: np.ndarray | None = None,
    most: int = MAX_GENES,
    n_threads: int = 1,
) -> Trend:
    """Bins of genes of like mean, each stepped to where its mean statistic is one; then the spread of the statistics around them.

    One step: phi <- phi + (sum numerators / sum d - 1) sum d / sum(d A), within `Brackets` once a root is bracketed.
    Statistics are those of the samples in `part` (all when None), whose dispersions are `ratio` (one when None) times the gene's; `most` genes
    are used.
    """
    total = counts.sum(axis=1)
    genes = np.flatnonzero(usable & (total > 0))
    genes = evenly_by_total(genes, total, most)
    if len(genes) == 0 or matrices.residual_degrees < 1:
        return Trend(np.ones(1), np.full(1, START), PRIOR_LOG_DISPERSION_VAR, 0)
    counts = np.ascontiguousarray(counts[genes])
    offset = offset if len(offset) == 1 else np.ascontiguousarray(offset[genes])
    mean = counts.mean(axis=1)
    ascending = np.lexsort((np.square(counts).sum(axis=1), mean))  # the order in which genes are given is nothing
    bins = mean_bins(ascending, mean)
    knots = np.array([np.log(mean[b]).mean() for b in bins])
    phi = np.full(len(bins), START)
    counted = Counted(matrices, ratio, part)
    every = max(1, len(genes) // ENOUGH_TO_APPROACH)
    if every > 1:
        some = np.sort(np.concatenate([b[::every] for b in bins]))
        place = np.full(len(genes), -1)
        place[some] = np.arange(len(some))
        few = [place[b[::every]] for b in bins]
        some_offset = offset if len(offset) == 1 else np.ascontiguousarray(offset[some])
        phi = _profile_out(np.ascontiguousarray(counts[some]), some_offset, counted, few, knots, phi, n_threads)[0]
    phi, at_gene, out = _profile_out(counts, offset, counted, bins, knots, phi, n_threads)
    return trend_of_bins(knots, phi, at_gene, mean, ascending, out)


@dataclass(frozen=True)
class Counted:
    """Which samples of a design count in a dispersion, and their dispersions relative to the gene's, (n_samples,) each; all and one when None."""

    matrices: DesignMatrices
    ratio: np.ndarray | None = None
    part: np.ndarray | None = None


def _profile_out(
    counts: np.ndarray,
    offset: np.ndarray,
    counted: Counted,
    bins: list[np.ndarray],
    knots: np.ndarray,
    phi: np.ndarray,
    n_threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dispersions of the bins where they no longer move, each gene's, and the statistics there."""
    log_mean = np.log(counts.mean(axis=1))
    coefficients = None
    brackets = Brackets.none(len(bins))
    for _ in range(MOST_STEPS):
        at_gene = np.exp(np.interp(log_mean, knots, np.log(phi)))
        out, coefficients = design_statistics(
            counts,
            offset,
            counted.matrices,
            at_gene,
            ratio=counted.ratio,
            part=counted.part,
            coefficients=coefficients,
            n_threads=n_threads,
        )
        stepped = next_of_bins(phi, out, bins, brackets)
        moved = np.abs(np.log(stepped / phi)).max()
        phi = stepped
        if moved < SETTLED:
            break
    return phi, at_gene, out


def design_statistics(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    phi: np.ndarray,
    *,
    ratio: np.ndarray | None = None,
    part: np.ndarray | None = None,
    coefficients: np.ndarray | None = None,
    n_threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Numerator, d and A (see `glm.dispersion.pearson`) of all genes at these dispersions, (n_genes, 3), and the coefficients fitted.

    `ratio` and `part` are as for `fit_design_trend`. `coefficients` are where the fits start; they are overwritten.
    """
    out, fitted = statistics_of_parts(
        counts,
        offset,
        matrices,
        phi,
        ratio=ratio,
        parts=np.ones((1, counts.shape[1])) if part is None else part[None, :].astype(np.float64),
        coefficients=coefficients,
        n_threads=n_threads,
    )
    return out[:, 0], fitted


def statistics_of_parts(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    phi: np.ndarray,
    *,
    ratio: np.ndarray | None,
    parts: np.ndarray,
    coefficients: np.ndarray | None = None,
    n_threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The same for parts of the samples, (n_genes, n_parts, 3); `parts` (n_parts, n_samples) float64 are 1 for samples that count, else 0."""
    ratio = np.ones(counts.shape[1]) if ratio is None else ratio
    constants = matrices.constants(parts, ratio)
    is_started = coefficients is not None
    fitted = np.empty((len(counts), matrices.n_coefficients)) if coefficients is None else coefficients
    out = np.empty((len(counts), len(parts), 3))
    design = Matrices(matrices.rows[0], matrices.columns[0], matrices.products[0], ratio)

    def run(chunk: slice) -> None:
        data = GeneCounts(counts[chunk], offset if len(offset) == 1 else offset[chunk], matrices.centred)
        pearson_of_genes(data, design, phi[chunk], parts, constants, Start(is_started, fitted[chunk]), out[chunk])

    in_parallel(run, len(counts), n_threads)
    return out, fitted
