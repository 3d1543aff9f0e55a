"""Where a network runs, how many tests at once, and in how many threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from nbcompare._optional import require

BYTES_PER_NUMBER = 4  # of the network
MOST_ON_CPU, MOST_AT_ONCE = 2**12, 2**20  # tests
ROWS_AT_ONCE = 26  # float64 numbers that are alive at once, of each replicate and beside them
NUMBERS_AT_ONCE = 480


def find_device(device: str) -> str:
    """The device that is meant, as torch calls it."""
    torch = require("torch", "transformer")
    if device != "auto":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            msg = f"device={device!r} cannot be used here: {error}. Use 'auto' or 'cpu'."
            raise ValueError(msg) from error
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def runs_all_steps(place: str) -> bool:
    """Whether everything runs on the device: it is none of the CPU's, and has the float64 that the Laplace approximations need."""
    import torch

    if torch.device(place).type == "cpu":
        return False
    try:
        torch.empty(1, dtype=torch.float64, device=place)
    except (RuntimeError, TypeError):
        return False
    return True


def default_batch_size(numbers: int, device: str, n_replicates: int = 0) -> int:
    """Number of tests that fit into a quarter of the free memory.

    A test needs `numbers` numbers of the network and, where all steps run on the device, the memory of `bytes_of_a_test`.
    At most 4,096 tests on a CPU (its cache), and at most a million elsewhere.
    """
    needed = BYTES_PER_NUMBER * numbers
    if runs_all_steps(device):
        needed += bytes_of_a_test(n_replicates)
    if device.startswith("cuda"):
        import torch

        free = torch.cuda.mem_get_info(device)[0]
    elif "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        free = 2**30
    most = MOST_AT_ONCE if device != "cpu" else MOST_ON_CPU
    return int(np.clip(free // (4 * needed), 64, most))


def bytes_of_a_test(n_replicates: int) -> int:
    """What a test of this many replicates, both groups together, needs in addition to the network."""
    return 8 * (ROWS_AT_ONCE * n_replicates + NUMBERS_AT_ONCE)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch from threads of its own: beside others they are slower, and the last digit of a sum depends on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
