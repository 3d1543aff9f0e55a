from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from anndata.experimental import read_lazy, write_dispatched
from hypothesis import settings
from scipy import stats

from nbcompare import datasets
from nbcompare._anndata import FORMAT
from nbcompare._nb.status import MEANING, Status, status_codes

settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")


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


@pytest.fixture(scope="session")
def _screen_once() -> AnnData:
    return make_screen(n_perturbations=60, n_genes=300)


@pytest.fixture
def screen(_screen_once: AnnData) -> AnnData:
    """Results of a screen in the stored layout, drawn at random: perturbations act on shared programs of genes."""
    return _screen_once.copy()


@pytest.fixture(scope="session")
def screen_path(_screen_once: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk, seven perturbations in a chunk."""
    path = tmp_path_factory.mktemp("screen") / "screen.zarr"
    write_screen(path, _screen_once, rows_in_chunk=7)
    return path


@pytest.fixture
def lazy_screen(screen_path: Path) -> AnnData:
    """The screen on disk, read lazily."""
    return read_lazy(screen_path)


def make_screen(*, n_perturbations: int, n_genes: int, rng: int = 0) -> AnnData:
    """A screen as `tl.nb_screen` stores it, from normal scores; the first perturbations name a gene of their own."""
    draw = np.random.default_rng(rng)
    genes = [f"gene_{i:03d}" for i in range(n_genes)]
    n_named = n_perturbations // 2
    names = genes[:n_named] + [f"pert_{i:03d}" for i in range(n_named, n_perturbations)]
    base_mean = draw.lognormal(3, 1.5, n_genes)
    n_cells = draw.lognormal(5, 0.7, n_perturbations).astype(int) + 5
    programs = draw.normal(0, 1, (4, n_genes)) * (draw.random((4, n_genes)) < 0.15)
    strength = draw.gamma(0.3, 0.8, (n_perturbations, 1))
    effect = 2 * strength * programs[draw.integers(0, 4, n_perturbations)] * draw.choice([-1, 1], (n_perturbations, 1))
    effect[np.arange(n_named), np.arange(n_named)] = -draw.gamma(3.0, 0.6, n_named)
    dispersion = (0.05 + 1 / base_mean) * draw.lognormal(0, 0.3, (n_perturbations, n_genes))
    se = np.sqrt(1 / base_mean + dispersion) / np.sqrt(n_cells[:, None] / 60) / np.log(2)
    change = effect + se * draw.normal(size=effect.shape)
    untested = np.broadcast_to(base_mean < 2, effect.shape).copy()
    untested[-1] = True  # a perturbation of which nothing is known
    z = np.where(untested, np.nan, change / se)
    p = 2 * stats.norm.sf(np.abs(z))
    adjusted = np.stack([adjust(row) for row in p])
    overall = np.where(untested.all(axis=1), np.nan, np.nanmin(np.where(untested, np.inf, adjusted), axis=1))
    layers = {"logfoldchanges": change, "lfc_se": se, "scores": z, "dispersions": dispersion}
    layers = {word: np.where(untested, np.nan, values).astype(np.float32) for word, values in layers.items()}
    status = np.where(untested, np.where(np.arange(n_genes) % 2, Status.ALL_ZERO, Status.LOW_COUNTS), Status.OK)
    layers |= {"pvals": p, "pvals_adj": adjusted, "pvals_adj_global": adjust(p), "status": status.astype(np.uint32)}
    own = (np.arange(n_named), np.arange(n_named))
    unnamed = np.full(n_perturbations - n_named, np.nan)
    obs = {
        "n_cells": n_cells,
        "n_replicates": draw.integers(1, 4, n_perturbations),
        "n_tested": (~untested).sum(axis=1),
        "n_hits": (adjusted <= 0.05).sum(axis=1),
        "dispersion_ratio": draw.lognormal(0, 0.2, n_perturbations),
        "on_target_logfoldchange": np.append(layers["logfoldchanges"][own], unnamed),
        "on_target_lfc_se": np.append(layers["lfc_se"][own], unnamed),
        "on_target_lfc_lower": np.append((layers["logfoldchanges"] - 1.96 * layers["lfc_se"])[own], unnamed),
        "on_target_lfc_upper": np.append((layers["logfoldchanges"] + 1.96 * layers["lfc_se"])[own], unnamed),
        "on_target_pval": np.append(p[own], unnamed),
        "pval": overall,
        "pval_adj": adjust(overall),
    }
    obs["selected"] = obs["pval_adj"] <= 0.05
    var = {
        "base_mean": base_mean,
        "dispersion_trend": 0.05 + 1 / base_mean,
        "dispersion": dispersion.mean(axis=0),
        "n_perturbations": (adjusted <= 0.05).sum(axis=0),
    }
    screen = AnnData(obs=pd.DataFrame(obs, index=names), var=pd.DataFrame(var, index=genes), layers=layers)
    screen.uns["nb_screen"] = {
        "params": {"groupby": "perturbation", "replicate_key": "replicate", "block_key": None, "layer": None},
        "reference": "control",
        "fdr": {"level": 0.05, "n_selected": int(obs["selected"].sum())},
        "status_codes": status_codes(),
        "status_meaning": MEANING,
        "log_base": 2,
        "version": "0.1.0",
        "format": FORMAT,
    }
    return screen


def write_screen(path: Path, screen: AnnData, *, rows_in_chunk: int) -> None:
    """Write a screen with chunks of so many perturbations."""

    def write(function, store, key, element, dataset_kwargs, iospec) -> None:
        if store.name == "/layers":
            dataset_kwargs = {**dataset_kwargs, "chunks": (rows_in_chunk, screen.n_vars)}
        function(store, key, element, dataset_kwargs=dataset_kwargs)

    write_dispatched(zarr.open_group(path, mode="w", zarr_format=2), "/", screen, write)
    zarr.consolidate_metadata(path)


def adjust(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over what is not NaN, any shape."""
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    adjusted[tested] = stats.false_discovery_control(p[tested]) if tested.any() else np.nan
    return adjusted


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
        totals = [np.maximum(counts[:, side].sum(axis=1), 0.5) for side in (ours, theirs)]
        depths = [exposure[side].sum() for side in (ours, theirs)]
        log_fc = np.log(totals[0] / depths[0]) - np.log(totals[1] / depths[1])
        phi = trend * np.exp(rng.normal(0, 0.3, trend.size))
        se = np.sqrt(1 / totals[0] + 1 / totals[1] + phi * (1 / ours.sum() + 1 / theirs.sum()))
        low = counts[:, ours | theirs].sum(axis=1) < 10
        status = np.where(low, Status.LOW_COUNTS, 0) | np.where(base_mean > 1000, Status.HIGH_MEAN_EXTRAPOLATED, 0)
        z = np.where(low, np.nan, log_fc / se)
        p = 2 * stats.norm.sf(np.abs(z))
        adjusted = np.full(p.size, np.nan)
        adjusted[~low] = stats.false_discovery_control(p[~low])
        values = {
            "logfoldchanges": log_fc / np.log(2),
            "lfc_se": se / np.log(2),
            "lfc_lower": np.where(low, np.nan, log_fc - stats.norm.ppf(0.975) * se) / np.log(2),
            "lfc_upper": np.where(low, np.nan, log_fc + stats.norm.ppf(0.975) * se) / np.log(2),
            "scores": z,
            "pvals": p,
            "pvals_adj": adjusted,
            "pvals_unfiltered": p,
            "dispersions": phi,
            "dispersions_genewise": np.maximum(trend * np.exp(rng.normal(0, 0.8, trend.size)), 0),
            "status": status.astype(np.uint32),
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
        "n_cells_excluded": {"no_condition": 0, "other_groups": 0, "no_replicate": 0, "no_block": 0},
        "trend": {
            "mean": knots,
            "dispersion": 0.05 + 1 / knots,
            "log_dispersion_var": 0.4,
            "n_genes": 300,
            "dispersion_ratio": np.ones((len(comparisons), 2)),
        },
        "status_codes": status_codes(),
        "status_meaning": MEANING,
        "log_base": 2,
        "fdr_scope": "comparison",
        "version": "0.1.0",
        "format": FORMAT,
    }
    return adata
