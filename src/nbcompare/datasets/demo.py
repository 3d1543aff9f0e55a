"""The main job on the bundled screen: `python -m nbcompare.datasets.demo OUTDIR`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pandas as pd

from nbcompare import datasets, get, pl, tl

if TYPE_CHECKING:
    from anndata import AnnData

CALLED = 0.05  # false discovery rate


def main(folder: str = "demo_output") -> int:
    """Compares every perturbation with the control; prints, stores and draws the results. 0 if all targets are down."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    adata = datasets.papalexi2021()
    print(f"Papalexi et al. 2021, a part of the screen: {adata.n_obs:,} cells, {adata.n_vars} genes")

    start = perf_counter()
    tl.nb_compare(adata, "perturbation", reference="control", replicate_key="replicate", block_key="replicate")
    seconds = perf_counter() - start
    table = get.nb_compare_df(adata)
    print_design(adata)
    print(f"\n{table['pvals'].notna().sum():,} tests in {seconds:.1f} s, compilation included")
    print_top(table)
    print_status(adata, table)
    recovered = print_targets(adata, table)

    adata.write_h5ad(out / "papalexi2021.h5ad", compression="gzip")
    table.to_csv(out / "results.csv", index=False)
    figures = draw(adata, out)
    print(f"\nWritten to {out}/: papalexi2021.h5ad, results.csv, {', '.join(figures)}")
    return 0 if recovered else 1


def print_design(adata: AnnData) -> None:
    """What was compared: conditions, replicates, blocks, cells in each sample, and what was dropped."""
    results = adata.uns["nb_compare"]
    samples, dropped = results["samples"], results["dropped_samples"]
    cells = samples.pivot_table(index="condition", columns="replicate", values="n_cells", aggfunc="sum", observed=True)
    replicates = ", ".join(map(str, cells.columns))
    print(
        f"\nDesign: {len(results['comparisons'])} perturbations against {results['reference']!r}, "
        f"replicates {replicates} (also the block), {len(samples)} samples; cells in each:\n"
    )
    print(cells.rename_axis(index=None, columns=None).to_string(na_rep="-", float_format="{:.0f}".format))
    for row in dropped.itertuples():
        print(f"dropped: {row.condition} {row.replicate}, {row.n_cells} cells ({row.reason})")


def print_top(table: pd.DataFrame, *, n_top: int = 5) -> None:
    """The first genes of each perturbation."""
    columns = ["names", "logfoldchanges", "lfc_se", "pvals", "pvals_adj", "base_mean", "status"]
    formats = dict.fromkeys(["logfoldchanges", "lfc_se"], "{:.2f}".format)
    formats |= dict.fromkeys(["pvals", "pvals_adj"], "{:.1e}".format) | {"base_mean": "{:.1f}".format}
    for group, rows in table.groupby("group", observed=True):
        called = rows["pvals_adj"] <= CALLED
        up = (called & (rows["logfoldchanges"] > 0)).sum()
        print(
            f"\n{group}: {up} up, {called.sum() - up} down at {CALLED:.0%} FDR; the first {n_top} genes (log2 fold changes)"
        )
        print(rows[columns].head(n_top).to_string(index=False, formatters=formats))


def print_status(adata: AnnData, table: pd.DataFrame) -> None:
    """What the status words of the tables mean, and how often each occurs."""
    print("\nStatus of all genes and comparisons:")
    for word, times in table["status"].str.split("|").explode().value_counts().items():
        print(f"  {times:5,} {word}: {adata.uns['nb_compare']['status_meaning'][word]}")


def print_targets(adata: AnnData, table: pd.DataFrame) -> bool:
    """Whether each knocked-out gene that was measured went down in its own comparison."""
    print("\nMeasured targets in their own knock-out:")
    recovered = True
    for target in sorted(adata.var_names[adata.var["is_target"]]):
        row = table[(table["group"] == target) & (table["names"] == target)].iloc[0]
        down = row["logfoldchanges"] < 0 and row["pvals_adj"] <= CALLED
        recovered &= bool(down)
        verdict = "down" if down else "NOT called down"
        print(
            f"  {target:7s} log2 fold change {row['logfoldchanges']:6.2f}, adjusted p {row['pvals_adj']:.1e}: {verdict}"
        )
    return recovered


def draw(adata: AnnData, out: Path) -> list[str]:
    """One figure of each kind."""
    figures = {
        "volcano.png": pl.volcano(adata, "STAT1", genes=["STAT1"]),
        "ma.png": pl.ma(adata, "STAT1", genes=["STAT1"]),
        "dispersion.png": pl.dispersion(adata, "STAT1"),
        "pvalues.png": pl.pvalues(adata, "STAT1"),
        "gene.png": pl.gene(adata, "STAT1"),
    }
    for name, ax in figures.items():
        ax.figure.savefig(out / name, dpi=300)  # type: ignore[union-attr]
    return list(figures)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
