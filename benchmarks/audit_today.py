"""Figures of the version before the repairs (commit 77e454a), measured by audit.py with seed 0: what audit.py compares with."""

TODAY: dict[str, tuple[float | None, ...]] = {}  # scenario: realised / nominal at the five levels, power

KANG_GENES: dict[str, int] = {}  # way: genes at 5 % FDR, Kang monocytes, 8 pairs
