"""Order by similarity, and the tree that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from nbcompare.pl._panel import DARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Tree:
    """Leaves in their order, and the brackets that join them: four corners each."""

    leaves: np.ndarray  # (n,) positions in the input
    x: np.ndarray  # (n - 1, 4) along the leaves, the first leaf at 0
    height: np.ndarray  # (n - 1, 4)


def cluster(values: np.ndarray) -> Tree:
    """Average linkage of the cosine distances between rows; a row of zeros is as far from all others as unrelated ones."""
    from scipy.cluster.hierarchy import dendrogram, linkage

    n = values.shape[0]
    if n < 2:
        return Tree(np.arange(n), np.empty((0, 4)), np.empty((0, 4)))
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = values / np.where(length > 0, length, 1.0)
    distance = 1.0 - (unit @ unit.T)[np.triu_indices(n, 1)]
    drawn = dendrogram(linkage(np.maximum(distance, 0.0), "average", optimal_ordering=True), no_plot=True)
    return Tree(np.array(drawn["leaves"]), (np.array(drawn["icoord"]) - 5) / 10, np.array(drawn["dcoord"]))


def draw_tree(ax: Axes, tree: Tree, *, side: Literal["top", "right"]) -> None:
    """The tree in an Axes of its own, its leaves on the map's side."""
    n = tree.leaves.size
    ax.set_axis_off()
    for x, height in zip(tree.x, tree.height, strict=True):
        ax.plot(*((x, height) if side == "top" else (height, x)), color=DARK, linewidth=0.5)
    top = 1.02 * np.max(tree.height, initial=1e-9)
    if side == "top":
        ax.set(xlim=(-0.5, n - 0.5), ylim=(0, top))
    else:
        ax.set(ylim=(n - 0.5, -0.5), xlim=(0, top))
