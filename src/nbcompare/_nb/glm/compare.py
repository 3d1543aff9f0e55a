"""Negative binomial comparisons in any design: one fit of a gene, as many contrasts of its coefficients as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtrc, fdtrc, ndtr, ndtri_exp

from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.glm.dispersion.levels import level_ratios
from nbcompare._nb.glm.dispersion.moderation import Moderation, moderate_design, moderate_groups
from nbcompare._nb.glm.fit.design import DesignMatrices, design_matrices
from nbcompare._nb.glm.fit.mle import adjusted_alternatives, likelihood_ratios, maximise_design
from nbcompare._nb.glm.intervals import design_intervals
from nbcompare._nb.glm.leave_one_out import leave_one_out
from nbcompare._nb.glm.run import TESTS, fixed_dispersions, run_tests
from nbcompare._nb.inference.threshold import halved
from nbcompare._nb.moderated import EXTRAPOLATED, FEW_GENES, Moderated, moderated_tests
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.two_group.dataset_fit import fit_shared
from nbcompare._nb.two_group.gene_test import match_statistics

NORMAL_FROM = 1e6  # degrees of freedom


@dataclass(frozen=True)
class DesignTests:
    """Tests of the contrasts of a design. Natural logarithms."""

    log_fc: (
        np.ndarray
    )  # (n_genes, n_contrasts) the contrast's value; NaN for hypotheses of several degrees and for empty genes
    se: np.ndarray  # (n_genes, n_contrasts) its standard error, NaN alike
    statistic: np.ndarray  # (n_genes, n_contrasts) signed normal equivalent; >= 0 for hypotheses of several degrees
    p_value: np.ndarray  # (n_genes, n_contrasts) two-sided, NaN where not tested
    p_value_all: np.ndarray  # (n_genes, n_contrasts) before the leave-one-replicate-out rule of the moderated test
    dispersion: np.ndarray  # (n_genes,) of the data set, NaN where nothing was fitted
    dispersions: np.ndarray  # (n_genes, n_contrasts) that the tests used, those of the samples that raise the contrast
    ratios: (
        np.ndarray
    )  # (n_contrasts, 2) dispersion relative to the data set's of the samples that lower and that raise the contrast
    genewise: (
        np.ndarray
    )  # (n_genes,) from the gene's own counts: Pearson's, or maximum likelihood where that was asked for
    degrees: (
        np.ndarray
    )  # (n_genes,) degrees of freedom of the t or F reference, infinite for normal and chi-squared ones
    coefficients: np.ndarray  # (n_genes, n_coefficients) at `dispersion`
    status: np.ndarray  # (n_genes, n_contrasts) uint32, bits of `status.Status`
    trend: Trend  # without bins (`mean` has one value, `n_genes` 0) where dispersions are not moderated
    mean: np.ndarray  # (n_genes,) mean count of a sample, where the trend is read
    interval: np.ndarray | None = None  # (n_genes, n_contrasts, 2) 95 % confidence interval, where it was asked for
    shifted: np.ndarray | None = (
        None  # (n_genes, n_contrasts, 2) deviates of the nulls -threshold and threshold, where there is one
    )


def design_tests(
    counts: np.ndarray,
    offset: np.ndarray,
    design: np.ndarray,
    contrasts: Sequence[np.ndarray],
    *,
    test: str = "moderated",
    dispersion: str = "moderated",
    cox_reid: bool = False,
    null: np.ndarray | None = None,
    threshold: float = 0.0,
    min_gene_counts: float = 10.0,
    level: np.ndarray | None = None,
    leave_out: bool = True,
    intervals: bool = False,
    n_threads: int = 1,
) -> DesignTests:
    """Fit log mean = offset + design @ coefficients gene by gene and test contrasts of the coefficients.

    Parameters
    ----------
    counts
        (n_genes, n_samples) float64.
    offset
        Natural log of the exposures, (1 or n_genes, n_samples).
    design
        (n_samples, n_coefficients) float64 of full column rank.
    contrasts
        Each (n_coefficients,) or (n_coefficients, k) of rank k: the hypothesis that its k combinations of coefficients are zero.
    test
        `"moderated"`: Skovgaard's r* on t (for k > 1 as `"ql"`). `"ql"`: quasi-likelihood F. `"wald"`, `"lrt"`: the classical tests,
        on t and F at moderated dispersions, on the normal and chi-squared at gene-wise ones.
    dispersion
        `"moderated"`: shared between genes by a trend and the spread around it. `"genewise-ml"`: maximum likelihood, for `"wald"` and `"lrt"`.
    cox_reid
        Adjust the profile likelihood of gene-wise dispersions for the coefficients having been fitted.
    null
        Value of each contrast under its null hypothesis, (n_contrasts,) natural log, zero where k > 1; zero when None. Statistics are
        signed by log_fc - null.
    threshold
        Also test each contrast of one column against this value, natural log, and minus this value, with `test="moderated"` and at the
        same dispersions.
    min_gene_counts
        Contrasts whose informative samples have fewer counts together are not tested.
    level
        Level of the tested factor of each sample, (n_samples,) codes. Levels whose samples vary more than the others have a dispersion of
        their own. None: all samples have the gene's dispersion. Designs that are groups of samples have the dispersions of their groups.
    leave_out
        Apply the leave-one-replicate-out rule to the moderated tests of contrasts of one column, unless there is a `null`.
    intervals
        Also compute 95 % confidence intervals of contrasts of one column, from all replicates.
    n_threads
        Genes are shared out among so many threads; results do not depend on it.
    """
    counts = np.ascontiguousarray(counts, dtype=np.float64)
    offset = np.ascontiguousarray(offset, dtype=np.float64)
    matrices = design_matrices(design, contrasts)
    given, null = null is not None, np.zeros(len(contrasts)) if null is None else np.asarray(null, np.float64)
    moderated = dispersion == "moderated"
    highest, of_groups = None, None
    if matrices.residual_degrees < 1:
        basis = fixed_dispersions(np.zeros(len(counts)), counts)
    elif moderated and matrices.group is not None:
        of_groups, basis = _moderate_groups(
            counts, offset, matrices, null, threshold, min_gene_counts, leave_out and not given, intervals
        )
    elif moderated:
        usable = counts.sum(axis=1) >= min_gene_counts
        ratio, trend = level_ratios(counts, offset, matrices, level, usable, n_threads=n_threads)
        basis = moderate_design(counts, offset, matrices, trend, ratio, n_threads=n_threads)
    else:
        highest = maximise_design(counts, offset, matrices, cox_reid=cox_reid, n_threads=n_threads)
        basis = fixed_dispersions(highest.dispersion, counts)
    begun = None if basis.coefficients is None else basis.coefficients.copy()
    found = run_tests(counts, offset, matrices, basis, TESTS[test], null, n_threads)
    refitted = None
    if test == "lrt" and highest:
        refitted = (
            adjusted_alternatives(counts, offset, matrices, n_threads=n_threads)
            if cox_reid
            else np.repeat(highest.log_likelihood[:, None], len(contrasts), axis=1)
        )
        gain = likelihood_ratios(counts, offset, matrices, refitted, null, cox_reid=cox_reid, n_threads=n_threads)
        found.take_likelihood_ratios(gain, matrices.tested)
    status = _status(counts, matrices, min_gene_counts, found.separated)
    groups = level if matrices.group is None else matrices.group
    ratios = np.array(
        [[basis.ratio[side].max(initial=1.0) for side in matrices.sides(c, groups)] for c in range(len(contrasts))]
    )
    ratios = ratios.reshape(len(contrasts), 2)
    if moderated:
        _flag(status, (basis.mean > EXTRAPOLATED * basis.trend.mean[-1])[:, None], Status.HIGH_MEAN_EXTRAPOLATED)
        _flag(status, basis.trend.n_genes < FEW_GENES, Status.FEW_GENES)
        _flag(status, (ratios > 1).any(axis=1), Status.HIGH_DISPERSION_GROUP)
    untested = (status & NOT_TESTED) > 0
    status[untested] &= NOT_TESTED
    dispersions = np.where(matrices.residual_degrees > 0, basis.dispersion[:, None] * ratios[:, 1], np.nan)
    p_value_all = found.p_value.copy()
    if test == "moderated":
        if given:
            found.statistic[...] = halved(found.statistic, (status & Status.ZERO_GROUP) > 0, found.log_fc)
            found.p_value[...] = 2 * ndtr(-np.abs(found.statistic))
        else:
            if leave_out and moderated and matrices.residual_degrees > 0:
                leave_one_out(
                    found, status, counts, offset, design, contrasts, matrices, basis, level=groups, n_threads=n_threads
                )
            match_statistics(found.statistic, found.p_value, status)
    interval = None
    if intervals:
        closed = np.array(
            [of_groups is not None and test == "moderated" and pair is not None for pair in matrices.pairs], bool
        )
        interval = design_intervals(
            counts,
            offset,
            matrices,
            basis,
            np.where(untested, np.nan, found.log_fc),
            found.se,
            found.separated,
            TESTS[test],
            searched=(matrices.tested == 1) & ~closed,
            highest=refitted,
            cox_reid=cox_reid,
            n_threads=n_threads,
        )
        interval[untested] = np.nan
    several = matrices.tested > 1
    statistic, p_value = found.statistic, found.p_value
    _several_degrees(statistic, p_value, matrices.tested, basis.degrees)
    p_value_all[:, several] = p_value[:, several]
    found.log_fc[((status & Status.ALL_ZERO) > 0) | several] = np.nan
    found.se[((status & (Status.ALL_ZERO | Status.NO_REPLICATES)) > 0) | several] = np.nan
    for array in (statistic, p_value, p_value_all):
        array[(status & NOT_TESTED) > 0] = np.nan
    result = DesignTests(
        found.log_fc,
        found.se,
        statistic,
        p_value,
        p_value_all,
        np.where(matrices.residual_degrees > 0, basis.dispersion, np.nan),
        dispersions,
        ratios,
        np.where(matrices.residual_degrees > 0, basis.genewise, np.nan),
        basis.degrees,
        found.coefficients,
        status,
        basis.trend,
        basis.mean,
        interval,
        None
        if threshold == 0
        else shifted_tests(
            counts, offset, matrices, replace(basis, coefficients=begun), threshold, min_gene_counts, n_threads
        ),
    )
    if test == "moderated" and of_groups is not None:
        _take_pairs(result, of_groups, matrices, null)
    return result


def shifted_tests(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    basis: Moderation,
    threshold: float,
    min_gene_counts: float,
    n_threads: int,
) -> np.ndarray:
    """Deviates of the nulls -threshold and threshold at the dispersions of `basis`, (n_genes, n_contrasts, 2); NaN where not tested."""
    out = np.empty((len(counts), len(matrices.tested), 2))
    for k, shift in enumerate((-threshold, threshold)):
        null = np.where(matrices.tested == 1, shift, 0.0)
        start = None if basis.coefficients is None else basis.coefficients.copy()
        found = run_tests(
            counts, offset, matrices, replace(basis, coefficients=start), TESTS["moderated"], null, n_threads
        )
        status = _status(counts, matrices, min_gene_counts, found.separated)
        deviates = halved(found.statistic, (status & Status.ZERO_GROUP) > 0, found.log_fc)
        out[..., k] = np.where((status & NOT_TESTED) > 0, np.nan, deviates)
    return out


def _moderate_groups(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    null: np.ndarray,
    threshold: float,
    min_gene_counts: float,
    leave_out: bool,
    intervals: bool,
) -> tuple[dict[int, Moderated], Moderation]:
    """Designs that are groups of samples: tests of contrasts between two groups, as without a design, and the dispersions of the others."""
    group = np.zeros(counts.shape[1], np.intp) if matrices.group is None else matrices.group
    shared_offset = len(offset) == 1
    exposure = np.exp(offset.mean(axis=0))
    pseudobulk = Pseudobulk(counts, exposure, group, None, None if shared_offset else np.exp(offset))
    pairs = {c: pair for c, pair in enumerate(matrices.pairs) if pair is not None}
    found: dict[int, Moderated] = {}
    if not pairs:
        first = np.stack([np.zeros(pseudobulk.n_groups - 1, np.int64), np.arange(1, pseudobulk.n_groups)], axis=1)
        return found, moderate_groups(
            counts, offset, group, fit_shared(pseudobulk, first, min_gene_counts=min_gene_counts)
        )
    requested = np.array([pair[:2] for pair in pairs.values()], np.int64)
    shift = np.array([null[c] / pair[2] for c, pair in pairs.items()])
    size_of = np.array([threshold / abs(pair[2]) for pair in pairs.values()]) if threshold else np.abs(shift)
    for size in np.unique(size_of):
        tests = moderated_tests(
            pseudobulk,
            requested,
            min_gene_counts=min_gene_counts,
            leave_out=leave_out,
            threshold=float(size),
            intervals=intervals,
        )
        for j, c in enumerate(pairs):
            if size_of[j] == size:
                found[c] = _one_of(tests, j, shift[j])
    shared = tests.shared
    if shared is None:  # it is there for designs without blocks
        msg = "tests of groups without what they share"
        raise AssertionError(msg)
    return found, moderate_groups(counts, offset, group, shared)


def _one_of(tests: Moderated, j: int, shift: float) -> Moderated:
    """One comparison, (n_genes,) each; where the null is not zero its deviates are the statistics."""
    statistic, p_value = tests.statistic[:, j], tests.p_value[:, j]
    moved = tests.shifted is not None and shift != 0
    if tests.shifted is not None and moved:
        statistic = tests.shifted[:, j, 1 if shift > 0 else 0]
        p_value = 2 * ndtr(-np.abs(statistic))
    return replace(
        tests,
        log_fc=tests.log_fc[:, j],
        se=tests.se[:, j],
        statistic=statistic,
        p_value=p_value,
        p_value_all=p_value if moved else tests.p_value_all[:, j],
        dispersion=tests.dispersion[:, j],
        status=tests.status[:, j],
        dispersion_ratio=tests.dispersion_ratio[j],
        interval=None if tests.interval is None else tests.interval[:, j],
        shifted=None if tests.shifted is None else tests.shifted[:, j],
    )


def _take_pairs(
    result: DesignTests, of_groups: dict[int, Moderated], matrices: DesignMatrices, null: np.ndarray
) -> None:
    """Contrasts between two groups are those of `moderated`, in place."""
    for c, one in of_groups.items():
        pair = matrices.pairs[c]
        if pair is None:
            continue
        factor = pair[2]
        result.log_fc[:, c], result.se[:, c] = factor * one.log_fc, factor * one.se
        result.statistic[:, c], result.p_value[:, c], result.p_value_all[:, c] = (
            one.statistic,
            one.p_value,
            one.p_value_all,
        )
        result.dispersions[:, c], result.status[:, c], result.ratios[c] = (
            one.dispersion,
            one.status,
            one.dispersion_ratio,
        )
        if result.shifted is not None and one.shifted is not None:
            result.shifted[:, c] = one.shifted if factor > 0 else one.shifted[:, ::-1]
        if result.interval is not None and one.interval is not None:
            result.interval[:, c] = np.sort(factor * one.interval, axis=-1)


def _several_degrees(statistic: np.ndarray, p_value: np.ndarray, tested: np.ndarray, degrees: np.ndarray) -> None:
    """P-values of chi-squared values of hypotheses of several degrees, and the normal deviates that stand for them, in place."""
    for c in np.flatnonzero(tested > 1):
        value, k = statistic[:, c].copy(), float(tested[c])
        finite = np.minimum(degrees, NORMAL_FROM)
        p = np.where(degrees < NORMAL_FROM, fdtrc(k, finite, value / k), chdtrc(k, value))
        p_value[:, c] = p
        with np.errstate(divide="ignore"):
            statistic[:, c] = np.where(p > 0, -ndtri_exp(np.log(np.maximum(p, 5e-324) / 2)), np.sqrt(value))


def _status(counts: np.ndarray, matrices: DesignMatrices, min_gene_counts: float, separated: np.ndarray) -> np.ndarray:
    """Reasons not to test, and empty groups: (n_genes, n_contrasts)."""
    total = counts @ matrices.touched.T.astype(np.float64)
    status = np.zeros(total.shape, np.uint32)
    _flag(status, total == 0, Status.ALL_ZERO)
    _flag(status, total < min_gene_counts, Status.LOW_COUNTS)
    _flag(status, matrices.residual_degrees < 1, Status.NO_REPLICATES)
    _flag(status, separated, Status.ZERO_GROUP)
    return status


def _flag(status: np.ndarray, where: np.ndarray | bool | np.bool, bit: Status) -> None:
    """Set a bit in place where `where` is true."""
    status |= np.where(where, np.uint32(bit), np.uint32(0))
