"""What tests in a design cost: CPU time a test, and whole calls on airway beside edgePython and PyDESeq2, on one thread."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from design_counts import DESIGNS, simulate

from nbcompare import get, tl
from nbcompare._nb.glm.compare import TESTS, run_tests
from nbcompare._nb.glm.dispersion.moderation import moderate_design
from nbcompare._nb.glm.dispersion.trend import design_statistics
from nbcompare._nb.glm.fit.design import design_matrices

BARS = {"3 v 3 in 2 batches, unbalanced": 5.0, "3 v 3 adjusted for a covariate": 5.0, "8 donors x 2": 18.0}
ONE_THREAD = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def speed(options: argparse.Namespace) -> str:
    """Both tables."""
    return "\n".join(
        [
            "## Cost",
            "",
            f"CPU microseconds a gene, {options.genes:,} genes, least and median of {options.repeats}. A test: fit and statistic at the prior dispersion,",
            "fit at the moderated one, null fit, r*. Once per data set: trend and scatter.",
            "",
            "| design | n, p | a test, least | median | bar | trend and scatter |",
            "|---|---|---|---|---|---|",
            *(test_row(name, options) for name in DESIGNS),
            "",
            *whole_calls(options),
        ]
    )


def test_row(name: str, options: argparse.Namespace) -> str:
    data = simulate(np.random.default_rng(0), name, "moderate", options.genes)
    matrices = design_matrices(data.design, [data.contrast])
    usable = data.counts.sum(axis=1) >= 10
    seconds: dict[str, list[float]] = {"test": [], "all": []}
    for repeat in range(options.repeats + 1):
        start = time.process_time()
        basis = moderate_design(data.counts, data.log_exposure, matrices, usable, n_threads=1)
        moderated = time.process_time()
        if basis.coefficients is not None:
            design_statistics(data.counts, data.log_exposure, matrices, basis.working)
        statistic = time.process_time()
        run_tests(data.counts, data.log_exposure, matrices, basis, TESTS["moderated"], np.zeros(1), 1)
        end = time.process_time()
        if repeat > 0:  # the first call compiles
            seconds["test"].append(end - moderated)
            seconds["all"].append(moderated - start - (statistic - moderated))
    test, shared = (np.array(seconds[part]) / options.genes * 1e6 for part in ("test", "all"))
    n, p = data.design.shape
    return f"| {name} | {n}, {p} | {test.min():.2f} | {np.median(test):.2f} | {BARS.get(name, '')} | {np.median(shared):.1f} |"


def whole_calls(options: argparse.Namespace) -> list[str]:
    """From airway's counts to a table of results, all tools in turn."""
    counts = pd.read_csv(options.data / "airway_counts.csv.gz", index_col=0)
    samples = pd.read_csv(options.data / "airway_samples.csv", index_col=0).loc[counts.columns]
    counts = counts[counts.sum(axis=1) >= 10]
    adata = ad.AnnData(counts.T.to_numpy(float), obs=samples, var=pd.DataFrame(index=counts.index.astype(str)))
    seconds = {"nbcompare": ours(adata, options.repeats)}
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "airway.npz"
        condition, cell = (samples[column].to_numpy(str) for column in ("dex", "cell"))
        np.savez(stored, counts=counts.to_numpy(), condition=condition, cell=cell)
        for tool in ("edgepython", "pydeseq2"):
            for python in filter(None, (options.peers_python, Path(os.sys.executable))):
                found = peer(python, tool, stored, options.repeats)
                if found:
                    seconds[tool] = found
                    break
    fastest = np.median(seconds["nbcompare"])
    rows = [
        f"| {tool} | {np.median(values):.3g} | {min(values):.3g}-{max(values):.3g} | {np.median(values) / fastest:.3g} |"
        for tool, values in seconds.items()
    ]
    return [
        f"airway, `~ cell + dex`, {len(counts):,} genes with ten counts: CPU seconds of a whole call, counts to table, one thread.",
        "",
        "| | median | range | over ours |",
        "|---|---|---|---|",
        *rows,
    ]


def ours(adata: ad.AnnData, repeats: int) -> list[float]:
    seconds = []
    for repeat in range(repeats + 1):
        start = time.process_time()
        result = tl.nb_compare(adata, "dex", reference="untrt", design="~ cell + dex", copy=True)
        get.nb_compare_df(result)
        if repeat > 0:
            seconds.append(time.process_time() - start)
    return seconds


def peer(python: Path, tool: str, stored: Path, repeats: int) -> list[float]:
    """CPU seconds in the tool's own environment, nothing where it is not installed."""
    worker = Path(__file__).with_name("design_peers.py")
    command = [str(python), str(worker), tool, str(stored), str(repeats)]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD)
    if run.returncode:
        print(f"{tool} with {python}: {run.stderr.strip().splitlines()[-1:]}")
    return [float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("seconds ")]
