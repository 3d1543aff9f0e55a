"""Counts without differences, or with some, whose true dispersions are known: what the calibration is measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from nbcompare._nb.data import Pseudobulk

PAIR = np.array([[0, 1]])
CHUNK = 20_000  # genes of one data set drawn at once


@dataclass(frozen=True)
class Simulated:
    """One simulated data set of two groups."""

    pseudobulk: Pseudobulk
    mean: np.ndarray  # (n_genes,) expected count of a reference sample at exposure 1
    dispersion: np.ndarray  # (n_genes,) true
    is_null: np.ndarray  # (n_genes,) bool


def homogeneous(
    rng: np.random.Generator, sizes: tuple[int, int], mean: float, dispersion: float, spread: float, n_genes: int
) -> Simulated:
    """All genes with one mean and one dispersion; a fifth differ by three standard errors of the known-dispersion estimate."""
    return _draw(rng, sizes, np.full(n_genes, mean), np.full(n_genes, dispersion), spread, 0.2)


def realistic(
    rng: np.random.Generator,
    sizes: tuple[int, int],
    dispersion: float,
    log_dispersion_var: float,
    n_genes: int,
    share_different: float,
    spread: float = 0.3,
) -> Simulated:
    """Means log-uniform in .3 .. 3000; dispersions (dispersion + 1 / mean) times a log-normal of this log-sd."""
    mean = np.exp(rng.uniform(np.log(0.3), np.log(3000), n_genes))
    genewise = (dispersion + 1 / mean) * np.exp(rng.normal(0, log_dispersion_var, n_genes))
    return _draw(rng, sizes, mean, genewise, spread, share_different)


def known_dispersion_p(simulated: Simulated) -> np.ndarray:
    """P-values of the r* test that is told each gene's true dispersion, (n_genes,): the formulas of the methods page, written out."""
    y, l, group = simulated.pseudobulk.counts, simulated.pseudobulk.exposure, simulated.pseudobulk.group
    pooled = y.sum(axis=1) / l.sum()
    weight = 1 / (1 + (simulated.dispersion * pooled)[:, None] * l)
    counts, depth, factor = np.empty((3, 2, len(y)))
    for g in (0, 1):
        of = group == g
        wl = weight[:, of] * l[of]
        rate = (weight[:, of] * y[:, of]).sum(axis=1) / wl.sum(axis=1)
        depth[g] = wl.sum(axis=1) ** 2 / (weight[:, of] * wl).sum(axis=1)
        factor[g] = np.maximum(simulated.dispersion * (wl**2).sum(axis=1) / wl.sum(axis=1) ** 2, 1e-9)
        counts[g] = rate * depth[g]
    empty = counts == 0
    moved = np.minimum(0.5, 0.5 * counts[::-1]) * empty  # half a count goes to an arm without any
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * norm.sf(np.abs(_modified_root(counts + moved - moved[::-1], depth, factor)))
    return np.where(empty.any(axis=0), p / 2, p)


def _modified_root(y: np.ndarray, depth: np.ndarray, d: np.ndarray) -> np.ndarray:
    """r* of two pseudo-counts, y, depth and d (2, n_genes)."""
    h = d * depth
    a = (depth * h[::-1]).sum(axis=0)
    b = (y * h[::-1]).sum(axis=0) - depth.sum(axis=0)
    root = np.sqrt(b**2 + 4 * a * y.sum(axis=0))
    rate = np.where(b > 0, (b + root) / (2 * a), 2 * y.sum(axis=0) / (root - b))
    m = depth * rate
    f, e = 1 + d * m, 1 + d * y
    log_y, log_e = np.log1p((y - m) / m), np.log1p(d * (y - m) / f)  # log1p keeps the digits
    r = np.sign(y[1] - m[1]) * np.sqrt(np.maximum(2 * (y * (log_y - log_e) - log_e / d).sum(axis=0), 0))
    gap = log_y - log_e
    q = (gap[1] / f[0] - gap[0] / f[1]) * np.sqrt((y * e).prod(axis=0) / (m * e / f**2).sum(axis=0))
    return np.where(np.abs(r) > 0.01, r + np.log(q / r) / r, r)


def _draw(
    rng: np.random.Generator,
    sizes: tuple[int, int],
    mean: np.ndarray,
    dispersion: np.ndarray,
    spread: float,
    share_different: float,
) -> Simulated:
    group = np.repeat([0, 1], sizes).astype(np.intp)
    exposure = np.exp(rng.normal(0, spread, len(group)))
    exposure /= exposure.mean()
    is_null = rng.random(len(mean)) >= share_different
    log_fc = np.where(
        is_null, 0.0, rng.choice([-3.0, 3.0], len(mean)) * _standard_error(exposure, group, mean, dispersion)
    )
    counts = np.empty((len(mean), len(group)))
    for start in range(0, len(mean), CHUNK):
        part = slice(start, start + CHUNK)
        expected = mean[part, None] * exposure * np.exp(log_fc[part, None] * group)
        phi = np.maximum(dispersion[part, None], 1e-12)
        high_dispersion = rng.standard_gamma(np.broadcast_to(1 / phi, expected.shape)) * phi
        counts[part] = rng.poisson(expected * np.where(dispersion[part, None] > 0, high_dispersion, 1.0))
    return Simulated(Pseudobulk(counts, exposure, group), mean, dispersion, is_null)


def _standard_error(exposure: np.ndarray, group: np.ndarray, mean: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Of the log fold change without a difference: a sample informs by m / (1 + phi m)."""
    expected = mean[:, None] * exposure
    information = expected / (1 + dispersion[:, None] * expected)
    return np.sqrt(1 / information[:, group == 0].sum(axis=1) + 1 / information[:, group == 1].sum(axis=1))
