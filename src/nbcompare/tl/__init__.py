"""Tools: comparisons."""

from ._nb_compare import nb_compare
from ._nb_posterior import nb_posterior
from ._nb_screen import nb_screen

__all__ = ["nb_compare", "nb_posterior", "nb_screen"]
