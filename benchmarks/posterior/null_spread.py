"""Genes found in null splits, and FDR and power of known signals, by the posterior with and without null spread, and by Benjamini-Hochberg.

    python benchmarks/posterior/null_spread.py DATA [--sets 16] [--cells men women thinned up independent] [--method transformer]

DATA is the folder of the shared data sets. A posterior finds the largest set of genes whose mean null probability is at most 0.05.
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

import nbcompare as nb

LEVEL = 0.05
Table = tuple[np.ndarray, np.ndarray, np.ndarray]  # counts (n_genes, n_samples), group, log fold changes


@cache
def montgomery(data: Path, sex: str) -> np.ndarray:
    """Counts of one sex."""
    table = pd.read_csv(data / "montgomery_counts.csv.gz", index_col=0)
    sexes = pd.read_csv(data / "montgomery_samples.csv")["gender"].astype(str).str.lower()
    kept = [name for name, one in zip(table.columns, sexes, strict=True) if one.startswith(sex) and "12892" not in name]
    return table[kept].to_numpy()


@cache
def kang(data: Path) -> np.ndarray:
    """Control monocytes, one sample a donor."""
    cells = ad.read_h5ad(data / "kang2018_pbmc_8donors.h5ad")
    control = (cells.obs["condition"] == "ctrl").to_numpy() & cells.obs["cell_type"].astype(str).str.contains("CD14")
    cells = cells[control.to_numpy()]
    donors = cells.obs["donor"].astype(str).to_numpy()
    return np.stack([np.asarray(cells.X[donors == one].sum(axis=0)).ravel() for one in sorted(set(donors))], axis=1)


def null_split(counts: np.ndarray, n: int, rng: np.random.Generator) -> Table:
    """Samples of one condition in two random groups."""
    chosen = counts[:, rng.permutation(counts.shape[1])[: 2 * n]]
    chosen = chosen[chosen.sum(axis=1) >= 10]
    return chosen, np.repeat([0, 1], n), np.zeros(len(chosen))


def thinned(counts: np.ndarray, n: int, rng: np.random.Generator, share: float = 0.1, one_sided: bool = False) -> Table:
    """The same with log fold changes of standard deviation 1 in a fraction of the genes, by binomial thinning."""
    chosen, group, _ = null_split(counts, n, rng)
    fold = np.where(rng.random(len(chosen)) < share, rng.normal(0, 1.0, len(chosen)), 0.0)
    fold = np.abs(fold) if one_sided else fold
    kept = np.where((group == 0) == (fold[:, None] > 0), np.exp(-np.abs(fold))[:, None], 1.0)
    return rng.binomial(chosen.astype(int), kept), group, fold


def simulated(n: int, rng: np.random.Generator, share: float = 0.1, one_sided: bool = False) -> Table:
    """Independent genes."""
    mean = np.exp(rng.uniform(np.log(2), np.log(1000), 6000))
    phi = (0.05 * (1 + 5 / mean) * rng.lognormal(0, 0.7, len(mean)))[:, None]
    fold = np.where(rng.random(len(mean)) < share, rng.normal(0, 0.8, len(mean)), 0.0)
    fold, group = np.abs(fold) if one_sided else fold, np.repeat([0, 1], n)
    rates = mean[:, None] * rng.lognormal(0, 0.3, 2 * n) * np.exp(fold[:, None] * (group - 0.5))
    return rng.poisson(rates * rng.gamma(1 / phi, phi, rates.shape)), group, fold


def cells(data: Path) -> dict[str, Callable[[int], Table]]:
    """Every row of the table: its n-th data set."""
    rows: dict[str, Callable[[int], Table]] = {}
    rng = lambda *seed: np.random.default_rng(seed)
    for n in (3, 5, 8):
        for name, sex in (("women", "f"), ("men", "m")):
            rows[f"{name} {n} vs {n}"] = lambda s, n=n, sex=sex: null_split(montgomery(data, sex), n, rng(9, n, s))
    rows["kang 4 vs 4"] = lambda s: null_split(kang(data), 4, rng(5, s))
    for n in (3, 5, 8):
        rows[f"thinned 10% {n} vs {n}"] = lambda s, n=n: thinned(montgomery(data, "f"), n, rng(31, n, s))
        rows[f"thinned 30% up {n} vs {n}"] = lambda s, n=n: thinned(
            montgomery(data, "f"), n, rng(31, n, s), 0.3, one_sided=True
        )
    for n in (3, 5):
        rows[f"independent 10% {n} vs {n}"] = lambda s, n=n: simulated(n, rng(41, n, s))
        rows[f"up 30%, independent {n} vs {n}"] = lambda s, n=n: simulated(n, rng(41, n, s), 0.3, one_sided=True)
    return rows


def found_by_posterior(null_probability: np.ndarray) -> np.ndarray:
    """The largest set of genes whose mean null probability is at most the level, (n_genes,) bool."""
    values = np.where(np.isfinite(null_probability), null_probability, 1.0)
    order = np.argsort(values, kind="stable")
    below = np.flatnonzero(np.cumsum(values[order]) / np.arange(1, len(order) + 1) <= LEVEL)
    found = np.zeros(len(order), bool)
    found[order[: below[-1] + 1 if len(below) else 0]] = True
    return found


def measured(table: Table, method: str) -> dict[str, dict[str, float]]:
    """What each way finds in a data set."""
    counts, group, fold = table
    obs = pd.DataFrame({"group": group.astype(str)}, index=[f"s{i}" for i in range(len(group))])
    rows, network = {}, {"importance_sampling": False} if method == "transformer" else {}
    for name, spread in (("without", False), ("with", True)):
        adata = ad.AnnData(counts.T.astype(np.float32), obs=obs)
        nb.tl.nb_compare(
            adata, "group", reference="0", min_cells=0, method=method, null_spread=spread, verbose=False, **network
        )
        found = found_by_posterior(adata.varm["nb_compare_null_probability"][:, 0])
        rows[name] = score(found, fold) | {
            "null_spread": adata.uns["nb_compare"]["null_spread"][0],
            "shift": adata.uns["nb_compare"]["common_shift"][0],
        }
    rows["BH"] = score(adata.varm["nb_compare_pvals_adj"][:, 0] <= LEVEL, fold)
    return rows


def score(found: np.ndarray, fold: np.ndarray) -> dict[str, float]:
    """Number of genes found, false discovery proportion and power."""
    true = fold != 0
    power = (found & true).sum() / true.sum() if true.any() else np.nan
    return {"found": found.sum(), "fdr": (found & ~true).sum() / max(1, found.sum()), "power": power}


def main() -> None:
    """Print one line for each row of the table and each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--cells", nargs="*", default=[""], help="starts of the names of rows")
    parser.add_argument("--method", default="transformer", choices=["transformer", "quadrature"])
    requested = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name, make in cells(requested.data).items():
        if not name.startswith(tuple(requested.cells)):
            continue
        sets = [measured(make(s), requested.method) for s in range(requested.sets)]
        for way in sets[0]:
            table = pd.DataFrame([one[way] for one in sets])
            mean, most = table.mean(), table["found"].max()
            print(
                f"{name:28s} {way:8s} found {mean['found']:7.1f} most {most:5.0f} in {(table['found'] > 0).sum():2d} of {len(table)} sets  "
                f"FDR {mean['fdr']:.3f} ({table['fdr'].quantile(0.9):.2f}) power {mean['power']:.3f} "
                f"spread {mean.get('null_spread', np.nan):.2f} shift {mean.get('shift', np.nan):+.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
