"""How often does the moderated r* test call a difference where there is none? Simulated and real nulls, from .05 to 1e-5.

    python benchmarks/calibration/calibration.py [grid|realistic|tail|real|all] [--quick] [--edgepython PYTHON]

Prints tables and writes them to benchmarks/results/; when every part has been run in full, benchmarks/calibration/calibration.md is put together
from the last run of each.
`real` needs the data folder that DEVELOPERS.md names (--data); with the Python of an environment that has edgePython
(pip install edgepython; GPL, so never a dependency) it also runs edgeR's quasi-likelihood test on the same splits.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from null_counts import PAIR, Simulated, homogeneous, known_dispersion_p, realistic
from null_splits import Split, all_splits

from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.moderated import moderated_tests

HERE = Path(__file__).parent
PROCESSES = 2
DESIGNS = ((2, 2), (3, 3), (5, 5), (10, 10), (3, 10), (4, 100))
LEVELS = np.array([0.05, 0.01, 1e-3, 1e-4, 1e-5])
VERSIONS = ("default", "without the leave-one-out rule", "known dispersion, r*")
MEANS, DISPERSIONS, SPREADS = (0.5, 2.0, 10.0, 100.0, 1000.0), (0.0, 0.01, 0.1, 1.0), (0.0, 0.3, 1.0)
REALISTIC = tuple(product((0.02, 0.1), (0.5, 1.0)))  # dispersion at high means, log-sd of its scatter
TAIL = {  # design: dispersion at high means, log-sd of its scatter, millions of tests
    (3, 3): (0.1, 0.5, 10),
    (5, 5): (0.02, 1.0, 10),
    (2, 2): (0.1, 0.5, 10),
    (3, 10): (0.02, 1.0, 10),
    (4, 100): (0.1, 0.5, 3),
}
EDGER = ("edgeR 3 QL", "edgeR 4 QL")
BINS = np.array([0.0, 1.0, 10.0, 100.0, np.inf])  # of the true mean
FEW = 5_000  # a regime with fewer tested genes is left out: too few to tell .003 from .013


def main() -> None:
    options = arguments()
    parts = PARTS if options.part == "all" else {options.part: PARTS[options.part]}
    (HERE / "results").mkdir(exist_ok=True)
    for name, part in parts.items():
        start = time.perf_counter()
        text = part(options) + f"\n\n{time.perf_counter() - start:.0f} s."
        print(text, end="\n\n", flush=True)
        saved(name, options.quick).write_text(text + "\n")
    texts = [saved(name).read_text() for name in PARTS if saved(name).exists()]
    if not options.quick and len(texts) == len(PARTS):
        (HERE / "calibration.md").write_text("\n".join([heading(), *texts]))


def saved(part: str, quick: bool = False) -> Path:
    """Where the last run of a part left its tables."""
    return HERE / "results" / f"calibration_{part}{'_quick' * quick}.md"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--quick", action="store_true", help="a look at every part in about two minutes")
    parser.add_argument("--edgepython", type=Path, help="Python of an environment with edgePython")
    parser.add_argument(
        "--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the real data"
    )
    return parser.parse_args()


def heading() -> str:
    return (
        "# Calibration of the moderated r* test\n\n"
        f"The last run of each part of `python benchmarks/calibration/calibration.py all --edgepython PYTHON`, put together on {date.today()}; two processes on two cores, {platform.machine()}.\n"
        "The default is what `tl.nb_compare` reports: genes with 10 counts or more, trend and scatter fitted to the same data set, the\n"
        "leave-one-replicate-out rule applied. Simulated samples are tested with their true exposures, real ones with median-of-ratios factors.\n"
    )


# ---------------------------------------------------------------------------------------------------------- homogeneous


def grid(options: argparse.Namespace) -> str:
    regimes = list(product(DESIGNS, MEANS, DISPERSIONS, SPREADS[1:2] if options.quick else SPREADS))
    n_genes = 4_000 if options.quick else 14_000
    counts = np.array(list(parallel(partial(grid_regime, n_genes=n_genes), list(enumerate(regimes)))))
    tested, hits = counts[:, 0, 0], counts[:, :, 1:]
    rates = hits / np.maximum(tested, 1)[:, None, None]
    few = 1_000 if options.quick else FEW
    enough = tested >= few
    can_reject = enough & (rates[:, 2, 1] >= 0.003)
    bar = "Bar for the default at .01: .003-.013, median .009-.011."
    lines = [
        "## Homogeneous regimes",
        "",
        f"{len(regimes)} regimes: {list(DESIGNS)} replicates, mean {MEANS}, dispersion {DISPERSIONS}, log-sd of the exposures {SPREADS};",
        f"2 data sets of {n_genes:,} genes each, a fifth of them with differences of three standard errors. {enough.sum()} regimes have {few:,} tested null genes;",
        f"in {can_reject.sum()} of these the r* test that knows the dispersion rejects at least .003 of them at .01. Type-I over these {can_reject.sum()}. {bar}",
        "",
        table(
            ["test", ".05 median", "range", ".01 median", "range", ".001 median", "max", "1e-4 max"],
            [grid_row(name, rates[can_reject, v]) for v, name in enumerate(VERSIONS)],
        ),
        "",
        grid_outside(regimes, rates, tested, can_reject),
        "",
        "Type-I of the default at .01, mean of the regimes with mean >= 10 and log-sd .3 of the exposures:",
        "",
        grid_by_dispersion(regimes, rates),
    ]
    return "\n".join(lines)


def grid_regime(numbered: tuple[int, tuple], n_genes: int) -> np.ndarray:
    seed, (sizes, mean, dispersion, spread) = numbered
    return sum(
        events(homogeneous(np.random.default_rng([1, seed, k]), sizes, mean, dispersion, spread, n_genes))
        for k in range(2)
    )


def grid_row(name: str, rates: np.ndarray) -> list[str]:
    cells = [name]
    for k in (0, 1):
        cells += [f"{np.median(rates[:, k]):.4f}", f"{rates[:, k].min():.4f}-{rates[:, k].max():.4f}"]
    return [*cells, f"{np.median(rates[:, 2]):.5f}", f"{rates[:, 2].max():.5f}", f"{rates[:, 3].max():.5f}"]


def grid_outside(regimes: list, rates: np.ndarray, tested: np.ndarray, can_reject: np.ndarray) -> str:
    outside = np.flatnonzero(can_reject & ((rates[:, 0, 1] < 0.003) | (rates[:, 0, 1] > 0.013)))
    if len(outside) == 0:
        return "No regime is outside the bar."
    rows = []
    for i in outside:
        (n1, n2), mean, dispersion, spread = regimes[i]
        rates_01 = [f"{rates[i, v, 1]:.4f}" for v in range(3)]
        rows.append([f"{n1} v {n2}", f"{mean:g}", f"{dispersion:g}", f"{spread:g}", f"{tested[i]:,.0f}", *rates_01])
    names = ["replicates", "mean", "dispersion", "log-sd", "tested", *VERSIONS]
    return f"Outside the bar, {len(outside)} of the regimes (type-I at .01):\n\n" + table(names, rows)


def grid_by_dispersion(regimes: list, rates: np.ndarray) -> str:
    rows = []
    for sizes in DESIGNS:
        row = ["{} v {}".format(*sizes)]
        for dispersion in DISPERSIONS:
            of = [i for i, r in enumerate(regimes) if (r[0], r[2], r[3]) == (sizes, dispersion, 0.3) and r[1] >= 10]
            row.append(f"{rates[of, 0, 1].mean():.4f}")
        rows.append(row)
    return table(["replicates", *(f"dispersion {phi:g}" for phi in DISPERSIONS)], rows)


# ------------------------------------------------------------------------------------------------------------ realistic


def realistic_bins(options: argparse.Namespace) -> str:
    settings = list(product(DESIGNS, REALISTIC))
    repeats = 1 if options.quick else 5
    counts = np.array(list(parallel(partial(realistic_setting, repeats=repeats), list(enumerate(settings)))))
    rates = counts[:, 1:, :, 1:] / np.maximum(counts[:, 1:, :, :1], 1)  # settings, bins, versions, levels
    rows = [grid_row(name, rates[:, :, v].reshape(-1, len(LEVELS))) for v, name in enumerate(VERSIONS)]
    return "\n".join(
        [
            "## Realistic data sets",
            "",
            f"{len(settings)} settings: {list(DESIGNS)} replicates, dispersion (phi0 + 1/mean) times a log-normal, (phi0, log-sd) in {list(REALISTIC)}; means log-uniform",
            f".3-3000, log-sd .3 of the exposures, 15 % of genes with differences, {repeats} data sets of 20,000 genes. Type-I over settings and bins of the mean (1-10, 10-100, > 100):",
            "",
            table(["test", ".05 median", "range", ".01 median", "range", ".001 median", "max", "1e-4 max"], rows),
        ]
    )


def realistic_setting(numbered: tuple[int, tuple], repeats: int) -> np.ndarray:
    seed, (sizes, (dispersion, log_dispersion_var)) = numbered
    return sum(
        events_by_bin(
            realistic(np.random.default_rng([2, seed, k]), sizes, dispersion, log_dispersion_var, 20_000, 0.15), True
        )
        for k in range(repeats)
    )


# ------------------------------------------------------------------------------------------------------------- far tail


def tail(options: argparse.Namespace) -> str:
    data_sets = [
        (d, k, sizes, dispersion, log_dispersion_var)
        for d, (sizes, (dispersion, log_dispersion_var, millions)) in enumerate(TAIL.items())
        for k in range(10 if options.quick else millions * 50)
    ]
    totals = np.zeros((len(TAIL), len(BINS) - 1, 2, 1 + len(LEVELS)))
    for (d, *_), found in zip(data_sets, parallel(tail_data_set, data_sets, 10), strict=True):
        totals[d] += found
    rows, by_bin = [], []
    for d, (sizes, (dispersion, log_dispersion_var, _)) in enumerate(TAIL.items()):
        name = "{} v {} ({}, {})".format(*sizes, dispersion, log_dispersion_var)
        pooled = totals[d].sum(axis=0)
        for v in range(2):
            ratio = pooled[v, 1:] / (pooled[v, 0] * LEVELS)
            missed = [not 0.5 <= ratio[3] <= 1.5, not 0.2 <= ratio[4] <= 2]
            verdict = {(0, 0): "met", (1, 0): "missed at 1e-4", (0, 1): "missed at 1e-5", (1, 1): "missed at both"}
            cells = [f"{r:.2f}" for r in ratio[1:4]] + [f"{ratio[4]:.2f} ({pooled[v, -1]:.0f})"]
            rows.append([name, VERSIONS[v], f"{pooled[v, 0] / 1e6:.1f}", *cells, verdict[tuple(map(int, missed))]])
        bins = totals[d][:, 0]
        ratios = bins[:, 1:] / np.maximum(bins[:, :1] * LEVELS, 1e-300)
        by_bin.append([name, *(f"{r[2]:.2f} / {r[3]:.2f} / {r[4]:.2f}" for r in ratios)])
    return "\n".join(
        [
            "## Far tail",
            "",
            "Null genes of data sets of 20,000, means and dispersions as in the realistic ones, (phi0, log-sd) in brackets. Realised / nominal; bars .5-1.5 at 1e-4, .2-2 at 1e-5:",
            "",
            table(["replicates", "test", "million tests", ".01", "1e-3", "1e-4", "1e-5 (events)", "bars"], rows),
            "",
            "The default by the mean count, at 1e-3 / 1e-4 / 1e-5:",
            "",
            table(["replicates", "< 1", "1-10", "10-100", "> 100"], by_bin),
        ]
    )


def tail_data_set(task: tuple) -> np.ndarray:
    design, seed, sizes, dispersion, log_dispersion_var = task
    rng = np.random.default_rng([3, design, seed])
    return events_by_bin(realistic(rng, sizes, dispersion, log_dispersion_var, 20_000, 0.0), False)


# ---------------------------------------------------------------------------------------------------------- real splits


def real(options: argparse.Namespace) -> str:
    title = "## Real null splits\n\n"
    if not options.data.is_dir():
        return title + "Skipped: the folder of the real data is not there (--data)."
    settings = all_splits(options.data, options.quick)
    theirs = edger(settings, options.edgepython) if options.edgepython else {}
    rows = []
    for name, splits in settings.items():
        results = [moderated_tests(split.pseudobulk, split.pairs) for split in splits]
        tests = {"default": [r.p_value for r in results], VERSIONS[1]: [r.p_value_all for r in results]}
        for version, found in theirs.get(name, {}).items():
            tests[version] = [np.where(np.isnan(r.p_value), np.nan, p) for r, p in zip(results, found, strict=True)]
        ratios = {test: realised_over_nominal(p_values) for test, p_values in tests.items()}
        for k, (test, p_values) in enumerate(tests.items()):
            label = "" if k else f"{name} ({len(splits)})"
            verdict = split_verdict(ratios) if k == 0 and theirs else ""
            rows.append([label, test, *split_cells(p_values, ratios[test]), verdict])
    head = [
        "splits (number)",
        "test",
        "tests",
        ".05",
        ".01",
        ".001",
        "1e-4",
        "1e-5",
        "smallest p",
        "with a hit at 5 % FDR",
        "bar",
    ]
    text = (
        "Realised / nominal, with the standard error over splits (which share samples); genes with 10 counts or more, the same for all tests, each with\n"
        f"its own normalisation. Bar for the default: at most {EDGER[0]}'s + .3 at .05, .01 and .001.\n\n"
    )
    return title + text + table(head, rows) + ("" if theirs else "\n\nedgeR was not run: no --edgepython.")


def realised_over_nominal(p_values: list[np.ndarray]) -> np.ndarray:
    """Over all splits, per level."""
    pooled = np.concatenate([p[np.isfinite(p)] for p in p_values])
    return np.array([(pooled < level).mean() / level for level in LEVELS])


def split_verdict(ratios: dict[str, np.ndarray]) -> str:
    above = ratios["default"][:3] > ratios[EDGER[0]][:3] + 0.3
    return "missed at " + ", ".join(np.array([".05", ".01", ".001"])[above]) if above.any() else "met"


def split_cells(p_values: list[np.ndarray], ratio: np.ndarray) -> list[str]:
    """Tests, ratios and the share of comparisons with a hit."""
    of_split = np.array([realised_over_nominal([p]) for p in p_values])
    error = of_split.std(axis=0, ddof=1) / np.sqrt(len(p_values))
    hits = [np.nanmin(adjust_p_values(column)) < 0.05 for p in p_values for column in p.T]
    n_tests = sum(int(np.isfinite(p).sum()) for p in p_values)
    smallest = min(np.nanmin(p) for p in p_values)
    levels = [f"{r:.2f} ± {e:.2f}" for r, e in zip(ratio, error, strict=True)]
    return [f"{n_tests:,}", *levels, f"{smallest:.0e}", f"{np.mean(hits):.3f}"]


def edger(settings: dict[str, list[Split]], python: Path) -> dict[str, dict[str, list[np.ndarray]]]:
    """P-values of edgeR 3's and edgeR 4's quasi-likelihood test for every split, (genes, comparisons) each.

    They are kept in benchmarks/results/edger, named after what went in, so that only new splits cost time.
    """
    folder = HERE / "results" / "edger"
    folder.mkdir(exist_ok=True)
    files: dict[str, list[Path]] = {}
    for name, splits in settings.items():
        for split in splits:
            design, coefs = split.design, split.pairs[:, 1]
            content = hashlib.sha256(split.counts.tobytes() + design.tobytes()).hexdigest()[:20]
            files.setdefault(name, []).append(folder / f"{content}.npy")
            if not files[name][-1].exists():
                np.savez(folder / f"{content}.npz", counts=split.counts, design=design, coefs=coefs)
    command = [str(python), str(HERE / "edger_ql.py"), str(folder)]
    parts = [[*command, str(part), str(PROCESSES)] for part in range(PROCESSES)]
    codes = [job.wait() for job in [subprocess.Popen(part, stdout=subprocess.DEVNULL) for part in parts]]
    if any(codes):
        sys.exit("edgePython failed, see above")
    found = {name: [np.load(path) for path in paths] for name, paths in files.items()}
    return {name: {test: [p[v] for p in of] for v, test in enumerate(EDGER)} for name, of in found.items()}


# -------------------------------------------------------------------------------------------------------------- helpers


def events(simulated: Simulated) -> np.ndarray:
    """Null genes tested, and p-values below each level: (versions, 1 + levels)."""
    return events_by_bin(simulated, True).sum(axis=0)


def events_by_bin(simulated: Simulated, with_known: bool) -> np.ndarray:
    """The same by bins of the mean, (bins, versions, 1 + levels); the known-dispersion test last, if wanted."""
    result = moderated_tests(simulated.pseudobulk, PAIR)
    versions = [result.p_value[:, 0], result.p_value_all[:, 0]] + (
        [known_dispersion_p(simulated)] if with_known else []
    )
    of_bin = np.digitize(simulated.mean, BINS) - 1
    counted = simulated.is_null & np.isfinite(result.p_value[:, 0])
    out = np.zeros((len(BINS) - 1, len(versions), 1 + len(LEVELS)))
    for b, v in np.ndindex(out.shape[:2]):
        p = versions[v][counted & (of_bin == b)]
        out[b, v] = [len(p), *((p < level).sum() for level in LEVELS)]
    return out


def parallel(function: Callable, tasks: list, chunk: int = 1) -> Iterator:
    """Results in the order of the tasks, computed by two processes."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, tasks, chunksize=chunk)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "grid": grid,
    "realistic": realistic_bins,
    "tail": tail,
    "real": real,
}

if __name__ == "__main__":
    main()
