"""The result of a screen, filled block by block of perturbations: in memory here, on disk in `screen_store`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

EXACT = {"pvals": np.float64, "pvals_adj": np.float64, "status": np.uint32}  # so that 1e-300 stays 1e-300
ROUNDED = ("logfoldchanges", "lfc_se", "scores", "dispersions")  # float32 unless asked otherwise
OVER_ALL = "pvals_adj_global"  # written once all blocks are


def layer_types(dtype: str, added: Sequence[str] = ()) -> dict[str, np.dtype]:
    """Name and type of every layer, those included that this screen has beside the usual ones."""
    types = dict.fromkeys((*ROUNDED, *added), dtype) | EXACT | {OVER_ALL: np.float64}
    return {name: np.dtype(value) for name, value in types.items()}


def bytes_a_test(types: Mapping[str, np.dtype]) -> int:
    """What one perturbation and gene take up in all layers."""
    return sum(kind.itemsize for kind in types.values())


class ScreenResult(ABC):
    """Layers of perturbations by genes, filled by one or more runs, each of which adds rows."""

    runs: list[dict[str, Any]]  # start, stop, finished, block_rows, fingerprint
    layers: Mapping[str, Any]  # name -> (n_perturbations, n_genes), read and written by slices of rows

    @property
    def n_rows(self) -> int:
        """Number of perturbations, those of an unfinished run included."""
        return self.runs[-1]["stop"] if self.runs else 0

    @property
    def is_complete(self) -> bool:
        """Whether no run is under way."""
        return not self.runs or self.runs[-1]["finished"]

    @property
    def block_rows(self) -> int:
        """Perturbations of a block."""
        return self.runs[0]["block_rows"]

    def begin(self, n_new: int, fingerprint: Mapping[str, Any], block_rows: int) -> None:
        """Note a run that adds this many rows."""
        run = {"start": self.n_rows, "stop": self.n_rows + n_new, "finished": False, "block_rows": block_rows}
        self.runs.append(run | {"fingerprint": dict(fingerprint)})
        self._note_runs()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While this lasts nothing else fills the result."""
        yield

    def blocks(self) -> list[slice]:
        """Rows of the last run's blocks that are still to be computed."""
        run = self.runs[-1]
        return [rows for rows in self._blocks(run["start"], run["stop"]) if not self._is_done(rows)]

    def all_blocks(self) -> list[slice]:
        """Rows of all runs, in blocks."""
        return self._blocks(0, self.n_rows)

    @abstractmethod
    def open_layers(self, n_genes: int, types: Mapping[str, np.dtype]) -> None:
        """Make the layers as large as the last run makes them."""

    @abstractmethod
    def arrays(self, rows: slice, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays to fill for some rows of these layers; good until the next call in the same thread."""

    @abstractmethod
    def write_block(self, rows: slice, layers: Mapping[str, np.ndarray], summary: Mapping[str, np.ndarray]) -> None:
        """Keep the layers of these rows, then their summary, which says that the block is done."""

    @abstractmethod
    def summaries(self) -> list[dict[str, np.ndarray]]:
        """Those of all blocks, in the order of their rows."""

    def read_layer(self, name: str, rows: slice) -> np.ndarray:
        """Some rows of a layer."""
        return np.asarray(self.layers[name][rows])

    @abstractmethod
    def keep(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays beside the results."""

    @abstractmethod
    def kept(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept under this name."""

    @abstractmethod
    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> AnnData:
        """The result with its tables."""

    @abstractmethod
    def read(self) -> AnnData:
        """The result once it is finished."""

    @abstractmethod
    def _note_runs(self) -> None: ...

    @abstractmethod
    def _is_done(self, rows: slice) -> bool: ...

    def _blocks(self, first: int, last: int) -> list[slice]:
        """Between the edges of chunks: no two blocks share one."""
        size = self.block_rows
        edges = [first, *range((first // size + 1) * size, last, size), last]
        return [slice(*pair) for pair in zip(edges[:-1], edges[1:], strict=True)]


class MemoryScreen(ScreenResult):
    """A result in numpy arrays."""

    def __init__(self) -> None:
        self.runs = []
        self.layers: dict[str, np.ndarray] = {}
        self.of_block: dict[int, dict[str, np.ndarray]] = {}
        self.beside: dict[str, dict[str, np.ndarray]] = {}

    def open_layers(self, n_genes: int, types: Mapping[str, np.dtype]) -> None:
        """New arrays."""
        self.layers = {name: np.empty((self.n_rows, n_genes), kind) for name, kind in types.items()}

    def arrays(self, rows: slice, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The rows of the layers themselves."""
        return {name: self.layers[name][rows] for name in names}

    def write_block(self, rows: slice, layers: Mapping[str, np.ndarray], summary: Mapping[str, np.ndarray]) -> None:
        """Copy the block to its rows, where it does not lie there."""
        for name, values in layers.items():
            if values.base is not self.layers[name]:
                self.layers[name][rows] = values
        self.of_block[rows.start] = dict(summary)

    def summaries(self) -> list[dict[str, np.ndarray]]:
        """Those of all blocks, in the order of their rows."""
        return [self.of_block[start] for start in sorted(self.of_block)]

    def keep(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays beside the results."""
        self.beside[name] = dict(arrays)

    def kept(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept under this name."""
        return self.beside.get(name)

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> AnnData:
        """An AnnData around the arrays."""
        self.result = AnnData(obs=obs, var=var, uns=dict(uns), layers=self.layers)
        return self.result

    def read(self) -> AnnData:
        """The AnnData that `finish` made."""
        return self.result

    def _note_runs(self) -> None:
        """Nothing outlives the process."""

    def _is_done(self, rows: slice) -> bool:
        return rows.start in self.of_block
