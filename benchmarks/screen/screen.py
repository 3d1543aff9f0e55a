"""The screen: speed and memory of `tl.nb_screen`, its nulls, and illico and edgePython in the same run.

python benchmarks/screen/screen.py memory|full|nulls|peers|stream [--targets N] [--genes N] [--peers-python PATH]

`memory`  ready samples, results in memory, one and two threads (2,000 x 20,000)
`full`    ready samples, results to zarr (20,000 x 20,000), with the peak of memory above the samples
`nulls`   realised over nominal on nulls, targets as noisy as the control and three times noisier
`stream`  cells of a file larger than the memory allowed, against reading the same file and doing nothing with it
`peers`   per comparison: ours from cells, illico's Wilcoxon from the same cells, edgePython on one pair of pseudobulks
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anndata
import numpy as np
import psutil
from screen_counts import simulate, simulate_cells

import nbcompare as nb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "full", "nulls", "peers", "stream"])
    parser.add_argument("--targets", type=int)
    parser.add_argument("--genes", type=int)
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has illico and edgepython")
    options = parser.parse_args()
    {"memory": memory, "full": full, "nulls": nulls, "peers": peers, "stream": stream}[options.what](options)


def memory(options: argparse.Namespace) -> None:
    n_targets, n_genes = options.targets or 2000, options.genes or 20_000
    pdata = simulate(n_targets, n_genes, changed=0.05)
    screen(pdata[: 100 + 3 * 40].copy(), n_jobs=1)  # compiles
    print(f"{n_targets} x {n_genes}, 100 control samples, results in memory")
    for n_jobs in (1, 2):
        walls = []
        for _ in range(3):
            start = time.perf_counter()
            screen(pdata, n_jobs=n_jobs)
            walls.append((time.perf_counter() - start) / (n_targets * n_genes) * 1e6)
        print(f"{n_jobs} threads: {np.median(walls):.3f} us a test, whole call (median of 3: {np.round(walls, 3)})")


def full(options: argparse.Namespace) -> None:
    n_targets, n_genes = options.targets or 20_000, options.genes or 20_000
    start = time.perf_counter()
    pdata = simulate(n_targets, n_genes, changed=0.02)
    print(f"simulated in {time.perf_counter() - start:.0f} s: {pdata.X.nbytes / 2**30:.1f} GiB of samples", flush=True)
    screen(pdata[: 100 + 3 * 40].copy(), n_jobs=2)
    folder = Path(tempfile.mkdtemp()) / "screen.zarr"
    with Peak() as peak:
        start = time.perf_counter()
        result = screen(pdata, path=folder, n_jobs=2)
        wall = time.perf_counter() - start
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**30
    print(
        f"{n_targets} x {n_genes} to zarr: {wall:.0f} s, {wall / (n_targets * n_genes) * 1e6:.3f} us a test, "
        f"peak {peak.above / 2**30:.2f} GiB above the samples, {size:.1f} GiB written, {result.n_obs} rows"
    )
    shutil.rmtree(folder.parent)


def nulls(options: argparse.Namespace) -> None:
    n_targets, n_genes = options.targets or 1000, options.genes or 10_000
    for dispersion_ratio in (1.0, 3.0):
        result = screen(simulate(n_targets, n_genes, dispersion_ratio=dispersion_ratio, seed=1), n_jobs=2)
        p = np.asarray(result.layers["pvals"])
        p = p[~np.isnan(p)]
        ratios = [f"{level:g}: {(p < level).mean() / level:.3f}" for level in (0.05, 0.01, 1e-3, 1e-4, 1e-5)]
        print(
            f"targets {dispersion_ratio:g} times as noisy as the control, {p.size} nulls, realised/nominal  "
            + "  ".join(ratios)
        )


def stream(_: argparse.Namespace) -> None:
    """An h5ad file of 630,000 cells x 8,000 genes, uncompressed, and of 420,000 by gzip's fastest, summed by `pp.pseudobulk`."""
    cells = simulate_cells(1000, 8000)
    with tempfile.TemporaryDirectory() as folder:
        for name, options, n_copies in (
            ("uncompressed", {}, 3),
            ("gzip 1", {"compression": "gzip", "compression_opts": 1}, 2),
        ):
            path = Path(folder) / "cells.h5ad"
            anndata.concat([cells] * n_copies, index_unique="-").write_h5ad(path, **options)
            size, block = path.stat().st_size / 2**30, 2048
            print(
                f"{name}: {n_copies * cells.n_obs} cells, {size:.1f} GiB on disk, blocks of {block} cells", flush=True
            )
            for what in ("read", "sum", "read", "sum", "read", "sum"):
                done = subprocess.run(
                    [sys.executable, __file__.replace("screen.py", "screen_stream.py"), what, path, str(block)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                print(f"  {what}: {done.stdout.strip()}", flush=True)


def peers(options: argparse.Namespace) -> None:
    """1,000 perturbations x 8,000 genes, 200 cells each in 3 replicates, 10,000 control cells."""
    n_targets, n_genes = options.targets or 1000, options.genes or 8000
    cells = simulate_cells(n_targets, n_genes)
    n_tests = n_targets * n_genes
    print(f"{cells.n_obs} cells, {cells.X.nnz / 1e6:.0f} million counts above 0, {n_targets} x {n_genes}")
    keys = {"replicate_key": "replicate", "block_key": "replicate", "n_jobs": 2}
    few = cells.obs["perturbation"].cat.categories[:9]
    screen(cells[cells.obs["perturbation"].isin(few)].copy(), **keys)  # compiles
    start = time.perf_counter()
    samples = nb.pp.pseudobulk(cells, "perturbation", replicate_key="replicate")
    print(f"pp.pseudobulk: {(time.perf_counter() - start) / n_tests * 1e6:.3f} us a comparison")
    ours = {"from cells": (cells, keys), "from ready pseudobulks": (samples, keys | {"replicate_key": None})}
    medians = {}
    for name, (data, given) in ours.items():
        walls = []
        for _ in range(3):
            start = time.perf_counter()
            screen(data, **given)
            walls.append(time.perf_counter() - start)
        medians[name] = np.median(walls) / n_tests * 1e6
        print(f"nbcompare, {name}: {medians[name]:.3f} us a comparison ({np.round(walls, 2)} s)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cells.write_h5ad(Path(folder) / "cells.h5ad")
        script = Path(__file__).with_name("screen_peers.py")
        done = subprocess.run([options.peers_python, script, folder], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr[-2000:] if done.returncode else "")
    for line in done.stdout.splitlines():
        if line.startswith("us "):
            _, tool, value = line.split()
            ratios = "; ".join(f"{float(value) / us:.0f} times ours {name}" for name, us in medians.items())
            print(f"{tool}: {float(value):.2f} us a comparison: {ratios}")


def screen(pdata, **options):
    return nb.tl.nb_screen(pdata, "perturbation", reference="control", progress=False, **options)


class Peak:
    """The most memory that this process held above what it held at the start, sampled every 50 ms."""

    def __enter__(self) -> Peak:
        self.process, self.above, self.stop = psutil.Process(), 0, threading.Event()
        self.before = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        print(
            f"largest resident set of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
        )

    def _watch(self) -> None:
        while not self.stop.wait(0.05):
            self.above = max(self.above, self.process.memory_info().rss - self.before)


if __name__ == "__main__":
    main()
