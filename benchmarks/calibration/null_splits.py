"""Real counts split in ways that mean nothing: whatever a test finds there is false."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from nbcompare._counts.size_factors import size_factors
from nbcompare._nb.data import Pseudobulk

MIN_TOTAL = 10


@dataclass(frozen=True)
class Split:
    """Samples of one biological condition, in groups that mean nothing; group 0 is the reference."""

    counts: np.ndarray  # (n_genes, n_samples) float64, genes with 10 counts or more
    group: np.ndarray  # (n_samples,) intp
    block: np.ndarray | None = None  # (n_samples,) intp

    @property
    def pairs(self) -> np.ndarray:
        """Every other group against the reference."""
        return np.array([[0, k] for k in range(1, self.group.max() + 1)])

    @property
    def pseudobulk(self) -> Pseudobulk:
        """With size factors as `nb_compare` chooses them."""
        factors, _ = size_factors(np.ascontiguousarray(self.counts.T))
        return Pseudobulk(self.counts, factors, self.group, self.block)

    @property
    def design(self) -> np.ndarray:
        """Columns: constant, groups from 1 on, blocks from 1 on."""
        columns = [np.ones(len(self.group))]
        columns += [self.group == k for k in range(1, self.group.max() + 1)]
        if self.block is not None:
            columns += [self.block == r for r in range(1, self.block.max() + 1)]
        return np.column_stack(columns).astype(float)


def all_splits(data: Path, quick: bool) -> dict[str, list[Split]]:
    """Every setting's splits, fixed seeds."""
    repeats, random_repeats, screen_repeats = (2, 5, 2) if quick else (12, 200, 40)
    settings = {}
    for name, sizes in (("3 v 3", (3, 3)), ("5 v 5", (5, 5)), ("10 v 10", (10, 10)), ("4 v 20", (4, 20))):
        settings[f"montgomery, one sex, {name}"] = list(_montgomery(data, sizes, repeats))
    for cell_type in ("CD14+ Monocytes", "T cells"):
        settings[f"Kang controls, {cell_type}, 4 v 4"] = list(_kang(data, cell_type))[:: 10 if quick else 1]
    settings["Papalexi controls, guides in two groups"] = list(_papalexi_guides(data))[:: 5 if quick else 1]
    settings["Papalexi controls, random halves"] = list(_papalexi_random(data, 2, random_repeats))
    settings["Papalexi controls, screen of 6 random groups"] = list(_papalexi_random(data, 6, screen_repeats))
    return settings


def _montgomery(data: Path, sizes: tuple[int, int], repeats: int) -> Iterator[Split]:
    """Random samples of one sex; without NA12892, whose sex is mislabelled."""
    counts = pd.read_csv(data / "montgomery_counts.csv.gz", index_col=0)
    samples = pd.read_csv(data / "montgomery_samples.csv")
    for s, sex in enumerate(("female", "male")):
        of_sex = np.flatnonzero((samples["gender"] == sex) & (samples["sample"] != "NA12892"))
        for seed in range(repeats):
            chosen = np.random.default_rng([s, seed, *sizes]).permutation(of_sex)[: sum(sizes)]
            yield _split(counts.to_numpy(float)[:, chosen], np.repeat([0, 1], sizes))


def _kang(data: Path, cell_type: str) -> Iterator[Split]:
    """All 35 halves of the eight untreated donors."""
    cells = anndata.read_h5ad(data / "kang2018_pbmc_8donors.h5ad")
    cells = cells[((cells.obs["condition"] == "ctrl") & (cells.obs["cell_type"] == cell_type)).to_numpy()]
    counts = _sums(cells, pd.factorize(cells.obs["donor"])[0])
    for half in combinations(range(1, 8), 4):
        yield _split(counts, np.isin(np.arange(8), half).astype(int))


def _papalexi_guides(data: Path) -> Iterator[Split]:
    """Control guides in two groups, all 15 ways; a sample is a group's cells in one replicate, which is the block."""
    cells = _papalexi_controls(data)
    guide = pd.factorize(cells.obs["guide"], sort=True)[0]
    for size in (1, 2):
        for chosen in combinations(range(5), size):
            yield _by_replicate(cells, np.isin(guide, chosen).astype(int))


def _papalexi_random(data: Path, n_groups: int, repeats: int) -> Iterator[Split]:
    """Control cells of each replicate dealt out at random."""
    cells = _papalexi_controls(data)
    for seed in range(repeats):
        yield _by_replicate(cells, np.random.default_rng([n_groups, seed]).permutation(cells.n_obs) % n_groups)


def _papalexi_controls(data: Path) -> anndata.AnnData:
    cells = anndata.read_h5ad(data / "papalexi2021_eccite_a.h5ad")
    return cells[cells.obs["is_control"].to_numpy()].copy()


def _by_replicate(cells: anndata.AnnData, group: np.ndarray) -> Split:
    replicate = pd.factorize(cells.obs["replicate"], sort=True)[0]
    counts = _sums(cells, group * 3 + replicate)
    sample = np.arange(counts.shape[1])
    return _split(counts, sample // 3, sample % 3)


def _sums(cells: anndata.AnnData, sample: np.ndarray) -> np.ndarray:
    """Counts of each sample's cells, (n_genes, n_samples)."""
    return np.column_stack(
        [np.asarray(cells.X[sample == s].sum(axis=0), float).ravel() for s in range(sample.max() + 1)]
    )


def _split(counts: np.ndarray, group: np.ndarray, block: np.ndarray | None = None) -> Split:
    kept = np.ascontiguousarray(counts[counts.sum(axis=1) >= MIN_TOTAL])
    return Split(kept, group.astype(np.intp), None if block is None else block.astype(np.intp))
