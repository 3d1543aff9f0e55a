"""A whole screen: every perturbation against the control, gene by gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from nbcompare._counts.chunks import BLOCK_SIZE
from nbcompare._messages import inform, warn
from nbcompare.tl._posterior.compare import check_prior, warn_of_null_spread
from nbcompare.tl._posterior.prior_fields import plain_prior
from nbcompare.tl._progress import bar
from nbcompare.tl._screen.fit import ScreenFit, fit_model
from nbcompare.tl._screen.options import (
    EstimateMethod,
    as_stored_params,
    check_options,
    check_run,
    check_store,
    threads_of,
)
from nbcompare.tl._screen.run import added_layers, adjust_over_all, prepare, run_blocks, warn_of_shared_names
from nbcompare.tl._screen.run_dask import adjust_over_all_on, cluster_for, run_blocks_on
from nbcompare.tl._screen.samples import check_genes, gene_names, read_screen, replicates
from nbcompare.tl._screen.tables import sample_tables, tables, warn_of_untested
from nbcompare.tl._screen.targets import added_targets, perturbations, rows_of_a_block


@checked
def nb_screen(
    adata: AnnData | str | PathLike,
    groupby: str | Sequence[str],
    *,
    reference: Level | Sequence[Level] | None = None,
    replicate_key: str | Sequence[str] | None = None,
    block_key: str | Sequence[str] | None = None,
    guide_key: str | Sequence[str] | None = None,
    layer: str | None = None,
    path: str | PathLike | None = None,
    append: bool = False,
    size_factors: str | Sequence[float] = "auto",
    min_cells: int = 10,
    min_counts: float = 0,
    min_gene_counts: float = 10,
    n_fit_perturbations: int = 200,
    fdr: float = 0.05,
    intervals: bool = False,
    method: EstimateMethod = "mom",
    prior: Mapping[str, Any] | None = None,
    network: str | PathLike[str] | None = None,
    device: str = "auto",
    importance_sampling: bool = False,
    null_spread: bool = True,
    dtype: Literal["float32", "float64"] = "float32",
    chunk_size: int = BLOCK_SIZE,
    perturbations_per_chunk: int | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
    verbose: bool = True,
) -> AnnData:
    r"""Compare every perturbation of a screen with the control, from cells that may not fit in memory to a result that may not.

    The statistics are those of :func:`~nbcompare.tl.nb_compare`, the moderated :math:`r^*` on cells summed into replicates.
    What tests share, the trend, the dispersions, the effects of blocks and everything of the control, is fitted once, on the
    control and up to `n_fit_perturbations` perturbations. With that given, each perturbation is tested on its own: in blocks, in
    threads, on disk, again after an interruption, or later. False discoveries are controlled within each perturbation, over
    the whole screen, and first over perturbations and then within them, by Simes' test of "this perturbation does nothing"
    :cite:p:`simes1986,benjamini1995,benjamini2014`.

    Parameters
    ----------
    adata
        Cells x genes with raw counts: in memory, backed, dask, lazily read, or the path of an h5ad file or zarr store, which is
        read in pieces. Or samples x genes, as :func:`~nbcompare.pp.pseudobulk` gives them. Not changed.
    groupby
        Column of `.obs` with the perturbations; several columns give a perturbation for each combination that occurs.
    reference
        The control's name. A list of names, such as `["NT1", "NT2"]`, is one control: their cells are joined, and it is called
        `"NT1 + NT2"`.
    replicate_key
        Column of `.obs` with the independent unit: batch, well, guide; several columns give a replicate for each
        combination that occurs. None where each row is a sample.
    block_key
        Column of `.obs` with what perturbations and control share, such as the batch. Additive differences between blocks
        are taken out.
    guide_key
        Column of `.obs` with the guide, if guides are replicates: the same as one more column in `replicate_key`.
    layer
        Layer with the raw counts, `.X` if None. `.raw` is never used.
    path
        Where to write the result, a zarr store, block by block. A call that is killed, at any moment, goes on where it was
        when it is repeated, and ends with the same bytes; other input is refused. Without a path the result is in memory.
    append
        Add the perturbations that the finished screen at `path` does not have yet. They are tested with the screen's
        dispersions and control as they were; nothing of the others is computed again but `pvals_adj_global`, `pval_adj`
        and `selected`, which depend on all. `adata` needs no control cells.
    size_factors
        How deep each sample is, relative to the samples of the fit: `"median_of_ratios"`, `"pooled_ratios"` (the samples of each
        perturbation pooled, and compared with rates of the fit), `"poscounts"` or `"total"` of
        :func:`~nbcompare.pp.size_factors`; a column of `.obs`; or, where each row is a sample, an array (n_obs,), or a Series that is
        aligned by its labels (`obs_names`). `"auto"` is
        the median of ratios where at least 10 genes are positive in all samples of the fit and half of these have 2 or more
        counts in each; else the pooled ratios. Perturbations whose depth the counts do not determine are then not tested.
    min_cells
        Samples of fewer cells are dropped, and listed with the reason.
    min_counts
        Samples of fewer counts are dropped.
    min_gene_counts
        Genes with fewer counts in the perturbation and the control together are not tested.
    n_fit_perturbations
        Perturbations, evenly spaced in their order, that trend and dispersions are estimated from; all if there are fewer.
    fdr
        False discovery rate at which hits are counted and perturbations selected: adjusted p-values up to `fdr`.
    intervals
        Store 95 % confidence intervals of all log2 fold changes, the layers `lfc_lower` and `lfc_upper`, at about one microsecond
        a test. Those of the on-target genes are always in `.obs`. A posterior has intervals of its own in these layers.
    method
        `"mom"`, effects from sums :cite:p:`svensson2025`. `"transformer"`, the posterior of fold change and dispersion under a
        prior that each perturbation's own genes give, by a trained network, at some ten microseconds a test on one core and half a
        microsecond more for every replicate of the control; `"quadrature"`, the same exactly, in ten times as long. Where control and
        perturbation differ in dispersion (status `high_dispersion_group`), `"transformer"` uses quadrature, too: with a control of higher dispersion for all tests.
        Posteriors are for effects and how sure they are; p-values, and with them hits, are those of the moderated test
        with all three. See :doc:`/transformer`.
    prior
        What of the posteriors' prior is known, the rest is estimated from the genes of each perturbation: `null_proportion`, the share of
        genes in which nothing changes, `lfc_sd`, standard deviation of the others' log2 fold changes, `dispersion`, one
        number or one a gene (n_vars,), where a Series is aligned by its labels (`var_names`), and `dispersion_log_sd`, standard deviation of its natural log: by default what the trend and
        all other groups of the fit say of the gene, with either of the two given the trend's; `tail`, `"inverse_gamma"` or
        `"lognormal"`; `mean`, counts per unit of size factor, and `mean_log_sd`. Not with method `"mom"`, nor
        are the next three.
    network
        File of weights, or the name of one that comes with the package; the default is the package's own.
    device
        Where the network runs: `"auto"`, `"cpu"`, `"cuda"`, `"mps"`. Of devices the last digits differ.
    importance_sampling
        Correct the network by importance sampling, and by quadrature where that cannot be trusted, at about the cost of quadrature.
        Without, quadrature judges what network and closed form contradict each other about.
    null_spread
        Estimate, from the genes of each perturbation, the common shift of their log fold changes and how much more those of non-DE genes
        vary than their standard errors indicate, and account for both in the posterior. With `False`, and with fewer than 200
        tested genes, the shift is 0 and the spread 1. Methods `"transformer"` and `"quadrature"` only.
    dtype
        Of effects, standard errors, scores and dispersions. P-values are float64, down to 1e-300.
    chunk_size
        Cells read at once from disk or dask.
    perturbations_per_chunk
        Perturbations tested at once, and rows of a chunk on disk; by default as many as make about 128 MB.
    n_jobs
        Threads, all cores if None. The result does not depend on it.
    progress
        Show how many cells have been read, then how many perturbations compared.
    verbose
        Whether to say in one line what was done. :func:`~nbcompare.get.summary` returns the line later.

    Returns
    -------
    Perturbations x genes; with `path` opened lazily, so that its layers are dask arrays.

    `.layers["logfoldchanges"]`, `.layers["lfc_se"]`
        Log2 fold change over the control and its standard error.
    `.layers["scores"]`, `.layers["pvals"]`
        The p-value as a signed normal deviate, which is not the log fold change over its standard error; two-sided p-value, NaN
        where not tested.
    `.layers["lfc_lower"]`, `.layers["lfc_upper"]`
        With `intervals=True`: bounds of the 95 % confidence interval of the log2 fold change, infinite on the side of a group without
        counts; of a posterior those of its own central 95 % interval, with its mass at zero.
    `.layers["pvals_adj"]`
        Benjamini-Hochberg within the perturbation.
    `.layers["pvals_adj_global"]`
        Benjamini-Hochberg over the whole screen; exact for p-values below 0.001, else by up to 1.5e-5 of it too large.
    `.layers["lfc_median"]`, `.layers["lfc_sd"]`
        Of a posterior: median and standard deviation of the log2 fold change, with its mass at zero. `logfoldchanges` is then its mean, and `lfc_unshrunken` the estimate that `lfc_se` belongs to.
    `.layers["null_probability"]`, `.layers["lfsr"]`, `.layers["pareto_k"]`
        Of a posterior: probability that nothing changes; local false sign rate :cite:p:`stephens2017`; with `importance_sampling`, how far the
        network's draws can be trusted (below .7, else it is not the network that answers).
    `.layers["dispersions"]`, `.layers["status"]`
        The dispersion that the test used, of a posterior its median; why there is no p-value, or what to know beside it.
    `.obs`
        `n_cells`, `n_replicates`, `n_tested`; `status` and `reason`: `"ok"` and empty where a gene is tested, otherwise why none
        is. Perturbations whose samples were all dropped stay as rows, the last ones, with NaN; `n_hits`, genes with `pvals_adj` up to `fdr`; `dispersion_ratio`, how much
        more its replicates vary than the screen's; `on_target_logfoldchange`, `on_target_lfc_se`, `on_target_lfc_lower`,
        `on_target_lfc_upper`, `on_target_pval` of the gene that the perturbation is named after, if there is one; `pval`, that it does nothing (Simes over its
        genes); `pval_adj`, over perturbations; `selected`, that `pval_adj` is up to `fdr`. Of a posterior `prior_null_share`,
        `prior_lfc_sd`, `prior_mean` and `prior_mean_log_sd`, and of the null `null_spread` and `common_shift` (log2); the effect on target stays the estimate without prior.
    `.var`
        That of `adata`, and `base_mean`, mean of counts over size factors in the samples of the fit; `dispersion_trend`;
        `dispersion`, the control's; `n_perturbations` with `pvals_adj` up to `fdr`.
    `.uns["nb_screen"]`
        `params`, `reference`, `samples` with size factors, `dropped_samples`, `n_cells_excluded`, `trend`, `fdr`,
        `prior` (what all perturbations share of it), `status_codes`, `status_meaning`, `log_base`, `version`, `fingerprint`. Within selected perturbations, genes with
        `pvals_adj` up to `fdr["level_within_selected"]` have a false discovery rate of `fdr` on average.

    Raises
    ------
    BlockingIOError
        If another process is filling the store at `path`.
    KeyError
        If there is no such column or layer.
    ValueError
        If the matrix does not hold counts; if there is no such reference; if rows that look like cells are taken for
        replicates; if no perturbation has two replicates; if blocks and perturbations are confounded; if `path` holds
        the screen of another call, naming what differs; if `prior`, `network`, `device` or `importance_sampling` do not go with the method.
        Nothing is written then.
    FileExistsError
        If something else is at `path`.
    FileNotFoundError
        If there is nothing at a path to read, or no screen to add to.
    ImportError
        If `path` is given and dask or xarray are not installed, or the network is asked for without torch and safetensors.

    See Also
    --------
    nbcompare.get.nb_screen_df : Hits of a perturbation, movers of a gene, the top of the screen.

    Notes
    -----
    With an active :class:`dask.distributed.Client` dask arrays are summed on its cluster, and a screen with a `path` is
    compared there, each block by one worker; `n_jobs` and `chunk_size` are then the cluster's affair. The files are the same.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_conditions=5, n_genes=100, n_cells=40, rng=0)
    >>> screen = nb.tl.nb_screen(adata, "condition", reference="ctrl", replicate_key="replicate", progress=False)
    >>> screen.shape
    (4, 100)
    """
    of_reference = reference_levels(reference, groupby)
    reference = joined_name(of_reference) if of_reference else None
    params = {name: value for name, value in locals().items() if name not in ("adata", "of_reference")}
    params["prior"] = plain_prior(prior, lambda: gene_names(adata), "gene")
    if len(of_reference) > 1:
        params["reference_levels"] = of_reference
    check_options(params)
    result: ScreenResult = MemoryScreen() if path is None else ScreenStore(path)
    if isinstance(result, ScreenStore):
        check_store(result, params)
        check_genes(adata)
    data = read_screen(adata, params)
    reference = params["reference"] = the_level(reference, data.samples.conditions)
    check_prior(params["prior"], len(data.var))
    requested = fingerprint(data.description, data.counts, data.var.index, as_stored_params(params))
    if isinstance(result, ScreenStore):
        check_run(result, requested, append=append)
    if append:
        targets = added_targets(data.samples, reference, result)
        if not len(targets):
            msg = f"Nothing is added: every perturbation with samples is in the screen at {str(path)!r} already."
            warn(msg)
            return result.read()
    else:
        targets = perturbations(data.samples, reference, replicates(params))
        if result.runs and result.runs[0]["finished"]:
            return result.read()

    warn_of_shared_names(targets, data.var.index)
    stored = result.kept("model")
    n_threads = threads_of(n_jobs)
    fit = ScreenFit.from_arrays(stored) if stored else fit_model(data, targets, params, n_threads=n_threads)
    screen = prepare(data, fit, targets, params, n_threads=n_threads)
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
