from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import is_significant
from nbcompare.get._screen_arrays import check_screen, perturbation_rows, read_obs
from nbcompare.pl._panel import (
    DARK,
    DOWN,
    GREY,
    MEDIUM,
    SMALL,
    UP,
    draw_intervals,
    interval_limits,
    label_points,
    new_panel,
    title_and_legend,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

MOST_NAMED = 60  # perturbations, one line each


@checked
def knockdown(
    screen: AnnData,
    *,
    perturbations: str | Sequence[str] | None = None,
    padj_cutoff: float = 0.05,
    n_top: int = 5,
    ax: Axes | None = None,
) -> Axes:
    """Plot the knockdown efficiency of each perturbation, with 95% intervals, in order.

    The figure shows the perturbations with the name of a tested gene in `var_names`. The interval is `on_target_lfc_lower` to
    `on_target_lfc_upper`. Intervals that are much longer than the others, or infinite because a group has no counts, end in an arrowhead.
    Targets that went down or up are in color at the false discovery rate `padj_cutoff` over all on-target tests of the screen
    :cite:p:`benjamini1995`. The dashed line is 50% expression. Up to 60 perturbations have one labeled row each. If there are more, only
    the strongest knockdowns and the targets that went up are labeled.

    Parameters
    ----------
    screen
        What :func:`nbcompare.tl.nb_screen` returned, in memory or lazily read; only its `.obs` is read.
    perturbations
        The perturbations to show, all for `None`.
    padj_cutoff
        Targets up to this adjusted p-value are in color.
    n_top
        Number of perturbations to label at both ends, if there are more than 60.
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
        If this is no screen, or none of the perturbations names a gene that was tested.
    ImportError
        If matplotlib or adjustText is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.papalexi2021()
    >>> design = {"reference": "control", "replicate_key": "replicate", "block_key": "replicate"}
    >>> screen = nb.tl.nb_screen(adata, "perturbation", **design, progress=False)
    >>> nb.pl.knockdown(screen).get_xlabel()
    'log$_2$ fold change of the target'
    """
    check_screen(screen)
    table = _on_target(screen, perturbations)
    changed = is_significant(table["pval_adj"], padj_cutoff).to_numpy()
    change = table["change"].to_numpy()
    calls = {"down": changed & (change < 0), "up": changed & (change > 0), "not significant": ~changed}

    named = len(table) <= MOST_NAMED
    ax = new_panel(ax, height=0.9 + 0.115 * len(table) if named else 2.9)
    _draw_intervals(ax, table, calls, upright=not named)
    left = 100 * 2 ** float(np.median(change))
    title = f"target vs {screen.uns['nb_screen']['reference']}, median residual expression {left:.0f}%"
    title_and_legend(ax, title)
    if named:
        ax.set_yticks(np.arange(len(table)), table.index, fontsize=SMALL - 1)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(table) + 0.1, -0.8)
        ax.set_xlabel("log$_2$ fold change of the target", fontsize=MEDIUM)
    else:
        ax.set_xlabel("perturbations, in order", fontsize=MEDIUM)
        ax.set_ylabel("log$_2$ fold change of the target", fontsize=MEDIUM)
        place = np.arange(len(table), dtype=float)
        top = np.flatnonzero((place < n_top) | (calls["up"] & (place >= len(table) - n_top)))
        label_points(ax, place, change, table.index.to_numpy(), top, np.arange(0, len(table), 1 + len(table) // 500))
    return ax


def _on_target(screen: AnnData, perturbations: str | Sequence[str] | None) -> pd.DataFrame:
    """Effect on the own target, lowest first, p-values adjusted over all of them."""
    from scipy.stats import false_discovery_control

    rows = perturbation_rows(screen, perturbations)
    columns = {
        "on_target_logfoldchange": "change",
        "on_target_lfc_lower": "lower",
        "on_target_lfc_upper": "upper",
        "on_target_pval": "pval",
    }
    table = read_obs(screen, list(columns)).rename(columns=columns).astype(float)
    tested = table["pval"].notna()
    table.loc[tested, "pval_adj"] = false_discovery_control(table.loc[tested, "pval"]) if tested.any() else np.nan
    table = table.iloc[rows]
    table = table[table["pval"].notna()].sort_values("change", kind="stable")
    if table.empty:
        msg = (
            f"None of the {len(rows)} perturbations names a gene of var_names that was tested, so there is no target to "
            f"look at. Perturbations are named like {str(screen.obs_names[0])!r}, genes like {str(screen.var_names[0])!r}."
        )
        raise ValueError(msg)
    return table


def _draw_intervals(ax: Axes, table: pd.DataFrame, calls: dict[str, np.ndarray], *, upright: bool) -> None:
    """Point and interval of each perturbation; the lines of no change and of half the expression."""
    place, change = np.arange(len(table)), table["change"].to_numpy()
    lower, upper = table["lower"].to_numpy(), table["upper"].to_numpy()
    limits = interval_limits(change, lower, upper, always=(-1.0, 0.0))
    many: dict[str, Any] = {"linewidth": 0.4 if upright else 0.9, "rasterized": upright, "zorder": 2}
    for name, colour in (("down", DOWN), ("up", UP), ("not significant", GREY)):
        mask = calls[name]
        draw_intervals(
            ax,
            place[mask],
            lower[mask],
            upper[mask],
            [colour] * int(mask.sum()),
            limits,
            gid=f"{name} 95%",
            upright=upright,
            arrow=8.0 if upright else 14.0,
            alpha=0.5 if upright else 1,
            **many,
        )
        points = (place[mask], change[mask]) if upright else (change[mask], place[mask])
        size = float(np.clip(2000 / len(table), 3, 14)) if upright else 14
        label = f"{mask.sum():,} {name}"
        ax.scatter(*points, s=size, c=colour, linewidths=0, rasterized=upright, gid=name, label=label, zorder=3)
    (ax.set_ylim if upright else ax.set_xlim)(*limits)
    line = ax.axhline if upright else ax.axvline
    line(0, color=DARK, linewidth=0.6, zorder=1)
    line(-1, color=DARK, linewidth=0.6, linestyle=(0, (4, 3)), zorder=1, gid="half")
    style: dict[str, Any] = {"fontsize": SMALL - 1, "color": DARK}
    if upright:
        ax.annotate("half", (1.01, -1), xycoords=("axes fraction", "data"), va="center", **style)
    else:
        ax.annotate("half ", (-1, len(table)), va="bottom", ha="right", **style)
