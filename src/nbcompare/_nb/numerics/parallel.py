"""Genes, tests or targets shared out among threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

LEAST = 64  # genes of a piece


def in_parallel(
    run: Callable[[slice], None], n: int, n_threads: int, *, size: int | None = None, least: int = LEAST
) -> None:
    """Call `run` on consecutive pieces of n things, several at a time; an error in one is raised.

    Pieces are of `size`, whatever the number of threads; if None four a thread, of no fewer than `least`.
    """
    if size is not None:
        bounds = [*range(0, n, size), n]
    else:
        n_ranges = max(1, min(4 * n_threads, n // least)) if n_threads > 1 else 1
        bounds = [n * j // n_ranges for j in range(n_ranges + 1)]
    chunks = [slice(*pair) for pair in pairwise(bounds)]
    if n_threads == 1 or len(chunks) < 2:
        for chunk in chunks:
            run(chunk)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(run, chunks))
