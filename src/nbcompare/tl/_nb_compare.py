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
from nbcompare._arguments import checked
from nbcompare._messages import counted, inform, listed, warn
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare.tl._compare.combinations import check_combinations
from nbcompare.tl._compare.common_shift import warn_of_common_shift
from nbcompare.tl._compare.dataset import compare_samples
from nbcompare.tl._compare.hidden_offer import offer_hidden_factors
from nbcompare.tl._compare.hidden_results import warn_of_refused
from nbcompare.tl._compare.options import Alternative, CompareOptions, Question, TestOptions
from nbcompare.tl._compare.splits import check_splits, compare_splits
from nbcompare.tl._formula.contrasts import Contrast
from nbcompare.tl._formula.plan import check_plan
from nbcompare.tl._posterior.compare import warn_of_null_spread
from nbcompare.tl._posterior.options import PosteriorOptions
from nbcompare.tl._posterior.prior_fields import plain_prior
from nbcompare.tl._samples.groups import (
    read_sample_counts,
    suggest_block_key,
    suggest_design,
    warn_uninformative_blocks,
)
from nbcompare.tl._samples.options import SampleOptions, SizeFactorOptions

Method = Literal["mom", "mle", "transformer", "quadrature"]
TestName = Literal["moderated", "wald", "lrt", "ql"]
Dispersion = Literal["all", "pair"]


@checked
def nb_compare(
    adata: AnnData,
    groupby: str | Sequence[str],
    *,
    # what is compared
    reference: Level | Sequence[Level] | None = None,
    groups: Level | Sequence[Level] = "all",
    replicate_key: str | Sequence[str] | None = None,
    block_key: str | Sequence[str] | None = None,
    split_by: str | Sequence[str] | None = None,
    design: str | None = None,
    contrast: Contrast | None = None,
    # counts and samples
    layer: str | None = None,
    size_factors: str | Sequence[float] = "auto",
    offset: str | np.ndarray | None = None,
    min_cells: int = 10,
    min_counts: float = 0,
    min_gene_counts: float = 10,
    allow_cells_as_replicates: bool = False,
    # the test
    method: Method = "mom",
    test: TestName = "moderated",
    dispersion: Dispersion = "all",
    lfc_threshold: float = 0,
    alternative: Alternative = "greater_abs",
    shrink: bool = False,
    common_shift: bool = False,
    hidden_factors: Literal["auto"] | int | None = None,
    # output
    key_added: str = "nb_compare",
    copy: bool = False,
    verbose: bool = True,
    # one method only
    cox_reid: bool = False,
    prior: Mapping[str, Any] | None = None,
    network: str | PathLike[str] | None = None,
    device: str = "auto",
    importance_sampling: bool = True,
    null_spread: bool = True,
) -> AnnData | None:
    r"""Test for differential expression between groups of pseudobulk samples.

    The cells of each group and replicate are summed into one sample (:func:`~nbcompare.pp.pseudobulk`). For each gene the counts
    of the samples follow a negative binomial distribution with variance :math:`m + \phi m^2`. The dispersion :math:`\phi` shares
    information across genes, by a trend, and across all groups of the data set :cite:p:`smyth2004,robinson2008`. The default
    test is a moderated likelihood-ratio test with a higher-order correction, :math:`r^*` :cite:p:`barndorffnielsen1986`,
    compared with Student's t. It controls false positives with two replicates per group or more. See :doc:`/methods`. Not all
    arguments can be combined: see :doc:`/combinations`.

    Parameters
    ----------
    adata
        Cells x genes with raw counts, in memory, backed, dask or lazily read. Or samples x genes, such as the result of
        :func:`~nbcompare.pp.pseudobulk` or bulk RNA-seq.
    groupby
        Column of `.obs` with the groups (conditions). Several columns define one group per combination of their values.
    reference
        Group to compare with. Required without `contrast`.

        - `"rest"`: all other samples together.
        - A list such as `["NT1", "NT2"]`: these groups are joined into one reference, named `"NT1 + NT2"`. Not with `design`.
    groups
        Groups to compare with the reference. `"all"` is every group except the reference. The other groups are still used to
        estimate dispersions.
    replicate_key
        Column of `.obs` that identifies the biological replicate (donor, animal, well, guide). Counts are summed per group and
        replicate before testing. None if each row is already a replicate. Rows that look like single cells are then refused.
    block_key
        Column of `.obs` with the blocking factor: the donor of paired samples, or the batch. The comparison is then made within
        blocks. Only for `test="moderated"` with `method="mom"`.
    split_by
        Column of `.obs`, such as the cell type. The comparison is repeated in each value of the column, with separate size
        factors, trends and dispersions. Values with too few samples are returned as NaN with a status.
    design
        Formula such as `"~ donor + condition"`. Its columns of `.obs` must be constant within each sample. All samples are fitted
        together. A numeric column with repeated whole numbers, such as donor 101 and 107, is treated as labels, with a warning.
        Write `I(minute)` for a slope. See :doc:`/designs`.
    contrast
        What to test in the design. None compares `groups` with `reference`.

        - `("condition", "treated", "ctrl")`: two levels of a column.
        - The name of a coefficient or of a term of the formula.
        - Weights of the coefficients: an array, a Series (aligned by coefficient names), or a dict (other weights are 0).
        - A dict or list of several of these, by name.
    layer
        Layer with raw counts. None is `.X`. `.raw` is never used.
    size_factors
        Size factors of the samples.

        - A method of :func:`~nbcompare.pp.size_factors`.
        - A column of `.obs` that is constant within each sample.
        - An array (n_obs,), or a Series aligned by `obs_names`, if each row is a sample.
        - `"auto"`: the median of ratios if at least 10 genes are positive in all samples and half of them have 2 or more counts
          in each sample, otherwise `"pooled_ratios"` with the groups of `groupby`. Groups whose size factor cannot be determined
          are then not tested.
    offset
        Natural logarithm of known factors of each count, such as gene lengths. A layer, an array (n_obs, n_vars), or a DataFrame
        aligned by `obs_names` and `var_names`. Each row must be a sample. Offsets multiply the size factors, which are estimated
        from the counts divided by the offsets. A constant offset per gene has no effect. Only with `design`, or for
        `test="moderated"` with `method="mom"` and no `block_key`.
    min_cells
        Samples with fewer cells are dropped, and listed with the reason.
    min_counts
        Samples with fewer counts in total are dropped.
    min_gene_counts
        Genes with fewer counts in the two groups of a comparison together are not tested.
    allow_cells_as_replicates
        Treat every cell as a replicate if `replicate_key` is None. Not recommended: it inflates false positives.
    method
        Estimator of log2 fold changes and gene-wise dispersions. P-values are by `test`.

        - `"mom"`: method of moments :cite:p:`svensson2025`.
        - `"mle"`: joint maximum likelihood.
        - `"quadrature"`: posterior mean by numerical integration, about 0.25 ms per gene. The prior is estimated from all genes.
        - `"transformer"`: the same posterior by a trained neural network :cite:p:`svensson2025`.

        Posterior methods cannot be combined with `design` or `block_key`. In a `design` log2 fold changes are always by maximum
        likelihood, and `method` sets the gene-wise dispersions.
    test
        Test that gives the p-values.

        - `"moderated"`: the moderated likelihood-ratio test :math:`r^*`. With `design` Skovgaard's version
          :cite:p:`skovgaard2001`.
        - `"wald"`: log2 fold change over its standard error, with the gene's own dispersion, as in :cite:t:`svensson2025`.
        - `"lrt"`: likelihood-ratio test, chi-squared with one degree of freedom.
        - `"ql"`: quasi-likelihood F test :cite:p:`lund2012`. Only with `design`. It is also used where several coefficients are
          tested together.

        `"wald"` and `"lrt"` give too many false positives with few replicates. With `design` they use moderated dispersions, and
        t and F distributions.
    dispersion
        `"all"` shares information across all groups of the data set. `"pair"` uses the two groups of each comparison only. Only for
        `test="moderated"`.
    lfc_threshold
        Test against this absolute log2 fold change instead of zero, for example 1 for twofold. Only for `test="moderated"`.
    alternative
        Alternative hypothesis if `lfc_threshold` is above 0.

        - `"greater_abs"`: the change is larger than the threshold :cite:p:`mccarthy2009`.
        - `"less_abs"`: the change is smaller than the threshold (equivalence).
    shrink
        Also store shrunken log2 fold changes and local false sign rates :cite:p:`stephens2017`. P-values do not change.
    common_shift
        Estimate the log2 fold change that most genes of a comparison share, and multiply the size factors of the compared group by it.
        Log2 fold changes and tests are then relative to most genes. Use it if many genes change in one direction, because size factors
        follow them. With fewer than 200 tested genes the shift is 0. Only for `test="moderated"` without `design`.
    hidden_factors
        Adjust for directions in which samples differ for reasons that no column names, such as cell state, sample handling or genetic
        background. Only for `test="moderated"`. See :doc:`/hidden_variation`.

        - None: no adjustment.
        - `"auto"`: the number of factors is estimated. It is often 0, and the results are then those without the option.
        - A whole number: this many factors.

        Effects of the group along a hidden factor are removed together with it. At least 6 residual degrees of freedom are needed
        (4 vs 4 replicates).
    key_added
        Prefix of the keys in `.varm` and `.var`, and the key in `.uns`.
    copy
        Return a copy with the results and leave `adata` unchanged.
    verbose
        Print one line about samples, tested genes and test. :func:`~nbcompare.get.summary` returns it later.
    cox_reid
        Adjust the maximum-likelihood dispersion for the fitted means :cite:p:`cox1987`. Only for `method="mle"`. With `test="lrt"`
        the adjusted dispersion is fitted under both hypotheses.
    prior
        Known parts of the prior. The other parts are estimated from the genes of each comparison. Only for
        `method="transformer"` and `"quadrature"`.

        - `null_proportion`: fraction of genes without a change.
        - `lfc_sd`: standard deviation of the log2 fold changes of the other genes.
        - `dispersion`: a number, an array (n_vars,), or a Series aligned by `var_names`. Default: the trend, and the other groups.
        - `dispersion_log_sd`: standard deviation of the natural logarithm of the dispersion.
        - `tail`: `"inverse_gamma"` or `"lognormal"`, the family of the dispersion's prior.
        - `mean`, `mean_log_sd`: counts per unit of size factor, and the standard deviation of their natural logarithm.
    network
        File of weights, or the name of weights that come with the package. None is the default network. Only for
        `method="transformer"`.
    device
        Device of the network: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`. Only for `method="transformer"`.
    importance_sampling
        Correct the network's posterior by importance sampling. Quadrature is used where the correction is unreliable, so that results do
        not depend on the network. Only for `method="transformer"`.
    null_spread
        Estimate from the genes of each comparison the common shift of their log2 fold changes, and how much more those of non-DE genes vary
        than their standard errors indicate. The posterior accounts for both. With False, and with fewer than 200 tested genes, the shift is
        0 and the spread 1. Only for `method="transformer"` and `"quadrature"`.

    Returns
    -------
    None, or the copy if `copy`. Adds the following arrays (n_vars, n_comparisons). The names start with `key_added`.

    Always:

    `.varm["nb_compare_logfoldchanges"]`, `.varm["nb_compare_lfc_se"]`
        Log2 fold change over the reference, and its standard error. A pseudocount of 0.5 is used if a group has no counts.
    `.varm["nb_compare_lfc_lower"]`, `.varm["nb_compare_lfc_upper"]`
        95% confidence interval of the log2 fold change: the values that the test does not reject at 5%. It excludes zero exactly
        where `pvals_unfiltered` is below 0.05, also with `lfc_threshold`. A group without counts has one infinite bound. NaN for
        genes that are not tested and for contrasts of several coefficients.
    `.varm["nb_compare_scores"]`
        The p-value as a signed standard normal deviate. It is not the log2 fold change over its standard error.
    `.varm["nb_compare_pvals"]`, `.varm["nb_compare_pvals_adj"]`
        Two-sided p-values, and the p-values adjusted within each comparison :cite:p:`benjamini1995`. NaN where not tested.
    `.varm["nb_compare_dispersions"]`
        Dispersion that the test used. For a posterior method the posterior median.
    `.varm["nb_compare_status"]`
        Why a gene has no p-value, or a warning flag. `.uns["nb_compare"]["status_meaning"]` explains the codes.
    `.var["nb_compare_base_mean"]`
        Mean of the counts divided by size factors.
    `.uns["nb_compare"]`
        `comparisons`, `reference`, `params`, `samples` (with size factors), `dropped_samples`, `n_cells_excluded`, `trend`,
        `prior` (posterior methods), `status_codes`, `status_meaning`, `log_base`, `fdr_scope`, `version`.

    Only with the moderated test:

    `.varm["nb_compare_pvals_unfiltered"]`
        P-values before the leave-one-replicate-out filter.
    `.varm["nb_compare_dispersions_genewise"]`, `.var["nb_compare_dispersion_trend"]`
        The gene's own estimate of the dispersion, and the trend at the gene's mean.

    Only with `hidden_factors`:

    `.varm["nb_compare_pvals_without_factors"]`, `.varm["nb_compare_hidden_inflation"]`
        P-values before the adjustment, and the factor by which the variance of `scores` was divided.
    `.uns["nb_compare"]["hidden_factors"]`
        Number of factors, factors of the samples, their slopes on the comparison, shares of variance.

    Only with `shrink`:

    `.varm["nb_compare_lfc_shrunken"]`, `.varm["nb_compare_lfc_shrunken_se"]`
        Mean and standard deviation of the shrunken log2 fold change.
    `.varm["nb_compare_lfsr"]`, `.varm["nb_compare_svalue"]`
        Probability that the sign of the change is wrong or that there is no change, and its mean over all genes with smaller values.

    Only with a posterior method:

    `.varm["nb_compare_lfc_sd"]`, `.varm["nb_compare_lfc_median"]`
        Posterior standard deviation and median of the log2 fold change. Its mean is `logfoldchanges`, and its central 95% interval is
        `lfc_lower` to `lfc_upper`. They include the probability of no change.
    `.varm["nb_compare_lfc_unshrunken"]`
        Log2 fold change of the test. `lfc_se` and `scores` belong to it.
    `.varm["nb_compare_null_probability"]`, `.varm["nb_compare_lfsr"]`
        Posterior probability of no change, and local false sign rate :cite:p:`stephens2017`.
    `.varm["nb_compare_pareto_k"]`
        Reliability of importance sampling: below 0.7 is reliable, otherwise quadrature was used.
    `.varm["nb_compare_prior_dispersions"]`, `.varm["nb_compare_prior_dispersion_log_sd"]`
        Prior of each gene's dispersion: geometric mean, and standard deviation of the natural logarithm.

    `.uns["nb_compare"]["null_spread"]`, `["common_shift"]`
        Spread and common shift (log2) of the non-DE genes, one number per column. Posterior log2 fold changes are measured from the shift.
        `lfc_unshrunken` contains it, and p-values do not depend on either.

    Only with `common_shift`:

    `.uns["nb_compare"]["common_shift"]`
        The shift (log2) of each comparison. Size factors, log2 fold changes and p-values account for it, with all methods.

    Only with `design`:

    `.varm["nb_compare_coefficients"]`
        Coefficients (n_vars, n_coefficients), log2. Their names are in `.uns["nb_compare"]["design"]`.

    Only with `offset`:

    `.varm["nb_compare_offset_factors"]`
        Factor of each gene in each sample (n_vars, n_samples), in addition to the size factor. The geometric mean of each gene is 1.
        Samples are in the order of `.uns["nb_compare"]["samples"]`.

    With `split_by` the columns are the comparisons of the first split, then those of the second, and so on.
    `.uns["nb_compare"]["splits"]` and `["comparisons"]` name them, and `["split_table"]` gives the number of tested genes or the
    reason why none was tested. P-values are adjusted within each split and comparison. `base_mean` and `dispersion_trend` are then
    arrays (n_vars, n_splits) of `.varm`.

    Raises
    ------
    KeyError
        If a column or layer does not exist.
    ValueError
        If the matrix does not hold counts. If a group does not exist. If rows that look like cells would be replicates. If no group
        has two replicates. If blocks and groups are confounded. If a contrast cannot be estimated; the message names the confounded
        columns. If arguments cannot be combined. Nothing is written then. With `split_by` it is an error only if no split can be
        compared.

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
    check_writable(adata, "nbcompare.tl.nb_compare", copy=copy)
    prior = plain_prior(prior, lambda: adata.var_names, "gene")
    levels = reference_levels(reference, groupby)
    joined, reference = levels if len(levels) > 1 else [], joined_name(levels) if levels else None
    options = CompareOptions(
        SampleOptions(
            groupby, replicate_key, block_key, split_by, layer, min_cells, min_counts, allow_cells_as_replicates
        ),
        Question(reference, groups, design, contrast, tuple(joined)),
        SizeFactorOptions(size_factors, offset),
        TestOptions(
            method,
            test,
            dispersion,
            cox_reid,
            min_gene_counts,
            lfc_threshold,
            alternative,
            shrink,
            common_shift,
            hidden_factors,
        ),
        PosteriorOptions(method, prior, network, device, importance_sampling, null_spread),
    )
    check_combinations(options)
    found, groups = requested_levels(adata, groupby, reference, groups, required=contrast is None, rest=design is None)
    reference = reference if joined else found
    options = options.asking(reference=reference, groups=groups)
    samples, counts = read_sample_counts(
        adata,
        options.samples,
        joined=joined,
        named=[str(reference), *([groups] if isinstance(groups, str) else groups)],
        check=_early_check(adata, options),
    )
    splits, split_table = None, None
    if split_by is None:
        outcome = compare_samples(adata, samples, counts, options)
        warn_uninformative_blocks(outcome.samples)
    else:
        outcome, splits, split_table = compare_splits(adata, samples, counts, options)
    if block_key is not None:
        suggest_design(outcome.samples, outcome.comparisons, str(reference), groupby, block_key)
    warn_of_null_spread(outcome.null.get("null_spread"), outcome.comparisons)
    if common_shift:
        warn_of_common_shift(outcome.null["common_shift"], outcome.comparisons)
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
        options.as_stored() | {"key_added": key_added} | outcome.resolved,
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
        outcome.null,
    )
    target = adata.copy() if copy else adata
    summary = write_results(target, results, key_added)
    if verbose:
        inform(summary)
    return target if copy else None


def _early_check(adata: AnnData, options: CompareOptions) -> Callable[[SampleTable], None] | None:
    """What is refused before anything is summed."""
    if options.samples.split_by is not None:
        return partial(check_splits, adata=adata, options=options)
    if options.question.design is not None:
        return partial(check_plan, adata=adata, options=options)
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
