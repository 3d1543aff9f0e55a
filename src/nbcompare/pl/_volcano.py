from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import is_significant
from nbcompare.pl._panel import (
    DARK,
    MEDIUM,
    SMALL,
    call,
    check_genes,
    comparison_table,
    draw_points,
    evidence,
    hypothesis,
    label_called,
    new_panel,
    said_if_untested,
    take_shrunken,
    title_and_legend,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes


@checked
def volcano(
    adata: AnnData,
    group: str | None = None,
    *,
    split: str | None = None,
    key: str = "nb_compare",
    padj_cutoff: float = 0.05,
    lfc_cutoff: float = 0.0,
    shrunken: bool = False,
    n_top: int = 10,
    genes: Sequence[str] = (),
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot p-values against log2 fold changes, with significant genes in color.

    The dashed line is the p-value at which the false discovery rate reaches `padj_cutoff` :cite:p:`benjamini1995`.
    P-values that are too small for a floating-point number are drawn at the height of their scores. If the test is for changes smaller than a threshold
    (`alternative="less_abs"`), significant genes have one color. Genes that were not tested are not shown.

    Parameters
    ----------
    adata
        Data with stored results, or a screen.
    group
        Comparison (the compared group), or perturbation of a screen. Optional if there is only one.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    key
        Key of the results (`key_added` of the call). Ignored for a screen.
    padj_cutoff
        Genes are significant up to this adjusted p-value.
    lfc_cutoff
        Genes are significant from this absolute log2 fold change on.
    shrunken
        Show the shrunken log2 fold changes of a comparison with `shrink=True`, and apply the cut-offs to them.
    n_top
        Number of significant genes to label, smallest p-values first.
    genes
        More genes to label, by `var_names`, significant or not.
    gene_symbols
        Column of `.var` with the labels to show.
    ax
        Axes to draw on. None makes a new figure.

    Returns
    -------
    The Axes. Save the figure with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If the results, comparison, split, gene or column do not exist, or shrunken effects are not stored.
    ValueError
        If there are several comparisons or splits and none is named. If the comparison tests several coefficients together, which
        have no single log2 fold change.
    ImportError
        If matplotlib or adjustText is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.pl.volcano(adata).get_xlabel()
    'log$_2$ fold change'
    """
    genes = check_genes(adata, genes)
    table, title = comparison_table(adata, group, split, key, gene_symbols)
    axis = take_shrunken(table, shrunken)
    tested = hypothesis(adata, group, split, key)
    tested.check_effect(title, "a volcano plot")
    called = call(table, tested, padj_cutoff, lfc_cutoff)
    ax = new_panel(ax)
    if said_if_untested(ax, table, title):
        return ax
    x = table["logfoldchanges"].to_numpy()
    y = evidence(table["pvals"].to_numpy(), table["scores"].to_numpy())

    draw_points(ax, x, y, called)
    _draw_thresholds(ax, table, padj_cutoff, (lfc_cutoff, tested.threshold))

    ax.set_xlabel(axis + (f", tested: {tested.words}" if tested.beyond else ""), fontsize=MEDIUM)
    ax.set_ylabel("$-$log$_{10}$ p-value", fontsize=MEDIUM)

    ax.margins(x=0.08)
    ax.set_ylim(0, 1.1 * np.max(y[np.isfinite(y)], initial=1.0))
    ax.locator_params(axis="y", integer=True)
    title_and_legend(ax, title)
    label_called(ax, x, y, table, called, n_top, genes)
    return ax


def _draw_thresholds(ax: Axes, table: pd.DataFrame, padj_cutoff: float, fold_changes: tuple[float, float]) -> None:
    """The p-value up to which the false discovery rate admits (its first step if none is admitted), and the fold changes: asked for here, tested."""
    n_admitted = max(is_significant(table["pvals_adj"], padj_cutoff).sum(), 1)
    limit = padj_cutoff * n_admitted / max(table["pvals"].notna().sum(), 1)
    style: dict[str, Any] = {"color": DARK, "linewidth": 0.6, "linestyle": (0, (4, 3)), "zorder": 1}
    height = -np.log10(max(limit, 1e-300))
    ax.axhline(height, gid="padj_cutoff", **style)
    ax.axvline(0, color=DARK, linewidth=0.4, zorder=1)
    for fold_change, gid in zip(fold_changes, ("lfc_cutoff", "lfc_threshold"), strict=True):
        for x in (-fold_change, fold_change) if fold_change > 0 else ():
            ax.axvline(x, gid=gid, **style)
    ax.annotate(
        f"{100 * padj_cutoff:g}%\nFDR",
        (1.01, height),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=SMALL - 1,
        color=DARK,
    )
