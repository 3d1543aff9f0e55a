from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._anndata import read_samples, sum_gene_counts

from ._stored import close, stored_results

if TYPE_CHECKING:
    from anndata import AnnData


def nb_gene_df(adata: AnnData, gene: str, *, key: str = "nb_compare") -> pd.DataFrame:
    r"""Counts of one gene in every sample of a comparison, with the mean fitted to each condition.

    The counts are summed anew from the matrix that was compared. With size factors :math:`l_i`, :math:`L = \sum l_i`
    and :math:`T` the counts of a condition (half a count if there are none), the mean is :math:`T / L` and its 95 %
    interval :math:`\exp\bigl(\log(T/L) \pm 1.96\sqrt{1/T + \phi \sum l_i^2 / L^2}\bigr)`: log-normal, by the variance
    :math:`m + \phi m^2` of the negative binomial. :math:`\phi` is the dispersion that the condition's test used; for
    the reference, and where the gene was not tested, the median over the comparisons with the noise of their groups
    divided out. Block effects are not part of the interval.

    Parameters
    ----------
    adata
        Data with stored results: the cells, or the samples, that were compared.
    gene
        Name of the gene in `var_names`.
    key
        Where the results are stored, `key_added` of the call.

    Returns
    -------
    One row for each sample: `condition`, `replicate`, `block`, `n_cells`, `counts` of the gene, `size_factor`,
    `normalized` (counts / size factor), and `fitted_mean`, `interval_low`, `interval_high` of its condition on the
    scale of `normalized`.

    Raises
    ------
    KeyError
        If there are no such results, gene, layer or columns of `.obs`.
    ValueError
        If cells were taken away after the comparison.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.nb_gene_df(adata, "gene_00")[["condition", "replicate"]].iloc[0].to_list()
    ['ctrl', 'ctrl_1']
    """
    results = stored_results(adata, key)
    if gene not in adata.var_names:
        msg = f"There is no gene {gene!r} in var_names.{close(gene, adata.var_names)}"
        raise KeyError(msg)
    position = int(np.flatnonzero(adata.var_names == gene)[0])
    table = results["samples"].reset_index(drop=True).copy()
    if "block" not in table:
        table.insert(2, "block", "")
    table["counts"] = _sum_in_samples(adata, position, table, results["params"])
    table["normalized"] = table["counts"] / table["size_factor"]

    fitted = table.groupby("condition", observed=True)[["counts", "size_factor"]].sum()
    total = fitted["counts"].clip(lower=0.5)
    squares = (table["size_factor"] ** 2).groupby(table["condition"], observed=True).sum()
    phi = _dispersions_of(fitted.index, adata.varm[f"{key}_dispersions"][position], results)
    half_width = 1.96 * np.sqrt(1 / total + phi * squares / fitted["size_factor"] ** 2)
    mean = total / fitted["size_factor"]
    table["fitted_mean"] = table["condition"].map(mean).astype(float)
    table["interval_low"] = table["condition"].map(mean * np.exp(-half_width)).astype(float)
    table["interval_high"] = table["condition"].map(mean * np.exp(half_width)).astype(float)
    return table


def _dispersions_of(conditions: pd.Index, used: np.ndarray, results: Mapping[str, Any]) -> pd.Series:
    """Dispersion of one gene in each condition, NaN if it was tested nowhere."""
    noise = np.asarray(results.get("trend", {}).get("noise", np.ones((len(used), 2))))
    of_reference = used / noise[:, 1] * noise[:, 0]
    tested = np.isfinite(used)
    otherwise = float(np.median(of_reference[tested])) if tested.any() else np.nan
    own = pd.Series(used, index=[str(name) for name in results["comparisons"]])
    return own.reindex(conditions.astype(str)).set_axis(conditions).fillna(otherwise)


def _sum_in_samples(adata: AnnData, position: int, stored: pd.DataFrame, params: Mapping[str, Any]) -> np.ndarray:
    """Counts of one gene in each of the stored samples, summed anew; refuses data that lost cells since."""
    groupby, replicate_key = params["groupby"], params.get("replicate_key")
    found = read_samples(adata, groupby, replicate_key=replicate_key)
    label = ["condition", "replicate"]
    rows = pd.MultiIndex.from_frame(stored[label].astype(str)).get_indexer(
        pd.MultiIndex.from_frame(found.table[label].astype(str))
    )
    cells = np.bincount(rows[rows >= 0], weights=found.table["n_cells"][rows >= 0], minlength=len(stored))
    whole = cells > 0 if replicate_key is None or "psbulk_cells" in adata.obs else cells == stored["n_cells"]
    if not np.all(whole):
        lost = stored[~np.asarray(whole)].iloc[0]
        msg = (
            f"{(~np.asarray(whole)).sum()} of the {len(stored)} samples that were compared have other cells now, such as "
            f"{lost['condition']!r}, {lost['replicate']!r}. Give the data that were compared, or compare these."
        )
        raise ValueError(msg)
    return sum_gene_counts(adata, position, np.append(rows, -1)[found.codes], len(stored), layer=params.get("layer"))
