"""Posteriors of a screen: are they calibrated, with and without blocks, and what do they cost.

    python benchmarks/screen/screen_posterior.py [calibration time]

calibration: twenty simulated screens of 2,000 genes each, with known truth (nbcompare.datasets.simulate: effects normal, dispersions log-normal around a
trend that the prior must find). The probability that nothing changes, in ten bins of itself: largest distance between bin mean and share of unchanged genes, over bins of
500 tests or more. Intervals: share of the true log2 fold changes, zeros included, in the central 90 %; and of the changed genes alone.
time: of the whole call, samples to layers in memory, per test, medians of five rounds in turn, 40 perturbations (quadrature: 2) of 8,000 genes; CPU time
of all threads, and wall time.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

import nbcompare as nb

SCREENS = {  # name -> options of simulate, block_key
    "100 perturbations, 4 v 3": ({"n_conditions": 101, "n_replicates": [4, *[3] * 100]}, None),
    "the same, 16 v 3": ({"n_conditions": 101, "n_replicates": [16, *[3] * 100]}, None),
    "40 perturbations in 4 batches": (
        {"n_conditions": 41, "n_replicates": 4, "paired": True, "donor_sd": 0.5},
        "donor",
    ),
    "3 perturbations in 4 batches": ({"n_conditions": 4, "n_replicates": 4, "paired": True, "donor_sd": 0.5}, "donor"),
}
LEAST = 500  # tests of a bin
SEEDS = (
    20  # each with a control of its own, which all perturbations share: more of them tell more than more perturbations
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help="calibration, time; both by default")
    warnings.filterwarnings("ignore", message="Every replicate in")
    for part in parser.parse_args().parts or ("calibration", "time"):
        print(f"\n## {part}\n", flush=True)
        {"calibration": calibration, "time": times}[part]()


def calibration() -> None:
    print(
        "| screen | tests | P(no change): largest error of a bin | 90 % intervals: all | changed | outside of training |"
    )
    print("|---|---|---|---|---|---|")
    for name, (options, block_key) in SCREENS.items():
        inside, null_probability, changed, outside = [], [], [], []
        for seed in range(SEEDS):
            samples, truth = simulated(seed, options)
            screen = nb.tl.nb_screen(
                samples, "condition", reference="ctrl", block_key=block_key, method="transformer", progress=False
            )
            tested = np.isfinite(screen.layers["pvals"])
            lower, upper = screen.layers["lfc_lower"][tested], screen.layers["lfc_upper"][tested]
            true = truth[[int(name.split("_")[1]) - 1 for name in screen.obs_names]][tested]
            inside.append((lower <= true) & (true <= upper))
            changed.append(true != 0)
            null_probability.append(screen.layers["null_probability"][tested])
            outside.append(screen.layers["status"][tested] >= 2**15)
        hit, p, is_changed, out = (np.concatenate(parts) for parts in (inside, null_probability, changed, outside))
        print(
            f"| {name} | {len(p):,} | {largest_error(p, ~is_changed):.3f} | {hit.mean():.3f} | {hit[is_changed].mean():.3f} | {out.mean():.4f} |",
            flush=True,
        )


def times() -> None:
    print("| replicates | method | CPU us a test | wall us a test |\n|---|---|---|---|")
    for n_control in (3, 100):
        samples, _ = simulated(0, {"n_conditions": 41, "n_replicates": [n_control, *[3] * 40], "n_genes": 8000})
        found: dict[str, list[tuple[float, float]]] = {"mom": [], "transformer": [], "quadrature": []}
        for round_ in range(6):
            for method, rounds in found.items():
                few = method == "quadrature"
                some = samples[samples.obs["condition"].isin(["ctrl", "treated_1", "treated_2"])] if few else samples
                n_tests = samples.n_vars * (2 if few else 40)
                start = time.perf_counter(), time.process_time()
                nb.tl.nb_screen(some, "condition", reference="ctrl", method=method, progress=False)
                if round_:
                    spent = time.process_time() - start[1], time.perf_counter() - start[0]
                    rounds.append((spent[0] / n_tests * 1e6, spent[1] / n_tests * 1e6))
        for method, rounds in found.items():
            cpu, wall = np.median(rounds, axis=0)
            print(f"| {n_control} v 3 | {method} | {cpu:.1f} | {wall:.1f} |", flush=True)


def simulated(seed: int, options: dict):
    """Samples of a screen, and the true log2 fold changes of treated_1, treated_2, ... (n_perturbations, n_genes)."""
    cells = nb.datasets.simulate(
        **({"n_genes": 2000, "n_conditions": 11, "n_cells": 20, "n_cells_sd": 0.3, "rng": seed} | options)
    )
    samples = nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=1)
    return samples, cells.varm["true_logfoldchanges"].T


def largest_error(p: np.ndarray, null: np.ndarray) -> float:
    which = np.minimum((p * 10).astype(int), 9)
    errors = [abs(p[which == b].mean() - null[which == b].mean()) for b in range(10) if (which == b).sum() >= LEAST]
    return max(errors)


if __name__ == "__main__":
    main()
