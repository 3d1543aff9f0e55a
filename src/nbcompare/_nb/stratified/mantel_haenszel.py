"""Two groups within blocks: the rate ratio of Mantel and Haenszel, weighted for dispersion, and two pseudo-counts that carry it.

In block r let Y_g, E_g be pseudo-count and exposure of group g's samples and D_g the factor of their dispersion (count, size factor and 1 for
a single sample) times its dispersion ratio, T = Y_1 + Y_2, L = E_1 + E_2. With x = T E_1 E_2 / L^2 and k = 1 / (1 + phi x (D_1 + D_2)), variance and slope of
(Y_2 E_1 - Y_1 E_2) / L are in the ratio 1 / k, and

    a = sum k Y_2 E_1 / L,     b = sum k Y_1 E_2 / L,     rate ratio a / b .

Block effects cancel from a - b under the null hypothesis, so none is estimated. With M = sum k x, P_1 = sum k^2 x E_2 / L and
P_2 = sum k^2 x E_1 / L, the Poisson variances of b and a, the pseudo-counts are b M / P_1 and a M / P_2, of exposures M^2 / P_1 and M^2 / P_2
and of dispersions delta_g = phi sum k^2 x^2 D_g / M^2: means and variances in the ratios that b and a have, also under nulls far from
equal rates, where one of the two is almost constant.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.two_group.rstar import modified_root

Y1, Y2, E1, E2, D1, D2 = range(6)  # columns of `cells`


@njit(cache=True, nogil=True, error_model="numpy")
def fill_cells(y, l, members, bounds, skip, phi, dispersion_ratio, cells):
    """Pseudo-counts, exposures and dispersion factors of both groups in every block, cells (n_blocks, 6); sample `skip` is left out.

    Samples of a cell weigh 1 / (1 + c phi q l), q the rate of the block and c the ratio `dispersion_ratio` (2,) of the group, which its D contains too.
    """
    for r in range(bounds.shape[0]):
        slope = 0.0
        if bounds[r, 2] - bounds[r, 0] > 2:  # single samples weigh nothing against others
            total = 0.0
            depth = 0.0
            for j in range(bounds[r, 0], bounds[r, 2]):
                i = members[j]
                if i != skip:
                    total += y[i]
                    depth += l[i]
            slope = phi * total / depth if depth > 0.0 else 0.0
        for g in range(2):
            if bounds[r, g + 1] - bounds[r, g] == 1 and members[bounds[r, g]] != skip:
                cells[r, Y1 + g] = y[members[bounds[r, g]]]
                cells[r, E1 + g] = l[members[bounds[r, g]]]
                cells[r, D1 + g] = dispersion_ratio[g]
                continue
            wl = 0.0
            wwl = 0.0
            wlwl = 0.0
            wy = 0.0
            for j in range(bounds[r, g], bounds[r, g + 1]):
                i = members[j]
                if i == skip:
                    continue
                w = 1.0 / (1.0 + dispersion_ratio[g] * slope * l[i])
                wl += w * l[i]
                wwl += w * w * l[i]
                wlwl += w * l[i] * w * l[i]
                wy += w * y[i]
            if wl > 0.0:
                cells[r, Y1 + g] = wy * wl / wwl
                cells[r, E1 + g] = wl * wl / wwl
                cells[r, D1 + g] = dispersion_ratio[g] * wlwl / (wl * wl)
            else:
                cells[r, Y1 + g] = 0.0
                cells[r, E1 + g] = 0.0
                cells[r, D1 + g] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def block_sums(cells, phi, ratio):
    """a, b, M, P_1, P_2 and both delta / phi with the second group's exposures times `ratio`; all zero where no block has counts and both groups."""
    a = 0.0
    b = 0.0
    slope = 0.0
    poisson1 = 0.0
    poisson2 = 0.0
    square1 = 0.0
    square2 = 0.0
    for r in range(cells.shape[0]):
        total = cells[r, Y1] + cells[r, Y2]
        first = cells[r, E1]
        second = cells[r, E2] * ratio
        if first * second * total <= 0.0:
            continue
        depth = 1.0 / (first + second)
        x = total * first * second * depth * depth
        k = 1.0 / (1.0 + phi * x * (cells[r, D1] + cells[r, D2]))
        a += k * cells[r, Y2] * first * depth
        b += k * cells[r, Y1] * second * depth
        slope += k * x
        poisson1 += k * k * x * second * depth
        poisson2 += k * k * x * first * depth
        square1 += k * x * k * x * cells[r, D1]
        square2 += k * x * k * x * cells[r, D2]
    if slope > 0.0:
        square1 /= slope * slope
        square2 /= slope * slope
    return a, b, slope, poisson1, poisson2, square1, square2


@njit(cache=True, nogil=True, error_model="numpy")
def tested_information(cells, phi):
    """A at which the null hypothesis is tested: the slope of log variance of a - b in the dispersion, m / (1 + phi m) in pairs of mean m."""
    _, _, slope, _, _, factor1, factor2 = block_sums(cells, phi, 1.0)
    return (factor1 + factor2) * slope


@njit(cache=True, nogil=True, error_model="numpy")
def pseudo_counts(cells, phi, ratio):
    """Both pseudo-counts, exposures and dispersions, and -1 or 1 where the second or the first was zero and has been given half a count of the other's, else 0."""
    a, b, slope, poisson1, poisson2, factor1, factor2 = block_sums(cells, phi, ratio)
    if slope <= 0.0:
        return 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0
    scale1 = slope / poisson1
    scale2 = slope / poisson2
    y1 = scale1 * b
    y2 = scale2 * a
    empty = 0.0
    if y1 <= 0.0:
        y1 = min(0.5, 0.5 * y2)
        y2 -= y1
        empty = 1.0
    elif y2 <= 0.0:
        y2 = min(0.5, 0.5 * y1)
        y1 -= y2
        empty = -1.0
    return y1, y2, scale1 * slope, scale2 * slope, phi * factor1, phi * factor2, empty


@njit(cache=True, nogil=True, error_model="numpy")
def compare_within_blocks(cells, phi, ratio):
    """Log rate ratio over `ratio`, its standard error, r* and which group is empty (see `pseudo_counts`); NaN where no block is informative."""
    y1, y2, depth1, depth2, delta1, delta2, empty = pseudo_counts(cells, phi, ratio)
    if y1 <= 0.0:
        return math.nan, math.nan, math.nan, 0.0
    root = modified_root(y1, y2, depth1, depth2, delta1, delta2)
    return math.log(y2 / depth2 / (y1 / depth1)), math.sqrt(1.0 / y1 + 1.0 / y2 + delta1 + delta2), root, empty
