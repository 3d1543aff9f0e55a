"""Cells with known truth, and one small real screen."""

from nbcompare.datasets._papalexi2021 import papalexi2021
from nbcompare.datasets._simulate import simulate

__all__ = ["papalexi2021", "simulate"]
