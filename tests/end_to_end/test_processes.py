"""Processes with an empty cache of compiled code, and other numbers of threads, give the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib
import nbcompare as nb
adata = nb.datasets.simulate(n_genes=60, n_conditions=4, n_cells=20, paired=True, rng=1)
call = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", "verbose": False, "min_cells": 1}
nb.tl.nb_compare(adata, **call, block_key="donor")
screen = nb.tl.nb_screen(adata, **call, block_key="donor", progress=False)
print(hashlib.sha256(adata.varm["nb_compare_pvals"].tobytes() + screen.layers["pvals"].tobytes()).hexdigest())
"""


def start(**environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.mark.slow
def test_cold_caches_and_threads(tmp_path):
    """Two processes that compile at the same time into one empty cache, then one and two threads."""
    cold = [start(NUMBA_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2)]
    warm = [start(NUMBA_NUM_THREADS=n, OMP_NUM_THREADS=n) for n in ("1", "2")]
    found = [process.communicate(timeout=600)[0] for process in (*cold, *warm)]
    assert all(process.returncode == 0 for process in (*cold, *warm))
    assert len(set(found)) == 1
