"""Size factors of sparse samples: the counts of each group, pooled, over those expected at common rates, without outlying genes.

Sums over samples make counts large enough for ratios, and rare genes are summed until 20 counts are expected. With O and E the
observed and expected counts of such a unit, the depth of a group is sum(b w O) / sum(b w E): w is the information of a gene with
dispersion .1, b Tukey's biweight of its log ratio. Within a group, samples share out its depth by their counts, weighted alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST = 20.0  # counts expected in a unit: ratios of fewer are skewed
DISPERSION = 0.1  # from replicate to replicate, for weights alone
CUT = 2.5  # standard deviations at which a gene gets no weight
LEAST_SCALE = 0.5  # of the spread of the ratios, relative to that of replicates with that dispersion
ROUNDS, STEPS = 3, 50
SETTLED = 0.3  # log ratio of a depth to that for which the units were made
NORMAL = 0.6745  # half of a normal distribution lies within so many standard deviations
UNKNOWN = np.log(2) / 2  # standard error of a log depth whose 95 % interval is twofold either way


@dataclass(frozen=True)
class GroupDepths:
    """Depths of the samples of one group."""

    factors: np.ndarray  # (n_samples,) counts expected at the rates; 0 or NaN without counts
    log_depth_se: float  # standard error of the log depth of the whole group
    without: np.ndarray  # (n_samples,) bool, no count in a gene with weight: by total counts

    @property
    def unknown(self) -> np.ndarray:
        """Samples whose depth the counts do not determine, (n_samples,) bool."""
        return self.without | ~(self.log_depth_se < UNKNOWN)


def common_rates(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rates (n_genes,) that the groups (n_samples,) of counts (n_samples, n_genes) have in common, sum 1.

    Groups are averaged by their information on each gene, so that which genes are rare does not follow from the chance of one group.
    """
    members = rows_of_groups(groups)
    sizes = np.array([len(rows) for rows in members])
    pools = np.stack([counts[rows].sum(axis=0, dtype=np.float64) for rows in members])
    depths = pools.sum(axis=1)
    rates = pools.sum(axis=0) / depths.sum()
    for _ in range(ROUNDS):
        information = depths[:, None] / (1 + DISPERSION * rates * depths[:, None] / sizes[:, None])
        rates = (information * pools / depths[:, None]).sum(axis=0) / information.sum(axis=0)
        units = Units(rates)
        depths = np.array([units.depth(*pair)[0] for pair in zip(pools, sizes, strict=True)])
    return rates / rates.sum()


def rows_of_groups(groups: np.ndarray) -> list[np.ndarray]:
    """Rows of each group (n_rows,), in the order of their labels."""
    codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])


def group_depths(units: Units, samples: np.ndarray) -> GroupDepths:
    """Depths of the samples (n_samples, n_genes) of one group at given rates."""
    depth, se, weight = units.depth(samples.sum(axis=0, dtype=np.float64), len(samples))
    weighted, totals = samples @ weight, samples.sum(axis=1, dtype=np.float64)
    without = ~(weighted > 0)
    with np.errstate(invalid="ignore"):
        share = totals / totals.sum()
    if not without.all():
        share = np.where(without, share, weighted / weighted.sum())
    return GroupDepths(depth * share, se, without)


class Units:
    """Genes, and sums of rare genes, of which enough counts are expected; in the order of the rates, so that neighbours are alike."""

    def __init__(self, rates: np.ndarray) -> None:
        self.n_genes = len(rates)
        with np.errstate(divide="ignore"):
            known = np.flatnonzero(rates > 0)
            # Rounded, so that equal rates stay equal whatever group was added first.
            order = np.argsort(-np.round(np.log(rates[known]), 9), kind="stable")
        self.genes = known[order]
        self.rates = rates[self.genes] / rates[self.genes].sum()

    def starts(self, depth: float) -> np.ndarray:
        """First gene of each unit, of groups with this depth."""
        expected = self.rates * depth
        n_large = int(np.searchsorted(-expected, -LEAST, side="right"))
        running = np.cumsum(expected[n_large:])
        if not running.size or running[-1] < LEAST:  # the rest joins the last, or is the only unit
            return np.arange(max(n_large, 1))
        n_bundles = int(running[-1] / LEAST)
        place = np.minimum((running - expected[n_large:] / 2) / running[-1] * n_bundles, n_bundles - 1).astype(np.int64)
        return np.concatenate([np.arange(n_large), n_large + np.flatnonzero(np.diff(place, prepend=-1))])

    def depth(self, pool: np.ndarray, n_samples: int) -> tuple[float, float, np.ndarray]:
        """Depth of the pooled counts (n_genes,) of a group, its standard error as a logarithm, and the weights of the genes (n_genes,).

        The units are made for the total first, and again for the depth found, which is far below if one gene has most of the counts.
        """
        observed = pool[self.genes]
        depth, weight = float(observed.sum()), np.zeros(self.n_genes)
        if not depth > 0:
            return np.nan, np.inf, weight
        for _ in range(ROUNDS):
            centre, se, of_genes = self._log_ratio(observed, depth, n_samples)
            depth *= float(np.exp(centre))
            if abs(centre) < SETTLED:
                break
        weight[self.genes] = of_genes
        return depth, se, weight

    def _log_ratio(self, observed: np.ndarray, depth: float, n_samples: int) -> tuple[float, float, np.ndarray]:
        """Log ratio of the depth of counts (n_genes in order,) to a given one, its standard error, and the weights of the genes."""
        expected = self.rates * depth
        information = 1 / (1 + DISPERSION * expected / n_samples)
        starts = self.starts(depth)
        e, o = np.add.reduceat(expected, starts), np.add.reduceat(observed, starts)
        e_weighted, o_weighted = (np.add.reduceat(information * values, starts) for values in (expected, observed))
        ratio, sd = np.log((o + 0.5) / (e + 0.5)), np.sqrt(1 / (e + 0.5) + DISPERSION / n_samples)
        centre = _shortest_half(ratio)[0]
        spread = _shortest_half((ratio - centre) / sd)[1] / NORMAL
        reach = CUT * sd * max(spread, LEAST_SCALE)
        for _ in range(STEPS):
            kept = np.maximum(1 - ((ratio - centre) / reach) ** 2, 0) ** 2
            counted = (kept * o_weighted).sum()
            if not counted > 0:  # no count where the ratios agree
                return centre, np.inf, np.zeros(len(expected))
            new = float(np.log(counted / (kept * e_weighted).sum()))
            moved, centre = abs(new - centre), new
            if moved < 1e-9:
                break
        parts = kept * e_weighted
        se = max(spread, 1.0) * float(np.sqrt(((parts * sd) ** 2).sum()) / parts.sum())
        return centre, se, np.repeat(kept, np.diff(np.append(starts, len(expected)))) * information


def _shortest_half(values: np.ndarray) -> tuple[float, float]:
    """Middle and half the length of the shortest interval that holds more than half of the values, the middle one of equal intervals."""
    ordered = np.sort(values)
    n = min(len(ordered) // 2 + 1, len(ordered))
    length = ordered[n - 1 :] - ordered[: len(ordered) - n + 1]
    shortest = np.flatnonzero(length <= length.min() * (1 + 1e-9) + 1e-12)
    k = shortest[len(shortest) // 2]
    return float(ordered[k] + ordered[k + n - 1]) / 2, float(length[k]) / 2
