"""The common shift and the null spread of a comparison: what is stored, what is found in null splits, and what independent genes lose."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nbcompare import datasets, tl

BATCH = "vary up to .* times as much as their standard errors"


def samples(counts, group, **columns):
    obs = pd.DataFrame({"group": group.astype(str), **columns}, index=[f"s{i}" for i in range(len(group))])
    return ad.AnnData(counts.T.astype(np.float32), obs=obs)


def compared(adata, **options):
    tl.nb_compare(adata, "group", **({"reference": "0", "min_cells": 0, "verbose": False} | options))
    return adata.uns["nb_compare"]


def found(null_probability, level=0.05):
    """The largest set of genes whose mean null probability is at most the level."""
    order = np.argsort(null_probability)
    below = np.flatnonzero(np.cumsum(null_probability[order]) / np.arange(1, len(order) + 1) <= level)
    return order[: below[-1] + 1 if len(below) else 0]


def simulated(rng, n=4, n_genes=3000, share=0.1, one_sided=False, batch=0.0):
    """Counts of two groups, changed genes, and where `batch` is positive a hidden difference of this size between samples, most of one batch in one group."""
    mean = np.exp(rng.uniform(np.log(5), np.log(1000), n_genes))
    phi = (0.05 * (1 + 5 / mean) * rng.lognormal(0, 0.5, n_genes))[:, None]
    fold = np.where(rng.random(n_genes) < share, rng.normal(0, 0.8, n_genes), 0.0)
    fold, group = np.abs(fold) if one_sided else fold, np.repeat([0, 1], n)
    in_batch = np.where(np.arange(n) < max(1, n // 4), 0.5, -0.5)
    hidden = np.append(in_batch, -in_batch) * batch * rng.normal(size=(n_genes, 1))
    rates = mean[:, None] * rng.lognormal(0, 0.3, 2 * n) * np.exp(fold[:, None] * (group - 0.5) + hidden)
    return rng.poisson(rates * rng.gamma(1 / phi, phi, rates.shape)), group, fold != 0


def null_probabilities(counts, group, **options):
    adata = samples(counts, group)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*{BATCH}")
        stored = compared(adata, method="quadrature", **options)
    values = adata.varm["nb_compare_null_probability"][:, 0]
    return np.where(np.isnan(values), 1.0, values), stored


def test_independent_genes_lose_little():
    before, after = 0, 0
    for seed in range(3):
        counts, group, changed = simulated(np.random.default_rng(seed))
        before += changed[found(null_probabilities(counts, group, null_spread=False)[0])].sum()
        values, stored = null_probabilities(counts, group)
        assert stored["null_spread"][0] < 1.06
        assert abs(stored["common_shift"][0]) < 0.03
        after += changed[found(values)].sum()
    assert after >= 0.95 * before


def test_a_hidden_difference_is_warned_of_and_accounted_for():
    counts, group, _ = simulated(np.random.default_rng(5), n=6, share=0.0, batch=0.5)
    adata = samples(counts, group)
    with pytest.warns(UserWarning, match=BATCH):
        stored = compared(adata, method="quadrature")
    assert stored["null_spread"].shape == (1,)
    assert stored["null_spread"][0] > 1.1
    without = null_probabilities(counts, group, null_spread=False)
    assert without[1]["null_spread"].tolist() == [1.0]
    assert without[1]["common_shift"].tolist() == [0.0]
    assert len(found(adata.varm["nb_compare_null_probability"][:, 0])) <= 3
    assert len(found(without[0])) > 500


def test_genes_that_change_in_one_direction():
    counts, group, changed = simulated(np.random.default_rng(4), share=0.3, one_sided=True)
    values, stored = null_probabilities(counts, group)
    hits, before = found(values), found(null_probabilities(counts, group, null_spread=False)[0])
    assert stored["common_shift"][0] < -0.05
    assert (~changed[hits]).mean() < 0.08 < (~changed[before]).mean()


def montgomery(shared, sex):
    table = pd.read_csv(shared / "data" / "montgomery_counts.csv.gz", index_col=0)
    sexes = pd.read_csv(shared / "data" / "montgomery_samples.csv")["gender"].astype(str).str.lower()
    return table.loc[:, [one.startswith(sex) for one in sexes]].to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("sex", "n", "seed"), [("f", 3, 0), ("f", 5, 1), ("m", 5, 0)])
def test_null_splits_of_individuals(shared, sex, n, seed):
    counts = montgomery(shared, sex)
    chosen = counts[:, np.random.default_rng([9, n, seed]).permutation(counts.shape[1])[: 2 * n]]
    chosen = chosen[chosen.sum(axis=1) >= 20]
    assert len(found(null_probabilities(chosen, np.repeat([0, 1], n))[0])) <= 10


@pytest.mark.slow
def test_null_splits_of_donors(shared):
    cells = ad.read_h5ad(shared / "data" / "kang2018_pbmc_8donors.h5ad")
    wanted = (cells.obs["condition"] == "ctrl") & cells.obs["cell_type"].astype(str).str.contains("CD14")
    cells = cells[wanted.to_numpy()]
    donors = cells.obs["donor"].astype(str).to_numpy()
    counts = np.stack([np.asarray(cells.X[donors == one].sum(axis=0)).ravel() for one in sorted(set(donors))], axis=1)
    counts = counts[counts.sum(axis=1) >= 20]
    group = np.random.default_rng(5).permutation(np.repeat([0, 1], 4))
    assert len(found(null_probabilities(counts, group)[0])) <= 5


def test_splits_and_screens_store_one_number_a_column():
    cells = datasets.simulate(n_genes=260, n_conditions=3, n_replicates=3, n_cells=40, rng=1)
    cells.obs["half"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    call = {"reference": "ctrl", "replicate_key": "replicate", "method": "quadrature", "verbose": False}
    tl.nb_compare(cells, "condition", split_by="half", **call)
    stored = cells.uns["nb_compare"]
    assert stored["null_spread"].shape == stored["common_shift"].shape == (len(stored["comparisons"]),)
    assert np.isfinite(stored["null_spread"]).all()
    screen = tl.nb_screen(cells, "condition", progress=False, **call)
    assert (screen.obs["null_spread"] >= 1.0).all()
    assert np.isfinite(screen.obs["common_shift"]).all()
    without = tl.nb_screen(cells, "condition", progress=False, null_spread=False, **call)
    assert (without.obs["null_spread"] == 1.0).all()
    tl.nb_compare(cells, "condition", **call)
    tested = np.isfinite(screen.layers["pvals"])
    direct = cells.varm["nb_compare_null_probability"].T
    assert screen.layers["null_probability"][tested] == pytest.approx(direct[tested], abs=0.05)


class TestCommonShift:
    def test_most_genes_change_in_one_direction(self):
        counts, group, changed = simulated(np.random.default_rng(4), n=8, share=0.3, one_sided=True)
        false, power = [], []
        for shift in (False, True):
            adata = samples(counts, group)
            stored = compared(adata, common_shift=shift)
            hits = adata.varm["nb_compare_pvals_adj"][:, 0] <= 0.05
            false.append((hits & ~changed).sum() / hits.sum())
            power.append((hits & changed).sum())
        assert false[1] < 0.07 < false[0]
        assert power[1] > power[0]
        assert stored["common_shift"][0] < -0.05
        depth = stored["samples"].groupby("condition")["size_factor"].apply(lambda x: np.log2(x).mean())
        assert np.log2(stored["samples"]["size_factor"]).mean() == pytest.approx(0, abs=1e-9)
        plain = compared(samples(counts, group))
        assert "common_shift" not in plain
        before = plain["samples"].groupby("condition")["size_factor"].apply(lambda x: np.log2(x).mean())
        moved = (depth["1"] - depth["0"]) - (before["1"] - before["0"])
        assert moved == pytest.approx(stored["common_shift"][0], abs=1e-9)
        assert np.median(adata.varm["nb_compare_logfoldchanges"][~changed, 0]) == pytest.approx(0, abs=0.05)

    @pytest.mark.parametrize(
        "options", [{"reference": "rest"}, {"dispersion": "pair"}, {"block_key": "donor"}, {"method": "mle"}]
    )
    def test_size_factors_of_one_group_that_are_wrong(self, options):
        """Size factors that are 0.3 (log2) too small in one group are corrected."""
        rng = np.random.default_rng(1)
        counts, group = rng.negative_binomial(20, 0.1, (600, 9)), np.repeat([0, 1, 2], 3)
        adata = samples(counts, group, donor=np.tile(["a", "b", "c"], 3))
        factors = np.where(group == 1, 2.0**-0.3, 1.0)
        stored = compared(adata, common_shift=True, size_factors=factors, **({"reference": "0"} | options))
        found = dict(zip(stored["comparisons"], stored["common_shift"], strict=True))
        assert found["1"] == pytest.approx(0.3, abs=0.06)
        assert np.median(adata.varm["nb_compare_logfoldchanges"], axis=0) == pytest.approx(0, abs=0.05)

    def test_few_genes_have_no_shift(self):
        counts, group, _ = simulated(np.random.default_rng(4), n_genes=150)
        stored = compared(samples(counts, group), common_shift=True, size_factors=np.exp(0.5 * group))
        assert stored["common_shift"].tolist() == [0.0]

    def test_a_large_shift_is_warned_of(self):
        counts, group, _ = simulated(np.random.default_rng(4), n_genes=400)
        with pytest.warns(UserWarning, match="Most genes share a log2 fold change"):
            compared(samples(counts, group), common_shift=True, size_factors=np.exp(0.5 * group))

    def test_refused(self):
        counts, group, _ = simulated(np.random.default_rng(4), n_genes=50)
        with pytest.raises(ValueError, match="common_shift=True cannot be combined with design"):
            compared(samples(counts, group), common_shift=True, design="~ group")
        with pytest.raises(ValueError, match="common_shift=True requires test='moderated'"):
            compared(samples(counts, group), common_shift=True, test="wald")

    def test_a_posterior_has_it_in_its_size_factors(self):
        counts, group, _ = simulated(np.random.default_rng(4), n_genes=400)
        adata = samples(counts, group)
        factors = 2.0 ** (-0.3 * group)
        stored = compared(adata, common_shift=True, method="quadrature", size_factors=factors)
        other = compared(samples(counts, group), method="quadrature", size_factors=factors)
        assert stored["common_shift"] == pytest.approx(other["common_shift"], abs=0.02)
