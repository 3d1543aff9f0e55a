"""What the test within blocks is compared with: the likelihood's r* for donors in both arms, one sample each, donors eliminated one by one.

Its dispersion is from Pearson's statistic at the likelihood's fit, with the corrections of the package. Here to be compared with, not used by it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.hat_constants import design_constants
from nbcompare._nb.dispersion.trend import fit_log_dispersion_var, mean_bins
from nbcompare._nb.numerics.special import normal_from_t, normal_tail

DEAD = 1e-3  # expected counts below say nothing
TRUSTED = 0.02  # signed roots below are taken as they are


def likelihood_tests(pseudobulk: Pseudobulk, *, min_gene_counts: float = 10.0) -> tuple[NDArray, NDArray, float]:
    """P-values (n_genes,), dispersions and scatter of the comparison of group 1 with group 0."""
    first, second = pairs_of(pseudobulk)
    n = len(first)
    constants = design_constants(np.vstack([np.tile(np.eye(n), 2), np.repeat([0.0, 1.0], n)]))
    total = pseudobulk.counts.sum(axis=1)
    trend, log_dispersion_var = fit_paired_trend(pseudobulk, first, second, constants, total >= min_gene_counts)
    out = np.full((len(total), 3), np.nan)
    test_pairs(pseudobulk.counts, pseudobulk.exposure, first, second, trend, log_dispersion_var, *constants, out)
    out[total < min_gene_counts] = np.nan
    return out[:, 1], out[:, 2], log_dispersion_var


def known_dispersion_p(pseudobulk: Pseudobulk, dispersion: NDArray) -> NDArray:
    """P-values of the likelihood's r* that is told each gene's dispersion."""
    first, second = pairs_of(pseudobulk)
    out = np.full((len(dispersion), 3), np.nan)
    test_known(pseudobulk.counts, pseudobulk.exposure, first, second, dispersion, out)
    return out[:, 1]


def pairs_of(pseudobulk: Pseudobulk) -> tuple[NDArray, NDArray]:
    """Samples of the first and of the second group in each block that has both; one each, or the last of several."""
    at = np.full((2, pseudobulk.n_blocks), -1)
    at[pseudobulk.group, pseudobulk.block] = np.arange(len(pseudobulk.group))
    return tuple(at[:, (at >= 0).all(axis=0)].astype(np.int64))


def fit_paired_trend(pseudobulk, first, second, constants, usable):
    """Trend at every gene, (n_genes,), and the scatter: six fixed-point steps in bins from a dispersion of .1."""
    mean = pseudobulk.counts.mean(axis=1)
    genes = np.flatnonzero(usable)
    counts = np.ascontiguousarray(pseudobulk.counts[genes])
    log_mean = np.log(mean[genes])
    bins = mean_bins(np.argsort(log_mean, kind="stable"), mean[genes])
    knots = np.array([log_mean[b].mean() for b in bins])
    phi, found = np.full(len(bins), 0.1), np.empty((len(genes), 3))
    for _ in range(7):
        at_gene = np.exp(np.interp(log_mean, knots, np.log(phi)))
        statistics(counts, pseudobulk.exposure, first, second, at_gene, *constants, found)
        for k, b in enumerate(bins):
            numerator, weight, information = found[b].T
            step = (numerator.sum() / weight.sum() - 1) * weight.sum() / (weight * information).sum()
            phi[k] = np.clip(phi[k] + step, max(0.1 * phi[k], 1e-6), min(8 * phi[k] + 0.01, 20.0))
    at_gene = np.exp(np.interp(log_mean, knots, np.log(phi)))
    rho = np.minimum(at_gene * found[:, 2], 1.0)
    used = (rho > 0.03) & (found[:, 1] > 0.5) & (mean[genes] > 1)
    log_dispersion_var = fit_log_dispersion_var(np.ascontiguousarray(found[used, :2]), rho[used], 1.0)
    return np.exp(np.interp(np.log(np.maximum(mean, 1e-9)), knots, np.log(phi))), log_dispersion_var


@njit(cache=True, nogil=True, error_model="numpy")
def statistics(counts, exposure, first, second, phi, kN, kP, out):
    rates = np.empty(first.shape[0])
    for g in range(counts.shape[0]):
        y = counts[g]
        out[g] = 0.0
        if y.sum() > 0.0:
            psi = maximise(y, exposure, first, second, phi[g], first_guess(y, exposure, first, second, phi[g]), rates)
            out[g] = pearson(y, exposure, first, second, psi, rates, phi[g], kN, kP)


@njit(cache=True, nogil=True, error_model="numpy")
def test_known(counts, exposure, first, second, phi, out):
    rates = np.empty(first.shape[0])
    under_null = np.empty(first.shape[0])
    moved = np.empty(exposure.shape[0])
    for g in range(counts.shape[0]):
        if counts[g].sum() > 0.0:
            out[g] = root_of_likelihood(counts[g], exposure, first, second, phi[g], np.inf, rates, under_null, moved)


@njit(cache=True, nogil=True, error_model="numpy")
def test_pairs(counts, exposure, first, second, trend, log_dispersion_var, kN, kP, out):
    """Log fold change, p-value and moderated dispersion of every gene into `out`."""
    n = first.shape[0]
    rates = np.empty(n)
    under_null = np.empty(n)
    moved = np.empty(exposure.shape[0])
    for g in range(counts.shape[0]):
        y = counts[g]
        total = 0.0
        for d in range(n):
            total += y[first[d]] + y[second[d]]
        if total <= 0.0:
            continue
        mean = total / (2 * n)
        _, working = prior(trend[g], log_dispersion_var, mean / (1.0 + trend[g] * mean))
        psi = maximise(y, exposure, first, second, working, first_guess(y, exposure, first, second, working), rates)
        numerator, weight, information = pearson(y, exposure, first, second, psi, rates, working, kN, kP)
        if weight == 0.0:
            information = mean / (1.0 + working * mean)
        df, _ = prior(trend[g], log_dispersion_var, information / (1.0 + (trend[g] - working) * information))
        tau2 = max((df + numerator) / (df + weight), 0.02)
        df += weight
        phi = max(working + (tau2 - 1.0) / information, 0.0)
        out[g] = root_of_likelihood(y, exposure, first, second, phi, df, rates, under_null, moved)


@njit(cache=True, nogil=True, error_model="numpy")
def prior(trend, log_dispersion_var, information):
    """Degrees of freedom and working dispersion, as in the package, at a gene's mean information."""
    rho = min(trend * information, 1.0)
    x = log_dispersion_var * rho * rho
    df = 1.0 + 2.0 / max(x, 1e-6)
    shift = 0.5 * x + 1.0 / df + 1.0 / (3.0 * df * df)
    return df, max(trend - (1.0 - math.exp(-shift)) / max(information, 1e-12), 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def donor_rate(y1, y2, l1, l2, phi):
    """Positive root of 2 phi l1 l2 x^2 - (phi (y1 l2 + y2 l1) - l1 - l2) x - (y1 + y2) = 0."""
    a = 2.0 * phi * l1 * l2
    b = phi * (y1 * l2 + y2 * l1) - l1 - l2
    total = y1 + y2
    root = math.sqrt(b * b + 4.0 * a * total)
    return (b + root) / (2.0 * a) if b > 0.0 else 2.0 * total / (root - b)


@njit(cache=True, nogil=True, error_model="numpy")
def first_guess(y, l, first, second, phi):
    """Log of Mantel-Haenszel's rate ratio, with a quarter of a count on either side at least."""
    a = 0.0
    b = 0.0
    for d in range(first.shape[0]):
        y1 = y[first[d]]
        y2 = y[second[d]]
        l1 = l[first[d]]
        l2 = l[second[d]]
        depth = 1.0 / (l1 + l2)
        k = 1.0 / (1.0 + 2.0 * phi * (y1 + y2) * l1 * l2 * depth * depth)
        a += k * y2 * l1 * depth
        b += k * y1 * l2 * depth
    return math.log(max(a, 0.25) / max(b, 0.25))


@njit(cache=True, nogil=True, error_model="numpy")
def maximise(y, l, first, second, phi, psi, rates):
    """Newton's method on the likelihood of psi alone, donors' rates at their maximum for each psi."""
    for _ in range(30):
        ratio = math.exp(psi)
        score = 0.0
        information = 0.0
        for d in range(first.shape[0]):
            y1 = y[first[d]]
            y2 = y[second[d]]
            l2 = l[second[d]] * ratio
            rate = donor_rate(y1, y2, l[first[d]], l2, phi)
            rates[d] = rate
            if rate <= 0.0:
                continue
            m1 = rate * l[first[d]]
            m2 = rate * l2
            f1 = 1.0 / (1.0 + phi * m1)
            f2 = 1.0 / (1.0 + phi * m2)
            score += (y2 - m2) * f2
            j1 = m1 * (1.0 + phi * y1) * f1 * f1
            j2 = m2 * (1.0 + phi * y2) * f2 * f2
            information += j1 * j2 / (j1 + j2)
        step = min(max(score / information, -2.0), 2.0)
        psi += step
        if step * step * information < 1e-6 and abs(step) < 0.5:
            break
    ratio = math.exp(psi)
    for d in range(first.shape[0]):
        rates[d] = donor_rate(y[first[d]], y[second[d]], l[first[d]], l[second[d]] * ratio, phi)
    return psi


@njit(cache=True, nogil=True, error_model="numpy")
def pearson(y, l, first, second, psi, rates, phi, kN, kP):
    """Numerator, weight and mean information of the dispersion statistic with donor effects."""
    ratio = math.exp(psi)
    shared = 0.0
    for d in range(first.shape[0]):
        m1 = rates[d] * l[first[d]]
        m2 = rates[d] * l[second[d]] * ratio
        w1 = m1 / (1.0 + phi * m1)
        w2 = m2 / (1.0 + phi * m2)
        if rates[d] > 0.0:
            shared += w1 * w2 / (w1 + w2)
    x2 = 0.0
    residual = 0.0
    effective = 0.0
    variance = 0.0
    information = 0.0
    expected = 0.0
    n_seen = 0
    removed = 0.0
    of_ratio = 0.0
    for d in range(first.shape[0]):
        if rates[d] <= 0.0:
            continue
        m1 = rates[d] * l[first[d]]
        m2 = rates[d] * l[second[d]] * ratio
        w1 = m1 / (1.0 + phi * m1)
        w2 = m2 / (1.0 + phi * m2)
        both = w1 + w2
        of_donor = 0.0
        for side in range(2):
            m = m2 if side else m1
            if m < DEAD:
                continue
            w = w2 if side else w1
            other = (w1 if side else w2) / both
            h = min(w * (1.0 / both + other * other / shared), 1.0)
            p = 1.0 - h
            v = m * (1.0 + phi * m)
            e = (y[second[d]] if side else y[first[d]]) - m
            kept = max(1.0 - h / m, 0.0)
            shrunken = 0.5 * (h + kN)
            factor = 1.0 / ((1.0 + 2.0 * phi * shrunken) * (1.0 + 3.0 * phi * shrunken))
            x2 += e * e / v
            residual += p
            expected += m
            n_seen += 1
            effective += p * kept
            information += p * w
            variance += factor * (2.0 * p * (kept + phi * shrunken) + p * p * (1.0 / v + 6.0 * phi))
            third = p * (1.0 + 2.0 * phi * m) * math.sqrt(factor * w / v)
            of_donor += third
            if side:
                of_ratio += third
        removed += of_donor * of_donor / both
        of_ratio -= w2 / both * of_donor
    effective /= 1.0 + phi * kN
    if residual < 0.2 or effective <= 1e-3:
        return 0.0, 0.0, 0.0
    variance = max(variance - removed - of_ratio * of_ratio / shared, 0.3 * effective)
    x2 *= (1.0 + phi * kN) / (1.0 + kP * n_seen / expected)
    weight = 2.0 * effective * effective / variance
    return weight * (1.0 + (x2 - residual) / effective), weight, information / residual


@njit(cache=True, nogil=True, error_model="numpy")
def root_of_likelihood(y, l, first, second, phi, df, rates, under_null, moved):
    """The same by Skovgaard's r* of the likelihood, donors eliminated one by one."""
    n = first.shape[0]
    total1 = 0.0
    total2 = 0.0
    for d in range(n):
        total1 += y[first[d]]
        total2 += y[second[d]]
        under_null[d] = donor_rate(y[first[d]], y[second[d]], l[first[d]], l[second[d]], phi)
    halve = 1.0
    if total1 == 0.0 or total2 == 0.0:
        move_half_a_count(y, l, first, second, phi, under_null, total1 == 0.0, moved)
        y = moved
        halve = 0.5
    psi = maximise(y, l, first, second, phi, first_guess(y, l, first, second, phi), rates)
    ratio = math.exp(psi)
    deviance = 0.0
    C_s = 0.0
    C_i = 0.0
    C_j = 0.0
    score = 0.0
    log_product = 0.0
    for d in range(n):
        if rates[d] <= 0.0:
            continue
        q = 0.0
        q2 = 0.0
        a1 = 0.0
        i1 = 0.0
        j1 = 0.0
        null = 0.0
        for side in range(2):
            i = second[d] if side else first[d]
            m0 = under_null[d] * l[i]
            m = rates[d] * l[i] * (ratio if side else 1.0)
            f0 = 1.0 / (1.0 + phi * m0)
            f = 1.0 / (1.0 + phi * m)
            log_ratio = math.log(m / m0)
            if phi < 1e-12:
                deviance += y[i] * log_ratio - (m - m0)
                t = m * log_ratio
            else:
                c = math.log1p(phi * (m - m0) * f0)
                deviance += y[i] * (log_ratio - c) - c / phi
                t = m * (log_ratio - c)
            q += t
            null += m0 * (1.0 + phi * y[i]) * f0 * f0
            if side:
                q2 = t
                a2 = m * f0
                i2 = m * f
                j2 = m * f * f * (1.0 + phi * y[i])
            else:
                a1 = m * f0
                i1 = m * f
                j1 = m * f * f * (1.0 + phi * y[i])
        score += q2 - a2 / (a1 + a2) * q
        C_s += a1 * a2 / (a1 + a2)
        C_i += i1 * i2 / (i1 + i2)
        C_j += j1 * j2 / (j1 + j2)
        log_product += math.log((a1 + a2) / (i1 + i2)) + 0.5 * math.log((j1 + j2) / null)
    r = math.copysign(math.sqrt(max(2.0 * deviance, 0.0)), psi)
    root = r
    u = score * math.exp(log_product) * math.sqrt(C_j) / C_i
    if abs(r) > TRUSTED and u * r > 0.0:
        correction = math.log(u / r) / r
        if abs(correction) < 1.0:
            root += correction
    z = normal_from_t(abs(root), df)
    return psi, min(2.0 * halve * normal_tail(z), 1.0), phi


@njit(cache=True, nogil=True, error_model="numpy")
def move_half_a_count(y, l, first, second, phi, rates, into_first, moved):
    """An arm without counts is given half a count of the other's, spread so that the fit under the null stays."""
    shift = 0.0
    for d in range(first.shape[0]):
        m1 = rates[d] * l[first[d]]
        m2 = rates[d] * l[second[d]]
        w1 = m1 / (1.0 + phi * m1)
        w2 = m2 / (1.0 + phi * m2)
        if rates[d] > 0.0:
            shift += m2 * w1 / (w1 + w2)
    t = -0.5 / shift if into_first else 0.5 / shift
    moved[:] = 0.0
    for d in range(first.shape[0]):
        if rates[d] <= 0.0:
            continue
        m1 = rates[d] * l[first[d]]
        m2 = rates[d] * l[second[d]]
        w1 = m1 / (1.0 + phi * m1)
        w2 = m2 / (1.0 + phi * m2)
        x1 = -t * m1 * w2 / (w1 + w2)
        x2 = t * m2 * w1 / (w1 + w2)
        half = 0.5 * (y[first[d]] + y[second[d]])
        if min(x1, x2) < -half:
            x1, x2 = -x1 / min(x1, x2) * half, -x2 / min(x1, x2) * half
        moved[first[d]] = max(y[first[d]] + x1, 0.0)
        moved[second[d]] = max(y[second[d]] + x2, 0.0)
