"""What the figures share: an empty panel, colours, called genes, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._optional import require
from nbcompare.get._comparison_arrays import is_significant, one_column, stored_comparison, stored_results, why_untested
from nbcompare.get._hypothesis import QUIET, Hypothesis, hypothesis_of, order_of_evidence
from nbcompare.get._screen_arrays import gene_columns, is_screen, read_var, stored_perturbation

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Okabe & Ito: distinguished by readers of every color vision, and in grey
UP, DOWN = "#D55E00", "#0072B2"
PICKED = "#009E73"
GREY, DARK = "#B8B8B8", "#4D4D4D"
SMALL, MEDIUM = 7, 8  # points, the sizes that journals ask for
MOST_AVOIDED = 200  # points that names keep clear of
LONGEST = 4.0  # half widths of the median interval, beyond which one ends in an arrowhead
COLOUR = {"down": DOWN, "up": UP, QUIET: GREY}  # what was shown without a direction is PICKED
LOG_10 = float(np.log(10))
SMALLEST = 1e-290  # p-values below are read from the score


def new_panel(ax: Axes | None, *, width: float = 3.4, height: float = 2.9) -> Axes:
    """The caller's Axes, or a figure of its own (inches); frame and ticks made light either way."""
    if ax is None:
        plt = require("matplotlib.pyplot", "plot")
        _, ax = plt.subplots(figsize=(width, height), dpi=200, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_linewidth(0.6)
    ax.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    ax.tick_params(which="minor", width=0.4, length=1.5)
    return ax


def comparison_table(
    adata: AnnData, group: str | None, split: str | None, key: str, gene_symbols: str | None
) -> tuple[pd.DataFrame, str]:
    """Everything stored of one comparison, or of a screen's row, with the genes' `label`, and the figure's title."""
    if is_screen(adata):
        results, table = adata.uns["nb_screen"], stored_perturbation(adata, group)
        group = adata.obs_names[0] if group is None else group
    else:
        column = one_column(adata, group, split, key)
        results, table, group = stored_results(adata, key), stored_comparison(adata, column, key), column.name
        if column.split is not None and table["pvals"].isna().all():
            raise ValueError(why_untested(results, column))
    table["label"] = table["names"] if gene_symbols is None else read_var(adata, gene_symbols).astype(str)
    return table, f"{group} vs {results['reference']}" if results["reference"] else str(group)


def take_shrunken(table: pd.DataFrame, shrunken: bool) -> str:
    """Put the shrunken log fold changes in the place of the others if asked for; what the axis says."""
    if not shrunken:
        return "log$_2$ fold change"
    if "lfc_shrunken" not in table:
        msg = "shrunken=True needs shrunken log fold changes: call nbcompare.tl.nb_compare with shrink=True."
        raise KeyError(msg)
    table["logfoldchanges"] = table["lfc_shrunken"]
    return "shrunken log$_2$ fold change"


def check_genes(adata: AnnData, genes: Sequence[str]) -> list[str]:
    """Genes to name, which must be there; one name may stand alone."""
    genes = [genes] if isinstance(genes, str) else list(genes)
    if genes:
        gene_columns(adata, genes)
    return genes


def point_size(n_genes: int) -> float:
    """Area of a point, points squared: smaller where thousands share the panel."""
    return float(np.clip(6 * np.sqrt(1000 / max(n_genes, 1)), 2, 6))


def hypothesis(adata: AnnData, group: str | None, split: str | None, key: str) -> Hypothesis:
    """What a small p-value of the comparison, or of a screen's row, means."""
    if is_screen(adata):
        return Hypothesis("changed")
    return hypothesis_of(stored_results(adata, key), one_column(adata, group, split, key))


def call(table: pd.DataFrame, tested: Hypothesis, padj_cutoff: float, lfc_cutoff: float = 0.0) -> dict[str, np.ndarray]:
    """Masks of the tested genes: went down, went up, not significant; of tests without a direction what they show, and not significant."""
    tested.check_cutoff(lfc_cutoff)
    change = table["logfoldchanges"].to_numpy()
    significant = is_significant(table["pvals_adj"], padj_cutoff).to_numpy()
    return tested.masks(table, significant & ((np.abs(change) >= lfc_cutoff) | (not tested.has_effect)))


def colour_of(name: str) -> str:
    """The colour of genes by what was shown of them."""
    return COLOUR.get(name, PICKED)


def evidence(p_value: np.ndarray, score: np.ndarray) -> np.ndarray:
    """-log10 p, from the score where p is too small for a number: p is twice the normal tail beyond |score|."""
    from scipy.special import log_ndtr

    small = p_value < SMALLEST
    of_score = -(np.log(2) + log_ndtr(-np.abs(np.asarray(score, float)))) / LOG_10
    height = -np.log10(np.where(small, 1.0, p_value))
    height[small] = of_score[small]
    lost = small & ~np.isfinite(height)  # a p-value of zero without a score
    height[lost] = np.max(height[np.isfinite(height)], initial=-np.log10(SMALLEST))
    return height


def said_if_untested(ax: Axes, table: pd.DataFrame, title: str) -> bool:
    """Whether no gene was tested; the panel then has one sentence that says so and why."""
    if table["pvals"].notna().any():
        return False
    reasons = table["status"].value_counts()
    words = "there are no genes" if reasons.empty else str(reasons.index[0]).replace("_", " ").replace("|", ", ")
    more = f" ({reasons.iloc[0]:,} of {len(table):,} genes)" if len(reasons) > 1 else ""
    say_in_panel(ax, f"nothing tested: {words}{more}")
    ax.set_title(title, loc="left", fontsize=MEDIUM, fontweight="bold")
    return True


def say_in_panel(ax: Axes, sentence: str) -> None:
    """One sentence in the middle of a panel that has nothing else to show."""
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL, "color": DARK, "wrap": True}
    ax.text(0.5, 0.5, sentence, transform=ax.transAxes, gid="nothing tested", **style)
    ax.set_xticks([])
    ax.set_yticks([])


def draw_points(ax: Axes, x: np.ndarray, y: np.ndarray, called: dict[str, np.ndarray]) -> None:
    """Genes as rasterised points, coloured by call; the legend counts them."""
    size = point_size(x.size)
    for name, mask in called.items():
        quiet = name == QUIET
        ax.scatter(
            x[mask],
            y[mask],
            s=size if quiet else 1.5 * size,
            c=colour_of(name),
            linewidths=0,
            alpha=0.6 if quiet else 0.9,
            rasterized=True,
            gid=name,
            zorder=2 if quiet else 3,
            label=f"{mask.sum():,} {name}",
        )


def interval_limits(
    effect: np.ndarray, lower: np.ndarray, upper: np.ndarray, *, always: tuple[float, float]
) -> tuple[float, float]:
    """Limits of an axis of effects with their intervals: long and infinite ones leave it, the effects and `always` do not."""
    finite = np.isfinite(effect)
    effect = effect[finite]
    with np.errstate(invalid="ignore"):
        width = upper - lower
    width = width[np.isfinite(width)]
    longest = LONGEST * np.median(width) / 2 if len(width) else 1.0
    lower, upper = lower[finite], upper[finite]
    low = np.min(np.maximum(lower, effect - longest), initial=always[0])
    high = np.max(np.minimum(upper, effect + longest), initial=always[1])
    return float(low - 0.05 * (high - low)), float(high + 0.05 * (high - low))


def draw_intervals(
    ax: Axes,
    place: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    colours: Sequence[str],
    limits: tuple[float, float],
    *,
    gid: str,
    upright: bool = False,
    arrow: float = 14.0,
    **style: Any,
) -> None:
    """Lines from lower to upper bounds, within the limits of the axis; one that goes on beyond them ends in an arrowhead of this area."""
    low, high = limits
    draw = ax.vlines if upright else ax.hlines
    draw(place, np.maximum(lower, low), np.minimum(upper, high), colors=list(colours), gid=gid, **style)
    heads = ((lower < low, low, "v" if upright else "<"), (upper > high, high, "^" if upright else ">"))
    for beyond, edge, marker in heads:
        at = np.full(beyond.sum(), edge)
        points = (place[beyond], at) if upright else (at, place[beyond])
        colour = [one for one, out in zip(colours, beyond, strict=True) if out]
        x, y = points
        ax.scatter(x, y, s=arrow, c=colour, marker=marker, linewidths=0, clip_on=False, gid="beyond", zorder=3)


def title_and_legend(ax: Axes, title: str) -> None:
    """Title on the left above the panel, and under it what the colours mean, in one line."""
    ax.set_title(title, loc="left", fontsize=MEDIUM, fontweight="bold", pad=15)
    legend = ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.015, 0.985),
        ncols=4,
        frameon=False,
        fontsize=SMALL,
        handletextpad=0.4,
        columnspacing=1.0,
        borderpad=0.2,
        handlelength=1.0,
        scatterpoints=1,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, require("matplotlib.collections", "plot").PathCollection):
            handle.set(sizes=[14.0], alpha=1)


def label_called(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    table: pd.DataFrame,
    called: dict[str, np.ndarray],
    n_top: int,
    genes: Sequence[str],
) -> None:
    """Names the called genes with the smallest p-values (of equal ones, the largest scores), and those asked for.

    The names are moved off each other and off the called points, with a thin line back to their own.
    """
    shown = np.any([mask for name, mask in called.items() if name != QUIET], axis=0)
    positions = np.flatnonzero(shown & np.isfinite(x) & np.isfinite(y))
    rank = order_of_evidence(table["pvals"].to_numpy()[positions], table["scores"].to_numpy()[positions])
    requested = table["names"].isin(genes).to_numpy() & np.isfinite(x) & np.isfinite(y)
    top = np.union1d(positions[rank[:n_top]], np.flatnonzero(requested))
    label_points(ax, x, y, table["label"].to_numpy(), top, positions, fontstyle="italic")


def label_points(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    top: np.ndarray,
    others: np.ndarray,
    *,
    fontstyle: str = "normal",
) -> None:
    """Names the points `top`, off each other and off the points `others`, with a thin line back to their own."""
    if not top.size:
        return
    adjust_text = require("adjustText", "plot").adjust_text
    halo = [require("matplotlib.patheffects", "plot").withStroke(linewidth=1.2, foreground="white")]
    ax.figure.canvas.figure.draw_without_rendering()  # fixes limits and layout, on which the names are placed
    others = _nearest(ax, x, y, top, others)
    style: dict[str, Any] = {"fontsize": SMALL - 1, "fontstyle": fontstyle, "path_effects": halo, "zorder": 5}
    texts = [ax.text(x[i], y[i], labels[i], **style) for i in top]
    adjust_text(
        texts,
        x=x[others],
        y=y[others],
        target_x=x[top],
        target_y=y[top],
        ax=ax,
        iter_lim=300,
        explode_radius=30,
        expand=(1.2, 1.5),
        force_text=(0.3, 0.5),
        force_static=(0.4, 0.6),
        min_arrow_len=3,
        arrowprops={"arrowstyle": "-", "color": DARK, "lw": 0.4, "shrinkA": 0, "shrinkB": 1},
    )


def _nearest(ax: Axes, x: np.ndarray, y: np.ndarray, top: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of the points that names keep clear of, those near a named one: each costs time, and far ones change nothing."""
    if others.size <= MOST_AVOIDED:
        return others
    place = ax.transData.transform(np.stack([x, y], axis=1))
    distance = np.min([np.hypot(*(place[others] - place[i]).T) for i in top], axis=0)
    return others[np.argsort(distance, kind="stable")[:MOST_AVOIDED]]
