"""From a design to arrays of results: one estimator, one test, all comparisons. The last place of natural logarithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nbcompare._nb.data import Fit, Group, TestResult, Trend
from nbcompare._nb.glm.compare import DesignTests
from nbcompare._nb.glm.likelihood_intervals import ratio_intervals
from nbcompare._nb.glm.likelihood_ratio import likelihood_ratio_test
from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.likelihood.wald import standard_error, wald_test
from nbcompare._nb.moderated import Moderated, moderated_tests
from nbcompare._nb.status import NOT_TESTED, Status, status_of
from nbcompare._nb.two_group.intervals import wald_intervals
from nbcompare.tl._samples.checks import flags_of_comparisons, sample_flags
from nbcompare.tl._samples.groups import Design


def estimator(method: str, cox_reid: bool) -> Callable[[Group, Group], Fit]:
    """The function that fits one comparison."""
    return fit_moments if method == "mom" else partial(fit_likelihood, cox_reid=cox_reid)


def moderated(
    design: Design, *, method: str, cox_reid: bool, shared: bool, min_gene_counts: float, lfc_threshold: float = 0.0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any], np.ndarray | None]:
    """Arrays (n_genes, n_comparisons), columns (n_genes,) and the trend of the moderated r* test; the effects are those of `method`.

    Last the deviates of the nulls -threshold and threshold (log2), None without a threshold.
    """
    result = moderated_tests(
        design.pseudobulk,
        design.pairs,
        shared=shared,
        min_gene_counts=min_gene_counts,
        threshold=lfc_threshold * np.log(2),
        intervals=True,
    )
    return *moderated_arrays(result, design, method=method, cox_reid=cox_reid), result.shifted


def moderated_arrays(
    result: Moderated, design: Design, *, method: str, cox_reid: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """The same of tests that are done."""
    log_fc, se, genewise = result.log_fc, result.se, result.genewise
    if method == "mle":
        fits = [estimator(method, cox_reid)(*pair) for pair in group_pairs(design)]
        log_fc, genewise = _columns(fits, "log_fc"), _columns(fits, "dispersion")
        several = design.pairs[:, 0] < 0  # groups as one reference: the moderated test knows how they differ
        se = np.where(several, result.se, _standard_errors(result, fits, group_pairs(design)))
    status = result.status | _sample_flags(design)
    arrays = {
        **_tested(log_fc, se, result.statistic, result.p_value, result.dispersion, status),
        **_bounds(result.interval, status),
        "pvals_unfiltered": np.where((status & NOT_TESTED) > 0, np.nan, result.p_value_all),
        "dispersions_genewise": genewise,
    }
    columns = {"base_mean": _base_mean(design), "dispersion_trend": result.trend.at(result.mean)}
    return arrays, columns, _stored_trend(result.trend, result.dispersion_ratio)


def _standard_errors(result: Moderated, fits: list[Fit], pairs: list[tuple[Group, Group]]) -> np.ndarray:
    """Of maximum likelihood effects, (n_genes, n_comparisons), each group with the dispersion that the test gives it."""
    columns = []
    for fit, of_treated, (first, second), pair in zip(
        fits, result.dispersion.T, result.dispersion_ratio, pairs, strict=True
    ):
        phi = of_treated / second
        columns.append(
            standard_error(_at(fit, np.where(np.isnan(phi), fit.dispersion, phi)), *pair, ratios=(first, second))
        )
    return np.stack(columns, axis=1)


def unmoderated(
    design: Design, *, method: str, test: str, cox_reid: bool, min_gene_counts: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Arrays (n_genes, n_comparisons) and columns (n_genes,) of the Wald or the likelihood ratio test, each comparison alone."""
    apply: Callable[[Fit, Group, Group], TestResult] = wald_test if test == "wald" else likelihood_ratio_test
    pairs = group_pairs(design)
    fits = [estimator(method, cox_reid)(*pair) for pair in pairs]
    tests = [apply(fit, *pair) for fit, pair in zip(fits, pairs, strict=True)]
    total = np.stack([a.counts.sum(axis=1) + b.counts.sum(axis=1) for a, b in pairs], axis=1)
    low = np.where(total < min_gene_counts, np.uint32(Status.LOW_COUNTS), np.uint32(0))
    status = _columns(tests, "status") | low | _sample_flags(design)
    log_fc, se = _columns(fits, "log_fc"), _columns(tests, "se")
    if test == "wald":
        interval = np.stack(wald_intervals(log_fc, se, np.full(len(se), np.inf)), axis=-1)
    else:
        interval = np.stack([ratio_intervals(fit, *pair) for fit, pair in zip(fits, pairs, strict=True)], axis=1)
    arrays = _tested(
        log_fc,
        se,
        _columns(tests, "statistic"),
        _columns(tests, "p_value"),
        _columns(fits, "dispersion"),
        status,
    )
    return arrays | _bounds(interval, status), {"base_mean": _base_mean(design)}


def contrasted(
    result: DesignTests, flags: np.ndarray, base_mean: np.ndarray, *, test: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any], np.ndarray]:
    """Arrays (n_genes, n_contrasts), columns (n_genes,), the trend and the coefficients of a design, logarithms to base 2."""
    n_contrasts = result.p_value.shape[1]
    status = result.status | flags
    arrays = _tested(result.log_fc, result.se, result.statistic, result.p_value, result.dispersions, status)
    arrays |= _bounds(result.interval, status)
    columns, trend = {"base_mean": base_mean}, {}
    if test == "moderated":
        arrays["pvals_unfiltered"] = np.where((status & NOT_TESTED) > 0, np.nan, result.p_value_all)
    if result.trend.n_genes:
        arrays["dispersions_genewise"] = np.repeat(result.genewise[:, None], n_contrasts, axis=1)
        columns["dispersion_trend"] = result.trend.at(result.mean)
        trend = _stored_trend(result.trend, result.ratios)
    return arrays, columns, trend, result.coefficients / np.log(2)


def _stored_trend(trend: Trend, dispersion_ratio: np.ndarray) -> dict[str, Any]:
    return {
        "mean": trend.mean,
        "dispersion": trend.dispersion,
        "log_dispersion_var": trend.log_dispersion_var,
        "n_genes": trend.n_genes,
        "dispersion_ratio": dispersion_ratio,
    }


def _tested(log_fc, se, statistic, p_value, dispersion, status) -> dict[str, np.ndarray]:
    """The arrays as stored: log2, NaN where the status says that there is no test, adjusted p-values."""
    status = status_of(p_value, status)
    untested = (status & NOT_TESTED) > 0
    p_value = np.where(untested, np.nan, p_value)
    return {
        "logfoldchanges": log_fc / np.log(2),
        "lfc_se": se / np.log(2),
        "scores": np.where(untested, np.nan, statistic),
        "pvals": p_value,
        "pvals_adj": adjust_p_values(p_value),
        "dispersions": np.where(untested, np.nan, dispersion),
        "status": status,
    }


def _bounds(interval: np.ndarray | None, status: np.ndarray) -> dict[str, np.ndarray]:
    """Confidence intervals (n_genes, n_comparisons, 2) as stored: log2, NaN where there is no test; nothing where none were asked for."""
    if interval is None:
        return {}
    lower, upper = np.where(((status & NOT_TESTED) > 0)[..., None], np.nan, interval / np.log(2)).transpose(2, 0, 1)
    return {"lfc_lower": lower.copy(), "lfc_upper": upper.copy()}


def group_pairs(design: Design) -> list[tuple[Group, Group]]:
    """Reference and treated group of every comparison."""
    group = design.pseudobulk.group
    return [
        (
            design.pseudobulk.take(np.flatnonzero(group != treated if reference < 0 else group == reference)),
            design.pseudobulk.take(np.flatnonzero(group == treated)),
        )
        for reference, treated in design.pairs
    ]


def _columns(results: list[Any], name: str) -> np.ndarray:
    return np.stack([getattr(result, name) for result in results], axis=1)


def _at(fit: Fit, dispersion: np.ndarray) -> Fit:
    return replace(fit, dispersion=dispersion)


def _base_mean(design: Design) -> np.ndarray:
    return (design.pseudobulk.counts / design.pseudobulk.exposures).mean(axis=1)


def _sample_flags(design: Design) -> np.ndarray:
    """Status bits of samples that their comparisons take over, (n_comparisons,)."""
    reference, treated = design.pairs.T
    group = design.pseudobulk.group[:, None]
    used = (group == treated) | (reference < 0) | (group == reference)
    return flags_of_comparisons(sample_flags(design.samples.tiny, design.unstable), used)
