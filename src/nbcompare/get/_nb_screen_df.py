from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import INTERVAL, check_symbols
from nbcompare.get._nb_compare_df import COLUMNS, Style, with_posterior
from nbcompare.get._screen_arrays import (
    check_screen,
    gene_columns,
    interval_names,
    perturbation_rows,
    pick_tests,
    posterior_names,
    read_var,
    row_blocks,
    status_texts,
)
from nbcompare.get._screen_search import Adjustment, FdrScope, ScreenHits, read_block

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def nb_screen_df(
    screen: AnnData,
    perturbation: str | Sequence[str] | None = None,
    *,
    gene: str | Sequence[str] | None = None,
    padj_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    fdr_scope: FdrScope = "perturbation",
    n_top: int | None = None,
    style: Style = "scanpy",
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    r"""Return hits of a perturbation, perturbations that affect a gene, or the top of a screen.

    Reads results of :func:`nbcompare.tl.nb_screen` in memory or lazily from disk. For one perturbation or gene only its part of the arrays
    is read. A whole screen is read in chunks, and only the requested tests are kept.

    Parameters
    ----------
    screen
        What :func:`nbcompare.tl.nb_screen` returned: perturbations by genes.
    perturbation
        A perturbation, several, or `None` for all.
    gene
        A gene of `var_names`, several, or `None` for all.
    padj_cutoff
        Return tests with an adjusted p-value of at most this. `n_hits` uses the `fdr` set in `nb_screen`.
    log2fc_min
        Return tests with a log2 fold change above this.
    log2fc_max
        Return tests with a log2 fold change below this.
    fdr_scope
        Which tests the adjusted p-values are adjusted for. `"perturbation"`: the genes of the same perturbation
        (Benjamini and Hochberg). `"global"`: all tests of the screen at once. `"hierarchical"`: first which
        perturbations do anything, then genes within them (Benjamini and Bogomolov 2014): at level :math:`q`, the
        :math:`R` of :math:`n` perturbations with an adjusted overall p-value up to :math:`q` are selected, and in
        them the genes adjusted to at most :math:`q R / n` within their perturbation are called. The column holds the
        smallest :math:`q` that calls the gene; the average over the selected perturbations of the false discovery
        proportion is then kept below `padj_cutoff`.
    n_top
        Return only the `n_top` tests with the smallest p-values. P-values of zero are ordered by their absolute scores.
    style
        Names of the columns, as in :func:`nbcompare.get.nb_compare_df`, after a first column `perturbation`
        (in `"pertpy"`, which has `contrast`, there is none). Bounds of log2 fold changes are columns where the screen has them as
        layers (`intervals=True`, or a posterior); those of the on-target genes are in `.obs`. `"scanpy"` also has what a posterior adds.
    gene_symbols
        Column of `.var` to add to the table, such as gene symbols if `var_names` are identifiers.

    Returns
    -------
    One row per test, smallest p-value first. Tests that were not made have NaN as p-value and come last. They are returned only without
    limits.

    Raises
    ------
    KeyError
        If there is no such perturbation, gene or column; the message names the closest.
    ValueError
        If this is no screen; if `fdr_scope` or `style` is unknown or `n_top` below 1; if `gene_symbols` has the name of a column of the table; if the whole screen is asked
        for without `n_top` or `padj_cutoff`.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.papalexi2021()
    >>> design = {"reference": "control", "replicate_key": "replicate", "block_key": "replicate"}
    >>> screen = nb.tl.nb_screen(adata, "perturbation", **design, progress=False)
    >>> nb.get.nb_screen_df(screen, "STAT2", n_top=1)["names"].item()
    'STAT2'
    """
    check_screen(screen)
    _check(screen, style, fdr_scope, n_top, is_whole=perturbation is None and gene is None and padj_cutoff is None)
    rows, columns = perturbation_rows(screen, perturbation), gene_columns(screen, gene)
    symbols = None if gene_symbols is None else read_var(screen, gene_symbols)
    adjustment = Adjustment.of(screen, fdr_scope)
    change = (log2fc_min, log2fc_max)

    found = ScreenHits.none()
    for block in row_blocks(screen, adjustment.may_pass(rows, padj_cutoff), columns.size):
        tests = read_block(screen, adjustment, block, columns, padj_cutoff, change, found.worst(n_top))
        found = found.joined(tests).first(n_top)
    found = found.sorted()

    table = _in_style(_as_table(screen, found), style, posterior_names(screen))
    check_symbols(gene_symbols, table.columns)
    return table if symbols is None else table.assign(**{str(gene_symbols): symbols[found.column]})


def _check(screen: AnnData, style: str, fdr_scope: str, n_top: int | None, *, is_whole: bool) -> None:
    if fdr_scope == "global" and "pvals_adj_global" not in screen.layers:
        msg = "fdr_scope is 'global', but the screen has no layer 'pvals_adj_global'; run nbcompare.tl.nb_screen to its end."
        raise ValueError(msg)
    if is_whole and n_top is None:
        msg = (
            f"All {screen.n_obs} perturbations x {screen.n_vars} genes would make a table of {screen.n_obs * screen.n_vars:,} "
            "rows. Name a perturbation or a gene, or limit the table with n_top or padj_cutoff."
        )
        raise ValueError(msg)


def _as_table(screen: AnnData, tests: ScreenHits) -> pd.DataFrame:
    """The tests under the stored words."""
    names = screen.obs_names.astype(str)
    once = names.unique()  # a user may have renamed two perturbations alike
    table = {
        "perturbation": pd.Categorical.from_codes(once.get_indexer(names)[tests.row], categories=once),
        "group": names.to_numpy(object)[tests.row],
        "names": screen.var_names.to_numpy(object)[tests.column],
        "pvals": tests.p,
        "pvals_adj": tests.adjusted,
        "base_mean": read_var(screen, "base_mean")[tests.column],
    }
    stored_names = (
        "scores",
        "logfoldchanges",
        "lfc_se",
        *interval_names(screen),
        "dispersions",
        *posterior_names(screen),
    )
    for word in stored_names:
        table[word] = pick_tests(screen, word, tests.row, tests.column)
    table["status"] = status_texts(pick_tests(screen, "status", tests.row, tests.column))
    return pd.DataFrame(table)


def _in_style(table: pd.DataFrame, style: Style, of_posterior: list[str]) -> pd.DataFrame:
    columns = with_posterior(COLUMNS[style], of_posterior) if style == "scanpy" else COLUMNS[style]
    columns = {word: name for word, name in columns.items() if word in table or word not in INTERVAL}
    leading = [] if "group" in columns else ["perturbation"]
    if style == "deseq2":
        table = table.set_index("names").rename_axis(None)
    return table[[*leading, *columns]].rename(columns=columns)
