from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from nbcompare import datasets
from nbcompare._nb.status import MEANING, Status, status_codes


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and reference results beside the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def _stored_once() -> AnnData:
    adata = datasets.simulate(n_genes=300, n_conditions=3, n_cells=40, paired=True, rng=3)
    return store_results(adata, "condition", "ctrl", "replicate", block_key="donor")


@pytest.fixture
def stored(_stored_once: AnnData) -> AnnData:
    """Simulated cells with results in the stored layout, made without the package's own estimators."""
    return _stored_once.copy()


@pytest.fixture
def stored_pair(_stored_once: AnnData) -> AnnData:
    """The same with a single comparison, unpaired."""
    adata = datasets.simulate(n_genes=300, n_cells=40, rng=4)
    return store_results(adata, "condition", "ctrl", "replicate")


def store_results(
    adata: AnnData,
    groupby: str,
    reference: str,
    replicate_key: str,
    *,
    block_key: str | None = None,
    key: str = "nb_compare",
) -> AnnData:
    """A plain Wald test, written exactly as docs/architecture.md says ("What is stored")."""
    sample = adata.obs[[groupby, replicate_key]].astype(str).agg("|".join, axis=1)
    names = sorted(sample.unique())
    counts = np.stack(
        [np.asarray(adata.X[(sample == name).to_numpy()].sum(axis=0, dtype=float)).ravel() for name in names], axis=1
    )
    exposure = counts.sum(axis=0) / np.exp(np.log(counts.sum(axis=0)).mean())
    samples = pd.DataFrame([name.split("|") for name in names], columns=["condition", "replicate"])
    samples["block"] = samples["replicate"] if block_key else ""
    samples["n_cells"] = [int((sample == name).sum()) for name in names]
    samples["counts"] = counts.sum(axis=0)
    samples["size_factor"] = exposure
    base_mean = (counts / exposure).mean(axis=1)
    trend = 0.05 + 1 / np.maximum(base_mean, 0.1)
    rng = np.random.default_rng(0)
    comparisons = [level for level in sorted(set(samples["condition"])) if level != reference]
    columns: dict[str, list[np.ndarray]] = {}
    for level in comparisons:
        ours, theirs = (samples["condition"] == level).to_numpy(), (samples["condition"] == reference).to_numpy()
        totals = [np.maximum(counts[:, arm].sum(axis=1), 0.5) for arm in (ours, theirs)]
        depths = [exposure[arm].sum() for arm in (ours, theirs)]
        log_fc = np.log(totals[0] / depths[0]) - np.log(totals[1] / depths[1])
        phi = trend * np.exp(rng.normal(0, 0.3, trend.size))
        se = np.sqrt(1 / totals[0] + 1 / totals[1] + phi * (1 / ours.sum() + 1 / theirs.sum()))
        low = counts[:, ours | theirs].sum(axis=1) < 10
        status = np.where(low, Status.LOW_TOTAL, 0) | np.where(base_mean > 1000, Status.HIGH_MEAN_EXTRAPOLATED, 0)
        z = np.where(low, np.nan, log_fc / se)
        p = 2 * stats.norm.sf(np.abs(z))
        adjusted = np.full(p.size, np.nan)
        adjusted[~low] = stats.false_discovery_control(p[~low])
        values = {
            "logfoldchanges": log_fc / np.log(2),
            "lfc_se": se / np.log(2),
            "scores": z,
            "pvals": p,
            "pvals_adj": adjusted,
            "pvals_all_replicates": p,
            "dispersions": phi,
            "dispersions_genewise": np.maximum(trend * np.exp(rng.normal(0, 0.8, trend.size)), 0),
            "status": status.astype(np.uint16),
        }
        for word, value in values.items():
            columns.setdefault(word, []).append(value)
    for word, values_of in columns.items():
        adata.varm[f"{key}_{word}"] = np.stack(values_of, axis=1)
    adata.var[f"{key}_base_mean"] = base_mean
    adata.var[f"{key}_dispersion_trend"] = trend
    knots = np.geomspace(1, 1000, 12)
    adata.uns[key] = {
        "comparisons": np.array(comparisons),
        "reference": reference,
        "params": {
            "groupby": groupby,
            "replicate_key": replicate_key,
            "block_key": block_key,
            "layer": None,
            "method": "mom",
            "test": "moderated",
        },
        "samples": samples,
        "dropped_samples": samples.iloc[:0][["condition", "replicate", "n_cells", "counts"]].assign(reason=""),
        "n_cells_left_out": {"no_condition": 0, "other_groups": 0, "no_replicate": 0, "no_block": 0},
        "trend": {
            "mean": knots,
            "dispersion": 0.05 + 1 / knots,
            "scatter": 0.4,
            "n_genes": 300,
            "noise": np.ones((len(comparisons), 2)),
        },
        "status_codes": status_codes(),
        "status_meaning": MEANING,
        "log_base": 2,
        "fdr_scope": "comparison",
        "version": "0.1.0",
    }
    return adata
