"""Tools: comparisons."""

from ._nb_compare import nb_compare
from ._nb_screen import nb_screen

__all__ = ["nb_compare", "nb_screen"]
