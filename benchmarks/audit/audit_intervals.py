"""Row of audit.py: coverage of the 95 % intervals of log2 fold changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from anndata import AnnData
from audit_bars import MISS, Line, Options, within, worst
from audit_data import compare, generator, groups, negative_binomial, samples, screen, simulate

LOW, HIGH = 0.93, 0.97
LARGE = 8.0  # log2 fold change over a nearly empty group
Truth = tuple[AnnData, np.ndarray, np.ndarray]  # samples, true log2 fold changes, genes whose coverage counts


def intervals(options: Options) -> Iterator[Line]:
    """Coverage of `lfc_lower` to `lfc_upper` (95 %), and of 1.96 standard errors for comparison."""
    three = {"plain": {}, "block_key": {"block_key": "block"}, "design": {"design": "~ block + condition"}}
    yield from _coverage(options, "true fold change 8 over a mean of 0.4, 8v8", _near_empty, three)
    ways = {"plain": {}, 'method="mle"': {"method": "mle"}, "design": {"design": "~ condition"}}
    for who, sizes, ratio in (("target", (30, 3), (1, 4)), ("control", (3, 30), (4, 1))):
        draw = _of_sizes(sizes, ratio)
        yield from _coverage(options, f"3v30, the {who} of 3 x4", draw, ways)
    yield from _coverage(options, "control of 4 x4, 3 targets of 4", _of_sizes((4, 4, 4, 4), (4, 1, 1, 1)), ways)
    for sizes in ((3, 3), (8, 8), (3, 12)):
        for lfc in (0.0, 2.0):
            name = "{}v{}".format(*sizes) + f", fold change {lfc:g}"
            yield from _coverage(options, name, _of_sizes(sizes, (1, 1), lfc), ways)
    yield from _coverage(
        options, "8 pairs, fold change 1", _pairs, {way: three[way] for way in ("block_key", "design")}
    )
    yield from _coverage(options, "4v4, reference without counts, true fold change 6", _empty, {"plain": {}}, high=1.0)


def _coverage(
    options: Options,
    scenario: str,
    draw: Callable[[np.random.Generator], Truth],
    ways: dict[str, dict],
    high: float = HIGH,
) -> Iterator[Line]:
    bar = f"{LOW:g}-{high:g}"
    calls = {way: (compare, kwargs) for way, kwargs in ways.items()}
    if "plain" in ways:
        calls["screen"] = (screen, {"intervals": True})
    found: dict[str, list[np.ndarray]] = {way: [] for way in calls}
    for repeat in range(1 if options.quick else 4):
        adata, truth, counted = draw(generator(options.seed, scenario, repeat))
        for way, (call, kwargs) in calls.items():
            found[way].append(_covered(call(adata, "c1", **kwargs), truth, counted))
    for way, parts in found.items():
        stored, by_error = np.concatenate(parts, axis=1)
        beside = f"1.96 lfc_se {np.nanmean(by_error):.3f}" if np.isfinite(by_error).any() else "no lfc_se"
        if np.isnan(stored).all():
            yield Line(f"{scenario}, {way}", f"not stored; {beside}", bar, MISS)
            continue
        missing = np.isnan(stored).mean()
        coverage = np.nanmean(stored)
        error = np.sqrt(0.05 * 0.95 / len(stored))
        verdict = worst([within(coverage, LOW, high, error), within(missing, 0, 0.001, 1e-3)])
        without = f", {missing:.1%} without an interval" if missing else ""
        yield Line(f"{scenario}, {way}", f"{coverage:.3f}{without}; {beside}", bar, verdict)


def _covered(found: dict[str, np.ndarray], truth: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Whether the stored interval and 1.96 standard errors contain the truth, (2, n_genes); NaN where there is no interval."""
    counted = counted & np.isfinite(found["pvals"][:, 0])
    truth = truth[counted]
    out = np.full((2, len(truth)), np.nan)
    if "lfc_lower" in found:
        lower, upper = (found[key][counted, 0] for key in ("lfc_lower", "lfc_upper"))
        out[0] = np.where(np.isnan(lower) | np.isnan(upper), np.nan, (lower <= truth) & (truth <= upper))
    if "lfc_se" in found:
        out[1] = np.abs(found["logfoldchanges"][counted, 0] - truth) <= 1.96 * found["lfc_se"][counted, 0]
    return out


def _near_empty(rng: np.random.Generator) -> Truth:
    """500 genes of mean 0.4 in the reference and 256 times as much in the target, beside 3,500 ordinary ones; 8 pairs."""
    n, n_genes, few = 8, 4_000, 500
    mean = np.exp(rng.normal(3, 1.5, n_genes))
    mean[:few] = 0.4
    truth = np.where(np.arange(n_genes) < few, LARGE, 0.0)
    phi = 0.08 * rng.lognormal(0, 1, n_genes)
    group, block = groups((n, n)), np.tile(np.arange(n), 2)
    depth = np.exp(rng.normal(0, 0.3, 2 * n))
    effect = np.exp(rng.normal(0, 0.3, (n, n_genes)))[block]
    counts = negative_binomial(rng, depth[:, None] * mean * effect * 2.0 ** np.outer(group, truth), phi)
    adata = samples(counts, [f"c{k}" for k in group], depth, block=[f"b{k}" for k in block])
    return adata, truth, truth > 0


def _of_sizes(
    sizes: tuple[int, ...], ratio: tuple[float, ...], lfc: float = 0.0
) -> Callable[[np.random.Generator], Truth]:
    def draw(rng: np.random.Generator) -> Truth:
        changed = 0.2 if lfc else 0.0
        adata = simulate(rng, groups(sizes), 5_000, means=(5, 2000), phi=0.05, ratio=ratio, changed=changed, lfc=lfc)
        truth = adata.var["lfc"].to_numpy()
        return adata, truth, np.abs(truth) == lfc

    return draw


def _pairs(rng: np.random.Generator) -> Truth:
    adata = simulate(rng, np.tile([0, 1], 8), 5_000, block=np.repeat(np.arange(8), 2), changed=0.2, lfc=1.0)
    truth = adata.var["lfc"].to_numpy()
    return adata, truth, truth != 0


def _empty(rng: np.random.Generator) -> Truth:
    """Genes of mean 0.05 in the reference: nearly all have no count there, and the interval has one finite bound."""
    n_genes = 4_000
    mean = np.exp(rng.uniform(np.log(5), np.log(2000), n_genes))
    mean[:800] = 0.05
    truth = np.where(np.arange(n_genes) < 800, 6.0, 0.0)
    group = groups((4, 4))
    depth = np.exp(rng.normal(0, 0.3, 8))
    phi = 0.05 * rng.lognormal(0, 0.5, n_genes)
    counts = negative_binomial(rng, depth[:, None] * mean * 2.0 ** np.outer(group, truth), phi)
    adata = samples(counts, [f"c{k}" for k in group], depth)
    return adata, truth, (truth > 0) & (counts[group == 0].sum(axis=0) == 0)
