"""Tools: comparisons."""

from ._nb_compare import nb_compare

__all__ = ["nb_compare"]
