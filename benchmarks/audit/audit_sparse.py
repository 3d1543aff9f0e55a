"""Row of audit.py: sparse samples of unequal depth, with size factors as the package chooses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import anndata
import numpy as np
from anndata import AnnData
from audit_bars import MISS, PASS, Levels, Line, Options, within, worst
from audit_data import DATA, compare, generator, groups, negative_binomial, samples, screen, simulate

LOW, HIGH = 0.8, 1.2


def sparse(options: Options) -> Iterator[Line]:
    """Sparse samples, one group deeper: size factors are estimated, nothing changes; beside it the test with true factors."""
    for name, means, n_genes, fold in (
        ("means 0.02-3, one group 4x deeper", (0.02, 3), 4_000, 4),
        ("means 0.02-20, one group 4x deeper", (0.02, 20), 4_000, 4),
        ("means 0.1-1000, one group 4x deeper", (0.1, 1000), 4_000, 4),
        ("means 0.02-3, one group 10x deeper", (0.02, 3), 4_000, 10),
        ("means 0.02-3, equal depths", (0.02, 3), 4_000, 1),
        ("300 genes of means 0.1-50, one group 4x deeper", (0.1, 50), 300, 4),
    ):
        for n in (4, 10):
            draw = partial(simulate, group=groups((n, n)), n_genes=n_genes, means=means, fold=(1, fold))
            sets = (5 if options.quick else 20) if n_genes < 1_000 else (1 if options.quick else 6)
            yield _line(options, f"{n}v{n}, {name}", draw, sets)
    for name, rate, ratio, n, n_genes, large in (
        ("10v10 samples of 40 and 80 cells", 0.0006, 2, 10, 3_000, 0),
        ("10v10 samples of 40 and 80 cells, 3 largest genes x8", 0.0006, 2, 10, 3_000, 3),
        ("6v6 samples of 40 and 80 cells", 0.0004, 2, 6, 3_000, 0),
        ("panel of 300 genes, 20v20 of 40 and 120 cells", 0.003, 3, 20, 300, 0),
        ("panel of 300 genes, 20v20 of 40 and 120 cells, 3 largest genes x8", 0.003, 3, 20, 300, 3),
        ("4v4 samples of 60 and 600 cells, not sparse", 0.01, 10, 4, 3_000, 0),
    ):
        draw = partial(_cells, rate=rate, ratio=ratio, n=n, n_genes=n_genes, large=large)
        yield _line(options, name, draw, 3 if options.quick else 10)
    yield from _screens(options)
    yield from _real(options)


def _screens(options: Options) -> Iterator[Line]:
    """Targets of some 30 cells, a control with more."""
    for name, means, spread, fold in (
        ("screen, targets unequal, control 10x deeper", (0.05, 30), 0.7, 10),
        ("screen, targets unequal, control 3x deeper", (0.05, 30), 0.7, 3),
        ("screen, all alike", (0.05, 30), 0.0, 1),
        ("screen, means 0.02-5, control 3x deeper", (0.02, 5), 0.0, 3),
        ("screen, means 0.2-200, control 10x deeper", (0.2, 200), 0.7, 10),
    ):
        draw = partial(_screen_samples, means=means, spread=spread, fold=fold)
        yield _line(options, name, draw, 1, call=partial(screen, dtype="float32", n_fit_perturbations=200))
    for rate in (0.02, 0.01, 0.005):
        draw = partial(_small_screen, rate=rate)
        name = f"screen, 60 x 3 samples of 15 cells, control 3 x 300, rate {rate:g}"
        yield _line(options, name, draw, 1, call=partial(screen, dtype="float32", n_fit_perturbations=200))


def _real(options: Options) -> Iterator[Line]:
    """Cells of untreated donors and of control guides, dealt into samples of few and of many cells."""
    if not DATA.is_dir():
        yield Line("real cells", "skipped: ../shared/data is not there")
        return
    kang = anndata.read_h5ad(DATA / "kang2018_pbmc_8donors.h5ad")
    kang = kang[((kang.obs["condition"] == "ctrl") & (kang.obs["cell_type"] == "CD14+ Monocytes")).to_numpy()]
    papalexi = anndata.read_h5ad(DATA / "papalexi2021_eccite_a.h5ad")
    papalexi = papalexi[(papalexi.obs["perturbation"] == "control").to_numpy()]
    for name, cells, n, few, many in (
        ("Kang monocytes, 5v5 samples of 10 and 40 cells", kang, 5, 10, 40),
        ("Papalexi controls, 8v8 samples of 12 and 48 cells", papalexi, 8, 12, 48),
    ):
        counts = np.asarray(cells.X.todense(), float)
        for kept in (1.0, 0.1):
            draw = partial(_dealt, counts=counts, n=n, few=few, many=many, kept=kept)
            yield _line(options, f"{name}, {kept:.0%} of the counts", draw, 3 if options.quick else 10)


def _line(
    options: Options, scenario: str, draw: Callable[[np.random.Generator], AnnData], sets: int, call: Callable = compare
) -> Line:
    """Estimated against true size factors on the same counts; a low level is no fault where true factors have it too."""
    estimated, given, hits = [], [], 0
    for repeat in range(sets):
        adata = draw(generator(options.seed, scenario, repeat))
        null = (adata.var["lfc"] == 0).to_numpy() if "lfc" in adata.var else slice(None)
        try:
            found = call(adata, size_factors="auto")
            estimated.append(found["pvals"][null])
            hits += int((found["pvals_adj"][null] <= 0.05).sum())
        except ValueError as error:
            return Line(scenario, f"ValueError: {str(error)[:200]}", f"0.05: {LOW:g}-{HIGH:g}", MISS)
        given.append(call(adata)["pvals"][null])
    levels, true = Levels.of(estimated), Levels.of(given)
    tested = levels.n / max(true.n, 1)
    ratio, least = levels.ratios[0], min(LOW, 0.9 * true.ratios[0])
    few = f" (few counts: with true factors {true.ratios[0]:.2f})" if least < LOW else ""
    error = np.sqrt(1 / (0.05 * max(levels.n, 1)))
    return Line(
        scenario,
        f"{levels}; {hits / sets:.1f} significant genes a data set; {tested:.0%} of the testable tested",
        f"0.05: {least:.2f}-{HIGH:g}{few}; all tested",
        worst([within(ratio, least, HIGH, error), PASS if tested >= 0.99 else MISS]),
    )


def _cells(rng: np.random.Generator, rate: float, ratio: float, n: int, n_genes: int, large: int) -> AnnData:
    """n v n samples of 40 and `ratio` times as many cells (60 and 600 where dense); the largest genes differ eightfold."""
    few = 60 if ratio == 10 else 40
    mean = rate * np.exp(rng.normal(0, 1.7, n_genes))
    group = groups((n, n))
    depth = few * np.exp(rng.normal(0, 0.2, 2 * n)) * np.where(group == 1, ratio, 1)
    expected = depth[:, None] * mean
    largest = np.argsort(-mean)[:large]
    expected[np.ix_(group == 1, largest)] *= 8
    lfc = np.zeros(n_genes)
    lfc[largest] = 3
    return samples(negative_binomial(rng, expected, 0.1), [f"c{k}" for k in group], depth, {"lfc": lfc})


def _screen_samples(rng: np.random.Generator, means: tuple[float, float], spread: float, fold: float) -> AnnData:
    """A control of 4 samples and 80 targets of 3."""
    relative = np.concatenate([[fold], np.exp(rng.normal(0, spread, 80))])
    return simulate(rng, groups([4] + [3] * 80), 2_000, means=means, fold=relative, depth_sd=0.2)


def _small_screen(rng: np.random.Generator, rate: float) -> AnnData:
    mean = rate * np.exp(rng.normal(0, 1.5, 1_500))
    group = groups([3] * 61)
    depth = np.where(group == 0, 300, 15) * np.exp(rng.normal(0, 0.2, len(group)))
    counts = negative_binomial(rng, depth[:, None] * mean, 0.05)
    return samples(counts, [f"c{k}" for k in group], depth)


def _dealt(rng: np.random.Generator, counts: np.ndarray, n: int, few: int, many: int, kept: float) -> AnnData:
    """Samples are sums of cells drawn without replacement; of each count a fraction is kept. Depth: the number of cells."""
    bounds = np.cumsum([few] * n + [many] * n)
    parts = np.split(rng.permutation(len(counts))[: bounds[-1]], bounds[:-1])
    sums = np.array([rng.binomial(counts[rows].sum(axis=0).astype(int), kept) for rows in parts], float)
    depth = np.array([len(rows) for rows in parts], float)
    return samples(sums, [f"c{k}" for k in groups((n, n))], depth)
