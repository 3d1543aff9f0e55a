"""From the counts of one gene in two groups within blocks to its p-value: prior, moderation, pseudo-counts, r*, Student's t."""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.special import normal_from_t
from nbcompare._nb.stratified.mantel_haenszel import compare_within_blocks, fill_cells, tested_information
from nbcompare._nb.stratified.pearson import BOTH, fit_blocks_and_ratio, pearson_within_blocks
from nbcompare._nb.two_group.gene_test import moderate, p_value_of, prior


@njit(cache=True, nogil=True, error_model="numpy")
def count_of(information, phi):
    """The mean count of which A = m / (1 + phi m) is `information`."""
    return information / max(1.0 - phi * information, 1e-9)


@njit(cache=True, nogil=True, error_model="numpy")
def moderate_within_blocks(data, g, skip, constants, scratch):
    """Moderated dispersion, its degrees of freedom, the gene's own dispersion and the share of information kept; fills `scratch.cells`.

    The prior is that of the counts under the null hypothesis, where the test is made. The statistic is taken at the fitted means, where
    nearly empty samples leave a smaller A, part of it: there a statistic weighs part^2 as much and its excess part as much.
    """
    y = data.counts[g]
    l = data.exposure[g if data.exposure.shape[0] > 1 else 0]
    members, bounds, dispersion_ratio = data.groups
    total = 0.0
    n = 0.0
    for j in range(members.shape[0]):
        if members[j] != skip:
            total += y[members[j]]
            n += 1.0
    mean = total / n
    if mean <= 0.0:
        return math.nan, math.nan, math.nan, 0.0
    phi, _ = prior(mean, data.trend[g], data.log_dispersion_var, data.error)
    fill_cells(y, l, members, bounds, skip, phi, dispersion_ratio, scratch.cells)
    ratio = fit_blocks_and_ratio(scratch.cells, phi, scratch.rates)
    numerator, degrees, information, efficiency = pearson_within_blocks(
        y, l, data.groups, skip, ratio, phi, BOTH, constants, scratch
    )
    if efficiency <= 0.0:
        return math.nan, math.nan, math.nan, 0.0
    tested = tested_information(scratch.cells, phi)
    at_test = count_of(tested, phi)
    _, df = prior(at_test, data.trend[g], data.log_dispersion_var, data.error)
    own = math.nan
    left = 0.0
    if degrees > 0.0:
        own = max(phi + (numerator / degrees - 1.0) / information, 0.0)
        part = min(information / tested, 1.0)
        left = part * part * degrees
        numerator = left + part * (numerator - degrees)
    moderated, _ = moderate(phi, df, at_test, numerator, left)
    df += degrees
    return moderated, df, own, efficiency


@njit(cache=True, nogil=True, error_model="numpy")
def compare_matched(data, constants, log_shift, scratch, out):
    """Log fold change, standard error, signed statistic, p-value, moderated and own dispersion, share kept: out (n_genes, 7).

    The null hypothesis is a log fold change of `log_shift`, by which statistic and p-value are signed.
    """
    ratio = math.exp(log_shift)
    for g in range(data.counts.shape[0]):
        phi, df, own, efficiency = moderate_within_blocks(data, g, -1, constants, scratch)
        log_fc, se, root, empty = (
            compare_within_blocks(scratch.cells, phi, ratio)
            if efficiency > 0.0
            else (math.nan, math.nan, math.nan, 0.0)
        )
        z = math.copysign(normal_from_t(abs(root), df), root)
        out[g, 0] = log_fc + log_shift
        out[g, 1] = se
        out[g, 2] = z
        out[g, 3] = p_value_of(z, empty)
        out[g, 4] = phi
        out[g, 5] = own
        out[g, 6] = efficiency


@njit(cache=True, nogil=True, error_model="numpy")
def leave_out_matched(genes, data, left_out, requested, constants, scratch, statistic, p_value):
    """The largest p-value of each of these genes without one of the samples `left_out`, and its statistic, in place.

    `requested` (n_genes, n_left_out) bool says which samples are left out of which gene, `constants` (n_left_out, 2) are those of the design
    without each. A sample left out takes its block along where it was the group's only one there. A change of sign counts as p = 1.
    """
    for t in range(genes.shape[0]):
        g = genes[t]
        whole = statistic[t]
        for s in range(left_out.shape[0]):
            if not requested[t, s]:
                continue
            phi, df, _, efficiency = moderate_within_blocks(data, g, left_out[s], constants[s], scratch)
            p = 1.0
            z = 0.0
            if efficiency > 0.0:
                _, _, root, empty = compare_within_blocks(scratch.cells, phi, 1.0)
                if root * whole > 0.0:
                    z = math.copysign(normal_from_t(abs(root), df), root)
                    p = p_value_of(z, empty)
            if p > p_value[t]:
                p_value[t] = p
                statistic[t] = z
