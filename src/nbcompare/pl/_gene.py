from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._arguments import checked
from nbcompare.get import nb_compare_df, nb_gene_df
from nbcompare.get._comparison_arrays import (
    chosen_columns,
    chosen_groups,
    is_significant,
    one_split,
    stored_results,
    why_untested,
)
from nbcompare.get._hypothesis import hypothesis_of
from nbcompare.get._nb_gene_df import depths_of
from nbcompare.get._screen_arrays import gene_column, read_var
from nbcompare.pl._panel import DARK, GREY, MEDIUM, SMALL, colour_of, new_panel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

MOST_JOINED = 4  # conditions between which lines still show something


@checked
def gene(
    adata: AnnData,
    gene: str,
    groups: str | Sequence[str] | None = None,
    *,
    split: str | None = None,
    block_key: str | Sequence[str] | None = None,
    key: str = "nb_compare",
    padj_cutoff: float = 0.05,
    log: bool = False,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot one gene in every sample, with the mean of each group and its 95% interval.

    A point is a replicate: its counts divided by its size factor. Blocks (donors, batches) have the same order from left to right in every
    group. Thin lines join them if there are at most four groups. Bar and whisker are the fitted mean and interval of
    :func:`nbcompare.get.nb_gene_df`. Groups in which the gene is significant are in color: up, down, or one color if the test has no
    direction. The text above the panel gives the hypothesis. The points are divided by an `offset` of the comparison.

    Parameters
    ----------
    adata
        Data with stored results: the cells, or the samples, that were compared.
    gene
        Name of the gene in `var_names`.
    groups
        Comparisons to show beside the reference, in this order; `None` for all.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    block_key
        Column of `.obs` with what pairs replicates, such as the donor, to join them by lines, also where the comparison
        was made without blocks, and however many conditions there are.
    key
        Key of the results (`key_added` of the call).
    padj_cutoff
        The gene is significant up to this adjusted p-value.
    log
        Draw counts on a log2 scale. A sample without counts is drawn at half a count.
    gene_symbols
        Column of `.var` with the label to show.
    ax
        Axes to draw on. None makes a new figure.

    Returns
    -------
    The Axes. Save the figure with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If the results, gene, comparison, split or column do not exist.
    ValueError
        If there are several splits and none is named, or nothing was compared in the split; if a sample lies in several blocks.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> [label.get_text() for label in nb.pl.gene(adata, "gene_00").get_xticklabels()]
    ['ctrl', 'treated_1']
    """
    results, groups = stored_results(adata, key), groups
    split = one_split(results, split, key)
    samples = nb_gene_df(adata, gene, split=split, block_key=block_key, key=key)
    if samples.empty:
        raise ValueError(why_untested(results, chosen_columns(results, groups, split, key)[0]))
    treated = chosen_groups(results, groups, key)
    present = set(samples["condition"].astype(str))
    reference = [level for level in [str(results["reference"])] if level in present]
    conditions = reference + [level for level in treated if level not in reference]
    if not results["reference"]:  # comparisons are contrasts of a design, with names of their own
        conditions = list(dict.fromkeys(samples["condition"].astype(str)))
    calls = nb_compare_df(adata, treated, split=split, key=key)
    calls = calls[(calls["names"] == gene) & is_significant(calls["pvals_adj"], padj_cutoff)]
    shown = _shown(results, calls, split, key)
    colours = {group: colour_of(word) for group, word in shown.items()}

    ax = new_panel(ax, width=float(np.clip(0.7 + 0.36 * len(conditions), 1.9, 20)), height=2.6)
    if log:
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_formatter("{x:g}")
        samples["normalized"] = np.maximum(samples["counts"], 0.5) / depths_of(samples)
    blocked = bool(block_key or results["params"].get("block_key"))
    samples["place"] = _places(samples, conditions, blocked=blocked)
    for position, level in enumerate(conditions):
        rows = samples[samples["condition"].astype(str) == level]
        _draw_condition(ax, rows, position, colours.get(level, DARK), level)
    if block_key or (blocked and len(conditions) <= MOST_JOINED):
        for _, points in samples.dropna(subset="place").sort_values("place").groupby("block", observed=True):
            ax.plot(points["place"], points["normalized"], color=GREY, linewidth=0.5, alpha=0.8, zorder=1, gid="block")

    seen = list(dict.fromkeys(shown.values()))
    lines = {word: word for word in sorted(seen)}
    if not results["reference"]:  # contrasts have no place on the x axis: the lines name them
        lines = {f"{group}: {word}": word for group, word in list(shown.items())[:MOST_JOINED]}
    beyond = hypothesis_of(results, chosen_columns(results, treated, split, key)[0]).beyond
    for place, (line, word) in enumerate(lines.items()):
        ax.annotate(
            f"{line}{beyond} ({100 * padj_cutoff:g}% FDR)",
            (1, 1),
            xycoords="axes fraction",
            xytext=(0, 3 + 8 * place),
            textcoords="offset points",
            ha="right",
            fontsize=SMALL - 1,
            color=colour_of(word),
        )
    ax.set_xticks(range(len(conditions)), conditions)
    if len(conditions) > 4 or max(map(len, conditions)) > 9 or sum(map(len, conditions)) > 20:
        ax.tick_params(axis="x", labelrotation=45)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.6, len(conditions) - 0.4)
    if not log:
        ax.set_ylim(bottom=0)
    ax.set_ylabel("normalized counts" + (" (log$_2$ scale)" if log else ""), fontsize=MEDIUM)
    label = gene if gene_symbols is None else str(read_var(adata, gene_symbols)[gene_column(adata, gene)])
    title, pad = (label, None) if split is None else (f"{label}\n{split}", 5 + 8 * len(lines))
    ax.set_title(title, loc="left", fontsize=MEDIUM, fontweight="bold", fontstyle="italic", pad=pad)
    return ax


def _shown(results: Mapping[str, Any], calls: pd.DataFrame, split: str | None, key: str) -> dict[str, str]:
    """What was shown of the gene in each comparison where it is significant: up, down, or the words of a test without direction."""
    change = dict(zip(calls["group"].astype(str), calls["logfoldchanges"], strict=True))
    columns = chosen_columns(results, list(change), split, key) if change else []
    return {column.group: hypothesis_of(results, column).word_of(change[column.group]) for column in columns}


def _places(samples: pd.DataFrame, conditions: list[str], *, blocked: bool) -> pd.Series:
    """Where each replicate stands: around its condition, side by side, each block at its own distance; NaN if not shown."""
    condition = samples["condition"].astype(str)
    if blocked:
        rank, of = samples["block"].astype(str).rank(method="dense") - 1, samples["block"].nunique()
    else:
        rank, of = samples.groupby(condition).cumcount(), condition.map(condition.value_counts())
    return condition.map({level: k for k, level in enumerate(conditions)}) + 0.4 * (rank + 0.5) / of - 0.2


def _draw_condition(ax: Axes, rows: pd.DataFrame, position: int, colour: str, level: str) -> None:
    """Replicates, mean and interval."""
    ax.scatter(rows["place"], rows["normalized"], s=11, c=colour, alpha=0.65, linewidths=0, zorder=3, gid=level)
    if len(rows):
        first = rows.iloc[0]
        mean = first["fitted_mean"]
        error = [[mean - first["interval_low"]], [first["interval_high"] - mean]]
        ax.errorbar(position, mean, yerr=error, color=colour, elinewidth=0.9, capsize=0, zorder=4)
        ax.hlines(mean, position - 0.28, position + 0.28, color=colour, linewidth=1.6, zorder=4, gid=f"mean {level}")
