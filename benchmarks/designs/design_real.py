"""Designs of real data beside the R results on the same samples and genes: hits, ranks, fold changes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import stats

from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.status import Status

BLOCKED = {  # data set: columns of the nuisance factor and of the condition, its reference
    "airway": ("cell", "dex", "untrt"),
    "kang_mono": ("donor", "condition", "ctrl"),
    "kang_tcell": ("donor", "condition", "ctrl"),
    "pasilla": ("type", "condition", "untreated"),
    "gbm": ("donor", "condition", "ctrl"),
}
CELL_TYPES = {"kang_mono": "CD14+ Monocytes", "kang_tcell": "T cells", "gbm": None}
FILES = {"gbm": "zhao2021_glioblastoma_panobinostat.h5ad"}
PEERS = {  # p-value, log2 fold change
    "DESeq2": ("deseq2_pvalue", "deseq2_log2FC"),
    "edgeR-QL": ("edger_ql_pvalue", "edger_ql_logFC"),
    "voom": ("voom_pvalue", "voom_logFC"),
    "glmGamPoi": ("glmgampoi_ql_pvalue", "glmgampoi_lfc"),
}


@dataclass(frozen=True)
class Data:
    """Genes that edgeR kept, with R's size factors and results."""

    counts: np.ndarray
    log_exposure: np.ndarray
    design: np.ndarray
    contrast: np.ndarray
    table: pd.DataFrame  # R's results, a row a gene


def load(folder: Path, name: str) -> Data:
    """Counts (genes kept by edgeR), DESeq2's size factors, the design of R's analysis."""
    nuisance, condition, reference = BLOCKED[name]
    samples = pd.read_csv(folder / "r_reference" / f"{name}_samples.csv")
    table = pd.read_csv(folder / "r_reference" / f"{name}_de.csv.gz").drop_duplicates("gene").set_index("gene")
    counts = summed_cells(folder, name, samples) if name in CELL_TYPES else bulk(folder, name, samples)
    table = table[table["edger_ql_pvalue"].notna()]
    blocks = pd.get_dummies(samples[nuisance]).to_numpy(float)
    design = np.column_stack([blocks, (samples[condition] != reference).to_numpy(float)])
    contrast = np.zeros(design.shape[1])
    contrast[-1] = 1
    exposure = np.log(samples["deseq2_sizeFactor"].to_numpy(float))
    return Data(np.ascontiguousarray(counts.loc[table.index].to_numpy(float)), exposure[None], design, contrast, table)


def bulk(folder: Path, name: str, samples: pd.DataFrame) -> pd.DataFrame:
    counts = pd.read_csv(folder / f"{name}_counts.csv.gz", index_col=0)
    return counts[~counts.index.duplicated()][samples["sample"]]


def summed_cells(folder: Path, name: str, samples: pd.DataFrame) -> pd.DataFrame:
    cells = ad.read_h5ad(folder / FILES.get(name, "kang2018_pbmc_8donors.h5ad"))
    if CELL_TYPES[name]:
        cells = cells[cells.obs["cell_type"] == CELL_TYPES[name]]
    sums = {}
    for _, row in samples.iterrows():
        chosen = (cells.obs["condition"].astype(str) == str(row["condition"])) & (
            cells.obs["donor"].astype(str) == str(row["donor"])
        )
        sums[row["sample"]] = np.asarray(cells.X[np.flatnonzero(chosen)].sum(axis=0)).ravel()
    return pd.DataFrame(sums, index=cells.var_names)


def fission(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray], pd.DataFrame]:
    """Counts, exposures, design, hypothesis (all interactions of strain and time), R's likelihood ratio test."""
    samples = pd.read_csv(folder / "r_reference" / "fission_samples.csv")
    table = pd.read_csv(folder / "r_reference" / "fission_lrt.csv.gz").drop_duplicates("gene").set_index("gene")
    counts = bulk(folder, "fission", samples)
    minutes = sorted(samples["minute"].unique())[1:]
    mutant = (samples["strain"] == "mut").to_numpy(float)
    times = np.column_stack([(samples["minute"] == minute).to_numpy(float) for minute in minutes])
    design = np.column_stack([np.ones(len(samples)), mutant, times, times * mutant[:, None]])
    hypothesis = np.eye(12)[:, 7:]
    exposure = np.log(samples["deseq2_sizeFactor"].to_numpy(float))
    return counts.loc[table.index].to_numpy(float), exposure[None], design, [hypothesis], table


def real(options: argparse.Namespace) -> str:
    """Agreement with R on five blocked data sets and a time course."""
    lines = ["## Real data, genes kept by edgeR's filterByExpr, R's size factors", ""]
    lines.append(
        "| data | n, p, genes | sqrt(scatter), median df | fold changes (no arm empty), correlation with DESeq2 / edgeR / voom / glmGamPoi | Spearman of -log10 p, same order | hits of the four | r* / QL F / Wald hits | shared with the four | in none |"
    )
    lines.append("|" + "---|" * 9)
    lines += [blocked_row(options.data, name) for name in BLOCKED]
    counts, exposure, design, hypothesis, table = fission(options.data)
    lines.append("")
    for test, dispersion in (("ql", "moderated"), ("lrt", "genewise-ml"), ("lrt", "moderated")):
        p = design_tests(counts, exposure, design, hypothesis, test=test, dispersion=dispersion).p_value[:, 0]
        both = ~np.isnan(p) & table["deseq2_lrt_pvalue"].notna().to_numpy()
        rank = stats.spearmanr(p[both], table["deseq2_lrt_pvalue"][both]).statistic
        first = ", ".join(f"{table.index[i]} {p[i]:.1e}" for i in np.argsort(np.where(both, p, 1))[:4])
        hits = np.nansum(adjust_p_values(p[:, None]) <= 0.05)
        lines.append(
            f"fission, {test} at {dispersion} dispersions: {hits} hits, Spearman {rank:.3f} with DESeq2's LRT; {first}."
        )
    return "\n".join(lines)


def blocked_row(folder: Path, name: str) -> str:
    data = load(folder, name)
    found = {
        t: design_tests(data.counts, data.log_exposure, data.design, [data.contrast], test=t)
        for t in ("moderated", "ql", "wald")
    }
    main = found["moderated"]
    log2_fc, p = main.log_fc[:, 0] / np.log(2), main.p_value[:, 0]
    hits = {test: hits_of(result.p_value[:, 0]) for test, result in found.items()}
    theirs = {peer: hits_of(data.table[column].to_numpy()) for peer, (column, _) in PEERS.items()}
    correlations, ranks = [], []
    for column, effect in PEERS.values():
        other, change = data.table[column].to_numpy(), data.table[effect].to_numpy()
        both = ~np.isnan(p) & ~np.isnan(other) & ~np.isnan(change)
        filled = both & ((main.status[:, 0] & Status.ZERO_GROUP) == 0)
        correlations.append(f"{np.corrcoef(log2_fc[filled], change[filled])[0, 1]:.4f}")
        ranks.append(f"{stats.spearmanr(p[both], other[both]).statistic:.3f}")
    ours = hits["moderated"]
    any_other = np.any(list(theirs.values()), axis=0)
    return (
        "| "
        + " | ".join(
            [
                name,
                f"{data.design.shape[0]}, {data.design.shape[1]}, {len(p):,}",
                f"{main.trend.log_dispersion_var**0.5:.2f}, {np.nanmedian(main.degrees):.1f}",
                " / ".join(correlations),
                " / ".join(ranks),
                " / ".join(str(h.sum()) for h in theirs.values()),
                " / ".join(str(h.sum()) for h in hits.values()),
                " / ".join(str((ours & h).sum()) for h in theirs.values()),
                str((ours & ~any_other).sum()),
            ]
        )
        + " |"
    )


def hits_of(p: np.ndarray) -> np.ndarray:
    """Genes with Benjamini-Hochberg p <= .05."""
    return np.nan_to_num(adjust_p_values(p[:, None])[:, 0], nan=1.0) <= 0.05
