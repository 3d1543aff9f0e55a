"""Preprocessing: cells to samples, and how deep each sample is."""

from __future__ import annotations

from nbcompare.pp._pseudobulk import pseudobulk
from nbcompare.pp._size_factors import size_factors

__all__ = ["pseudobulk", "size_factors"]
