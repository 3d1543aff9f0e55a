"""How good are shrunken effects, and are their false sign rates what they say? Simulated comparisons with known effects.

    python benchmarks/calibration/shrink.py [--data-sets N]

Prints a table and writes benchmarks/calibration/shrink.md. Counts of 20,000 genes, means log-uniform 1-1000, dispersions (.1 + .5 / mean) times a
log-normal of log-sd .5, exposures of log-sd .3; effects are natural logarithms. Effects, standard errors and p-values are those of the moderated
test with its rules; a zero effect has no sign, so calling it is a sign error.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.inference.shrinkage import Shrunken, s_values, shrink
from nbcompare._nb.moderated import Moderated, moderated_tests

HERE = Path(__file__).parent
N_GENES = 20_000
PAIR = np.array([[0, 1]])
BINS = ((0.0, 0.01), (0.01, 0.05), (0.1, 0.2))

Truth = Callable[[np.random.Generator], NDArray]
TRUTHS: dict[str, Truth] = {
    "85 % null, N(0, 1)": lambda rng: rng.normal(0, 1, N_GENES) * (rng.random(N_GENES) < 0.15),
    "60 % null, .5 t(3)": lambda rng: rng.standard_t(3, N_GENES) * 0.5 * (rng.random(N_GENES) < 0.4),
    "all N(0, .5)": lambda rng: rng.normal(0, 0.5, N_GENES),
    "no effects": lambda rng: np.zeros(N_GENES),
}
DESIGNS = {
    "3 v 3": (np.repeat([0, 1], 3), None),
    "5 v 5": (np.repeat([0, 1], 5), None),
    "4 donors": (np.repeat([0, 1], 4), np.tile(np.arange(4), 2)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-sets", type=int, default=3)
    options = parser.parse_args()
    head = (
        "# Shrunken effects\n\n"
        f"Written by `python benchmarks/calibration/shrink.py` on {date.today()}, {platform.machine()}, one thread; means of {options.data_sets} data sets of {N_GENES:,} genes each. Sign errors: realised /\n"
        "predicted among genes whose local false sign rate is in the interval. Calls: s-value below .05, with the share of them whose sign is wrong or\n"
        "whose effect is zero. `s`: CPU time, the prior's fit included.\n"
    )
    names = ["design", "effects", "estimate", "RMSE, all", "changed", "sign errors, < .01", ".01-.05", ".1-.2"]
    lines = [head, line([*names, "calls", "wrong", "s"]), line(["---"] * 11)]
    print("\n".join(lines), flush=True)
    for design, truth in [(d, t) for d in DESIGNS for t in TRUTHS]:
        for row in rows(design, truth, options.data_sets):
            print(row, flush=True)
            lines.append(row)
    (HERE / "shrink.md").write_text("\n".join(lines) + "\n")


def rows(design: str, truth: str, n_data_sets: int) -> list[str]:
    """A row an estimate."""
    found: dict[str, list[NDArray]] = {}
    for k in range(n_data_sets):
        rng = np.random.default_rng([list(DESIGNS).index(design), list(TRUTHS).index(truth), k])
        effect = TRUTHS[truth](rng)
        result = moderated_tests(simulate(rng, effect, *DESIGNS[design]), PAIR)
        tested = np.isfinite(result.p_value[:, 0])
        for name, estimate in estimates(result, tested).items():
            start = time.process_time()
            mean, lfsr = estimate()
            seconds = time.process_time() - start
            found.setdefault(name, []).append(np.append(figures(mean[tested], lfsr[tested], effect[tested]), seconds))
    return [line([design, truth, name, *cells(np.array(values))]) for name, values in found.items()]


def estimates(result: Moderated, tested: NDArray) -> dict[str, Callable[[], tuple[NDArray, NDArray]]]:
    """Functions that give effects and local false sign rates."""
    log_fc, se, p, z = (v[:, 0] for v in (result.log_fc, result.se, result.p_value, result.statistic))
    wald = log_fc / se
    return {
        "as estimated": lambda: (log_fc, norm.sf(np.abs(z))),
        "one normal prior": lambda: one_normal(log_fc, se, tested),
        "mixture, the model's error": lambda: of(shrink(log_fc, se, 2 * norm.sf(np.abs(wald)), wald)),
        "**mixture, the p-value's error**": lambda: of(shrink(log_fc, se, p, z)),
    }


def of(shrunken: Shrunken) -> tuple[NDArray, NDArray]:
    return shrunken.mean, shrunken.lfsr


def figures(mean: NDArray, lfsr: NDArray, effect: NDArray) -> NDArray:
    """RMSE of all and of changed genes; realised and predicted sign errors by bin; calls and the share of wrong ones."""
    wrong = np.sign(mean) != np.sign(effect)
    square = np.square(mean - effect)
    changed = effect != 0
    out = [np.sqrt(square.mean()), np.sqrt(square[changed].mean()) if changed.any() else np.nan]
    for low, high in BINS:
        at = (lfsr >= low) & (lfsr < high)
        out += [wrong[at].mean(), lfsr[at].mean()] if at.sum() >= 20 else [np.nan, np.nan]
    called = s_values(lfsr) < 0.05
    return np.array([*out, called.sum(), wrong[called].mean() if called.any() else np.nan])


def cells(values: NDArray) -> list[str]:
    mean = [np.nanmean(column) if np.isfinite(column).any() else np.nan for column in values.T]
    errors = [f"{mean[k]:.3f} / {mean[k + 1]:.3f}" if np.isfinite(mean[k]) else "-" for k in (2, 4, 6)]
    shown = ["-" if np.isnan(v) else f"{v:.3f}" for v in mean[:2]]
    wrong = "-" if np.isnan(mean[9]) else f"{mean[9]:.3f}"
    return [*shown, *errors, f"{mean[8]:.0f}", wrong, f"{mean[10]:.3f}"]


def one_normal(b: NDArray, se: NDArray, tested: NDArray) -> tuple[NDArray, NDArray]:
    """Posterior means and tails under N(0, v), v by the fixed point of its moment equation."""
    v, b_, s2 = 1.0, b[tested], se[tested] ** 2
    for _ in range(200):
        weight = 1 / (s2 + v) ** 2
        v = max((weight * (b_**2 - s2)).sum() / weight.sum(), 1e-8)
    share = v / (v + se**2)
    return share * b, norm.sf(np.abs(share * b) / (np.sqrt(share) * se))


def simulate(rng: np.random.Generator, effect: NDArray, group: NDArray, block: NDArray | None) -> Pseudobulk:
    exposure = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(0, np.log(1000), N_GENES))[:, None]
    phi = (0.1 + 0.5 / mean) * rng.lognormal(0, 0.5, mean.shape)
    expected = mean * exposure * np.exp(effect[:, None] * (group - 0.5))
    if block is not None:
        expected *= np.exp(rng.normal(0, 0.5, (N_GENES, block.max() + 1)))[:, block]
    counts = rng.poisson(expected * rng.standard_gamma(np.broadcast_to(1 / phi, expected.shape)) * phi)
    return Pseudobulk(counts.astype(float), exposure, group, block)


def line(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


if __name__ == "__main__":
    main()
