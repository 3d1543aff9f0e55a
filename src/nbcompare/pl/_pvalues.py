from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import is_significant
from nbcompare.get._hypothesis import order_of_evidence
from nbcompare.pl._panel import (
    DARK,
    DOWN,
    GREY,
    MEDIUM,
    PICKED,
    SMALL,
    comparison_table,
    evidence,
    new_panel,
    point_size,
    said_if_untested,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

Kind = Literal["histogram", "qq"]


@checked
def pvalues(
    adata: AnnData,
    group: str | None = None,
    *,
    split: str | None = None,
    key: str = "nb_compare",
    kind: Kind = "histogram",
    bins: int = 20,
    padj_cutoff: float = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """Plot a histogram of p-values, or their quantiles against the uniform distribution.

    A good histogram is flat, perhaps with a peak at the left. The dashed line is the expected height of non-DE genes. Their fraction is
    estimated from the p-values above one half (Storey 2002). A slope up to the right, or a hump in the middle, suggests an unmodelled
    batch effect or a wrong `replicate_key`. In the quantile plot the band contains 95% of the order statistics of independent uniform
    p-values, point by point. Without any DE gene the points lie in it. P-values that are
    too small for a floating-point number are drawn at the height of their scores.

    Parameters
    ----------
    adata
        Data with stored results, or a screen.
    group
        Comparison (the compared group), or perturbation of a screen. Optional if there is only one.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    key
        Key of the results (`key_added` of the call). Ignored for a screen.
    kind
        `"histogram"`, or `"qq"` for the quantiles (-log10).
    bins
        Number of bars of the histogram.
    padj_cutoff
        Genes up to this adjusted p-value are in color in the quantile plot.
    ax
        Axes to draw on. None makes a new figure.

    Returns
    -------
    The Axes. Save the figure with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If the results or the comparison do not exist.
    ValueError
        If there are several comparisons or splits and none is named, or `kind` is unknown.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.pl.pvalues(adata, kind="qq").get_xlabel()
    'expected $-$log$_{10}$ p-value'
    """
    table, title = comparison_table(adata, group, split, key, None)
    ax = new_panel(ax)
    if said_if_untested(ax, table, title):
        return ax
    table = table[table["pvals"].notna()]
    table = table.iloc[order_of_evidence(table["pvals"].to_numpy(), table["scores"].to_numpy())]
    p_value = table["pvals"].to_numpy()
    if kind == "histogram":
        _draw_histogram(ax, p_value, bins)
    else:
        observed = evidence(p_value, table["scores"].to_numpy())
        _draw_quantiles(ax, observed, is_significant(table["pvals_adj"], padj_cutoff).to_numpy())
    ax.set_title(title, loc="left", fontsize=MEDIUM, fontweight="bold")
    return ax


def _draw_histogram(ax: Axes, p_value: np.ndarray, bins: int) -> None:
    """Bars, and the height that genes without an effect have."""
    null_proportion = min(1.0, 2 * float(np.mean(p_value > 0.5)))
    counts, edges = np.histogram(p_value, bins=bins, range=(0, 1))
    ax.stairs(counts, edges, fill=True, color=DOWN, alpha=0.75, edgecolor="white", linewidth=0.4)
    height = null_proportion * p_value.size / bins
    ax.axhline(height, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), gid="null")
    ax.text(
        0.98,
        0.96,
        f"{p_value.size:,} genes\nwithout effect: {100 * null_proportion:.0f} %",
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize=SMALL,
        color=DARK,
    )
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.25 * max(float(counts.max()), height))
    ax.set_xlabel("p-value", fontsize=MEDIUM)
    ax.set_ylabel("genes", fontsize=MEDIUM)


def _draw_quantiles(ax: Axes, observed: np.ndarray, called: np.ndarray) -> None:
    """-log10 of ordered p-values against their expectation k / (n + 1), in the band of the order statistics."""
    from scipy.stats import beta

    n = observed.size
    rank = np.arange(1, n + 1)
    expected = -np.log10(rank / (n + 1))
    low, high = (-np.log10(beta.ppf(q, rank, n + 1 - rank)) for q in (0.975, 0.025))
    ax.fill_between(expected, low, high, color=GREY, alpha=0.4, linewidth=0, gid="band", zorder=1)
    ax.plot([0, expected[0]], [0, expected[0]], color=DARK, linewidth=0.8, zorder=2)
    for name, mask, colour in (("not significant", ~called, DARK), ("significant", called, PICKED)):
        ax.scatter(
            expected[mask],
            observed[mask],
            s=1.5 * point_size(n),
            c=colour,
            linewidths=0,
            rasterized=True,
            gid=name,
            zorder=3,
        )
    ax.text(
        0.03,
        0.96,
        f"{n:,} genes, {called.sum():,} significant",
        transform=ax.transAxes,
        va="top",
        fontsize=SMALL,
        color=DARK,
    )
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="y", integer=True)
    ax.set_xlabel("expected $-$log$_{10}$ p-value", fontsize=MEDIUM)
    ax.set_ylabel("observed $-$log$_{10}$ p-value", fontsize=MEDIUM)
