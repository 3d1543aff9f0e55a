"""The moderated r* test: closed form from counts to p-value, calibrated with two replicates or two hundred."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from nbcompare._nb.blocks import fit_blocks, residual_degrees
from nbcompare._nb.contrast import test_genes
from nbcompare._nb.data import Pseudobulk, Trend
from nbcompare._nb.dispersion import moment_equation, solve_moments, sorted_members
from nbcompare._nb.leave_one_out import leave_one_out
from nbcompare._nb.noise import noise_of_group, noise_of_small_arm, noisy_groups
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.trend import fit_trend

MIN_KEPT_INFORMATION = 0.05
NOISE_THAT_MATTERS = 1.5  # smaller dispersion ratios of one group among many are left alone
EXTRAPOLATED = 10.0  # means above so many times the trend's last knot are flagged


@dataclass(frozen=True)
class Moderated:
    """Moderated r* tests of all comparisons of a data set. Natural logarithms."""

    log_fc: np.ndarray  # (n_genes, n_comparisons) treated over reference, NaN where both arms are empty
    se: np.ndarray  # (n_genes, n_comparisons) standard error of log_fc
    statistic: np.ndarray  # (n_genes, n_comparisons) signed normal equivalent, NaN where not tested
    p_value: np.ndarray  # (n_genes, n_comparisons) two-sided, NaN where not tested
    p_value_all: np.ndarray  # (n_genes, n_comparisons) before the leave-one-replicate-out rule
    dispersion: np.ndarray  # (n_genes, n_comparisons) moderated dispersion of the treated arm
    genewise: (
        np.ndarray
    )  # (n_genes, n_comparisons) moment estimate from the gene's own counts, the same groups and blocks
    status: np.ndarray  # (n_genes, n_comparisons) uint16, bits of `status.Status`
    trend: Trend  # the data set's; with pair-wise dispersions that of the last comparison
    mean: np.ndarray  # (n_genes,) mean count of a sample, where the trend is read
    noise: np.ndarray  # (n_comparisons, 2) dispersion of reference and treated arm relative to the data set's


def moderated_tests(
    pseudobulk: Pseudobulk,
    pairs: np.ndarray,
    *,
    shared: bool = True,
    min_total: float = 10.0,
    leave_out: bool = True,
) -> Moderated:
    """Test every comparison by the moderated r*.

    Parameters
    ----------
    pseudobulk
        Counts, size factors, groups and perhaps blocks.
    pairs
        Reference and treated group of every comparison, (n_comparisons, 2) int64; reference -1 is all other groups together.
    shared
        Sum the dispersion statistics over all groups of the data set; otherwise each comparison stands alone.
    min_total
        Genes with fewer counts in the two arms together are not tested.
    leave_out
        Apply the leave-one-replicate-out rule.
    """
    if shared or (pseudobulk.n_groups == 2 and len(pairs) == 1):
        return _tests(pseudobulk, np.ascontiguousarray(pairs, dtype=np.int64), min_total, leave_out)
    alone = [_tests(_pair(pseudobulk, *pair), np.array([[0, 1]]), min_total, leave_out) for pair in pairs]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in alone], axis=1)
        for name in ("log_fc", "se", "statistic", "p_value", "p_value_all", "dispersion", "genewise", "status")
    }
    noise = np.concatenate([one.noise for one in alone])
    return replace(alone[-1], **joined, noise=noise, mean=pseudobulk.counts.mean(axis=1))


def _tests(pseudobulk: Pseudobulk, pairs: np.ndarray, min_total: float, leave_out: bool) -> Moderated:
    counts = pseudobulk.counts
    members, starts = sorted_members(pseudobulk.group)
    usable = counts.sum(axis=1) >= min_total
    exposure, kept, lost, trend = _block_adjusted(pseudobulk, pairs, usable)
    mean = counts.mean(axis=1)
    at_mean = trend.at(mean)
    arms, arm_members = comparison_arms(members, starts, pairs)
    test = partial(test_genes, counts, exposure, kept, members, starts, arm_members, arms, lost)
    alone = np.full(len(pairs), pseudobulk.n_groups == 2)
    ratio, lends = np.ones(pseudobulk.n_groups), np.ones(pseudobulk.n_groups, bool)
    if pseudobulk.n_groups == 2:
        ratio = noise_of_small_arm(pseudobulk, exposure, lost)
    elif (suspects := noisy_groups(pseudobulk, exposure, trend, lost)).any():
        p_value = test(at_mean, trend.scatter, np.ones((len(pairs), 2)), alone, lends)[3]
        ratio, lends, trend = _noise(pseudobulk, exposure, trend, lost, usable, pairs, suspects, p_value)
        at_mean = trend.at(mean)
    noise = np.stack([np.where(pairs[:, 0] < 0, 1.0, ratio[pairs[:, 0]]), ratio[pairs[:, 1]]], axis=1)
    noisy = ratio > 1
    own = alone | (noise > 1).any(axis=1)
    result = test(at_mean, trend.scatter, noise, own, lends)
    log_fc, se, statistic, p_value, dispersion = result

    status = _status(pseudobulk, pairs, arms, arm_members, kept, min_total, noisy, own)
    _flag(status, (mean > EXTRAPOLATED * trend.mean[-1])[:, None], Status.HIGH_MEAN_EXTRAPOLATED)
    _flag(status, trend.n_genes < 30, Status.FEW_GENES)
    untested = (status & NOT_TESTED) > 0
    status[untested] &= NOT_TESTED
    for array in (statistic, p_value, dispersion):
        array[untested] = np.nan
    log_fc[(status & Status.ALL_ZERO) > 0] = np.nan
    se[(status & (Status.ALL_ZERO | Status.NO_REPLICATES | Status.CONFOUNDED)) > 0] = np.nan

    guarded = p_value.copy()
    if leave_out:
        guarded, statistic, rests_on_one = leave_one_out(
            pseudobulk, exposure, kept, arm_members, arms, at_mean, trend.scatter, noise, own, lends, p_value, statistic
        )
        _flag(status, rests_on_one, Status.SINGLE_REPLICATE)
    genewise = np.repeat(_genewise(counts, exposure, members, starts, lost)[:, None], len(pairs), axis=1)
    return Moderated(log_fc, se, statistic, guarded, p_value, dispersion, genewise, status, trend, mean, noise)


def _block_adjusted(
    pseudobulk: Pseudobulk, pairs: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, Trend]:
    """Exposures with block effects, information kept, degrees of freedom lost to blocks, and the trend: two rounds of each."""
    trend = fit_trend(pseudobulk, usable=usable)
    if pseudobulk.block is None:
        return *fit_blocks(pseudobulk, trend.dispersion, pairs), 1.0, trend
    residual = residual_degrees(pseudobulk)
    lost = (len(pseudobulk.group) - pseudobulk.n_groups) / max(residual, 1)
    mean = pseudobulk.counts.mean(axis=1)
    for _ in range(2):
        exposure, kept = fit_blocks(pseudobulk, trend.at(mean), pairs)
        trend = fit_trend(pseudobulk, exposure=exposure, lost=lost, usable=usable)
    return exposure, kept, lost, trend


def _noise(
    pseudobulk: Pseudobulk,
    exposure: np.ndarray,
    trend: Trend,
    lost: float,
    usable: np.ndarray,
    pairs: np.ndarray,
    suspects: np.ndarray,
    p_value: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Trend]:
    """Ratios of noisy groups, which groups lend their dispersion, and the trend of these.

    Two rounds: the trend that the noisy groups have raised names them, the trend without them says how noisy they are.
    """
    ratio, lends = np.ones(pseudobulk.n_groups), np.ones(pseudobulk.n_groups, bool)
    for _ in range(2):
        for group in np.flatnonzero(suspects):
            compared = np.flatnonzero(pairs[:, 1] == group)
            own_p = p_value[:, compared[0]] if compared.size else None
            ratio[group] = noise_of_group(pseudobulk, exposure, trend, lost, int(group), own_p)
        ratio[ratio < NOISE_THAT_MATTERS] = 1.0
        lends = ratio == 1.0
        if lends.all() or (np.bincount(pseudobulk.group)[lends] > 1).sum() == 0:
            return ratio, np.ones_like(lends), trend
        chosen = np.flatnonzero(lends[pseudobulk.group])
        calm = Pseudobulk(
            np.ascontiguousarray(pseudobulk.counts[:, chosen]),
            pseudobulk.exposure[chosen],
            np.unique(pseudobulk.group[chosen], return_inverse=True)[1],
        )
        adjusted = np.ascontiguousarray(exposure[:, chosen])
        trend = fit_trend(calm, exposure=adjusted, lost=lost, usable=usable)
    return ratio, lends, trend


def _genewise(counts, exposure, members, starts, lost) -> np.ndarray:
    """Unbiased moment estimate of the dispersion from all groups, NaN for a gene without counts."""
    moments = np.empty((len(counts), 3))
    moment_equation(counts, exposure, members, starts, lost, moments)
    return np.where(moments[:, 2] > 0, solve_moments(moments[:, 0], moments[:, 1]), np.nan)


def comparison_arms(members: np.ndarray, starts: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of the reference and the treated arm, (n_comparisons, 4), and the list of samples they point into."""
    arms = np.empty((len(pairs), 4), np.int64)
    lists = [members]
    end = len(members)
    for c, (reference, treated) in enumerate(pairs):
        if reference >= 0:
            arms[c, :2] = starts[reference], starts[reference + 1]
        else:
            rest = np.concatenate([members[: starts[treated]], members[starts[treated + 1] :]])
            lists.append(rest)
            arms[c, :2] = end, end + len(rest)
            end += len(rest)
        arms[c, 2:] = starts[treated], starts[treated + 1]
    return arms, np.concatenate(lists)


def _pair(pseudobulk: Pseudobulk, reference: int, treated: int) -> Pseudobulk:
    """The two arms of one comparison as a data set of its own, blocks without a sample removed."""
    in_treated = pseudobulk.group == treated
    chosen = np.flatnonzero(in_treated | (pseudobulk.group == reference) | (reference < 0))
    block = None if pseudobulk.block is None else np.unique(pseudobulk.block[chosen], return_inverse=True)[1]
    return Pseudobulk(
        np.ascontiguousarray(pseudobulk.counts[:, chosen]),
        pseudobulk.exposure[chosen],
        in_treated[chosen].astype(np.intp),
        block,
    )


def _status(pseudobulk, pairs, arms, arm_members, kept, min_total, noisy, own) -> np.ndarray:
    """What can be said before the test: reasons not to test, and flags."""
    counts = pseudobulk.counts
    sizes = np.bincount(pseudobulk.group)
    status = np.zeros(kept.shape, np.uint16)
    for c, (reference, treated) in enumerate(pairs):
        below = counts[:, arm_members[arms[c, 0] : arms[c, 1]]].sum(axis=1)
        above = counts[:, arm_members[arms[c, 2] : arms[c, 3]]].sum(axis=1)
        total = below + above
        here = status[:, c]
        single = min(sizes[treated], arms[c, 1] - arms[c, 0]) == 1
        lenders = sizes[[reference, treated]] if own[c] and reference >= 0 else sizes
        lent = (lenders > 1).any()
        _flag(here, total == 0, Status.ALL_ZERO)
        _flag(here, total < min_total, Status.LOW_TOTAL)
        _flag(here, kept[:, c] < MIN_KEPT_INFORMATION, Status.CONFOUNDED)
        _flag(here, (below == 0) | (above == 0), Status.ZERO_ARM)
        _flag(here, not lent, Status.NO_REPLICATES)
        _flag(here, single and lent, Status.ONE_REPLICATE_ARM)
        _flag(here, noisy[treated] or (reference >= 0 and noisy[reference]), Status.NOISY_GROUP)
    return status


def _flag(status: np.ndarray, where: np.ndarray | bool | np.bool, bit: Status) -> None:
    """Set a bit in place where told."""
    status |= np.where(where, np.uint16(bit), np.uint16(0))
