"""A whole screen: every perturbation against the control, gene by gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

from anndata import AnnData

from nbcompare._anndata import (
    Level,
    MemoryScreen,
    ScreenResult,
    ScreenStore,
    bytes_a_test,
    joined_name,
    layer_types,
    reference_levels,
    the_level,
)
from nbcompare._anndata.screen.fingerprint import fingerprint
from nbcompare._arguments import checked
from nbcompare._counts.chunks import CHUNK_SIZE
from nbcompare._messages import inform, warn
from nbcompare.tl._posterior.compare import warn_of_null_spread
from nbcompare.tl._posterior.options import PosteriorOptions, check_prior
from nbcompare.tl._posterior.prior_fields import plain_prior
from nbcompare.tl._progress import bar
from nbcompare.tl._samples.options import SampleOptions
from nbcompare.tl._screen.fit import ScreenFit, fit_model
from nbcompare.tl._screen.options import (
    EstimateMethod,
    ScreenOptions,
    check_options,
    check_run,
    check_store,
    threads_of,
)
from nbcompare.tl._screen.run import added_layers, adjust_over_all, prepare, run_blocks, warn_of_shared_names
from nbcompare.tl._screen.run_dask import adjust_over_all_on, cluster_for, run_blocks_on
from nbcompare.tl._screen.samples import check_genes, gene_names, read_screen
from nbcompare.tl._screen.tables import sample_tables, tables, warn_of_untested
from nbcompare.tl._screen.targets import added_targets, perturbations, rows_of_a_block


@checked
def nb_screen(
    adata: AnnData | str | PathLike,
    groupby: str | Sequence[str],
    *,
    # what is compared
    reference: Level | Sequence[Level] | None = None,
    replicate_key: str | Sequence[str] | None = None,
    block_key: str | Sequence[str] | None = None,
    guide_key: str | Sequence[str] | None = None,
    # counts and samples
    layer: str | None = None,
    size_factors: str | Sequence[float] = "auto",
    min_cells: int = 10,
    min_counts: float = 0,
    min_gene_counts: float = 10,
    # the test
    n_fit_perturbations: int = 200,
    fdr: float = 0.05,
    intervals: bool = False,
    method: EstimateMethod = "mom",
    # output
    path: str | PathLike | None = None,
    append: bool = False,
    dtype: Literal["float32", "float64"] = "float32",
    chunk_size: int = CHUNK_SIZE,
    perturbations_per_chunk: int | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
    verbose: bool = True,
    # posterior methods only
    prior: Mapping[str, Any] | None = None,
    network: str | PathLike[str] | None = None,
    device: str = "auto",
    importance_sampling: bool = False,
    null_spread: bool = True,
) -> AnnData:
    r"""Test every perturbation of a screen against the control, out of core.

    The test is that of :func:`~nbcompare.tl.nb_compare`: the moderated likelihood-ratio test :math:`r^*` on pseudobulk samples. What all
    tests share is estimated once, from the control and up to `n_fit_perturbations` perturbations: the dispersion trend, the
    dispersions, and the block effects. Each perturbation is then tested separately, in chunks and threads. A stored screen can be
    resumed after an interruption, and perturbations can be added later. False discovery rates are controlled in three ways: within each
    perturbation :cite:p:`benjamini1995`, over the whole screen, and first over perturbations and then within the selected ones
    :cite:p:`benjamini2014`, by Simes' test of "this perturbation has no effect" :cite:p:`simes1986`. Not all arguments can be
    combined: see :doc:`/combinations`.

    Parameters
    ----------
    adata
        Cells x genes with raw counts: in memory, backed, dask, lazily read, or the path of an h5ad file or zarr store, which is read in
        chunks. Or samples x genes, such as the result of :func:`~nbcompare.pp.pseudobulk`. Not changed.
    groupby
        Column of `.obs` with the perturbations. Several columns define one perturbation per combination of their values.
    reference
        Name of the control. A list such as `["NT1", "NT2"]` joins these names into one control, named `"NT1 + NT2"`.
    replicate_key
        Column of `.obs` that identifies the replicate (batch, well, guide). Several columns define one replicate per combination. None
        if each row is already a sample.
    block_key
        Column of `.obs` with the blocking factor that perturbations and control share, such as the batch. Perturbations are then
        compared within blocks.
    guide_key
        Column of `.obs` with the guide, if guides are replicates. The same as one more column in `replicate_key`.
    layer
        Layer with raw counts. None is `.X`. `.raw` is never used.
    size_factors
        Size factors of the samples, relative to the samples used for the shared estimates.

        - `"median_of_ratios"`, `"pooled_ratios"`, `"poscounts"` or `"total"`: see :func:`~nbcompare.pp.size_factors`.
        - A column of `.obs` that is constant within each sample.
        - An array (n_obs,), or a Series aligned by `obs_names`, if each row is a sample.
        - `"auto"`: the median of ratios if at least 10 genes are positive in all samples used for the shared estimates and half of
          them have 2 or more counts in each, otherwise `"pooled_ratios"`. Perturbations whose size factor cannot be determined are
          then not tested.
    min_cells
        Samples with fewer cells are dropped, and listed with the reason.
    min_counts
        Samples with fewer counts in total are dropped.
    min_gene_counts
        Genes with fewer counts in perturbation and control together are not tested.
    n_fit_perturbations
        Number of perturbations, evenly spaced in their order, used to estimate trend and dispersions. All if there are fewer.
    fdr
        False discovery rate at which hits are counted and perturbations are selected.
    intervals
        Store 95% confidence intervals of all log2 fold changes, about one microsecond per test. The intervals of on-target genes are
        always in `.obs`. A posterior method stores its own intervals.
    method
        Estimator of the effects. P-values and hits are the same with all three.

        - `"mom"`: method of moments :cite:p:`svensson2025`.
        - `"transformer"`: posterior of log2 fold change and dispersion by a trained network, about 10 microseconds per test and core. The
          prior is estimated for each perturbation from its genes. Quadrature is used where control and perturbation differ in
          dispersion (status `high_dispersion_group`).
        - `"quadrature"`: the same posterior by numerical integration, about ten times slower.

        See :doc:`/transformer`.
    path
        Path of a new zarr store for the result, written chunk by chunk. If the call is interrupted, repeat it: it continues where it
        stopped, and the result has the same bytes. Other input is refused. None keeps the result in memory.
    append
        Add perturbations that the finished screen at `path` does not contain. They are tested with the stored control and
        dispersions. Only `pvals_adj_global`, `pval_adj` and `selected` of the other perturbations change, because they depend on all
        tests. `adata` needs no control cells.
    dtype
        Type of effects, standard errors, scores and dispersions. P-values are float64, down to 1e-300.
    chunk_size
        Number of cells read at once from disk or dask.
    perturbations_per_chunk
        Number of perturbations tested at once and stored in one chunk. None is about 128 MB.
    n_jobs
        Number of threads. None is all cores. The result does not depend on it.
    progress
        Show progress bars.
    verbose
        Print one line about what was done. :func:`~nbcompare.get.summary` returns it later.
    prior
        Known parts of the prior. The other parts are estimated from the genes of each perturbation. Only for
        `method="transformer"` and `"quadrature"`. Keys as in :func:`~nbcompare.tl.nb_compare`.
    network
        File of weights, or the name of weights that come with the package. None is the default network. Only for
        `method="transformer"`.
    device
        Device of the network: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`. Results can differ in the last digits between devices. Only for
        `method="transformer"`.
    importance_sampling
        Correct the network's posterior by importance sampling, at about the cost of quadrature. Without it, quadrature is used where the
        network and a Gaussian approximation disagree. Only for `method="transformer"`.
    null_spread
        Estimate from the genes of each perturbation the common shift of their log2 fold changes, and how much more those of non-DE genes
        vary than their standard errors indicate. The posterior accounts for both. With False, and with fewer than 200 tested genes, the
        shift is 0 and the spread 1. Only for `method="transformer"` and `"quadrature"`.

    Returns
    -------
    Perturbations x genes. With `path` it is opened lazily, and its layers are dask arrays.

    Always:

    `.layers["logfoldchanges"]`, `.layers["lfc_se"]`
        Log2 fold change over the control, and its standard error.
    `.layers["scores"]`, `.layers["pvals"]`
        The p-value as a signed standard normal deviate, and the two-sided p-value. NaN where not tested.
    `.layers["pvals_adj"]`, `.layers["pvals_adj_global"]`
        P-values adjusted within the perturbation, and over the whole screen. The second is exact for p-values below 0.001, and otherwise
        too large by at most a fraction of 1.5e-5.
    `.layers["dispersions"]`, `.layers["status"]`
        Dispersion that the test used (posterior methods: its median), and why there is no p-value, or a warning flag.
    `.obs`
        - `n_cells`, `n_replicates`, `n_tested` (genes), `n_hits` (genes with `pvals_adj` up to `fdr`).
        - `status`, `reason`: `"ok"` and empty if a gene is tested, otherwise why none is. Perturbations whose samples were all dropped
          are the last rows, with NaN.
        - `dispersion_ratio`: dispersion relative to the other perturbations.
        - `on_target_logfoldchange`, `on_target_lfc_se`, `on_target_lfc_lower`, `on_target_lfc_upper`, `on_target_pval`: the gene with the
          name of the perturbation.
        - `pval`, `pval_adj`, `selected`: Simes' p-value of "no effect on any gene", adjusted over perturbations, and whether it is up
          to `fdr`.
    `.var`
        The columns of `adata`, and `base_mean` (mean of counts divided by size factors), `dispersion_trend`, `dispersion` (of the
        control), `n_perturbations` (with `pvals_adj` up to `fdr`).
    `.uns["nb_screen"]`
        `params`, `reference`, `samples` (with size factors), `dropped_samples`, `n_cells_excluded`, `trend`, `fdr`, `prior`,
        `status_codes`, `status_meaning`, `log_base`, `version`, `fingerprint`. Within selected perturbations, genes with
        `pvals_adj` up to `fdr["level_within_selected"]` have a false discovery rate of `fdr` on average.

    Only with `intervals` or a posterior method:

    `.layers["lfc_lower"]`, `.layers["lfc_upper"]`
        95% confidence interval of the log2 fold change, infinite on one side if a group has no counts. Posterior methods: central 95%
        interval.

    Only with a posterior method:

    `.layers["lfc_median"]`, `.layers["lfc_sd"]`, `.layers["lfc_unshrunken"]`
        Posterior median and standard deviation of the log2 fold change, and the estimate that `lfc_se` belongs to. The posterior mean is
        `logfoldchanges`.
    `.layers["null_probability"]`, `.layers["lfsr"]`, `.layers["pareto_k"]`
        Posterior probability of no change, local false sign rate :cite:p:`stephens2017`, and with `importance_sampling` its
        reliability: below 0.7 is reliable, otherwise quadrature was used.
    `.obs["prior_null_proportion"]`, `["prior_lfc_sd"]`, `["prior_mean"]`, `["prior_mean_log_sd"]`
        Prior of the perturbation. The on-target effects of `.obs` do not use it.
    `.obs["null_spread"]`, `["common_shift"]`
        Spread and common shift (log2) of the non-DE genes of the perturbation.

    Raises
    ------
    BlockingIOError
        If another process is writing to the store at `path`.
    KeyError
        If a column or layer does not exist.
    ValueError
        If the matrix does not hold counts. If the control does not exist. If rows that look like cells would be replicates. If no
        perturbation has two replicates. If blocks and perturbations are confounded. If `path` holds the screen of another call; the
        message names the differences. If arguments cannot be combined. Nothing is written then.
    FileExistsError
        If something else is at `path`.
    FileNotFoundError
        If there is nothing at a path to read, or no screen to add to.
    ImportError
        If `path` is given without dask or xarray, or the network is used without torch and safetensors.

    See Also
    --------
    nbcompare.get.nb_screen_df : Hits of a perturbation, perturbations that affect a gene, the top of the screen.

    Notes
    -----
    With an active :class:`dask.distributed.Client` dask arrays are summed on its cluster, and a screen with a `path` is computed
    there, one chunk per worker. `n_jobs` and `chunk_size` are ignored then. The files are the same.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_conditions=5, n_genes=100, n_cells=40, rng=0)
    >>> screen = nb.tl.nb_screen(adata, "condition", reference="ctrl", replicate_key="replicate", progress=False)
    >>> screen.shape
    (4, 100)
    """
    levels = reference_levels(reference, groupby)
    reference = joined_name(levels) if levels else None
    options = ScreenOptions(
        SampleOptions(
            groupby, replicate_key, block_key, None, layer, min_cells, min_counts, allow_cells_as_replicates=None
        ),
        PosteriorOptions(
            method,
            plain_prior(prior, lambda: gene_names(adata), "gene"),
            network,
            device,
            importance_sampling,
            null_spread,
        ),
        reference=reference,
        reference_levels=tuple(levels) if len(levels) > 1 else (),
        guide_key=guide_key,
        size_factors=size_factors,
        min_gene_counts=min_gene_counts,
        n_fit_perturbations=n_fit_perturbations,
        fdr=fdr,
        intervals=intervals,
        dtype=dtype,
        path=path,
        append=append,
        chunk_size=chunk_size,
        perturbations_per_chunk=perturbations_per_chunk,
        n_jobs=n_jobs,
        progress=progress,
    )
    check_options(options)
    result: ScreenResult = MemoryScreen() if path is None else ScreenStore(path)
    if isinstance(result, ScreenStore):
        check_store(result, options)
        check_genes(adata)
    data = read_screen(adata, options)
    reference = the_level(reference, data.samples.conditions)
    options = replace(options, reference=reference)
    check_prior(options.posterior.prior, len(data.var))
    requested = fingerprint(data.description, data.counts, data.var.index, options.as_stored())
    if isinstance(result, ScreenStore):
        check_run(result, requested, append=append)
    if append:
        targets = added_targets(data.samples, reference, result)
        if not len(targets):
            msg = f"Nothing is added: every perturbation with samples is in the screen at {str(path)!r} already."
            warn(msg)
            return result.read()
    else:
        targets = perturbations(data.samples, reference, options.replicates)
        if result.runs and result.runs[0]["finished"]:
            return result.read()

    warn_of_shared_names(targets, data.var.index)
    stored = result.kept("model")
    n_threads = threads_of(n_jobs)
    fit = ScreenFit.from_arrays(stored) if stored else fit_model(data, targets, options, n_threads=n_threads)
    screen = prepare(data, fit, targets, options, n_threads=n_threads)
    with result.locked():
        types = layer_types(dtype, added_layers(screen.posterior, intervals=intervals))
        if result.is_complete:
            n_rows = rows_of_a_block(perturbations_per_chunk, len(targets), len(data.var), bytes_a_test(types))
            result.begin(len(targets), requested, n_rows)
        if not stored:
            result.keep("model", fit.to_arrays())
        result.keep(
            f"samples_{result.runs[-1]['start']:09d}", sample_tables(data, screen, None if append else reference)
        )
        result.open_layers(len(data.var), types)
        blocks, client = result.blocks(), cluster_for(result)
        n_done = len(targets) - sum(rows.stop - rows.start for rows in blocks)
        with bar("comparisons", "perturbations", len(targets), done=n_done, shown=progress) as shown:
            if client is None:
                run_blocks(screen, blocks, result, n_threads=n_threads, progress=shown.update)
            else:
                run_blocks_on(client, screen, blocks, result, progress=shown.update)
        if client is None:
            adjust_over_all(result, n_threads=n_threads)
        else:
            adjust_over_all_on(client, result)
        finished = result.finish(*tables(result, screen, data.var))
    warn_of_untested(finished.obs)
    if "null_spread" in finished.obs:
        warn_of_null_spread(finished.obs["null_spread"].to_numpy(), list(finished.obs_names))
    if verbose:
        inform(finished.uns["nb_screen"]["summary"])
    return finished
