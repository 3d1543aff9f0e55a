"""The layers of a screen's result, written by blocks of perturbations: in memory, the same as on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData

EXACT = {"pvals": np.float64, "pvals_adj": np.float64, "status": np.uint16}  # so that 1e-300 stays 1e-300
ROUNDED = ("logfoldchanges", "lfc_se", "scores", "dispersions")  # float32 unless asked otherwise
OVER_ALL = "pvals_adj_global"  # written once all blocks are


def layer_types(dtype: str) -> dict[str, np.dtype]:
    """Name and type of every layer."""
    types = dict.fromkeys(ROUNDED, dtype) | EXACT | {OVER_ALL: np.float64}
    return {name: np.dtype(value) for name, value in types.items()}


class ScreenLayers(Protocol):
    """Where the blocks of a screen go."""

    layers: Mapping[str, Any]  # name -> (n_perturbations, n_genes), read and written by slices of rows

    def write_block(self, rows: slice, layers: Mapping[str, np.ndarray], summary: Mapping[str, np.ndarray]) -> None:
        """Keep the layers of these rows, then their summary, which says that the block is done."""

    def summaries(self) -> list[dict[str, np.ndarray]]:
        """Those of all blocks, in the order of their rows."""

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> AnnData:
        """The result."""


class MemoryScreen:
    """A result in numpy arrays."""

    def __init__(self, n_rows: int, n_genes: int, dtype: str) -> None:
        self.layers = {name: np.empty((n_rows, n_genes), kind) for name, kind in layer_types(dtype).items()}
        self.of_block: dict[int, dict[str, np.ndarray]] = {}

    def write_block(self, rows: slice, layers: Mapping[str, np.ndarray], summary: Mapping[str, np.ndarray]) -> None:
        """Copy the block to its rows."""
        for name, values in layers.items():
            self.layers[name][rows] = values
        self.of_block[rows.start] = dict(summary)

    def summaries(self) -> list[dict[str, np.ndarray]]:
        """Those of all blocks, in the order of their rows."""
        return [self.of_block[start] for start in sorted(self.of_block)]

    def finish(self, obs: pd.DataFrame, var: pd.DataFrame, uns: Mapping[str, Any]) -> AnnData:
        """An AnnData around the arrays."""
        return AnnData(obs=obs, var=var, uns=dict(uns), layers=self.layers)
