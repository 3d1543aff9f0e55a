"""Designs that are groups of samples: exact dispersion statistics, and one group against another in closed form."""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.contrast import compare_arms, totals
from nbcompare._nb.dispersion import arm, arm_statistic, sorted_members


def group_statistics(counts: np.ndarray, exposure: np.ndarray, group: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Numerator and d, summed over the groups, and A = 1 / (phi + 1/m), (n_genes, 3); `exposure` (1 or n_genes, n_samples)."""
    out = np.zeros((len(counts), 3))
    _group_statistics(counts, exposure, *sorted_members(group), phi, out)
    return out


def compare_pair(
    counts: np.ndarray,
    exposure: np.ndarray,
    group: np.ndarray,
    pair: tuple[int, int],
    working: np.ndarray,
    phi: np.ndarray,
    degrees: np.ndarray,
) -> np.ndarray:
    """Log ratio of the second group's rate to the first's, standard error, signed statistic and p-value, (4, n_genes); see `moderated`.

    Samples are weighted at the two groups' common rate and the working dispersion, and compared at phi.
    """
    out = np.full((4, len(counts)), np.nan)
    members, starts = sorted_members(group)
    arms = np.array([starts[pair[0]], starts[pair[0] + 1], starts[pair[1]], starts[pair[1] + 1]])
    _compare_pair(counts, exposure, members, arms, working, phi, degrees, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _group_statistics(counts, exposure, members, starts, phi, out):
    """Samples of two groups are weighted at their common rate, of more at their own."""
    n_groups = starts.shape[0] - 1
    for k in range(counts.shape[0]):
        y = counts[k]
        l = exposure[k if exposure.shape[0] > 1 else 0]
        total, depth = totals(y, l, members, 0, members.shape[0], -1)
        mean = total / members.shape[0]
        out[k, 2] = mean / (1.0 + phi[k] * mean)
        for j in range(n_groups):
            start, stop = starts[j], starts[j + 1]
            own, own_depth = totals(y, l, members, start, stop, -1)
            if own < 2.0 or stop - start < 2:
                continue
            rate = total / depth if n_groups == 2 else own / own_depth
            _, fitted, _, factor = arm(y, l, members, start, stop, -1, phi[k] * rate)
            numerator, d = arm_statistic(y, l, members, start, stop, -1, own, fitted, factor, phi[k])
            out[k, 0] += numerator
            out[k, 1] += d


@njit(cache=True, nogil=True, error_model="numpy")
def _compare_pair(counts, exposure, members, arms, working, phi, degrees, out):
    for k in range(counts.shape[0]):
        y = counts[k]
        l = exposure[k if exposure.shape[0] > 1 else 0]
        total1, depth1 = totals(y, l, members, arms[0], arms[1], -1)
        total2, depth2 = totals(y, l, members, arms[2], arms[3], -1)
        if total1 + total2 <= 0.0:
            continue
        slope = working[k] * (total1 + total2) / (depth1 + depth2)
        T1, rate1, E1, D1 = arm(y, l, members, arms[0], arms[1], -1, slope)
        T2, rate2, E2, D2 = arm(y, l, members, arms[2], arms[3], -1, slope)
        out[0, k], out[1, k], out[2, k], out[3, k] = compare_arms(
            T1, rate1, E1, phi[k] * D1, T2, rate2, E2, phi[k] * D2, degrees[k], 1.0
        )
