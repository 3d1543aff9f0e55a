"""Tests in any design: calibration on simulated data, agreement with R on real data, cost.

    python benchmarks/designs/designs.py [calibration|real|speed|all] [--genes 20000 --sets 6 --seed 0]
        [--peers-python /path/to/a/venv/bin/python]

`real` and the whole-call part of `speed` need the data folder that DEVELOPERS.md names (--data). The python of --peers-python has
edgepython and pydeseq2, or one of them; without it those rows are left out. Tables are printed and written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from design_counts import DESIGNS, MODERATE, SETTINGS, simulate
from design_real import real
from design_speed import speed

from nbcompare._nb.glm.compare import design_tests

HERE = Path(__file__).parent
LEVELS = np.array([0.05, 0.01, 1e-3, 1e-4, 1e-5])
TESTS = {"r*": "moderated", "QL F": "ql", "Wald t": "wald"}
OTHERS = 2  # data sets that the other tests are run on
BARS = ((0.045, 0.056), (0.0085, 0.0125), (0.0006, 0.0016))  # of r* in every moderate setting


def main() -> None:
    options = arguments()
    parts = PARTS if options.part == "all" else {options.part: PARTS[options.part]}
    (HERE / "results").mkdir(exist_ok=True)
    for name, part in parts.items():
        start = time.perf_counter()
        text = part(options) + f"\n\n{time.perf_counter() - start:.0f} s."
        print(text, end="\n\n", flush=True)
        (HERE / "results" / f"designs_{name}.md").write_text(text + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--sets", type=int, default=6, help="data sets of each design and setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5, help="timed calls")
    parser.add_argument("--peers-python", type=Path, help="python of an environment with edgepython or pydeseq2")
    parser.add_argument(
        "--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the real data"
    )
    return parser.parse_args()


def calibration(options: argparse.Namespace) -> str:
    """Rates of p-values below the levels among genes without an effect."""
    rows, of_setting = [], []
    for d, design in enumerate(DESIGNS):
        rates, smallest = {}, {}
        for s, setting in enumerate(SETTINGS):
            found = [
                events(design, setting, [options.seed, d, s, k], options.genes, k < OTHERS) for k in range(options.sets)
            ]
            rates[setting] = sum(counted for counted, _ in found)
            smallest[setting] = np.min([least for _, least in found], axis=0)
        print(design, *(rate_cell(rates[setting][0, 0], 4) for setting in SETTINGS), sep=" | ", flush=True)
        of_setting += [rates[setting][0, 0, 1:] / rates[setting][0, 0, :1] for setting in MODERATE]
        pooled = sum(rates[setting] for setting in MODERATE)
        for t, test in enumerate(TESTS):
            cells = [rate_cell(pooled[t, 0], 5), rate_cell(pooled[t, 1], 3), rate_cell(rates["hard"][t, 0], 3)]
            least = min(smallest[setting][t] for setting in MODERATE)
            rows.append([design, test, *cells, f"{least:.0e} of {int(pooled[t, 0, 0]):,}"])
    header = [
        "design",
        "test",
        "moderate settings",
        "of these, mean 1-10",
        "hard setting (phi0 = .4)",
        "smallest p, moderate",
    ]
    return "\n".join(
        [
            f"## Calibration: type-I at {', '.join(f'{level:g}' for level in LEVELS)}",
            "",
            f"{options.sets} data sets of {options.genes:,} genes a setting ({OTHERS} for the other tests), seed {options.seed}; settings {SETTINGS}.",
            "",
            table(header, rows),
            "",
            "r* over the moderate settings, one by one: least, median, largest.",
            "",
            table(
                ["level", "rates", "bar", "outside"], [spread_row(k, np.array(of_setting)) for k in range(len(LEVELS))]
            ),
        ]
    )


def events(design: str, setting: str, seed: list[int], n_genes: int, all_tests: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tested null genes and those below each level, (n_tests, all and low means, 1 + n_levels), and each test's smallest p."""
    data = simulate(np.random.default_rng(seed), design, setting, n_genes)
    found, smallest = np.zeros((len(TESTS), 2, 1 + len(LEVELS))), np.ones(len(TESTS))
    for t, test in enumerate(list(TESTS.values()) if all_tests else ["moderated"]):
        p = design_tests(data.counts, data.log_exposure, data.design, [data.contrast], test=test).p_value[:, 0]
        tested = data.null & ~np.isnan(p)
        for b, chosen in enumerate((tested, tested & (data.mean < 10))):
            found[t, b] = [chosen.sum(), *(p[chosen, None] < LEVELS).sum(axis=0)]
        smallest[t] = p[tested].min(initial=1.0)
    return found, smallest


def rate_cell(counted: np.ndarray, n_levels: int) -> str:
    return " / ".join(f"{rate:.2g}".lstrip("0") for rate in counted[1 : 1 + n_levels] / counted[0])


def spread_row(k: int, rates: np.ndarray) -> list[str]:
    values = rates[:, k]
    spread = f"{values.min():.2g} - {np.median(values):.2g} - {values.max():.2g}"
    if k >= len(BARS):
        return [f"{LEVELS[k]:g}", spread, "", ""]
    low, high = BARS[k]
    return [f"{LEVELS[k]:g}", spread, f"{low}-{high}", f"{((values < low) | (values > high)).sum()} of {len(values)}"]


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {"calibration": calibration, "real": real, "speed": speed}

if __name__ == "__main__":
    main()
