"""Tools: comparisons."""

from nbcompare.tl._nb_compare import nb_compare
from nbcompare.tl._nb_screen import nb_screen

__all__ = ["nb_compare", "nb_screen"]
