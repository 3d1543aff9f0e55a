"""Which test for two groups within blocks? Mantel-Haenszel r* (the package), block effects by sweeps, the likelihood's r*.

    python benchmarks/designs/blocks.py [--data-sets N] [--designs NAME ...]

Prints type-I at .05, .01, .001, relative power at matched realised .01 and .001, and CPU time a test, and writes benchmarks/designs/blocks.md when
all designs were run. Counts as in the method page of designs: 20,000 genes, means log-uniform 1-1000, dispersions phi0 (1 + 5 / mean)
times a log-normal, block effects of log-sd .5, a fifth of the genes with effects of three standard errors.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
from blocks_peers import known_dispersion_p, likelihood_tests, pairs_of, test_pairs
from numpy.typing import NDArray

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.stratified.compare import fit_matched_trend, matched_tests
from nbcompare._nb.stratified.design import block_constants, matched_design
from nbcompare._nb.two_group.block_effects import fit_blocks
from nbcompare._nb.two_group.dataset_fit import fit_shared
from nbcompare._nb.two_group.gene_test import compare_genes

HERE = Path(__file__).parent
PAIR = np.array([[0, 1]])
SETTINGS = (
    (0.1, 0.5, 0.3),
    (0.02, 1.0, 0.3),
    (0.1, 0.5, 1.0),
    (0.4, 0.7, 0.3),
)  # phi0, log-sd of it, log-sd of exposures
N_MODERATE = 3  # the last setting is the hard corner
LEVELS = np.array([0.05, 0.01, 0.001, 1e-4, 1e-5])
N_GENES, LOW = 20_000, 10.0


def paired(n_donors: int, replicates: int = 1, missing: tuple = ()) -> tuple[NDArray, NDArray]:
    """Groups and blocks of samples: every donor in both arms, but for the (arm, donor) that are missing."""
    cells = [cell for cell in product(range(2), range(n_donors)) if cell not in missing]
    return tuple(np.repeat(np.array(cells), replicates, axis=0).T)


DESIGNS = {
    "3 donors": paired(3),
    "4 donors": paired(4),
    "5 donors": paired(5),
    "6 donors": paired(6),
    "8 donors": paired(8),
    "6 donors, one missing in each arm": paired(6, missing=((0, 5), (1, 4))),
    "3 donors, 2 replicates each": paired(3, replicates=2),
    "4 v 3 in 2 batches": (np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 1, 1])),
    "4 v 4 in 2 batches": (np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 0, 1, 1, 1])),
}


@dataclass(frozen=True)
class Simulated:
    """One data set."""

    pseudobulk: Pseudobulk
    mean: NDArray
    dispersion: NDArray
    is_null: NDArray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-sets", type=int, default=6, help="of each setting")
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    options = parser.parse_args()
    head = (
        "# Two groups within blocks\n\n"
        f"Written by `python benchmarks/designs/blocks.py` on {date.today()}, {platform.machine()}, one thread; {options.data_sets} data sets of {N_GENES:,} genes in each of the\n"
        f"settings (phi0, log-sd of the scatter, log-sd of the exposures) {SETTINGS[:N_MODERATE]}, pooled, and in the hard one {SETTINGS[-1]}.\n"
        "Genes with 10 counts or more. Trend and scatter are fitted to each data set, exposures are the true ones. Power is relative to the first test of the\n"
        "design, each at the p-value at which its own realised type-I is .01 (.001). `us`: CPU time a test, dispersion included, given the trend.\n"
    )
    columns = [
        "design",
        "test",
        ".05",
        ".01",
        ".001",
        "1e-4",
        "1e-5",
        "smallest p",
        "counts 1-10: .05 / .01 / .001",
        "power at .01 (.001)",
    ]
    columns += ["hard: .05", ".01", ".001", "power at .01", "us"]
    lines = [head, table_line(columns), table_line(["---"] * len(columns))]
    for line in lines:
        print(line, flush=True)
    for name in options.designs:
        for line in design_rows(name, options):
            print(line, flush=True)
            lines.append(line)
    if options.designs == list(DESIGNS):
        (HERE / "blocks.md").write_text("\n".join(lines) + "\n")


def design_rows(name: str, options: argparse.Namespace) -> list[str]:
    """One row a test."""
    tasks = [(setting, k) for setting in range(len(SETTINGS)) for k in range(options.data_sets)]
    found = [data_set(name, *task) for task in tasks]
    costs = cost_of_tests(name)
    rows, reference = [], {}
    for test in found[0]:
        cells = []
        for hard in (False, True):
            parts = [f[test] for f, (setting, _) in zip(found, tasks, strict=True) if (setting >= N_MODERATE) == hard]
            nulls = np.concatenate([p[null] for p, null, _ in parts])
            low = np.concatenate([p[null & (mean < LOW)] for p, null, mean in parts])
            power = [np.mean([power_at(p, null, level) for p, null, _ in parts]) for level in LEVELS[1:3]]
            reference.setdefault(hard, power)
            relative = [a / b for a, b in zip(power, reference[hard], strict=True)]
            rates = [(nulls < level).mean() for level in LEVELS]
            if hard:
                cells += [f"{rates[0]:.3f}", f"{rates[1]:.4f}", f"{rates[2]:.4f}", f"{relative[0]:.3f}"]
            else:
                of_low = " / ".join(f"{(low < level).mean():.4f}" for level in LEVELS[:3])
                cells += [f"{rates[0]:.4f}", f"{rates[1]:.4f}", f"{rates[2]:.5f}", f"{rates[3]:.1e}", f"{rates[4]:.1e}"]
                cells += [f"{nulls.min():.0e}", of_low]
                cells += [f"{relative[0]:.3f} ({relative[1]:.3f})"]
        rows.append(table_line([name, test, *cells, f"{costs[test]:.2f}" if test in costs else ""]))
    return rows


def power_at(p: NDArray, null: NDArray, level: float) -> float:
    """Share of the true differences below the p-value that this share of the nulls is below."""
    return float((p[~null] <= np.quantile(p[null], level)).mean())


def data_set(name: str, setting: int, k: int) -> dict[str, tuple[NDArray, NDArray, NDArray]]:
    """P-values of all tests, which genes are null, and their means; of the genes that are tested."""
    rng = np.random.default_rng([list(DESIGNS).index(name), setting, k])
    simulated = simulate(rng, *DESIGNS[name], *SETTINGS[setting])
    pseudobulk = simulated.pseudobulk
    result = moderated_tests(pseudobulk, PAIR)
    found = {
        "Mantel-Haenszel r*": result.p_value_all[:, 0],
        "the same, leave-one-out rule": result.p_value[:, 0],
        "sweeps": sweeps(pseudobulk),
    }
    if is_complete(name):
        found["likelihood r*, donors eliminated"] = likelihood_tests(pseudobulk)[0]
        found["known dispersion, likelihood r*"] = known_dispersion_p(pseudobulk, simulated.dispersion)
    else:
        found["likelihood r*, any design"] = any_design(pseudobulk)
    tested = np.isfinite(result.p_value[:, 0])
    return {test: (p[tested], simulated.is_null[tested], simulated.mean[tested]) for test, p in found.items()}


def is_complete(name: str) -> bool:
    """One sample of every donor in both arms."""
    group, block = DESIGNS[name]
    return len(group) == 2 * len(set(block)) == 2 * (group == 0).sum() and len(
        set(zip(group, block, strict=True))
    ) == len(group)


def sweeps(pseudobulk: Pseudobulk) -> NDArray:
    """The test that data sets of more than two groups get."""
    return compare_genes(fit_shared(pseudobulk, PAIR, min_gene_counts=10.0).setting(pseudobulk, PAIR))[3][:, 0]


def any_design(pseudobulk: Pseudobulk) -> NDArray:
    blocks = (pseudobulk.block[:, None] == np.unique(pseudobulk.block)).astype(float)
    design = np.column_stack([blocks, pseudobulk.group])
    contrast = np.eye(design.shape[1])[-1]
    return design_tests(pseudobulk.counts, np.log(pseudobulk.exposure)[None, :], design, [contrast]).p_value[:, 0]


def simulate(
    rng: np.random.Generator, group: NDArray, block: NDArray, phi0: float, log_dispersion_var: float, spread: float
) -> Simulated:
    exposure = rng.lognormal(0, spread, len(group))
    exposure /= np.exp(np.log(exposure).mean())
    mean = np.exp(rng.uniform(0, np.log(1000), N_GENES))
    phi = phi0 * (1 + 5 / mean) * rng.lognormal(0, log_dispersion_var, N_GENES)
    expected = mean[:, None] * exposure * np.exp(rng.normal(0, 0.5, (N_GENES, block.max() + 1)))[:, block]
    weight = expected / (1 + phi[:, None] * expected)
    information = np.zeros(N_GENES)
    for r in set(block):
        first, second = (weight[:, (block == r) & (group == g)].sum(axis=1) for g in (0, 1))
        information += np.divide(first * second, first + second)
    is_null = rng.random(N_GENES) >= 0.2
    size = np.minimum(3 / np.sqrt(information), 4) * rng.choice([-1, 1], N_GENES)
    expected *= np.exp(np.where(is_null, 0.0, size)[:, None] * (group - 0.5))
    counts = rng.poisson(
        expected * rng.standard_gamma(np.broadcast_to(1 / phi[:, None], expected.shape)) * phi[:, None]
    )
    return Simulated(Pseudobulk(counts.astype(float), exposure, group, block), mean, phi, is_null)


def cost_of_tests(name: str) -> dict[str, float]:
    """Microseconds of CPU time a test, given the trend; median of several runs."""
    rng = np.random.default_rng(0)
    pseudobulk = simulate(rng, *DESIGNS[name], *SETTINGS[0]).pseudobulk
    design = matched_design(pseudobulk, 1)
    trend = fit_matched_trend(pseudobulk, design, pseudobulk.counts.sum(axis=1) >= 10)
    shared = fit_shared(pseudobulk, PAIR, min_gene_counts=10.0)
    at_mean = shared.trend.at(shared.mean)
    setting = shared.setting(pseudobulk, PAIR)
    costs = {
        "Mantel-Haenszel r*": seconds(lambda: matched_tests(pseudobulk, design, trend, leave_out=False)),
        "the same, leave-one-out rule": seconds(lambda: matched_tests(pseudobulk, design, trend)),
        "sweeps": seconds(lambda: fit_blocks(pseudobulk, at_mean, PAIR)) + seconds(lambda: compare_genes(setting)),
    }
    if is_complete(name):
        first, second = pairs_of(pseudobulk)
        constants, out = block_constants(pseudobulk.group, pseudobulk.block)[0], np.empty((N_GENES, 3))
        given = (
            pseudobulk.counts,
            pseudobulk.exposure,
            first,
            second,
            at_mean,
            trend.log_dispersion_var,
            *constants,
            out,
        )
        costs["likelihood r*, donors eliminated"] = seconds(lambda: test_pairs(*given))
    return {test: 1e6 * cost / N_GENES for test, cost in costs.items()}


def seconds(run: Callable[[], object], repeats: int = 9) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return float(np.median(times))


def table_line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
