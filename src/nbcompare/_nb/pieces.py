"""Genes shared out among threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

LEAST = 64  # genes of a piece


def in_pieces(run: Callable[[slice], None], n_genes: int, n_threads: int) -> None:
    """Call `run` on consecutive pieces of the genes, several at a time; an error in one is raised."""
    n_pieces = min(4 * n_threads, n_genes // LEAST)
    if n_threads == 1 or n_pieces < 2:
        run(slice(0, n_genes))
        return
    bounds = [n_genes * j // n_pieces for j in range(n_pieces + 1)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(run, [slice(*pair) for pair in zip(bounds[:-1], bounds[1:], strict=True)]))
