"""The loops of a screen: everything of the reference is a constant of the gene, only the target's few samples are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from nbcompare._nb.dispersion.pearson import arm
from nbcompare._nb.screen.kernels_vectorized import (
    LANES,
    LOG_FC,
    MARK,
    P_VALUE,
    SCRATCH,
    SE,
    SHARE,
    STATISTIC,
    TOTAL,
    WL,
    WLWL,
    WWL,
    WY,
    compare_lanes,
    load_genes,
    sum_target,
)
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.block_effects import kept_among_many
from nbcompare._nb.two_group.gene_test import SMALLEST_KEPT, compare_arms, group_statistic, moderate
from nbcompare._nb.two_group.leave_one_out import CUT, scatters

if TYPE_CHECKING:
    from nbcompare._nb.screen.model import ScreenBlock, ScreenModel

ALL_ZERO, LOW_TOTAL, CONFOUNDED = int(Status.ALL_ZERO), int(Status.LOW_TOTAL), int(Status.CONFOUNDED)
ZERO_ARM, SINGLE_REPLICATE = int(Status.ZERO_ARM), int(Status.SINGLE_REPLICATE)
MIN_KEPT_INFORMATION = 0.05


def compare_rows(
    model: ScreenModel,
    samples: np.ndarray,
    exposure: np.ndarray,
    block: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    lends: np.ndarray,
    target_status: np.ndarray,
    checked: np.ndarray,
    floor: np.ndarray,
    out: ScreenBlock,
) -> None:
    """Test the given targets, writing their rows of `out`."""
    _compare_rows(
        samples,
        exposure,
        block,
        starts,
        targets,
        lends,
        target_status,
        checked,
        floor,
        model.effects,
        model.block_slope,
        model.block_cells,
        model.block_factor,
        model.mean,
        model.prior_phi,
        model.prior_df,
        model.numerator,
        model.weight,
        model.lost,
        model.min_total,
        model.reference_arms,
        model.gene_status,
        out.log_fc,
        out.se,
        out.statistic,
        out.p_value,
        out.dispersion,
        out.status,
    )


def keep_information(model: ScreenModel, exposure: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Share of the information on one target's comparison that the blocks leave, (n_genes,)."""
    kept = np.empty(len(model.mean))
    _keep_information(exposure, block, model.effects, model.block_slope, model.block_cells, model.block_factor, kept)
    return kept


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_information(exposure, block, effects, slope, cells, factor, kept):
    n_blocks = effects.shape[0]
    own = np.empty(n_blocks)
    scratch = np.empty(n_blocks)
    for g in range(kept.shape[0]):
        kept[g] = kept_of_target(
            exposure, block, 0, exposure.shape[0], effects, g, slope[g], cells[g], factor[g], own, scratch
        )


@njit(cache=True, nogil=True, error_model="numpy")
def kept_of_target(exposure, block, start, stop, effects, g, slope, cells, factor, own, scratch):
    """Share of the information on one target's comparison in gene g that the blocks leave."""
    if effects.shape[0] == 1:
        return 1.0
    own[:] = 0.0
    for i in range(start, stop):
        e = exposure[i] * effects[block[i], g]
        own[block[i]] += e / (1.0 + slope * e)
    return kept_among_many(cells, own, factor, scratch)


@njit(cache=True, nogil=True, error_model="numpy")
def _compare_rows(
    samples,
    exposure,
    block,
    starts,
    targets,
    lends,
    target_status,
    checked,
    floor,
    effects,
    block_slope,
    block_cells,
    block_factor,
    mean,
    prior_phi,
    prior_df,
    numerator,
    weight,
    lost,
    min_total,
    reference,
    gene_status,
    log_fc,
    se,
    statistic,
    p_value,
    dispersion,
    status,
):
    n_blocks = effects.shape[0]
    own = np.empty(n_blocks)
    scratch = np.empty(n_blocks)
    lanes = np.zeros(SCRATCH)
    largest = 0
    for k in targets:
        largest = max(largest, starts[k + 1] - starts[k])
    y = np.empty(largest)
    l = np.empty(largest)
    members = np.arange(largest)
    for first in range(0, samples.shape[1], LANES):
        n_lanes = min(LANES, samples.shape[1] - first)
        load_genes(reference, first, n_lanes, lanes)
        for k in targets:
            start = starts[k]
            stop = starts[k + 1]
            n = stop - start
            sum_target(samples, exposure, block, start, stop, effects, first, n_lanes, lanes)
            if n_blocks > 1:
                for j in range(n_lanes):
                    g = first + j
                    kept = kept_of_target(
                        exposure,
                        block,
                        start,
                        stop,
                        effects,
                        g,
                        block_slope[g],
                        block_cells[g],
                        block_factor[g],
                        own,
                        scratch,
                    )
                    lanes[SHARE + j] = max(kept, SMALLEST_KEPT)
            compare_lanes(n_lanes, lanes)
            for j in range(n_lanes):
                g = first + j
                T1 = reference[0, 0, g]
                T2 = lanes[TOTAL + j]
                if T1 + T2 <= 0.0:
                    log_fc[k, g] = np.nan
                    se[k, g] = np.nan
                    statistic[k, g] = np.nan
                    p_value[k, g] = np.nan
                    dispersion[k, g] = np.nan
                    status[k, g] = ALL_ZERO | LOW_TOTAL if min_total > 0.0 else ALL_ZERO
                    continue
                share = lanes[SHARE + j]
                phi = reference[5, 0, g]
                effect = lanes[LOG_FC + j]
                error = lanes[SE + j]
                z = lanes[STATISTIC + j]
                p = lanes[P_VALUE + j]
                if lanes[MARK + j] != 0.0:
                    wl = lanes[WL + j]
                    effect, error, z, p = compare_arms(
                        T1,
                        reference[1, 0, g],
                        reference[2, 0, g],
                        phi * reference[3, 0, g],
                        T2,
                        lanes[WY + j] / wl,
                        wl * wl / lanes[WWL + j],
                        phi * lanes[WLWL + j] / (wl * wl),
                        reference[6, 0, g],
                        share,
                    )
                confounded = share < MIN_KEPT_INFORMATION
                log_fc[k, g] = effect
                se[k, g] = np.nan if confounded else error
                if confounded or T1 + T2 < min_total:
                    statistic[k, g] = np.nan
                    p_value[k, g] = np.nan
                    dispersion[k, g] = np.nan
                    reason = CONFOUNDED if confounded else 0
                    status[k, g] = reason | LOW_TOTAL if T1 + T2 < min_total else reason
                    continue
                flags = np.int64(gene_status[g]) | np.int64(target_status[k])
                if T1 <= 0.0 or T2 <= 0.0:
                    flags |= ZERO_ARM
                if p < CUT and checked[k]:
                    for i in range(n):
                        y[i] = samples[start + i, g]
                        l[i] = exposure[start + i] * effects[block[start + i], g]
                    worst, worst_z = _without_each(
                        y,
                        l,
                        members,
                        n if floor[k] > 0.0 or scatters(y, l, members, 0, n, phi) else 0,
                        n,
                        reference.shape[1] - 1 if floor[k] > 0.0 or reference[7, 0, g] > 0.0 else 0,
                        g,
                        lends[k],
                        mean[g],
                        prior_phi[g],
                        prior_df[g],
                        numerator[g],
                        weight[g],
                        lost,
                        reference,
                        share,
                        p,
                        z,
                    )
                    if worst > max(np.sqrt(p), floor[k]):
                        p = worst
                        z = worst_z
                        flags |= SINGLE_REPLICATE
                statistic[k, g] = z
                p_value[k, g] = p
                dispersion[k, g] = phi
                status[k, g] = flags


@njit(cache=True, nogil=True, error_model="numpy")
def _without_each(
    y,
    l,
    members,
    n_out,
    n,
    n_reference_out,
    g,
    lends,
    mean,
    prior_phi,
    prior_df,
    numerator,
    weight,
    lost,
    reference,
    share,
    p,
    z,
):
    """The largest p-value, and its statistic, without one of so many replicates of the target or of the reference."""
    worst = p
    worst_z = z
    whole, whole_weight = (0.0, 0.0)
    if lends and n_out > 0:
        whole, whole_weight = group_statistic(y, l, members, 0, n, -1, prior_phi)
    for j in range(n_out + n_reference_out):
        skip = j if j < n_out else -1
        variant = 0 if j < n_out else j - n_out + 1
        T1 = reference[0, variant, g]
        T2, rate2, E2, D2 = arm(y, l, members, 0, n, skip, reference[4, variant, g])
        phi = reference[5, variant, g]
        df = reference[6, variant, g]
        if lends and j < n_out:
            part, part_weight = group_statistic(y, l, members, 0, n, skip, prior_phi)
            phi, df = moderate(
                prior_phi,
                prior_df,
                mean,
                numerator + part - whole,
                (weight + part_weight - whole_weight) / lost,
            )
        now, now_z = 1.0, 0.0
        if T1 + T2 > 0.0:
            _, _, now_z, now = compare_arms(
                T1,
                reference[1, variant, g],
                reference[2, variant, g],
                phi * reference[3, variant, g],
                T2,
                rate2,
                E2,
                phi * D2,
                df,
                share,
            )
        if not now < 1.0 or now_z * z <= 0.0:
            now, now_z = 1.0, 0.0
        if now > worst:
            worst = now
            worst_z = now_z
    return worst, worst_z
