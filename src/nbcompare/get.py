"""Stored arrays to tidy tables, and to the format that scanpy's plots read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from ._anndata import read_samples, sum_gene_counts
from ._nb.status import status_text

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["nb_compare_df", "nb_gene_df", "to_rank_genes_groups"]

Style = Literal["scanpy", "pertpy", "deseq2"]

MOST_RANKED = 900  # comparisons; h5ad cannot hold the header of a record array with more fields

# stored word -> column of each style, in the order of the columns; the comparison itself stands in `group`
_COLUMNS: dict[str, dict[str, str]] = {
    "scanpy": {
        "names": "names",
        "scores": "scores",
        "logfoldchanges": "logfoldchanges",
        "pvals": "pvals",
        "pvals_adj": "pvals_adj",
        "lfc_se": "lfc_se",
        "base_mean": "base_mean",
        "dispersions": "dispersions",
        "status": "status",
    },
    "pertpy": {
        "names": "variable",
        "logfoldchanges": "log_fc",
        "pvals": "p_value",
        "pvals_adj": "adj_p_value",
        "group": "contrast",
    },
    "deseq2": {
        "base_mean": "baseMean",
        "logfoldchanges": "log2FoldChange",
        "lfc_se": "lfcSE",
        "scores": "stat",
        "pvals": "pvalue",
        "pvals_adj": "padj",
    },
}


def nb_compare_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = "nb_compare",
    pval_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    style: Style = "scanpy",
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Results of :func:`nbcompare.tl.nb_compare` as a table, the smallest p-value first.

    Parameters
    ----------
    adata
        Data with stored results.
    group
        A comparison (the treated level), several, or `None` for all. For several the table has a first column
        `group`, and one comparison follows the other.
    key
        Where the results are stored, `key_added` of the call.
    pval_cutoff
        Keep genes with an adjusted p-value below.
    log2fc_min
        Keep genes with a log2 fold change above.
    log2fc_max
        Keep genes with a log2 fold change below.
    style
        Names of the columns. `"scanpy"`: `names`, `scores`, `logfoldchanges` (log2), `pvals`, `pvals_adj`, and beside
        scanpy's `lfc_se` (log2), `base_mean`, `dispersions`, `status` (words, joined by `|`).
        `"pertpy"`: `variable`, `log_fc`, `p_value`, `adj_p_value`, `contrast`. `"deseq2"`: `baseMean`,
        `log2FoldChange`, `lfcSE`, `stat`, `pvalue`, `padj`, with the genes as index.
    gene_symbols
        Column of `.var` to add to the table, for instance the symbols where `var_names` are identifiers.

    Returns
    -------
    One row for each gene and comparison. Genes that were not tested have no p-value (NaN) and come last.

    Raises
    ------
    KeyError
        If there are no such results, comparison or column; the message lists what there is.
    ValueError
        If the style is unknown.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.nb_compare_df(adata, "treated_1", pval_cutoff=0.05).columns[:5].to_list()
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    """
    if style not in get_args(Style):
        msg = f"style is {style!r}; choose one of {', '.join(map(repr, get_args(Style)))}."
        raise ValueError(msg)
    results = _results(adata, key)
    if gene_symbols is not None and gene_symbols not in adata.var:
        msg = f"gene_symbols is {gene_symbols!r}, which is no column of .var; there are: {_listed(adata.var.columns)}."
        raise KeyError(msg)
    several = group is None or not isinstance(group, str)
    groups = _groups(results, group, key)

    parts = []
    for name in groups:
        table = _comparison(adata, results, name, key)
        if gene_symbols is not None:
            table[gene_symbols] = adata.var[gene_symbols].to_numpy()
        keep = np.ones(len(table), bool)
        if pval_cutoff is not None:
            keep &= (table["pvals_adj"] < pval_cutoff).to_numpy()
        if log2fc_min is not None:
            keep &= (table["logfoldchanges"] > log2fc_min).to_numpy()
        if log2fc_max is not None:
            keep &= (table["logfoldchanges"] < log2fc_max).to_numpy()
        parts.append(table[keep].sort_values("pvals", kind="stable", na_position="last"))
    table = pd.concat(parts, ignore_index=True)
    table["group"] = pd.Categorical(np.repeat(groups, [len(part) for part in parts]), categories=groups)

    columns = _COLUMNS[style]
    leading = ["group"] if several and "group" not in columns else []
    extra = [] if gene_symbols is None else [gene_symbols]
    if style == "deseq2":
        table = table.set_index("names").rename_axis(None)
    return table[[*leading, *columns, *extra]].rename(columns=columns)


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
    results = _results(adata, key)
    if gene not in adata.var_names:
        msg = f"There is no gene {gene!r} in var_names.{_close(gene, adata.var_names)}"
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


def to_rank_genes_groups(adata: AnnData, key: str = "nb_compare", *, key_added: str = "rank_genes_groups") -> None:
    """Write stored results in scanpy's format, for `sc.get.rank_genes_groups_df` and `sc.pl.rank_genes_groups_*`.

    Writes `.uns[key_added]`: `params` and the record arrays `names`, `scores`, `logfoldchanges` (log2), `pvals` and
    `pvals_adj`, one field for each comparison, the highest score first. A gene that was not tested has the score 0,
    between the two directions as in scanpy's own results, but keeps NaN for its p-values.

    Parameters
    ----------
    adata
        Data with stored results.
    key
        Where the results are stored, `key_added` of the call.
    key_added
        Where to write.

    Raises
    ------
    KeyError
        If there are no such results.
    ValueError
        If there are more than 900 comparisons: scanpy's format has one field each, and h5ad cannot write more.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.to_rank_genes_groups(adata)
    >>> adata.uns["rank_genes_groups"]["names"].dtype.names
    ('treated_1',)
    """
    results = _results(adata, key)
    groups = _groups(results, None, key)
    if len(groups) > MOST_RANKED:
        msg = (
            f"{key!r} holds {len(groups)} comparisons; scanpy's format takes one field each and h5ad files hold about "
            f"{MOST_RANKED} of them. Read the stored arrays with nbcompare.get.nb_compare_df instead."
        )
        raise ValueError(msg)
    stored = {
        word: np.asarray(adata.varm[f"{key}_{word}"]) for word in ("scores", "logfoldchanges", "pvals", "pvals_adj")
    }
    stored["scores"] = np.nan_to_num(stored["scores"], nan=0.0)
    order = np.argsort(-stored["scores"], axis=0, kind="stable")
    columns: dict[str, np.ndarray] = {"names": adata.var_names.to_numpy(object)[order]}
    columns |= {word: np.take_along_axis(values, order, axis=0) for word, values in stored.items()}
    kinds = {"names": "O", "scores": "f4", "logfoldchanges": "f4", "pvals": "f8", "pvals_adj": "f8"}

    params = results["params"]
    ranked: dict[str, Any] = {
        "params": {
            "groupby": params["groupby"],
            "reference": results["reference"],
            "method": f"nb_compare: {params.get('method')}, {params.get('test')}",
            "use_raw": False,
            "layer": params.get("layer"),
            "corr_method": "benjamini-hochberg",
        }
    }
    for word, kind in kinds.items():
        ranked[word] = np.rec.fromarrays(list(columns[word].T), dtype=[(name, kind) for name in groups])
    adata.uns[key_added] = ranked


def _results(adata: AnnData, key: str) -> Mapping[str, Any]:
    """What `.uns` holds of a call, or an error that lists the keys of all calls."""
    found = [
        k for k, v in adata.uns.items() if isinstance(v, Mapping) and "comparisons" in v and f"{k}_pvals" in adata.varm
    ]
    if key not in found:
        there = f"there are: {_listed(found)}" if found else "there are none: run nbcompare.tl.nb_compare first"
        msg = f"No results of nb_compare are stored as {key!r}; {there}."
        raise KeyError(msg)
    return adata.uns[key]


def _groups(results: Mapping[str, Any], group: str | Sequence[str] | None, key: str) -> list[str]:
    """Names of comparisons, all of them for None."""
    known = [str(name) for name in results["comparisons"]]
    if group is None:
        return known
    asked = [group] if isinstance(group, str) else [str(name) for name in group]
    if not asked:
        msg = f"group is empty; name comparisons of {key!r}, or give None for all: {_listed(known)}."
        raise ValueError(msg)
    for name in asked:
        if name not in known:
            msg = f"{key!r} has no comparison {name!r}; there are: {_listed(known)}.{_close(name, known)}"
            raise KeyError(msg)
    return asked


def _one_group(adata: AnnData, group: str | None, key: str) -> str:
    """The comparison of a figure: it may go unnamed when it is the only one."""
    known = _groups(_results(adata, key), group, key)
    if len(known) > 1:
        msg = f"{key!r} holds {len(known)} comparisons, name one of them as group: {_listed(known)}."
        raise ValueError(msg)
    return known[0]


def _comparison(adata: AnnData, results: Mapping[str, Any], name: str, key: str) -> pd.DataFrame:
    """Everything stored of one comparison, under the stored words, genes in their own order."""
    column = [str(level) for level in results["comparisons"]].index(name)
    table = {"names": adata.var_names.to_numpy(object)}
    for word in ("scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "dispersions", "dispersions_genewise"):
        if f"{key}_{word}" in adata.varm:
            table[word] = np.asarray(adata.varm[f"{key}_{word}"])[:, column]
    for word in ("base_mean", "dispersion_trend"):
        if f"{key}_{word}" in adata.var:
            table[word] = adata.var[f"{key}_{word}"].to_numpy()
    values, which = np.unique(np.asarray(adata.varm[f"{key}_status"])[:, column], return_inverse=True)
    table["status"] = np.array([status_text(int(value)) for value in values], dtype=object)[which]
    return pd.DataFrame(table)


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


def _listed(names: Sequence[str] | pd.Index, *, most: int = 20) -> str:
    """Names in a message, no more than fit."""
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"


def _close(name: str, known: Sequence[str] | pd.Index) -> str:
    """A suggestion for a mistyped name."""
    near = get_close_matches(str(name), [str(other) for other in known], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
