"""FDR and power of the default test with and without the common shift: known signals in real null splits, and simulated genes.

    python benchmarks/posterior/common_shift.py DATA [--sets 12] [--cells montgomery papalexi simulated kang]

DATA is the folder of the shared data sets. Power is that at Benjamini-Hochberg 0.05.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from null_spread import kang, montgomery, score, simulated, thinned

import nbcompare as nb

LEVEL = 0.05
Blocked = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]  # counts, group, log fold changes, blocks


@cache
def papalexi(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts of control guides by replicate, (n_genes, n_samples), and the replicate of each sample."""
    cells = ad.read_h5ad(data / "papalexi2021_eccite_a.h5ad")
    cells = cells[cells.obs["is_control"].to_numpy().astype(bool)]
    names = (cells.obs["guide"].astype(str) + "|" + cells.obs["replicate"].astype(str)).to_numpy()
    samples = sorted(set(names))
    counts = np.stack([np.asarray(cells.X[names == one].sum(axis=0)).ravel() for one in samples], axis=1)
    return counts, np.array([one.split("|")[1] for one in samples])


def panel(data: Path, rng: np.random.Generator, share: float = 0.1, one_sided: bool = False) -> Blocked:
    """The targeted panel: guides of each replicate in two random groups, and thinned genes."""
    counts, block = papalexi(data)
    group = np.zeros(len(block), int)
    for one in sorted(set(block)):
        at = rng.permutation(np.flatnonzero(block == one))
        group[at[: (len(at) + (rng.random() < 0.5)) // 2]] = 1
    counts = counts[counts.sum(axis=1) >= 10].astype(int)
    fold = np.where(rng.random(len(counts)) < share, rng.normal(0, 1.0, len(counts)), 0.0)
    fold = np.abs(fold) if one_sided else fold
    kept = np.where((group == 0) == (fold[:, None] > 0), np.exp(-np.abs(fold))[:, None], 1.0)
    return rng.binomial(counts, kept), group, fold, block


def cells(data: Path) -> dict[str, Callable[[int], Blocked]]:
    """Every row of the table: its n-th data set."""
    rows: dict[str, Callable[[int], Blocked]] = {}
    rng = lambda *seed: np.random.default_rng(seed)
    for name, share, one_sided in (("10%", 0.1, False), ("30% up", 0.3, True), ("60% up", 0.6, True)):
        kind = {"share": share, "one_sided": one_sided}
        for n in (4, 8):
            rows[f"simulated {name}, {n} vs {n}"] = lambda s, n=n, k=kind: (*simulated(n, rng(77, n, s), **k), None)
            rows[f"montgomery {name}, {n} vs {n}"] = lambda s, n=n, k=kind: (
                *thinned(montgomery(data, "f"), n, rng(26, n, s), **k),
                None,
            )
        rows[f"papalexi {name}"] = lambda s, k=kind: panel(data, rng(5, s), **k)
        rows[f"kang {name}, 4 vs 4"] = lambda s, k=kind: (*thinned(kang(data), 4, rng(14, s), **k), None)
    return rows


def measured(table: Blocked) -> dict[str, dict[str, float]]:
    """What the test finds with and without the common shift."""
    counts, group, fold, block = table
    obs = pd.DataFrame({"group": group.astype(str)}, index=[f"s{i}" for i in range(len(group))])
    blocks = {} if block is None else {"block_key": "block"}
    obs = obs if block is None else obs.assign(block=block)
    rows = {}
    for name, shift in (("without", False), ("with", True)):
        adata = ad.AnnData(counts.T.astype(np.float32), obs=obs)
        nb.tl.nb_compare(
            adata,
            "group",
            reference="0",
            min_cells=0,
            common_shift=shift,
            allow_cells_as_replicates=True,
            verbose=False,
            **blocks,
        )
        found = adata.varm["nb_compare_pvals_adj"][:, 0] <= LEVEL
        p, unchanged = adata.varm["nb_compare_pvals"][:, 0], fold == 0
        rows[name] = score(found, fold) | {
            "shift": adata.uns["nb_compare"]["common_shift"][0] if shift else np.nan,
            "false": np.nanmean(p[unchanged & np.isfinite(p)] < 0.01),
        }
    return rows


def main() -> None:
    """Print one line for each row of the table and each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--cells", nargs="*", default=[""], help="starts of the names of rows")
    requested = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name, make in cells(requested.data).items():
        if not name.startswith(tuple(requested.cells)):
            continue
        sets = [measured(make(s)) for s in range(requested.sets)]
        for way in sets[0]:
            table = pd.DataFrame([one[way] for one in sets])
            mean = table.mean()
            print(
                f"{name:28s} {way:8s} FDR {mean['fdr']:.3f} ({table['fdr'].quantile(0.9):.2f}) power {mean['power']:.3f} "
                f"p < 0.01 {mean['false']:.4f} shift {mean['shift']:+.3f} ({table['shift'].abs().max():.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
