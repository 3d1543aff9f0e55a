"""Sums of cells by sample: ours against scanpy and scipy, time and memory, each tool in a process of its own.

    python benchmarks/peers/pseudobulk.py [--cells 200000 --genes 8000 --density 0.08 --samples 2004 --repeats 3]

Time is the median of the repeats, after one call on a small matrix that compiles. Memory is the highest resident size
during a call less that before it, the largest of the repeats: what is needed beside the input.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

TOOLS = {"nbcompare": "nbcompare.pp.pseudobulk", "scanpy": "scanpy.get.aggregate", "scipy": "scipy indicator @ X"}


def main() -> None:
    options = arguments()
    if options.tool:
        print(json.dumps(measure(options)))
        return
    results = {tool: run(tool) for tool in TOOLS}
    first = results["nbcompare"]
    print(f"{options.cells:,} x {options.genes:,} CSR float32, {first['stored']:,} stored, {options.samples:,} samples")
    print(f"input {first['input_mb']:,.0f} MB, result {first['result_mb']:,.0f} MB")
    print(f"{'tool':<28}{'seconds':>9}{'ours is faster':>16}{'peak above input':>18}{'in results':>12}")
    for tool, result in results.items():
        ratio = result["seconds"] / first["seconds"]
        peak = result["peak_mb"]
        print(
            f"{TOOLS[tool]:<28}{result['seconds']:>9.2f}{ratio:>15.1f}x{peak:>15,.0f} MB{peak / first['result_mb']:>12.2f}"
        )
        if result["checksum"] != first["checksum"]:
            sys.exit(f"{tool} and nbcompare disagree: {result['checksum']} {first['checksum']}")
    faster = results["scanpy"]["seconds"] / first["seconds"]
    peak = first["peak_mb"] / first["result_mb"]
    print(f"bars: >= 3x faster than scanpy: {faster:.1f}x; peak <= input + 2 results: {peak:.2f} results")
    if faster < 3 or peak > 2:
        sys.exit("a bar is missed")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--density", type=float, default=0.08)
    parser.add_argument("--samples", type=int, default=2_004)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(tool: str) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--tool", tool]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> dict[str, float]:
    warnings.simplefilter("ignore")
    call = CALLS[options.tool]
    call(cells(2_000, options.genes, options.density, 12))
    adata = cells(options.cells, options.genes, options.density, options.samples)
    stored = [adata.X.data, adata.X.indices, adata.X.indptr]
    seconds, peaks = [], []
    for _ in range(options.repeats):
        with PeakMemory() as memory:
            start = time.perf_counter()
            sums = call(adata)
            seconds.append(time.perf_counter() - start)
        peaks.append(memory.peak_mb)
        weights = np.arange(1, sums.shape[1] + 1, dtype=np.float64)
        checksum = float((sums @ weights).sum())
        result_mb = sums.shape[0] * sums.shape[1] * 8 / 1e6
        del sums
    return {
        "seconds": float(np.median(seconds)),
        "peak_mb": max(peaks),
        "input_mb": sum(part.nbytes for part in stored) / 1e6,
        "result_mb": result_mb,
        "stored": int(adata.X.nnz),
        "checksum": checksum,
    }


def cells(n_cells: int, n_genes: int, density: float, n_samples: int) -> AnnData:
    """Random counts; 3 replicates of each perturbation, cells in random order."""
    rng = np.random.default_rng(0)
    per_cell = rng.binomial(n_genes, density, n_cells)
    bounds = np.concatenate([[0], np.cumsum(per_cell)])
    indices = np.empty(bounds[-1], dtype=np.int32)
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):  # one gene at random in each of equal stretches
        places = (np.arange(high - low) + rng.random(high - low)) * (n_genes / max(high - low, 1))
        indices[low:high] = places
    data = (1 + rng.integers(0, 3, bounds[-1], dtype=np.int8)).astype(np.float32)
    matrix = sparse.csr_matrix((data, indices, bounds.astype(np.int32)), shape=(n_cells, n_genes))
    sample = rng.integers(0, n_samples, n_cells)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(sample // 3, [f"p{i:04d}" for i in range(n_samples // 3)]),
            "replicate": pd.Categorical.from_codes(sample % 3, ["r1", "r2", "r3"]),
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    return AnnData(matrix, obs=obs)


class PeakMemory:
    """Highest resident size of this process while the block runs, above that at its start."""

    def __enter__(self) -> PeakMemory:
        self._start = self._peak = resident_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_mb = max(self._peak, resident_mb()) - self._start

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, resident_mb())


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def by_nbcompare(adata: AnnData) -> np.ndarray:
    from nbcompare import pp

    return pp.pseudobulk(adata, "perturbation", replicate_key="replicate", min_cells=1).X


def by_scanpy(adata: AnnData) -> np.ndarray:
    import scanpy as sc

    return sc.get.aggregate(adata, ["perturbation", "replicate"], "sum").layers["sum"]


def by_scipy(adata: AnnData) -> np.ndarray:
    sample = adata.obs.groupby(["perturbation", "replicate"], observed=True).ngroup().to_numpy()
    n_cells = adata.n_obs
    indicator = sparse.csr_matrix((np.ones(n_cells), (sample, np.arange(n_cells))), shape=(sample.max() + 1, n_cells))
    return (indicator @ adata.X).toarray()


CALLS: dict[str, Callable[[AnnData], np.ndarray]] = {
    "nbcompare": by_nbcompare,
    "scanpy": by_scanpy,
    "scipy": by_scipy,
}

if __name__ == "__main__":
    main()
