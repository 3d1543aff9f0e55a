"""Rows of audit.py: local false sign rates against brute force, and posteriors of groups with larger dispersions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from audit_bars import MISS, PASS, Line, Options, within
from audit_data import compare, generator, groups, negative_binomial, screen, simulate
from scipy.special import gammaln

from nbcompare.tl._posterior.arrays import posterior_of_arrays

BOUNDS = (1e-4, 1e-3, 1e-2, 0.05)
PRIOR = {"lfc_sd": 1.5, "dispersion": 0.1, "dispersion_log_sd": 0.8, "mean": 20, "mean_log_sd": 1, "tail": "lognormal"}
METHODS = {
    "quadrature": {"method": "quadrature"},
    "network": {"method": "transformer", "importance_sampling": False},
    "network, refined": {"method": "transformer"},
}


def lfsr(options: Options) -> Iterator[Line]:
    """Local false sign rates over brute force, 3v3, prior known: median (5 % and 95 % quantile), by size of the rate."""
    rng = generator(options.seed, "lfsr", 0)
    n = 2_000
    phi = PRIOR["dispersion"] * rng.lognormal(0, PRIOR["dispersion_log_sd"], n)
    rate = PRIOR["mean"] * rng.lognormal(0, PRIOR["mean_log_sd"], n)
    fold = np.exp(PRIOR["lfc_sd"] * np.log(2) * rng.normal(size=n))
    reference, treated = (
        negative_binomial(rng, np.repeat(m[:, None], 3, axis=1), phi[:, None]) for m in (rate, rate * fold)
    )
    for null_proportion in (0.5, 0.1, 0.01):
        prior = PRIOR | {"null_proportion": null_proportion}
        found = {
            name: posterior_of_arrays(reference, treated, prior=prior, **kwargs)["lfsr"].to_numpy()
            for name, kwargs in METHODS.items()
        }
        exact = found["quadrature"]
        chosen = [
            np.flatnonzero((exact >= low) & (exact < high))[: 15 if options.quick else 40]
            for low, high in zip(BOUNDS[:-1], BOUNDS[1:], strict=True)
        ]
        truth = [np.array([_brute_force(reference[g], treated[g], null_proportion) for g in genes]) for genes in chosen]
        for name, rates in found.items():
            parts, medians = [], []
            for genes, true, low, high in zip(chosen, truth, BOUNDS[:-1], BOUNDS[1:], strict=True):
                if len(genes) < 5:
                    continue
                low_end, median, high_end = np.quantile(rates[genes] / true, [0.05, 0.5, 0.95])
                medians.append(median)
                parts.append(f"{low:g}-{high:g}: {median:.2f} ({low_end:.2f}-{high_end:.2f})")
            met = bool(medians) and min(medians) >= 0.9 and max(medians) <= 1.1
            yield Line(
                f"null_proportion {null_proportion:g}, {name}",
                "; ".join(parts),
                "median 0.9-1.1",
                PASS if met else MISS,
            )
    whole = {**PRIOR, "null_proportion": 1}
    for name, kwargs in METHODS.items():
        table = posterior_of_arrays(reference[:50], treated[:50], prior=whole, **kwargs)
        missing = int(table[["logfoldchanges", "lfc_sd", "lfsr"]].isna().any(axis=1).sum())
        yield Line(f"null_proportion 1, {name}", f"{missing} of 50 tests with NaN", "0", PASS if missing == 0 else MISS)


def high_dispersion(options: Options) -> Iterator[Line]:
    """A fifth of the genes changes by N(0, 1): nulls among the genes at null probability < 0.05, where one group is more dispersed."""
    for name, sizes, ratio in (
        ("4 groups of 4, all alike", (4, 4, 4, 4), (1, 1, 1, 1)),
        ("4 groups of 4, control x4", (4, 4, 4, 4), (4, 1, 1, 1)),
        ("4 groups of 4, tested x4", (4, 4, 4, 4), (1, 4, 1, 1)),
        ("3v30, control of 3 x5", (3, 30), (5, 1)),
        ("30v3, target of 3 x5", (30, 3), (1, 5)),
        ("3v12, control of 3 x4", (3, 12), (4, 1)),
    ):
        ways = {
            "quadrature": (compare, {"method": "quadrature"}),
            "network, refined": (compare, {"method": "transformer"}),
            "screen, quadrature": (screen, {"method": "quadrature"}),
            "screen, network": (screen, {"method": "transformer"}),
        }
        kept: dict[str, list[np.ndarray]] = {way: [] for way in ways}
        for repeat in range(1 if options.quick else 3):
            rng = generator(options.seed, name, repeat)
            n_genes = 3_000
            changed = rng.random(n_genes) < 0.2
            truth = np.where(changed, rng.normal(0, 1, n_genes), 0)
            effect = np.zeros((len(sizes), n_genes))
            effect[1] = truth * np.log(2)
            adata = simulate(rng, groups(sizes), n_genes, means=(20, 2000), phi=0.05, ratio=ratio, group_effect=effect)
            for way, (call, kwargs) in ways.items():
                found = call(adata, "c1", **kwargs)
                covered = (found["lfc_lower"][:, 0] - 1e-6 <= truth) & (truth <= found["lfc_upper"][:, 0] + 1e-6)
                kept[way].append(np.stack([found["null_probability"][:, 0] < 0.05, ~changed, covered]))
        for way, parts in kept.items():
            chosen, null, covered = np.concatenate(parts, axis=1)
            n = int(chosen.sum())
            nulls = (chosen & null).sum() / max(n, 1)
            figures = (
                f"{n} genes, {nulls:.3f} of them null; 95 % intervals cover {covered[chosen & ~null].mean():.3f} of the changed"
                f" ones among these, {covered[null].mean():.3f} of all nulls"
            )
            error = np.sqrt(0.06 * 0.94 / max(n, 1))
            yield Line(f"{name}, {way}", figures, "nulls <= 0.06", within(nulls, 0, 0.06, error) if n else MISS)


def _brute_force(reference: np.ndarray, treated: np.ndarray, null_proportion: float) -> float:
    """Of one test: sums over a grid of rates, fold changes and dispersions."""
    sd = PRIOR["lfc_sd"] * np.log(2)
    middle = 0.5 * (np.log(reference.sum() / 3 + 0.2) + np.log(treated.sum() / 3 + 0.2))
    centre = np.linspace(middle - 3, middle + 3, 81)
    change = np.linspace(-7, 7, 281)
    log_phi = np.log(PRIOR["dispersion"]) + PRIOR["dispersion_log_sd"] * np.linspace(-4, 4, 33)
    log_prior = -0.5 * ((centre - np.log(PRIOR["mean"])) / PRIOR["mean_log_sd"])[:, None] ** 2
    log_prior = log_prior - 0.5 * ((log_phi - np.log(PRIOR["dispersion"])) / PRIOR["dispersion_log_sd"]) ** 2
    null = _log_likelihood(np.append(reference, treated), centre, log_phi) + log_prior
    low = _log_likelihood(reference, centre[:, None] - change / 2, log_phi)
    high = _log_likelihood(treated, centre[:, None] + change / 2, log_phi)
    other = low + high + log_prior[:, None] - 0.5 * ((change / sd) ** 2)[:, None] - np.log(sd * np.sqrt(2 * np.pi))
    top = max(null.max(), other.max())
    unchanged = null_proportion * np.exp(null - top).sum()
    density = (1 - null_proportion) * np.exp(other - top).sum(axis=(0, 2)) * (change[1] - change[0])
    below = density[change < 0].sum() + 0.5 * density[change == 0].sum()
    return float((unchanged + min(below, density.sum() - below)) / (unchanged + density.sum()))


def _log_likelihood(counts: np.ndarray, log_rate: np.ndarray, log_phi: np.ndarray) -> np.ndarray:
    """Of counts with one rate, (*log_rate, n_phi), up to a constant."""
    size = np.exp(-log_phi)
    constant = (gammaln(counts[:, None] + size) - gammaln(size)).sum(axis=0)
    rate = np.exp(log_rate)[..., None]
    log_sum = np.log(rate + size)
    return constant + counts.sum() * (log_rate[..., None] - log_sum) + len(counts) * size * (-log_phi - log_sum)
