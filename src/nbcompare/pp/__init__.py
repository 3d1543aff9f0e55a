"""Preprocessing: cells to samples, how deep each sample is, and hidden factors of the samples."""

from __future__ import annotations

from nbcompare.pp._hidden_factors import hidden_factors
from nbcompare.pp._pseudobulk import pseudobulk
from nbcompare.pp._size_factors import size_factors

__all__ = ["hidden_factors", "pseudobulk", "size_factors"]
