"""The figure of the README, from the bundled screen: `python benchmarks/figures/readme_figure.py` writes docs/_static/readme.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

import nbcompare as nb

OUT = Path(__file__).parents[2] / "docs" / "_static" / "readme.png"
SHOWN = ["ATF2", "IRF1", "IFNGR2", "STAT1", "STAT2"]


def main() -> None:
    """A volcano, the replicates of one gene, and the p-values of a knock-out without effect."""
    mpl.use("Agg")
    adata = nb.datasets.papalexi2021()
    nb.tl.nb_compare(adata, "perturbation", reference="control", replicate_key="replicate", block_key="replicate")
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1), layout="constrained", width_ratios=[1.25, 1, 1])
    nb.pl.volcano(adata, "STAT1", genes=["STAT1"], n_top=8, ax=axes[0])
    nb.pl.gene(adata, "STAT1", SHOWN, ax=axes[1])
    nb.pl.pvalues(adata, "ATF2", kind="qq", ax=axes[2])
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=170, metadata={"Software": None})
    print(f"{OUT.name}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
