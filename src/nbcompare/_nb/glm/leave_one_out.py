"""The leave-one-replicate-out rule in designs: a contrast that rests on one sample is reported with the p-value without it.

Every sample that carries information on the contrast is removed in turn, and the gene is fitted and tested again; trend, prior and dispersion
ratios stay. Most samples of most genes cannot change the answer: only those are removed whose influence, to first order, could.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from nbcompare._nb.glm.dispersion.moderation import Moderation, moderate
from nbcompare._nb.glm.fit.design import DesignMatrices, design_matrices
from nbcompare._nb.glm.run import TESTS, ContrastResults, run_tests
from nbcompare._nb.numerics.cholesky import RIDGE
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare._nb.two_group.leave_one_out import CUT, FLOOR, LARGEST_GROUP, UNBALANCED

FEWEST, FEWEST_UNBALANCED = 3, 2  # samples of the smaller side where the sides are about equal, and where they are not
LEAST_LEFT, LEAST_LEFT_UNBALANCED = (
    0.6,
    0.5,
)  # of the information; samples without which less is left cannot be left out
EXACT = 1e-8  # one less the leverage of a sample that is fitted exactly; singular values that are none
LARGE = 0.4  # change of the contrast, natural log, from which on the first order says too little
SLACK, MARGIN = 1.2, 0.3  # how far above its bound a deviate may be expected without the sample
MAX_PREDICTOR = 40.0
CHUNK = 2_000_000  # numbers of one array


def leave_one_out(
    found: ContrastResults,
    status: np.ndarray,
    counts: np.ndarray,
    offset: np.ndarray,
    design: np.ndarray,
    contrasts: Sequence[np.ndarray],
    matrices: DesignMatrices,
    basis: Moderation,
    *,
    level: np.ndarray | None = None,
    every: bool = False,
    n_threads: int = 1,
) -> None:
    """Replace statistics and p-values that rest on one sample and flag them, in place.

    Where p < .02, the largest p-value without a sample (1 after a change of sign) replaces p if it exceeds max(sqrt(p), .2). Where one side of
    the contrast has twice the samples of the other, sqrt(p) alone is the bound, and only samples of a side that varies more than its dispersion
    lets expect are left out. With `every` no sample is passed over for its influence.
    """
    for c in range(len(contrasts)):
        if matrices.tested[c] > 1:
            continue
        suspects = np.flatnonzero((found.p_value[:, c] < CUT) & ((status[:, c] & NOT_TESTED) == 0))
        if not len(suspects):
            continue
        question = Question(design, np.asarray(contrasts[c], np.float64).reshape(-1), matrices, c, level)
        if question.refused:
            status[suspects, c] |= np.uint32(Status.REPLICATE_NOT_LEFT_OUT)
        if not question.without:
            continue
        worst, deviate = _largest(question, suspects, found, counts, offset, basis, every, n_threads)
        p = found.p_value[suspects, c]
        flagged = worst > np.maximum(np.sqrt(p), question.floor)
        where = suspects[flagged]
        found.p_value[where, c], found.statistic[where, c] = worst[flagged], deviate[flagged]
        status[where, c] |= np.uint32(Status.OUTLIER_REPLICATE)


@dataclass(frozen=True)
class Without:
    """What is left of a design without a sample."""

    samples: list[int]  # any of these
    left: np.ndarray
    matrices: DesignMatrices  # with the contrast


class Question:
    """Which samples of a contrast can be left out."""

    def __init__(
        self, design: np.ndarray, contrast: np.ndarray, matrices: DesignMatrices, c: int, level: np.ndarray | None
    ) -> None:
        self.design, self.contrast, self.c = design, contrast, c
        self.columns, self.products = matrices.rows[c + 1], matrices.products[c + 1]
        self.length = float(matrices.length[c])
        self.sides = matrices.sides(c, level)
        sizes = self.sides.sum(axis=1)
        self.unbalanced = bool(sizes.max() >= UNBALANCED * sizes.min())
        self.floor = 0.0 if self.unbalanced else FLOOR
        self.without: dict[bytes, Without] = {}  # by the samples that are left
        self.refused = sizes.min() < (FEWEST_UNBALANCED if self.unbalanced else FEWEST)
        if self.refused:
            return
        for side, size in zip(self.sides, sizes, strict=True):
            for i in np.flatnonzero(side) if size <= LARGEST_GROUP else ():
                self._leave_out(int(i))

    def _leave_out(self, i: int) -> None:
        """Remember what is left without sample i, or that too little is.

        Samples that are then fitted exactly, such as the other one of its pair, carry no information and are left out with it.
        """
        left = np.delete(np.arange(len(self.columns)), i)
        basis = _independent(self.columns[left])
        if basis.shape[1] < self.columns.shape[1]:
            self.refused = True
            return
        left = left[np.square(basis).sum(axis=1) < 1 - EXACT]
        others = _independent(self.columns[left, :-1])
        last = self.columns[left, -1]
        least = LEAST_LEFT_UNBALANCED if self.unbalanced else LEAST_LEFT
        rest = last - others @ (others.T @ last)
        if np.square(rest).sum() < least * len(self.columns) or len(left) - others.shape[1] < 2:
            self.refused = True
            return
        design = np.column_stack([others, last])
        contrast = np.zeros(design.shape[1])
        contrast[-1] = self.length
        without = self.without.setdefault(left.tobytes(), Without([], left, design_matrices(design, [contrast])))
        without.samples.append(i)


def _independent(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what these columns span."""
    u, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, values > EXACT * values.max(initial=0.0)])


def _largest(
    question: Question,
    suspects: np.ndarray,
    found: ContrastResults,
    counts: np.ndarray,
    offset: np.ndarray,
    basis: Moderation,
    every: bool,
    n_threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The largest p-value without one sample of the genes `suspects`, at least theirs with all, and its deviate."""
    c = question.c
    p, deviate = found.p_value[suspects, c].copy(), found.statistic[suspects, c].copy()
    sign = np.sign(found.statistic[suspects, c])
    could = _could_matter(question, suspects, found, counts, offset, basis, every)
    for without_it in question.without.values():
        at = np.flatnonzero(could[:, without_it.samples].any(axis=1))
        if not len(at):
            continue
        genes, left, matrices = suspects[at], without_it.left, without_it.matrices
        some = np.ascontiguousarray(counts[np.ix_(genes, left)])
        some_offset = np.ascontiguousarray(offset[:, left] if len(offset) == 1 else offset[np.ix_(genes, left)])
        own = moderate(
            some,
            some_offset,
            matrices,
            basis.working[genes],
            basis.prior_degrees[genes],
            basis.trend,
            basis.mean[genes],
            basis.ratio[left],
            n_threads=n_threads,
        )
        empty = some.sum(axis=1) <= 0
        own = replace(own, dispersion=np.where(np.isfinite(own.dispersion), own.dispersion, basis.working[genes]))
        tests = run_tests(some, some_offset, matrices, own, TESTS["moderated"], np.zeros(1), n_threads)
        z, without = tests.statistic[:, 0], tests.p_value[:, 0]
        turned = empty | ~(without < 1) | (z * sign[at] <= 0)
        without, z = np.where(turned, 1.0, without), np.where(turned, 0.0, z)
        larger = without > p[at]
        p[at[larger]], deviate[at[larger]] = without[larger], z[larger]
    return p, deviate


def _could_matter(
    question: Question,
    suspects: np.ndarray,
    found: ContrastResults,
    counts: np.ndarray,
    offset: np.ndarray,
    basis: Moderation,
    every: bool,
) -> np.ndarray:
    """Samples whose removal could replace a gene's p-value, (n_suspects, n_samples) bool."""
    if every and not question.unbalanced:
        return np.ones((len(suspects), counts.shape[1]), bool)
    n, p = question.columns.shape
    step = max(1, CHUNK // (n * p))
    chunks = [
        _influential(question, suspects[start : start + step], found, counts, offset, basis, every)
        for start in range(0, len(suspects), step)
    ]
    return np.concatenate(chunks)


def _influential(
    question: Question,
    genes: np.ndarray,
    found: ContrastResults,
    counts: np.ndarray,
    offset: np.ndarray,
    basis: Moderation,
    every: bool,
) -> np.ndarray:
    """The same by the change of the contrast to first order, and its variance, without each sample."""
    x, c = question.columns, question.c
    y, phi = counts[genes], basis.dispersion[genes, None] * basis.ratio
    eta = (offset if len(offset) == 1 else offset[genes]) + found.coefficients[genes] @ question.design.T
    m = np.exp(np.clip(eta, -MAX_PREDICTOR, MAX_PREDICTOR))
    w = m / (1 + phi * m)
    p = x.shape[1]
    first, second = np.tril_indices(p)
    information = np.zeros((len(genes), p, p))
    information[:, first, second] = w @ question.products
    information[:, second, first] = information[:, first, second]
    inverse = np.linalg.inv(information + RIDGE * np.eye(p))
    influence = inverse[:, :, -1] @ x.T
    leverage = np.minimum(w * np.einsum("gnp,np->gn", (x @ inverse).reshape(len(genes), len(x), p), x), 1 - 1e-6)
    variance = inverse[:, -1, -1][:, None]
    sign = np.sign(found.statistic[genes, c])[:, None]
    fall = sign * w * influence * (y - m) / (m * (1 - leverage))
    scaled = np.abs(found.log_fc[genes, c][:, None] / question.length)
    size = np.abs(found.statistic[genes, c])[:, None]
    without = size * (scaled - fall) / scaled * np.sqrt(variance / (variance + influence**2 * w / (1 - leverage)))
    level = np.maximum(np.sqrt(found.p_value[genes, c]), question.floor)
    bound = -ndtri(level / 2)[:, None]
    could = (without < SLACK * bound + MARGIN) | (fall > LARGE) | ~np.isfinite(without)
    if every:
        could[...] = True
    if question.unbalanced:
        spread = m * (1 + phi * m)
        rest = 1 - leverage
        for side in question.sides:
            square = ((y - m)[:, side] ** 2 / spread[:, side]).sum(axis=1)
            expected = rest[:, side].sum(axis=1)
            sampling_variance = (rest[:, side] ** 2 * (2 + 1 / spread[:, side] + 6 * phi[:, side])).sum(axis=1)
            could[:, side] &= (square > expected + 2 * np.sqrt(sampling_variance))[:, None]
    return could
