from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbcompare._arguments import checked
from nbcompare.pl._panel import (
    DARK,
    MEDIUM,
    call,
    check_genes,
    comparison_table,
    draw_points,
    hypothesis,
    label_called,
    new_panel,
    said_if_untested,
    take_shrunken,
    title_and_legend,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


@checked
def ma(
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
    """Plot log2 fold changes against mean counts, with significant genes in color.

    If most points do not lie around zero, the size factors are wrong, or many genes change in one direction. If the test is for changes smaller than a threshold
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
    >>> nb.pl.ma(adata).get_xscale()
    'log'
    """
    genes = check_genes(adata, genes)
    table, title = comparison_table(adata, group, split, key, gene_symbols)
    axis = take_shrunken(table, shrunken)
    tested = hypothesis(adata, group, split, key)
    tested.check_effect(title, "an MA plot")
    called = call(table, tested, padj_cutoff, lfc_cutoff)
    ax = new_panel(ax)
    if said_if_untested(ax, table, title):
        return ax
    mean = table["base_mean"].to_numpy()
    x = np.where(mean > 0, mean, np.nan)
    y = table["logfoldchanges"].to_numpy()

    ax.set_xscale("log")
    draw_points(ax, x, y, called)
    ax.axhline(0, color=DARK, linewidth=0.6, zorder=1)
    for fold_change, gid in ((lfc_cutoff, "lfc_cutoff"), (tested.threshold, "lfc_threshold")):
        for height in (-fold_change, fold_change) if fold_change > 0 else ():
            ax.axhline(height, color=DARK, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1, gid=gid)

    ax.set_xlabel("mean of normalized counts", fontsize=MEDIUM)
    ax.set_ylabel(axis + (f"\ntested: {tested.words}" if tested.beyond else ""), fontsize=MEDIUM)
    ax.margins(0.06)
    title_and_legend(ax, title)
    label_called(ax, x, y, table, called, n_top, genes)
    return ax
