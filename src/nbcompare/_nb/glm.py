"""Negative binomial comparisons in any design: one fit of a gene, as many contrasts of its coefficients as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, fdtrc, ndtr, ndtri_exp

from nbcompare._nb.contrast import match_statistics
from nbcompare._nb.data import Trend
from nbcompare._nb.glm_contrast import LIKELIHOOD_RATIO, MODERATED, QUASI_LIKELIHOOD, WALD
from nbcompare._nb.glm_genes import fit_and_test
from nbcompare._nb.glm_groups import compare_pair
from nbcompare._nb.glm_matrices import DesignMatrices, design_matrices
from nbcompare._nb.glm_maximum import likelihood_ratios, maximise_design
from nbcompare._nb.glm_moderation import Moderation, moderate_design
from nbcompare._nb.moderated import EXTRAPOLATED, FEW_GENES
from nbcompare._nb.pieces import in_pieces
from nbcompare._nb.status import NOT_TESTED, Status

TESTS = {"moderated": MODERATED, "lrt": LIKELIHOOD_RATIO, "ql": QUASI_LIKELIHOOD, "wald": WALD}
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
    dispersion: np.ndarray  # (n_genes,) that the tests used, NaN where nothing was fitted
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
    min_total: float = 10.0,
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
        `"moderated"`: shared between genes by a trend and its scatter. `"genewise-ml"`: maximum likelihood, for `"wald"` and `"lrt"`.
    cox_reid
        Adjust the profile likelihood of gene-wise dispersions for the coefficients having been fitted.
    null
        Value of each contrast under its null hypothesis, (n_contrasts,) natural log, zero where k > 1; zero when None. Statistics are
        signed by log_fc - null.
    min_total
        Contrasts whose samples (those that tell of it) have fewer counts together are not tested.
    n_threads
        Genes are shared out among so many threads; results do not depend on it.
    """
    counts = np.ascontiguousarray(counts, dtype=np.float64)
    offset = np.ascontiguousarray(offset, dtype=np.float64)
    matrices = design_matrices(design, contrasts)
    null = np.zeros(len(contrasts)) if null is None else np.asarray(null, np.float64)
    moderated = dispersion == "moderated"
    highest = None
    if matrices.residual_degrees < 1:
        basis = fixed_dispersions(np.zeros(len(counts)), counts)
    elif moderated:
        usable = counts.sum(axis=1) >= min_total
        basis = moderate_design(counts, offset, matrices, usable, n_threads=n_threads)
    else:
        highest = maximise_design(counts, offset, matrices, cox_reid=cox_reid, n_threads=n_threads)
        basis = fixed_dispersions(highest.dispersion, counts)
    found = run_tests(counts, offset, matrices, basis, TESTS[test], null, n_threads)
    if test == "moderated" and moderated and matrices.group is not None:
        _compare_groups(found, counts, offset, matrices, basis, null)
    if test == "lrt" and highest and not cox_reid:
        gain = likelihood_ratios(counts, offset, matrices, highest, null, n_threads=n_threads)
        found.take_likelihood_ratios(gain, matrices.tested)
    status = _status(counts, matrices, min_total, found.separated)
    if moderated:
        _flag(status, (basis.mean > EXTRAPOLATED * basis.trend.mean[-1])[:, None], Status.HIGH_MEAN_EXTRAPOLATED)
        _flag(status, basis.trend.n_genes < FEW_GENES, Status.FEW_GENES)
    if test == "moderated":
        match_statistics(found.statistic, found.p_value, status)
    untested = (status & NOT_TESTED) > 0
    status[untested] &= NOT_TESTED
    several = matrices.tested > 1
    statistic, p_value = found.statistic, found.p_value
    _several_degrees(statistic, p_value, matrices.tested, basis.degrees)
    dispersion_used = np.where(matrices.residual_degrees > 0, basis.dispersion, np.nan)
    found.log_fc[((status & Status.ALL_ZERO) > 0) | several] = np.nan
    found.se[((status & (Status.ALL_ZERO | Status.NO_REPLICATES)) > 0) | several] = np.nan
    statistic[untested] = np.nan
    p_value[untested] = np.nan
    return DesignTests(
        found.log_fc,
        found.se,
        statistic,
        p_value,
        dispersion_used,
        np.where(matrices.residual_degrees > 0, basis.genewise, np.nan),
        basis.degrees,
        found.coefficients,
        status,
        basis.trend,
        basis.mean,
    )


@dataclass(frozen=True)
class Found:
    """What the kernels write, in the coordinates of the user."""

    log_fc: np.ndarray
    se: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    separated: np.ndarray
    coefficients: np.ndarray

    def take_likelihood_ratios(self, gain: np.ndarray, tested: np.ndarray) -> None:
        """Statistics from log likelihoods gained with the dispersion fitted anew under the null."""
        chi2 = 2 * np.maximum(gain, 0)
        one = tested == 1
        self.statistic[...] = np.where(one, np.copysign(np.sqrt(chi2), self.statistic), chi2)
        self.p_value[:, one] = 2 * ndtr(-np.abs(self.statistic[:, one]))


def fixed_dispersions(dispersion: np.ndarray, counts: np.ndarray) -> Moderation:
    """Dispersions taken as they are: normal and chi-squared references, no trend."""
    no_trend = Trend(np.ones(1), np.full(1, np.nan), np.nan, 0)
    one, infinite = np.ones(len(counts)), np.full(len(counts), np.inf)
    return Moderation(dispersion, dispersion, one, infinite, dispersion, no_trend, counts.mean(axis=1), None)


def run_tests(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    basis: Moderation,
    test: int,
    null: np.ndarray,
    n_threads: int,
) -> Found:
    """All genes, in pieces; effects and coefficients turned back from the designs of `matrices`."""
    n_genes, n_contrasts = len(counts), len(matrices.tested)
    begun = basis.coefficients is not None
    coefficients = (
        np.full((n_genes, matrices.n_coefficients), np.nan) if basis.coefficients is None else basis.coefficients
    )
    effect, se, statistic, p_value = np.full((4, n_genes, n_contrasts), np.nan)
    separated = np.zeros((n_genes, n_contrasts), bool)
    length = np.where(matrices.tested == 1, matrices.length, 1.0)

    def run(part: slice) -> None:
        fit_and_test(
            counts[part],
            offset if len(offset) == 1 else offset[part],
            basis.dispersion[part],
            basis.working[part],
            basis.tau2[part],
            basis.degrees[part],
            test,
            matrices.rows,
            matrices.columns,
            matrices.products,
            matrices.tested,
            matrices.directions,
            null / length,
            matrices.centred,
            begun,
            coefficients[part],
            effect[part],
            se[part],
            statistic[part],
            p_value[part],
            separated[part],
        )

    in_pieces(run, n_genes, n_threads)
    coefficients[basis.mean <= 0] = np.nan
    return Found(
        effect * length + null,
        se * length,
        statistic,
        p_value,
        separated,
        matrices.coefficients(coefficients, counts, offset),
    )


def _compare_groups(
    found: Found,
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    basis: Moderation,
    null: np.ndarray,
) -> None:
    """Contrasts of one group with another in closed form, in place: what `moderated` does without a design."""
    if matrices.group is None:
        return
    for c, pair in enumerate(matrices.pairs):
        if pair is None:
            continue
        *groups, factor = pair
        shift = np.where(matrices.group == groups[1], null[c] / factor, 0.0)
        log_ratio, se, statistic, p_value = compare_pair(
            counts,
            np.exp(offset + shift),
            matrices.group,
            (groups[0], groups[1]),
            basis.working,
            basis.dispersion,
            basis.degrees,
        )
        found.log_fc[:, c], found.se[:, c] = factor * log_ratio + null[c], factor * se
        found.statistic[:, c], found.p_value[:, c] = statistic, p_value
        empty = [counts[:, matrices.group == g].sum(axis=1) == 0 for g in groups]
        found.separated[:, c] = empty[0] | empty[1]


def _several_degrees(statistic: np.ndarray, p_value: np.ndarray, tested: np.ndarray, degrees: np.ndarray) -> None:
    """P-values of chi-squared values of hypotheses of several degrees, and the normal deviates that stand for them, in place."""
    for c in np.flatnonzero(tested > 1):
        value, k = statistic[:, c].copy(), float(tested[c])
        finite = np.minimum(degrees, NORMAL_FROM)
        p = np.where(degrees < NORMAL_FROM, fdtrc(k, finite, value / k), chdtrc(k, value))
        p_value[:, c] = p
        with np.errstate(divide="ignore"):
            statistic[:, c] = np.where(p > 0, -ndtri_exp(np.log(np.maximum(p, 5e-324) / 2)), np.sqrt(value))


def _status(counts: np.ndarray, matrices: DesignMatrices, min_total: float, separated: np.ndarray) -> np.ndarray:
    """Reasons not to test, and empty arms: (n_genes, n_contrasts)."""
    total = counts @ matrices.touched.T.astype(np.float64)
    status = np.zeros(total.shape, np.uint32)
    _flag(status, total == 0, Status.ALL_ZERO)
    _flag(status, total < min_total, Status.LOW_TOTAL)
    _flag(status, matrices.residual_degrees < 1, Status.NO_REPLICATES)
    _flag(status, separated, Status.ZERO_ARM)
    return status


def _flag(status: np.ndarray, where: np.ndarray | bool | np.bool, bit: Status) -> None:
    """Set a bit in place where told."""
    status |= np.where(where, np.uint32(bit), np.uint32(0))
