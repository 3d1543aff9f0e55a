"""Hidden factors: power and false discovery rate on real samples without an effect, with effects thinned in, and on simulations.

    python benchmarks/hidden/hidden.py DATA             # all cells
    python benchmarks/hidden/hidden.py DATA --sets 4    # fewer data sets in each cell

DATA is the folder with the counts (montgomery_counts.csv.gz and others). A cell is a source of samples and a number of replicates.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

import nbcompare as nb

LEVEL = 0.05
CHANGED = 0.1  # fraction of genes
LEFT_OUT = "12892"  # a sample that is sequenced twice as deep


@cache
def montgomery(data: Path, sex: str) -> np.ndarray:
    """Counts (n_genes, n_samples) of one sex."""
    counts = pd.read_csv(data / "montgomery_counts.csv.gz", index_col=0)
    sexes = pd.read_csv(data / "montgomery_samples.csv")["gender"].astype(str).str.lower()
    kept = [
        name for name, one in zip(counts.columns, sexes, strict=True) if one.startswith(sex) and LEFT_OUT not in name
    ]
    return counts[kept].to_numpy()


@cache
def kang(data: Path, cell_type: str | None) -> np.ndarray:
    """Counts of the control samples of eight donors, summed over cells."""
    adata = anndata.read_h5ad(data / "kang2018_pbmc_8donors.h5ad")
    kept = (adata.obs["condition"] == "ctrl").to_numpy()
    if cell_type:
        kept &= (adata.obs["cell_type"] == cell_type).to_numpy()
    donors = adata.obs["donor"].astype(str).to_numpy()
    sums = [np.asarray(adata.X[kept & (donors == one)].sum(axis=0)).ravel() for one in sorted(set(donors))]
    return np.stack(sums, axis=1).astype(int)


def split(counts: np.ndarray, n: int, seed: int, thin: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of 2 n random samples, their groups, and the genes that were changed by binomial thinning in one group."""
    rng = np.random.default_rng([2026, n, seed, round(1 / thin)])
    chosen = counts[:, rng.permutation(counts.shape[1])[: 2 * n]]
    group = np.repeat([0, 1], n)
    chosen = rng.binomial(chosen, thin) if thin < 1 else chosen
    chosen = chosen[chosen.sum(axis=1) >= 10]
    changed = rng.random(len(chosen)) < CHANGED
    effect = np.where(changed, rng.normal(0, 1, len(chosen)), 0.0)
    kept = np.where((group == 0) == (effect[:, None] > 0), np.exp(-np.abs(effect))[:, None], 1.0)
    return rng.binomial(chosen, kept), group, changed


def six_groups(counts: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same with six groups of n samples; genes are changed between the first two."""
    rng = np.random.default_rng(seed)
    chosen = counts[:, rng.permutation(counts.shape[1])[: 6 * n]]
    chosen, group = chosen[chosen.sum(axis=1) >= 10], np.repeat(np.arange(6), n)
    changed = rng.random(len(chosen)) < CHANGED
    effect = np.where(changed, rng.normal(0, 1, len(chosen)), 0.0)[:, None]
    kept = np.where(group == 1, np.exp(np.minimum(effect, 0)), 1.0)
    kept = np.where(group == 0, np.exp(np.minimum(-effect, 0)), kept)
    return rng.binomial(chosen, kept), group, changed


def simulated(n: int, seed: int, k: int = 0, strength: float = 0.0, cosine: float = 0.0):
    """Negative binomial counts with k hidden factors, the first at this cosine to the condition."""
    rng = np.random.default_rng([77, n, seed, k, int(100 * strength), int(10 * cosine)])
    group, n_genes = np.repeat([0, 1], n), 5000
    mean = np.exp(rng.uniform(np.log(2), np.log(1000), n_genes))
    dispersion = 0.05 * (1 + 5 / mean) * rng.lognormal(0, 0.7, n_genes)
    changed = rng.random(n_genes) < CHANGED
    effect = np.where(changed, rng.normal(0, 0.8, n_genes), 0.0)
    log_mean = np.log(mean)[:, None] + rng.normal(0, 0.3, 2 * n) + effect[:, None] * (group - 0.5)
    if k:
        condition = (group - 0.5) * 2 / np.sqrt(2 * n)
        factors = rng.normal(size=(2 * n, k))
        factors -= factors.mean(axis=0)
        factors = np.linalg.qr(factors - np.outer(condition, condition @ factors))[0]
        factors[:, 0] = cosine * condition + np.sqrt(1 - cosine**2) * factors[:, 0]
        loadings = rng.normal(0, strength, (n_genes, k)) * (rng.random((n_genes, k)) < 0.5)
        log_mean += loadings @ factors.T * np.sqrt(2 * n)
    size = 1 / dispersion[:, None]
    return rng.poisson(np.exp(log_mean) * rng.gamma(size, 1 / size, log_mean.shape)), group, changed


def cells(data: Path) -> dict[str, tuple]:
    """Name of each cell, the function that makes a data set, its arguments before the seed, and the number of data sets."""
    women, men = montgomery(data, "f"), montgomery(data, "m")
    found: dict[str, tuple] = {
        f"Montgomery women, {n} vs {n}": (split, (women, n), {}, sets) for n, sets in ((5, 30), (8, 30), (15, 24))
    }
    found["Montgomery men, 8 vs 8"] = (split, (men, 8), {}, 30)
    found["Montgomery women, 6 groups of 3"] = (six_groups, (women, 3), {}, 8)
    found["Montgomery women, 1/30 of the depth, 8 vs 8"] = (split, (women, 8), {"thin": 1 / 30}, 30)
    for name in (None, "CD14+ Monocytes"):
        found[f"Kang controls, {name or 'all cells'}, 4 vs 4"] = (split, (kang(data, name), 4), {}, 12)
    for n in (5, 8):
        found[f"simulated, independent genes, {n} vs {n}"] = (simulated, (n,), {}, 12)
    for cosine in (0.3, 0.6):
        options = {"k": 2, "strength": 0.3, "cosine": cosine}
        found[f"simulated, 2 factors, cosine {cosine}, 8 vs 8"] = (simulated, (8,), options, 12)
    return found


def figures(p_value: np.ndarray, changed: np.ndarray) -> tuple[float, float]:
    """False discovery rate and power at 5%, of the genes that are tested."""
    tested = np.isfinite(p_value)
    adjusted = np.full(len(p_value), np.nan)
    order = np.argsort(p_value[tested])
    ranked = p_value[tested][order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[np.flatnonzero(tested)[order]] = np.minimum.accumulate(ranked[::-1])[::-1]
    significant = adjusted <= LEVEL
    return (significant & ~changed).sum() / max(1, significant.sum()), (significant & changed).sum() / (
        tested & changed
    ).sum()


def compared(counts: np.ndarray, group: np.ndarray) -> Iterator[np.ndarray]:
    """P-values without hidden factors, then with them."""
    adata = anndata.AnnData(counts.T.astype(float))
    adata.obs["condition"] = [f"group_{k}" for k in group]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nb.tl.nb_compare(
            adata,
            "condition",
            reference="group_0",
            groups="group_1",
            allow_cells_as_replicates=True,
            hidden_factors="auto",
            verbose=False,
        )
    for word in ("pvals_without_factors", "pvals"):
        yield adata.varm[f"nb_compare_{word}"][:, 0]
    yield adata.uns["nb_compare"]["hidden_factors"]["n_factors"]


def main() -> None:
    """Print a table of all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", type=int, default=10_000, help="data sets in each cell, at most")
    arguments = parser.parse_args()
    print(
        "| samples | sets | factors | power without | power with | ratio | FDR without (90th percentile) | FDR with |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (make, given, options, n_sets) in cells(arguments.data).items():
        rows, k = [], []
        for seed in range(min(n_sets, arguments.sets)):
            counts, group, changed = make(*given, seed, **options)
            without, with_factors, n_factors = compared(counts, group)
            rows.append([figures(without, changed), figures(with_factors, changed)])
            k.append(n_factors[0])
        fdr, power = np.array(rows).transpose(2, 0, 1)
        mean, high = fdr.mean(axis=0), np.quantile(fdr, 0.9, axis=0)
        p = power.mean(axis=0)
        print(
            f"| {name} | {len(rows)} | {np.mean(k):.1f} | {p[0]:.3f} | {p[1]:.3f} | {p[1] / p[0]:.2f} | "
            f"{mean[0]:.3f} ({high[0]:.3f}) | {mean[1]:.3f} ({high[1]:.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
