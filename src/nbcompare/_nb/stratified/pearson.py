"""How much does a gene vary in two groups within blocks? The statistic of `glm.dispersion.pearson` with the fit in closed form.

The rate ratio is that of Mantel and Haenszel, and given it the rate x of a block is the positive root of

    -(E_1 h_2 + E_2 h_1) x^2 + (Y_1 h_2 + Y_2 h_1 - E_1 - E_2) x + Y_1 + Y_2 = 0,     h_g = phi D_g E_g,

E_2 times the ratio. With w = m / (1 + phi m), s its sum in the block, s_o that of the block's samples of the other group and
C = sum_r s_1 s_2 / (s_1 + s_2), the leverage of a sample is h = w (1 / s + (s_o / s)^2 / C): block effects cost no matrix. In a group of
another dispersion its ratio times phi stands for phi.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nbcompare._nb.stratified.design import MatchedDesign
from nbcompare._nb.stratified.mantel_haenszel import D1, D2, E1, E2, Y1, Y2, block_sums, fill_cells

EMPTY = 1e-3  # samples with smaller fitted means hold no information
FEWEST_RESIDUALS, MIN_INFORMATIVE = 0.2, 1e-3
BOTH = -1  # groups whose residuals are summed, for `only`
LEAST = 0.25  # count on either side of the rate ratio, so that it stays finite


@njit(cache=True, nogil=True, error_model="numpy")
def fit_blocks_and_ratio(cells, phi, rates):
    """The rate ratio, and the rates of the blocks given it into `rates`."""
    a, b, _, _, _, _, _ = block_sums(cells, phi, 1.0)
    ratio = max(a, LEAST) / max(b, LEAST)
    for r in range(cells.shape[0]):
        first = cells[r, E1]
        second = cells[r, E2] * ratio
        h1 = phi * cells[r, D1] * first
        h2 = phi * cells[r, D2] * second
        total = cells[r, Y1] + cells[r, Y2]
        square = first * h2 + second * h1
        linear = cells[r, Y1] * h2 + cells[r, Y2] * h1 - first - second
        root = math.sqrt(linear * linear + 4.0 * square * total)
        if total <= 0.0:
            rates[r] = 0.0
        elif linear > 0.0:
            rates[r] = (linear + root) / (2.0 * square)
        else:
            rates[r] = 2.0 * total / (root - linear)
    return ratio


@njit(cache=True, nogil=True, error_model="numpy")
def leverage_between(sums, of_shared):
    """Sum of the squares of the hat matrix between samples of different groups: by it the residuals of a group alone vary less."""
    same = 0.0
    both = 0.0
    first = 0.0
    second = 0.0
    for r in range(sums.shape[0]):
        product = sums[r, 0] * sums[r, 1]
        if product > 0.0:
            product /= (sums[r, 0] + sums[r, 1]) ** 2
            same += product
            both += product * product * (sums[r, 0] + sums[r, 1])
            first += product * sums[r, 0]
            second += product * sums[r, 1]
    return same - 2.0 * both * of_shared + first * second * of_shared * of_shared


@njit(cache=True, nogil=True, error_model="numpy")
def pearson_within_blocks(y, l, groups, skip, ratio, phi, only, constants, scratch):
    """Numerator, degrees of freedom d, A (see `glm.dispersion.pearson`), and the share of the information that blocks leave.

    `groups` are `BlockedGroups`; the dispersion of a group is phi times its ratio. With `only` 0 or 1 the residuals are those of this group
    alone, else of both. The rates of the blocks are `scratch.rates`, those of the second group `ratio` times as large.
    """
    members, bounds, dispersion_ratio = groups
    rates, sums, precision = scratch.rates, scratch.sums, scratch.precision
    k_dispersion, k_count = constants[0], constants[1]
    n_blocks = bounds.shape[0]
    shared = 0.0
    whole1 = 0.0
    whole2 = 0.0
    for r in range(n_blocks):
        for g in range(2):
            sums[r, g] = 0.0
            rate = rates[r] * ratio if g == 1 else rates[r]
            if rate <= 0.0:
                continue
            for j in range(bounds[r, g], bounds[r, g + 1]):
                i = members[j]
                if i != skip:
                    m = rate * l[i]
                    precision[i] = 1.0 / (m * (1.0 + dispersion_ratio[g] * phi * m))
                    sums[r, g] += m * m * precision[i]
        whole1 += sums[r, 0]
        whole2 += sums[r, 1]
        if sums[r, 0] * sums[r, 1] > 0.0:
            shared += sums[r, 0] * sums[r, 1] / (sums[r, 0] + sums[r, 1])
    if shared <= 0.0:
        return 0.0, 0.0, 0.0, 0.0
    efficiency = shared * (whole1 + whole2) / (whole1 * whole2)
    of_shared = 1.0 / shared
    squares = 0.0
    residuals = 0.0
    informative = 0.0
    variance = 0.0
    information = 0.0
    total = 0.0
    used = 0.0
    of_ratio = 0.0
    of_overdispersion = 0.0
    for r in range(n_blocks):
        both = sums[r, 0] + sums[r, 1]
        if both <= 0.0:
            continue
        of_both = 1.0 / both
        of_block = 0.0
        for g in range(2):
            if only != BOTH and g != only:
                continue
            rate = rates[r] * ratio if g == 1 else rates[r]
            own = dispersion_ratio[g] * phi
            other = sums[r, 1 - g] * of_both
            share = of_both + other * other * of_shared
            of_group = 0.0
            for j in range(bounds[r, g], bounds[r, g + 1]):
                i = members[j]
                m = rate * l[i]
                if i == skip or m < EMPTY:
                    continue
                slope = m * precision[i]
                leverage = min(m * slope * share, 1.0)
                rest = 1.0 - leverage
                counts = max(0.0, 1.0 - slope * share)
                spread = 0.5 * own * (leverage + k_dispersion)
                root = 1.0 / math.sqrt((1.0 + 2.0 * spread) * (1.0 + 3.0 * spread))
                e = y[i] - m
                squares += e * e * precision[i]
                residuals += rest
                informative += rest * counts
                information += rest * dispersion_ratio[g] * m * slope
                of_overdispersion += rest * dispersion_ratio[g]
                total += m
                used += 1.0
                variance += root * root * (2.0 * rest * (counts + spread) + rest * rest * (precision[i] + 6.0 * own))
                of_group += rest * (1.0 + 2.0 * own * m) * root * slope
            of_block += of_group
            if g == 1:
                of_ratio += of_group
        variance -= of_block * of_block * of_both
        of_ratio -= sums[r, 1] * of_both * of_block
    if residuals < FEWEST_RESIDUALS:
        return 0.0, 0.0, 0.0, efficiency
    of_overdispersion *= phi / residuals
    if (
        only != BOTH
    ):  # where a ratio is sought at any dispersion: the expansion holds below one, and must not outgrow the residuals
        of_overdispersion = min(of_overdispersion, 1.0)
    inflated = 1.0 + k_dispersion * of_overdispersion
    informative /= inflated
    if informative < MIN_INFORMATIVE:
        return 0.0, 0.0, 0.0, efficiency
    if only != BOTH:
        variance -= 2.0 * leverage_between(sums, of_shared)
    variance = max(variance - of_ratio * of_ratio * of_shared, 0.3 * informative)
    degrees = 2.0 * informative * informative / variance
    scaled = squares * inflated / (1.0 + k_count * used / total)
    return degrees * (1.0 + (scaled - residuals) / informative), degrees, information / residuals, efficiency


@njit(cache=True, nogil=True, error_model="numpy")
def matched_statistics(counts, exposure, groups, phi, only, constants, scratch, out):
    """Numerator, degrees of freedom and A of every gene at its phi, out (n_genes, 3); exposures (1 or n_genes, n_samples).

    `groups` and `only` as in `pearson_within_blocks`.
    """
    for g in range(counts.shape[0]):
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        fill_cells(y, l, groups.members, groups.bounds, -1, phi[g], groups.dispersion_ratio, scratch.cells)
        ratio = fit_blocks_and_ratio(scratch.cells, phi[g], scratch.rates)
        out[g, 0], out[g, 1], out[g, 2], _ = pearson_within_blocks(
            y, l, groups, -1, ratio, phi[g], only, constants, scratch
        )


def group_statistics(
    counts: np.ndarray,
    exposure: np.ndarray,
    design: MatchedDesign,
    phi: np.ndarray,
    dispersion_ratio: np.ndarray,
    only: int,
    out: np.ndarray,
) -> None:
    """`matched_statistics` of the samples of a design."""
    matched_statistics(
        counts, exposure, design.groups(dispersion_ratio), phi, only, design.constants, design.scratch(), out
    )
