"""Figures of stored results, each on one Axes."""

from nbcompare.pl._agreement import agreement
from nbcompare.pl._dispersion import dispersion
from nbcompare.pl._forest import forest
from nbcompare.pl._gene import gene
from nbcompare.pl._hidden_factors import hidden_factors
from nbcompare.pl._knockdown import knockdown
from nbcompare.pl._ma import ma
from nbcompare.pl._perturbation_strength import perturbation_strength
from nbcompare.pl._posterior import posterior
from nbcompare.pl._pvalues import pvalues
from nbcompare.pl._screen_map import screen_map
from nbcompare.pl._volcano import volcano

__all__ = [
    "agreement",
    "dispersion",
    "forest",
    "gene",
    "hidden_factors",
    "knockdown",
    "ma",
    "perturbation_strength",
    "posterior",
    "pvalues",
    "screen_map",
    "volcano",
]
