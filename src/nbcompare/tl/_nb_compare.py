"""Comparisons of groups of cells or samples, gene by gene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal

import numpy as np
from anndata import AnnData

from nbcompare._anndata import (
    Level,
    Results,
    SampleTable,
    check_writable,
    joined_name,
    reasons_untested,
    reference_levels,
    requested_levels,
    write_results,
)
from nbcompare._arguments import checked, plain
from nbcompare._messages import counted, inform, listed, warn
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare.tl._compare.dataset import compare_samples
from nbcompare.tl._compare.effects import Alternative, check_effect_options
from nbcompare.tl._compare.hidden_factors import check_hidden_options
from nbcompare.tl._compare.hidden_offer import offer_hidden_factors
from nbcompare.tl._compare.hidden_results import warn_of_refused
from nbcompare.tl._compare.splits import check_splits, compare_splits
from nbcompare.tl._formula.contrasts import Contrast
from nbcompare.tl._formula.plan import check_design_options, check_plan
from nbcompare.tl._posterior.compare import check_posterior_options
from nbcompare.tl._posterior.prior_fields import plain_prior
from nbcompare.tl._samples.groups import (
    read_sample_counts,
    suggest_block_key,
    suggest_design,
    warn_uninformative_blocks,
)

Method = Literal["mom", "mle", "transformer", "quadrature"]
TestName = Literal["moderated", "wald", "lrt", "ql"]
Dispersion = Literal["all", "pair"]


@checked
def nb_compare(
    adata: AnnData,
    groupby: str | Sequence[str],
    *,
    reference: Level | Sequence[Level] | None = None,
    groups: Level | Sequence[Level] = "all",
    replicate_key: str | Sequence[str] | None = None,
    block_key: str | Sequence[str] | None = None,
    split_by: str | Sequence[str] | None = None,
    design: str | None = None,
    contrast: Contrast | None = None,
    method: Method = "mom",
    test: TestName = "moderated",
    layer: str | None = None,
    size_factors: str | Sequence[float] = "auto",
    offset: str | np.ndarray | None = None,
    dispersion: Dispersion = "all",
    cox_reid: bool = False,
    lfc_threshold: float = 0,
    alternative: Alternative = "greater_abs",
    shrink: bool = False,
    hidden_factors: Literal["auto"] | int | None = None,
    prior: Mapping[str, Any] | None = None,
    network: str | PathLike[str] | None = None,
    device: str = "auto",
    importance_sampling: bool = True,
    min_cells: int = 10,
    min_counts: float = 0,
    min_gene_counts: float = 10,
    allow_cells_as_replicates: bool = False,
    key_added: str = "nb_compare",
    copy: bool = False,
    verbose: bool = True,
) -> AnnData | None:
    r"""Compare groups with a reference by a negative binomial for every gene, on cells summed into replicates.

    The cells of each condition and replicate are summed (:func:`~nbcompare.pp.pseudobulk`), and for each gene the counts of
    the replicates are negative binomial with variance :math:`m + \phi m^2`. The default test is the moderated
    :math:`r^*`: the dispersion :math:`\phi` borrows strength from a trend over genes :cite:p:`smyth2004,robinson2008` and
    from all groups of the data set, and the signed root of the likelihood ratio, corrected to third order
    :cite:p:`barndorffnielsen1986`, is referred to Student's t. It is a closed form and keeps its level
    from two replicates on. See :doc:`/methods`.

    Parameters
    ----------
    adata
        Cells x genes with raw counts, or samples x genes as :func:`~nbcompare.pp.pseudobulk` or a bulk experiment gives
        them. In memory, backed, dask or lazily read.
    groupby
        Column of `.obs` with the conditions; several columns give a condition for each combination that occurs.
    reference
        Condition to compare with, or `"rest"`: all other samples together. A list of conditions, such as `["NT1", "NT2"]`,
        is one reference: their cells are joined, and tables call it `"NT1 + NT2"`. Not with `design`. Needed unless a `contrast` says it.
    groups
        Conditions to compare, `"all"` but the reference by default. The other groups are still used to estimate dispersions.
    replicate_key
        Column of `.obs` with the independent unit: donor, animal, well, batch, guide. None where each row is a
        replicate; this is refused for what looks like cells, unless `allow_cells_as_replicates`.
    block_key
        Column of `.obs` with what conditions share: the donor of paired samples, the batch, in a screen usually the
        replicate. Additive differences between blocks are taken out. Test `"moderated"`, method `"mom"` only.
    split_by
        Column of `.obs`, such as the cell type: the same comparisons are made in each of its values, each a data set of
        its own with its own size factors, trend and dispersions. What a value lacks samples for stays NaN.
    design
        Formula on columns of `.obs` that are constant within each sample, `"~ donor + condition"`: all samples are fitted at
        once, and contrasts of the coefficients tested. Whole numbers that repeat between samples, such as donors 101 and 107, are
        labels, and a warning says so: write `I(minute)` for a slope. See :doc:`/designs`.
    contrast
        What is compared in the design: `("condition", "treated", "ctrl")`, the name of a coefficient or a term, weights of the
        coefficients, or several of these by name; see :doc:`/designs`. A Series of weights is aligned by its labels, the names of all
        coefficients; a dict may name some of them, the others have weight 0. If None, `groups` with `reference`.
    method
        `"mom"`, moments: effects from sums, the unbiased moment estimator of the dispersion :cite:p:`svensson2025`.
        `"mle"`, joint maximum likelihood. With the moderated test it gives effects and gene-wise dispersions. In a
        `design` effects are always those of the likelihood, and gene-wise dispersions are by `method`; tests `"wald"` and
        `"lrt"` then use them. `"quadrature"`, the posterior of fold change and dispersion under a prior that the data set's
        genes give, exact, at a quarter of a millisecond a gene; `"transformer"`, the same by a trained network. Both take
        p-values from the moderated test and need neither `design` nor blocks; see :doc:`/methods`.
    test
        `"moderated"`, the moderated :math:`r^*`; `"wald"`, effect over standard error against a normal, with the
        gene's own dispersion, as in :cite:t:`svensson2025`; `"lrt"`, the likelihood ratio against chi-squared with
        one degree of freedom. The last two reject too often at few replicates. With a `design`: Skovgaard's
        :math:`r^*` :cite:p:`skovgaard2001`; `"ql"`, the quasi-likelihood F test :cite:p:`lund2012`, which also stands in
        where several coefficients are tested together; `"wald"` and `"lrt"` at moderated dispersions, on t and F.
    layer
        Layer with the raw counts, `.X` if None. `.raw` is never used.
    size_factors
        How deep each sample is: a method of :func:`~nbcompare.pp.size_factors`, a column of `.obs` (constant within a
        sample), or, where each row is a sample, an array (n_obs,), or a Series that is aligned by its labels (`obs_names`). `"auto"` is the median of ratios where at least 10 genes
        are positive in all samples and half of these have 2 or more counts in each; else `"pooled_ratios"`, with the groups of
        `groupby`. Comparisons with a group whose depth the counts do not determine are then not tested.
    offset
        Where each row is a sample: layer, or array (n_obs, n_vars), with the natural logarithm of known factors of every
        count, such as normalisation factors or gene lengths. A DataFrame is aligned by its labels (`obs_names`, `var_names`). They multiply the size factors, which are measured on counts
        that are rid of them; what a gene has in all samples alike does not count. With a `design`, or with test
        `"moderated"`, method `"mom"` and no blocks.
    dispersion
        `"all"`: dispersions are shared over all groups of the data set; `"pair"`: each comparison stands alone.
        Test `"moderated"` only.
    cox_reid
        Adjust the likelihood's dispersion for the fitted means :cite:p:`cox1987`. Method `"mle"` only. Test `"lrt"` then fits the
        adjusted dispersion once with and once without the difference.
    lfc_threshold
        Absolute log2 fold change that is tested against instead of zero, such as 1 for twofold. Test `"moderated"` only.
    alternative
        What is to be shown with `lfc_threshold`: `"greater_abs"`, that a change is larger :cite:p:`mccarthy2009`;
        `"less_abs"`, that it is smaller, in either direction.
    shrink
        Also give shrunken effects with their local false sign rates :cite:p:`stephens2017`. P-values stay as they are.
    hidden_factors
        Adjust for directions in which samples differ for reasons that no column names, such as cell state, sample handling or genetic
        background. Test `"moderated"` only; see :doc:`/hidden_variation`.

        - None: no adjustment.
        - `"auto"`: the number of factors is estimated, and is often 0. Results are then those without the option.
        - A whole number: this many factors.

        Effects of the condition along a hidden factor are removed together with it. At least 6 residual degrees of freedom are
        needed (4 vs 4 replicates).
    prior
        What of the posterior's prior is known, the rest is estimated from the genes of each comparison: `null_proportion`, the share of
        unchanged genes; `lfc_sd`, standard deviation of the others' log2 fold changes; `dispersion`, one number or one a gene
        (n_vars,), where a Series is aligned by its labels (`var_names`), and `dispersion_log_sd`, the standard deviation of its natural logarithm: by default what the trend, its scatter
        and the groups outside of the comparison say of the gene, with either of the two given the trend's; `tail`, `"inverse_gamma"` or `"lognormal"`; `mean`,
        counts per unit of size factor, and `mean_log_sd`. Methods `"transformer"` and `"quadrature"` only, as are the next three.
    network
        File of weights, or the name of one that comes with the package; the default is the package's own.
    device
        Where the network runs: `"auto"`, `"cpu"`, `"cuda"`, `"mps"`.
    importance_sampling
        Correct the network by importance sampling from the likelihood and the prior, and by quadrature where that cannot
        be trusted, so that the answer does not rest on the network. Method `"transformer"` only.
    min_cells
        Samples of fewer cells are dropped, and listed with the reason.
    min_counts
        Samples of fewer counts are dropped.
    min_gene_counts
        Genes with fewer counts in the two arms of a comparison together are not tested.
    allow_cells_as_replicates
        Insist that each row of what looks like cells is a replicate.
    key_added
        Start of every name that is written.
    copy
        Return a copy with the results instead of writing to `adata`.
    verbose
        Whether to say in one line what was done: samples, genes tested, test. :func:`~nbcompare.get.summary` returns it later.

    Returns
    -------
    None, or the copy. Written are, as plain arrays (n_vars, n_comparisons):

    `.varm["nb_compare_logfoldchanges"]`, `.varm["nb_compare_lfc_se"]`
        Log2 fold change over the reference and its standard error. Half a count stands for a group without counts.
    `.varm["nb_compare_lfc_sd"]`, `_lfc_median`, `_lfc_unshrunken`
        Posterior: standard deviation and median of the log2 fold change, whose mean is `logfoldchanges` and whose central 95 %
        interval is `lfc_lower` to `lfc_upper`; they include the probability that nothing changes. `lfc_se` and `scores` remain those of the test, whose fold change
        is `lfc_unshrunken`.
    `.varm["nb_compare_null_probability"]`, `_lfsr`, `_pareto_k`
        Posterior: probability that nothing changes; local false sign rate :cite:p:`stephens2017`; with `importance_sampling`, how far
        the network's draws can be trusted (below .7, else it is not the network that answers).
    `.varm["nb_compare_prior_dispersions"]`, `_prior_dispersion_log_sd`
        Posterior: of each gene's dispersion before the comparison's own counts are seen, geometric mean and standard deviation of
        the natural logarithm.
    `.varm["nb_compare_lfc_lower"]`, `.varm["nb_compare_lfc_upper"]`
        Bounds of the 95 % confidence interval of the log2 fold change: the values that the test does not reject at 5 %. It excludes
        zero exactly where the p-value from all replicates is below 0.05, also with `lfc_threshold`, which it does not depend on. A
        group without counts has one bound, the other is infinite. Genes that are not tested, and contrasts of several coefficients,
        have NaN. A posterior stores its own interval here.
    `.varm["nb_compare_scores"]`
        The p-value as a signed normal deviate, the signed root of the test: standard normal where nothing changes. It is not the log
        fold change over its standard error.
    `.varm["nb_compare_pvals"]`, `.varm["nb_compare_pvals_adj"]`
        Two-sided p-values, and Benjamini-Hochberg adjusted within the comparison; NaN where not tested.
    `.varm["nb_compare_dispersions"]`, `.varm["nb_compare_dispersions_genewise"]`
        The dispersion that the test used, of a posterior its median; the gene's own estimate (moderated test).
    `.varm["nb_compare_pvals_unfiltered"]`
        Moderated test: p-values before the rule that no single replicate may carry a difference.
    `.varm["nb_compare_lfc_shrunken"]`, `..._lfc_shrunken_se"]`, `..._lfsr"]`, `..._svalue"]`
        With `shrink`: posterior mean and standard deviation of the log2 fold change; the probability that its sign is wrong or
        it is zero; the mean of these rates over the genes that are called with this one.
    `.varm["nb_compare_pvals_without_factors"]`, `.varm["nb_compare_hidden_inflation"]`
        With `hidden_factors`: p-values before the adjustment; the number by which the variance of `scores` was divided.
    `.varm["nb_compare_status"]`
        Why there is no p-value, or what to know beside it; the codes are in `.uns`.
    `.varm["nb_compare_coefficients"]`
        Of a `design`: coefficients (n_vars, n_coefficients), log2; their names are in `.uns["nb_compare"]["design"]`.
    `.varm["nb_compare_offset_factors"]`
        With `offset`: the factor of each gene in each sample (n_vars, n_samples) beside the size factor, geometric mean 1 in each
        gene. The order of the samples is that of `.uns["nb_compare"]["samples"]`.
    `.var["nb_compare_base_mean"]`, `.var["nb_compare_dispersion_trend"]`
        Mean of counts over size factors; the trend at the gene's mean (moderated test).
    `.uns["nb_compare"]`
        `comparisons`, `reference`, `params`, `samples` (with size factors), `dropped_samples`, `n_cells_excluded`,
        `trend`, `prior` (of a posterior), `hidden_factors` (number, factors of the samples, slopes), `status_codes`, `status_meaning`, `log_base`, `fdr_scope`, `version`.

    With `split_by` the columns of these arrays are the comparisons of the first split, then those of the second, and so
    on, named by `.uns["nb_compare"]["splits"]` and `["comparisons"]`; `["split_table"]` says how many genes were tested
    in each, or why none; p-values are adjusted within each split and comparison; `base_mean` and `dispersion_trend` are
    arrays (n_vars, n_splits) of `.varm`.

    Raises
    ------
    KeyError
        If there is no such column or layer.
    ValueError
        If the matrix does not hold counts; if there is no such reference or group; if rows that look like cells are
        taken for replicates; if no group has two replicates; if blocks and conditions are confounded; if a contrast of a
        design cannot be estimated from the samples, naming the coefficients that cannot be separated; if options exclude each other. Nothing is written
        then. With `split_by` what holds of one split leaves that split without p-values; it is an error only if it
        leaves none.

    See Also
    --------
    nbcompare.get.nb_compare_df : The results as a table.
    nbcompare.pl.volcano : The results as a figure.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=200, n_cells=40, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.nb_compare_df(adata, "treated_1").columns[:5].tolist()
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    """
    of_reference = reference_levels(reference, groupby)
    reference = joined_name(of_reference) if of_reference else None
    params = {name: value for name, value in locals().items() if name not in ("adata", "of_reference")}
    params["prior"] = plain_prior(prior, lambda: adata.var_names, "gene")
    check_writable(adata, "nbcompare.tl.nb_compare", copy=copy)
    _check_options(params)
    several = len(of_reference) > 1
    found, groups = requested_levels(adata, groupby, reference, groups, required=contrast is None, rest=design is None)
    reference = reference if several else found
    params |= {"reference": reference, "groups": groups}
    if several:
        _refuse_joined(params, of_reference)
        params["reference_levels"] = of_reference
    samples, counts = read_sample_counts(
        adata,
        groupby,
        replicate_key=replicate_key,
        block_key=block_key,
        split_by=split_by,
        layer=layer,
        min_cells=min_cells,
        min_counts=min_counts,
        allow_cells_as_replicates=allow_cells_as_replicates,
        joined=of_reference,
        named=[str(reference), *([groups] if isinstance(groups, str) else groups)],
        check=_early_check(adata, params),
    )
    splits, split_table = None, None
    if split_by is None:
        outcome = compare_samples(adata, samples, counts, params)
        warn_uninformative_blocks(outcome.samples)
    else:
        outcome, splits, split_table = compare_splits(adata, samples, counts, params)
    if block_key is not None:
        suggest_design(outcome.samples, outcome.comparisons, str(reference), groupby, block_key)
    _warn_of_depths(outcome.arrays["status"])
    if split_by is None:
        _warn_of_untested(outcome.arrays["status"], outcome.comparisons, min_gene_counts)
    if block_key is None and design is None:
        suggest_block_key(samples, replicate_key)
    offer_hidden_factors(outcome.shared_variation)
    warn_of_refused(outcome.hidden_factors, [] if splits is None else list(dict.fromkeys(map(str, splits))))
    factors = {} if outcome.offset_factors is None else {"offset_factors": outcome.offset_factors}
    results = Results(
        outcome.arrays | factors,
        outcome.columns,
        outcome.comparisons,
        "" if contrast is not None else str(reference),
        _as_stored_params(params) | outcome.resolved,
        outcome.samples,
        samples.dropped,
        samples.n_cells_excluded,
        outcome.trend,
        splits,
        split_table,
        outcome.design,
        outcome.coefficients,
        outcome.prior,
        outcome.hidden_factors,
    )
    target = adata.copy() if copy else adata
    summary = write_results(target, results, key_added)
    if verbose:
        inform(summary)
    return target if copy else None


def _check_options(params: Mapping[str, Any]) -> None:
    check_posterior_options(params)
    check_effect_options(params)
    check_design_options(params)
    check_hidden_options(params)
    if params["block_key"] is not None and (params["test"], params["method"]) != ("moderated", "mom"):
        msg = (
            f"block_key cannot be combined with test={params['test']!r} and "
            f"method={params['method']!r}. Use test='moderated' and method='mom', or put the blocks in the design: design='~ donor + condition'."
        )
        raise ValueError(msg)
    if params["cox_reid"] and params["method"] != "mle":
        msg = f"cox_reid adjusts the likelihood of method='mle', but method is {params['method']!r}. Leave cox_reid out, or pass method='mle'."
        raise ValueError(msg)
    if params["dispersion"] == "pair" and params["test"] != "moderated":
        msg = f"dispersion='pair' is only available for test='moderated', but test is {params['test']!r}. Leave dispersion out."
        raise ValueError(msg)


def _refuse_joined(params: Mapping[str, Any], levels: list[str]) -> None:
    """Refuse several levels as reference where a formula reads the column itself."""
    if params["design"] is not None:
        column = params["groupby"]
        msg = (
            f"reference is {levels}, but several groups cannot be one reference with design=. Join them in the column first: "
            f"adata.obs[{column!r}] = adata.obs[{column!r}].astype(str).replace({levels}, 'control'), then reference='control'."
        )
        raise ValueError(msg)


def _early_check(adata: AnnData, params: Mapping[str, Any]) -> Callable[[SampleTable], None] | None:
    """What is refused before anything is summed."""
    if params["split_by"] is not None:
        return partial(check_splits, adata=adata, options=params)
    if params["design"] is not None:
        return partial(check_plan, adata=adata, options=params)
    return None


def _warn_of_depths(status: np.ndarray) -> None:
    """One warning for all comparisons, status (n_genes, n_comparisons), that the sequencing depth of a sample leaves without tests."""
    lost = (status & Status.SIZE_FACTOR_UNSTABLE) > 0
    if lost.any():
        msg = (
            f"{lost.any(axis=0).sum()} of {lost.shape[1]} comparisons ({lost.sum()} tests) are not tested (status size_factor_unstable): "
            "the counts of some samples are too few, or too different from the others', to determine their sequencing depth. "
            "Drop such samples with min_counts or min_cells, or pass size_factors='total'."
        )
        warn(msg)


def _warn_of_untested(status: np.ndarray, comparisons: list[str], min_gene_counts: float) -> None:
    """One warning of the comparisons in which no gene is tested, status (n_genes, n_comparisons), and why."""
    named_already = ((status & Status.SIZE_FACTOR_UNSTABLE) > 0).all(axis=0)  # by the warning about sequencing depths
    without = np.flatnonzero(((status & NOT_TESTED) > 0).all(axis=0) & ~(named_already & (len(status) > 0)))
    if not without.size:
        return
    reasons = reasons_untested(status[:, without])
    why = ", ".join(
        f"{n:,} {reason}" + (f" (min_gene_counts is {min_gene_counts:g})" if reason == "low_counts" else "")
        for reason, n in reasons.items()
    )
    named = listed([comparisons[c] for c in without], most=5)
    msg = (
        f"No gene is tested in {len(without)} of {counted(len(comparisons), 'comparison')} ({named}): of "
        f"{counted(len(status) * len(without), 'test')}, {why or 'there are none'}. The status of each gene says why, see "
        "nbcompare.get.nb_compare_df."
    )
    warn(msg)


def _as_stored_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as files can hold them."""
    as_stored_params = {
        name: plain(value)
        for name, value in params.items()
        if name not in ("copy", "verbose", "size_factors", "contrast", "offset")
    }
    if params["hidden_factors"] is None:  # so that results without the option are those of earlier versions
        del as_stored_params["hidden_factors"]
    as_stored_params["contrast"] = None if params["contrast"] is None else repr(params["contrast"])
    for name in ("size_factors", "offset"):
        as_stored_params[name] = params[name] if params[name] is None or isinstance(params[name], str) else "given"
    return as_stored_params
