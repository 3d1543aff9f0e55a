"""Rows of audit.py: one outlying replicate, and data sets of few genes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from anndata import AnnData
from audit_bars import NOT_LIBERAL, Bar, Levels, Line, Options, Way, level_line, null_levels, within
from audit_data import compare, generator, groups, screen, simulate
from audit_groups import in_blocks, p_of

UNEQUAL = ((3, 5), (3, 6), (3, 8), (3, 12), (3, 16), (4, 12), (4, 16))
FOLD = 10
FRACTION, FRACTION_OF_DESIGNS = 0.05, 0.02  # of the genes have an outlying count
GENES, SETS = 8_000, 10
BAR = 0.01
OTHERS = Bar({0.05: (0.7, 1.25), 1e-3: (0, 1.8), 1e-4: (0, 2.5)})


def outlier(options: Options) -> Iterator[Line]:
    """One count times 10 in a replicate of the smaller group, in 5 % of the genes (2 % in pairs): how often p < 0.001 in those."""
    for small, large in UNEQUAL:
        ways = {"plain": p_of(compare, "c1"), "design": p_of(compare, "c1", design="~ condition")}
        if (small, large) in ((3, 12), (4, 16)):
            ways["screen"] = p_of(screen, "c1")
        yield from _outlier(options, f"{small}v{large}", groups((large, small)), ways)
    for n in (4, 8):
        ways = {way: test for way, test in in_blocks().items() if way != "screen"}
        yield from _outlier(
            options, f"{n} pairs", np.tile([0, 1], n), ways, FRACTION_OF_DESIGNS, block=np.repeat(np.arange(n), 2)
        )
    adjusted = {"group + covariate": p_of(compare, "c1", design="~ x1 + condition")}
    for sizes in ((16, 4), (6, 6)):
        x1 = np.random.default_rng(options.seed).normal(0, 1, sum(sizes))
        yield from _outlier(options, "{1}v{0}".format(*sizes), groups(sizes), adjusted, FRACTION_OF_DESIGNS, x1=x1)


def _outlier(
    options: Options, scenario: str, group: np.ndarray, ways: dict[str, Way], fraction: float = FRACTION, **columns
) -> Iterator[Line]:
    """Two lines a way: genes with the outlying count, and the other genes of the same data sets."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {way: [] for way in ways}
    for repeat in range(2 if options.quick else SETS):
        rng = generator(options.seed, f"outlier {scenario}", repeat)
        adata = simulate(rng, group, GENES, means=(10, 2000), phi=0.05, **columns)
        outlying = rng.random(GENES) < fraction
        first = np.flatnonzero(group == 1)[0]
        adata.X[first, outlying] *= FOLD
        for way, test in ways.items():
            p = test(adata)[:, 0]
            found[way].append((p[outlying], p[~outlying]))
    for way, both in found.items():
        levels = Levels.of(p for p, _ in both)
        below = levels.ratios[2] * 1e-3
        error = np.sqrt(BAR / max(levels.n, 1))
        yield Line(
            f"{scenario}, {way}, genes with such a count",
            f"{100 * below:.2f} % with p < 0.001; levels {levels}",
            f"<= {BAR:.0%} with p < 0.001",
            within(below, 0, BAR, error),
        )
        yield level_line(f"{scenario}, {way}, the other genes", Levels.of(p for _, p in both), OTHERS)


def few(options: Options) -> Iterator[Line]:
    """Data sets of few genes, 3v3 and 5v5: the trend itself is then known badly."""
    for n_genes, sizes, spread, repeats in (  # data sets, not tests, are what costs time
        (3, (3, 3), 0.5, 1_000),
        (3, (3, 3), 1.0, 1_000),
        (10, (3, 3), 0.5, 600),
        (10, (3, 3), 1.0, 600),
        (29, (3, 3), 0.5, 300),
        (40, (3, 3), 0.5, 300),
        (40, (3, 3), 1.0, 300),
        (40, (5, 5), 1.0, 300),
    ):
        draw = partial(simulate, group=groups(sizes), spread=spread)
        ways = {"plain": p_of(compare, "c1")}
        if spread == 0.5:
            ways["design"] = p_of(compare, "c1", design="~ condition")
        name = f"{n_genes} genes, {{}}v{{}}, spread {spread:g}".format(*sizes)
        repeats = repeats // 10 if options.quick else repeats
        yield from null_levels(options, name, _positional(draw), ways, NOT_LIBERAL, n_genes=n_genes, repeats=repeats)


def _positional(draw: partial) -> Callable[[np.random.Generator, int], AnnData]:
    return lambda rng, n_genes: draw(rng, n_genes=n_genes)
