"""One data set: from its samples and their counts to the arrays of all its comparisons, whatever the options are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import SampleTable
from nbcompare._anndata.rows import without_known
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.underdispersion import flagged
from nbcompare.tl._compare.common_shift import with_common_shift
from nbcompare.tl._compare.effects import with_effects
from nbcompare.tl._compare.estimate import contrasted, moderated, unmoderated
from nbcompare.tl._compare.hidden_factors import adjust_contrasts, adjust_pairs
from nbcompare.tl._compare.hidden_offer import shared_variation_of
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._formula.plan import design_to_dict, make_plan, run_design_tests
from nbcompare.tl._posterior.compare import with_posterior
from nbcompare.tl._samples.checks import flags_of_comparisons, sample_flags, warn_of_underdispersion
from nbcompare.tl._samples.groups import informative_blocks, make_design, sample_depths
from nbcompare.tl._samples.offsets import offset_factors


@dataclass(frozen=True)
class Outcome:
    """What the comparisons of one data set give. Logarithms to base 2."""

    arrays: dict[str, np.ndarray]  # word -> (n_genes, n_comparisons)
    columns: dict[str, np.ndarray]  # word -> (n_genes,)
    trend: dict[str, Any]  # empty where the test knows none
    comparisons: list[str]
    samples: pd.DataFrame  # with `size_factor`
    resolved: dict[str, Any]  # what arguments such as "auto" became, by name
    design: dict[str, Any] = field(default_factory=dict)  # formula, coefficients, model matrix, contrasts
    coefficients: np.ndarray | None = None  # (n_genes, n_coefficients) of the design
    prior: dict[str, Any] = field(default_factory=dict)  # of the posterior
    null: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # null spread and common shift, (n_comparisons,) each, where estimated
    offset_factors: np.ndarray | None = None  # (n_genes, n_samples), beside the size factors, where offsets were given
    hidden_factors: dict[str, Any] = field(default_factory=dict)
    shared_variation: float = 1.0  # of the residuals, see `hidden.offer`; one where it was not measured


def compare_samples(adata: AnnData, samples: SampleTable, counts: np.ndarray, options: CompareOptions) -> Outcome:
    """All comparisons among these samples, counts (n_samples, n_genes); `options` are those of `nb_compare`.

    The only way from samples to results: all that is shared by genes (size factors, trend, blocks) is shared by these samples.
    What a set of samples cannot answer is a ValueError that says why.
    """
    if options.question.design is not None:
        return _by_formula(adata, samples, counts, options)
    design = make_design(
        adata,
        samples,
        counts,
        reference=str(options.question.reference),
        groups=options.question.groups,
        factors=options.size_factors.size_factors,
        replicate_key=options.samples.replicate_key,
        offset=options.size_factors.offset,
    )
    too_little = warn_of_underdispersion(design.pseudobulk)
    shift: np.ndarray | None = None
    if options.test.common_shift:
        shared = options.test.dispersion == "all"
        design, shift = with_common_shift(design, shared=shared, min_gene_counts=options.test.min_gene_counts)
    given = {name: getattr(options.test, name) for name in ("method", "cox_reid", "min_gene_counts")}
    trend: dict[str, Any] = {}
    shifted = None
    prior: dict[str, Any] = {}
    null: dict[str, np.ndarray] = {}
    if options.posterior.is_posterior:
        arrays, columns, trend, prior, null = with_posterior(design, options)
    elif options.test.test == "moderated":
        shared, threshold = options.test.dispersion == "all", options.test.lfc_threshold
        arrays, columns, trend, shifted = moderated(design, shared=shared, lfc_threshold=threshold, **given)
    else:
        arrays, columns = unmoderated(design, test=options.test.test, **given)
    if shift is not None:
        null["common_shift"] = shift + null.get("common_shift", 0.0)
    if too_little:
        arrays["status"] = flagged(arrays["status"])
    hidden: dict[str, Any] = {}
    if options.test.hidden_factors is not None:
        arrays, hidden = adjust_pairs(arrays, trend, design, options.test.hidden_factors)
    arrays = with_effects(arrays, shifted, options.test)
    table = without_known(samples.table).assign(size_factor=design.pseudobulk.exposure, **informative_blocks(samples))
    resolved = {"size_factors_used": design.factors_used}
    factors = offset_factors(design.pseudobulk.exposure, design.pseudobulk.of_gene)
    return Outcome(
        arrays,
        columns,
        trend,
        design.comparisons,
        table,
        resolved,
        prior=prior,
        null=null,
        offset_factors=factors,
        hidden_factors=hidden,
        shared_variation=shared_variation_of(trend, design, options),
    )


def _by_formula(adata: AnnData, samples: SampleTable, counts: np.ndarray, options: CompareOptions) -> Outcome:
    """The same by contrasts of one fit."""
    plan = make_plan(adata, samples, options)
    exposure, of_gene, unstable, used = sample_depths(
        adata,
        samples,
        counts,
        options.size_factors.size_factors,
        options.samples.replicate_key,
        options.size_factors.offset,
    )
    genes_first = np.ascontiguousarray(counts.T)
    exposures = exposure[None, :] if of_gene is None else of_gene
    codes = np.unique(samples.table["condition"].to_numpy(str), return_inverse=True)[1].reshape(-1)
    too_little = warn_of_underdispersion(Pseudobulk(genes_first, exposure, codes, None, of_gene))
    result = run_design_tests(plan, samples, genes_first, exposures, options)
    flags = flags_of_comparisons(sample_flags(samples.tiny, unstable), plan.informative)
    arrays, columns, trend, coefficients = contrasted(
        result, flags, (genes_first / exposures).mean(axis=1), test=options.test.test
    )
    if too_little:
        arrays["status"] = flagged(arrays["status"])
    hidden: dict[str, Any] = {}
    if options.test.hidden_factors is not None:
        arrays, hidden = adjust_contrasts(arrays, trend, plan, genes_first, exposures, options.test.hidden_factors)
    arrays = with_effects(arrays, result.shifted, options.test)
    table = without_known(samples.table).assign(size_factor=exposure)
    resolved = {"size_factors_used": used}
    return Outcome(
        arrays,
        columns,
        trend,
        plan.names,
        table,
        resolved,
        design_to_dict(plan, options),
        coefficients,
        offset_factors=offset_factors(exposure, of_gene),
        hidden_factors=hidden,
    )
