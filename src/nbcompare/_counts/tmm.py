"""Depths by trimmed means of log ratios to one of the samples, TMM and its variant for tables with many zeros."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

RATIOS, LEVELS = 0.3, 0.05  # share that is cut off at either end of the log ratios, and of the mean levels
EQUAL = 1e-6  # log2 ratios below are none


def tmm(counts: np.ndarray) -> np.ndarray:
    """Total counts times the trimmed mean of log ratios to a reference sample (Robinson & Oshlack 2010).

    The reference is the sample whose upper quartile, as a share of its total, is nearest to the mean of all.
    """
    totals = counts.sum(axis=1)
    expressed = counts[:, (counts > 0).any(axis=0)]
    quartiles = np.quantile(expressed, 0.75, axis=1) / totals
    if np.median(quartiles) < 1e-20:  # mostly zeros
        reference = _richest(expressed)
    else:
        reference = int(np.argmin(np.abs(quartiles - quartiles.mean())))
    factors = [
        _trimmed_mean(sample, expressed[reference], depth, totals[reference])
        for sample, depth in zip(expressed, totals, strict=True)
    ]
    return totals * np.array(factors)


def tmmwsp(counts: np.ndarray) -> np.ndarray:
    """The same with singleton pairing: counts of genes that one of the two samples lacks are used as well.

    They are sorted within each sample and paired, largest with largest; those left over are not used. Ties are cut
    in the order of the genes, as edgeR cuts them. The reference is the sample with the largest sum of square roots.
    """
    totals = counts.sum(axis=1)
    expressed = counts[:, (counts > 0).any(axis=0)]
    reference = _richest(expressed)
    factors = [
        _paired_mean(sample, expressed[reference], depth, totals[reference])
        for sample, depth in zip(expressed, totals, strict=True)
    ]
    return totals * np.array(factors)


def _richest(counts: np.ndarray) -> int:
    return int(np.argmax(np.sqrt(counts).sum(axis=1)))


def _trimmed_mean(counts: np.ndarray, reference: np.ndarray, depth: float, reference_depth: float) -> float:
    """Factor of one sample: log ratios without the outer 30 % on each side and the outer 5 % of the mean levels.

    M = log2(y/N / (y'/N')), A = (log2(y/N) + log2(y'/N')) / 2, weight = 1 / ((N-y)/(N y) + (N'-y')/(N' y')), by the delta method.
    """
    shared = (counts > 0) & (reference > 0)
    if not shared.any():
        msg = (
            "A sample has no gene in common with the reference sample, so there is no TMM factor. Use 'pooled_ratios'."
        )
        raise ValueError(msg)
    ratio, level, variance = _ratios(counts[shared], reference[shared], depth, reference_depth)
    if np.abs(ratio).max() < EQUAL:
        return 1.0
    kept = _inner(rankdata(ratio), RATIOS) & _inner(rankdata(level), LEVELS)
    if not kept.any():
        return 1.0
    return float(2 ** np.average(ratio[kept], weights=1 / variance[kept]))


def _paired_mean(counts: np.ndarray, reference: np.ndarray, depth: float, reference_depth: float) -> float:
    """Factor of one sample with its unshared counts paired; ties of ratios are ordered by ratios shrunk by half a count."""
    shared = (counts > 0) & (reference > 0)
    alone, alone_there = (np.sort(y[(y > 0) & ~shared])[::-1] for y in (counts, reference))
    n_pairs = min(len(alone), len(alone_there))
    y = np.concatenate([counts[shared], alone[:n_pairs]])
    y2 = np.concatenate([reference[shared], alone_there[:n_pairs]])
    if not y.size:
        msg = (
            "A sample has no gene in common with the reference sample, so there is no TMM factor. Use 'pooled_ratios'."
        )
        raise ValueError(msg)
    ratio, level, variance = _ratios(y, y2, depth, reference_depth)
    if np.abs(ratio).max() < EQUAL:
        return 1.0
    shrunken = _ratios(y + 0.5, y2 + 0.5, depth + 0.5, reference_depth + 0.5)[0]
    kept = _inner(_places(np.lexsort((shrunken, ratio))), RATIOS) & _inner(
        _places(np.argsort(level, kind="stable")), LEVELS
    )
    if not kept.any():
        return 1.0
    weight = (1 + 1e-6) / (variance + 1e-6)
    return float(2 ** np.average(ratio[kept], weights=weight[kept]))


def _ratios(
    counts: np.ndarray, reference: np.ndarray, depth: float, reference_depth: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log2 ratios of the shares of two totals, their mean levels, and the variances of the natural log ratios."""
    rate, reference_rate = counts / depth, reference / reference_depth
    variance = (1 - rate) / counts + (1 - reference_rate) / reference
    return np.log2(rate / reference_rate), (np.log2(rate) + np.log2(reference_rate)) / 2, variance


def _places(order: np.ndarray) -> np.ndarray:
    places = np.empty(len(order))
    places[order] = np.arange(1, len(order) + 1)
    return places


def _inner(rank: np.ndarray, share: float) -> np.ndarray:
    """Which ranks (from 1) are left when this share of them is cut off at either end."""
    lowest = np.floor(len(rank) * share) + 1
    return (rank >= lowest) & (rank <= len(rank) + 1 - lowest)
