"""Comparisons by a formula: one fit of all samples, and contrasts of its coefficients."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from anndata import AnnData

from nbcompare._anndata import SampleTable, as_text, column_names, reference_missing
from nbcompare._messages import warn
from nbcompare._nb.glm.compare import DesignTests, design_tests
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._formula.contrasts import Hypothesis, group_contrasts, read_contrasts
from nbcompare.tl._formula.covariates import read_covariates, warn_of_labels, with_hint
from nbcompare.tl._formula.estimability import Reduction, check_design, check_estimable, warn_of_aliases
from nbcompare.tl._formula.model_matrix import Model, build_model
from nbcompare.tl._samples.groups import comparisons_with

MIN_WEIGHT = 1e-9  # least weight of a sample in the least-squares estimate of a contrast, relative to the largest


@dataclass(frozen=True)
class Plan:
    """What is fitted and what is asked of it."""

    model: Model
    hypotheses: list[Hypothesis]
    reduction: Reduction  # of the model matrix to full rank

    @property
    def matrix(self) -> np.ndarray:
        """The model matrix of full rank that is fitted, (n_samples, rank)."""
        return self.model.matrix[:, self.reduction.kept]

    @property
    def weights(self) -> list[np.ndarray]:
        """The hypotheses in the coefficients that are fitted, each (rank, k)."""
        return [one.weights[self.reduction.kept] for one in self.hypotheses]

    @property
    def names(self) -> list[str]:
        """Names of the comparisons."""
        return [one.name for one in self.hypotheses]

    @property
    def informative(self) -> np.ndarray:
        """Samples with weight in each comparison, (n_samples, n_comparisons) bool."""
        estimates = np.linalg.pinv(self.matrix)
        weights = np.stack([np.abs(one.T @ estimates).max(axis=0) for one in self.weights], axis=1)
        return weights > MIN_WEIGHT * weights.max(axis=0)


def check_plan(samples: SampleTable, adata: AnnData, options: CompareOptions) -> None:
    """The same refusals as `make_plan`, before anything is summed; in several splits those of the columns alone."""
    if samples.splits:
        read_covariates(adata, samples, options.question.formula, labels=_labels(options))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is said when the samples are final
        make_plan(adata, samples, options)


def make_plan(adata: AnnData, samples: SampleTable, options: CompareOptions) -> Plan:
    """Model matrix and contrasts; refuses what these samples cannot answer, and says why."""
    assumed = options.question.number_labels  # found for all splits together, and named there
    read = read_covariates(adata, samples, options.question.formula, labels=_labels(options), assumed=assumed)
    covariates, columns = read.values, list(read.values.columns)
    if assumed is None:
        warn_of_labels(read.assumed)
    conditions, groupby = samples.table["condition"].to_numpy(), column_names(options.samples.groupby)
    reference = None if options.question.reference is None else str(options.question.reference)
    if reference is not None and (at := np.flatnonzero(conditions == reference)).size:
        for name in set(groupby) & set(columns):
            if covariates[name].dtype == "category":  # coefficients are differences from the reference
                first = covariates[name].iloc[at[0]]
                others = [level for level in covariates[name].cat.categories if level != first]
                covariates[name] = covariates[name].cat.reorder_categories([first, *others])
    model = build_model(options.question.formula, covariates)
    check_design(model)
    if options.question.contrast is not None:
        return _plan(model, read_contrasts(model, options.question.contrast), read.assumed)
    if missing := [name for name in groupby if name not in columns]:
        msg = (
            f"design {options.question.design!r} does not name {', '.join(map(repr, missing))}, by which is compared (groupby). Add it, or "
            "say with contrast what is compared."
        )
        raise ValueError(msg)
    if reference is None:
        raise ValueError(reference_missing(list(dict.fromkeys(conditions)), rest=False))
    groups = comparisons_with(samples, list(dict.fromkeys(conditions)), reference, options.question.groups)
    at = {
        name: covariates[groupby].iloc[np.flatnonzero(conditions == name)[0]].to_dict() for name in [reference, *groups]
    }
    _warn_of_interactions(model, groupby)
    return _plan(model, group_contrasts(model, {name: at[name] for name in groups}, at[reference]), read.assumed)


def number_labels(adata: AnnData, samples: SampleTable, options: CompareOptions) -> set[str]:
    """Columns of numbers that are labels in all splits, because their values repeat within one of them; one warning names them."""
    found: dict[str, None] = {}
    for split in samples.splits:
        with suppress(ValueError):  # a split that the formula refuses is named with its reason later
            part = samples.of_split(split)
            found |= dict.fromkeys(
                read_covariates(adata, part, options.question.formula, labels=_labels(options)).assumed
            )
    warn_of_labels(list(found))
    return set(found)


def _plan(model: Model, hypotheses: list[Hypothesis], assumed: list[str]) -> Plan:
    """The plan of hypotheses that the samples determine."""
    try:
        reduction = check_estimable(model, {one.name: one.weights for one in hypotheses})
    except ValueError as error:
        raise with_hint(error, assumed) from None
    warn_of_aliases(model)
    return Plan(model, hypotheses, reduction)


def run_design_tests(
    plan: Plan, samples: SampleTable, counts: np.ndarray, exposures: np.ndarray, options: CompareOptions
) -> DesignTests:
    """Tests of the contrasts; gene-wise dispersions are those of `method`."""
    threshold = options.test.lfc_threshold * np.log(2)
    _check_threshold(plan, threshold)
    by_likelihood = options.test.method == "mle"
    classical = options.test.test in ("wald", "lrt")

    def tests(test: str, dispersion: str, *, intervals: bool, threshold: float = 0.0) -> DesignTests:
        return design_tests(
            counts,
            np.log(exposures),
            plan.matrix,
            plan.weights,
            test=test,
            dispersion=dispersion,
            cox_reid=options.test.cox_reid,
            min_gene_counts=options.test.min_gene_counts,
            level=_levels(samples),
            intervals=intervals,
            threshold=threshold,
        )

    dispersion = "genewise-ml" if by_likelihood and classical else "moderated"
    result = tests(options.test.test, dispersion, intervals=True, threshold=threshold)
    if by_likelihood and not classical:
        result = replace(result, genewise=tests("wald", "genewise-ml", intervals=False).genewise)
    return replace(result, coefficients=plan.reduction.expand(result.coefficients))


def _check_threshold(plan: Plan, threshold: float) -> None:
    """Refuse a threshold for a hypothesis about several log fold changes."""
    several = [one.name for one in plan.hypotheses if one.weights.shape[1] > 1]
    if threshold > 0 and several:
        msg = (
            f"lfc_threshold requires contrasts of one log fold change, but {several[0]!r} has several. Test its parts as separate contrasts, or "
            "leave lfc_threshold out."
        )
        raise ValueError(msg)


def _levels(samples: SampleTable) -> np.ndarray:
    """The level of `groupby` of each sample, whose dispersions may differ, (n_samples,) codes."""
    return np.asarray(np.unique(samples.table["condition"].to_numpy(), return_inverse=True)[1].reshape(-1))


def design_to_dict(plan: Plan, options: CompareOptions) -> dict[str, Any]:
    """The design as it is stored."""
    degrees = [one.weights.shape[1] for one in plan.hypotheses]
    test = options.test.test
    return {
        "formula": plan.model.design,
        "coefficients": as_text(plan.model.coefficients),
        "comparisons": as_text(plan.names),
        "model_matrix": plan.model.matrix,
        "contrasts": np.concatenate([one.weights for one in plan.hypotheses], axis=1),
        "contrast_of": np.repeat(np.arange(len(degrees)), degrees),
        "tests": as_text(["ql" if test == "moderated" and k > 1 else test for k in degrees]),
    }


def _labels(options: CompareOptions) -> set[str]:
    """Columns that are levels even if they are numbers: replicates, and conditions that are compared one by one."""
    compared = column_names(options.samples.groupby) if options.question.contrast is None else []
    return {*column_names(options.samples.replicate_key), *compared}


def _warn_of_interactions(model: Model, groupby: list[str]) -> None:
    for term, columns in model.term_columns.items():
        if set(columns) & set(groupby) and (others := [name for name in columns if name not in groupby]):
            at = ", ".join(_at(model, name) for name in others)
            msg = (
                f"design {model.design!r} lets differences depend on {', '.join(map(repr, others))} ({term}): the comparisons are "
                f"those at {at}. Say with contrast what is compared, the interaction {term!r} for instance."
            )
            warn(msg)
            return


def _at(model: Model, name: str) -> str:
    return f"{name} {model.levels(name)[0]!r}" if name in model.labels else f"the mean {name}"
