"""Hidden factors of a data set: who may ask for them, the adjusted results as stored, and when they are offered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri_exp

from nbcompare._anndata import as_text
from nbcompare._messages import warn
from nbcompare._nb.data import Trend
from nbcompare._nb.glm.fit.design import design_matrices
from nbcompare._nb.hidden.compare import (
    LEAST_DEGREES,
    Adjusted,
    Unadjusted,
    adjust_comparison,
    fit_hidden,
    largest_number,
)
from nbcompare._nb.hidden.dataset import HiddenData, pair_contrast
from nbcompare._nb.hidden.directions import group_design
from nbcompare._nb.hidden.offer import shared_variation
from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.status import Status
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._formula.plan import Plan
from nbcompare.tl._samples.groups import Design

LEAST_GENES = 60  # tested genes with a mean of two counts or more
FEW_GENES = 500
DEEP = 2.0  # counts a sample
OFFERED = 1.6  # shared variation; at most 1.15 in simulations of independent genes
MOST_SAMPLES = 1000  # for which it is measured
WARNED_INFLATION = 2.0  # 1 + b'b: the factor's correlation with the contrast is above 0.7
LOG2 = np.log(2)


@dataclass(frozen=True)
class ContrastOfSamples:
    """A comparison as weights of the columns of a design."""

    name: str
    weights: np.ndarray  # (p,)
    pair: tuple[int, int] | None  # reference (-1: all others) and treated group, where the design is groups


def adjust_pairs(
    arrays: dict[str, np.ndarray], trend: Mapping[str, Any], design: Design, n_factors: str | int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Comparisons of groups, perhaps within blocks, adjusted for hidden factors, and what is stored of the factors."""
    data = _data_of_groups(trend, design)
    contrasts = [
        ContrastOfSamples(name, pair_contrast(data, design.pseudobulk.group, *pair), (int(pair[0]), int(pair[1])))
        for name, pair in zip(design.comparisons, design.pairs, strict=True)
    ]
    return with_hidden_factors(arrays, trend, data, contrasts, n_factors)


def adjust_contrasts(
    arrays: dict[str, np.ndarray],
    trend: Mapping[str, Any],
    plan: Plan,
    counts: np.ndarray,
    exposures: np.ndarray,
    n_factors: str | int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The same of the contrasts of a formula, each of one column; counts (n_genes, n_samples)."""
    several = [one.name for one in plan.hypotheses if one.weights.shape[1] > 1]
    if several:
        msg = (
            f"hidden_factors requires contrasts of one log fold change, but {several[0]!r} has several. Test its parts as separate contrasts, or "
            "leave hidden_factors out."
        )
        raise ValueError(msg)
    matrices = design_matrices(plan.matrix, plan.weights)
    data = data_of(counts, exposures, plan.matrix, trend, np.ones(counts.shape[1]), matrices.group)
    contrasts = [
        ContrastOfSamples(name, weights[:, 0], None if pair is None else pair[:2])
        for name, weights, pair in zip(plan.names, plan.weights, matrices.pairs, strict=True)
    ]
    return with_hidden_factors(arrays, trend, data, contrasts, n_factors)


def shared_variation_of(trend: Mapping[str, Any], design: Design, options: CompareOptions) -> float:
    """How far samples share directions, for `offer_hidden_factors`; one where hidden factors would not be possible or other advice is better."""
    possible = options.test.hidden_factors is None and not options.posterior.is_posterior
    possible = possible and options.test.test == "moderated" and not options.test.lfc_threshold and bool(trend)
    table = design.samples.table
    paired = "block" not in table and (table.groupby("replicate")["condition"].nunique() > 1).any()
    if not possible or paired or options.test.dispersion == "pair" or len(table) > MOST_SAMPLES:
        return 1.0
    data = _data_of_groups(trend, design)
    deep = np.flatnonzero(data.counts.mean(axis=1) >= DEEP)
    if len(deep) < FEW_GENES or largest_number(*data.design.shape) == 0:
        return 1.0
    return shared_variation(data.genes(deep))


def offer_hidden_factors(variation: float) -> None:
    """One warning where samples share directions."""
    if variation > OFFERED:
        warn(
            f"Replicates of a group differ along a common direction: its variance is {variation:.1f} times that expected of independent genes. "
            "If no column of .obs explains it (batch, sex, cell state), hidden_factors='auto' adjusts for such directions, which usually "
            "increases power."
        )


def _data_of_groups(trend: Mapping[str, Any], design: Design) -> HiddenData:
    """Samples with the dispersion ratios of their groups, as far as a comparison names them."""
    pseudobulk = design.pseudobulk
    ratio = np.ones(len(pseudobulk.group))
    for (reference, treated), (of_reference, of_treated) in zip(
        design.pairs, trend.get("dispersion_ratio", []), strict=False
    ):
        if reference >= 0:
            ratio[pseudobulk.group == reference] = of_reference
        ratio[pseudobulk.group == treated] = of_treated
    matrix = group_design(pseudobulk.group, pseudobulk.block)
    group = pseudobulk.group if pseudobulk.block is None else None
    return data_of(pseudobulk.counts, pseudobulk.exposures, matrix, trend, ratio, group)


def with_hidden_factors(
    arrays: dict[str, np.ndarray],
    trend: Mapping[str, Any],
    data: HiddenData,
    contrasts: Sequence[ContrastOfSamples],
    n_factors: str | int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays (n_genes, n_comparisons) adjusted for hidden factors, and what is stored of the factors.

    `data` has all genes; factors are estimated from those with a test in any comparison.
    """
    p_values = arrays["pvals"]
    arrays = {**arrays, "pvals_without_factors": p_values.copy(), "hidden_inflation": np.full(p_values.shape, np.nan)}
    genes = np.flatnonzero(np.isfinite(p_values).any(axis=1))
    most = largest_number(*data.design.shape)
    if reason := _refused(data, genes, n_factors, trend):
        if n_factors != "auto":
            msg = f"hidden_factors={n_factors} is not possible: {reason}."
            raise ValueError(msg)
        warn(f"hidden_factors='auto' adjusts for nothing: {reason}.")
        names = as_text([one.name for one in contrasts])
        return arrays, {"comparisons": names, "n_factors": np.zeros(len(contrasts), np.int64), "refused": reason}
    if n_factors != "auto" and int(n_factors) > most:
        msg = f"hidden_factors is {n_factors}, but {data.design.shape[0]} samples and {data.design.shape[1]} columns of the design allow {most} at most. Use hidden_factors='auto' or {most}."
        raise ValueError(msg)
    model = fit_hidden(data.genes(genes), None if n_factors == "auto" else int(n_factors))
    arrays = {word: values.copy() for word, values in arrays.items()}
    found = []
    for c, contrast in enumerate(contrasts):
        one = adjust_comparison(model, _unadjusted(arrays, genes, c), contrast.weights, contrast.pair)
        found.append(one)
        if one.used:
            _store(arrays, one, genes, c)
    arrays["pvals_adj"] = adjust_p_values(arrays["pvals"])
    _warn_of_few_genes(model.mean)
    _warn_of_near(found, contrasts)
    share = model.factors.eigenvalues / model.factors.eigenvalues.sum()
    names = as_text([one.name for one in contrasts])
    return arrays, {"comparisons": names} | _described(found, model.held_out.score, share)


def data_of(
    counts: np.ndarray,
    exposures: np.ndarray,
    design: np.ndarray,
    trend: Mapping[str, Any],
    ratio: np.ndarray,
    group: np.ndarray | None,
) -> HiddenData:
    """The data of a call: counts (n_genes, n_samples) and the trend as it is stored."""
    known = (
        Trend(trend["mean"], trend["dispersion"], trend["log_dispersion_var"], trend["n_genes"])
        if trend
        else Trend(np.ones(1), np.ones(1), 1.0, 0)
    )
    return HiddenData(np.ascontiguousarray(counts), exposures, design, known, ratio, group)


def _refused(data: HiddenData, genes: np.ndarray, n_factors: str | int, trend: Mapping[str, Any]) -> str:
    """Why factors cannot be estimated; empty if they can."""
    n, p = data.design.shape
    if n - p < LEAST_DEGREES:
        return (
            f"{n} samples and {p} columns of the design (groups, blocks, covariates) leave {n - p} residual degrees of freedom, and hidden "
            f"factors need {LEAST_DEGREES}. Add replicates, or leave hidden_factors out"
        )
    deep = int((data.counts[genes].mean(axis=1) >= DEEP).sum())
    if deep < LEAST_GENES or not trend:
        return (
            f"{deep} tested genes have a mean of {DEEP:g} counts per sample or more, and hidden factors need {LEAST_GENES}. Leave "
            "hidden_factors out"
        )
    return ""


def _unadjusted(arrays: Mapping[str, np.ndarray], genes: np.ndarray, c: int) -> Unadjusted:
    """One comparison as it was tested, in natural logarithms."""
    of = {word: arrays[word][genes, c] for word in ("scores", "logfoldchanges", "lfc_se", "lfc_lower", "lfc_upper")}
    p_all = arrays["pvals_unfiltered"][genes, c]
    with np.errstate(divide="ignore", invalid="ignore"):
        all_replicates = np.copysign(-ndtri_exp(np.log(np.maximum(p_all, 5e-324) / 2)), of["scores"])
    same = p_all == arrays["pvals"][genes, c]
    effects = (of[word] * LOG2 for word in ("logfoldchanges", "lfc_se", "lfc_lower", "lfc_upper"))
    return Unadjusted(of["scores"], np.where(same, of["scores"], all_replicates), *effects)


def _store(arrays: dict[str, np.ndarray], one: Adjusted, genes: np.ndarray, c: int) -> None:
    """Write the adjusted comparison into its column of the arrays."""
    result = one.result
    tested = np.isfinite(result.statistic)
    p_value, p_all = (2 * ndtr(-np.abs(z)) for z in (result.statistic, result.statistic_all))
    columns = {
        "scores": result.statistic,
        "pvals": p_value,
        "pvals_unfiltered": p_all,
        "logfoldchanges": result.log_fc / LOG2,
        "lfc_se": result.se / LOG2,
        "lfc_lower": result.lower / LOG2,
        "lfc_upper": result.upper / LOG2,
        "hidden_inflation": one.inflation,
    }
    for word, values in columns.items():
        arrays[word][genes[tested], c] = values[tested]
    now_alike = genes[tested & (p_value == p_all)]
    arrays["status"][now_alike, c] &= ~np.uint32(Status.OUTLIER_REPLICATE)


def _described(found: Sequence[Adjusted], score: np.ndarray, share: np.ndarray) -> dict[str, Any]:
    """The factors as they are stored; columns of `factors` belong to the comparisons that `factor_of` names by number."""
    k = np.array([one.factors.shape[1] for one in found], np.int64)
    by_load = [one.by_load for one in found]
    return {
        "n_factors": k,
        "weights": np.stack([one.weights for one in found]),
        "factors": np.concatenate([one.factors for one in found], axis=1),
        "factor_of": np.repeat(np.arange(len(found)), k),
        "slopes": np.concatenate([one.slopes for one in found]),
        "variance_inflation": np.array([one.variance_inflation for one in found]),
        "shift": np.array([one.shift for one in found]) / LOG2,
        "variance_share": share,
        "score": score,
        "inflation_loads": np.stack([np.full(5, np.nan) if one is None else _padded(one.loads) for one in by_load]),
        "inflation": np.stack([np.full(5, np.nan) if one is None else _padded(one.inflation) for one in by_load]),
        "refused": "",
    }


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, (0, 5 - len(values)), constant_values=np.nan)


def _warn_of_few_genes(mean: np.ndarray) -> None:
    if (deep := int((mean >= DEEP).sum())) < FEW_GENES:
        warn(
            f"Only {deep} tested genes have a mean of {DEEP:g} counts per sample or more. Hidden factors are estimated less well from so few "
            "genes: compare with the p-values without factors ('pvals_without_factors' in .varm)."
        )


def _warn_of_near(found: Sequence[Adjusted], contrasts: Sequence[ContrastOfSamples]) -> None:
    """One warning of the comparisons that a hidden factor follows closely."""
    near = {
        contrast.name: one.variance_inflation
        for contrast, one in zip(contrasts, found, strict=True)
        if one.variance_inflation > WARNED_INFLATION
    }
    if near:
        listed = ", ".join(f"{name!r} ({value:.1f} times the variance)" for name, value in list(near.items())[:5])
        warn(
            f"A hidden factor differs between the groups almost as the condition does, in {len(near)} of {len(found)} comparisons: {listed}. "
            "Log2 fold changes are uncertain there, because effects of the condition cannot be separated from the factor. Look for a batch "
            "or covariate that differs between the groups."
        )
