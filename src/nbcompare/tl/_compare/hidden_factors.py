"""Comparisons adjusted for hidden factors: which options allow it, and the results of all comparisons of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nbcompare._anndata import as_text
from nbcompare._nb.glm.fit.design import design_matrices
from nbcompare._nb.hidden.compare import (
    LEAST_DEGREES,
    adjust_comparison,
    fit_hidden,
    largest_number,
)
from nbcompare._nb.hidden.dataset import HiddenData, pair_contrast
from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare.tl._compare.hidden_data import DEEP, ContrastOfSamples, data_of, data_of_groups
from nbcompare.tl._compare.hidden_results import (
    described_factors,
    store_adjusted,
    unadjusted,
    warn_of_few_genes,
    warn_of_near,
)
from nbcompare.tl._formula.plan import Plan
from nbcompare.tl._samples.groups import Design

LEAST_GENES = 60  # tested genes with a mean of two counts or more


def adjust_pairs(
    arrays: dict[str, np.ndarray], trend: Mapping[str, Any], design: Design, n_factors: str | int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Comparisons of groups, perhaps within blocks, adjusted for hidden factors, and what is stored of the factors."""
    data = data_of_groups(trend, design)
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
        names = as_text([one.name for one in contrasts])
        return arrays, {"comparisons": names, "n_factors": np.zeros(len(contrasts), np.int64), "refused": reason}
    if n_factors != "auto" and int(n_factors) > most:
        msg = f"hidden_factors is {n_factors}, but {data.design.shape[0]} samples and {data.design.shape[1]} columns of the design allow {most} at most. Use hidden_factors='auto' or {most}."
        raise ValueError(msg)
    model = fit_hidden(data.genes(genes), None if n_factors == "auto" else int(n_factors))
    arrays = {word: values.copy() for word, values in arrays.items()}
    found = []
    for c, contrast in enumerate(contrasts):
        one = adjust_comparison(model, unadjusted(arrays, genes, c), contrast.weights, contrast.pair)
        found.append(one)
        if one.used:
            store_adjusted(arrays, one, genes, c)
    arrays["pvals_adj"] = adjust_p_values(arrays["pvals"])
    warn_of_few_genes(model.mean)
    warn_of_near(found, contrasts)
    share = model.factors.eigenvalues / model.factors.eigenvalues.sum()
    names = as_text([one.name for one in contrasts])
    return arrays, {"comparisons": names} | described_factors(found, model.held_out.score, share)


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
