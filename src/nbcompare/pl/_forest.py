from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare.get._screen import read_var, status_words
from nbcompare.get._stored import chosen_columns, stored_results

from ._panel import DARK, DOWN, MEDIUM, SMALL, UP, check_genes, new_panel

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

ROW = 0.17  # inches
LONGEST = 4.0  # half widths of the median interval, beyond which one ends in an arrowhead


def forest(
    adata: AnnData,
    name: str,
    groups: str | Sequence[str] | None = None,
    *,
    split: str | Sequence[str] | None = None,
    key: str = "nb_compare",
    shrunk: bool = False,
    pval_cutoff: float = 0.05,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""One gene over cell types or comparisons: log2 fold changes with 95 % intervals, and adjusted p-values.

    Where the gene was called the row is coloured (up, down); where it was not tested the row says why. The interval is
    1.96 times the standard error that agrees with the p-value, :math:`|\beta| / |z|` with the stored score :math:`z`, and
    so leaves out zero just where the p-value is below 0.05; where :math:`|z| < 1` it is the stored standard error, or
    :math:`|\beta|` if that is larger. Of a comparison with `lfc_threshold` it is the stored one throughout; of a
    posterior the bounds are its own, of 90 %. Intervals that are far longer than the others end in an arrowhead.

    Parameters
    ----------
    adata
        Data with stored results.
    name
        Name of the gene in `var_names`.
    groups
        Comparisons to show, in this order; `None` for all.
    split
        Splits (cell types) to show, in this order, of a comparison with `split_by`; `None` for all.
    key
        Where the results are stored.
    shrunk
        Show shrunken effects and 1.96 times their standard deviation, of a comparison with `shrink`. Calls remain those
        of the test.
    pval_cutoff
        The gene is called below this adjusted p-value. It is adjusted over the genes of each comparison in each split.
    gene_symbols
        Column of `.var` with the name to show.
    ax
        Where to draw; a new figure otherwise, as high as the rows need.

    Returns
    -------
    The Axes, one row a unit from the top (0) down. Nothing is shown; save with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If there are no such results, gene, comparison, split or column.
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
    check_genes(adata, [name])
    results = stored_results(adata, key)
    if shrunk and f"{key}_lfc_shrunk" not in adata.varm:
        msg = f"{key!r} was compared without shrink=True, so there are no shrunken effects. Compare with it, or leave shrunk out."
        raise ValueError(msg)
    rows = _rows(adata, name, groups, split, key, shrunk=shrunk)
    labels = _place(rows)
    title = name if gene_symbols is None else str(read_var(adata, gene_symbols)[adata.var_names.get_loc(name)])

    ax = new_panel(ax, width=3.4, height=0.75 + ROW * max(len(labels), 2))
    ax.set_ylim(len(labels) - 0.4, -0.6)
    _draw_intervals(ax, rows, pval_cutoff)
    _write_beside(ax, rows)
    ax.set_yticks(range(len(labels)), labels)
    for place, label in enumerate(ax.get_yticklabels()):
        label.set_fontweight("normal" if place in set(rows["place"]) else "bold")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    compared = "" if rows["group"].nunique() > 1 else f", {rows['group'].iloc[0]}"
    against = f" vs {results['reference']}" if results["reference"] else ""  # a contrast's name says it
    ax.set_xlabel(f"{'shrunken ' if shrunk else ''}log$_2$ fold change{compared}{against}", fontsize=MEDIUM)
    where = f", {rows['split'].iloc[0]}" if rows["split"].nunique() == 1 else ""
    ax.set_title(title + where, loc="left", fontsize=MEDIUM, fontweight="bold", fontstyle="italic")
    return ax


def _rows(
    adata: AnnData,
    name: str,
    groups: str | Sequence[str] | None,
    split: str | Sequence[str] | None,
    key: str,
    *,
    shrunk: bool = False,
) -> pd.DataFrame:
    """The gene in every comparison and split: effect, bounds of the interval, adjusted p-value, status."""
    results = stored_results(adata, key)
    chosen = chosen_columns(results, groups, split, key)
    gene = int(np.flatnonzero(adata.var_names == name)[0])
    numbers = [column.number for column in chosen]
    words = ("logfoldchanges", "lfc_se", "scores", "pvals_adj")
    rows = pd.DataFrame({word: np.asarray(adata.varm[f"{key}_{word}"])[gene, numbers] for word in words})
    rows["group"], rows["split"] = [c.group for c in chosen], [c.split for c in chosen]
    rows["status"] = status_words(np.asarray(adata.varm[f"{key}_status"])[gene, numbers])
    if shrunk:
        effect, sd = (
            np.asarray(adata.varm[f"{key}_{word}"])[gene, numbers] for word in ("lfc_shrunk", "lfc_shrunk_se")
        )
        rows = rows.assign(logfoldchanges=effect, lower=effect - 1.96 * sd, upper=effect + 1.96 * sd)
    elif f"{key}_lfc_lower" in adata.varm:
        for word in ("lower", "upper"):
            rows[word] = np.asarray(adata.varm[f"{key}_lfc_{word}"])[gene, numbers]
    else:
        half_width = 1.96 * _standard_errors(rows, against_zero=not results["params"].get("lfc_threshold"))
        rows["lower"], rows["upper"] = rows["logfoldchanges"] - half_width, rows["logfoldchanges"] + half_width
    return rows


def _standard_errors(rows: pd.DataFrame, *, against_zero: bool) -> pd.Series:
    """Those that agree with the p-value, where it is one against zero."""
    if not against_zero:
        return rows["lfc_se"]
    change, score = rows["logfoldchanges"].abs(), rows["scores"].abs()
    return (change / score.where(score >= 1)).fillna(pd.concat([rows["lfc_se"], change], axis=1).max(axis=1))


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


def _draw_intervals(ax: Axes, rows: pd.DataFrame, pval_cutoff: float) -> None:
    """Effects and intervals, coloured by call; what leaves the panel ends in an arrowhead."""
    tested = rows[rows["pvals_adj"].notna() & rows["logfoldchanges"].notna()]
    effect, place = tested["logfoldchanges"].to_numpy(), tested["place"].to_numpy()
    left, right = tested["lower"].to_numpy(), tested["upper"].to_numpy()
    longest = LONGEST * np.median(right - left) / 2 if len(tested) else 1.0
    low = np.min(np.maximum(left, effect - longest), initial=-0.5)
    high = np.max(np.minimum(right, effect + longest), initial=0.5)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    called = (tested["pvals_adj"] < pval_cutoff).to_numpy()
    colours = np.where(called, np.where(effect > 0, UP, DOWN), DARK)
    ax.axvline(0, color=DARK, linewidth=0.6, zorder=1)
    ax.hlines(
        place,
        np.maximum(left, low),
        np.minimum(right, high),
        colors=colours.tolist(),
        linewidth=1.1,
        gid="interval",
        zorder=2,
    )
    ax.scatter(effect, place, s=np.where(called, 20, 13), c=colours, linewidths=0, gid="effect", zorder=3)
    for beyond, edge, marker in ((left < low, low, "<"), (right > high, high, ">")):
        style: dict[str, Any] = {"linewidths": 0, "clip_on": False, "gid": "beyond", "zorder": 3}
        ax.scatter(np.full(beyond.sum(), edge), place[beyond], s=14, c=colours[beyond], marker=marker, **style)
    ax.set_xlim(low, high)


def _write_beside(ax: Axes, rows: pd.DataFrame) -> None:
    """The adjusted p-value on the right of each row, or, in its place, why there is none."""
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
