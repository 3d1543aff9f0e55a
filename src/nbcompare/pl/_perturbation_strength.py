from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from nbcompare._arguments import checked
from nbcompare._optional import require
from nbcompare.get._screen_arrays import check_screen, perturbation_rows, read_obs, zero_order
from nbcompare.pl._panel import DARK, GREY, MEDIUM, PICKED, SMALL, label_points, new_panel, point_size, title_and_legend

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

Kind = Literal["cells", "ranked"]


@checked
def perturbation_strength(
    screen: AnnData,
    *,
    kind: Kind = "cells",
    n_top: int = 10,
    perturbations: str | Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Plot the number of hits of each perturbation, against its cells or in order.

    Hits are the genes that are significant within the perturbation, at the level `fdr` of :func:`nbcompare.tl.nb_screen`. Selected
    perturbations, with any effect by their overall p-value at the same level, are in color. The plot against cells shows whether many
    hits come from a strong perturbation or from many cells. Perturbations without a test are not shown.

    Parameters
    ----------
    screen
        What :func:`nbcompare.tl.nb_screen` returned, in memory or lazily read; only its `.obs` is read.
    kind
        `"cells"`: hits against number of cells. `"ranked"`: hits in descending order.
    n_top
        Number of perturbations to label, those with the most hits.
    perturbations
        More perturbations to label.
    ax
        Axes to draw on. None makes a new figure.

    Returns
    -------
    The Axes. Save the figure with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If there is no such perturbation.
    ValueError
        If this is no screen, nothing in it was tested, or `kind` is unknown.
    ImportError
        If matplotlib or adjustText is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.papalexi2021()
    >>> design = {"reference": "control", "replicate_key": "replicate", "block_key": "replicate"}
    >>> screen = nb.tl.nb_screen(adata, "perturbation", **design, progress=False)
    >>> nb.pl.perturbation_strength(screen).get_xlabel()
    'cells'
    """
    check_screen(screen)
    requested = screen.obs_names[perturbation_rows(screen, perturbations)] if perturbations else []
    table = read_obs(screen, ["n_cells", "n_tested", "n_hits", "pval", "selected"])
    order = np.lexsort((zero_order(screen, table["pval"].to_numpy()), table["pval"], -table["n_hits"]))
    table = table.iloc[order]
    table = table[table["n_tested"] > 0]
    if table.empty:
        msg = "No perturbation of the screen was tested; the layer 'status' says why."
        raise ValueError(msg)
    hits = table["n_hits"].to_numpy(float)
    x = np.arange(1.0, len(table) + 1) if kind == "ranked" else table["n_cells"].to_numpy(float)

    ax = new_panel(ax)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1, linscale=0.4)
    _set_ticks(ax, x)
    selected = table["selected"].to_numpy(bool)
    for name, mask, colour in (("not selected", ~selected, GREY), ("selected", selected, PICKED)):
        ax.scatter(
            x[mask],
            hits[mask],
            s=3 * point_size(len(table)),
            c=colour,
            alpha=0.8,
            linewidths=0,
            rasterized=True,
            gid=name,
            label=f"{mask.sum():,} {name}",
            zorder=2 + (name == "selected"),
        )
    ax.margins(x=0.1)
    ax.set_ylim(-0.35, max(2.0, 2.5 * hits.max()))
    ax.set_xlabel("perturbations, most hits first" if kind == "ranked" else "cells", fontsize=MEDIUM)
    level = screen.uns["nb_screen"]["fdr"]["level"]
    ax.set_ylabel(f"hits (genes, {100 * level:g}% FDR)", fontsize=MEDIUM)
    title_and_legend(ax, f"perturbations vs {screen.uns['nb_screen']['reference']}")
    named = (np.arange(len(table)) < n_top) & (hits > 0)
    if kind == "ranked":
        lines = [f"{rank}  {name}" for rank, name in enumerate(table.index[named], start=1)]
        ax.text(0.03, 0.12, "\n".join(lines), transform=ax.transAxes, fontsize=SMALL - 1, color=DARK, linespacing=1.3)
        named[:] = False
    top = np.flatnonzero(named | table.index.isin(requested))
    label_points(ax, x, hits, table.index.to_numpy(), top, np.flatnonzero(hits > 0))
    return ax


def _set_ticks(ax: Axes, x: np.ndarray) -> None:
    """Plain numbers; between the powers of ten too where there are few of these."""
    ticker = require("matplotlib.ticker", "plot")
    subs = (1.0, 2.0, 5.0) if x.max() < 100 * x.min() else (1.0,)
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,g}")
