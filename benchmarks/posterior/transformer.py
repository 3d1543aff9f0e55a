"""What the network of method="transformer" gets right: every figure of its model card.

    python benchmarks/posterior/transformer.py [accuracy coverage null_probability misstated means replicates differences speed training] [--network PATH]

The Bayes limit is the posterior by quadrature under the same prior: nothing has a smaller expected error. Seeds are not those of training.
accuracy: mu, alpha as in benchmarks/peers/paper_table.py ("mid" and "low"), 2 to 10 replicates an arm, half of the tests null; the centre of the arms has the prior
N(-1, 2^2) that the network is told, and, "paper", the reference's log rate has it, as in the paper, which the network is not told.
coverage: intervals of beta given a change and of alpha, over deciles of the expected count and of the dispersion, on the whole training distribution.
null_probability: calibration error in ten bins, null shares uniform on 0 to .99. misstated: both where the network is told a wrong prior.
means: error of beta by mean count beside likelihood and moments. replicates: beyond the 64 of training.
differences: from quadrature, in posterior standard deviations but for P(beta = 0). speed: CPU time, one thread; on CUDA, where there is one, the
wall clock of the whole call, arrays to arrays.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from nbcompare._nb.data import Group
from nbcompare._nb.likelihood.mle import fit_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.posterior.prior import FIELDS, Prior
from nbcompare._nb.posterior.summary import Posterior, grid_posterior, summarise_mixture
from nbcompare._transformer.batch import Data, checked, in_batches
from nbcompare._transformer.gpu.posterior import summary_on_device
from nbcompare._transformer.posterior import posterior_of, summarize
from nbcompare._transformer.training.simulate import Simulated, draw_group, simulate
from nbcompare._transformer.training_range import Ranges, in_range
from nbcompare._transformer.weights import Trained, load_network

SETTINGS = {"mid": (1e6, 0.5), "low": (1e4, 1.0)}
LEVELS = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
INTERVALS = {0.5: (2, 4), 0.9: (1, 5), 0.99: (0, 6)}
PARTS = (
    "accuracy",
    "coverage",
    "null_probability",
    "misstated",
    "means",
    "replicates",
    "differences",
    "speed",
    "training",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--network", help="path or name of the weights")
    parser.add_argument("--tests", type=int, default=200_000, help="tests of the whole training distribution")
    options = parser.parse_args()
    network = load_network(options.network)
    for part in options.parts or PARTS:
        print(f"\n## {part}\n", flush=True)
        globals()[part](network, options.tests)


def accuracy(network: Trained, n_tests: int) -> None:
    print("| setting | mu | beta | alpha | limit: mu | beta | alpha | ratio: mu | beta | alpha |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for setting, (depth, spread) in SETTINGS.items():
        for paper in (False, True):
            tests = simulated_tests(n_tests // 10, depth, spread, paper=paper)
            found = of_network(network, tests)
            limit = of_grid(tests)
            errors, best = mean_errors(tests, found), mean_errors(tests, limit)
            cells = [f"{x:.4f}" for x in (*errors, *best, *(errors / best))]
            print(f"| {setting}{' (paper)' if paper else ''} | {' | '.join(cells)} |", flush=True)


def coverage(network: Trained, n_tests: int) -> None:
    tests = simulate(np.random.default_rng(101), n_tests, Ranges())
    found = of_network(network, tests)
    present = tests.exposure1 > 0
    depth = np.where(present, tests.exposure1, 0).sum(1) / present.sum(1)
    mean = np.log(depth) + tests.truth[:, 1]
    changed = ~tests.null
    rows = {
        "beta given a change": (covered(found.change_quantiles, tests.truth[:, 2]), changed),
        "alpha": (covered(found.dispersion_quantiles, tests.truth[:, 0]), np.ones(n_tests, bool)),
    }
    print("| | interval | overall | lowest and highest decile of mean | of dispersion |\n|---|---|---|---|---|")
    for name, (inside, use) in rows.items():
        for level, hits in inside.items():
            cells = [hits[use].mean()]
            by = [by_decile(x[use], hits[use]) for x in (mean, tests.prior[:, 2])]
            text = [
                f"{cells[0]:.4f}",
                *(f"{b.min():.4f} {b.max():.4f} (off by {abs(b - level).max():.4f})" for b in by),
            ]
            print(f"| {name} | {level:.0%} | {' | '.join(text)} |", flush=True)


def null_probability(network: Trained, n_tests: int) -> None:
    rng = np.random.default_rng(102)
    tests = simulate(rng, n_tests, Ranges(), null_proportion=rng.uniform(0, 0.99, n_tests))
    found = of_network(network, tests)
    print(f"whole distribution: {calibration(found.null_probability, tests.null)}")
    for setting, (depth, spread) in SETTINGS.items():
        tests = simulated_tests(n_tests // 4, depth, spread)
        print(f"{setting}: {calibration(of_network(network, tests).null_probability, tests.null)}", flush=True)


def misstated(network: Trained, n_tests: int) -> None:
    tests = simulated_tests(n_tests // 4, *SETTINGS["mid"])
    limit = mean_errors(tests, of_grid(tests))
    for name, change in {
        "as it is": {},
        "null share .2 for .5": {"null_proportion": 0.2},
        "null share .8 for .5": {"null_proportion": 0.8},
        "scale 2 for 1": {"log_fc_sd": 2.0},
        "scale .5 for 1": {"log_fc_sd": 0.5},
    }.items():
        prior = tests.prior.copy()
        for field, value in change.items():
            prior[:, FIELDS.index(field)] = value
        found = of_network(network, replace(tests, prior=prior))
        ratio = mean_errors(tests, found) / limit
        inside = covered(found.change_quantiles, tests.truth[:, 2])
        alpha = covered(found.dispersion_quantiles, tests.truth[:, 0])
        print(
            f"{name}: error / limit {np.round(ratio, 3)}; P(beta = 0): {calibration(found.null_probability, tests.null)}"
        )
        print(
            "  coverage of beta given a change",
            {f"{k:.0%}": round(float(v[~tests.null].mean()), 4) for k, v in inside.items()},
            "of alpha",
            {f"{k:.0%}": round(float(v.mean()), 4) for k, v in alpha.items()},
            flush=True,
        )


def means(network: Trained, n_tests: int) -> None:
    print("| mean count | network | limit | likelihood | moments |\n|---|---|---|---|---|")
    for mean in (0.3, 1.0, 3.0, 10.0, 100.0, 1000.0, 10000.0):
        tests = simulated_tests(n_tests // 50, 1e4, 0.3, centre=np.log(mean), centre_sd=0.5, size=5, shared=True)
        group1, group2 = (
            Group(counts, exposure[0])
            for counts, exposure in ((tests.counts1, tests.exposure1), (tests.counts2, tests.exposure2))
        )
        others = [fit_likelihood(group1, group2).log_fc, fit_moments(group1, group2).log_fc]
        use = np.isfinite(others[0]) & np.isfinite(others[1])
        estimates = [of_network(network, tests).log_fc_median, of_grid(tests).log_fc_median, *others]
        print(f"| {mean:g} | " + " | ".join(f"{abs(x - tests.truth[:, 2])[use].mean():.4f}" for x in estimates) + " |")


def replicates(network: Trained, n_tests: int) -> None:
    for size in (1, 2, 3, 5, 10, 20, 40, 64, 100, 200, 400, (400, 3), (1000, 3), (3000, 3)):
        tests = simulated_tests(max(n_tests // (100 + 4 * np.max(size)), 200), 1e5, 0.5, size=size)
        ratio = mean_errors(tests, of_network(network, tests)) / mean_errors(tests, of_grid(tests))
        two_groups = f"{size[0]} v {size[1]} replicates" if isinstance(size, tuple) else f"{size} replicates an arm"
        print(f"{two_groups}: error / limit {np.round(ratio, 4)}", flush=True)


def differences(network: Trained, n_tests: int) -> None:
    tests = simulate(np.random.default_rng(104), n_tests // 40, Ranges())
    inside = in_range(*groups_of(tests), Prior(*tests.prior.T), ranges=network.ranges)
    found, exact = of_network(network, tests), of_grid(tests)
    print(f"quantiles .5, .99, 1 of {inside.sum()} tests in range ({inside.mean():.3f} of all)")
    for name in ("null_probability", "log_fc", "log_dispersion"):
        gap = abs(getattr(found, name) - getattr(exact, name))
        if name != "null_probability":
            gap /= getattr(exact, f"{name}_sd")
        print(name, np.round(np.quantile(gap[inside], [0.5, 0.99, 1]), 4), flush=True)


def speed(network: Trained, _: int) -> None:
    import numba
    import torch

    # before torch: where numba starts its threads with OpenMP, it sets the number that torch uses, too
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    print(
        "5 v 5, one thread of the CPU\n\n| what | where | tests | us a test | GB of GPU memory |\n|---|---|---|---|---|"
    )
    data, prior, groups = five_against_five(20_000)
    mixture = posterior_of(*data, prior, network=network, device="cpu")
    batch = checked(data, prior)
    rows = {
        "posterior": lambda: posterior_of(*data, prior, network=network, device="cpu"),
        "its summary": lambda: summarise_mixture(mixture),
        "posterior and summary": lambda: summarize(*data, prior, network=network, device="cpu"),
        "the same, path of a device": lambda: [
            summary_on_device(network.network, part, "cpu", ()) for part in in_batches(batch, 4096)
        ],
        "is it in range": lambda: in_range(*data, prior, ranges=network.ranges),
        "maximum likelihood": lambda: fit_likelihood(*groups),
    }
    for name, work in rows.items():
        print(f"| {name} | CPU | 20,000 | {1e6 * typical(work, time.process_time) / 20_000:.2f} | |", flush=True)
    if not torch.cuda.is_available():
        print("| posterior and summary | CUDA | no CUDA device here | | |")
        return
    for n_tests in (20_000, 2**17, 2**20, 2**22):
        data, prior, _groups = five_against_five(n_tests)
        torch.cuda.reset_peak_memory_stats()
        seconds = typical(partial(summarize, *data, prior, network=network, device="cuda"), time.perf_counter)
        memory = torch.cuda.max_memory_allocated() / 1e9
        name = torch.cuda.get_device_name()
        print(
            f"| posterior and summary | {name} | {n_tests:,} | {1e6 * seconds / n_tests:.3f} | {memory:.2f} |",
            flush=True,
        )


def five_against_five(n_tests: int) -> tuple[Data, Prior, tuple[Group, Group]]:
    """Data and prior of tests of "mid" with five replicates an arm, exposures shared."""
    tests = simulated_tests(n_tests, *SETTINGS["mid"], size=5, shared=True)
    data = (tests.counts1, tests.exposure1[0], tests.counts2, tests.exposure2[0])
    return data, Prior(*tests.prior[0]), (Group(*data[:2]), Group(*data[2:]))


def typical(work: Callable[[], object], clock: Callable[[], float], repeats: int = 7) -> float:
    """Median of the seconds that something takes after a first time."""
    work()
    seconds = []
    for _ in range(repeats):
        start = clock()
        work()
        seconds.append(clock() - start)
    return float(np.median(seconds))


def training(network: Trained, _: int) -> None:
    for name, value in network.header.items():
        print(f"{name}: {value}")


def simulated_tests(
    n: int,
    depth: float,
    spread: float,
    *,
    paper: bool = False,
    centre: float | None = None,
    centre_sd: float = 2.0,
    size: int | tuple[int, int] | None = None,
    shared: bool = False,
    seed: int = 103,
) -> Simulated:
    """Simulated of one prior: rates an exposure of 10^4, `depth` the geometric mean of the exposures."""
    rng = np.random.default_rng(seed)
    location = -1.0 if centre is None else centre
    null = rng.random(n) < 0.5
    beta = np.where(null, 0.0, rng.normal(0.0, 1.0, n))
    alpha = rng.normal(-2.0, 1.0, n)
    eta = rng.normal(location, centre_sd, n) - (0.0 if paper else 0.5 * beta)
    two_groups = []
    for side, effect in enumerate((0.0, beta)):
        here = size[side] if isinstance(size, tuple) else size
        present = np.full(n, here) if here else rng.integers(2, 11, n)
        if shared:
            exposure = np.exp(spread * rng.standard_normal(here)) * depth / 1e4
            dispersion_ratio = rng.gamma(np.exp(-alpha), np.exp(alpha), (here, n)).T
            counts = rng.poisson(np.exp(eta + effect)[:, None] * exposure * dispersion_ratio).astype(float)
            two_groups += [counts, np.broadcast_to(exposure, counts.shape)]
        else:
            two_groups += draw_group(
                rng, present, eta + effect, alpha, np.full(n, spread), np.full(n, np.log(depth / 1e4))
            )
    prior = np.tile([location, centre_sd, -2.0, 1.0, 0.0, 0.5, 1.0], (n, 1))
    return Simulated(*two_groups, prior, np.stack([alpha, eta + 0.5 * beta, beta], axis=1), null)


def of_network(network: Trained, tests: Simulated) -> Posterior:
    return summarise_mixture(posterior_of(*groups_of(tests), Prior(*tests.prior.T), network=network), levels=LEVELS)


def of_grid(tests: Simulated) -> Posterior:
    return grid_posterior(*groups_of(tests), Prior(*tests.prior.T), levels=LEVELS)


def groups_of(tests: Simulated) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return tests.counts1, tests.exposure1, tests.counts2, tests.exposure2


def mean_errors(tests: Simulated, posterior: Posterior) -> np.ndarray:
    """Mean absolute errors of the medians of mu, beta and alpha."""
    n = len(posterior)
    alpha, centre, beta = tests.truth[:n].T
    found = (posterior.log_mean_median, posterior.log_fc_median, posterior.log_dispersion_median)
    return np.array([abs(x - y).mean() for x, y in zip(found, (centre - 0.5 * beta, beta, alpha), strict=True)])


def covered(quantiles: np.ndarray, truth: np.ndarray) -> dict[float, np.ndarray]:
    return {
        level: (truth >= quantiles[:, low]) & (truth <= quantiles[:, high]) for level, (low, high) in INTERVALS.items()
    }


def by_decile(x: np.ndarray, hits: np.ndarray) -> np.ndarray:
    edges = np.quantile(x, np.linspace(0, 1, 11))[1:-1]
    bins = np.digitize(x, edges)
    return np.array([hits[bins == b].mean() for b in range(10)])


def calibration(probability: np.ndarray, null: np.ndarray) -> str:
    """Largest and weighted mean distance of the share of nulls from the mean probability, in ten bins of .1 (of 2,000 tests or more)."""
    bins = np.minimum((probability * 10).astype(int), 9)
    sizes = np.bincount(bins, minlength=10)
    gaps = np.array(
        [abs(probability[bins == b].mean() - null[bins == b].mean()) if n >= 2000 else 0 for b, n in enumerate(sizes)]
    )
    return json.dumps({"largest": round(gaps.max(), 4), "mean": round(float(np.average(gaps, weights=sizes)), 4)})


if __name__ == "__main__":
    main()
