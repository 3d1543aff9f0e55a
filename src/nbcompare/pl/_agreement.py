from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import one_column, stored_comparison, stored_results
from nbcompare.get._hypothesis import hypothesis_of
from nbcompare.pl._panel import (
    DARK,
    DOWN,
    MEDIUM,
    PICKED,
    UP,
    new_panel,
    point_size,
    said_if_untested,
    title_and_legend,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

Values = Literal["logfoldchanges", "dispersions"]
COLOURS = (UP, DOWN, PICKED)
SHOWN = (1e-4, 1e2)  # dispersions; what lies beyond stands on the edge


@checked
def agreement(
    adata: AnnData,
    keys: Sequence[str],
    group: str | None = None,
    *,
    split: str | None = None,
    values: Values = "logfoldchanges",
    ax: Axes | None = None,
) -> Axes:
    """Plot estimates of several calls against those of the first.

    Rings are genes outside the range that the network was trained on (status `outside_training`), in any of the calls. Posterior
    estimates are shrunken towards zero, or towards the dispersion trend, most for genes with few counts.

    Parameters
    ----------
    adata
        Data with stored results of several calls.
    keys
        Keys of the results (`key_added` of each call). The first is on the x axis, the others, at most three, are in colors.
    group
        Comparison (the compared group). Optional if there is only one.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    values
        `"logfoldchanges"` (log2), or `"dispersions"`: each gene's own, of a posterior its median.
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
        If there are fewer than two keys or more than four, or several comparisons or splits and none is named.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> for method in ("mom", "quadrature"):
    ...     nb.tl.nb_compare(
    ...         adata, "condition", reference="ctrl", replicate_key="replicate", method=method, key_added=method
    ...     )
    >>> nb.pl.agreement(adata, ["mom", "quadrature"]).get_ylabel()
    'log$_2$ fold change, quadrature'
    """
    keys = [keys] if isinstance(keys, str) else list(keys)
    if not 2 <= len(keys) <= len(COLOURS) + 1:
        msg = f"keys names {len(keys)} results, but two to {len(COLOURS) + 1} are compared: the first with the others."
        raise ValueError(msg)
    columns = [one_column(adata, group, split, key) for key in keys]
    if values == "logfoldchanges":
        for column, key in zip(columns, keys, strict=True):
            tested = hypothesis_of(stored_results(adata, key), column)
            tested.check_effect(column.name, "values='logfoldchanges'")
    tables = [stored_comparison(adata, column, key) for column, key in zip(columns, keys, strict=True)]
    outside = np.any([table["status"].str.contains("outside_training").to_numpy() for table in tables], axis=0)
    numbers = [_numbers(table, values) for table in tables]

    ax = new_panel(ax, width=3.2, height=3.2)
    reference = stored_results(adata, keys[0])["reference"]
    title = f"{columns[0].name} vs {reference}" if reference else columns[0].name
    for table in tables:
        if said_if_untested(ax, table, title):
            return ax
    size = point_size(len(outside))
    for key, y, colour in zip(keys[1:], numbers[1:], COLOURS, strict=False):
        x = numbers[0]
        ax.scatter(x, y, s=size, c=colour, linewidths=0, alpha=0.6, rasterized=True, gid=key, label=key, zorder=2)
        ring = outside & np.isfinite(x) & np.isfinite(y)
        if ring.any():
            ax.scatter(
                x[ring],
                y[ring],
                s=6 * size,
                facecolors="none",
                edgecolors=DARK,
                linewidths=0.5,
                gid="outside",
                zorder=3,
            )
    if outside.any():
        ax.scatter([], [], s=14, facecolors="none", edgecolors=DARK, linewidths=0.5, label="outside training")
    found = np.concatenate([n[np.isfinite(n)] for n in numbers])
    low, high = (found.min(), found.max()) if found.size else (0.1, 1.0)
    ax.plot([low, high], [low, high], color=DARK, linewidth=0.6, zorder=1, gid="equal")
    name = "dispersion" if values == "dispersions" else "log$_2$ fold change"
    if values == "dispersions":
        ax.set_xscale("log")
        ax.set_yscale("log")
    ax.set_xlabel(f"{name}, {keys[0]}", fontsize=MEDIUM)
    ax.set_ylabel(f"{name}, {keys[1] if len(keys) == 2 else 'others'}", fontsize=MEDIUM)
    title_and_legend(ax, title)
    return ax


def _numbers(table: pd.DataFrame, values: Values) -> np.ndarray:
    """What is compared: NaN where not tested, dispersions within what is shown."""
    if values == "logfoldchanges":
        return table["logfoldchanges"].where(table["pvals"].notna()).to_numpy()
    own = "null_probability" not in table and "dispersions_genewise" in table
    found = table["dispersions_genewise" if own else "dispersions"].where(table["pvals"].notna())
    return found.clip(*SHOWN).to_numpy()
