"""Figures of stored results, each on one Axes."""

from ._agreement import agreement
from ._dispersion import dispersion
from ._forest import forest
from ._gene import gene
from ._knockdown import knockdown
from ._ma import ma
from ._perturbation_strength import perturbation_strength
from ._posterior import posterior
from ._pvalues import pvalues
from ._screen_map import screen_map
from ._volcano import volcano

__all__ = [
    "agreement",
    "dispersion",
    "forest",
    "gene",
    "knockdown",
    "ma",
    "perturbation_strength",
    "posterior",
    "pvalues",
    "screen_map",
    "volcano",
]
