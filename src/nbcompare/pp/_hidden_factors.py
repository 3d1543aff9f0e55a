"""Hidden factors of samples, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import check_writable, column_names, read_obs, sum_counts
from nbcompare._arguments import checked
from nbcompare._counts.size_factors import size_factors as measure
from nbcompare._messages import warn
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.hidden.compare import LEAST_DEGREES, fit_hidden, largest_number
from nbcompare._nb.hidden.dataset import HiddenData, group_data
from nbcompare._nb.hidden.samples import chosen_number, sample_factors
from nbcompare._nb.two_group.dataset_fit import fit_shared

LEAST_GENES = 60


@checked
def hidden_factors(
    pdata: AnnData,
    groupby: str | Sequence[str],
    *,
    n_factors: Literal["auto"] | int = "auto",
    block_key: str | Sequence[str] | None = None,
    layer: str | None = None,
    min_gene_counts: float = 10,
    key_added: str = "hidden_factors",
    copy: bool = False,
) -> AnnData | None:
    """Estimate directions in which samples differ for reasons that no column names.

    Samples of one group differ by more than independent genes would: cell state, handling or genetic background change many genes
    together. These directions are estimated from variance-stabilized residuals of all samples.

    To test with them, prefer `hidden_factors` of :func:`~nbcompare.tl.nb_compare`: it accounts for the factors being estimated.
    The columns written here are for figures, and for designs of other methods. See :doc:`/hidden_variation`.

    Parameters
    ----------
    pdata
        Samples x genes, raw counts, as from :func:`~nbcompare.pp.pseudobulk`.
    groupby
        Column of `.obs` with the conditions, or several columns.
    n_factors
        Number of factors. `"auto"` estimates it from directions that are left out in turn; it may be 0.
    block_key
        Column of `.obs` with the blocking factor (donor, batch), or several columns.
    layer
        Layer with the raw counts, `.X` if None.
    min_gene_counts
        Genes with fewer counts in all samples together are not used.
    key_added
        Prefix of the results.
    copy
        Return a copy and leave `pdata` as it is.

    Returns
    -------
    None, or with `copy` the copy. Adds the following.

    `.obs["hidden_factors_1"]`, `..._2`, ...
        Each factor, mean zero. Differences between groups are those that the loadings of the genes suggest.
    `.varm["hidden_factors_loadings"]`
        (n_vars, n_factors), log2 units that one unit of the factor adds; NaN for genes that are not used.
    `.uns["hidden_factors"]`
        `n_factors`; `variance_share` of each residual direction; `score` of 0, 1, ... factors: the log of the effect that is needed
        for p = 0.001; `groupby`, `block_key`, `layer`.

    Raises
    ------
    KeyError
        If a column or layer does not exist.
    ValueError
        If the matrix does not hold counts, or fewer than 6 residual degrees of freedom are left, or too few genes have counts.

    See Also
    --------
    nbcompare.tl.nb_compare : Comparisons adjusted for hidden factors.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=300, n_cells=20, n_replicates=5, rng=0)
    >>> pdata = nb.pp.pseudobulk(adata, "condition", replicate_key="replicate")
    >>> nb.pp.hidden_factors(pdata, "condition", n_factors=1)
    >>> pdata.obs["hidden_factors_1"].shape
    (10,)
    """
    check_writable(pdata, "nbcompare.pp.hidden_factors", copy=copy)
    group = _codes(pdata, groupby)
    block = None if block_key is None else _codes(pdata, block_key)
    counts = sum_counts(pdata, np.arange(pdata.n_obs), pdata.n_obs, layer=layer).counts
    genes = np.flatnonzero(counts.sum(axis=0) >= max(min_gene_counts, 1))
    data = _data(
        np.ascontiguousarray(counts[:, genes].T), measure(counts, "auto", group)[0], group, block, min_gene_counts
    )
    most = largest_number(*data.design.shape)
    _refuse(data, most, n_factors)
    model = fit_hidden(data, None if n_factors == "auto" else int(n_factors))
    k = chosen_number(model)
    if k == 0:
        warn("No hidden factors were found: the residuals of genes are independent as far as these samples show.")
    found = sample_factors(model, group, k)
    loadings = np.full((pdata.n_vars, k), np.nan)
    loadings[genes] = found.loadings / np.log(2)
    target = pdata.copy() if copy else pdata
    for name in [name for name in target.obs if _is_factor(name, key_added)]:
        del target.obs[name]
    for j in range(k):
        target.obs[f"{key_added}_{j + 1}"] = found.factors[:, j]
    target.varm[f"{key_added}_loadings"] = loadings
    target.uns[key_added] = {
        "n_factors": k,
        "variance_share": model.factors.eigenvalues / model.factors.eigenvalues.sum(),
        "score": model.held_out.score,
        "groupby": column_names(groupby),
        "block_key": column_names(block_key),
        "layer": layer,
    }
    return target if copy else None


def _is_factor(name: str, key: str) -> bool:
    return name.startswith(f"{key}_") and name.removeprefix(f"{key}_").isdigit()


def _codes(pdata: AnnData, columns: str | Sequence[str]) -> np.ndarray:
    """Group of every sample, 0, 1, ... in order of appearance."""
    names = column_names(columns)
    table = read_obs(pdata, names)
    if table[names].isna().any().any():
        msg = f"{', '.join(map(repr, names))} has missing values in .obs. Remove these samples first."
        raise ValueError(msg)
    return pd.factorize(table.groupby(names, observed=True, sort=False).ngroup())[0].astype(np.intp)


def _data(
    counts: np.ndarray, factors: np.ndarray, group: np.ndarray, block: np.ndarray | None, min_gene_counts: float
) -> HiddenData:
    pseudobulk = Pseudobulk(counts, factors, group, block)
    n_groups = pseudobulk.n_groups
    pairs = np.stack([np.zeros(max(n_groups - 1, 1), np.int64), np.arange(1, max(n_groups, 2))], axis=1)
    shared = fit_shared(pseudobulk, pairs[: n_groups - 1], min_gene_counts=min_gene_counts)
    return group_data(counts, factors[None, :], group, block, shared.trend, shared.dispersion_ratio[group])


def _refuse(data: HiddenData, most: int, n_factors: str | int) -> None:
    n, p = data.design.shape
    if most == 0:
        msg = (
            f"{n} samples in {p} groups and blocks leave {n - p} residual degrees of freedom, but hidden factors need {LEAST_DEGREES}. "
            "Add replicates."
        )
        raise ValueError(msg)
    if len(data.counts) < LEAST_GENES:
        msg = f"{len(data.counts)} genes have enough counts, but hidden factors need {LEAST_GENES}. Lower min_gene_counts."
        raise ValueError(msg)
    if n_factors != "auto" and int(n_factors) > most:
        msg = f"n_factors is {n_factors}, but these {n} samples allow {most} at most. Use n_factors='auto' or {most}."
        raise ValueError(msg)
