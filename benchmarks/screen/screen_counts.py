"""Samples of a simulated screen: negative binomial, a trend, scatter around it, three replicates a perturbation, 100 of the control."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from anndata import AnnData
from numba import njit
from scipy import sparse

N_CONTROL = 100
N_REPLICATES = 3


def simulate(
    n_targets: int,
    n_genes: int,
    *,
    changed: float = 0.0,
    dispersion_ratio: float = 1.0,
    log_dispersion_var: float = 0.5,
    seed: int = 0,
    n_control: int = N_CONTROL,
) -> AnnData:
    """Samples x genes, float32 counts; `changed` is the share of genes that a perturbation moves, `dispersion_ratio` the targets' dispersion over the control's."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.uniform(np.log(0.5), np.log(1500), n_genes))
    phi = (0.05 + 0.5 / mean) * np.exp(rng.normal(0, log_dispersion_var, n_genes))
    condition = np.repeat(np.arange(n_targets + 1), [n_control] + [N_REPLICATES] * n_targets)
    depth = np.exp(rng.normal(0, 0.3, len(condition)))
    counts = np.empty((len(condition), n_genes), np.float32)
    seeds = rng.integers(0, 2**31, len(condition) + n_targets + 1)

    def fill(target: int) -> None:
        rows = np.flatnonzero(condition == target) if target == 0 else _rows(target, n_control)
        own = np.random.default_rng(seeds[len(condition) + target])
        effect = np.where(own.random(n_genes) < (changed if target else 0), own.normal(0, 1, n_genes), 0)
        dispersion = phi * (dispersion_ratio if target else 1.0)
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


def simulate_cells(
    n_targets: int, n_genes: int, *, n_cells: int = 200, n_control: int = 10_000, seed: int = 0
) -> AnnData:
    """Cells x genes, CSR float32, about 15 % above 0: rows drawn from 20,000 different cells, in three replicates."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(-2.5, 1.5, n_genes))
    different = np.empty((20_000, n_genes), np.float32)
    depth = rng.gamma(5, 0.2, len(different))
    seeds = rng.integers(0, 2**31, len(different))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: _sample_cell(mean * depth[i], seeds[i], different[i]), range(len(different))))
    target = np.repeat(np.arange(n_targets + 1), [n_control] + [n_cells] * n_targets)
    counts = sparse.csr_matrix(different)[rng.integers(0, len(different), len(target))]
    names = np.array(["control"] + [f"p{k}" for k in range(n_targets)], dtype=object)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(names[target], categories=names),
            "replicate": pd.Categorical((np.arange(len(target)) % N_REPLICATES).astype(str)),
        },
        index=[f"c{i}" for i in range(len(target))],
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


@njit(cache=True, nogil=True)
def _sample_cell(mean, seed, out):
    np.random.seed(seed)  # noqa: NPY002
    for g in range(mean.shape[0]):
        out[g] = np.random.poisson(mean[g])  # noqa: NPY002
