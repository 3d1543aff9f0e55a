"""The accuracy table, calibration and power curves of arXiv 2508.04111, theirs beside ours.

    python benchmarks/peers/paper_table.py [--tests 20000 --statsmodels 1000 --output benchmarks/results/paper_table.md]

Accuracy: every test has its own mu ~ N(-1, 2^2) (log rate per 10^4), alpha = log phi ~ N(-2, 1), beta = 0 for half of the tests, else N(0, 1), and 2 to
10 replicates a group. The paper does not state its exposures' spread nor its prior of beta: "mid" has exposures 10^6 LogNormal(.5), which
reproduces its errors, "low" 10^4 LogNormal(1), its stated geometric mean (median count .4, an empty group in every third test). Dispersions below
.01 count as .01 in the error of alpha, for all methods; without a floor a single estimate of 0 makes the mean error infinite. Tests without
any count are left out, and those in which a method fails. Batches of 20 tests share their design and exposures. Time is CPU time a test of 5 v 5 in a whole-array call; statsmodels gets the first tests only.

The transformer and the quadrature, which is the Bayes limit, know the prior above (as a prior of the arms' centre) and give posterior medians.

Calibration and power: data sets of one design (3 v 3 to 9 v 9, "mid"), whose genes follow the same prior; nulls, and ten effects from 0 to 2.5.
The p-values of method="transformer" are those of the moderated test; its row here is the local false sign rate, which is no p-value.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import peers
from peers import Estimates

from nbcompare._nb.data import Fit, Group, Pseudobulk
from nbcompare._nb.glm.likelihood_ratio import likelihood_ratio_test
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.likelihood.wald import wald_test
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.posterior.prior import Prior
from nbcompare._nb.posterior.summary import Posterior, grid_posterior, summarise_mixture
from nbcompare._transformer.posterior import posterior_of

FLOOR = 0.01
SETTINGS = {"mid": (1e6, 0.5), "low": (1e4, 1.0)}
SIZES = (3, 5, 7, 9)
EFFECTS = np.linspace(0, 2.5, 10)
PAPER = {  # success, ms a test, mean absolute errors of mu, beta, alpha
    "NB-Transformer": (1.0, 0.076, 0.202, 0.152, 0.477),
    "classical GLM (statsmodels)": (0.987, 1.128, 0.212, 0.284, 0.854),
    "method of moments": (1.0, 0.021, 0.213, 0.289, 0.852),
}
PRIOR = Prior(
    -1.0 - np.log(1e4), 2.0, -2.0, 1.0, 0.0, 0.5, 1.0
)  # what the tests are drawn from, rates a unit of exposure
Method = Callable[[Group, Group], Estimates]


def main() -> None:
    options = arguments()
    text = "\n\n".join(
        [
            "# The table, calibration and power of arXiv 2508.04111, theirs beside ours",
            accuracy(options.tests, options.statsmodels),
            calibration(options.nulls, options.statsmodels // 2),
            power(options.power, options.statsmodels // 10),
        ]
    )
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=20_000, help="tests of the accuracy table")
    parser.add_argument("--nulls", type=int, default=100_000, help="null tests a design")
    parser.add_argument("--power", type=int, default=4_000, help="tests an effect and design")
    parser.add_argument(
        "--statsmodels", type=int, default=1_000, help="tests for statsmodels; half a design, a tenth an effect"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "paper_table.md")
    return parser.parse_args()


def accuracy(n_tests: int, n_slow: int) -> str:
    lines = [
        f"## Accuracy ({n_tests:,} tests, statsmodels {n_slow:,}; mean absolute errors; phi >= {FLOOR})",
        "| | setting | success | us a test | mu | beta | alpha |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [row(f"paper: {name}", "its own", *values) for name, values in PAPER.items()]
    for setting in SETTINGS:
        batches = list(batches_of(setting, n_tests, np.random.default_rng(1)))
        for name, method in ESTIMATORS.items():
            chosen = batches if name != "statsmodels" else batches[: n_slow // len(batches[0][0][0].counts)]
            lines.append(row(name, setting, *errors(method, chosen)))
    return "\n".join(lines)


def row(name: str, setting: str, success: float, milliseconds: float, *errors_of: float) -> str:
    return (
        f"| {name} | {setting} | {success:.1%} | {milliseconds * 1e3:.3g} | "
        + " | ".join(f"{e:.3f}" for e in errors_of)
        + " |"
    )


def errors(method: Method, batches: list[tuple[tuple[Group, Group], np.ndarray]]) -> tuple[float, ...]:
    found, truth = [], []
    for groups, parameters in batches:
        seen = sum(group.counts.sum(axis=1) for group in groups) > 0
        some = [Group(np.ascontiguousarray(group.counts[seen]), group.exposure) for group in groups]
        estimates = method(*some)
        found.append([estimates.log_mean, estimates.log_fc, np.log(np.maximum(estimates.dispersion, FLOOR))])
        truth.append(parameters[:, seen])
    difference = np.abs(np.concatenate(found, axis=1) - np.concatenate(truth, axis=1))
    good = np.isfinite(difference).all(axis=0)
    return good.mean(), milliseconds_of(method), *difference[:, good].mean(axis=1)


def milliseconds_of(method: Method) -> float:
    """CPU time a test at 5 v 5, median of three."""
    n_genes = 200 if method is peers.statsmodels else 20_000
    groups, _ = draw("mid", (5, 5), n_genes, np.random.default_rng(2))
    method(*groups)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        method(*groups)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)) / n_genes * 1e3


def batches_of(setting: str, n_tests: int, rng: np.random.Generator, size: int = 20) -> Iterator[tuple]:
    """Batches of tests that share their design and exposures."""
    for _ in range(n_tests // size):
        yield draw(setting, tuple(rng.integers(2, 11, 2)), size, rng)


def draw(
    setting: str, sizes: tuple[int, int], n_genes: int, rng: np.random.Generator, effect: np.ndarray | None = None
) -> tuple[tuple[Group, Group], np.ndarray]:
    """Two groups, and the true mu (per unit of exposure), beta and alpha, (3, n_genes)."""
    depth, spread = SETTINGS[setting]
    mu = rng.normal(-1, 2, n_genes) - np.log(1e4)
    alpha = rng.normal(-2, 1, n_genes)
    beta = np.where(rng.random(n_genes) < 0.5, 0, rng.normal(0, 1, n_genes)) if effect is None else effect
    groups = []
    for n, shift in zip(sizes, (np.zeros(n_genes), beta), strict=True):
        exposure = depth * rng.lognormal(0, spread, n)
        mean = np.exp(mu + shift)[:, None] * exposure
        size = np.exp(-alpha)[:, None]
        groups.append(Group(rng.poisson(mean * rng.gamma(size, 1 / size, mean.shape)).astype(float), exposure))
    return tuple(groups), np.stack([mu, beta, alpha])


def calibration(n_nulls: int, n_slow: int) -> str:
    lines = [
        f'## Calibration: share of nulls with p below .05 / .01 / .001 ({n_nulls:,} tests a design, statsmodels {n_slow:,}; "mid")',
        "| | " + " | ".join(f"{n} v {n}" for n in SIZES) + " |",
        "|---" * (len(SIZES) + 1) + "|",
    ]
    rng = np.random.default_rng(3)
    data = {n: [draw("mid", (n, n), 20_000, rng, np.zeros(20_000))[0] for _ in range(n_nulls // 20_000)] for n in SIZES}
    for name, method in TESTS.items():
        cells = []
        for n in SIZES:
            if name == "statsmodels":
                p = method(*(Group(group.counts[:n_slow], group.exposure) for group in data[n][0])).p_value
            else:
                p = np.concatenate([method(*groups).p_value for groups in data[n]])
            p = p[~np.isnan(p)]
            cells.append(
                " / ".join(f"{(p < level).mean():.{digits}f}" for level, digits in ((0.05, 3), (0.01, 4), (0.001, 5)))
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def power(n_tests: int, n_slow: int) -> str:
    """Share of p below .05, as the paper plots it: not at a matched level, to be read beside the calibration."""
    lines = [
        f'## Power: share of p below .05 at ten effects ({n_tests:,} tests each, statsmodels {n_slow:,}; "mid")',
        "| | design | " + " | ".join(f"{effect:.2f}" for effect in EFFECTS) + " |",
        "|---" * (len(EFFECTS) + 2) + "|",
    ]
    rng = np.random.default_rng(4)
    for n in SIZES:
        effect = np.tile(EFFECTS, n_tests)
        groups, _ = draw("mid", (n, n), len(effect), rng, effect)
        for name, method in TESTS.items():
            some = slice(n_slow * len(EFFECTS)) if name == "statsmodels" else slice(None)
            p = method(*(Group(np.ascontiguousarray(group.counts[some]), group.exposure) for group in groups)).p_value
            share = (p < 0.05).reshape(-1, len(EFFECTS)).sum(axis=0) / (~np.isnan(p)).reshape(-1, len(EFFECTS)).sum(
                axis=0
            )
            lines.append(f"| {name} | {n} v {n} | " + " | ".join(f"{value:.3f}" for value in share) + " |")
    return "\n".join(lines)


def estimates_of(fit: Fit, p_value: np.ndarray | None = None) -> Estimates:
    nothing = np.full(len(fit.log_fc), np.nan)
    return Estimates(fit.log_mean, fit.log_fc, fit.dispersion, nothing if p_value is None else p_value)


def floored(fit: Fit) -> Fit:
    return Fit(fit.log_mean, fit.log_fc, np.maximum(fit.dispersion, FLOOR), fit.status)


def paper_moments(reference: Group, treated: Group) -> Estimates:
    """Plain moments with the floor in the standard error as well."""
    fit = floored(fit_moments(reference, treated, bias_corrected=False))
    return estimates_of(fit, wald_test(fit, reference, treated).p_value)


def moments(reference: Group, treated: Group) -> Estimates:
    fit = fit_moments(reference, treated)
    return estimates_of(fit, wald_test(fit, reference, treated).p_value)


def likelihood(reference: Group, treated: Group) -> Estimates:
    fit = fit_likelihood(reference, treated)
    return estimates_of(fit, wald_test(fit, reference, treated).p_value)


def likelihood_ratio(reference: Group, treated: Group) -> Estimates:
    fit = fit_likelihood(reference, treated)
    return estimates_of(fit, likelihood_ratio_test(fit, reference, treated).p_value)


def cox_reid(reference: Group, treated: Group) -> Estimates:
    fit = fit_likelihood(reference, treated, cox_reid=True)
    return estimates_of(fit, likelihood_ratio_test(fit, reference, treated).p_value)


def moderated(reference: Group, treated: Group) -> Estimates:
    """The default of the package; exposures on the scale of the counts, as size factors are."""
    counts, exposure, condition = peers.stacked(reference, treated)
    scale = np.exp(np.log(exposure).mean())
    result = moderated_tests(Pseudobulk(np.ascontiguousarray(counts), exposure / scale, condition), np.array([[0, 1]]))
    fit = fit_moments(reference, treated)
    return Estimates(fit.log_mean, result.log_fc[:, 0], result.dispersion[:, 0], result.p_value[:, 0])


def posterior(result: Posterior) -> Estimates:
    """Posterior medians, and the local false sign rate in the place of a p-value."""
    return Estimates(result.log_mean_median, result.log_fc_median, np.exp(result.log_dispersion_median), result.lfsr)


def transformer(reference: Group, treated: Group) -> Estimates:
    two_groups = (reference.counts, reference.exposure, treated.counts, treated.exposure)
    return posterior(summarise_mixture(posterior_of(*two_groups, PRIOR)))


def quadrature(reference: Group, treated: Group) -> Estimates:
    return posterior(grid_posterior(reference.counts, reference.exposure, treated.counts, treated.exposure, PRIOR))


ESTIMATORS: dict[str, Method] = {
    "plain moments": lambda a, b: estimates_of(fit_moments(a, b, bias_corrected=False)),
    "moments": lambda a, b: estimates_of(fit_moments(a, b)),
    "maximum likelihood": lambda a, b: estimates_of(fit_likelihood(a, b)),
    "Cox-Reid": lambda a, b: estimates_of(fit_likelihood(a, b, cox_reid=True)),
    "transformer": transformer,
    "Bayes limit (quadrature)": quadrature,
    "statsmodels": peers.statsmodels,
}
TESTS: dict[str, Method] = {
    "plain moments, phi >= .01, Wald (the paper's)": paper_moments,
    "moments, Wald": moments,
    "maximum likelihood, Wald": likelihood,
    "maximum likelihood, likelihood ratio": likelihood_ratio,
    "Cox-Reid, likelihood ratio": cox_reid,
    "moderated r* (our default)": moderated,
    "transformer, local false sign rate": transformer,
    "statsmodels": peers.statsmodels,
}

if __name__ == "__main__":
    main()
