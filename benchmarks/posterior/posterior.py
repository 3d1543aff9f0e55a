"""The posterior: cost and exactness of quadrature and refinement, recovery of the prior, error and coverage through `tl.nb_compare`.

Writes benchmarks/posterior/posterior.md. Minutes on one core: NUMBA_NUM_THREADS=1 python benchmarks/posterior/posterior.py [--smoke]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import numba
import numpy as np
from scipy.special import digamma

from nbcompare import tl
from nbcompare._nb.posterior.importance.sampling import refine
from nbcompare._nb.posterior.prior import INVERSE_GAMMA, NORMAL, Prior, inverse_gamma_shape
from nbcompare._nb.posterior.summary import grid_posterior, summarise_mixture

LOG_2 = np.log(2)
PAPER = Prior(-1.0, 2.0, -2.0, 1.0, NORMAL, 0.5, 1.0)
SETTINGS = {"mid": (100.0, 0.5), "low": (1.0, 1.0)}  # geometric mean and log-sd of the exposure


def paper_tests(rng, n_tests, depth, spread, n=None):
    """Tests of the paper's prior (rate of the reference ~ N(-1, 2^2)), 2 to 10 replicates in both arms, or `n`."""
    mu, alpha = rng.normal(-1, 2, n_tests), rng.normal(-2, 1, n_tests)
    beta = np.where(rng.random(n_tests) < 0.5, 0.0, rng.normal(0, 1, n_tests))
    sizes = rng.integers(2, 11, n_tests) if n is None else np.full(n_tests, n)
    most, phi, data = sizes.max(), np.exp(alpha)[:, None], []
    for side in range(2):
        exposure = depth * np.exp(rng.normal(0, spread, (n_tests, most))) * (np.arange(most) < sizes[:, None])
        mean = exposure * np.exp(mu + side * beta)[:, None]
        data += [rng.poisson(mean * rng.gamma(1 / phi, phi, mean.shape)).astype(float), exposure]
    return data, mu, beta, alpha


def genes(rng, n_genes, n, prior):
    """A data set whose genes follow a prior, as samples x genes."""
    centre = rng.normal(prior.log_mean, prior.log_mean_sd, n_genes)
    beta = np.where(rng.random(n_genes) < prior.null_proportion, 0.0, rng.normal(0, prior.log_fc_sd, n_genes))
    alpha = rng.normal(prior.log_dispersion, prior.log_dispersion_sd, n_genes)
    if prior.family == INVERSE_GAMMA:
        shape = inverse_gamma_shape(np.array(prior.log_dispersion_sd))
        alpha = prior.log_dispersion + digamma(shape) - np.log(rng.gamma(shape, 1, n_genes))
    exposure, phi = np.exp(rng.normal(0, 0.3, 2 * n)), np.exp(alpha)[:, None]
    mean = np.exp(centre[:, None] + np.repeat([-0.5, 0.5], n) * beta[:, None]) * exposure
    adata = ad.AnnData(rng.poisson(mean * rng.gamma(1 / phi, phi, mean.shape)).T.astype(float))
    adata.obs_names = [f"s{i}" for i in range(2 * n)]
    adata.obs["condition"] = np.repeat(["ctrl", "treated"], n)
    return adata, centre, beta


def cpu(function, n_tests):
    """CPU microseconds a test, median of three, after a call that compiles."""
    took = []
    for _ in range(3):
        start = time.process_time()
        result = function()
        took.append((time.process_time() - start) / n_tests * 1e6)
    return float(np.median(took)), result


def limits(n_tests):
    """Error of posterior medians on the paper's two settings."""
    rng = np.random.default_rng(77)
    yield "| setting | MAE of mu | of beta | of alpha |\n|---|---|---|---|\n"
    for name, (depth, spread) in SETTINGS.items():
        data, mu, beta, alpha = paper_tests(rng, n_tests, depth, spread)
        p = grid_posterior(*data, PAPER)
        errors = [
            np.abs(a - b)
            for a, b in ((p.log_mean_median, mu), (p.log_fc_median, beta), (p.log_dispersion_median, alpha))
        ]
        cells = [f"{e.mean():.4f} +- {e.std() / np.sqrt(n_tests):.4f}" for e in errors]
        yield f"| {name} | {' | '.join(cells)} |\n"


def costs(n_tests):
    """CPU time at 5v5, and root mean squared difference from the exact posterior in its standard deviations."""
    numba.set_num_threads(1)  # before torch, whose number it sets where it starts its threads with OpenMP
    try:
        from nbcompare._transformer.posterior import posterior_of
        from nbcompare._transformer.weights import load_network

        load_network()
        import torch

        torch.set_num_threads(1)
    except (ImportError, ValueError):
        posterior_of = None
    yield "| setting | answer | us a test | P(beta = 0) | mean | sd | lower bound | log phi | by quadrature |\n"
    yield "|---|---|---|---|---|---|---|---|---|\n"
    for name, (depth, spread) in SETTINGS.items():
        data = paper_tests(np.random.default_rng(3), n_tests, depth, spread, 5)[0]
        grid_posterior(*(array[:20] for array in data), PAPER)
        took, exact = cpu(lambda data=data: grid_posterior(*data, PAPER), n_tests)
        finer = grid_posterior(*data, PAPER, fineness=0.5)
        yield row(name, "quadrature", took, exact, finer)
        if posterior_of is None:
            continue
        posterior_of(*(array[:20] for array in data), PAPER)
        network, mixture = cpu(lambda data=data: posterior_of(*data, PAPER), n_tests)
        summary, raw = cpu(lambda mixture=mixture: summarise_mixture(mixture), n_tests)
        yield row(name, "network", network + summary, raw, exact)
        for n_draws in (64, 128, 512):
            refine(*(array[:20] for array in data), PAPER, mixture.take(np.arange(20)), n_draws=n_draws)
            took, refined = cpu(lambda data=data, m=mixture, k=n_draws: refine(*data, PAPER, m, n_draws=k), n_tests)
            yield row(name, f"network, {n_draws} draws", network + took, refined, exact)


def row(name, answer, took, found, exact):
    """One line of the table of costs."""
    units = {
        "null_probability": 1.0,
        "log_fc": exact.log_fc_sd,
        "log_fc_sd": exact.log_fc_sd,
        "log_fc_lower": exact.log_fc_sd,
    }
    units["log_dispersion"] = exact.log_dispersion_sd
    errors = [
        np.sqrt(np.mean(((getattr(found, word) - getattr(exact, word)) / unit) ** 2)) for word, unit in units.items()
    ]
    cells = " | ".join(f"{error:.1e}" if error < 1e-3 else f"{error:.4f}" for error in errors)
    share = "" if answer in ("quadrature", "network") else f"{np.mean(found.source == 2):.3f}"
    return f"| {name} | {answer} | {took:.0f} | {cells} | {share} |\n"


def recovery(n_genes):
    """The data set's own prior against the one that it was simulated from."""
    yield "| n | scatter | tail | null share | found | scale | found | E log phi | found | scatter found |\n"
    yield "|---|---|---|---|---|---|---|---|---|---|\n"
    rng = np.random.default_rng(0)
    for n in (3, 6):
        for log_dispersion_var in (0.4, 0.8, 1.2):
            for tail in (NORMAL, INVERSE_GAMMA):
                for share, scale in ((0.5, 1.0), (0.95, 0.5)):
                    adata, _, _ = genes(rng, n_genes, n, Prior(4.0, 1.5, -2.0, log_dispersion_var, tail, share, scale))
                    tl.nb_compare(
                        adata,
                        "condition",
                        reference="ctrl",
                        method="quadrature",
                        groups=["treated"],
                        prior={"dispersion_log_sd": 0.5},
                    )
                    prior, trend = (
                        adata.uns["nb_compare"]["prior"],
                        adata.uns["nb_compare"]["trend"]["log_dispersion_var"],
                    )
                    log_phi = np.log(adata.var["nb_compare_dispersion_trend"]).mean() - trend / 2
                    family = "inverse gamma" if tail else "log-normal"
                    yield (
                        f"| {n} | {log_dispersion_var} | {family} | {share} | {prior['null_proportion'][0]:.2f} | {scale} | {prior['lfc_sd'][0] * LOG_2:.2f} "
                        f"| -2 | {log_phi:.2f} | {np.sqrt(trend):.2f} |\n"
                    )


def accuracy(n_genes):
    """Error of log2 fold changes by bin of the mean, and coverage, all numbers of the prior estimated from the data."""
    yield "| data | mean count | moments | likelihood | posterior median | posterior mean | coverage of 90 % | of changed genes | mean P(beta = 0), share of null |\n"
    yield "|---|---|---|---|---|---|---|---|---|\n"
    for seed, (n, log_dispersion_var, share, scale) in enumerate(
        [(3, 0.8, 0.9, 1.0), (5, 0.8, 0.7, 1.0), (5, 0.5, 0.95, 0.5), (8, 1.0, 0.5, 0.7)]
    ):
        adata, centre, beta = genes(
            np.random.default_rng(seed),
            n_genes,
            n,
            Prior(3.0, 2.0, -2.0, log_dispersion_var, INVERSE_GAMMA, share, scale),
        )
        for method in ("mom", "mle", "quadrature"):
            tl.nb_compare(adata, "condition", reference="ctrl", method=method, key_added=method)
        tested = np.isfinite(adata.varm["mom_pvals"][:, 0])
        get = lambda word, adata=adata, tested=tested: adata.varm[word][tested, 0]
        truth, where = beta[tested] / LOG_2, centre[tested]
        words = ("mom_logfoldchanges", "mle_logfoldchanges", "quadrature_lfc_median", "quadrature_logfoldchanges")
        inside = (get("quadrature_lfc_lower") <= truth) & (truth <= get("quadrature_lfc_upper"))
        bins = np.digitize(where, np.quantile(where, [0.2, 0.4, 0.6, 0.8]))
        for b in range(5):
            of = bins == b
            errors = " | ".join(f"{np.abs(get(word) - truth)[of].mean():.3f}" for word in words)
            changed = inside[of & (truth != 0)].mean()
            null = f"{get('quadrature_null_probability')[of].mean():.3f}, {(truth == 0)[of].mean():.3f}"
            name = f"{n}v{n}, scatter {log_dispersion_var}, {1 - share:.0%} changed, scale {scale}" if b == 0 else ""
            yield f"| {name} | {np.exp(where[of].mean()):.1f} | {errors} | {inside[of].mean():.3f} | {changed:.3f} | {null} |\n"


def main():
    """All tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small, to see that it runs")
    smoke = parser.parse_args().smoke
    parts = [
        ("Error of the exact posterior's medians (the Bayes limit)", limits(500 if smoke else 20_000)),
        ("Cost on one core at 5v5, and root mean squared error", costs(100 if smoke else 2000)),
        ("The data set's own prior", recovery(300 if smoke else 5000)),
        ("Error of log2 fold changes and coverage through `tl.nb_compare`", accuracy(300 if smoke else 4000)),
    ]
    lines = [
        "# The posterior\n\nBy `benchmarks/posterior/posterior.py`; CPU time, one thread. Errors in units of the posterior's standard deviation but for P(beta = 0).\n"
    ]
    for title, table in parts:
        lines.append(f"\n## {title}\n\n" + "".join(table))
        print(lines[-1], flush=True)
    if not smoke:
        (Path(__file__).parent / "posterior.md").write_text("".join(lines))


if __name__ == "__main__":
    main()
