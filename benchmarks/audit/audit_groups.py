"""Rows of audit.py: groups whose dispersions differ, or do not, by every way to compare them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
from anndata import AnnData
from audit_bars import (
    MISS,
    NOT_LIBERAL,
    PASS,
    Levels,
    Line,
    Options,
    Way,
    compared_with_today,
    null_levels,
)
from audit_data import compare, generator, groups, screen, simulate

SIZES = ((3, 3), (3, 5), (3, 6), (3, 9), (3, 12), (3, 30), (2, 8), (4, 12))
RATIOS = (2, 4)
GENES = {"means": (10, 1000), "phi": 0.05}
SAME = 1e-6  # largest difference of log10 p between two ways


def p_of(call=compare, *tested: str, **options) -> Way:
    """One way to test: the p-values of these groups."""
    return lambda adata: call(adata, *tested, **options)["pvals"]


def two_groups(tested: str = "c1") -> dict[str, Way]:
    return {
        "plain": p_of(compare, tested),
        "screen": p_of(screen, tested),
        "design": p_of(compare, tested, design="~ condition"),
    }


def high_dispersion(options: Options) -> Iterator[Line]:
    """Two groups, one of them with two or four times the dispersions; half of the nulls have it in the control."""
    half = partial(null_levels, options, repeats=max(options.nulls // 20_000, 1))
    for (small, large), ratio in product(SIZES, RATIOS):
        for who in ("target", "control"):
            sizes, ratios = ((large, small), (1, ratio)) if who == "target" else ((small, large), (ratio, 1))
            name = f"{small}v{large}, {who} of {small} x{ratio}"
            draw = partial(_draw, group=groups(sizes), ratio=ratios)
            ways = two_groups()
            if who == "control":
                del ways["plain"]  # the same p-values as of the target
            yield from half(name, draw, ways)
    for small, large in ((3, 12), (3, 30)):
        draw = partial(_draw, group=groups((small, large)), ratio=(1, 4))
        yield from half(f"{small}v{large}, the {large} x4", draw, two_groups(), NOT_LIBERAL)


def high_dispersion_more(options: Options) -> Iterator[Line]:
    """Several groups, one of them with larger dispersions."""
    fours = groups((4, 4, 4, 4))
    for ratio in RATIOS:
        draw = partial(_draw, group=fours, ratio=(1, ratio, 1, 1))
        yield from null_levels(options, f"4 groups of 4, the tested x{ratio}", draw, two_groups())
        every = {name: (lambda adata, call=call: call(adata)) for name, call in _all_targets().items()}
        draw = partial(_draw, group=fours, ratio=(ratio, 1, 1, 1))
        yield from null_levels(options, f"4 groups of 4, control x{ratio}", draw, every, tests_a_gene=3)
        few = groups((8, *[3] * 6))
        draw = partial(_draw, group=few, ratio=(ratio, *[1] * 6))
        yield from null_levels(options, f"control of 8 x{ratio}, 6 targets of 3", draw, every, tests_a_gene=6)
        screens = {"screen": p_of(screen, *[f"c{k}" for k in range(1, 20, 4)], n_fit_perturbations=10)}
        many = groups((6, *[3] * 20))
        ratios = np.ones(21)
        ratios[1::4] = ratio
        draw = partial(_draw, group=many, ratio=ratios)
        name = f"control of 6, 20 targets of 3, every fourth x{ratio}, those"
        yield from null_levels(options, name, draw, screens, tests_a_gene=5)


def high_dispersion_blocks(options: Options) -> Iterator[Line]:
    """The same in blocks: the samples of a block share an effect."""
    fours, block = np.tile([0, 1, 2], 4), np.repeat(np.arange(4), 3)
    pairs, pair = np.tile([0, 1], 4), np.repeat(np.arange(4), 2)
    for ratio, who in product(RATIOS, ("target", "control")):
        ratios = [1.0, 1.0, 1.0]
        ratios[1 if who == "target" else 0] = ratio
        draw = partial(_draw, group=fours, block=block, ratio=ratios)
        yield from null_levels(options, f"3 groups in 4 blocks, {who} x{ratio}", draw, in_blocks())
    draw = partial(_draw, group=pairs, block=pair, ratio=(1, 4))
    ways = {name: way for name, way in in_blocks().items() if name != "screen"}
    yield from null_levels(options, "4 pairs, target x4", draw, ways)
    unequal, in_two = np.array([0] * 6 + [1] * 2 + [0] * 6 + [1] * 2), np.repeat([0, 1], 8)
    draw = partial(_draw, group=unequal, block=in_two, ratio=(1, 4))
    yield from null_levels(options, "4v12 in 2 blocks, the 4 x4", draw, in_blocks())


def rest(options: Options) -> Iterator[Line]:
    """`reference="rest"`: members of the rest that differ in rate or dispersion; the tested group has their mean rate."""
    ways = {
        "plain": p_of(compare, "c0", reference="rest"),
        'dispersion="pair"': p_of(compare, "c0", reference="rest", dispersion="pair"),
    }
    fours = groups((4, 4, 4, 4))
    for ratio in RATIOS:
        draw = partial(_draw, group=fours, ratio=(1, ratio, 1, 1))
        yield from null_levels(options, f"4 groups of 4, one of the rest x{ratio}", draw, ways)
    draw = partial(_draw, group=fours, ratio=(4, 1, 1, 1))
    yield from null_levels(options, "4 groups of 4, the tested x4", draw, ways)
    yield from null_levels(options, "4 groups of 4, all alike", partial(_draw, group=fours), ways)
    mixtures = {
        "rates 1 1 16 in the rest": (1.0, 1.0, 16.0),
        "one of seven others at 16": (16.0, *[1.0] * 6),
        "rates 1/2 2 4 in the rest": (0.5, 2.0, 4.0),
    }
    for name, rates in mixtures.items():
        draw = partial(_mixture, rates=np.array(rates))
        yield from null_levels(options, name, draw, ways)


def equal(options: Options) -> Iterator[Line]:
    """Equal dispersions: levels, and power at the threshold that one null in a hundred passes."""
    for sizes in SIZES:
        yield from _with_power(options, "{}v{}".format(*sizes), partial(_draw, group=groups(sizes[::-1])), two_groups())
    draw = partial(_draw, group=groups((4, 4, 4, 4)))
    yield from _with_power(options, "4 groups of 4", draw, two_groups())
    pairs, pair = np.tile([0, 1], 4), np.repeat(np.arange(4), 2)
    yield from _with_power(options, "4 pairs", partial(_draw, group=pairs, block=pair), in_blocks())


def same(options: Options) -> Iterator[Line]:
    """Every way gives the same p-value on the same data, also where a group has larger dispersions."""
    settings = {
        "3v12": ((12, 3), (1, 1)),
        "3v12, the 3 x4": ((12, 3), (1, 4)),
        "3v30, control of 3 x4": ((3, 30), (4, 1)),
        "3v3, target x4": ((3, 3), (1, 4)),
        "4 groups of 4": ((4, 4, 4, 4), (1, 1, 1, 1)),
        "4 groups of 4, target x4": ((4, 4, 4, 4), (1, 4, 1, 1)),
        "4 groups of 4, control x4": ((4, 4, 4, 4), (4, 1, 1, 1)),
    }
    for name, (sizes, ratio) in settings.items():
        # with more than two groups a design and the plain test fit slightly different trends unless depths are equal
        rng = generator(options.seed, name, 0)
        adata = simulate(
            rng, groups(sizes), 5_000, ratio=ratio, depth_sd=0.3 if len(sizes) == 2 else 0.0, phi=0.05, means=(1, 1000)
        )
        plain = compare(adata, "c1")
        for way, found in (
            ("screen", screen(adata, "c1")),
            ("design", compare(adata, "c1", design="~ condition")),
        ):
            gaps = {}
            for label, key in (
                ("stored", "pvals"),
                ("before the leave-one-replicate-out rule", "pvals_unfiltered"),
            ):
                if key in found and key in plain:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        gap = np.abs(np.log10(found[key] / plain[key]))
                    lost = int((np.isnan(found[key]) != np.isnan(plain[key])).sum())
                    gaps[label] = (float(np.nanmax(gap)), lost)
            figures = ", ".join(
                f"{label} {gap:.1e}" + (f" ({lost} tested by one only)" if lost else "")
                for label, (gap, lost) in gaps.items()
            )
            gap, lost = gaps["stored"]
            yield Line(
                f"{name}, {way} and plain",
                f"largest difference of log10 p: {figures}",
                f"<= {SAME:g}",
                PASS if gap <= SAME and not lost else MISS,
            )


def in_blocks() -> dict[str, Way]:
    return {
        "blocks": p_of(compare, "c1", block_key="block"),
        "design": p_of(compare, "c1", design="~ block + condition"),
        "screen": p_of(screen, "c1", block_key="block"),
    }


def _all_targets() -> dict[str, Way]:
    return {
        "plain": p_of(compare),
        "screen": p_of(screen),
        "design": p_of(compare, design="~ condition"),
    }


def _draw(rng: np.random.Generator, n_genes: int, group: np.ndarray, **options) -> AnnData:
    return simulate(rng, group, n_genes, **(GENES | options))


def _mixture(rng: np.random.Generator, n_genes: int, rates: np.ndarray) -> AnnData:
    """Group 0 of four samples at the mean rate of the others, which are permuted from gene to gene; equal depths."""
    by_gene = rng.permuted(np.tile(rates, (n_genes, 1)), axis=1)
    effect = np.log(np.column_stack([by_gene.mean(axis=1), by_gene]).T)
    return simulate(rng, groups([4] * (len(rates) + 1)), n_genes, means=(5, 500), group_effect=effect, depth_sd=0.0)


def _with_power(options: Options, scenario: str, draw, ways: dict[str, Way]) -> Iterator[Line]:
    """A tenth of the genes change by the factor e."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {way: [] for way in ways}
    for repeat in range(max(options.nulls // 9_000, 1)):
        adata = draw(generator(options.seed, scenario, repeat), 10_000, changed=0.1)
        null = (adata.var["lfc"] == 0).to_numpy()
        for way, test in ways.items():
            p = test(adata)
            found[way].append((p[null], p[~null]))
    for way, pairs in found.items():
        levels = Levels.of(null for null, _ in pairs)
        nulls, others = (np.concatenate([np.ravel(pair[k]) for pair in pairs]) for k in (0, 1))
        others = others[np.isfinite(others)]
        power = float((others <= np.nanquantile(nulls, 0.01)).mean())
        error = np.sqrt(power * (1 - power) / len(others))
        yield compared_with_today(options, f"{scenario}, {way}", levels, power, error)
