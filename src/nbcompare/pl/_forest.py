from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import chosen_columns, is_significant, stored_interval, stored_results
from nbcompare.get._hypothesis import hypothesis_of
from nbcompare.get._screen_arrays import gene_column, read_var, status_texts
from nbcompare.pl._panel import DARK, MEDIUM, SMALL, colour_of, draw_intervals, interval_limits, new_panel

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

ROW = 0.17  # inches


@checked
def forest(
    adata: AnnData,
    gene: str,
    groups: str | Sequence[str] | None = None,
    *,
    split: str | Sequence[str] | None = None,
    key: str = "nb_compare",
    shrunken: bool = False,
    padj_cutoff: float = 0.05,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Plot the log2 fold changes of one gene in all comparisons or cell types.

    Rows in which the gene is significant are in color: up, down, or one color if the test is for changes smaller than a threshold. A test of
    several coefficients has no log2 fold change, and its row says whether it is significant. If the gene was not tested the row gives the
    reason. The interval is `lfc_lower` to `lfc_upper` of :func:`nbcompare.tl.nb_compare`. It excludes zero exactly where the p-value from
    all replicates is below 0.05. Intervals that are much longer than the others, or infinite because a group has no counts, end in an
    arrowhead.

    Parameters
    ----------
    adata
        Data with stored results.
    gene
        Name of the gene in `var_names`.
    groups
        Comparisons to show, in this order; `None` for all.
    split
        Splits (cell types) to show, in this order, of a comparison with `split_by`; `None` for all.
    key
        Key of the results (`key_added` of the call).
    shrunken
        Show shrunken log2 fold changes and 1.96 times their standard deviation, of a comparison with `shrink=True`. Significance
        remains that of the test.
    padj_cutoff
        The gene is significant up to this adjusted p-value. It is adjusted over the genes of each comparison in each split.
    gene_symbols
        Column of `.var` with the label to show.
    ax
        Axes to draw on. None makes a new figure of the height that the rows need.

    Returns
    -------
    The Axes, one row a unit from the top (0) down. Nothing is shown; save with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If the results, gene, comparison, split or column do not exist.
    ValueError
        If splits are named where there are none, or there are no shrunken effects.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, n_conditions=3, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> [label.get_text() for label in nb.pl.forest(adata, "gene_00").get_yticklabels()]
    ['treated_1', 'treated_2']
    """
    gene_column(adata, gene)  # refused before the rest
    results = stored_results(adata, key)
    if shrunken and f"{key}_lfc_shrunken" not in adata.varm:
        msg = f"{key!r} was compared without shrink=True, so there are no shrunken effects. Compare with it, or set shrunken=False."
        raise ValueError(msg)
    rows = _rows(adata, gene, groups, split, key, shrunken=shrunken)
    labels = _place(rows)
    title = gene if gene_symbols is None else str(read_var(adata, gene_symbols)[gene_column(adata, gene)])

    ax = new_panel(ax, width=3.4, height=0.75 + ROW * max(len(labels), 2))
    ax.set_ylim(len(labels) - 0.4, -0.6)
    _draw_intervals(ax, rows, padj_cutoff)
    _write_beside(ax, rows, padj_cutoff)
    ax.set_yticks(range(len(labels)), labels)
    for place, label in enumerate(ax.get_yticklabels()):
        label.set_fontweight("normal" if place in set(rows["place"]) else "bold")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    compared = "" if rows["group"].nunique() > 1 else f", {rows['group'].iloc[0]}"
    against = f" vs {results['reference']}" if results["reference"] else ""  # a contrast's name says it
    ax.set_xlabel(f"{'shrunken ' if shrunken else ''}log$_2$ fold change{compared}{against}", fontsize=MEDIUM)
    where = f", {rows['split'].iloc[0]}" if rows["split"].nunique() == 1 else ""
    ax.set_title(title + where, loc="left", fontsize=MEDIUM, fontweight="bold", fontstyle="italic")
    return ax


def _rows(
    adata: AnnData,
    gene: str,
    groups: str | Sequence[str] | None,
    split: str | Sequence[str] | None,
    key: str,
    *,
    shrunken: bool = False,
) -> pd.DataFrame:
    """The gene in every comparison and split: effect, bounds of the interval, adjusted p-value, status."""
    results = stored_results(adata, key)
    chosen, row = chosen_columns(results, groups, split, key), gene_column(adata, gene)
    numbers = [column.number for column in chosen]
    words = ("logfoldchanges", "pvals_adj")
    rows = pd.DataFrame({word: np.asarray(adata.varm[f"{key}_{word}"])[row, numbers] for word in words})
    tested = [hypothesis_of(results, column) for column in chosen]
    rows["shown"] = [one.word_of(change) for one, change in zip(tested, rows["logfoldchanges"], strict=True)]
    rows["group"], rows["split"] = [c.group for c in chosen], [c.split for c in chosen]
    rows["status"] = status_texts(np.asarray(adata.varm[f"{key}_status"])[row, numbers])
    if shrunken:
        effect, sd = (
            np.asarray(adata.varm[f"{key}_{word}"])[row, numbers] for word in ("lfc_shrunken", "lfc_shrunken_se")
        )
        rows = rows.assign(logfoldchanges=effect, lower=effect - 1.96 * sd, upper=effect + 1.96 * sd)
    else:
        rows["lower"], rows["upper"] = stored_interval(adata, key, row, numbers)
    return rows


def _place(rows: pd.DataFrame) -> list[str]:
    """Gives each row its place from the top, and returns the labels: splits, comparisons, or these under each split's name."""
    if rows["split"].nunique() < 2 or rows["group"].nunique() < 2:
        rows["place"] = np.arange(len(rows))
        return rows["split" if rows["split"].nunique() > 1 else "group"].tolist()
    number = pd.factorize(rows["split"])[0]
    rows["place"] = np.arange(len(rows)) + number + 1
    labels = [""] * (len(rows) + rows["split"].nunique())
    for place, heading, group in zip(rows["place"], rows["split"], rows["group"], strict=True):
        labels[place] = group
        labels[place - 1] = labels[place - 1] or heading
    return labels


def _draw_intervals(ax: Axes, rows: pd.DataFrame, padj_cutoff: float) -> None:
    """Effects and intervals, coloured by call; what leaves the panel ends in an arrowhead."""
    tested = rows[rows["pvals_adj"].notna() & rows["logfoldchanges"].notna()]
    effect, place = tested["logfoldchanges"].to_numpy(), tested["place"].to_numpy()
    left, right = tested["lower"].to_numpy(), tested["upper"].to_numpy()
    limits = interval_limits(effect, left, right, always=(-0.5, 0.5))
    effect = np.clip(effect, *limits)  # an infinite one stands at the edge, where its interval ends in an arrowhead
    called = is_significant(tested["pvals_adj"], padj_cutoff).to_numpy()
    colours = np.where(called, [colour_of(word) for word in tested["shown"]], DARK)
    ax.axvline(0, color=DARK, linewidth=0.6, zorder=1)
    draw_intervals(ax, place, left, right, colours.tolist(), limits, gid="interval", linewidth=1.1, zorder=2)
    ax.scatter(effect, place, s=np.where(called, 20, 13), c=colours, linewidths=0, gid="effect", zorder=3)
    ax.set_xlim(*limits)


def _write_beside(ax: Axes, rows: pd.DataFrame, padj_cutoff: float) -> None:
    """The adjusted p-value on the right of each row, or, in its place, why there is none; tests of several coefficients in words."""
    several = rows["pvals_adj"].notna() & rows["logfoldchanges"].isna()
    called = dict(zip(rows["place"], is_significant(rows["pvals_adj"], padj_cutoff), strict=True))
    on_white = {"facecolor": "white", "linewidth": 0, "pad": 0.8}
    style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": SMALL - 1}
    ax.annotate("adjusted p", (1.04, 1), xycoords="axes fraction", va="bottom", fontsize=SMALL - 1, color=DARK)
    for place, p_value, status in zip(rows["place"], rows["pvals_adj"].to_numpy(), rows["status"], strict=True):
        if np.isnan(p_value):
            words = str(status).replace("_", " ").replace("|", ", ")
            over: dict[str, Any] = {
                "color": DARK,
                "alpha": 0.8,
                "fontstyle": "italic",
                "gid": "untested",
                "bbox": on_white,
            }
            ax.annotate(f"not tested: {words}", (0.02, place), **over, **style)
        else:
            ax.annotate(f"{p_value:.2g}", (1.04, place), color=DARK, **style)
    for place, shown in zip(*(rows.loc[several, word] for word in ("place", "shown")), strict=True):
        words = f"several coefficients together: {shown if called[place] else 'not significant'}"
        ax.annotate(words, (0.02, place), color=DARK, fontstyle="italic", gid="no fold change", bbox=on_white, **style)
