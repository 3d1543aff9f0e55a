"""Options of a call that say what its samples are, and how their sequencing depths are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SampleOptions:
    """Columns that define groups and samples, and which samples are dropped."""

    groupby: str | Sequence[str]
    replicate_key: str | Sequence[str] | None = None
    block_key: str | Sequence[str] | None = None
    split_by: str | Sequence[str] | None = None
    layer: str | None = None
    min_cells: int = 10
    min_counts: float = 0
    allow_cells_as_replicates: bool | None = False  # None in a call without this argument


@dataclass(frozen=True)
class SizeFactorOptions:
    """Size factors, and known factors of every count."""

    size_factors: str | Sequence[float] = "auto"
    offset: str | np.ndarray | None = None
