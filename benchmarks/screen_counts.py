"""Samples of a simulated screen: negative binomial, a trend, scatter around it, three replicates a perturbation, 100 of the control."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from anndata import AnnData
from numba import njit

N_CONTROL = 100
N_REPLICATES = 3


def simulate(
    n_targets: int,
    n_genes: int,
    *,
    changed: float = 0.0,
    noise: float = 1.0,
    scatter: float = 0.5,
    seed: int = 0,
    n_control: int = N_CONTROL,
) -> AnnData:
    """Samples x genes, float32 counts; `changed` is the share of genes that a perturbation moves, `noise` the targets' dispersion over the control's."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(np.log(0.5), np.log(1500), n_genes))
    phi = (0.05 + 0.5 / mean) * np.exp(rng.normal(0, scatter, n_genes))
    condition = np.repeat(np.arange(n_targets + 1), [n_control] + [N_REPLICATES] * n_targets)
    depth = np.exp(rng.normal(0, 0.3, len(condition)))
    counts = np.empty((len(condition), n_genes), np.float32)
    seeds = rng.integers(0, 2**31, len(condition) + n_targets + 1)

    def fill(target: int) -> None:
        rows = np.flatnonzero(condition == target) if target == 0 else _rows(target, n_control)
        own = np.random.default_rng(seeds[len(condition) + target])
        effect = np.where(own.random(n_genes) < (changed if target else 0), own.normal(0, 1, n_genes), 0)
        dispersion = phi * (noise if target else 1.0)
        for row in rows:
            _sample(mean * np.exp(effect) * depth[row], dispersion, seeds[row], counts[row])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(n_targets + 1)))
    names = np.array(["control"] + [f"gene_{k:05d}" for k in range(n_targets)], dtype=object)
    replicate = np.concatenate([np.arange(n_control), np.tile(np.arange(N_REPLICATES), n_targets)]).astype(str)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(names[condition], categories=names),
            "replicate": replicate,
            "psbulk_cells": 100,
        },
        index=[f"s{i}" for i in range(len(condition))],
    )
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"g{i:05d}" for i in range(n_genes)]))


def _rows(target: int, n_control: int) -> range:
    first = n_control + (target - 1) * N_REPLICATES
    return range(first, first + N_REPLICATES)


@njit(cache=True, nogil=True)
def _sample(mean, phi, seed, out):
    np.random.seed(seed)  # noqa: NPY002
    for g in range(mean.shape[0]):
        out[g] = np.random.poisson(mean[g] * np.random.gamma(1.0 / phi[g], phi[g]))  # noqa: NPY002
