"""The loops of a screen: everything of the reference is a constant of the gene, only the target's few samples are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from nbcompare._nb.dispersion.pearson import group_sums
from nbcompare._nb.screen.kernels_vectorized import (
    GENES_AT_ONCE,
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
    compare_vectorized,
    load_genes,
    sum_target,
)
from nbcompare._nb.status import Status
from nbcompare._nb.two_group.block_effects import efficiency_among_many
from nbcompare._nb.two_group.gene_test import SMALLEST_EFFICIENCY, compare_two_groups, group_statistic, moderate
from nbcompare._nb.two_group.leave_one_out import CUT, varies_too_much

if TYPE_CHECKING:
    from nbcompare._nb.screen.model import ScreenBlock, ScreenModel

ALL_ZERO, LOW_COUNTS, CONFOUNDED = int(Status.ALL_ZERO), int(Status.LOW_COUNTS), int(Status.CONFOUNDED)
ZERO_GROUP, OUTLIER_REPLICATE = int(Status.ZERO_GROUP), int(Status.OUTLIER_REPLICATE)
MIN_EFFICIENCY = 0.05


def compare_rows(
    model: ScreenModel,
    samples: np.ndarray,
    exposure: np.ndarray,
    block: np.ndarray,
    starts: np.ndarray,
    targets: np.ndarray,
    in_fit: np.ndarray,
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
        in_fit,
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
        model.df_ratio,
        model.min_gene_counts,
        model.reference_constants,
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
    efficiency = np.empty(len(model.mean))
    _keep_information(
        exposure, block, model.effects, model.block_slope, model.block_cells, model.block_factor, efficiency
    )
    return efficiency


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_information(exposure, block, effects, slope, cells, factor, efficiency):
    n_blocks = effects.shape[0]
    own = np.empty(n_blocks)
    scratch = np.empty(n_blocks)
    for g in range(efficiency.shape[0]):
        efficiency[g] = efficiency_of_target(
            exposure, block, 0, exposure.shape[0], effects, g, slope[g], cells[g], factor[g], own, scratch
        )


@njit(cache=True, nogil=True, error_model="numpy")
def efficiency_of_target(exposure, block, start, stop, effects, g, slope, cells, factor, own, scratch):
    """Share of the information on one target's comparison in gene g that the blocks leave."""
    if effects.shape[0] == 1:
        return 1.0
    own[:] = 0.0
    for i in range(start, stop):
        e = exposure[i] * effects[block[i], g]
        own[block[i]] += e / (1.0 + slope * e)
    return efficiency_among_many(cells, own, factor, scratch)


@njit(cache=True, nogil=True, error_model="numpy")
def _compare_rows(
    samples,
    exposure,
    block,
    starts,
    targets,
    in_fit,
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
    df_ratio,
    min_gene_counts,
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
    vectors = np.zeros(SCRATCH)
    largest = 0
    for k in targets:
        largest = max(largest, starts[k + 1] - starts[k])
    y = np.empty(largest)
    l = np.empty(largest)
    members = np.arange(largest)
    for first in range(0, samples.shape[1], GENES_AT_ONCE):
        n_at_once = min(GENES_AT_ONCE, samples.shape[1] - first)
        load_genes(reference, first, n_at_once, vectors)
        for k in targets:
            start = starts[k]
            stop = starts[k + 1]
            n = stop - start
            sum_target(samples, exposure, block, start, stop, effects, first, n_at_once, vectors)
            if n_blocks > 1:
                for j in range(n_at_once):
                    g = first + j
                    efficiency = efficiency_of_target(
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
                    vectors[SHARE + j] = max(efficiency, SMALLEST_EFFICIENCY)
            compare_vectorized(n_at_once, vectors)
            for j in range(n_at_once):
                g = first + j
                T1 = reference[0, 0, g]
                T2 = vectors[TOTAL + j]
                if T1 + T2 <= 0.0:
                    log_fc[k, g] = np.nan
                    se[k, g] = np.nan
                    statistic[k, g] = np.nan
                    p_value[k, g] = np.nan
                    dispersion[k, g] = np.nan
                    status[k, g] = ALL_ZERO | LOW_COUNTS if min_gene_counts > 0.0 else ALL_ZERO
                    continue
                share = vectors[SHARE + j]
                phi = reference[5, 0, g]
                effect = vectors[LOG_FC + j]
                error = vectors[SE + j]
                z = vectors[STATISTIC + j]
                p = vectors[P_VALUE + j]
                if vectors[MARK + j] != 0.0:
                    wl = vectors[WL + j]
                    effect, error, z, p = compare_two_groups(
                        T1,
                        reference[1, 0, g],
                        reference[2, 0, g],
                        phi * reference[3, 0, g],
                        T2,
                        vectors[WY + j] / wl,
                        wl * wl / vectors[WWL + j],
                        phi * vectors[WLWL + j] / (wl * wl),
                        reference[6, 0, g],
                        share,
                    )
                confounded = share < MIN_EFFICIENCY
                log_fc[k, g] = effect
                se[k, g] = np.nan if confounded else error
                if confounded or T1 + T2 < min_gene_counts:
                    statistic[k, g] = np.nan
                    p_value[k, g] = np.nan
                    dispersion[k, g] = np.nan
                    reason = CONFOUNDED if confounded else 0
                    status[k, g] = reason | LOW_COUNTS if T1 + T2 < min_gene_counts else reason
                    continue
                flags = np.int64(gene_status[g]) | np.int64(target_status[k])
                if T1 <= 0.0 or T2 <= 0.0:
                    flags |= ZERO_GROUP
                if p < CUT and checked[k]:
                    for i in range(n):
                        y[i] = samples[start + i, g]
                        l[i] = exposure[start + i] * effects[block[start + i], g]
                    worst, worst_z = _without_each(
                        y,
                        l,
                        members,
                        n if floor[k] > 0.0 or varies_too_much(y, l, members, 0, n, phi) else 0,
                        n,
                        reference.shape[1] - 1 if floor[k] > 0.0 or reference[7, 0, g] > 0.0 else 0,
                        g,
                        in_fit[k],
                        mean[g],
                        prior_phi[g],
                        prior_df[g],
                        numerator[g],
                        weight[g],
                        df_ratio,
                        reference,
                        share,
                        p,
                        z,
                    )
                    if worst > max(np.sqrt(p), floor[k]):
                        p = worst
                        z = worst_z
                        flags |= OUTLIER_REPLICATE
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
    in_fit,
    mean,
    prior_phi,
    prior_df,
    numerator,
    weight,
    df_ratio,
    reference,
    share,
    p,
    z,
):
    """The largest p-value, and its statistic, without one of this many replicates of the target or of the reference."""
    worst = p
    worst_z = z
    whole, whole_weight = (0.0, 0.0)
    if in_fit and n_out > 0:
        whole, whole_weight = group_statistic(y, l, members, 0, n, -1, prior_phi)
    for j in range(n_out + n_reference_out):
        skip = j if j < n_out else -1
        variant = 0 if j < n_out else j - n_out + 1
        T1 = reference[0, variant, g]
        T2, rate2, E2, D2 = group_sums(y, l, members, 0, n, skip, reference[4, variant, g])
        phi = reference[5, variant, g]
        df = reference[6, variant, g]
        if in_fit and j < n_out:
            part, part_weight = group_statistic(y, l, members, 0, n, skip, prior_phi)
            phi, df = moderate(
                prior_phi,
                prior_df,
                mean,
                numerator + part - whole,
                (weight + part_weight - whole_weight) / df_ratio,
            )
        now, now_z = 1.0, 0.0
        if T1 + T2 > 0.0:
            _, _, now_z, now = compare_two_groups(
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
