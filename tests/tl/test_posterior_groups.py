"""Posteriors of groups that differ in dispersion, at the ends of what is allowed, and far out in their tails."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln

from nbcompare import tl
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare.tl._posterior.arrays import posterior_of_arrays

POSTERIOR = ("logfoldchanges", "lfc_median", "lfc_sd", "lfc_lower", "lfc_upper", "null_probability", "lfsr")
METHODS = ("quadrature", "transformer")


def samples_of(sizes, ratios, *, n_genes, seed, changed=0.2):
    """Samples x genes with the log2 fold changes of group g1; the dispersions of a group are the genes' times its ratio."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    mean = np.exp(rng.uniform(np.log(20), np.log(2000), n_genes))
    phi = 0.05 * 9 / rng.chisquare(9, n_genes)
    effect = np.where(rng.random(n_genes) < changed, rng.normal(0, 1, n_genes), 0.0)
    depth = np.exp(rng.normal(0, 0.3, len(group)))
    m = depth[:, None] * mean * np.exp2(np.outer(group == 1, effect))
    k = 1 / (phi * np.array(ratios)[group][:, None])
    counts = rng.poisson(m * rng.gamma(k, 1 / k)).astype(float)
    obs = pd.DataFrame(
        {"condition": [f"g{k}" for k in group], "depth": depth}, index=[f"s{k}" for k in range(len(group))]
    )
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"gene{j}" for j in range(n_genes)])), effect


def compare(adata, method="quadrature", **options):
    tl.nb_compare(
        adata, "condition", reference="g0", **({"groups": ["g1"], "size_factors": "depth", "method": method} | options)
    )
    return {word: adata.varm[f"nb_compare_{word}"][:, 0] for word in (*POSTERIOR, "pvals", "status", "dispersions")}


def screened(adata, method="quadrature", **options):
    screen = tl.nb_screen(
        adata, "condition", reference="g0", size_factors="depth", method=method, progress=False, n_jobs=1, **options
    )
    row = list(screen.obs_names).index("g1")
    return {word: np.asarray(screen.layers[word])[row] for word in (*POSTERIOR, "pvals", "status", "dispersions")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [((4, 4, 4, 4), (1, 1, 1, 1)), ((4, 4, 4, 4), (4, 1, 1, 1)), ((3, 12), (4, 1)), ((30, 3), (1, 5))],
)
@pytest.mark.parametrize("ask", [compare, screened])
def test_nulls_among_likely_changes_and_coverage(sizes, ratios, ask):
    """At a null probability below .05 nulls are rare, and 95% intervals of these genes hold 95%, whichever group is noisy."""
    null, called, held = 0, 0, 0
    for seed in range(2):
        adata, effect = samples_of(sizes, ratios, n_genes=2000, seed=seed)
        found = ask(adata)
        likely = found["null_probability"] < 0.05
        inside = (effect >= found["lfc_lower"] - 1e-6) & (effect <= found["lfc_upper"] + 1e-6)
        null += (likely & (effect == 0)).sum()
        held += (likely & inside & (effect != 0)).sum()
        called += likely.sum()
    assert called > 60
    assert null <= 0.06 * called
    assert 0.9 <= held / (called - null) <= 0.99


@pytest.mark.parametrize("ask", [compare, screened])
def test_network_leaves_two_dispersions_to_quadrature(ask):
    """Of groups that differ in dispersion; a noisy group's share of the data is the same in both methods."""
    pytest.importorskip("torch")
    adata, _ = samples_of((4, 4, 4, 4), (4, 1, 1, 1), n_genes=300, seed=3)
    exact = ask(adata)
    assert (exact["status"] & Status.HIGH_DISPERSION_GROUP > 0).all()
    for options in ({"importance_sampling": True}, {"importance_sampling": False}):
        found = ask(adata, "transformer", **options)
        for word in (*POSTERIOR, "status", "dispersions"):
            np.testing.assert_array_equal(found[word], exact[word], err_msg=word)


def test_screen_is_nb_compare_with_a_high_dispersion_control():
    adata, _ = samples_of((4, 4, 4, 4), (4, 1, 1, 1), n_genes=300, seed=4)
    screen, plain = screened(adata, dtype="float64"), compare(adata)
    for word in (*POSTERIOR, "dispersions"):
        np.testing.assert_allclose(screen[word], plain[word], rtol=2e-3, atol=2e-4, err_msg=word)


def arrays(n, seed=0):
    """Tests of three against three replicates, from the prior."""
    rng = np.random.default_rng(seed)
    k = 1 / (0.1 * np.exp(0.8 * rng.normal(size=(n, 1))))
    mean, change = 20 * np.exp(rng.normal(size=(n, 1))), 1.5 * np.log(2) * rng.normal(size=(n, 1))
    counts = [rng.poisson(rng.gamma(k, m / k, (n, 3))) for m in (mean, mean * np.exp(change))]
    return counts, {"lfc_sd": 1.5, "dispersion": 0.1, "dispersion_log_sd": 0.8, "mean": 20, "mean_log_sd": 1}


def wrong_sign(y1, y2, share):
    """Local false sign rate by sums over centre, log fold change and log phi, log-normal, with scipy's gammaln alone."""
    scale, middle = 1.5 * np.log(2), 0.5 * (np.log(y1.mean() + 0.2) + np.log(y2.mean() + 0.2))
    centre, beta = np.linspace(middle - 3, middle + 3, 91), np.linspace(-7, 7, 421)
    alpha = np.linspace(np.log(0.1) - 3.2, np.log(0.1) + 3.2, 41)
    k = np.exp(-alpha)

    def log_likelihood(y, log_rate):
        m = np.exp(log_rate)[..., None]
        one = [gammaln(x + k) - gammaln(k) - gammaln(x + 1) + x * np.log(m / (m + k)) - k * np.log1p(m / k) for x in y]
        return sum(one)

    of_centre, of_alpha = -0.5 * (centre - np.log(20)) ** 2, -0.5 * ((alpha - np.log(0.1)) / 0.8) ** 2
    null = log_likelihood(np.r_[y1, y2], centre) + of_centre[:, None] + of_alpha
    both = log_likelihood(y1, centre[:, None] - beta / 2) + log_likelihood(y2, centre[:, None] + beta / 2)
    both += (
        of_centre[:, None, None]
        + of_alpha
        - 0.5 * (beta / scale)[None, :, None] ** 2
        - np.log(scale * np.sqrt(2 * np.pi))
    )
    top = max(null.max(), both.max())
    at_zero = share * np.exp(null - top).sum()
    weight = (1 - share) * np.exp(both - top).sum(axis=(0, 2)) * (beta[1] - beta[0])
    below = weight[beta < 0].sum() + 0.5 * weight[beta == 0].sum()
    return (at_zero + min(below, weight.sum() - below)) / (at_zero + weight.sum())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.5])
def test_local_false_sign_rates(share):
    """Within 10 % of brute force in the median, where few genes are unchanged too: 128 draws cannot correct a tail of .002."""
    pytest.importorskip("torch")
    counts, prior = arrays(1200)
    requested = {"prior": prior | {"null_proportion": share, "tail": "lognormal"}}
    exact, refined, bare = (
        posterior_of_arrays(*counts, **requested, **options)["lfsr"].to_numpy()
        for options in ({"method": "quadrature"}, {}, {"importance_sampling": False})
    )
    for low, high in ((1e-4, 0.05), (1e-3, 1e-2), (1e-2, 0.05)):
        here = (exact >= low) & (exact < high)
        for found in (refined, bare):
            assert here.sum() >= 25
            assert np.median(found[here] / exact[here]) == pytest.approx(1, abs=0.1), (low, high)
    far = (exact >= 1e-5) & (exact < 1e-3)  # where also the mixtures of the network are too light
    assert np.median(refined[far] / exact[far]) == pytest.approx(1, abs=0.1)
    some = np.flatnonzero((exact >= 1e-4) & (exact < 0.05))[:6]
    truth = [wrong_sign(counts[0][j].astype(float), counts[1][j].astype(float), share) for j in some]
    np.testing.assert_allclose(exact[some], truth, rtol=0.02)


@pytest.mark.parametrize("options", [{"method": "quadrature"}, {}, {"importance_sampling": False}], ids=str)
def test_certain_priors(options):
    """Nothing changes, all changes: also beside tests of another prior."""
    if options.get("method") != "quadrature":
        pytest.importorskip("torch")
    counts, prior = arrays(30)
    alone = [
        posterior_of_arrays(*counts, prior=prior | {"null_proportion": share}, **options) for share in (0.0, 0.5, 1.0)
    ]
    some, half, nothing = alone
    assert (nothing[["null_probability", "lfsr"]] == 1).all(axis=None)
    assert (nothing[["logfoldchanges", "lfc_median", "lfc_sd", "lfc_lower", "lfc_upper"]] == 0).all(axis=None)
    assert (some["null_probability"] == 0).all()
    assert some["lfsr"].between(1e-9, 0.5).all()
    mixed = posterior_of_arrays(*counts, prior=prior | {"null_proportion": np.tile([0.0, 0.5, 1.0], 10)}, **options)
    for k, expected in enumerate((some, half, nothing)):
        pd.testing.assert_frame_equal(mixed[k::3], expected[k::3])


@pytest.mark.parametrize("exposure", [1e-200, 1e-16, 1e16, 1e300])
def test_extreme_exposures_are_refused(exposure):
    counts, prior = arrays(2)
    with pytest.raises(ValueError, match="exposure_reference must be positive, between"):
        posterior_of_arrays(
            *counts,
            prior=prior | {"null_proportion": 0.5},
            exposure_reference=np.full(3, exposure),
            method="quadrature",
        )


@pytest.mark.parametrize("options", [{"method": "quadrature"}, {}, {"importance_sampling": False}], ids=str)
@pytest.mark.parametrize("exposure", [1e-15, 1e-8, 1e8, 1e15])
def test_a_missing_number_has_a_source_that_says_so(options, exposure):
    if options.get("method") != "quadrature":
        pytest.importorskip("torch")
    counts, prior = arrays(12)
    counts[0][3], counts[1][4] = 0, 0
    counts[0][5] = 2**50
    found = posterior_of_arrays(
        *counts, prior=prior | {"null_proportion": 0.5}, exposure_reference=np.array([exposure, 1.0, 1.0]), **options
    )
    missing = found["source"] == "not_computed"
    finite = np.isfinite(found[[*POSTERIOR, "mean", "dispersions"]])
    np.testing.assert_array_equal(finite.all(axis=1), ~missing)
    np.testing.assert_array_equal(finite.any(axis=1), ~missing)


@pytest.mark.filterwarnings("ignore:No gene is tested:UserWarning")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("depth", [1e-150, 1e-20, 1e20, 1e150])
@pytest.mark.parametrize("ask", [compare, screened])
def test_a_missing_posterior_has_a_status(method, depth, ask):
    """Size factors of one group that are no size factors."""
    if method == "transformer":
        pytest.importorskip("torch")
    adata, _ = samples_of((3, 3, 3), (1, 1, 1), n_genes=60, seed=5)
    adata.obs["depth"] = np.where(adata.obs["condition"] == "g1", depth, 1.0)
    found = ask(adata, method)
    silent = (found["status"] & (NOT_TESTED | Status.POSTERIOR_NOT_COMPUTED)) == 0
    for word in POSTERIOR:
        np.testing.assert_array_equal(np.isfinite(found[word]), silent, err_msg=word)
