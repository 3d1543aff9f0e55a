"""Which genes changed? Replicate-aware negative binomial comparisons of counts in AnnData."""

from importlib.metadata import version

from nbcompare import datasets, get, pl, pp, tl

__all__ = ["datasets", "get", "pl", "pp", "tl"]
__version__ = version("nbcompare")

del version
