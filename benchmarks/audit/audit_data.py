"""Counts for audit.py: simulated samples in which no gene changes unless said, and the two calls that test them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import nbcompare as nb

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NATURAL = 1 / np.log(2)  # a change by the factor e, in log2


def generator(seed: int, name: str, repeat: int) -> np.random.Generator:
    """Of one data set: it depends on the scenario's name, not on the scenarios run before."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), repeat])


def negative_binomial(rng: np.random.Generator, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Counts of this mean and dispersion; where the dispersion is 0 they are Poisson."""
    mean, dispersion = np.broadcast_arrays(mean, np.asarray(dispersion, float))
    phi = np.maximum(dispersion, 1e-12)
    factor = np.where(dispersion > 0, rng.standard_gamma(1 / phi) * phi, 1.0)
    return rng.poisson(mean * factor).astype(float)


def samples(
    counts: np.ndarray, condition: Sequence[Any], depth: np.ndarray, var: dict | None = None, **obs: Any
) -> AnnData:
    """Samples x genes with `condition`, `depth` (the true size factor) and other columns of `.obs`."""
    table = pd.DataFrame(
        {"condition": pd.Categorical(np.asarray(condition, str)), "depth": depth, **obs},
        index=[f"s{i}" for i in range(len(counts))],
    )
    genes = pd.DataFrame(var or {}, index=[f"g{i}" for i in range(counts.shape[1])])
    return AnnData(counts, obs=table, var=genes)


def groups(sizes: Sequence[int]) -> np.ndarray:
    """Group of each sample: 0, 0, 0, 1, 1, 1 and so on."""
    return np.repeat(np.arange(len(sizes)), sizes)


def spread_dispersions(rng: np.random.Generator, n_genes: int, phi: float, spread: float) -> np.ndarray:
    """Inverse-gamma dispersions around phi; spread is about the standard deviation of their logarithm."""
    if spread == 0:
        return np.full(n_genes, phi)
    degrees = 2 / spread**2 + 1
    return phi * degrees / rng.chisquare(degrees, n_genes)


def simulate(
    rng: np.random.Generator,
    group: np.ndarray,
    n_genes: int,
    *,
    means: tuple[float, float] = (1, 1000),
    phi: float | np.ndarray = 0.1,
    spread: float = 0.5,
    ratio: Sequence[float] | None = None,
    changed: float = 0.0,
    lfc: float = NATURAL,
    block: np.ndarray | None = None,
    block_sd: float = 0.5,
    group_effect: np.ndarray | None = None,
    depth_sd: float = 0.3,
    fold: Sequence[float] | None = None,
    **obs: Any,
) -> AnnData:
    """Samples in groups: `ratio` multiplies a group's dispersions, `fold` its sequencing depth.

    In a fraction `changed` of the genes group 1 is `lfc` (log2) higher or lower; `group_effect` (n_groups, n_genes) are
    other differences between groups, and blocks have normal effects of `block_sd` in each gene (both natural logarithms).
    `.var` has the true mean, dispersion and log2 fold change.
    """
    mean = np.exp(rng.uniform(*np.log(means), n_genes))
    dispersion = np.asarray(phi) if np.ndim(phi) else spread_dispersions(rng, n_genes, float(phi), spread)
    depth = np.exp(rng.normal(0, depth_sd, len(group)))
    if fold is not None:
        depth = depth * np.asarray(fold, float)[group]
    change = np.where(rng.random(n_genes) < changed, lfc * rng.choice([-1.0, 1.0], n_genes), 0.0)
    log_rate = np.log(mean) + np.outer(group == 1, change) * np.log(2)
    if group_effect is not None:
        log_rate = log_rate + group_effect[group]
    if block is not None:
        log_rate = log_rate + rng.normal(0, block_sd, (block.max() + 1, n_genes))[block]
        obs["block"] = pd.Categorical([f"b{k}" for k in block])
    by_sample = np.ones(len(group)) if ratio is None else np.asarray(ratio, float)[group]
    counts = negative_binomial(rng, depth[:, None] * np.exp(log_rate), by_sample[:, None] * dispersion)
    var = {"mean": mean, "dispersion": dispersion, "lfc": change}
    return samples(counts, [f"c{k}" for k in group], depth, var, **obs)


FIELDS = (
    "pvals",
    "pvals_adj",
    "pvals_unfiltered",
    "logfoldchanges",
    "lfc_se",
    "lfc_lower",
    "lfc_upper",
    "null_probability",
    "lfsr",
    "status",
)


def compare(adata: AnnData, *tested: str, **options: Any) -> dict[str, np.ndarray]:
    """Stored arrays of `nb_compare`, (n_genes, n_tested), of these groups; all groups if none is named."""
    options = {"reference": "c0", "size_factors": "depth"} | options
    if tested and "contrast" not in options:
        options["groups"] = list(tested)
    nb.tl.nb_compare(adata, "condition", **options)
    found = {name: np.asarray(adata.varm[key]) for name in FIELDS if (key := f"nb_compare_{name}") in adata.varm}
    for key in [key for key in adata.varm if key.startswith("nb_compare")]:
        del adata.varm[key]
    return found


def screen(adata: AnnData, *tested: str, **options: Any) -> dict[str, np.ndarray]:
    """The same of `nb_screen`."""
    options = {"reference": "c0", "size_factors": "depth", "dtype": "float64", "n_fit_perturbations": 1000} | options
    result = nb.tl.nb_screen(adata, "condition", progress=False, n_jobs=1, **options)
    rows = [list(result.obs_names).index(name) for name in tested or adata.obs["condition"].cat.categories[1:]]
    return {name: np.asarray(result.layers[name])[rows].T for name in FIELDS if name in result.layers}
