"""Where a network runs, and how many tests at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from nbcompare._transformer.summaries import N_SUMMARIES

if TYPE_CHECKING:
    from nbcompare._transformer.network import Config, Network

BYTES_PER_NUMBER = 4  # of the network
MOST_ON_CPU, MOST_AT_ONCE = 2**12, 2**20  # tests


def wholly_there(place: str) -> bool:
    """Whether everything runs on the device: it is none of the CPU's, and has the float64 that the anchors need."""
    import torch

    if torch.device(place).type == "cpu":
        return False
    try:
        torch.empty(1, dtype=torch.float64, device=place)
    except (RuntimeError, TypeError):
        return False
    return True


def default_batch_size(config: Config, device: str, n_replicates: int = 0) -> int:
    """Tests whose layers, and anchors of `n_replicates` where they are found there, fit into a quarter of the free memory.

    At most 4,096 on a CPU (its cache), and elsewhere so many that starting kernels costs little.
    """
    numbers = (
        2 * config.width * (config.depth + 3) + 4 * N_SUMMARIES + 20 * (config.own + 2 * config.pairs + config.null)
    )
    needed = BYTES_PER_NUMBER * numbers
    if wholly_there(device):
        from nbcompare._transformer.device_posterior import bytes_of_a_test

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


def on_device(network: Network, device: str) -> Network:
    """The network there: a copy, but on the CPU."""
    from copy import deepcopy

    return network if device == "cpu" else deepcopy(network).to(device)
