"""Rows of audit.py: pairs, batches, formulas and covariates, and the dispersion trend of designs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData
from audit_bars import CALIBRATED, MISS, NO_BAR, PASS, Bar, Levels, Line, Options, level_line, null_levels
from audit_data import compare, generator, groups, negative_binomial, samples, screen, simulate
from audit_groups import in_blocks, p_of

IN_BLOCKS = Bar({0.05: (0, 1.25)} | CALIBRATED.limits, CALIBRATED.smallest)
TREND_SETS = 6
WIDE = np.sqrt(2)  # standard deviation of log dispersions as real tables have it
GENES_A_BIN = 200


def pairs(options: Options) -> Iterator[Line]:
    """Pairs: 2, 4 and 8 donors in both groups, dispersions that vary little and much between genes."""
    for n in (2, 4, 8):
        group, block = np.tile([0, 1], n), np.repeat(np.arange(n), 2)
        draw = partial(_varied, group=group, block=block)
        yield from null_levels(options, f"{n} pairs, variance of log dispersions 0.3", draw, _both(), CALIBRATED)
        draw = partial(_varied, group=group, block=block, log_sd=WIDE, block_sd=0.3)
        yield from null_levels(options, f"{n} pairs, variance of log dispersions 2", draw, _both(), CALIBRATED)


def blocks(options: Options) -> Iterator[Line]:
    """Batches: incomplete, unbalanced, with large effects; screens that lie unevenly over batches."""
    three = groups((3, 3, 3)), np.tile([0, 1, 2], 3)
    lacking = np.array([0, 1] * 4 + [0, 1]), np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5])
    halves = np.array([0, 0, 1, 0, 1, 1] * 2), np.repeat([0, 1], 6)
    unequal = np.array([0] + [1] * 5 + [2] + [0] * 5 + [1] + [2] * 2), np.repeat([0, 1], [7, 8])
    settings = {
        "3 groups x 3 batches": (three, 0.5),
        "3 groups x 3 batches, effects of sd 1": (three, 1.0),
        "4 pairs and two samples without a partner": (lacking, 1.0),
        "6v6 in 2 batches": (halves, 0.7),
        "2 batches 1:5:1 and 5:1:2, effects of sd 1": (unequal, 1.0),
        "2 batches 1:5:1 and 5:1:2, effects of sd 2": (unequal, 2.0),
    }
    for name, ((group, block), sd) in settings.items():
        draw = partial(_simulate, group=group, block=block, block_sd=sd)
        yield from null_levels(options, name, draw, in_blocks(), IN_BLOCKS)
    for sd in (0.7, 2.0):
        name = f"screen, 60 targets of 4 unevenly over 3 batches, effects of sd {sd:g}"
        ways = {"": p_of(screen, *[f"c{k}" for k in range(1, 61)], block_key="block")}
        draw = partial(_uneven_screen, block_sd=sd)
        yield from null_levels(options, name, draw, ways, IN_BLOCKS, n_genes=1_000, tests_a_gene=60)


def formulas(options: Options) -> Iterator[Line]:
    """Designs by formula: covariates, interaction, batches, tests of several coefficients."""
    two = ("condition", "c1", "c0")
    settings: dict[str, tuple[np.ndarray, Callable, str, object]] = {
        "slope, 8 samples": (np.tile([0, 1], 4), _covariate(1), "~ x1", "x1"),
        "4v4 and 2 covariates": (groups((4, 4)), _covariate(2), "~ x1 + x2 + condition", two),
        "5v5, covariate r 0.95 with the group": (groups((5, 5)), _collinear, "~ x1 + condition", two),
        "8 samples, covariate with one leverage point": (np.tile([0, 1], 4), _leverage, "~ x1", "x1"),
        "3v3 in 2 batches": (groups((3, 3)), _batches, "~ batch + condition", two),
        "2 x 2 interaction, 3 a cell": (groups((6, 6)), _second, "~ condition * second", "condition:second"),
        "5 groups of 3, one contrast": (groups([3] * 5), _nothing, "~ condition", two),
        "4 groups of 3, all coefficients": (groups([3] * 4), _nothing, "~ condition", "condition"),
    }
    for name, (group, columns, design, contrast) in settings.items():
        draw = partial(_with_columns, group=group, columns=columns)
        ways = {design: p_of(compare, design=design, contrast=contrast, reference=None)}
        yield from null_levels(options, name, draw, ways, CALIBRATED)
        if "covariates" in name or "interaction" in name:
            draw = partial(_varied_columns, group=group, columns=columns)
            name += ", variance of log dispersions 2"
            yield from null_levels(options, name, draw, ways, CALIBRATED)


def extreme_outlier(options: Options) -> Iterator[Line]:
    """One gene in twenty has dispersion 8; two covariates that mean nothing, 8v8."""
    ways = {"~ condition": "~ condition", "~ condition + x1 + x2": "~ condition + x1 + x2"}
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for repeat in range(max(options.nulls // 20_000, 1)):
        rng = generator(options.seed, "wild", repeat)
        is_outlier = rng.random(20_000) < 0.05
        phi = np.where(is_outlier, 8.0, 0.3 * rng.lognormal(0, 0.5, 20_000))
        group = groups((8, 8))
        adata = simulate(rng, group, 20_000, means=(2, 500), phi=phi, depth_sd=0.0, **_covariate(2)(rng, group))
        for way, design in ways.items():
            p = compare(adata, design=design, contrast=("condition", "c1", "c0"))["pvals"][:, 0]
            for which, of in (
                ("all genes", slice(None)),
                ("ordinary genes", ~is_outlier),
                ("genes of dispersion 8", is_outlier),
            ):
                found.setdefault((way, which), []).append(p[of])
    for (way, which), p_values in found.items():
        bar = CALIBRATED if which == "all genes" and "x1" in way else NO_BAR
        yield level_line(f"{way}, {which}", Levels.of(p_values), bar)


def trend(options: Options) -> Iterator[Line]:
    """The dispersion trend of designs with few residual degrees of freedom, against the truth in bins of 200 genes."""
    donor = np.repeat(np.arange(8), 2)
    batch = np.array([0, 1, 0, 2, 1, 3, 2, 3, 0, 1, 0, 3, 1, 2, 2, 3])
    visits = [(d, v) for d in range(8) for v in range(3) if (d, v) not in ((1, 2), (3, 2), (5, 1), (6, 2))]
    seen, visit = np.array(visits).T
    in_batches = {"donor": _names("d", donor), "batch": _names("b", batch)}
    in_time = {"donor": _names("d", seen), "visit": _names("v", visit), "slope": (seen >= 4) * visit.astype(float)}
    pair = {"donor": _names("d", donor), "treated": _names("t", np.tile([0, 1], 8))}
    settings = {
        "8 donors x 2 samples, 4 batches": (donor, in_batches, "~ donor + batch", ("batch", "b1", "b0")),
        "8 donors x 3 visits, 4 missed": (seen, in_time, "~ donor + visit + slope", "slope"),
        "8 pairs": (donor, pair, "~ donor + treated", ("treated", "t1", "t0")),
    }
    for name, (donors, columns, design, contrast) in settings.items():
        ratios = []
        for repeat in range(2 if options.quick else TREND_SETS):
            adata = _low_means(generator(options.seed, name, repeat), donors, columns)
            ratios.append(_trend_ratios(adata, design, contrast))
        n_bins = min(map(len, ratios))
        ratio = np.mean([r[:n_bins] for r in ratios], axis=0)
        figures = f"estimated / true: {ratio.min():.2f}-{ratio.max():.2f} in {n_bins} bins; first bins " + " ".join(
            f"{r:.2f}" for r in ratio[:6]
        )
        yield Line(name, figures, "0.8-1.2 in every bin", PASS if ratio.min() >= 0.8 and ratio.max() <= 1.2 else MISS)


def _low_means(rng: np.random.Generator, donor: np.ndarray, columns: dict) -> AnnData:
    """6,000 genes of means 0.7 to 300 and 3,000 of means 1 to 2; dispersions lie on the trend, donors differ by sd 0.3."""
    mean = np.concatenate([np.geomspace(0.7, 300, 6_000), np.geomspace(1, 2, 3_000)])
    depth = np.exp(rng.normal(0, 0.3, len(donor)))
    effect = rng.normal(0, 0.3, (donor.max() + 1, len(mean)))[donor]
    counts = negative_binomial(rng, depth[:, None] * mean * np.exp(effect), _true_trend(mean))
    return samples(counts, np.arange(len(donor)) % 2, depth, {"dispersion": _true_trend(mean)}, **columns)


def _true_trend(mean: np.ndarray) -> np.ndarray:
    return 0.08 * (1 + 5 / mean)


def _trend_ratios(adata: AnnData, design: str, contrast: object) -> np.ndarray:
    """Estimated over true trend in bins of 200 genes, in ascending order of the observed mean, from 0.9 on."""
    compare(adata, design=design, contrast=contrast, reference=None)
    mean = adata.var["nb_compare_base_mean"].to_numpy()
    estimated = adata.var["nb_compare_dispersion_trend"].to_numpy()
    usable = np.flatnonzero((mean >= 0.9) & np.isfinite(estimated))
    usable = usable[np.argsort(mean[usable])]
    bins = np.array_split(usable, len(usable) // GENES_A_BIN)
    true = adata.var["dispersion"].to_numpy()
    return np.array([estimated[b].mean() / true[b].mean() for b in bins])


def _simulate(rng: np.random.Generator, n_genes: int, group: np.ndarray, **options) -> AnnData:
    return simulate(rng, group, n_genes, **({"phi": 0.1} | options))


def _varied(rng: np.random.Generator, n_genes: int, group: np.ndarray, log_sd: float = 0.55, **options) -> AnnData:
    """Means 2 to 500, log-normal dispersions around 0.05."""
    phi = 0.05 * np.exp(rng.normal(0, log_sd, n_genes))
    return simulate(rng, group, n_genes, means=(2, 500), phi=phi, **options)


def _uneven_screen(rng: np.random.Generator, n_genes: int, block_sd: float) -> AnnData:
    """A control of 9 in three batches; the batches of each target's samples are drawn with unequal chances."""
    of_targets = [rng.choice(3, 4, p=rng.dirichlet([0.7] * 3)) for _ in range(60)]
    block = np.concatenate([np.arange(9) % 3, *of_targets])
    return simulate(rng, groups([9] + [4] * 60), n_genes, means=(2, 1000), block=block, block_sd=block_sd)


def _both() -> dict:
    return {way: test for way, test in in_blocks().items() if way != "screen"}


def _with_columns(rng: np.random.Generator, n_genes: int, group: np.ndarray, columns: Callable) -> AnnData:
    return simulate(rng, group, n_genes, **columns(rng, group))


def _varied_columns(rng: np.random.Generator, n_genes: int, group: np.ndarray, columns: Callable) -> AnnData:
    return _varied(rng, n_genes, group, WIDE, **columns(rng, group))


def _nothing(rng: np.random.Generator, group: np.ndarray) -> dict:
    return {}


def _covariate(n: int) -> Callable[[np.random.Generator, np.ndarray], dict]:
    return lambda rng, group: {f"x{k + 1}": rng.normal(0, 1, len(group)) for k in range(n)}


def _collinear(rng: np.random.Generator, group: np.ndarray) -> dict:
    return {"x1": group + rng.normal(0, 0.15, len(group))}


def _leverage(rng: np.random.Generator, group: np.ndarray) -> dict:
    return {"x1": np.append(rng.normal(0, 1, len(group) - 1), 12.0)}


def _batches(rng: np.random.Generator, group: np.ndarray) -> dict:
    return {"batch": _names("b", np.array([0, 1, 0, 0, 1, 1]))}


def _second(rng: np.random.Generator, group: np.ndarray) -> dict:
    return {"second": _names("p", np.arange(len(group)) // 3 % 2)}


def _names(letter: str, codes: np.ndarray) -> pd.Categorical:
    return pd.Categorical([f"{letter}{code}" for code in codes])
