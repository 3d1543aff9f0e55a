from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._arguments import checked
from nbcompare._optional import require
from nbcompare.get._screen_arrays import check_screen, own_columns, read_var
from nbcompare.pl._clustering import Tree, cluster, draw_tree
from nbcompare.pl._panel import DARK, DOWN, MEDIUM, SMALL, UP, new_panel
from nbcompare.pl._screen_effects import Effects, chosen_effects

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

CELL = 0.1  # inches
TREE = 0.22  # inches
SIDE, SIDE_UNCALLED = 0.92, 0.42  # of a cell
BEYOND = 1e6  # stands for an infinite fold change: the end of the colours
MOST_NAMED = 150  # rows or columns with names that can be read


@checked
def screen_map(
    screen: AnnData,
    *,
    n_perturbations: int = 40,
    n_genes: int = 60,
    perturbations: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    padj_cutoff: float = 0.05,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot log2 fold changes of the strongest perturbations as a clustered heat map.

    Color is the log2 fold change. Large squares are significant, small squares are not, and genes that were not tested have no color. A
    frame marks the target of the perturbation. The map shows the perturbations with the most hits, and the genes that most of these
    affect, without their own targets. Ties are broken by the sum of absolute scores. Rows and columns are clustered by average linkage
    of cosine distances between significant effects, so that equal patterns are adjacent independent of their strength.

    Parameters
    ----------
    screen
        What :func:`nbcompare.tl.nb_screen` returned, in memory or lazily read; only the rows shown are read.
    n_perturbations
        Number of perturbations.
    n_genes
        Number of genes.
    perturbations
        The perturbations to show, instead of the strongest.
    genes
        The genes to show, by `var_names`, instead of those that are affected most.
    padj_cutoff
        Genes are significant up to this adjusted p-value (within their perturbation).
    gene_symbols
        Column of `.var` with the labels to show.
    ax
        Axes to draw on. None makes a new figure of the size that the map needs.

    Returns
    -------
    The Axes of the map. Trees and color bar are insets of it. Nothing is shown; save with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If there is no such perturbation, gene or column.
    ValueError
        If this is no screen, or nothing in it is significant and neither perturbations nor genes are named.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.papalexi2021()
    >>> design = {"reference": "control", "replicate_key": "replicate", "block_key": "replicate"}
    >>> screen = nb.tl.nb_screen(adata, "perturbation", **design, progress=False)
    >>> nb.pl.screen_map(screen, n_genes=30).get_title(loc="left")
    'perturbations vs control'
    """
    check_screen(screen)
    effects = chosen_effects(screen, n_perturbations, n_genes, perturbations, genes, padj_cutoff)
    strength = np.where(effects.called, np.clip(np.nan_to_num(effects.change), -_limit(effects), _limit(effects)), 0.0)
    of_rows, of_columns = cluster(strength), cluster(strength.T)
    effects = effects.ordered(of_rows.leaves, of_columns.leaves)
    symbols = screen.var_names.to_numpy() if gene_symbols is None else read_var(screen, gene_symbols)

    n_rows, n_columns = effects.change.shape
    ax = new_panel(ax, width=1.9 + CELL * n_columns, height=1.1 + CELL * n_rows)
    squares = _draw_squares(ax, effects)
    _draw_own_targets(ax, effects, screen)
    _name_both(ax, screen.obs_names.to_numpy()[effects.rows], symbols[effects.columns])
    _draw_margins(ax, squares, of_rows, of_columns, effects, padj_cutoff)
    title_pad = 4 + (72 * TREE if len(of_columns.x) else 0)
    title = f"perturbations vs {screen.uns['nb_screen']['reference']}"
    ax.set_title(title, loc="left", fontsize=MEDIUM, fontweight="bold", pad=title_pad)
    return ax


def _limit(effects: Effects) -> float:
    """The log2 fold change at which the colours end; infinite ones lie beyond."""
    shown = np.abs(effects.change[effects.called & np.isfinite(effects.change)])
    return max(float(np.ceil(2 * np.quantile(shown, 0.98)) / 2), 0.5) if shown.size else 1.0


def _draw_squares(ax: Axes, effects: Effects) -> PolyCollection:
    """One square for each test, its side by the call, its colour by the effect."""
    collections, colors = require("matplotlib.collections", "plot"), require("matplotlib.colors", "plot")
    half = np.where(effects.called, SIDE, SIDE_UNCALLED).ravel() / 2
    y, x = (index.ravel() for index in np.indices(effects.change.shape))
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    corner = np.stack([x, y], axis=1)[:, None, :] + half[:, None, None] * corners
    limit = _limit(effects)
    shades = ["#00344F", DOWN, "#F2F2F2", UP, "#7A3300"]
    colour_map = colors.LinearSegmentedColormap.from_list("effect", shades).with_extremes(bad=(1, 1, 1, 0))
    squares = collections.PolyCollection(
        corner,
        array=np.ma.masked_invalid(np.nan_to_num(effects.change, nan=np.nan, posinf=BEYOND, neginf=-BEYOND).ravel()),
        cmap=colour_map,
        norm=colors.Normalize(-limit, limit),
        linewidths=0,
        rasterized=half.size > 5000,
        gid="effects",
    )
    ax.add_collection(squares)
    ax.set_xlim(-0.5, effects.columns.size - 0.5)
    ax.set_ylim(effects.rows.size - 0.5, -0.5)
    return squares


def _draw_own_targets(ax: Axes, effects: Effects, screen: AnnData) -> None:
    """A frame where a perturbation meets the gene that it names."""
    rectangle = require("matplotlib.patches", "plot").Rectangle
    own = own_columns(screen, effects.rows)
    for y, x in zip(*np.nonzero(own[:, None] == effects.columns), strict=True):
        frame = rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=0.7, gid="own target")
        ax.add_patch(frame)


def _name_both(ax: Axes, perturbations: np.ndarray, genes: np.ndarray) -> None:
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, pad=1.5, labelsize=SMALL - 1.5)
    ax.set_yticks(np.arange(perturbations.size), perturbations if perturbations.size <= MOST_NAMED else [])
    ax.set_xticks(np.arange(genes.size), genes if genes.size <= MOST_NAMED else [], rotation=90, fontstyle="italic")
    if genes.size > MOST_NAMED:
        ax.set_xticks([])
    if perturbations.size > MOST_NAMED:
        ax.set_yticks([])
    ax.set_xlabel(f"{genes.size} genes", fontsize=SMALL, color=DARK)
    ax.set_ylabel(f"{perturbations.size} perturbations", fontsize=SMALL, color=DARK)


def _draw_margins(
    ax: Axes, squares: PolyCollection, of_rows: Tree, of_columns: Tree, effects: Effects, padj_cutoff: float
) -> None:
    """Trees above and on the right; beyond them the colour bar and what size and frame mean."""
    box = ax.get_window_extent()
    inch_x, inch_y = ax.figure.dpi / box.width, ax.figure.dpi / box.height  # of the Axes
    draw_tree(ax.inset_axes((0, 1 + 0.02 * inch_y, 1, TREE * inch_y)), of_columns, side="top")
    draw_tree(ax.inset_axes((1 + 0.02 * inch_x, 0, TREE * inch_x, 1)), of_rows, side="right")
    left, height = 1 + (TREE + 0.12) * inch_x, min(0.45, 0.9 * inch_y)
    bar_ax = ax.inset_axes((left, 1 - height, 0.09 * inch_x, height))
    beyond = np.nanmax(np.abs(effects.change), initial=0) > squares.norm.vmax
    bar = ax.figure.colorbar(squares, cax=bar_ax, extend="both" if beyond else "neither")
    bar.outline.set_visible(False)
    bar_ax.tick_params(labelsize=SMALL - 1, width=0.5, length=2)
    bar_ax.set_title("log$_2$ fold\nchange", fontsize=SMALL - 1, loc="left", pad=6)

    line = require("matplotlib.lines", "plot").Line2D
    cell = min(72 / inch_x / effects.columns.size, 7.0)  # points
    square: dict[str, Any] = {"linestyle": "", "marker": "s"}
    filled = square | {"color": DARK, "markeredgewidth": 0}
    frame = square | {"color": "none", "markeredgecolor": "black", "markeredgewidth": 0.7}
    handles = [
        line([], [], markersize=SIDE * cell, label=f"{100 * padj_cutoff:g}% FDR", **filled),
        line([], [], markersize=SIDE_UNCALLED * cell, label="not significant", **filled),
        line([], [], markersize=cell, label="own target", **frame),
    ]
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left - 0.06 * inch_x, 1 - height - 0.06 * inch_y),
        frameon=False,
        fontsize=SMALL - 1,
        handletextpad=0.2,
        borderpad=0.2,
        borderaxespad=0,
    )
