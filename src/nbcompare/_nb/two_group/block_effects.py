"""Additive block effects (donor, batch, replicate) in closed form: a few sweeps of weighted proportional fitting per gene.

At weights w = 1 / (1 + phi q l b), q the gene's pooled rate, group rates lam and block effects b are fitted in turn,

    lam_g = sum w y / sum w l b   over the samples of g,      b_r = (1/2 + sum w y) / (1/2 + sum w l lam)   over the samples of r,

and l b replaces the exposure l in everything that follows.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.pearson import sorted_members
from nbcompare._nb.numerics.parallel import in_parallel

SWEEPS = 4


def connected_parts(group: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Which part of the design each group lies in, (n_groups,): groups of one part are compared within blocks, others cannot be."""
    n_groups = int(group.max()) + 1
    n_nodes = n_groups + int(block.max()) + 1
    links = coo_array((np.ones(len(group)), (group, n_groups + block)), shape=(n_nodes, n_nodes))
    return connected_components(links, directed=False)[1][:n_groups]


def residual_degrees(pseudobulk: Pseudobulk) -> int:
    """Samples minus the rank of the additive design of groups and blocks."""
    n_samples = len(pseudobulk.group)
    if pseudobulk.block is None:
        return n_samples - pseudobulk.n_groups
    n_parts = len(set(connected_parts(pseudobulk.group, pseudobulk.block)))
    return n_samples - (pseudobulk.n_groups + pseudobulk.n_blocks - n_parts)


def fit_blocks(
    pseudobulk: Pseudobulk, dispersion: np.ndarray, pairs: np.ndarray | None = None, *, n_threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Exposures times block effects, and the share of the information on each comparison that the blocks leave.

    Parameters
    ----------
    pseudobulk
        Counts, size factors, groups and blocks.
    dispersion
        Dispersion at which samples are weighted, (n_genes,).
    pairs
        Reference and treated group of every comparison, (n_comparisons, 2); reference -1 is all other groups together.

    Returns
    -------
    Exposures (n_genes, n_samples), and shares in 0 .. 1 (n_genes, n_comparisons).
    """
    if pseudobulk.block is None:
        return pseudobulk.exposures, np.ones((len(pseudobulk.counts), 0 if pairs is None else len(pairs)))
    members, starts = sorted_members(pseudobulk.group)
    pairs = np.empty((0, 2), np.int64) if pairs is None else pairs
    exposures = np.empty_like(pseudobulk.counts)
    efficiency = np.ones((len(pseudobulk.counts), len(pairs)))
    block, n_blocks, given = pseudobulk.block, pseudobulk.n_blocks, pseudobulk.exposures
    phi = np.minimum(dispersion, 1.0)

    def run(genes: slice) -> None:
        exposure = given if len(given) == 1 else given[genes]
        counts = pseudobulk.counts[genes]
        _fit_genes(
            counts, exposure, members, starts, block, n_blocks, phi[genes], pairs, exposures[genes], efficiency[genes]
        )

    in_parallel(run, len(phi), n_threads)
    parts = connected_parts(pseudobulk.group, pseudobulk.block)
    for c, (reference, treated) in enumerate(pairs):
        others = np.delete(parts, treated) if reference < 0 else parts[[reference]]
        if parts[treated] not in others:
            efficiency[:, c] = 0.0
    return exposures, efficiency


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_genes(counts, exposure, members, starts, block, n_blocks, phi, pairs, exposures, efficiency):
    n_groups = starts.shape[0] - 1
    weight = np.empty(exposure.shape[1])
    scratch = np.empty((3, n_blocks))
    cells = np.empty((n_groups, n_blocks))
    factor = np.empty((n_blocks, n_blocks))
    for g in range(counts.shape[0]):
        e = exposures[g]
        sweep(
            counts[g],
            exposure[g if exposure.shape[0] > 1 else 0],
            members,
            starts,
            block,
            phi[g],
            -1,
            e,
            weight,
            scratch,
        )
        if pairs.shape[0] == 0:
            continue
        weigh_cells(weight, e, members, starts, block, -1, cells)
        if n_groups > 2:
            eliminate_groups(cells, factor)
        for c in range(pairs.shape[0]):
            reference = pairs[c, 0]
            treated = pairs[c, 1]
            if reference < 0:
                for r in range(n_blocks):
                    scratch[0, r] = -cells[treated, r]
                    for k in range(n_groups):
                        scratch[0, r] += cells[k, r]
                efficiency[g, c] = efficiency_by_pair(scratch[0], cells[treated])
            elif n_groups == 2:
                efficiency[g, c] = efficiency_by_pair(cells[reference], cells[treated])
            else:
                efficiency[g, c] = efficiency_among_many(cells[reference], cells[treated], factor, scratch[0])


@njit(cache=True, nogil=True, error_model="numpy")
def sweep(y, l, members, starts, block, phi, skip, out, weight, scratch):
    """Exposures with block effects of one gene into `out`, its weights into `weight`, leaving sample `skip` out."""
    n = l.shape[0]
    effect = scratch[0]
    observed = scratch[1]
    expected = scratch[2]
    total = 0.0
    depth = 0.0
    for i in range(n):
        if i != skip:
            total += y[i]
            depth += l[i]
    slope = phi * total / depth
    effect[:] = 1.0
    for _ in range(SWEEPS if total > 0.0 else 0):
        weigh_samples(l, effect, block, slope, weight)
        observed[:] = 0.5
        expected[:] = 0.5
        for k in range(starts.shape[0] - 1):
            counted = 0.0
            exposed = 0.0
            for j in range(starts[k], starts[k + 1]):
                i = members[j]
                if i != skip:
                    counted += weight[i] * y[i]
                    exposed += weight[i] * l[i] * effect[block[i]]
            rate = counted / exposed if exposed > 0.0 else 0.0
            for j in range(starts[k], starts[k + 1]):
                i = members[j]
                if i != skip:
                    observed[block[i]] += weight[i] * y[i]
                    expected[block[i]] += weight[i] * l[i] * rate
        for r in range(effect.shape[0]):
            effect[r] = observed[r] / expected[r]
    weigh_samples(l, effect, block, slope, weight)
    for i in range(n):
        out[i] = l[i] * effect[block[i]]


@njit(cache=True, nogil=True, error_model="numpy")
def weigh_samples(l, effect, block, slope, weight):
    """Weights of the samples at their exposures times the effects (n_blocks,) of their blocks, into `weight`."""
    for i in range(l.shape[0]):
        weight[i] = 1.0 / (1.0 + slope * l[i] * effect[block[i]])


@njit(cache=True, nogil=True, error_model="numpy")
def weigh_cells(weight, e, members, starts, block, skip, cells):
    """Sums of weight times exposure, the information of every group in every block, into `cells` (n_groups, n_blocks)."""
    cells[:] = 0.0
    for k in range(starts.shape[0] - 1):
        for j in range(starts[k], starts[k + 1]):
            i = members[j]
            if i != skip:
                cells[k, block[i]] += weight[i] * e[i]


@njit(cache=True, nogil=True, error_model="numpy")
def efficiency_by_pair(first, second):
    """Share of the information on the contrast of two groups that their blocks leave, from the groups' cells (n_blocks,).

    With A_r, B_r the cells: sum_r A_r B_r / (A_r + B_r) times (A + B) / (A B).
    """
    a = 0.0
    b = 0.0
    shared = 0.0
    for r in range(first.shape[0]):
        a += first[r]
        b += second[r]
        if first[r] + second[r] > 0.0:
            shared += first[r] * second[r] / (first[r] + second[r])
    return min(shared * (a + b) / (a * b), 1.0) if a > 0.0 and b > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def efficiency_among_many(first, second, factor, scratch):
    """The same where blocks are estimated from all groups, `factor` from `eliminate_groups`.

    (1/A + 1/B) / (1/A + 1/B + u' S^-1 u), u the difference of the two groups' shares over the blocks. With two groups it is `efficiency_by_pair`.
    """
    a = first.sum()
    b = second.sum()
    if a <= 0.0 or b <= 0.0:
        return 0.0
    added = 0.0
    for r in range(first.shape[0] - 1):
        value = first[r + 1] / a - second[r + 1] / b
        for t in range(r):
            value -= factor[r, t] * scratch[t]
        scratch[r] = value / factor[r, r]
        added += scratch[r] * scratch[r]
    alone = 1.0 / a + 1.0 / b
    return alone / (alone + added)


@njit(cache=True, nogil=True, error_model="numpy")
def eliminate_groups(cells, factor):
    """Cholesky factor of S, the blocks' information once the groups are projected out; the first block is the origin.

    S = diag(column sums) - sum_k cells_k cells_k' / total_k, with a ridge that leaves unconnected blocks without information.
    """
    n_groups, n_blocks = cells.shape
    n = n_blocks - 1
    factor[:] = 0.0
    for k in range(n_groups):
        total = cells[k].sum()
        if total <= 0.0:
            continue
        for r in range(n):
            factor[r, r] += cells[k, r + 1]
            for s in range(r + 1):
                factor[r, s] -= cells[k, r + 1] * cells[k, s + 1] / total
    ridge = 1e-300
    for r in range(n):
        ridge += 1e-9 * factor[r, r]
    for r in range(n):
        for s in range(r + 1):
            value = factor[r, s] + (ridge if r == s else 0.0)
            for t in range(s):
                value -= factor[r, t] * factor[s, t]
            factor[r, s] = np.sqrt(max(value, 1e-300)) if r == s else value / factor[s, s]
