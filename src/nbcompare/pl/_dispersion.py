from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare.get import _one_group, _results

from ._panel import DOWN, GREY, MEDIUM, UP, comparison_table, new_panel, point_size, title_and_legend

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes


def dispersion(
    adata: AnnData,
    group: str | None = None,
    *,
    key: str = "nb_compare",
    ax: Axes | None = None,
) -> Axes:
    r"""Dispersion against mean count: each gene's own estimate, the trend, and the dispersion that the test used.

    The dispersion is :math:`\phi` of variance :math:`m + \phi m^2`. The band holds 95 % of the genes' true dispersions
    if their logs are normal around the trend with the scatter that was estimated. Own estimates far below the others,
    zero above all, are arrowheads at the bottom. After an unmoderated test there is but one kind of point.

    Parameters
    ----------
    adata
        Data with stored results.
    group
        The comparison (the treated level); may be left out if there is one only.
    key
        Where the results are stored.
    ax
        Where to draw; a new figure otherwise.

    Returns
    -------
    The Axes. Nothing is shown; save with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If there are no such results or comparison.
    ValueError
        If there are several comparisons and none is named.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.pl.dispersion(adata).get_ylabel()
    'dispersion'
    """
    table, title = comparison_table(adata, _one_group(adata, group, key), key, None)
    table = table[(table["base_mean"] > 0) & (table["dispersions"] > 0)].sort_values("base_mean")
    ax = new_panel(ax)
    ax.set_xscale("log")
    ax.set_yscale("log")
    moderated = "dispersions_genewise" in table
    if moderated:
        _draw_genewise(ax, table)
    ax.scatter(
        table["base_mean"],
        table["dispersions"],
        s=point_size(len(table)),
        c=DOWN,
        alpha=0.7,
        linewidths=0,
        rasterized=True,
        gid="used",
        label="moderated" if moderated else "gene-wise",
        zorder=3,
    )
    if "dispersion_trend" in table:
        scatter = float(_results(adata, key).get("trend", {}).get("scatter", np.nan))
        _draw_trend(ax, table, scatter)
    ax.set_xlabel("mean of normalized counts", fontsize=MEDIUM)
    ax.set_ylabel("dispersion", fontsize=MEDIUM)
    title_and_legend(ax, title)
    return ax


def _draw_genewise(ax: Axes, table: pd.DataFrame) -> None:
    """Own estimates; those a hundredfold below nearly all dispersions used, or not above zero, at the lower edge."""
    mean, own = table["base_mean"].to_numpy(), table["dispersions_genewise"].to_numpy()
    floor = np.quantile(table["dispersions"], 0.01) / 30
    low = own <= floor
    shown = np.isfinite(own) & ~low
    style: dict[str, Any] = {"c": GREY, "linewidths": 0, "rasterized": True, "zorder": 2}
    ax.scatter(mean[shown], own[shown], s=point_size(mean.size), alpha=0.7, gid="genewise", label="gene-wise", **style)
    ax.scatter(
        mean[low],
        np.full(low.sum(), floor),
        s=2 * point_size(mean.size),
        marker="v",
        alpha=0.5,
        gid="genewise below",
        **style,
    )


def _draw_trend(ax: Axes, table: pd.DataFrame, scatter: float) -> None:
    """The trend at the genes' means, and how far their dispersions scatter (variance of the natural log)."""
    mean, trend = table["base_mean"].to_numpy(), table["dispersion_trend"].to_numpy()
    ax.plot(mean, trend, color=UP, linewidth=1.4, label="trend", gid="trend", zorder=4)
    if np.isfinite(scatter):
        factor = np.exp(1.96 * np.sqrt(scatter))
        ax.fill_between(
            mean,
            trend / factor,
            trend * factor,
            color=UP,
            alpha=0.15,
            linewidth=0,
            label="95 % band",
            gid="band",
            zorder=1,
        )
