"""How deep each sample is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from anndata import AnnData

from nbcompare._anndata import check_writable, column_names, numbers_of, read_obs, sum_counts
from nbcompare._arguments import checked
from nbcompare._counts import size_factors as exposure
from nbcompare._counts.size_factors import Method
from nbcompare._messages import warn


@checked
def size_factors(
    pdata: AnnData,
    *,
    method: Method | str | np.ndarray = "auto",
    groupby: str | Sequence[str] | None = None,
    layer: str | None = None,
    key_added: str = "size_factors",
    copy: bool = False,
) -> AnnData | None:
    r"""Estimate size factors: the sequencing depth of each sample relative to the others.

    Size factors :math:`l_i` multiply the means, :math:`m_i = l_i \lambda`, and have geometric mean 1.

    `"median_of_ratios"`
        Median over genes of the sample's count over the gene's geometric mean, genes positive in all samples
        :cite:p:`anders2010`. Robust to a few genes with large changes.
    `"pooled_ratios"`
        Counts of each group (`groupby`), pooled, over those expected at rates that all groups have in common. Rare genes are
        summed until ratios can be formed, and genes with an outlying ratio get no weight. For sparse tables, where few genes
        are positive in all samples, and where depth differs between groups.
    `"poscounts"`
        The median of ratios with zeros left out of the sum of logs, though not of its divisor, and the median over the genes
        positive in the sample :cite:p:`love2014`. It underestimates differences in depth of sparse samples, of which it warns.
    `"total"`
        Total counts. For whole transcriptomes; on a small panel one strong gene shifts all the others.
    `"tmm"`
        Total counts times the trimmed mean of log ratios to a reference sample :cite:p:`robinson2010`. For bulk-like
        tables, not for sparse ones.
    `"tmmwsp"`
        The same with singleton pairing: counts of genes that one of the two samples lacks are paired by size and used too,
        as in edgeR. For sparser tables.
    `"auto"`
        The median of ratios where at least 10 genes are positive in all samples and half of these have 2 or more counts in
        each sample; else the pooled ratios.

    Parameters
    ----------
    pdata
        Samples x genes, raw counts, as from :func:`~nbcompare.pp.pseudobulk`.
    method
        One of the names above, the name of an `.obs` column, or one positive number for each sample. A Series is aligned by
        its labels (`obs_names`), an array is taken by position.
    groupby
        Column of `.obs`, or several, with the groups that `"pooled_ratios"` pools: those that are compared, as
        :func:`~nbcompare.tl.nb_compare` does. If None, each sample is a group of its own, which is less precise.
    layer
        Layer with the raw counts, `.X` if None.
    key_added
        Name under which the result is stored.
    copy
        Return a copy and leave `pdata` as it is.

    Returns
    -------
    None, or the copy if `copy`. Adds

    `.obs[key_added]`
        The size factors, float64, geometric mean 1.
    `.uns[key_added]`
        `method`, the requested one (`"given"` for numbers); `method_used`; `layer`; `groupby`, if given.

    Raises
    ------
    ValueError
        If the matrix does not hold counts, a sample has none, no gene is positive in all samples (median of ratios),
        or given factors are not finite and positive.
    KeyError
        If `groupby` is not a column, `method` is neither a method nor a column, or there is no such layer.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, n_cells=40, rng=0)
    >>> pdata = nb.pp.pseudobulk(adata, "condition", replicate_key="replicate")
    >>> nb.pp.size_factors(pdata)
    >>> pdata.uns["size_factors"]["method_used"]
    'median_of_ratios'
    """
    check_writable(pdata, "nbcompare.pp.size_factors", copy=copy)
    if isinstance(method, str) and method in get_args(Method):
        counts = sum_counts(pdata, np.arange(pdata.n_obs), pdata.n_obs, layer=layer).counts
        factors, used = exposure.size_factors(counts, method, None if groupby is None else _groups(pdata, groupby))
        if used == "poscounts" and (text := exposure.follows_depth(factors, counts.sum(axis=1))):
            warn(text)
    elif isinstance(method, str):
        factors, used = _given(pdata, _column(pdata, method)), "given"
    else:
        needed = f"one is needed for each of the {pdata.n_obs} samples."
        factors, used = _given(pdata, numbers_of(method, {"sample": pdata.obs_names}, "method", needed)), "given"
    target = pdata.copy() if copy else pdata
    target.obs[key_added] = factors
    target.uns[key_added] = {
        "method": str(method) if isinstance(method, str) else "given",
        "method_used": used,
        "layer": layer,
    }
    if groupby is not None:
        target.uns[key_added]["groupby"] = column_names(groupby)
    return target if copy else None


def _given(pdata: AnnData, values: np.ndarray) -> np.ndarray:
    exposure.check_factors(values, "method", list(map(str, pdata.obs_names)))
    return exposure.given_factors(values, pdata.n_obs)


def _groups(pdata: AnnData, groupby: str | Sequence[str]) -> np.ndarray:
    names = column_names(groupby)
    return read_obs(pdata, names).groupby(names, observed=True, dropna=False, sort=False).ngroup().to_numpy()


def _column(pdata: AnnData, name: str) -> np.ndarray:
    if name not in pdata.obs.columns:
        msg = (
            f"{name!r} is neither a method ({', '.join(get_args(Method))}) nor a column of .obs "
            f"({', '.join(map(str, pdata.obs.columns))})."
        )
        raise KeyError(msg)
    column = read_obs(pdata, [name])[name]
    if column.dtype.kind not in "biuf":
        msg = f"The column {name!r} of .obs holds {column.dtype}, but size factors are numbers."
        raise ValueError(msg)
    return column.to_numpy(dtype=np.float64)
