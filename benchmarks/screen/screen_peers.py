"""illico and edgePython on the cells that screen.py wrote; started by it in an environment that has them. Prints microseconds a comparison."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anndata
import numpy as np


def main() -> None:
    cells = anndata.read_h5ad(Path(sys.argv[1]) / "cells.h5ad")
    for tool in (illico, edgepython):
        try:
            print("us", tool.__name__, tool(cells) * 1e6, flush=True)
        except ImportError as error:
            print(f"{tool.__name__} is not there: {error}")


def illico(cells) -> float:
    from illico import asymptotic_wilcoxon

    small = cells[np.isin(cells.obs["perturbation"], ["control", "p0", "p1"])].copy()
    options = {"is_log1p": False, "group_keys": "perturbation", "reference": "control", "n_threads": 2}
    asymptotic_wilcoxon(small, **options)
    walls = []
    for _ in range(3):
        start = time.perf_counter()
        asymptotic_wilcoxon(cells, **options)
        walls.append(time.perf_counter() - start)
    return float(np.median(walls)) / ((cells.obs["perturbation"].nunique() - 1) * cells.n_vars)


def edgepython(cells) -> float:
    import edgepython as edge

    samples = cells.obs["perturbation"].astype(str) + "|" + cells.obs["replicate"].astype(str)
    wanted = [f"{name}|{k}" for name in ("control", "p0") for k in range(3)]
    counts = np.stack(
        [np.asarray(cells.X[(samples == name).to_numpy()].sum(axis=0)).ravel() for name in wanted], axis=1
    )
    counts = counts[counts.sum(axis=1) >= 10]
    condition = np.repeat([0, 1], 3)
    design = np.column_stack([np.ones(6), condition]).astype(float)
    walls = []
    for _ in range(4):
        start = time.perf_counter()
        data = edge.estimate_disp(edge.make_dgelist(counts.copy(), group=condition), design=design)
        edge.glm_ql_ftest(edge.glm_ql_fit(data, design=design), coef=1)
        walls.append(time.perf_counter() - start)
    return float(np.median(walls[1:])) / len(counts)


if __name__ == "__main__":
    main()
