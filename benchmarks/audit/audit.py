"""Whether every p-value, interval and posterior is right where it is most easily wrong: one table, row by row, with bars.

    python benchmarks/audit/audit.py [row ...] [--quick] [--seed N]

Without names all rows are run. The figures of a level are realised / nominal at 0.05, 0.01, 0.001, 1e-4 and 1e-5: the fraction of
null p-values at or below the level, divided by the level; then the smallest p-value. A row's last full run is kept in
benchmarks/results/; when every row has one, benchmarks/audit/audit.md is put together from them. `--quick` takes a tenth of the nulls.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path

import audit_blocks
import audit_groups
import audit_intervals
import audit_outliers
import audit_posterior
import audit_real
import audit_sparse
from audit_bars import CHANCE, MISS, NONE, PASS, Line, Options

HERE = Path(__file__).parent
Row = Callable[[Options], Iterator[Line]]
ROWS: dict[str, Row] = {
    "same": audit_groups.same,
    "equal": audit_groups.equal,
    "high_dispersion": audit_groups.high_dispersion,
    "noisy_more": audit_groups.high_dispersion_more,
    "noisy_blocks": audit_groups.high_dispersion_blocks,
    "rest": audit_groups.rest,
    "pairs": audit_blocks.pairs,
    "blocks": audit_blocks.blocks,
    "formulas": audit_blocks.formulas,
    "wild": audit_blocks.extreme_outlier,
    "trend": audit_blocks.trend,
    "outlier": audit_outliers.outlier,
    "few": audit_outliers.few,
    "sparse": audit_sparse.sparse,
    "intervals": audit_intervals.intervals,
    "lfsr": audit_posterior.lfsr,
    "posterior": audit_posterior.high_dispersion,
    "kang": audit_real.kang,
    "real": audit_real.real,
}
COLUMNS = ("scenario", "figures", "bar", "result")


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore")
    options = Options(arguments.seed, arguments.quick)
    (HERE / "results").mkdir(exist_ok=True)
    lines = {name: _run(name, options) for name in arguments.rows or ROWS}
    print(
        "# Missed",
        *(f"{name}: {line.scenario}" for name in lines for line in lines[name] if line.verdict == MISS),
        sep="\n",
    )
    print("\n" + _count(line for name in lines for line in lines[name]))
    texts = [_saved(name, Options(arguments.seed, False)) for name in ROWS]
    if not arguments.quick and all(path.exists() for path in texts):
        (HERE / "audit.md").write_text("\n".join([_heading(), *(path.read_text() for path in texts)]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="row", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the nulls")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _run(name: str, options: Options) -> list[Line]:
    """Prints the lines of a row as they come, and keeps them."""
    row = ROWS[name]
    text = [f"## {name}: {row.__doc__.splitlines()[0]}", "", _cells(COLUMNS), _cells(["---"] * len(COLUMNS))]
    print("\n".join(text), flush=True)
    start, lines = time.process_time(), []
    for line in _guarded(row(options)):
        lines.append(line)
        text.append(_cells([line.scenario, line.figures, line.bar, line.verdict]))
        print(text[-1], flush=True)
    text += ["", f"{time.process_time() - start:.0f} s of CPU time. {_count(lines)}", ""]
    print("\n".join(text[-3:]), flush=True)
    _saved(name, options).write_text("\n".join(text))
    return lines


def _guarded(lines: Iterator[Line]) -> Iterator[Line]:
    """The same lines; an error becomes a line, so that one row does not stop the others."""
    try:
        yield from lines
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        message = " ".join(str(error).split())
        yield Line("not finished", f"{type(error).__name__}: {message[:300]}", NONE, MISS)


def _saved(name: str, options: Options) -> Path:
    return HERE / "results" / f"audit_{name}_{options.seed}{'_quick' * options.quick}.md"


def _heading() -> str:
    return (
        "# Audit of levels, intervals and posteriors\n\n"
        f"`python benchmarks/audit/audit.py`, put together on {date.today()} from the last full run of each row.\n"
        + "\n".join(__doc__.splitlines()[4:-1])
        + "\nThe result is 'beyond, within chance' where a figure is outside of its bar by less than the sampling error.\n"
    )


def _cells(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _count(lines: Iterable[Line]) -> str:
    verdicts = Counter(line.verdict for line in lines)
    return ", ".join(f"{verdicts[name]} {name}" for name in (PASS, CHANCE, MISS)) + "."


if __name__ == "__main__":
    main()
