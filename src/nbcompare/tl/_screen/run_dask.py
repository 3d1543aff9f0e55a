"""The tests of a screen on the workers of a dask cluster, who write their blocks of the one store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nbcompare._anndata import OVER_ALL, ScreenResult, ScreenStore
from nbcompare._counts.dask_client import active_client, few_at_a_time
from nbcompare._nb.inference.screen_fdr import PooledAdjustment, PooledPValues
from nbcompare.tl._screen.fit import ScreenFit
from nbcompare.tl._screen.posterior import one_thread_each
from nbcompare.tl._screen.run import Screen, compare_block
from nbcompare.tl._screen.targets import Targets


def cluster_for(result: ScreenResult) -> Any | None:
    """The active client if the result is on disk; refuses a cluster whose workers do not see the result, or differ from here."""
    client = active_client() if isinstance(result, ScreenStore) else None
    if client is None:
        return None
    path = _path(result)
    here = _version_and_runs(path)
    for worker, there in client.run(_version_and_runs, path).items():
        if there[0] != here[0]:
            msg = f"The worker {worker} has nbcompare {there[0]}, here it is {here[0]}: install the same version everywhere."
            raise ValueError(msg)
        if there[1] != here[1]:
            msg = (
                f"The worker {worker} does not see the screen at {path!r}. On a cluster path must lie on a file system that "
                "all workers share, under the same name; or close the client, and the screen is computed here."
            )
            raise ValueError(msg)
    return client


def run_blocks_on(
    client: Any, screen: Screen, blocks: Sequence[slice], store: ScreenResult, *, progress: Callable[[int], object]
) -> None:
    """As `run_blocks`. The model goes to every worker once, the counts of a block with the block."""
    path, first_row = _path(store), store.runs[-1]["start"]
    shared = client.scatter((screen.fit.to_arrays(), screen.genes), broadcast=True, hash=False)

    def submit(batch: Sequence[slice]) -> list[Any]:
        parts = [_part(screen, slice(rows.start - first_row, rows.stop - first_row)) for rows in batch]
        sent = client.scatter(parts, hash=False)
        pairs = zip(sent, batch, strict=True)
        return [client.submit(_test_block, path, rows, part, shared, pure=False) for part, rows in pairs]

    for rows, _ in few_at_a_time(client, submit, blocks):
        progress(rows.stop - rows.start)


def adjust_over_all_on(client: Any, store: ScreenResult) -> None:
    """As `adjust_over_all`."""
    path, blocks = _path(store), store.all_blocks()
    n_tasks = min(len(blocks), max(1, sum(client.nthreads().values())))
    runs = [blocks[start::n_tasks] for start in range(n_tasks)]

    def submit_pool(batch: Sequence[list[slice]]) -> list[Any]:
        return [client.submit(_pool, path, run, pure=False) for run in batch]

    pool = PooledPValues()
    for _, of_run in few_at_a_time(client, submit_pool, runs):
        pool.join(of_run)
    adjustment = client.scatter(pool.adjustment(), broadcast=True, hash=False)

    def submit_adjust(batch: Sequence[slice]) -> list[Any]:
        return [client.submit(_adjust, path, rows, adjustment, pure=False) for rows in batch]

    for _ in few_at_a_time(client, submit_adjust, blocks):
        pass


def _path(store: ScreenResult) -> str:
    assert isinstance(store, ScreenStore)
    return str(store.path.resolve())


def _part(screen: Screen, run: slice) -> Screen:
    """A run of the perturbations, without what all share, its counts as small as they can be kept."""
    targets, bounds = screen.targets[run], screen.targets.bounds
    rows = slice(bounds[run.start], bounds[run.stop])
    counts = targets.of(screen.counts)
    return replace(
        screen,
        fit=None,  # type: ignore[arg-type]
        genes=None,  # type: ignore[arg-type]
        targets=Targets(targets.names, targets.bounds[:-1], targets.bounds[1:], targets.n_cells),
        counts=counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        exposure=screen.exposure[rows],
        flags=screen.flags[rows],
        block=None if screen.block is None else screen.block[rows],
    )


def _version_and_runs(path: str) -> tuple[str, str | None]:
    """On a worker: the version of the package, and what it reads where the store should be."""
    runs = ScreenStore(path).bookkeeping / "runs.json"
    return version("nbcompare"), runs.read_text() if runs.is_file() else None


def _attached(path: str) -> ScreenStore:
    store = ScreenStore(Path(path))
    store.attach()
    return store


def _test_block(path: str, rows: slice, part: Screen, shared: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    """On a worker: test the perturbations of a block and write them to these rows."""
    model, genes = shared
    whole = replace(part, fit=ScreenFit.from_arrays(model), genes=genes, counts=part.counts.astype(np.float64))
    store = _attached(path)
    into = store.arrays(rows, whole.layer_names)
    with one_thread_each(whole.posterior):
        summary = compare_block(whole, slice(0, len(part.targets)), into)
    store.write_block(rows, into, summary)


def _pool(path: str, blocks: Sequence[slice]) -> PooledPValues:
    """On a worker: the p-values of these blocks."""
    store, pool = _attached(path), PooledPValues()
    for rows in blocks:
        pool.add(store.read_layer("pvals", rows))
    return pool


def _adjust(path: str, rows: slice, adjustment: PooledAdjustment) -> None:
    """On a worker: write the adjusted p-values of a block."""
    store = _attached(path)
    store.layers[OVER_ALL][rows] = adjustment.adjust(store.read_layer("pvals", rows))
