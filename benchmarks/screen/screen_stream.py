"""One pass over a file of cells, in a process of its own; started by screen.py. Prints seconds, and the memory above what the imports take."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np

import nbcompare as nb


def main() -> None:
    what, path, chunk_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    small = nb.datasets.simulate(n_genes=50, n_cells=20, rng=0)
    nb.pp.pseudobulk(small, "condition", replicate_key="replicate")  # compiles
    before = peak()
    start = time.perf_counter()
    {"read": read, "sum": sum_up}[what](path, chunk_size)
    seconds = time.perf_counter() - start
    print(f"{seconds:.1f} s, {peak() - before:.0f} MiB")


def peak() -> float:
    """Largest resident set of this process so far, MiB (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 2**10


def read(path: str, chunk_size: int) -> None:
    """The same blocks of rows, by h5py alone."""
    with h5py.File(path) as file:
        bounds = file["X/indptr"][:]
        for row in range(0, len(bounds) - 1, chunk_size):
            part = slice(bounds[row], bounds[min(row + chunk_size, len(bounds) - 1)])
            for name in ("data", "indices"):
                np.asarray(file[f"X/{name}"][part])


def sum_up(path: str, chunk_size: int) -> None:
    cells = anndata.read_h5ad(path, backed="r")
    nb.pp.pseudobulk(cells, "perturbation", replicate_key="replicate", chunk_size=chunk_size)


if __name__ == "__main__":
    main()
