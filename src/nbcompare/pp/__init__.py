"""Preprocessing: cells to samples, and how deep each sample is."""

from __future__ import annotations

from ._pseudobulk import pseudobulk
from ._size_factors import size_factors

__all__ = ["pseudobulk", "size_factors"]
