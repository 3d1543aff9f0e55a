"""Cells with known truth, and one small real screen."""

from ._papalexi2021 import papalexi2021
from ._simulate import simulate

__all__ = ["papalexi2021", "simulate"]
