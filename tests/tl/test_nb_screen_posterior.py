"""A screen with posteriors: those of nb_compare, whatever the threads, the blocks and the interruptions; the tests as without."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import nbcompare as nb
from nbcompare._nb.status import Status
from nbcompare.tl._posterior.arrays import posterior_of_arrays
from nbcompare.tl._screen import posterior as _screen_posterior

COLUMNS: dict[str, Any] = {"reference": "ctrl", "replicate_key": "replicate", "progress": False, "min_cells": 1}
POSTERIOR = ("lfc_median", "lfc_sd", "lfc_lower", "lfc_upper", "null_probability", "lfsr")
PRIOR = ("null_proportion", "lfc_sd", "mean", "mean_log_sd")


@pytest.fixture(scope="module")
def cells() -> AnnData:
    """Nine perturbations with two to four replicates, two of them named after genes."""
    adata = nb.datasets.simulate(
        n_genes=100, n_conditions=10, n_cells=15, n_replicates=[5, 2, 3, 4, 3, 3, 2, 3, 4, 3], de_fraction=0.2, rng=0
    )
    adata.var_names = ["treated_1", "treated_2", *adata.var_names[2:]]
    return adata


def run(cells: AnnData, method: str = "quadrature", **options: Any) -> AnnData:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Every replicate in")
        return nb.tl.nb_screen(cells, "condition", method=method, **(COLUMNS | options))


@pytest.fixture(scope="module")
def exact(cells: AnnData) -> AnnData:
    return run(cells)


@pytest.fixture(scope="module")
def by_network(cells: AnnData) -> AnnData:
    pytest.importorskip("torch")
    return run(cells, "transformer")


def assert_same(one: AnnData, other: AnnData) -> None:
    one, other = (result.to_memory() if hasattr(result.layers["pvals"], "dask") else result for result in (one, other))
    assert set(one.layers) == set(other.layers)
    for name in one.layers:
        np.testing.assert_array_equal(one.layers[name], other.layers[name], err_msg=name)
    for name in one.obs:
        np.testing.assert_array_equal(one.obs[name], other.obs[name], err_msg=name)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_tests_are_those_without_a_posterior(cells: AnnData, exact: AnnData) -> None:
    moments = run(cells, "mom")
    for word in ("pvals", "pvals_adj", "pvals_adj_global", "scores", "lfc_se", "status"):
        np.testing.assert_array_equal(exact.layers[word], moments.layers[word], err_msg=word)
    np.testing.assert_array_equal(exact.layers["lfc_unshrunken"], moments.layers["logfoldchanges"])
    for name in moments.obs:
        np.testing.assert_array_equal(exact.obs[name], moments.obs[name], err_msg=name)
    assert np.isfinite(exact.obs["on_target_logfoldchange"]).sum() == 2
    assert not {*POSTERIOR, "lfc_unshrunken"} & set(moments.layers)
    untested = np.isnan(moments.layers["pvals"])
    assert untested.any()
    for word in (*POSTERIOR, "logfoldchanges", "dispersions"):
        np.testing.assert_array_equal(np.isnan(exact.layers[word]), untested, err_msg=word)
        assert exact.layers[word].dtype == np.float32


@pytest.mark.parametrize("method", ["quadrature", "transformer"])
def test_where_all_inform_it_is_nb_compare(cells: AnnData, method: str) -> None:
    if method == "transformer":
        pytest.importorskip("torch")
    screen = run(cells, method, dtype="float64")
    adata = cells.copy()
    nb.tl.nb_compare(
        adata,
        "condition",
        reference="ctrl",
        replicate_key="replicate",
        min_cells=1,
        method=method,
        importance_sampling=False,
    )
    assert screen.obs_names.tolist() == adata.uns["nb_compare"]["comparisons"].tolist()
    for word in (*POSTERIOR, "logfoldchanges", "dispersions", "lfc_unshrunken"):
        stored = adata.varm[f"nb_compare_{word}"].T
        np.testing.assert_allclose(screen.layers[word], stored, rtol=2e-3, atol=2e-4, err_msg=word)
    prior = adata.uns["nb_compare"]["prior"]
    for word in PRIOR:
        np.testing.assert_allclose(screen.obs[f"prior_{word}"], prior[word], rtol=1e-4, err_msg=word)
    ours = screen.uns["nb_screen"]["prior"]
    assert ours["tail"] == prior["tail"] == "inverse_gamma"
    assert ours["dispersion_log_sd"] == pytest.approx(prior["dispersion_log_sd"][0])


@pytest.mark.parametrize("blocked", [False, True])
def test_the_same_from_arrays(blocked: bool) -> None:
    """One perturbation, whom no other lends, with the prior that is stored; block effects multiply the exposures."""
    cells = nb.datasets.simulate(
        n_genes=80, n_conditions=2, n_cells=20, paired=True, donor_sd=0.4, n_replicates=4, rng=1
    )
    screen = run(cells, block_key="donor" if blocked else None, dtype="float64")
    table = screen.uns["nb_screen"]["samples"]
    sums = nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=1)
    genes = np.isfinite(screen.layers["pvals"][0])
    prior = {word: screen.obs[f"prior_{word}"].item() for word in PRIOR} | screen.uns["nb_screen"]["prior"]
    trend = screen.var["dispersion_trend"].to_numpy()[genes] * max(screen.obs["dispersion_ratio"].item(), 1.0)
    prior["dispersion"] = trend * np.exp(-0.5 * prior["dispersion_log_sd"] ** 2)
    places = {key: i for i, key in enumerate(zip(sums.obs["condition"], sums.obs["replicate"], strict=True))}
    two_groups = []
    for side in ("ctrl", "treated_1"):
        of_group = table[table["condition"] == side]
        rows = [places[key] for key in zip(of_group["condition"], of_group["replicate"], strict=True)]
        two_groups.append((np.asarray(sums.X[rows])[:, genes].T, of_group["size_factor"].to_numpy()))
    (y1, l1), (y2, l2) = two_groups
    found = posterior_of_arrays(
        y1, y2, prior=prior, exposure_reference=l1, exposure_treated=l2, method="quadrature"
    )["null_probability"].to_numpy()  # fmt: skip
    stored = screen.layers["null_probability"][0, genes]
    if blocked:  # the effects of donors are not told outside, and matter
        assert np.abs(found - stored).max() > 0.01
        assert np.corrcoef(found, stored)[0, 1] > 0.5
    else:
        np.testing.assert_allclose(stored, found, atol=1e-6)


def test_other_perturbations_inform_their_dispersion(cells: AnnData, exact: AnnData) -> None:
    """A stated scatter is taken instead; lent, the posterior of the dispersion is narrower around what all say."""
    alone = run(cells, prior={"dispersion_log_sd": exact.uns["nb_screen"]["prior"]["dispersion_log_sd"]})
    known = np.log(cells.var["true_dispersion"].to_numpy())
    many = exact.var["base_mean"].to_numpy() > 20
    tested = np.isfinite(exact.layers["pvals"]) & many
    error = {
        name: np.sqrt(np.nanmean((np.log(screen.layers["dispersions"]) - known)[tested] ** 2))
        for name, screen in {"lent": exact, "alone": alone}.items()
    }
    assert error["lent"] < 0.8 * error["alone"]


def test_network_is_near_quadrature(exact: AnnData, by_network: AnnData) -> None:
    inside = np.isfinite(exact.layers["lfsr"]) & (by_network.layers["status"] & Status.OUTSIDE_TRAINING == 0)
    assert inside.mean() > 0.8
    for word, tolerance in (("null_probability", 0.02), ("logfoldchanges", 0.05), ("lfc_lower", 0.1)):
        error = (by_network.layers[word] - exact.layers[word])[inside]
        assert np.sqrt(np.mean(error**2)) < tolerance, word
    assert "pareto_k" not in by_network.layers


def test_refined(cells: AnnData, exact: AnnData) -> None:
    pytest.importorskip("torch")
    few = cells[cells.obs["condition"].isin(["ctrl", "treated_1", "treated_4"]).to_numpy()].copy()
    refined, exact = run(few, "transformer", importance_sampling=True), run(few)
    tested = np.isfinite(exact.layers["lfsr"])
    error = (refined.layers["null_probability"] - exact.layers["null_probability"])[tested]
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert (refined.layers["pareto_k"][tested] < 0.7).mean() > 0.9


def test_threads_and_blocks_do_not_matter(cells: AnnData, by_network: AnnData) -> None:
    """Blocks of few genes are other batches of the network: the same bits."""
    one, three = (run(cells, "transformer", n_jobs=n_jobs, perturbations_per_chunk=2) for n_jobs in (1, 3))
    assert_same(one, three)
    assert_same(one, by_network)


def test_torch_keeps_its_threads(cells: AnnData) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(cells, "transformer")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_perturbations_in_one_batch(cells: AnnData, by_network: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicates that one lacks are absent, not zero."""
    monkeypatch.setattr(_screen_posterior, "ON_CPU", 1)  # one by one
    alone = run(cells, "transformer")
    assert_same(by_network, alone)


def test_given_prior(cells: AnnData) -> None:
    trend = np.full(cells.n_vars, 0.05)
    screen = run(cells, prior={"null_proportion": 0.999, "lfc_sd": 0.2, "tail": "lognormal", "dispersion": trend})
    assert (screen.obs["prior_null_proportion"] == 0.999).all()
    np.testing.assert_allclose(screen.obs["prior_lfc_sd"], 0.2)
    assert screen.uns["nb_screen"]["prior"]["tail"] == "lognormal"
    assert np.nanmedian(screen.layers["null_probability"]) > 0.99
    assert screen.uns["nb_screen"]["params"]["prior"]["dispersion"].startswith("100 numbers, sha256")


def test_outside_of_training(cells: AnnData) -> None:
    pytest.importorskip("torch")
    screen = run(cells, "transformer", prior={"lfc_sd": 9.0, "dispersion_log_sd": 3.0})
    tested = np.isfinite(screen.layers["pvals"])
    assert (screen.layers["status"][tested] & Status.OUTSIDE_TRAINING > 0).all()
    assert (screen.layers["status"][~tested] & Status.OUTSIDE_TRAINING == 0).all()
    assert np.isfinite(screen.layers["lfsr"][tested]).all()


@pytest.mark.parametrize("method", ["quadrature", "transformer"])
def test_interrupted_it_goes_on(
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, request: pytest.FixtureRequest
) -> None:
    memory = request.getfixturevalue("exact" if method == "quadrature" else "by_network")
    whole = run(cells, method, path=tmp_path / "whole.zarr", perturbations_per_chunk=2)
    assert_same(whole, memory)
    summarized, calls = _screen_posterior.posterior_of_tests, []

    def stop(*args: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return summarized(*args, **options)

    monkeypatch.setattr(_screen_posterior, "posterior_of_tests", stop)
    with pytest.raises(KeyboardInterrupt):
        run(cells, method, path=tmp_path / "stopped.zarr", perturbations_per_chunk=2, n_jobs=1)
    monkeypatch.setattr(_screen_posterior, "posterior_of_tests", summarized)
    run(cells, method, path=tmp_path / "stopped.zarr", perturbations_per_chunk=2)
    assert files(tmp_path / "stopped.zarr") == files(tmp_path / "whole.zarr")
    with pytest.raises(ValueError, match="method"):
        run(cells, "mom", path=tmp_path / "whole.zarr")
    with pytest.raises(ValueError, match="prior"):
        run(cells, method, path=tmp_path / "whole.zarr", prior={"null_proportion": 0.5})


def test_perturbations_are_added(cells: AnnData, tmp_path: Path) -> None:
    late = (cells.obs["condition"] == "treated_9").to_numpy()
    path = tmp_path / "screen.zarr"
    run(cells[~late].copy(), path=path)
    with pytest.raises(ValueError, match="method"):
        run(cells[late].copy(), "mom", path=path, append=True)
    added = run(cells[late].copy(), path=path, append=True).to_memory()
    assert added.obs_names[-1] == "treated_9"
    assert np.isfinite(added["treated_9"].layers["lfsr"]).sum() > 80
    assert added.obs["prior_null_proportion"].notna().all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "mle"}, "'mom', 'transformer', 'quadrature'"),
        ({"method": "mom", "prior": {"null_proportion": 0.5}}, "prior requires"),
        ({"method": "mom", "device": "cpu"}, "device requires"),
        ({"method": "mom", "importance_sampling": True}, "importance_sampling=True requires"),
        ({"method": "quadrature", "importance_sampling": True}, "importance_sampling=True requires"),
        ({"network": "posterior"}, "uses no network"),
        ({"prior": {"null_proportion": [0.5, 0.6]}}, "must be one number"),
        ({"prior": {"null": 0.5}}, "may hold 'null_proportion'"),
        ({"prior": {"dispersion": [0.5, 0.6]}}, r"\(100,\)"),
    ],
)
def test_refused_before_any_work(cells: AnnData, tmp_path: Path, options: dict[str, Any], match: str) -> None:
    path = tmp_path / "screen.zarr"
    with pytest.raises(ValueError, match=match):
        run(cells, options.pop("method", "quadrature"), path=path, **options)
    assert not path.exists()


def test_without_torch(cells: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'nbcompare\[transformer\]'"):
        run(cells, "transformer")


def test_tables_and_figures(exact: AnnData, tmp_path: Path) -> None:
    exact.write_zarr(tmp_path / "screen.zarr")
    from anndata.experimental import read_lazy

    for screen in (exact, read_lazy(tmp_path / "screen.zarr")):
        table = nb.get.nb_screen_df(screen, "treated_4")
        assert {"lfc_unshrunken", *POSTERIOR, "status"} <= set(table.columns)
        place = exact.var_names.get_indexer(table["names"])
        for word in ("lfc_unshrunken", *POSTERIOR):
            np.testing.assert_array_equal(table[word], exact["treated_4"].layers[word][0, place])
        gene = str(table["names"].iloc[0])
        ax = nb.pl.posterior(screen, gene, "treated_4")
        assert ax.get_title(loc="left") == f"{gene}, treated_4 vs ctrl"
        bar = {patch.get_gid(): patch.get_height() for patch in ax.patches if patch.get_gid()}
        share = exact.obs.loc["treated_4", "prior_null_proportion"]
        ratio = table["null_probability"].iloc[0] / share
        assert bar["posterior at zero"] / bar["prior at zero"] == pytest.approx(ratio, rel=1e-5)
    with pytest.raises(ValueError, match="name one of them as group"):
        nb.pl.posterior(exact, "gene_50")


def test_no_posterior_to_draw(cells: AnnData) -> None:
    with pytest.raises(ValueError, match=r"The screen holds no posterior. Run nbcompare.tl.nb_screen"):
        nb.pl.posterior(run(cells, "mom"), str(cells.var_names[50]), "treated_4")


def test_on_a_device_several_perturbations_are_a_batch(
    cells: AnnData, by_network: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a GPU, on the CPU: counts padded to the perturbation with the most replicates, everything in torch."""
    pytest.importorskip("torch")
    from nbcompare._transformer import posterior as estimate

    batches = []
    summarize = estimate.summarize

    def noted(*data: Any, **options: Any) -> Any:
        batches.append(len(data[0]))
        return summarize(*data, **options)

    monkeypatch.setattr(estimate, "summarize", noted)
    monkeypatch.setattr(estimate, "runs_all_steps", lambda place: True)
    monkeypatch.setattr(_screen_posterior.PosteriorRequest, "batch_size", lambda self, n_replicates: 300)
    screen = run(cells, "transformer", n_jobs=1)
    assert sum(batches) == np.isfinite(screen.layers["pvals"]).sum()
    assert max(batches) > cells.n_vars
    for word in (*POSTERIOR, "logfoldchanges", "dispersions"):
        np.testing.assert_allclose(screen.layers[word], by_network.layers[word], rtol=1e-3, atol=2e-4, err_msg=word)
