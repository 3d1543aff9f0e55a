from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import Column, one_column, stored_results
from nbcompare.pl._panel import DARK, DOWN, GREY, MEDIUM, PICKED, SMALL, UP, new_panel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes

COLORS = (DOWN, UP, PICKED, "#CC79A7", "#E69F00", "#56B4E9", DARK)  # of the groups in turn
MOST_DIRECTIONS = 20


@checked
def hidden_factors(
    adata: AnnData,
    group: str | None = None,
    *,
    split: str | None = None,
    key: str = "nb_compare",
    kind: Literal["samples", "scree"] = "samples",
    ax: Axes | None = None,
) -> Axes:
    """Draw the hidden factors of a comparison: samples by factor, or the variance of each direction.

    In the figure of samples look for factors whose values differ between the conditions: effects of the condition along such a factor
    are removed together with it. In the scree plot bars are the fractions of the residual variance. The line is the effect that is
    needed for p = 0.001 with that many factors, relative to none, measured on directions without effects: factors help where it falls.

    Parameters
    ----------
    adata
        Data with results of :func:`~nbcompare.tl.nb_compare` with `hidden_factors`.
    group
        The comparison; may be left out if there is one only.
    split
        Split (cell type) of a comparison with `split_by`. Optional if there is only one.
    key
        Key of the results (`key_added` of the call).
    kind
        `"samples"`: value of each factor in each sample, colored by condition. `"scree"`: variance of the residual directions.
    ax
        Axes to draw on. None makes a new figure.

    Returns
    -------
    The Axes. Save the figure with `ax.figure.savefig`.

    Raises
    ------
    KeyError
        If there are no such results or comparison, or they were computed without `hidden_factors`.
    ValueError
        If there are several comparisons or splits and none is named, or if no factors were used.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=600, n_replicates=5, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate", hidden_factors=2)
    >>> nb.pl.hidden_factors(adata, kind="scree").get_xlabel()
    'residual direction (bars), number of factors (line)'
    """
    column = one_column(adata, group, split, key)
    results = stored_results(adata, key)
    stored = _stored(results, column, key)
    ax = new_panel(ax)
    if kind == "samples":
        _draw_samples(ax, results, stored, column)
    else:
        _draw_scree(ax, stored, column)
    ax.set_title(column.name, loc="left", fontsize=MEDIUM, fontweight="bold")
    return ax


def _stored(results: Mapping[str, Any], column: Column, key: str) -> Mapping[str, Any]:
    """What is stored of the factors of one comparison, or an error that says how to get them."""
    found = results.get("hidden_factors")
    if found is not None and column.split is not None:
        found = found.get(str(column.split_number))
    if found is None:
        msg = f"{key!r} was compared without hidden factors. Run nbcompare.tl.nb_compare with hidden_factors='auto' first."
        raise KeyError(msg)
    if found["refused"]:
        msg = f"No hidden factors were estimated: {found['refused']}."
        raise ValueError(msg)
    return found


def _number(stored: Mapping[str, Any], column: Column) -> int:
    """The place of the comparison among those of its data set."""
    return [str(name) for name in stored["comparisons"]].index(column.group)


def _draw_samples(ax: Axes, results: Mapping[str, Any], stored: Mapping[str, Any], column: Column) -> None:
    chosen = np.asarray(stored["factor_of"]) == _number(stored, column)
    factors = np.asarray(stored["factors"])[:, chosen]
    if not factors.shape[1]:
        msg = f"No hidden factors are used in {column.name!r}: there is nothing to draw. kind='scree' shows the residual directions."
        raise ValueError(msg)
    samples = results["samples"]
    if column.split is not None:
        samples = samples[samples["split"].astype(str) == column.split]
    conditions = samples["condition"].astype(str).to_numpy()
    names = list(dict.fromkeys(conditions))
    names.sort(key=lambda name: name != str(results["reference"]))
    for i, name in enumerate(names):
        values = factors[conditions == name]
        offset = (i - (len(names) - 1) / 2) * 0.6 / len(names)
        color = COLORS[i % len(COLORS)]
        for j in range(values.shape[1]):
            ax.scatter(
                np.full(len(values), j + 1 + offset),
                values[:, j],
                s=10,
                c=color,
                linewidths=0,
                alpha=0.85,
                label=name if j == 0 else None,
                zorder=3,
            )
            ax.plot(
                j + 1 + offset + np.array([-0.1, 0.1]), [values[:, j].mean()] * 2, color=color, linewidth=1.2, zorder=4
            )
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=1)
    ax.set_xticks(range(1, factors.shape[1] + 1))
    ax.set_xlabel("hidden factor", fontsize=MEDIUM)
    ax.set_ylabel("value in each sample", fontsize=MEDIUM)
    ax.margins(y=0.2)
    ax.legend(fontsize=SMALL, frameon=False, loc="upper right", ncols=min(len(names), 4), handletextpad=0.1)


def _draw_scree(ax: Axes, stored: Mapping[str, Any], column: Column) -> None:
    share = 100 * np.asarray(stored["variance_share"])
    used = int(np.asarray(stored["n_factors"])[_number(stored, column)])
    shown = min(len(share), MOST_DIRECTIONS)
    colors = [DOWN if j < used else GREY for j in range(shown)]
    ax.bar(np.arange(1, shown + 1), share[:shown], color=colors, width=0.75)
    ax.axhline(100 / len(share), color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), gid="even")
    ax.set_ylim(0, 1.25 * share.max())
    ax.set_xlim(-0.6, shown + 0.6)
    ax.set_xlabel("residual direction (bars), number of factors (line)", fontsize=MEDIUM)
    ax.set_ylabel("residual variance (%)", fontsize=MEDIUM)
    score = np.asarray(stored["score"])
    other = ax.twinx()
    other.plot(np.arange(len(score)), np.exp(score - score[0]), color=UP, linewidth=1, marker="o", markersize=2.5)
    other.spines[["top"]].set_visible(False)
    other.tick_params(labelsize=SMALL, width=0.6, length=2.5, colors=UP)
    other.set_ylabel("effect for p = 0.001, relative", fontsize=MEDIUM, color=UP)
    ax.text(
        0.98,
        0.97,
        f"{used} of {len(share)} used",
        transform=ax.transAxes,
        ha="right",
        va="top",
        fontsize=SMALL,
        color=DARK,
    )
