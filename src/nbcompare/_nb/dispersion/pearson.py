"""How much do the replicates of a group vary? A Pearson statistic with exact first and second moments given the group's total.

Counts y_i of a group with exposures l_i are NB(l_i rate, phi). At a working dispersion p the weights are w_i = 1 / (1 + p rate l_i), and

    fitted rate  lam = sum w y / sum w l,       E = (sum w l)^2 / sum w^2 l,       D = sum (w l)^2 / (sum w l)^2
    statistic    S   = (1 + p D) / (n - 1)  sum (y - lam l)^2 / (lam l (1 + p lam l))

S has mean 1 given the total T when p is the true dispersion; its variance v given T is that of a Dirichlet-multinomial sum of squares
(equal cells, concentration 1/p), and kappa says how fast its mean moves with the dispersion. The group enters sums over groups with the
weight d = 2 kappa^2 / v, about n - 1 degrees of freedom at high counts and none where counts are too few.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from nbcompare._nb.numerics.parallel import in_parallel

GENES_AT_ONCE = 2048
MAX_DISPERSION = 1000.0  # where nearly all counts lie in one replicate the moment equation has no finite root


@njit(cache=True, nogil=True, error_model="numpy")
def group_sums(y, l, members, start, stop, skip, slope):
    """Total, weighted rate, pseudo-exposure E and dispersion factor D of samples members[start:stop] but `skip`; w = 1/(1 + slope l)."""
    total, wl, wwl, wlwl, wy = weighted_sums(y, l, members, start, stop, skip, slope)
    return total, wy / wl, wl * wl / wwl, wlwl / (wl * wl)


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_sums(y, l, members, start, stop, skip, slope):
    """Sum y, sum w l, sum w^2 l, sum (w l)^2 and sum w y of samples members[start:stop] but `skip`; w = 1/(1 + slope l)."""
    total = 0.0
    wl = 0.0
    wwl = 0.0
    wlwl = 0.0
    wy = 0.0
    for j in range(start, stop):
        i = members[j]
        if i == skip:
            continue
        w = 1.0 / (1.0 + slope * l[i])
        a = w * l[i]
        total += y[i]
        wl += a
        wwl += w * a
        wlwl += a * a
        wy += w * y[i]
    return total, wl, wwl, wlwl, wy


@njit(cache=True, nogil=True, error_model="numpy")
def statistic_of_group(y, l, members, start, stop, skip, total, rate, factor, phi):
    """D (1 + (S - 1) / kappa) and d of one group at dispersion phi; (0, 0) where the group says nothing."""
    n = stop - start
    for j in range(start, stop):
        if members[j] == skip:
            n -= 1
    if total < 2.0 or n < 2:
        return 0.0, 0.0
    q = 0.0
    for j in range(start, stop):
        i = members[j]
        if i == skip:
            continue
        m = rate * l[i]
        e = y[i] - m
        q += e * e / (m * (1.0 + phi * m))
    s = q / (n - 1.0) * (1.0 + phi * factor)
    variance, kappa = dirichlet_multinomial(n, total, 1.0 / max(phi, 1e-9))
    d = 2.0 * kappa * kappa / max(variance, 1e-3)
    return d * (1.0 + (s - 1.0) / kappa), d


@njit(cache=True, nogil=True, error_model="numpy")
def dirichlet_multinomial(n, total, a):
    """Relative variance of sum (y - mean)^2 over n cells given the total, concentration a a cell; and the elasticity kappa of S."""
    kappa = n * (total - 1.0) / total / (n + 1.0 / a)
    if a > 1e6:
        return 2.0 / (n - 1.0) * (1.0 - 1.0 / total), 1.0 - 1.0 / total
    big = n * a
    f2 = total * (total - 1.0)
    f3 = f2 * (total - 2.0)
    f4 = f3 * (total - 3.0)
    r2 = a * (a + 1.0) / (big * (big + 1.0))
    r3 = r2 * (a + 2.0) / (big + 2.0)
    r4 = r3 / (big + 3.0)
    second = n * f2 * r2
    variance = (
        n * (f4 * r4 * (a + 3.0) + 4.0 * f3 * r3 + 2.0 * f2 * r2)
        + n * (n - 1.0) * f4 * r4 * a * (a + 1.0) / (a + 2.0)
        - second * second
    )
    expected = (n - 1.0) / n * total * (total + big) / (big + 1.0)
    return max(variance, 0.0) / (expected * expected), kappa


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_statistics(counts, exposure, members, starts, phi, by_gene, by_group):
    by_group[:] = 0.0
    for g in range(counts.shape[0]):
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        by_gene[g, 0] = 0.0
        by_gene[g, 1] = 0.0
        for k in range(starts.shape[0] - 1):
            start = starts[k]
            stop = starts[k + 1]
            if stop - start < 2:
                continue
            total = 0.0
            depth = 0.0
            for j in range(start, stop):
                total += y[members[j]]
                depth += l[members[j]]
            if total < 2.0:
                continue
            _, rate, _, factor = group_sums(y, l, members, start, stop, -1, phi[g] * total / depth)
            numerator, d = statistic_of_group(y, l, members, start, stop, -1, total, rate, factor, phi[g])
            by_gene[g, 0] += numerator
            by_gene[g, 1] += d
            by_group[k, 0] += numerator
            by_group[k, 1] += d


@njit(cache=True, nogil=True, error_model="numpy")
def moment_equation(counts, exposure, members, starts, df_ratio, out):
    """X and D of the unbiased moment equation E[X - phi D] = 0, summed over groups, and the mean count: out (n_genes, 3).

    With u = 1/l, f = l/L, h = sum l^2 / L^2 and lam = T/L of a group:
    X = sum u (y - lam l)^2 - lam sum u l (1 - f),   D = (T^2 - T)/L^2 sum u l^2 (1 - 2 f + h) - h X.
    Squares are multiplied by `df_ratio`, for blocks fitted to the same counts have shrunk them.
    """
    for g in range(counts.shape[0]):
        y = counts[g]
        l = exposure[g if exposure.shape[0] > 1 else 0]
        out[g, 0] = 0.0
        out[g, 1] = 0.0
        out[g, 2] = 0.0
        for k in range(starts.shape[0] - 1):
            total = 0.0
            depth = 0.0
            square = 0.0
            for j in range(starts[k], starts[k + 1]):
                i = members[j]
                total += y[i]
                depth += l[i]
                square += l[i] * l[i]
            out[g, 2] += total
            if starts[k + 1] - starts[k] < 2:
                continue
            rate = total / depth
            h = square / (depth * depth)
            squares = 0.0
            expected = 0.0
            spread = 0.0
            for j in range(starts[k], starts[k + 1]):
                i = members[j]
                f = l[i] / depth
                e = y[i] - rate * l[i]
                squares += df_ratio * e * e / l[i]
                expected += rate * (1.0 - f)
                spread += l[i] * (1.0 - 2.0 * f + h)
            x = squares - expected
            if abs(x) < 1e-12 * expected:  # one count in equal exposures: nothing but rounding
                x = 0.0
            out[g, 0] += x
            out[g, 1] += spread * (total * total - total) / (depth * depth) - h * x
        out[g, 2] /= members.shape[0]


def sum_statistics(
    counts: np.ndarray,
    exposure: np.ndarray,
    members: np.ndarray,
    starts: np.ndarray,
    phi: np.ndarray,
    by_gene: np.ndarray,
    by_group: np.ndarray,
    *,
    n_threads: int = 1,
) -> None:
    """Sums of d (1 + (S - 1) / kappa) and of d: over groups into by_gene (n_genes, 2), over genes into by_group (n_groups, 2).

    Each group at its own rate. `exposure` has one row for all genes, or one a gene; `phi` is the gene's working dispersion. Genes are taken
    in pieces of one size, so that the sums do not depend on the number of threads.
    """
    parts = np.zeros((-(-len(counts) // GENES_AT_ONCE), *by_group.shape))

    def run(genes: slice) -> None:
        shared = exposure if len(exposure) == 1 else exposure[genes]
        of_range = parts[genes.start // GENES_AT_ONCE]
        _sum_statistics(counts[genes], shared, members, starts, phi[genes], by_gene[genes], of_range)

    in_parallel(run, len(counts), n_threads, size=GENES_AT_ONCE)
    by_group[...] = parts.sum(axis=0)


def solve_moments(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The root numerator / denominator of a moment equation, within [0, 1000]."""
    root = np.divide(numerator, denominator, out=np.full(len(numerator), MAX_DISPERSION), where=denominator > 0)
    return np.where(numerator > 0, np.minimum(root, MAX_DISPERSION), 0.0)


def sorted_members(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the samples sorted by group (stable), and where each group starts, with the end appended."""
    members = np.argsort(group, kind="stable").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))]).astype(np.int64)
    return members, starts
