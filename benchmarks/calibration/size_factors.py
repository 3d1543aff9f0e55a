"""Size factors of samples whose sequencing depth differs between groups: error of the factors, and what it does to the tests.

Run with `python benchmarks/calibration/size_factors.py [folder of kang2018_pbmc_8donors.h5ad and papalexi2021_eccite_a.h5ad]`. A line is a
kind of data and a method. Bias: log2 factors of the second group minus the first's, minus the truth; sd: of this between data sets, and
within groups. Levels: proportion of p-values of genes without change at or below 0.05 and 0.001, over 0.05 and 0.001, in `nb_compare`
or `nb_screen`. Peers: `pools of genes`, the median of ratios over sums of genes; `trimmed pools`, totals times the proportion of counts
of a pooled group in genes whose ratio is between the 30 % and the 70 % quantile.
"""

import heapq
import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd

import nbcompare as nb
from nbcompare._counts.size_factors import measure_depths

METHODS = ("median_of_ratios", "poscounts", "total", "tmm", "pools of genes", "trimmed pools", "pooled_ratios", "auto")
TESTED = ("poscounts", "total", "pools of genes", "trimmed pools", "pooled_ratios", "auto")


def pools_of_genes(counts, groups, least=10.0, most=200):
    """Median of ratios over pools of genes of about equal size, so many that the shallowest sample has `least` counts in each."""
    total = counts.sum(axis=0)
    counts, total = counts[:, total > 0], total[total > 0]
    n_pools = int(np.clip(counts.sum(axis=1).min() / least, 1, most))
    pools, pool = [(0.0, k) for k in range(n_pools)], np.empty(len(total), int)
    for gene in np.argsort(-total, kind="stable"):
        size, k = heapq.heappop(pools)
        pool[gene] = k
        heapq.heappush(pools, (size + total[gene], k))
    sums = np.stack([np.bincount(pool, weights=row, minlength=n_pools) for row in counts])
    logs = np.log(sums[:, sums.min(axis=0) > 0])
    return np.exp(np.median(logs - logs.mean(axis=0), axis=1))


def trimmed_pools(counts, groups, least=10.0):
    """Totals times the proportion of a pooled group's counts in genes whose ratio to the overall proportion is typical."""
    share, factors = counts.sum(axis=0) / counts.sum(), np.empty(len(counts))
    for group in np.unique(groups):
        rows = groups == group
        pool = counts[rows].sum(axis=0)
        expected = share * pool.sum()
        used = expected >= min(least, np.sort(expected)[-min(50, len(expected))])
        ratio = np.log((pool[used] + 0.5) / (expected[used] + 0.5))
        low, high = np.quantile(ratio, [0.3, 0.7])
        kept = np.flatnonzero(used)[(ratio >= low) & (ratio <= high)]
        factors[rows] = counts[rows].sum(axis=1) * (pool[kept].sum() / share[kept].sum()) / pool.sum()
    return factors


def factors_by(method, counts, groups):
    own = {"pools of genes": pools_of_genes, "trimmed pools": trimmed_pools}.get(method)
    return measure_depths(counts, method, groups).factors if own is None else own(counts, groups)


def log_uniform(seed, low, high, n_genes, fold, changed, n):
    """n v n samples, mean counts log-uniform, `fold` the second group's depth, a proportion of genes up by |N(0, 1.5)| log2."""
    rng = np.random.default_rng([141, seed])
    group, mean = np.repeat([0, 1], n), np.exp(rng.uniform(np.log(low), np.log(high), n_genes))
    phi = 0.1 * 9 / rng.chisquare(9, n_genes)
    depth = np.exp(rng.normal(0, 0.3, 2 * n)) * np.where(group == 1, fold, 1)
    effect = np.where(rng.random(n_genes) < changed, np.abs(rng.normal(0, 1.5, n_genes)), 0)
    m = depth[:, None] * mean * np.exp2(effect * (group == 1)[:, None])
    return rng.poisson(m * rng.gamma(1 / phi, phi, m.shape)).astype(float), depth, group, effect == 0


def log_normal(seed, rate, fold, n, n_genes, cells, strong=0):
    """n v n samples of `cells` and `fold` times as many cells, counts a cell log-normal; the `strong` largest genes times 8."""
    rng = np.random.default_rng(seed)
    mean = rate * np.exp(rng.normal(0, 1.7, n_genes))
    depth = cells * np.exp(rng.normal(0, 0.2, 2 * n)) * np.repeat([1, fold], n)
    m, largest = depth[:, None] * mean, np.argsort(-mean)[:strong]
    m[n:, largest] *= 8
    counts = rng.negative_binomial(10, 1 / (1 + 0.1 * m)).astype(float)
    return counts, depth, np.repeat([0, 1], n), ~np.isin(np.arange(n_genes), largest)


def screen_uniform(seed, low, high, spread, fold, n_control):
    """80 perturbations x 3 and a control `fold` times as deep, mean counts log-uniform; no change."""
    rng = np.random.default_rng([121, seed])
    group = np.array([0] * n_control + [k + 1 for k in range(80) for _ in range(3)])
    size = np.exp(rng.normal(0, spread, 80))
    depth = np.r_[fold * np.exp(rng.normal(0, 0.2, n_control)), np.repeat(size, 3) * np.exp(rng.normal(0, 0.2, 240))]
    mean, phi = np.exp(rng.uniform(np.log(low), np.log(high), 3000)), 0.1 * 9 / rng.chisquare(9, 3000)
    counts = rng.poisson(depth[:, None] * mean * rng.gamma(1 / phi, phi, (len(depth), 3000))).astype(float)
    return counts, depth, group, np.ones(3000, bool)


def screen_of_cells(seed, rate):
    """60 perturbations x 3 samples of 15 cells against 3 of 300."""
    rng = np.random.default_rng([1, seed])
    group = np.repeat(np.arange(61), 3)
    depth = np.where(group == 0, 300, 15) * np.exp(rng.normal(0, 0.2, 183))
    m = depth[:, None] * rate * np.exp(rng.normal(0, 1.5, 1500))
    return rng.negative_binomial(20, 1 / (1 + 0.05 * m)).astype(float), depth, group, np.ones(1500, bool)


def dealt(cells, seed, n, few, many, kept):
    """Cells of one kind, dealt at random into n samples of few and n of many cells, `kept` of their counts."""
    rng = np.random.default_rng(seed)
    parts = np.split(rng.permutation(len(cells))[: n * (few + many)], np.cumsum([few] * n + [many] * n)[:-1])
    counts = np.array([rng.binomial(cells[rows].sum(axis=0).astype(int), kept) for rows in parts]).astype(float)
    return counts, np.array([float(len(rows)) for rows in parts]), np.repeat([0, 1], n), np.ones(cells.shape[1], bool)


def kinds():
    for name, *values in (
        ("means .02-3, 4x, 4v4", 0.02, 3, 4000, 4, 0, 4),
        ("means .02-3, 4x, 10v10", 0.02, 3, 4000, 4, 0, 10),
        ("means .02-3, 10x, 4v4", 0.02, 3, 4000, 10, 0, 4),
        ("means .02-3, equal, 4v4", 0.02, 3, 4000, 1, 0, 4),
        ("means .02-20, 4x, 4v4", 0.02, 20, 4000, 4, 0, 4),
        ("means .1-1000, 4x, 10v10", 0.1, 1000, 4000, 4, 0, 10),
        ("300 genes, .1-50, 4x, 4v4", 0.1, 50, 300, 4, 0, 4),
        ("20 % up, means 3-2000", 3, 2000, 5000, 1, 0.2, 4),
        ("20 % up, means .02-5", 0.02, 5, 4000, 1, 0.2, 4),
        ("20 % up, means .02-5, 3x", 0.02, 5, 4000, 3, 0.2, 4),
        ("40 % up, means 3-2000", 3, 2000, 5000, 1, 0.4, 4),
        ("20 % up, 299 genes .1-50", 0.1, 50, 299, 1, 0.2, 4),
    ):
        yield name, lambda seed, values=values: log_uniform(seed, *values), False
    for name, *values in (
        ("10v10, 40 / 80 cells", 0.0006, 2, 10, 3000, 40),
        ("6v6, 40 / 80 cells", 0.0004, 2, 6, 3000, 40),
        ("20v20, 300 genes, 40 / 120", 0.003, 3, 20, 300, 40),
        ("4v4, 60 / 600 cells", 0.01, 10, 4, 3000, 60),
    ):
        for strong in (0, 3):
            title = f"{name}{', 3 genes x 8' if strong else ''}"
            yield title, lambda seed, values=values, strong=strong: log_normal(seed, *values, strong), False
    for name, *values in (
        ("screen .05-30, control 10x", 0.05, 30, 0.7, 10, 4),
        ("screen .02-5, control 3x", 0.02, 5, 0.0, 3, 3),
        ("screen .02-5, unequal", 0.02, 5, 1.0, 1, 3),
        ("screen .02-5, control 10x", 0.02, 5, 0.0, 10, 3),
    ):
        yield name, lambda seed, values=values: screen_uniform(seed, *values), True
    for rate in (0.02, 0.01, 0.005):
        yield f"screen, 15 cells, {rate}", lambda seed, rate=rate: screen_of_cells(seed, rate), True
    for folder in sys.argv[1:]:
        for file, of, numbers in (
            ("papalexi2021_eccite_a", lambda o: o.perturbation == "control", (8, 12, 48)),
            (
                "kang2018_pbmc_8donors",
                lambda o: (o.condition == "ctrl") & (o.cell_type == "CD14+ Monocytes"),
                (5, 10, 40),
            ),
        ):
            data = ad.read_h5ad(f"{folder}/{file}.h5ad")
            cells = np.asarray(data[of(data.obs).to_numpy()].X.todense(), float)
            for kept in (1.0, 0.1):
                name = f"{file[:8]}, {numbers[1]} / {numbers[2]} cells, {kept:.0%}"
                yield name, lambda seed, cells=cells, n=numbers, kept=kept: dealt(cells, seed, *n, kept), False


def tested(counts, group, null, given, screen):
    """P-values of the genes without change, false discoveries at 5 %, comparisons, and tests that are missing because of size factors."""
    obs = pd.DataFrame({"group": [f"g{k:02d}" for k in group]}, index=[f"s{i}" for i in range(len(group))])
    data = ad.AnnData(counts, obs=obs)
    if screen:
        result = nb.tl.nb_screen(data, "group", reference="g00", size_factors=given, progress=False, n_jobs=1)
        p, adjusted, status = (result.layers[name] for name in ("pvals", "pvals_adj", "status"))
    else:
        nb.tl.nb_compare(data, "group", reference="g00", size_factors=given)
        p, adjusted, status = (data.varm[f"nb_compare_{name}"].T for name in ("pvals", "pvals_adj", "status"))
    return p[:, null].ravel(), (adjusted[:, null] < 0.05).sum(), len(p), (status & 16 > 0).mean()


def error(factors, depth, group):
    log = np.log2(factors / depth)
    mean = np.array([log[group == k].mean() for k in np.unique(group)])
    return mean[1:].mean() - mean[0], np.sqrt(np.mean([log[group == k].var() for k in np.unique(group)]))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, make, screen in kinds():
        for method in METHODS:
            if screen and method in ("median_of_ratios", "tmm"):
                continue
            errors, p, false, compared, lost = [], [], 0, 0, 0.0
            n_sets = 2 if screen else 5
            for seed in range(n_sets):
                counts, depth, group, null = make(seed)
                try:
                    factors = factors_by(method, counts, group)
                except ValueError:
                    continue
                errors.append(error(factors, depth, group))
                if method in TESTED:
                    given = method if method in ("poscounts", "total", "pooled_ratios", "auto") else factors
                    values, hits, n, missing = tested(counts, group, null, given, screen)
                    p.append(values)
                    false, compared, lost = false + hits, compared + n, lost + missing / n_sets
            if not errors:
                print(f"{name:32s} {method:17s} not defined", flush=True)
                continue
            bias, within = np.array(errors).T
            line = f"{name:32s} {method:17s} bias {bias.mean():+.2f} (sd {bias.std():.2f}, within {within.mean():.2f})"
            if p:
                known = np.concatenate(p)
                known = known[np.isfinite(known)]
                level = [(known <= at).mean() / at if known.size else np.nan for at in (0.05, 0.001)]
                line += f"  level {level[0]:.2f} {level[1]:.1f}  false {false / compared:.1f}  untested {lost:.2f}"
            print(line, flush=True)
