"""The loops of a screen: everything of the reference is a constant of the gene, only the target's few samples are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


class TargetSamples(NamedTuple):
    """The samples of a run of targets, those of a target side by side."""

    counts: np.ndarray  # (n_rows, n_genes)
    exposure: np.ndarray  # (n_rows,) size factors
    block: np.ndarray  # (n_rows,) int64
    starts: np.ndarray  # (n_targets + 1,) where each target starts among the rows


class TargetRules(NamedTuple):
    """What the tests of each target must know beside its samples, (n_targets,) each."""

    in_fit: np.ndarray  # bool, whether its statistics are among the model's
    status: np.ndarray  # uint32 flags of all its tests
    checked: np.ndarray  # bool, whether replicates are left out in turn
    floor: np.ndarray  # smaller p-values without one replicate never replace p


class OneTarget(NamedTuple):
    """One gene in the samples of one target."""

    y: np.ndarray  # counts
    l: np.ndarray  # exposures with block effects
    members: np.ndarray  # 0, 1, ...
    n: int  # samples


class PlainTest(NamedTuple):
    """The test from all replicates, and the share of information that blocks leave."""

    share: float
    p: float
    z: float


def compare_rows(
    model: ScreenModel, samples: TargetSamples, rules: TargetRules, targets: np.ndarray, out: ScreenBlock
) -> None:
    """Test the given targets, writing their rows of `out`."""
    _compare_rows(samples, rules, targets, model.constants, out)


def keep_information(model: ScreenModel, exposure: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Share of the information on one target's comparison that the blocks leave, (n_genes,)."""
    efficiency = np.empty(len(model.mean))
    _keep_information(exposure, block, model.blocks, efficiency)
    return efficiency


@njit(cache=True, nogil=True, error_model="numpy")
def _keep_information(exposure, block, blocks, efficiency):
    n_blocks = blocks.effects.shape[0]
    own = np.empty(n_blocks)
    scratch = np.empty(n_blocks)
    efficiency[:] = 1.0
    if n_blocks > 1:
        for g in range(efficiency.shape[0]):
            weigh_target(exposure, block, 0, exposure.shape[0], blocks.effects, g, blocks.slope[g], own)
            efficiency[g] = efficiency_among_many(blocks.cells[g], own, blocks.factor[g], scratch)


@njit(cache=True, nogil=True, error_model="numpy")
def weigh_target(exposure, block, start, stop, effects, g, slope, own):
    """Information of one target's samples in every block, (n_blocks,), into `own`."""
    own[:] = 0.0
    for i in range(start, stop):
        e = exposure[i] * effects[block[i], g]
        own[block[i]] += e / (1.0 + slope * e)


@njit(cache=True, nogil=True, error_model="numpy")
def _compare_rows(samples, rules, targets, model, out):
    reference, blocks = model.reference, model.blocks
    effects = blocks.effects
    min_gene_counts = model.min_gene_counts
    n_blocks = effects.shape[0]
    own = np.empty(n_blocks)
    scratch = np.empty(n_blocks)
    vectors = np.zeros(SCRATCH)
    largest = 0
    for k in targets:
        largest = max(largest, samples.starts[k + 1] - samples.starts[k])
    y = np.empty(largest)
    l = np.empty(largest)
    members = np.arange(largest)
    for first in range(0, samples.counts.shape[1], GENES_AT_ONCE):
        n_at_once = min(GENES_AT_ONCE, samples.counts.shape[1] - first)
        load_genes(reference, first, n_at_once, vectors)
        for k in targets:
            start = samples.starts[k]
            stop = samples.starts[k + 1]
            n = stop - start
            sum_target(samples, start, stop, effects, first, n_at_once, vectors)
            if n_blocks > 1:
                for j in range(n_at_once):
                    g = first + j
                    weigh_target(samples.exposure, samples.block, start, stop, effects, g, blocks.slope[g], own)
                    efficiency = efficiency_among_many(blocks.cells[g], own, blocks.factor[g], scratch)
                    vectors[SHARE + j] = max(efficiency, SMALLEST_EFFICIENCY)
            compare_vectorized(n_at_once, vectors)
            for j in range(n_at_once):
                g = first + j
                T1 = reference.total[0, g]
                T2 = vectors[TOTAL + j]
                if T1 + T2 <= 0.0:
                    out.log_fc[k, g] = np.nan
                    out.se[k, g] = np.nan
                    out.statistic[k, g] = np.nan
                    out.p_value[k, g] = np.nan
                    out.dispersion[k, g] = np.nan
                    out.status[k, g] = ALL_ZERO | LOW_COUNTS if min_gene_counts > 0.0 else ALL_ZERO
                    continue
                share = vectors[SHARE + j]
                phi = reference.dispersion[0, g]
                effect = vectors[LOG_FC + j]
                error = vectors[SE + j]
                z = vectors[STATISTIC + j]
                p = vectors[P_VALUE + j]
                if vectors[MARK + j] != 0.0:
                    wl = vectors[WL + j]
                    effect, error, z, p = compare_two_groups(
                        T1,
                        reference.rate[0, g],
                        reference.pseudo_exposure[0, g],
                        phi * reference.dispersion_factor[0, g],
                        T2,
                        vectors[WY + j] / wl,
                        wl * wl / vectors[WWL + j],
                        phi * vectors[WLWL + j] / (wl * wl),
                        reference.df[0, g],
                        share,
                    )
                confounded = share < MIN_EFFICIENCY
                out.log_fc[k, g] = effect
                out.se[k, g] = np.nan if confounded else error
                if confounded or T1 + T2 < min_gene_counts:
                    out.statistic[k, g] = np.nan
                    out.p_value[k, g] = np.nan
                    out.dispersion[k, g] = np.nan
                    reason = CONFOUNDED if confounded else 0
                    out.status[k, g] = reason | LOW_COUNTS if T1 + T2 < min_gene_counts else reason
                    continue
                flags = np.int64(model.gene_status[g]) | np.int64(rules.status[k])
                if T1 <= 0.0 or T2 <= 0.0:
                    flags |= ZERO_GROUP
                if p < CUT and rules.checked[k]:
                    for i in range(n):
                        y[i] = samples.counts[start + i, g]
                        l[i] = samples.exposure[start + i] * effects[samples.block[start + i], g]
                    always = rules.floor[k] > 0.0
                    worst, worst_z = _without_each(
                        OneTarget(y, l, members, n),
                        n if always or varies_too_much(y, l, members, 0, n, phi) else 0,
                        reference.total.shape[0] - 1 if always or reference.varies[0, g] > 0.0 else 0,
                        rules.in_fit[k],
                        model,
                        g,
                        PlainTest(share, p, z),
                    )
                    if worst > max(np.sqrt(p), rules.floor[k]):
                        p = worst
                        z = worst_z
                        flags |= OUTLIER_REPLICATE
                out.statistic[k, g] = z
                out.p_value[k, g] = p
                out.dispersion[k, g] = phi
                out.status[k, g] = flags


@njit(cache=True, nogil=True, error_model="numpy")
def _without_each(target, n_out, n_reference_out, in_fit, model, g, plain):
    """The largest p-value, and its statistic, without one of this many replicates of the target or of the reference."""
    shared, reference = model.shared, model.reference
    y, l, members, n = target
    prior_phi = shared.prior_phi[g]
    worst = plain.p
    worst_z = plain.z
    whole, whole_weight = (0.0, 0.0)
    if in_fit and n_out > 0:
        whole, whole_weight = group_statistic(y, l, members, 0, n, -1, prior_phi)
    for j in range(n_out + n_reference_out):
        skip = j if j < n_out else -1
        variant = 0 if j < n_out else j - n_out + 1
        T1 = reference.total[variant, g]
        T2, rate2, E2, D2 = group_sums(y, l, members, 0, n, skip, reference.slope[variant, g])
        phi = reference.dispersion[variant, g]
        df = reference.df[variant, g]
        if in_fit and j < n_out:
            part, part_weight = group_statistic(y, l, members, 0, n, skip, prior_phi)
            phi, df = moderate(
                prior_phi,
                shared.prior_df[g],
                shared.mean[g],
                shared.numerator[g] + part - whole,
                (shared.weight[g] + part_weight - whole_weight) / shared.df_ratio,
            )
        now, now_z = 1.0, 0.0
        if T1 + T2 > 0.0:
            _, _, now_z, now = compare_two_groups(
                T1,
                reference.rate[variant, g],
                reference.pseudo_exposure[variant, g],
                phi * reference.dispersion_factor[variant, g],
                T2,
                rate2,
                E2,
                phi * D2,
                df,
                plain.share,
            )
        if not now < 1.0 or now_z * plain.z <= 0.0:
            now, now_z = 1.0, 0.0
        if now > worst:
            worst = now
            worst_z = now_z
    return worst, worst_z
