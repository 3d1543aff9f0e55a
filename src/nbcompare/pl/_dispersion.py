from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import one_column, stored_results, stored_trend
from nbcompare.pl._panel import (
    DARK,
    DOWN,
    GREY,
    MEDIUM,
    SMALL,
    UP,
    comparison_table,
    new_panel,
    point_size,
    said_if_untested,
    say_in_panel,
    title_and_legend,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes


@checked
def dispersion(
    adata: AnnData,
    group: str | None = None,
    *,
    split: str | None = None,
    key: str = "nb_compare",
    ax: Axes | None = None,
) -> Axes:
    r"""Plot dispersions against mean counts: gene-wise estimates, trend, and the dispersion of the test.

    The dispersion is :math:`\phi` of variance :math:`m + \phi m^2`. The band contains 95% of the true dispersions, if their
    logarithms are normal around the trend with the estimated spread. Gene-wise estimates far below the others, such as zero, are arrowheads at
    the bottom. The trend is a mean, so most genes lie below it. If the replicates of the group vary more than those of the other groups
    (status `high_dispersion_group`), a dashed line shows the trend times their dispersion ratio. Without moderation there is one kind
    of point. With `dispersion="pair"` the trend is that of the last comparison.

    Parameters
    ----------
    adata
        Data with stored results.
    group
        Comparison (the compared group). Optional if there is only one.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    key
        Key of the results (`key_added` of the call).
    ax
        Axes to draw on. None makes a new figure.

    Returns
    -------
    The Axes. Save the figure with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If the results, comparison or split do not exist.
    ValueError
        If there are several comparisons or splits and none is named.
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
    column, results = one_column(adata, group, split, key), stored_results(adata, key)
    table, title = comparison_table(adata, group, split, key, None)
    ax = new_panel(ax)
    if said_if_untested(ax, table, title):
        return ax
    table = table[(table["base_mean"] > 0) & (table["dispersions"] > 0)].sort_values("base_mean")
    if table.empty:
        say_in_panel(ax, "no gene has a dispersion above zero")
        ax.set_title(title, loc="left", fontsize=MEDIUM, fontweight="bold")
        return ax
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
    groups = [str(name) for name in dict.fromkeys(results["comparisons"])]
    number = groups.index(column.group)
    pairwise = results["params"].get("dispersion") == "pair" and number + 1 < len(groups)
    trend = stored_trend(results, column.split_number)
    if trend and not pairwise:
        samples = results["samples"]
        depths = (
            samples["size_factor"]
            if column.split is None
            else samples.loc[samples["split"] == column.split, "size_factor"]
        )
        dispersion_ratio = (
            float(np.asarray(trend["dispersion_ratio"])[number, 1]) if "dispersion_ratio" in trend else 1.0
        )
        _draw_trend(ax, table["base_mean"], trend, depths.mean(), dispersion_ratio=dispersion_ratio)
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
    if low.any():
        ax.annotate(
            "0 or far below",
            (1, floor),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            fontsize=SMALL - 1,
            color=DARK,
        )


def _draw_trend(
    ax: Axes, means: pd.Series, stored: Mapping[str, Any], depth: float, *, dispersion_ratio: float
) -> None:
    """The trend between its knots, and how far dispersions spread around it (variance of the natural log).

    The knots are mean counts; divided by `depth`, the mean size factor, they are means of normalized counts.
    """
    knots = np.asarray(stored["mean"]) / depth
    inside = knots[(knots > means.min()) & (knots < means.max())]
    mean = np.concatenate([[means.min()], inside, [means.max()]])
    trend = np.exp(np.interp(np.log(mean), np.log(knots), np.log(stored["dispersion"])))
    ax.plot(mean, trend, color=UP, linewidth=1.4, label="trend", gid="trend", zorder=4)
    if dispersion_ratio > 1:
        ax.plot(
            mean,
            dispersion_ratio * trend,
            color=UP,
            linewidth=1,
            linestyle=(0, (3, 2)),
            gid="dispersion_ratio",
            zorder=4,
        )
        ax.annotate(
            f"x {dispersion_ratio:.1f}",
            (mean[-1], dispersion_ratio * trend[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL - 1,
            color=UP,
        )
    factor = np.exp(1.96 * np.sqrt(stored["log_dispersion_var"]))
    style: dict[str, Any] = {"color": UP, "alpha": 0.15, "linewidth": 0, "zorder": 1}
    ax.fill_between(mean, trend / factor, trend * factor, label="95% band", gid="band", **style)
