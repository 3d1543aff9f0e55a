"""Work on a dask cluster: whether there is one, and many tasks of which few are under way at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

Job = TypeVar("Job")
UNDER_WAY = 2  # tasks for each thread of the cluster: none waits for work, and the inputs of few are held


def active_client() -> Any | None:
    """The `dask.distributed` client that computes by default, or None; nothing is imported to find out."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    import dask

    if dask.config.get("scheduler", None) not in (None, "distributed", "dask.distributed"):
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return None if client.asynchronous or client.status != "running" else client


def few_at_a_time(
    client: Any, submit: Callable[[Sequence[Job]], Sequence[Any]], jobs: Iterable[Job]
) -> Iterator[tuple[Job, Any]]:
    """Do jobs on the cluster, in any order: each with what its future gave, as it is done.

    `submit` turns jobs into one future each, and is called again whenever half of those under way are done. After an
    error nothing more is submitted, and what is under way is dropped with its futures.
    """
    from distributed import as_completed

    jobs = iter(jobs)
    of_key: dict[str, Job] = {}
    done = as_completed()

    def fill() -> None:
        limit = UNDER_WAY * max(1, sum(client.nthreads().values()))
        if 2 * len(of_key) <= limit and (batch := list(islice(jobs, limit - len(of_key)))):
            futures = submit(batch)
            of_key.update({future.key: job for future, job in zip(futures, batch, strict=True)})
            done.update(futures)

    fill()
    for future in done:
        yield of_key.pop(future.key), future.result()
        fill()
