"""What audit.py compares: realised over nominal levels, the bars of the issue, and a line of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from anndata import AnnData
from audit_data import generator
from audit_today import TODAY
from scipy.stats import binom

LEVELS = (0.05, 0.01, 1e-3, 1e-4, 1e-5)
TAIL = 0.005  # chance on each side that counts as a sampling error
PASS, CHANCE, MISS, NONE = "pass", "beyond, within chance", "MISS", "-"


@dataclass(frozen=True)
class Options:
    """Of one run."""

    seed: int
    quick: bool

    @property
    def nulls(self) -> int:
        """Null tests of a simulated scenario."""
        return 20_000 if self.quick else 200_000

    @property
    def comparable(self) -> bool:
        """Whether figures can be held against those stored from an earlier version: same seed, same size."""
        return self.seed == 0 and not self.quick


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    scenario: str
    figures: str
    bar: str = NONE
    verdict: str = NONE


@dataclass(frozen=True)
class Levels:
    """How many null p-values lie at or below each level."""

    n: int
    events: np.ndarray
    smallest: float

    @classmethod
    def of(cls, p_values: Iterable[np.ndarray]) -> Levels:
        """Of arrays of p-values; NaN are left out."""
        p = np.concatenate([np.ravel(values) for values in p_values])
        p = p[np.isfinite(p)]
        return cls(len(p), np.array([(p <= level).sum() for level in LEVELS]), float(p.min()) if len(p) else np.nan)

    @property
    def ratios(self) -> np.ndarray:
        """Realised over nominal."""
        return self.events / (max(self.n, 1) * np.array(LEVELS))

    def __str__(self) -> str:
        shown = " ".join(_short(ratio) for ratio in self.ratios)
        return f"{shown}; smallest {self.smallest:.0e} of {self.n:,}"


@dataclass(frozen=True)
class Bar:
    """Realised over nominal between these bounds at these levels, and a smallest p-value."""

    limits: dict[float, tuple[float, float]]
    smallest: float = 0.0
    beside: str = field(default="", compare=False)

    def __str__(self) -> str:
        parts = [
            f"{level:g}: {f'<= {high:g}' if low == 0 else f'{low:g}-{high:g}'}"
            for level, (low, high) in self.limits.items()
        ]
        parts += [f"p > {self.smallest:g}"] if self.smallest else []
        return "; ".join(parts + ([self.beside] if self.beside else []))

    def verdict(self, levels: Levels) -> str:
        """A count beyond a bound is a miss only if a test that just meets the bound would rarely give it.

        Lower bounds are not judged where fewer than five events are expected.
        """
        if levels.n == 0:
            return MISS
        found = [PASS]
        for level, (low, high) in self.limits.items():
            count, n = levels.events[LEVELS.index(level)], levels.n
            low = low if n * level >= 5 else 0
            if not low <= count / (n * level) <= high:
                rare = count > binom.ppf(1 - TAIL, n, high * level) or count < binom.ppf(TAIL, n, low * level)
                found.append(MISS if rare else CHANCE)
        if levels.smallest <= self.smallest:
            found.append(MISS)
        return worst(found)


HIGH_DISPERSION = Bar({0.05: (0.8, 1.25), 1e-3: (0, 1.8), 1e-4: (0, 2.5)})
NOT_LIBERAL = Bar({0.05: (0, 1.25), 1e-3: (0, 1.8), 1e-4: (0, 2.5)})
CALIBRATED = Bar({1e-4: (0.7, 1.4), 1e-5: (0.4, 2.2)}, smallest=1e-8)
NO_BAR = Bar({})

Way = Callable[[AnnData], np.ndarray]


def null_levels(
    options: Options,
    scenario: str,
    simulate: Callable[[np.random.Generator, int], AnnData],
    ways: dict[str, Way],
    bar: Bar = HIGH_DISPERSION,
    *,
    n_genes: int = 10_000,
    tests_a_gene: int = 1,
    repeats: int | None = None,
) -> Iterator[Line]:
    """The levels of several ways to test the same simulated nulls, a line each; `simulate` takes a generator and a number of genes."""
    repeats = repeats or max(options.nulls // (n_genes * tests_a_gene), 1)
    found: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    for repeat in range(repeats):
        adata = simulate(generator(options.seed, scenario, repeat), n_genes)
        for way, test in ways.items():
            found[way].append(test(adata))
    for way, p_values in found.items():
        yield level_line(f"{scenario}, {way}" if way else scenario, Levels.of(p_values), bar)


def level_line(scenario: str, levels: Levels, bar: Bar, beside: str = "") -> Line:
    """With the verdict of a bar; `beside` is printed after the levels."""
    if not bar.limits:
        return Line(scenario, f"{levels}{beside}")
    return Line(scenario, f"{levels}{beside}", str(bar), bar.verdict(levels))


def compared_with_today(
    options: Options, scenario: str, levels: Levels, power: float | None = None, error: float = 0.0, slack: float = 0.0
) -> Line:
    """Levels (and power) against those of the version before, TODAY: no level may be higher, no power lower than .98 of it.

    `slack` is the fraction by which a level may be higher besides the sampling error.
    """
    shown = f"{levels}" + ("" if power is None else f"; power {power:.3f}")
    before = TODAY.get(scenario)
    if before is None or not options.comparable:
        return Line(scenario, shown)
    *ratios, power_before = before
    expected = np.array(ratios) * np.array(LEVELS) * levels.n
    # the same data: two versions differ by less than two samples would
    allowed = np.maximum(expected * (1 + slack), np.array(LEVELS) * levels.n) + 2.6 * np.sqrt(expected + 1)
    verdicts = [PASS if np.all(levels.events <= allowed) else MISS]
    bar = "not above " + " ".join(_short(ratio) for ratio in ratios)
    if power is not None:
        bar += f"; power >= {0.98 * power_before:.3f}"
        verdicts.append(within(power, 0.98 * power_before, 1, error / 2.6))
    return Line(scenario, shown, bar, worst(verdicts))


def within(value: float, low: float, high: float, error: float = 0.0) -> str:
    """Verdict of a number with its standard error."""
    if low <= value <= high:
        return PASS
    return CHANCE if low - 2.6 * error <= value <= high + 2.6 * error else MISS


def worst(verdicts: Iterable[str]) -> str:
    """The worst of several."""
    verdicts = list(verdicts)
    return next((verdict for verdict in (MISS, CHANCE, PASS) if verdict in verdicts), NONE)


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.0f}"
