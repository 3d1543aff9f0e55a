from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import (
    POSTERIOR,
    SHRUNKEN,
    check_symbols,
    chosen_columns,
    chosen_splits,
    is_significant,
    stored_comparison,
    stored_results,
)
from nbcompare.get._hypothesis import hypothesis_of, order_of_evidence
from nbcompare.get._screen_arrays import read_var

if TYPE_CHECKING:
    from anndata import AnnData

Style = Literal["scanpy", "pertpy", "deseq2"]

# stored word -> column of each style, in the order of the columns; the comparison itself stands in `group`
COLUMNS: dict[str, dict[str, str]] = {
    "scanpy": {
        "names": "names",
        "scores": "scores",
        "logfoldchanges": "logfoldchanges",
        "pvals": "pvals",
        "pvals_adj": "pvals_adj",
        "lfc_se": "lfc_se",
        "lfc_lower": "lfc_lower",
        "lfc_upper": "lfc_upper",
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
        "lfc_lower": "lfcLower",
        "lfc_upper": "lfcUpper",
        "scores": "stat",
        "pvals": "pvalue",
        "pvals_adj": "padj",
    },
}

OF_SHRUNKEN = {
    "pertpy": dict(zip(SHRUNKEN, ("log_fc_shrunk", "log_fc_shrunk_se", "lfsr", "s_value"), strict=True)),
    "deseq2": dict(zip(SHRUNKEN, ("log2FoldChangeShrunk", "lfcSEShrunk", "lfsr", "svalue"), strict=True)),
}


@checked
def nb_compare_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    split: str | Sequence[str] | None = None,
    key: str = "nb_compare",
    padj_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    style: Style = "scanpy",
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Return the results of :func:`nbcompare.tl.nb_compare` as a table, smallest p-value first.

    P-values that are too small for a floating-point number are zero. They are ordered by their absolute scores.

    Parameters
    ----------
    adata
        Data with stored results.
    group
        One comparison (the compared group), several, or None for all. With several, the first column is `group`.
    split
        One split (cell type) of a comparison with `split_by`, several, or None for all. With several, the first column is `split`.
    key
        Key of the results (`key_added` of the call).
    padj_cutoff
        Return genes with an adjusted p-value of at most this.
    log2fc_min
        Return genes with a log2 fold change above this.
    log2fc_max
        Return genes with a log2 fold change below this.
    style
        Names of the columns. `"scanpy"`: `names`, `scores`, `logfoldchanges` (log2), `pvals`, `pvals_adj`, and in addition to
        scanpy's `lfc_se`, `lfc_lower`, `lfc_upper` (log2; bounds of the 95% interval), `base_mean`, `dispersions`, `status`
        (words, joined by `|`), and of a posterior `lfc_unshrunken`, `lfc_median`, `lfc_sd` (log2), `null_probability`, `lfsr`, `pareto_k`.
        With `shrink` all styles have the shrunken log2 fold change, its standard deviation, local false sign rate and s-value: here
        `lfc_shrunken`, `lfc_shrunken_se`, `lfsr`, `svalue`.
        `"pertpy"`: `variable`, `log_fc`, `p_value`, `adj_p_value`, `contrast`. `"deseq2"`: `baseMean`,
        `log2FoldChange`, `lfcSE`, `lfcLower`, `lfcUpper`, `stat`, `pvalue`, `padj`, with the genes as index.
        `scores`, also as `stat`, is the p-value as a signed normal deviate. It is not the log fold change over its standard error,
        and far from zero the two differ much.
    gene_symbols
        Column of `.var` to add to the table, such as gene symbols if `var_names` are identifiers.

    Returns
    -------
    One row per gene and comparison. Genes that were not tested have NaN as p-value and come last.

    Raises
    ------
    KeyError
        If the results, comparison, split or column do not exist. The message lists what exists.
    ValueError
        If the style is unknown, or a split is named where there are none; if `gene_symbols` has the name of a column of the table;
        if fold changes are limited in a test of several coefficients, which has none.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.nb_compare_df(adata, "treated_1", padj_cutoff=0.05).columns[:5].to_list()
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    """
    results = stored_results(adata, key)
    symbols = None if gene_symbols is None else read_var(adata, gene_symbols)
    several = group is None or not isinstance(group, str)
    chosen = chosen_columns(results, group, split, key)
    splits = [] if isinstance(split, str) else chosen_splits(results, split, key)

    parts = []
    for column in chosen:
        if log2fc_min is not None or log2fc_max is not None:
            hypothesis_of(results, column).check_effect(column.group, "a limit by log2fc_min or log2fc_max")
        table = stored_comparison(adata, column, key)
        keep = np.ones(len(table), bool)
        if padj_cutoff is not None:
            keep &= is_significant(table["pvals_adj"], padj_cutoff).to_numpy()
        if log2fc_min is not None:
            keep &= (table["logfoldchanges"] > log2fc_min).to_numpy()
        if log2fc_max is not None:
            keep &= (table["logfoldchanges"] < log2fc_max).to_numpy()
        kept = table[keep]
        parts.append(kept.iloc[order_of_evidence(kept["pvals"].to_numpy(), kept["scores"].to_numpy())])
    gene = np.concatenate([part.index for part in parts])
    table = pd.concat(parts, ignore_index=True)
    n_rows = [len(part) for part in parts]
    groups = [column.group for column in chosen]
    table["group"] = pd.Categorical(np.repeat(groups, n_rows), categories=list(dict.fromkeys(groups)))
    if splits:
        table["split"] = pd.Categorical(np.repeat([column.split for column in chosen], n_rows), categories=splits)

    columns = COLUMNS[style]
    if style == "scanpy":  # what only a posterior or shrunken effects have, before the status
        columns = with_posterior(columns, [w for w in (SHRUNKEN if "svalue" in table else POSTERIOR) if w in table])
    elif "svalue" in table:
        columns = columns | OF_SHRUNKEN[style]
    leading = ["split"] if splits else []
    leading += ["group"] if several and "group" not in columns else []
    if style == "deseq2":
        table = table.set_index("names").rename_axis(None)
    table = table[[*leading, *columns]].rename(columns=columns)
    check_symbols(gene_symbols, table.columns)
    return table if symbols is None else table.assign(**{str(gene_symbols): symbols[gene]})


def with_posterior(columns: Mapping[str, str], stored_names: Sequence[str]) -> dict[str, str]:
    """Columns of scanpy's style with what a posterior or shrunken effects add, before the status."""
    before = {word: name for word, name in columns.items() if word != "status"}
    return before | {word: word for word in stored_names} | {"status": "status"}
