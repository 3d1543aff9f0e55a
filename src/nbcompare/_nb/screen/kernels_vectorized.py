"""The plain tests of a screen, several genes at once: no branches, one flat scratch array with constant offsets.

The formulas are those of `dispersion.group_sums`, `contrast.compare_two_groups`, `rstar.modified_root` and `special.normal_from_t`, which stay the readable
definition: whatever needs their branches is marked, and tested there.
"""

from __future__ import annotations

import math

from numba import njit

from nbcompare._nb.numerics.simd import log, log1p, normal_tail

GENES_AT_ONCE = 512  # genes of a run: the scratch stays in the fastest memory

# Places in the scratch. Of the target, summed over its samples:
TOTAL, WL, WWL, WLWL, WY = (k * GENES_AT_ONCE for k in range(5))
# Of the gene in the reference group, and of the data set:
SLOPE, Y1, E1, DELTA1, TOTAL1, PHI, DF, SHARE = (k * GENES_AT_ONCE for k in range(5, 13))
# Results; MARK is 1 where the test is not plain:
LOG_FC, SE, STATISTIC, P_VALUE, MARK = (k * GENES_AT_ONCE for k in range(13, 18))
SCRATCH = 18 * GENES_AT_ONCE


@njit(cache=True, nogil=True, error_model="numpy")
def load_genes(reference, first, n, s):
    """The reference's constants of n genes from `first` on."""
    for j in range(n):
        g = first + j
        s[SLOPE + j] = reference.slope[0, g]
        s[Y1 + j] = reference.rate[0, g] * reference.pseudo_exposure[0, g]
        s[E1 + j] = reference.pseudo_exposure[0, g]
        s[DELTA1 + j] = reference.dispersion[0, g] * reference.dispersion_factor[0, g]
        s[TOTAL1 + j] = reference.total[0, g]
        s[PHI + j] = reference.dispersion[0, g]
        s[DF + j] = reference.df[0, g]
        s[SHARE + j] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def sum_target(samples, start, stop, effects, first, n, s):
    """Total, sum w l, sum w^2 l, sum (w l)^2 and sum w y of a target's samples, w = 1 / (1 + slope l)."""
    for j in range(n):
        s[TOTAL + j] = 0.0
        s[WL + j] = 0.0
        s[WWL + j] = 0.0
        s[WLWL + j] = 0.0
        s[WY + j] = 0.0
    for i in range(start, stop):
        row = samples.counts[i, first : first + n]
        effect = effects[samples.block[i], first : first + n]
        depth = samples.exposure[i]
        for j in range(n):
            y = float(row[j])
            l = depth * effect[j]
            w = 1.0 / (1.0 + s[SLOPE + j] * l)
            a = w * l
            s[TOTAL + j] += y
            s[WL + j] += a
            s[WWL + j] += w * a
            s[WLWL + j] += a * a
            s[WY + j] += w * y


@njit(cache=True, nogil=True, error_model="numpy")
def compare_vectorized(n, s):
    """Log fold change, standard error, signed statistic and p-value of n genes, and which are not plain."""
    for j in range(n):
        share = s[SHARE + j]
        wl = s[WL + j]
        e1 = s[E1 + j] * share
        e2 = wl * wl / s[WWL + j] * share
        delta1 = s[DELTA1 + j] / share
        delta2 = s[PHI + j] * s[WLWL + j] / (wl * wl) / share
        y1 = s[Y1 + j] * share
        y2 = s[WY + j] / wl * e2
        total = y1 + y2
        a = e1 * e2 * (delta1 + delta2)
        b = y1 * delta2 * e2 + y2 * delta1 * e1 - e1 - e2
        root = math.sqrt(b * b + 4.0 * a * total)
        rate = (b + root) / (2.0 * a) if b > 0.0 else 2.0 * total / (root - b)
        m1 = e1 * rate
        m2 = e2 * rate
        f1 = 1.0 + delta1 * m1
        f2 = 1.0 + delta2 * m2
        g1 = 1.0 + delta1 * y1
        g2 = 1.0 + delta2 * y2
        log1 = log1p((y1 - m1) / (m1 * g1))
        log2 = log1p((y2 - m2) / (m2 * g2))
        d1 = delta1 if delta1 > 1e-13 else 1e-13
        d2 = delta2 if delta2 > 1e-13 else 1e-13
        half1 = y1 * log1 - log1p(d1 * (y1 - m1) / f1) / d1
        half2 = y2 * log2 - log1p(d2 * (y2 - m2) / f2) / d2
        deviance = 2.0 * (half1 + half2)
        small = deviance if deviance > 0.0 else 0.0
        r = math.sqrt(small)
        r = -r if y2 < m2 else r
        information = m1 * g1 / (f1 * f1) + m2 * g2 / (f2 * f2)
        q = (log2 / f1 - log1 / f2) * math.sqrt(y1 * g1 * y2 * g2 / information)
        ratio = q / r
        t = r + log(ratio) / r
        df = s[DF + j]
        u = t * t / df
        y = (df - 0.5) * log1p(u)
        bb = 48.0 * (df - 0.5) * (df - 0.5)
        poly = (((-0.4 * y - 3.3) * y - 24.0) * y - 85.5) / (0.8 * y * y + 100.0 + bb)
        z = ((poly + y + 3.0) / bb + 1.0) * math.sqrt(y)
        s[LOG_FC + j] = log(y2 / e2 / (y1 / e1))
        s[SE + j] = math.sqrt(1.0 / y1 + delta1 + 1.0 / y2 + delta2)
        s[STATISTIC + j] = z if t > 0.0 else -z
        s[P_VALUE + j] = 2.0 * normal_tail(z)
        plain = (
            (s[TOTAL + j] > 0.0)
            & (s[TOTAL1 + j] > 0.0)
            & (deviance > 1.1e-6)
            & (ratio > 1e-300)
            & (u <= 4.0)
            & (u <= df * df)
            & (z < 37.0)
        )
        s[MARK + j] = 0.0 if plain else 1.0
