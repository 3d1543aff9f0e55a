"""The moderated r* test once more, slowly, from the formulas of the method page: arrays over genes, nothing of the package's own kernels."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special

from nbcompare._nb.numerics.special import normal_from_t, normal_tail


@pytest.fixture(scope="session")
def slow():
    return SimpleNamespace(
        trend=slow_trend, test=slow_test, moments=slow_moments, p_values=slow_p_values, signed_root=signed_root
    )


def relative_variance(n, T, phi):
    """Of a Dirichlet-multinomial sum of squares with n equal cells, and kappa, the elasticity of its mean."""
    a = 1 / np.maximum(phi, 1e-9)
    kappa = (1 - 1 / T) / (1 + phi / n)
    f = [T]
    ra, rA = [a], [n * a]
    for k in (1, 2, 3):
        f.append(f[-1] * (T - k))
        ra.append(ra[-1] * (a + k))
        rA.append(rA[-1] * (n * a + k))
    A = n * a
    e = n * f[1] * ra[1] / rA[1]
    variance = (
        n * (f[3] * ra[3] / rA[3] + 4 * f[2] * ra[2] / rA[2] + 2 * f[1] * ra[1] / rA[1])
        + n * (n - 1) * f[3] * ra[1] ** 2 / rA[3]
        - e**2
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        v = variance / ((n - 1) / n * T * (T + A) / (A + 1)) ** 2
    return np.where(a > 1e6, 2 / (n - 1) * (1 - 1 / T), np.maximum(v, 0)), kappa


def group_numbers(y, l, phi, rate):
    """T, lam, E, D, numerator and weight d of one group (genes x samples), samples weighted at `rate`."""
    n = y.shape[1]
    l = np.broadcast_to(l, y.shape)
    T = y.sum(axis=1)
    w = 1 / (1 + (phi * rate)[:, None] * l)
    wl = (w * l).sum(axis=1)
    lam = (w * y).sum(axis=1) / wl
    E = wl**2 / (w**2 * l).sum(axis=1)
    D = (w**2 * l**2).sum(axis=1) / wl**2
    if n < 2:
        return T, lam, E, D, np.zeros(len(y)), np.zeros(len(y))
    m = lam[:, None] * l
    with np.errstate(invalid="ignore", divide="ignore"):
        S = (1 + phi * D) / (n - 1) * ((y - m) ** 2 / (m * (1 + phi[:, None] * m))).sum(axis=1)
        v, kappa = relative_variance(n, T, phi)
        d = 2 * kappa**2 / np.maximum(v, 1e-3)
        numerator = d * (1 + (S - 1) / kappa)
    informed = T >= 2
    return T, lam, E, D, np.where(informed, numerator, 0), np.where(informed, d, 0)


def own_rate(y, l):
    return y.sum(axis=1) / np.broadcast_to(l, y.shape).sum(axis=1)


def summed(y, l, group, phi):
    """Numerators and weights over all groups, each weighted at its own rate."""
    numerator, weight = np.zeros(len(y)), np.zeros(len(y))
    l = np.broadcast_to(l, y.shape)
    for k in np.unique(group):
        yk, lk = y[:, group == k], l[:, group == k]
        _, _, _, _, a, b = group_numbers(yk, lk, phi, own_rate(yk, lk))
        numerator, weight = numerator + a, weight + b
    return numerator, weight


def slow_moments(y, l, group):
    """X, D of E[X - phi D] = 0, summed over groups."""
    x, d = np.zeros(len(y)), np.zeros(len(y))
    for k in np.unique(group):
        yk, lk = y[:, group == k], l[group == k]
        if lk.size < 2:
            continue
        T, L, f, h = yk.sum(axis=1), lk.sum(), lk / lk.sum(), (lk**2).sum() / lk.sum() ** 2
        xk = ((yk - np.outer(T / L, lk)) ** 2 / lk).sum(axis=1) - T / L * (1 - f).sum()
        x, d = x + xk, d + (T**2 - T) / L**2 * (lk * (1 - 2 * f + h)).sum() - h * xk
    return x, d


def slow_trend(y, l, group, e=None, df_ratio=1.0):
    """Dispersion at each gene's mean and the scatter; `e` are exposures with block effects."""
    e = l if e is None else e
    m = y.mean(axis=1)
    x, d = slow_moments(y, l, group)
    order, n = np.lexsort((d, x, m)), len(y)
    edges = [n * k // max(1, min(12, n // 60)) for k in range(max(1, min(12, n // 60)) + 1)]
    if len(edges) > 8 and n - edges[-2] >= 180:
        edges[-1:] = [edges[-2] + (n - edges[-2]) * k // 3 for k in (1, 2, 3)]
    cuts = [0]
    for edge in edges[1:-1]:  # moved down to the first gene of the same mean
        cut = int((m < m[order[edge]]).sum())
        if cut - cuts[-1] >= 30 and n - cut >= 30:
            cuts.append(cut)
    bins = np.split(order, cuts[1:])
    knots = np.array([np.log(m[b]).mean() for b in bins])
    phi = np.array([np.clip((x[b] / m[b]).sum() / (d[b] / m[b]).sum(), 1e-4, 10) for b in bins])
    for _ in range(6):
        numerator, weight = summed(y, e, group, np.exp(np.interp(np.log(m), knots, np.log(phi))))
        S = np.array([numerator[b].sum() / (weight[b].sum() / df_ratio) for b in bins])
        phi = np.clip(
            phi + (S - 1) * (phi + np.exp(-knots)), np.maximum(0.2 * phi, 1e-5), np.minimum(5 * phi + 0.01, 20)
        )
    at = np.exp(np.interp(np.log(m), knots, np.log(phi)))
    rho = at * m / (1 + at * m)
    totals = np.stack([y[:, group == k].sum(axis=1) for k in np.unique(group)])
    used = (rho > 0.03) & (m > 1) & ((totals > 3).sum(axis=0) >= 2)
    numerator, weight = summed(y, e, group, at)
    d = np.maximum(weight[used] / df_ratio, 1e-3)
    S = numerator[used] / d
    grid = np.geomspace(0.02, 2, 24) ** 2
    log_p = []
    for log_dispersion_var in grid:
        prior_df, k = prior_of(log_dispersion_var * rho[used] ** 2)
        s = np.maximum(S * np.exp(k), 0.01)
        log_f = (
            d / 2 * np.log(d / prior_df) + (d / 2 - 1) * np.log(s) - (d + prior_df) / 2 * np.log1p(d * s / prior_df)
            - special.betaln(d / 2, prior_df / 2) + k
        )  # fmt: skip
        log_p.append(log_f.sum() - 0.5 * (np.log(log_dispersion_var / 0.6) / 0.7) ** 2)
    best = int(np.argmax(log_p))
    curve = np.polynomial.Polynomial.fit([-1, 0, 1], log_p[best - 1 : best + 2], 2).convert()
    peak = -curve.coef[1] / (2 * curve.coef[2])
    return at, float(np.exp(np.log(grid[best]) + peak * np.log(grid[1] / grid[0])))


def prior_of(x):
    d0 = 1 + 2 / np.maximum(x, 1e-6)
    return d0, x / 2 + 1 / d0 + 1 / (3 * d0**2)


def slow_test(
    y,
    l,
    group,
    trend,
    log_dispersion_var,
    *,
    two_groups=(0, 1),
    dispersion_ratio=(1.0, 1.0),
    efficiency=1.0,
    df_ratio=1.0,
):
    """Log fold change, se, r*, df, halving and moderated dispersion of two arms; with more groups the others lend theirs."""
    l = np.broadcast_to(l, y.shape)
    two = set(np.unique(group)) == set(two_groups)
    first, second = (group == k for k in two_groups)
    m = y.mean(axis=1)
    rho = trend * m / (1 + trend * m)
    d0, k = prior_of(log_dispersion_var * rho**2)
    p0 = np.maximum(trend - (1 - np.exp(-k)) * (trend + 1 / m), 0)
    rate = own_rate(y, l) if two else own_rate(y[:, first], l[:, first])
    T1, lam1, E1, D1, a1, b1 = group_numbers(y[:, first], l[:, first], dispersion_ratio[0] * p0, rate)
    T2, lam2, E2, D2, a2, b2 = group_numbers(y[:, second], l[:, second], dispersion_ratio[1] * p0, rate)
    numerator, weight = (a1 + a2, b1 + b2) if two else summed(y, l, group, p0)
    df = d0 + weight / df_ratio
    tau2 = np.maximum((d0 + numerator) / df, 0.02)
    phi = np.maximum(p0 + (tau2 - 1) * (p0 + 1 / m), 0)
    E1, E2 = E1 * efficiency, E2 * efficiency
    d1, d2 = dispersion_ratio[0] * phi * D1 / efficiency, dispersion_ratio[1] * phi * D2 / efficiency
    y1, y2 = lam1 * E1, lam2 * E2
    none1, none2 = T1 == 0, T2 == 0
    moved1, moved2 = np.minimum(0.5, y2 / 2), np.minimum(0.5, y1 / 2)
    y1, y2 = (
        np.where(none1, moved1, np.where(none2, y1 - moved2, y1)),
        np.where(none2, moved2, np.where(none1, y2 - moved1, y2)),
    )
    log_fc = np.log(y2 / E2) - np.log(y1 / E1)
    root = np.array([signed_root(*one) for one in np.broadcast(y1, y2, E1, E2, d1, d2)])
    return SimpleNamespace(
        log_fc=log_fc,
        se=np.sqrt(1 / y1 + 1 / y2 + d1 + d2),
        root=root,
        df=df,
        halve=np.where(none1 | none2, 0.5, 1.0),
        dispersion=dispersion_ratio[1] * phi,
    )


def signed_root(y1, y2, E1, E2, d1, d2):
    h1, h2, T = d1 * E1, d2 * E2, y1 + y2
    A, B = E1 * h2 + E2 * h1, y1 * h2 + y2 * h1 - E1 - E2
    null = max(np.roots([-A, B, T]).real) if A > 1e-12 else T / (E1 + E2)
    M1, M2 = E1 * null, E2 * null
    a1, a2 = np.log(y1 / M1), np.log(y2 / M2)
    c1, c2 = (np.log1p(d * (y - M) / (1 + d * M)) for d, y, M in ((d1, y1, M1), (d2, y2, M2)))
    over1, over2 = (c / d if d > 1e-12 else y - M for c, d, y, M in ((c1, d1, y1, M1), (c2, d2, y2, M2)))
    deviance = 2 * (y1 * (a1 - c1) - over1 + y2 * (a2 - c2) - over2)
    r = np.sign(y2 - M2) * np.sqrt(max(deviance, 0))
    if abs(r) < 0.01:
        return np.nan  # here the plain formula loses its digits: not compared
    f1, f2, e1, e2 = 1 + d1 * M1, 1 + d2 * M2, 1 + d1 * y1, 1 + d2 * y2
    Q = ((a2 - c2) / f1 - (a1 - c1) / f2) * np.sqrt(y1 * e1 * y2 * e2 / (M1 * e1 / f1**2 + M2 * e2 / f2**2))
    return r + np.log(Q / r) / r


def slow_p_values(result):
    """Two-sided p-values; t is brought to the normal scale as the package does, which is tested elsewhere."""
    z = np.array([normal_from_t(abs(r), df) for r, df in zip(result.root, result.df, strict=True)])
    return np.minimum(2 * result.halve * np.array([normal_tail(v) for v in z]), 1)
