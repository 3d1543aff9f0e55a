"""Rows of audit.py: real samples of one condition in groups that mean nothing, and Kang monocytes against edgeR."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from audit_bars import MISS, PASS, Bar, Levels, Line, Options, compared_with_today, level_line, within
from audit_data import DATA, compare
from audit_today import KANG_GENES

import nbcompare as nb

sys.path.append(str(Path(__file__).parents[1] / "calibration"))
from null_splits import Split, all_splits

SIZES = ((3, 3), (5, 5), (10, 10), (3, 12), (4, 12), (2, 8), (1, 20), (2, 20))
TWO_BY_EIGHT = Bar({1e-3: (0, 1.8)})
SLACK = 0.05
SKIPPED = Line("real data", "skipped: ../shared/data is not there")


def real(options: Options) -> Iterator[Line]:
    """Real nulls: random splits of Montgomery's women, Kang's control donors and Papalexi's control cells."""
    if not DATA.is_dir():
        yield SKIPPED
        return
    for sizes in SIZES:
        name = "Montgomery women {}v{}".format(*sizes)
        yield from _splits(options, name, _montgomery(sizes, options), sizes == (2, 8))
    for name, splits in all_splits(DATA, options.quick).items():
        if not name.startswith("montgomery"):
            some = splits[:: 10 if len(splits) > 100 else 1]
            yield from _splits(options, name, (_adata(split) for split in some), False)


def kang(options: Options) -> Iterator[Line]:
    """Kang's CD14+ monocytes, 8 pairs: p-values against edgeR's quasi-likelihood test, and the number of genes at 5 % FDR."""
    if not DATA.is_dir():
        yield SKIPPED
        return
    cells = anndata.read_h5ad(DATA / "kang2018_pbmc_8donors.h5ad")
    cells = cells[(cells.obs["cell_type"] == "CD14+ Monocytes").to_numpy()].copy()
    edger = pd.read_csv(DATA / "r_reference" / "kang_mono_de.csv.gz", index_col=0)["edger_ql_pvalue"]
    for way, kwargs in {
        "block_key": {"block_key": "donor", "replicate_key": "donor"},
        "design": {"design": "~ donor + condition", "replicate_key": "donor"},
        "unpaired": {"replicate_key": "donor"},
    }.items():
        nb.tl.nb_compare(cells, "condition", reference="ctrl", min_cells=1, **kwargs)
        table = nb.get.nb_compare_df(cells).set_index("names")
        ours = -np.log10(table["pvals"].clip(lower=1e-320))
        theirs = -np.log10(edger.reindex(table.index))
        strong = theirs > 8
        twice = strong & (ours > 2 * theirs)
        only_ours = (ours > 8) & (ours > 2 * theirs)
        figures = (
            f"{int(twice.sum())} of {int(strong.sum())} genes with edgeR p < 1e-8 have twice its -log10 p"
            f" ({int(only_ours.sum())} of {int((ours > 8).sum())} with p < 1e-8 here); smallest p {table['pvals'].min():.0e}"
        )
        yield Line(f"{way}, against edgeR", figures, "0 genes", PASS if not twice.any() else MISS)
        n = int((table["pvals_adj"] <= 0.05).sum())
        before = KANG_GENES.get(way)
        verdict = "-" if before is None else within(n / before, 0.95, 1.05)
        bar = "-" if before is None else f"{0.95 * before:.0f}-{1.05 * before:.0f}"
        yield Line(f"{way}, genes at 5 % FDR", f"{n}", bar, verdict)


def _splits(options: Options, name: str, splits: Iterator[AnnData], two_by_eight: bool) -> Iterator[Line]:
    """Levels over all splits, and the fraction of splits in which a gene is significant at 5 % FDR."""
    p_values, significant = [], []
    for adata in splits:
        blocked = {"block_key": "block"} if "block" in adata.obs else {}
        found = compare(adata, size_factors="auto", **blocked)
        p_values.append(found["pvals"])
        significant += list((found["pvals_adj"] <= 0.05).sum(axis=0))
    levels, counts = Levels.of(p_values), np.array(significant)
    beside = f"; {(counts > 0).mean():.2f} of {len(counts)} splits with a significant gene, at most {counts.max()}"
    line = compared_with_today(options, name, levels, slack=SLACK)
    yield Line(line.scenario, line.figures + beside, line.bar, line.verdict)
    if two_by_eight:
        yield level_line(f"{name}, bar of the issue", levels, TWO_BY_EIGHT)


def _montgomery(sizes: tuple[int, int], options: Options) -> Iterator[AnnData]:
    """Without NA12892, whose sex is mislabelled."""
    counts = pd.read_csv(DATA / "montgomery_counts.csv.gz", index_col=0)
    table = pd.read_csv(DATA / "montgomery_samples.csv", index_col=0)
    women = table.index[(table["gender"] == "female") & (table.index != "NA12892")]
    values = counts[women].to_numpy(float)
    for repeat in range(5 if options.quick else 40):
        rng = np.random.default_rng([options.seed, 17, repeat])
        chosen = values[:, rng.permutation(len(women))[: sum(sizes)]]
        yield _adata(Split(chosen[chosen.sum(axis=1) >= 10], np.repeat([1, 0], sizes)))


def _adata(split: Split) -> AnnData:
    """Samples x genes with conditions c0, c1 ... and blocks."""
    obs = {"condition": pd.Categorical([f"c{k}" for k in split.group])}
    if split.block is not None:
        obs["block"] = pd.Categorical([f"b{k}" for k in split.block])
    table = pd.DataFrame(obs, index=[f"s{k}" for k in range(len(split.group))])
    genes = pd.DataFrame(index=[f"g{k}" for k in range(len(split.counts))])
    return AnnData(np.ascontiguousarray(split.counts.T), obs=table, var=genes)
