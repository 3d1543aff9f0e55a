"""CPU microseconds a test, ours against statsmodels, PyDESeq2 and edgePython, in one run and on one thread.

    python benchmarks/peers/speed.py [--genes 20000 --replicates 5 --repeats 5] [--edgepython /path/to/a/venv/bin/python]

Genes of mean 1 to 2000 (log-uniform), dispersion (.05 + .5/mean) LogNormal(1) and every tenth Poisson, 30 % with an effect of
N(0, 1), exposures of log-sd .3. Ours is timed on whole arrays, compilation excluded; rounds of all tools are interleaved, and medians
over the rounds are given. statsmodels and PyDESeq2 get the first 300 and 2,000 genes. The likelihoods of ours and of
statsmodels are compared by re-evaluating its estimates: what it reports is off by up to 2e-5 where the dispersion is small.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peers

from nbcompare._nb.data import Group, Pseudobulk
from nbcompare._nb.glm.likelihood_ratio import likelihood_ratio_test
from nbcompare._nb.likelihood.mle import fit_likelihood, log_likelihood
from nbcompare._nb.likelihood.moments import fit_moments
from nbcompare._nb.likelihood.wald import wald_test
from nbcompare._nb.moderated import moderated_tests

ONE_THREAD = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SUBSET = {"statsmodels": 300, "PyDESeq2": 2_000}


def main() -> None:
    options = arguments()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when the libraries load: start anew
        sys.exit(subprocess.call([sys.executable, *sys.argv], env=os.environ | ONE_THREAD))
    groups = simulate(options.genes, options.replicates)
    calls: dict[str, Callable[[Group, Group], object]] = {
        "moments + Wald": lambda a, b: wald_test(fit_moments(a, b), a, b),
        "maximum likelihood": fit_likelihood,
        "maximum likelihood + Wald": lambda a, b: wald_test(fit_likelihood(a, b), a, b),
        "Cox-Reid": lambda a, b: fit_likelihood(a, b, cox_reid=True),
        "maximum likelihood + likelihood ratio": lambda a, b: likelihood_ratio_test(fit_likelihood(a, b), a, b),
        "moderated r*, whole data set": moderated,
        "the same with confidence intervals": lambda a, b: moderated(a, b, intervals=True),
        "statsmodels": peers.statsmodels,
        "PyDESeq2": peers.pydeseq2,
    }
    for name, call in calls.items():
        call(*first(groups, 40 if name == "statsmodels" else 300))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            some = first(groups, SUBSET.get(name, options.genes))
            start = time.process_time()
            call(*some)
            seconds[name].append((time.process_time() - start) / len(some[0].counts))
    if options.edgepython:
        seconds["edgePython, quasi-likelihood"] = edgepython(options.edgepython, groups, options.repeats)
    report(seconds, options)
    compare_likelihoods(first(groups, 2 * SUBSET["statsmodels"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--replicates", type=int, default=5, help="in each of the two groups")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--edgepython", help="a python that can import edgepython")
    return parser.parse_args()


def simulate(n_genes: int, n_replicates: int) -> tuple[Group, Group]:
    rng = np.random.default_rng(0)
    mean = np.exp(rng.uniform(0, np.log(2000), n_genes))
    phi = (0.05 + 0.5 / mean) * rng.lognormal(0, 1, n_genes)
    phi[::10] = 1e-12
    effect = np.where(rng.random(n_genes) < 0.3, rng.normal(0, 1, n_genes), 0)
    groups = []
    for shift in (np.zeros(n_genes), effect):
        exposure = rng.lognormal(0, 0.3, n_replicates)
        m = (mean * np.exp(shift))[:, None] * exposure
        groups.append(
            Group(rng.poisson(m * rng.gamma(1 / phi[:, None], phi[:, None], m.shape)).astype(float), exposure)
        )
    seen = sum(group.counts.sum(axis=1) for group in groups) > 0
    return tuple(Group(group.counts[seen], group.exposure) for group in groups)


def first(groups: tuple[Group, Group], n_genes: int) -> tuple[Group, Group]:
    return tuple(Group(np.ascontiguousarray(group.counts[:n_genes]), group.exposure) for group in groups)


def moderated(reference: Group, treated: Group, *, intervals: bool = False) -> object:
    """Trend, scatter, tests and the leave-one-replicate-out rule."""
    counts, exposure, condition = peers.stacked(reference, treated)
    pseudobulk = Pseudobulk(np.ascontiguousarray(counts), exposure, condition)
    return moderated_tests(pseudobulk, np.array([[0, 1]]), intervals=intervals)


def edgepython(python: str, groups: tuple[Group, Group], repeats: int) -> list[float]:
    """Seconds a gene, in edgePython's own environment."""
    counts, exposure, condition = peers.stacked(*groups)
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "counts.npz"
        np.savez(stored, counts=counts, exposure=exposure, condition=condition)
        worker = Path(__file__).with_name("edgepython_worker.py")
        command = [python, str(worker), str(stored), str(repeats)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [float(line.split()[1]) / len(counts) for line in lines if line.startswith("seconds ")]


def report(seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    middle = {name: float(np.median(values)) * 1e6 for name, values in seconds.items()}
    ours = middle["maximum likelihood"]
    print(
        f"{options.replicates} v {options.replicates}, {options.genes:,} genes, one thread, medians of {options.repeats}\n"
    )
    print("| | CPU us a test | least, most | over our maximum likelihood |")
    print("|---|---|---|---|")
    for name, values in seconds.items():
        spread = f"{min(values) * 1e6:.3g}, {max(values) * 1e6:.3g}"
        print(f"| {name} | {middle[name]:.3g} | {spread} | {middle[name] / ours:.3g} |")
    rounds = [slow / fast for slow, fast in zip(seconds["statsmodels"], seconds["maximum likelihood"], strict=True)]
    print(f"\nstatsmodels over our maximum likelihood, by round: {', '.join(f'{ratio:,.0f}' for ratio in rounds)}")


def compare_likelihoods(groups: tuple[Group, Group]) -> None:
    """Log likelihood lost to the other, at each one's estimates and by one formula."""
    ours = fit_likelihood(*groups)
    theirs = peers.statsmodels(*groups)
    failed = np.isnan(theirs.log_fc)
    there = evaluate(theirs, groups)[~failed]
    here = ours.log_likelihood[~failed]
    print(f"of {len(failed)} genes: statsmodels fails on {failed.sum()}, ours on {np.isnan(ours.log_fc).sum()};")
    print(f"ours less likely by more than 1e-6: {(there - here > 1e-6).sum()} (at most {(there - here).max():.1e});")
    print(
        f"statsmodels less likely by more than 1e-6: {(here - there > 1e-6).sum()} (at most {(here - there).max():.1e})"
    )
    if (there - here > 1e-6).any():
        sys.exit("a bar is missed: our likelihood is the lower one")


def evaluate(found: peers.Estimates, groups: tuple[Group, Group]) -> np.ndarray:
    phi = np.maximum(found.dispersion, 0)
    return log_likelihood(groups[0], found.log_mean, phi) + log_likelihood(
        groups[1], found.log_mean + found.log_fc, phi
    )


if __name__ == "__main__":
    main()
