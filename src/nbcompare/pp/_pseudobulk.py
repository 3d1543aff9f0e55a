"""Cells to samples."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique

from nbcompare._anndata import SampleTable, column_names, in_memory, read_samples, sum_samples, summary_of_samples
from nbcompare._anndata.rows import COLUMNS, with_cells
from nbcompare._anndata.sample_table import cells_known
from nbcompare._arguments import checked
from nbcompare._counts.chunks import CHUNK_SIZE
from nbcompare._messages import inform


@checked
def pseudobulk(
    adata: AnnData,
    groupby: str | Sequence[str],
    *,
    replicate_key: str | Sequence[str],
    layer: str | None = None,
    min_cells: int = 10,
    min_counts: float = 0,
    chunk_size: int = CHUNK_SIZE,
    verbose: bool = True,
) -> AnnData:
    r"""Sum the counts of the cells of each condition and replicate.

    Cells of one replicate share its biology and handling, so they are not replicates of a group. The sample, the sum of its cells, is the
    replicate :cite:p:`squair2021`.

    The matrix is read once, in memory, on disk (`backed="r"`, `anndata.experimental.read_lazy`) or in dask chunks. Sums are exact.
    Cells with a missing value in one of the columns are excluded and counted.

    Parameters
    ----------
    adata
        Cells x genes, raw counts. Not changed.
    groupby
        Column of `.obs` with the groups (conditions). Several columns define one group per combination.
    replicate_key
        Column of `.obs` that identifies the biological replicate (donor, animal, well, guide). Several columns define one replicate per
        combination.
    layer
        Layer with the raw counts, `.X` if None. `.raw` is never used.
    min_cells
        Samples with fewer cells are dropped.
    min_counts
        Samples with fewer counts in total are dropped. Samples without counts are always dropped.
    chunk_size
        Number of cells read at once from disk or dask. The memory needed is twice the result and about `chunk_size` x n_vars values.
    verbose
        Print one line about the number of samples, and of dropped samples with the reason.

    Returns
    -------
    Samples x genes, float64 sums in `.X`, `.var` as in `adata`, ordered by condition, then replicate.

    `.obs`
        The columns `groupby` and `replicate_key`, every other column that is constant within each sample and has a name of its own,
        `psbulk_cells` (number of cells) and `psbulk_counts` (sum of counts).
    `.uns["pseudobulk"]`
        The arguments; `dropped_samples`, a table with the `reason` for each; `n_cells_excluded`, the number of cells
        without condition or without replicate.

    Raises
    ------
    KeyError
        If a column or layer does not exist.
    ValueError
        If the matrix does not hold counts (negative, fractional, log-transformed or missing values), naming the layer
        that does; if no cell or no sample is left; if `groupby` and `replicate_key` are the same.

    See Also
    --------
    size_factors : Size factors of the samples.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, n_cells=40, rng=0)
    >>> pdata = nb.pp.pseudobulk(adata, "condition", replicate_key="replicate")
    >>> bool(pdata.X.sum() == adata.X.sum())
    True
    >>> bool(pdata.obs["psbulk_cells"].sum() == adata.n_obs)
    True
    """
    samples = with_cells(adata, read_samples(adata, groupby, replicate_key=replicate_key), row_is_sample=False)
    samples, counts = sum_samples(
        adata, samples, layer=layer, min_cells=min_cells, min_counts=min_counts, chunk_size=chunk_size
    )
    obs = _constant_columns(in_memory(adata.obs), samples)
    known = cells_known(samples.table)
    n_cells = samples.table["n_cells"].to_numpy()
    obs = obs.drop(columns=[name for name in COLUMNS if name in obs.columns])
    obs["psbulk_cells"] = n_cells if known.all() else np.where(known, n_cells, np.nan)
    obs["psbulk_counts"] = samples.table["counts"].to_numpy()
    settings = {
        "groupby": column_names(groupby),
        "replicate_key": column_names(replicate_key),
        "layer": layer,
        "min_cells": min_cells,
        "min_counts": min_counts,
        "dropped_samples": samples.dropped,
        "n_cells_excluded": {reason: samples.n_cells_excluded[reason] for reason in ("no_condition", "no_replicate")},
        "version": version("nbcompare"),
    }
    if verbose:
        tables = {"samples": obs, "dropped_samples": samples.dropped, "n_cells_excluded": settings["n_cells_excluded"]}
        inform(summary_of_samples(tables, adata.n_vars))
    return AnnData(counts, obs=obs, var=in_memory(adata.var).copy(), uns={"pseudobulk": settings})


def _constant_columns(obs: pd.DataFrame, samples: SampleTable) -> pd.DataFrame:
    """The obs columns with one value, or none, in all cells of each sample."""
    used = samples.codes >= 0
    sample = samples.codes[used]
    first_cell = np.empty(len(samples.table), dtype=np.int64)
    first_cell[sample[::-1]] = np.flatnonzero(used)[::-1]
    constant = []
    for name in obs.columns[~obs.columns.duplicated(keep=False)]:
        try:
            values = pd.factorize(obs[name])[0]
        except TypeError:  # lists, dicts or arrays, which cannot be compared
            continue
        if (values[used] == values[first_cell][sample]).all():
            constant.append(name)
    table = obs[constant].iloc[first_cell].copy()
    for name in table.select_dtypes("category"):
        table[name] = table[name].cat.remove_unused_categories()
    table.index = make_index_unique(pd.Index(samples.names, dtype=object))
    return table
