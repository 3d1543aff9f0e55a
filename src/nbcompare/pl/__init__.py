"""Figures of stored results, each on one Axes."""

from ._dispersion import dispersion
from ._gene import gene
from ._ma import ma
from ._pvalues import pvalues
from ._volcano import volcano

__all__ = ["dispersion", "gene", "ma", "pvalues", "volcano"]
