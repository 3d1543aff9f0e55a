from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import one_column, stored_prior, stored_results
from nbcompare.get._screen_arrays import is_screen, prior_of_perturbation
from nbcompare.pl._panel import DARK, DOWN, GREY, MEDIUM, PICKED, SMALL, UP, check_genes, comparison_table, new_panel

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

ROOM = 1.35  # height of the panel over that of the curves: the legend stands there
REACH = 3.5  # standard deviations of the curves that are shown


@checked
def posterior(
    adata: AnnData,
    gene: str,
    group: str | None = None,
    *,
    split: str | None = None,
    key: str = "nb_compare",
    truth: float | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot prior and posterior of the log2 fold change of one gene.

    The curves are normal densities with the stored mean and standard deviation, given a change. Their areas are the probabilities of a
    change. The bars at zero are the probabilities of no change, on a scale from 0 to 1 on the right. The posterior is
    relative to the common shift of the comparison (`common_shift` in `.uns`, or in `.obs` of a screen), which the estimate without prior
    contains.

    Parameters
    ----------
    adata
        Data with a stored posterior, of method `"transformer"` or `"quadrature"`, or a screen with one.
    gene
        Name of the gene in `var_names`.
    group
        Comparison (the compared group), or perturbation of a screen. Optional if there is only one.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    key
        Key of the results (`key_added` of the call).
    truth
        A log2 fold change to mark, if it is known.
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
        If the results, comparison, split, gene or column do not exist.
    ValueError
        If no posterior is stored, the gene was not tested, or there are several comparisons or splits and none is named.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate", method="quadrature")
    >>> nb.pl.posterior(adata, "gene_00").get_title(loc="left")
    'gene_00, treated_1 vs ctrl'
    """
    check_genes(adata, [gene])
    table, title = comparison_table(adata, group, split, key, gene_symbols)
    if "null_probability" not in table:
        what, function = ("The screen", "nb_screen") if is_screen(adata) else (repr(key), "nb_compare")
        msg = f"{what} holds no posterior. Run nbcompare.tl.{function} with method='transformer' or 'quadrature'."
        raise ValueError(msg)
    row = table[table["names"] == gene].iloc[0]
    if not np.isfinite(row["null_probability"]):
        msg = f"{gene!r} was not tested in {title!r}: {row['status']}. It has no posterior to show."
        raise ValueError(msg)
    prior = (
        prior_of_perturbation(adata, group)
        if is_screen(adata)
        else stored_prior(stored_results(adata, key), one_column(adata, group, split, key))
    )
    ax = new_panel(ax)
    _draw(ax, row, prior, truth)
    ax.set_title(f"{row['label']}, {title}", loc="left", fontsize=MEDIUM, fontweight="bold")
    return ax


def _draw(ax: Axes, row: pd.Series, prior: dict[str, float], truth: float | None) -> None:
    null, share = float(row["null_probability"]), prior["null_proportion"]
    mean, sd = _given_change(row)
    shown = [mean - REACH * sd, mean + REACH * sd, row["lfc_unshrunken"], -1.5 * prior["lfc_sd"], 1.5 * prior["lfc_sd"]]
    x = np.linspace(min(shown), max(shown), 600)
    before, after = (1 - share) * _normal(x, 0.0, prior["lfc_sd"]), (1 - null) * _normal(x, mean, sd)
    colour = UP if row["logfoldchanges"] > 0 else DOWN
    ax.fill_between(x, before, color=GREY, alpha=0.5, linewidth=0, gid="prior", label="prior")
    ax.plot(x, after, color=colour, linewidth=1.2, gid="posterior", label="posterior")
    ax.fill_between(x, after, color=colour, alpha=0.15, linewidth=0)
    top = ROOM * max(before.max(), after.max())
    ax.set_ylim(-0.2 * top, top)
    width = 0.012 * (x[-1] - x[0])
    style: dict[str, Any] = {"linewidth": 0, "zorder": 3}
    ax.bar(-width, share * top / ROOM, 1.6 * width, color=GREY, gid="prior at zero", **style)
    ax.bar(width, null * top / ROOM, 1.6 * width, color=colour, gid="posterior at zero", **style)
    ax.axhline(0, color=DARK, linewidth=0.6)
    interval = [row["lfc_lower"], row["lfc_upper"]]
    ax.plot(
        interval,
        [-0.07 * top] * 2,
        color=colour,
        linewidth=2,
        solid_capstyle="butt",
        gid="interval",
        label="95% interval",
    )
    ax.plot(row["logfoldchanges"], -0.07 * top, "o", color=colour, markersize=4, gid="mean")
    ax.plot(
        row["lfc_unshrunken"],
        -0.14 * top,
        "D",
        color=DARK,
        markersize=3,
        gid="estimate",
        label="estimate without prior",
    )
    if truth is not None:
        ax.axvline(truth, color=PICKED, linewidth=1, linestyle=(0, (4, 3)), gid="truth", label="truth")
    ax.set_xlabel("log$_2$ fold change", fontsize=MEDIUM)
    ax.set_ylabel("density", fontsize=MEDIUM)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick < top])
    of_zero = ax.secondary_yaxis("right", functions=_in_units_of(top / ROOM))
    of_zero.set_yticks([0, 0.5, 1])
    of_zero.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    of_zero.spines["right"].set_linewidth(0.6)
    of_zero.set_ylabel("probability of no change (bars)", fontsize=MEDIUM)
    ax.legend(
        loc="upper left", ncols=2, frameon=False, fontsize=SMALL, handlelength=1.2, columnspacing=1.0, borderpad=0
    )


def _in_units_of(height: float) -> tuple[Any, Any]:
    """To a scale on which this height is one, and back."""
    return (lambda y: y / height), (lambda share: share * height)


def _given_change(row: pd.Series) -> tuple[float, float]:
    """Mean and standard deviation given a change, from those with the mass at zero."""
    change = max(1.0 - float(row["null_probability"]), 1e-9)
    mean = float(row["logfoldchanges"]) / change
    variance = float(row["lfc_sd"]) ** 2 / change - (1.0 - change) * mean**2
    return mean, float(np.sqrt(max(variance, 1e-6)))


def _normal(x: np.ndarray, mean: float, sd: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / sd) ** 2) / (np.sqrt(2 * np.pi) * sd)
