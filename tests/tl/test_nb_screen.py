"""A screen from cells to results: the numbers of nb_compare, whatever the input, the path, the threads, and the interruptions."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tqdm
from anndata import AnnData
from anndata.experimental import read_lazy
from scipy import sparse
from scipy.stats import false_discovery_control

import nbcompare as nb
from nbcompare._anndata import ScreenStore
from nbcompare._nb.status import Status

COLUMNS = {"reference": "ctrl", "replicate_key": "replicate"}
POSTERIOR_NAMES = ("logfoldchanges", "lfc_se", "scores", "pvals", "pvals_adj", "dispersions", "status")


@pytest.fixture(scope="module")
def cells() -> AnnData:
    """Twenty perturbations, three named after genes; the reference in the middle of the order of the conditions."""
    adata = nb.datasets.simulate(n_genes=150, n_conditions=21, n_cells=15, n_replicates=[6] + [3] * 20, rng=0)
    adata.obs["condition"] = adata.obs["condition"].astype(str).str.replace("treated", "a").astype("category")
    names = {f"a_{k}": f"z_{k}" for k in range(8, 21)}
    adata.obs["condition"] = adata.obs["condition"].cat.rename_categories(names).astype(str).astype("category")
    adata.var_names = ["a_1", "a_2", "z_12", *adata.var_names[3:]]
    adata.layers["counts"] = adata.X.copy()
    return adata


@pytest.fixture(scope="module")
def screen(cells: AnnData) -> AnnData:
    return run(cells, perturbations_per_chunk=3)


def run(adata: AnnData | str | Path, **options: Any) -> AnnData:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Every replicate in")
        return nb.tl.nb_screen(
            adata, "condition", **{**COLUMNS, "progress": False, "min_cells": 1, "intervals": True, **options}
        )


def assert_same(one: AnnData, other: AnnData, *, but: tuple[str, ...] = ()) -> None:
    one, other = (result.to_memory() if hasattr(result.layers["pvals"], "dask") else result for result in (one, other))
    assert one.obs_names.tolist() == other.obs_names.tolist()
    for name in one.layers:
        if name not in but:
            np.testing.assert_array_equal(one.layers[name], other.layers[name], err_msg=name)
    for mine, theirs in ((one.obs, other.obs), (one.var, other.var)):
        columns = [name for name in mine.columns if name not in but]
        pd.testing.assert_frame_equal(mine[columns], theirs[columns], check_index_type=False)


def files(path: Path, folder: str = "") -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in (path / folder).rglob("*") if file.is_file()}


# Numbers


@pytest.mark.parametrize("paired", [False, True])
def test_where_all_inform_it_is_nb_compare(paired: bool) -> None:
    adata = nb.datasets.simulate(n_genes=200, n_conditions=9, n_cells=20, paired=paired, rng=1)
    block_key = "donor" if paired else None
    result = run(adata, block_key=block_key, dtype="float64")
    nb.tl.nb_compare(adata, "condition", **COLUMNS, block_key=block_key, min_cells=1)
    assert result.obs_names.tolist() == adata.uns["nb_compare"]["comparisons"].tolist()
    for word in POSTERIOR_NAMES:
        stored = adata.varm[f"nb_compare_{word}"].T
        if word == "status":
            np.testing.assert_array_equal(result.layers[word], stored)
        np.testing.assert_allclose(result.layers[word], stored, rtol=1e-5, atol=1e-9, err_msg=word)
    for word in ("lfc_lower", "lfc_upper"):
        np.testing.assert_allclose(result.layers[word], adata.varm[f"nb_compare_{word}"].T, atol=1e-3, err_msg=word)
    np.testing.assert_allclose(result.var["base_mean"], adata.var["nb_compare_base_mean"], rtol=1e-12)
    np.testing.assert_allclose(result.var["dispersion_trend"], adata.var["nb_compare_dispersion_trend"], rtol=1e-9)
    samples = adata.uns["nb_compare"]["samples"].set_index(["condition", "replicate"])["size_factor"]
    ours = result.uns["nb_screen"]["samples"].set_index(["condition", "replicate"])["size_factor"]
    np.testing.assert_allclose(ours.loc[samples.index], samples, rtol=1e-9)


def test_tables(screen: AnnData, cells: AnnData) -> None:
    obs, p, adjusted = screen.obs, screen.layers["pvals"], screen.layers["pvals_adj"]
    assert screen.shape == (20, 150)
    assert "ctrl" not in screen.obs_names
    np.testing.assert_array_equal(obs["n_cells"], cells.obs["condition"].value_counts()[screen.obs_names])
    assert (obs["n_replicates"] == 3).all()
    np.testing.assert_array_equal(obs["n_tested"], (~np.isnan(p)).sum(axis=1))
    np.testing.assert_array_equal(obs["n_hits"], (adjusted <= 0.05).sum(axis=1))
    np.testing.assert_array_equal(screen.var["n_perturbations"], (adjusted <= 0.05).sum(axis=0))
    named = ["a_1", "a_2", "z_12"]
    assert obs.index[obs["on_target_pval"].notna()].tolist() == named
    for name in named:
        own = screen[name, name]
        assert own.layers["pvals"].item() == obs.loc[name, "on_target_pval"]
        assert own.layers["logfoldchanges"].item() == obs.loc[name, "on_target_logfoldchange"]
        assert own.layers["lfc_se"].item() == obs.loc[name, "on_target_lfc_se"]
        for word in ("lfc_lower", "lfc_upper"):
            assert own.layers[word].item() == pytest.approx(obs.loc[name, f"on_target_{word}"], rel=1e-6)
    np.testing.assert_array_equal(obs["pval"], np.nanmin(adjusted, axis=1))
    np.testing.assert_array_equal(obs["pval_adj"], false_discovery_control(obs["pval"]))
    np.testing.assert_array_equal(obs["selected"], obs["pval_adj"] <= 0.05)
    fdr = screen.uns["nb_screen"]["fdr"]
    assert fdr["level_within_selected"] == pytest.approx(0.05 * obs["selected"].mean())
    assert screen.var["true_mean"].equals(cells.var["true_mean"])


def test_intervals_agree_with_p_values(screen: AnnData, cells: AnnData) -> None:
    """Zero lies outside just where p is below .05, unless it rests on one replicate; without them the on-target genes keep theirs."""
    lower, upper, p, status = (screen.layers[word] for word in ("lfc_lower", "lfc_upper", "pvals", "status"))
    np.testing.assert_array_equal(np.isnan(lower), np.isnan(p))
    whole = ~np.isnan(p) & ((status & Status.OUTLIER_REPLICATE) == 0) & (np.abs(p - 0.05) > 5e-4)
    out = (lower > 0) | (upper < 0)
    assert 100 < (out & whole).sum() < whole.sum()
    np.testing.assert_array_equal(out[whole], p[whole] < 0.05)
    empty = (status & Status.ZERO_GROUP) > 0
    np.testing.assert_array_equal((np.isinf(lower) | np.isinf(upper))[~np.isnan(p)], empty[~np.isnan(p)])
    without = run(cells, intervals=False)
    assert {"lfc_lower", "lfc_upper"}.isdisjoint(without.layers)
    for word in ("on_target_lfc_lower", "on_target_lfc_upper"):
        np.testing.assert_array_equal(without.obs[word], screen.obs[word])
    table = nb.get.nb_screen_df(screen, "a_1", n_top=3)
    assert table.columns.tolist()[6:9] == ["lfc_se", "lfc_lower", "lfc_upper"]
    assert "lfc_lower" not in nb.get.nb_screen_df(without, "a_1", n_top=3)
    assert nb.get.nb_screen_df(screen, "a_1", n_top=3, style="deseq2").columns.tolist()[4:6] == ["lfcLower", "lfcUpper"]


def test_a_high_dispersion_target_has_the_interval_of_its_own_test() -> None:
    """Where a perturbation is tested with dispersions of its own its interval agrees with that p-value, on target and as a layer."""
    adata = nb.datasets.simulate(n_genes=300, n_conditions=9, n_cells=20, n_replicates=4, rng=5)
    rng = np.random.default_rng(0)
    high_dispersion = (adata.obs["condition"] == "treated_3").to_numpy()
    counts = adata.X.toarray() if sparse.issparse(adata.X) else np.array(adata.X)
    of_replicate = {
        name: rng.lognormal(0, 1.0, adata.n_vars) for name in adata.obs["replicate"][high_dispersion].unique()
    }
    for name, factors in of_replicate.items():
        rows = high_dispersion & (adata.obs["replicate"] == name).to_numpy()
        counts[rows] = rng.poisson(counts[rows] * factors)
    adata.X = counts
    adata.var_names = ["treated_3", *adata.var_names[1:]]
    result = run(adata)
    assert result.obs.loc["treated_3", "dispersion_ratio"] > 1.5
    row = result["treated_3"]
    lower, upper, p, status = (row.layers[word][0] for word in ("lfc_lower", "lfc_upper", "pvals", "status"))
    whole = ~np.isnan(p) & ((status & Status.OUTLIER_REPLICATE) == 0) & (np.abs(p - 0.05) > 5e-4)
    np.testing.assert_array_equal(((lower > 0) | (upper < 0))[whole], p[whole] < 0.05)
    assert result.obs.loc["treated_3", "on_target_lfc_lower"] == pytest.approx(lower[0], rel=1e-6)


def test_adjusted_p_values(screen: AnnData) -> None:
    p = screen.layers["pvals"]
    tested = ~np.isnan(p)
    for row, adjusted in zip(p, screen.layers["pvals_adj"], strict=True):
        np.testing.assert_array_equal(adjusted[~np.isnan(row)], false_discovery_control(row[~np.isnan(row)]))
    over_all = false_discovery_control(p[tested])
    np.testing.assert_allclose(screen.layers["pvals_adj_global"][tested], over_all, rtol=2e-5)
    assert np.isnan(screen.layers["pvals_adj_global"][~tested]).all()


def test_description(screen: AnnData) -> None:
    stored = screen.uns["nb_screen"]
    assert stored["reference"] == "ctrl"
    assert stored["params"]["perturbations_per_chunk"] == 3
    assert {"path", "append", "n_jobs", "progress"}.isdisjoint(stored["params"])
    assert len(stored["samples"]) == 6 + 3 * 20
    assert stored["n_cells_excluded"]["no_condition"] == 0
    assert set(stored["fingerprint"]) == {"genes", "samples", "sample_counts", "version", "format"}
    assert stored["log_base"] == 2


def test_few_fit_perturbations_and_types(cells: AnnData, screen: AnnData) -> None:
    few = run(cells, n_fit_perturbations=5)
    assert few.layers["pvals"].dtype == np.float64
    assert few.layers["scores"].dtype == np.float32
    assert run(cells, dtype="float64", n_fit_perturbations=5).layers["scores"].dtype == np.float64
    z, z_few = screen.layers["scores"], few.layers["scores"]
    both = ~np.isnan(z) & ~np.isnan(z_few)
    assert np.corrcoef(z[both], z_few[both])[0, 1] > 0.99
    assert not np.array_equal(z[both], z_few[both])


def test_one_replicate_is_flagged(cells: AnnData) -> None:
    one = cells.obs["condition"].isin(["a_3"]) & ~cells.obs["replicate"].astype(str).str.endswith("_1")
    result = run(cells[~one.to_numpy()].copy())
    assert result.obs.loc["a_3", "n_replicates"] == 1
    tested = ~np.isnan(result["a_3"].layers["pvals"])
    assert tested.any()
    assert (result["a_3"].layers["status"][tested] & Status.ONE_REPLICATE_GROUP > 0).all()
    others = result[result.obs_names != "a_3"]
    assert not (others.layers["status"] & Status.ONE_REPLICATE_GROUP).any()


def test_small_samples_are_flagged_or_dropped(cells: AnnData) -> None:
    rng = np.random.default_rng(0)
    sample = cells.obs["replicate"] == "treated_3_1"
    few = np.sort(np.append(np.flatnonzero(~sample), rng.choice(np.flatnonzero(sample), 4, replace=False)))
    result = run(cells[few].copy())
    tiny = (result.layers["status"] & Status.TINY_PSEUDOBULK) > 0
    tested = ~np.isnan(result.layers["pvals"])
    small = result.uns["nb_screen"]["samples"].groupby("condition")["n_cells"].min()[result.obs_names] < 10
    np.testing.assert_array_equal(tiny, tested & small.to_numpy()[:, None])
    assert small["a_3"]
    dropped = run(cells[few].copy(), min_cells=5).uns["nb_screen"]["dropped_samples"]
    assert "fewer than 5 cells" in set(dropped["reason"])


def test_size_factors(cells: AnnData) -> None:
    pdata = nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=1)
    nb.pp.size_factors(pdata, method="total")
    pdata.obs["twice"] = 2 * pdata.obs["size_factors"]
    by_method = run(pdata, replicate_key=None, size_factors="total", n_fit_perturbations=7)
    for factors in ("twice", "size_factors", pdata.obs["size_factors"].to_numpy()):
        given = run(pdata, replicate_key=None, size_factors=factors, n_fit_perturbations=7)
        np.testing.assert_allclose(given.layers["scores"], by_method.layers["scores"], rtol=1e-4, atol=1e-5)
    assert given.uns["nb_screen"]["params"]["size_factors"] == "given"


def test_depths_that_the_counts_do_not_determine() -> None:
    """One gene that makes a sample deep is left out of its depth; a perturbation of a few counts is not tested."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (30, 400)).astype(float)  # a handful of genes is in all samples
    counts[5, 0] = 5000
    counts[6:9] = 0
    counts[6:9, :2] = 1
    obs = pd.DataFrame({"condition": np.repeat([f"p{i}" for i in range(10)], 3), "psbulk_cells": 50})
    adata = AnnData(counts, obs=obs.set_axis([f"s{i}" for i in range(30)]))
    with pytest.warns(
        UserWarning, match="1 of 9 perturbations are not tested .status size_factor_unstable.*3 of 27 samples"
    ):
        result = run(adata, reference="p0", replicate_key=None)
    assert np.isnan(result["p2"].layers["pvals"]).all()
    assert (result["p2"].layers["status"] & Status.SIZE_FACTOR_UNSTABLE > 0).all()
    assert result.obs.loc["p2", "n_tested"] == 0
    assert np.isnan(result.obs.loc["p2", "pval"])
    assert not result.obs.loc["p2", "selected"]
    assert (result.obs["n_tested"].drop("p2") > 250).all()
    assert np.nanmin(result["p1"].layers["pvals"][:, 1:]) > 1e-4
    factors = result.uns["nb_screen"]["samples"]["size_factor"].to_numpy()[3:6]
    np.testing.assert_allclose(factors / factors[:2].mean(), 1, atol=0.2)


def test_a_control_without_depth_is_warned_of() -> None:
    counts = np.random.default_rng(0).poisson(0.7, (9, 300)).astype(float)
    counts[:3] = 0
    counts[:3, :2] = 1
    obs = pd.DataFrame({"condition": np.repeat(["c", "p", "q"], 3)}, index=[f"s{i}" for i in range(9)])
    with pytest.warns(UserWarning, match="2 of 2 perturbations are not tested .*the counts of the control"):
        result = run(AnnData(counts, obs=obs), reference="c", replicate_key=None)
    assert np.isnan(result.layers["pvals"]).all()


def test_depths_of_perturbations_outside_the_fit() -> None:
    """Sparse perturbations, a control ten times as deep: each has its depth whether or not it is one of those of the fit."""
    rng = np.random.default_rng(3)
    condition = np.repeat([f"p{i:02d}" for i in range(20)], 3)
    depth = rng.lognormal(0, 0.3, 60) * np.where(condition == "p00", 10, 1)
    counts = rng.poisson(depth[:, None] * np.exp(rng.uniform(np.log(0.02), np.log(2), 1500))).astype(float)
    adata = AnnData(counts, obs=pd.DataFrame({"condition": condition}, index=[f"s{i}" for i in range(60)]))
    for n_fit_perturbations in (5, 19):
        result = run(adata, reference="p00", replicate_key=None, n_fit_perturbations=n_fit_perturbations)
        error = np.log2(result.uns["nb_screen"]["samples"]["size_factor"].to_numpy() / depth)
        assert abs(error[3:].mean() - error[:3].mean()) < 0.1
        assert error[3:].std() < 0.2
        p = result.layers["pvals"]
        assert (p[np.isfinite(p)] <= 0.05).mean() < 0.06


@pytest.mark.filterwarnings("ignore:No gene is tested:UserWarning")
def test_a_nearly_empty_sample_costs_its_perturbation_only(cells: AnnData) -> None:
    pdata = nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=1)
    name = sorted(set(pdata.obs["condition"]) - {"ctrl"})[1]  # not among the seven that lend
    pdata.X[np.flatnonzero(pdata.obs["condition"] == name)[0], 20:] = 0
    with pytest.warns(UserWarning, match="1 of 20 perturbations are not tested .*1 of 60 samples"):
        result = run(pdata, replicate_key=None, n_fit_perturbations=7)
    assert (result[name].layers["status"] & Status.SIZE_FACTOR_UNSTABLE > 0).all()
    assert np.isnan(result[name].layers["pvals"]).all()
    assert (result.obs["n_tested"].drop(name) > 100).all()


# Input, path and threads


@pytest.mark.parametrize("n_jobs", [1, 3, None])
def test_threads_do_not_matter(cells: AnnData, screen: AnnData, n_jobs: int | None) -> None:
    assert_same(run(cells, perturbations_per_chunk=3, n_jobs=n_jobs), screen)


def test_blocks_do_not_matter(cells: AnnData, screen: AnnData) -> None:
    for size in (None, 1, 7, 1000):
        assert_same(run(cells, perturbations_per_chunk=size), screen)


@pytest.mark.parametrize(
    "kind", ["h5ad", "zarr", "backed", "lazy", "dask", "csc", "dense", "layer of h5ad", "layer of zarr"]
)
def test_input_does_not_matter(cells: AnnData, screen: AnnData, kind: str, tmp_path: Path) -> None:
    layer = "counts" if kind.startswith("layer") else None
    adata = cells.copy()
    if layer:
        adata.X = adata.X * 0.5
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_zarr(tmp_path / "cells.zarr")
    given: Any = {
        "h5ad": lambda: tmp_path / "cells.h5ad",
        "zarr": lambda: str(tmp_path / "cells.zarr"),
        "layer of h5ad": lambda: tmp_path / "cells.h5ad",
        "layer of zarr": lambda: tmp_path / "cells.zarr",
        "backed": lambda: anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"),
        "lazy": lambda: read_lazy(tmp_path / "cells.zarr"),
        "dask": lambda: AnnData(da.from_array(adata.X.toarray(), chunks=(100, 150)), obs=adata.obs, var=adata.var),
        "csc": lambda: AnnData(sparse.csc_matrix(adata.X), obs=adata.obs, var=adata.var),
        "dense": lambda: AnnData(adata.X.toarray(), obs=adata.obs, var=adata.var),
    }[kind]()
    result = run(given, layer=layer, perturbations_per_chunk=3, chunk_size=100)
    assert_same(result, screen)
    assert result.uns["nb_screen"]["fingerprint"] == screen.uns["nb_screen"]["fingerprint"]


def test_samples_are_as_good_as_cells(cells: AnnData, screen: AnnData, tmp_path: Path) -> None:
    pdata = nb.pp.pseudobulk(cells, "condition", replicate_key="replicate", min_cells=1)
    before = pdata.X.copy()
    assert_same(run(pdata, replicate_key=None), screen)
    assert_same(run(pdata), screen)
    assert_same(run(pdata[::-1].copy()), screen)
    other_order = run(pdata[::-1].copy(), replicate_key=None)
    np.testing.assert_allclose(other_order.layers["pvals"], screen.layers["pvals"], rtol=1e-7)
    np.testing.assert_array_equal(pdata.X, before)
    pdata.write_zarr(tmp_path / "samples.zarr")
    assert_same(run(tmp_path / "samples.zarr", replicate_key=None), screen)


def test_replicates_of_several_columns(cells: AnnData, screen: AnnData) -> None:
    adata = cells.copy()
    number = adata.obs["replicate"].astype(str).str.split("_").str[-1]
    adata.obs["batch"] = number.astype("category")
    adata.obs["guide"] = ("g" + number).astype("category")
    together = run(adata, replicate_key=["batch", "guide"])
    assert_same(together, screen)
    assert_same(run(adata, replicate_key="batch", guide_key="guide"), together)
    assert_same(run(adata, replicate_key=None, guide_key="guide"), together)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_on_disk_it_is_the_same(cells: AnnData, screen: AnnData, tmp_path: Path, zarr_format: int) -> None:
    path = tmp_path / "screen.zarr"
    before = anndata.settings.zarr_write_format
    anndata.settings.zarr_write_format = zarr_format
    try:
        result = run(cells, path=path, perturbations_per_chunk=3)
    finally:
        anndata.settings.zarr_write_format = before
    assert isinstance(result.layers["pvals"], da.Array)
    assert_same(result, screen)
    whole = anndata.read_zarr(path)
    assert_same(whole, screen)
    whole.write_h5ad(tmp_path / "screen.h5ad")
    screen.write_h5ad(tmp_path / "memory.h5ad")
    assert_same(anndata.read_h5ad(tmp_path / "screen.h5ad"), anndata.read_h5ad(tmp_path / "memory.h5ad"))
    stored = files(path)
    assert_same(run(cells, path=path, perturbations_per_chunk=3, n_jobs=1), screen)  # nothing is left to do
    assert files(path) == stored


def test_progress(cells: AnnData, capsys: pytest.CaptureFixture[str]) -> None:
    run(cells, progress=True)
    shown = capsys.readouterr().err
    assert shown.index("cells: 100%") < shown.index("comparisons: 100%")
    run(cells)
    assert capsys.readouterr().err == ""
    assert not tqdm.tqdm._instances


# Interrupted, repeated, added to

KILLED = """
import os, signal, sys, time, warnings
import anndata.experimental, dask.array, numpy, xarray, zarr  # once, before this process forks
import nbcompare as nb

cells, folder, moments = sys.argv[1], sys.argv[2], [int(n) for n in sys.argv[3:]]
warnings.simplefilter("ignore")
rng = numpy.random.default_rng(0)

def run(path):
    return nb.tl.nb_screen(
        cells, "condition", reference="ctrl", replicate_key="replicate", min_cells=1, path=path, perturbations_per_chunk=1,
        progress=False, intervals=True,
    )

def n_blocks(path):
    blocks = f"{path}/.nb_screen/blocks"
    return len([name for name in os.listdir(blocks) if name.endswith(".npz")]) if os.path.isdir(blocks) else -1

run(None)  # compiles; no thread of zarr is running yet
for i, moment in enumerate(moments):
    path = f"{folder}/killed_{i}.zarr"
    child = os.fork()
    if child == 0:
        run(path)
        os._exit(0)
    while n_blocks(path) < moment:
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(n_blocks(path))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    adata = nb.datasets.simulate(n_genes=600, n_conditions=25, n_cells=10, n_replicates=2, rng=2)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    code = [sys.executable, "-c", KILLED, str(tmp_path / "cells.h5ad"), str(tmp_path), *"0 5 14 24".split()]
    done = [int(n) for n in subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()]
    assert sum(0 < n < 24 for n in done) > 1, f"the moments are badly chosen: {done}"
    run(tmp_path / "cells.h5ad", path=tmp_path / "whole.zarr", perturbations_per_chunk=1)
    whole = files(tmp_path / "whole.zarr")
    assert len([name for name in whole if name.startswith("layers")]) > 8 * 24
    for i in range(len(done)):
        path = tmp_path / f"killed_{i}.zarr"
        run(tmp_path / "cells.h5ad", path=path, perturbations_per_chunk=1, n_jobs=1 + i % 3)
        assert files(path) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_one_process_at_a_time_fills_a_store(cells: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "screen.zarr"
    with ScreenStore(path).locked(), pytest.raises(BlockingIOError, match="Another process is filling"):
        run(cells, path=path)
    stale = ScreenStore(path)
    assert run(cells, path=path).n_obs == 20
    with pytest.raises(BlockingIOError, match="since this call began"), stale.locked():
        pass


def test_another_call_is_refused(cells: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "screen.zarr"
    run(cells, path=path)
    stored = files(path)
    less = cells[1:].copy()
    other = cells.copy()
    other.X[0, 0] += 1
    renamed = cells.copy()
    renamed.var_names = renamed.var_names[::-1]
    for adata, options, words in (
        (cells, {"fdr": 0.1}, r"fdr \(0.05 there, 0.1 here\)"),
        (cells, {"min_gene_counts": 20, "n_fit_perturbations": 3}, "min_gene_counts .* n_fit_perturbations"),
        (cells, {"dtype": "float64"}, "dtype"),
        (cells, {"replicate_key": None, "guide_key": "replicate"}, "replicate_key"),
        (less, {}, "the samples, their cells"),
        (other, {}, "the counts of the samples"),
        (renamed, {}, "the genes"),
    ):
        with pytest.raises(ValueError, match=words):
            run(adata, path=path, **options)
    assert files(path) == stored


def test_perturbations_are_added(cells: AnnData, tmp_path: Path) -> None:
    late = cells.obs["condition"].isin(["a_4", "z_15", "z_9"]).to_numpy()
    path = tmp_path / "screen.zarr"
    first = run(cells[~late].copy(), path=path, perturbations_per_chunk=3).to_memory()
    before = files(path, "layers")
    added = run(cells[late].copy(), path=path, append=True, n_jobs=2)
    assert added.obs_names.tolist() == [*first.obs_names, "a_4", "z_15", "z_9"]
    after = files(path, "layers")
    for name, content in before.items():
        full = name.endswith(tuple(f"/{k}.0" for k in range(17 // 3)))
        if full and "global" not in name:
            assert after[name] == content
    whole = added.to_memory()
    over_all = ("pvals_adj_global", "pval_adj", "selected")
    assert_same(whole[: len(first)].copy(), first, but=(*over_all, "n_perturbations"))
    p = whole.layers["pvals"]
    np.testing.assert_allclose(
        whole.layers["pvals_adj_global"][~np.isnan(p)], false_discovery_control(p[~np.isnan(p)]), rtol=2e-5
    )
    np.testing.assert_array_equal(whole.obs["pval_adj"], false_discovery_control(whole.obs["pval"]))
    np.testing.assert_array_equal(whole.var["n_perturbations"], (whole.layers["pvals_adj"] <= 0.05).sum(axis=0))
    samples = whole.uns["nb_screen"]["samples"]
    assert samples.groupby("condition").size().to_dict() == {"ctrl": 6} | dict.fromkeys(whole.obs_names, 3)
    # the new ones are tested with what the old ones share: nearly as if they had been there from the start
    together = run(cells)[["a_4", "z_15", "z_9"]]
    z, expected = whole.layers["scores"][-3:], together.layers["scores"]
    both = ~np.isnan(z) & ~np.isnan(expected)
    assert np.corrcoef(z[both], expected[both])[0, 1] > 0.99

    stored = files(path)
    with pytest.warns(UserWarning, match="Nothing is added"):
        again = run(cells, path=path, append=True)
    assert_same(again, whole)
    assert files(path) == stored
    assert_same(run(cells[~late].copy(), path=path, perturbations_per_chunk=3), whole)


def test_an_addition_that_stopped_goes_on(cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = cells.obs["condition"].isin(["a_4", "z_15", "z_9", "a_2"]).to_numpy()
    whole = tmp_path / "whole.zarr"
    run(cells[~late].copy(), path=whole, perturbations_per_chunk=3)
    run(cells[late].copy(), path=whole, append=True)

    path = tmp_path / "stopped.zarr"
    run(cells[~late].copy(), path=path, perturbations_per_chunk=3)
    write = nb._anndata.ScreenStore.write_block

    def write_then_stop(self, rows: slice, layers: Any, summary: Any) -> None:
        write(self, rows, layers, summary)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nb._anndata.ScreenStore, "write_block", write_then_stop)
        with pytest.raises(KeyboardInterrupt):
            run(cells[late].copy(), path=path, append=True, n_jobs=1)
    with pytest.raises(ValueError, match="made from other input: the samples"):
        run(cells, path=path, append=True)
    run(cells[late].copy(), path=path, append=True)
    assert files(path) == files(whole)


# Refused


def test_bad_arguments(cells: AnnData, tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_text("")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "something").write_text("")
    cells.write_zarr(tmp_path / "cells.zarr")
    for options, error, words in (
        ({"reference": "control"}, ValueError, "no group 'control'.*Did you mean"),
        ({"reference": "rest"}, ValueError, "not with the rest"),
        ({"replicate_key": "donor"}, KeyError, "no column 'donor'"),
        ({"replicate_key": "condition"}, ValueError, "both"),
        ({"block_key": "batch"}, KeyError, "no column 'batch'"),
        ({"replicate_key": None}, ValueError, r"look like cells.*or batch\.$"),
        ({"layer": "raw"}, KeyError, "no layer 'raw'"),
        ({"size_factors": "tmm"}, ValueError, "tmm"),
        ({"size_factors": "depth"}, KeyError, "depth"),
        ({"size_factors": np.ones(len(cells))}, ValueError, "each row is a sample"),
        ({"dtype": "float16"}, ValueError, "'float32', 'float64'"),
        ({"fdr": 0.0}, ValueError, "between 0 and 1"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
        ({"n_fit_perturbations": 0}, ValueError, "n_fit_perturbations is 0"),
        ({"chunk_size": 0}, ValueError, "chunk_size is 0"),
        ({"perturbations_per_chunk": 0}, ValueError, "perturbations_per_chunk is 0"),
        ({"min_cells": 10_000}, ValueError, "None of the"),
        ({"append": True}, ValueError, "give its path"),
        ({"append": True, "path": tmp_path / "new.zarr"}, FileNotFoundError, "no screen at"),
        ({"path": tmp_path / "file.zarr"}, FileExistsError, "something else"),
        ({"path": tmp_path / "folder.zarr"}, FileExistsError, "something else"),
        ({"path": tmp_path / "cells.zarr"}, FileExistsError, "something else"),
        ({"path": tmp_path / "no" / "folder.zarr"}, FileNotFoundError, "no folder"),
    ):
        with pytest.raises(error, match=words):
            run(cells, **options)
    assert not (tmp_path / "new.zarr").exists()


def test_bad_cells(cells: AnnData, tmp_path: Path) -> None:
    (tmp_path / "text.h5ad").write_text("no")
    fractions = cells.copy()
    fractions.X = fractions.X * 0.5
    lone = cells.copy()
    lone.obs["replicate"] = "all"
    control = cells[cells.obs["condition"] == "ctrl"].copy()
    for adata, error, words in (
        (tmp_path / "nothing.h5ad", FileNotFoundError, "There is no"),
        (tmp_path / "text.h5ad", ValueError, "neither an h5ad file nor a zarr store"),
        (cells.X, TypeError, "must be an AnnData or the path"),
        (fractions, ValueError, "layer='counts'"),
        (lone, ValueError, "one replicate"),
        (control, ValueError, "nothing to compare"),
    ):
        with pytest.raises(error, match=words):
            run(adata, path=tmp_path / "screen.zarr")
    assert not (tmp_path / "screen.zarr").exists()


def test_blocks_that_nothing_is_known_of() -> None:
    adata = nb.datasets.simulate(n_genes=100, n_conditions=8, n_cells=20, paired=True, rng=1)
    donor = adata.obs["donor"].astype(str)
    donor[(adata.obs["condition"] == "treated_3") & (donor == "donor_1")] = "donor_9"
    adata.obs["replicate"] = adata.obs["donor"] = donor
    run(adata, block_key="donor")
    with pytest.raises(ValueError, match="Blocks 'donor_9' hold 1 samples"):
        run(adata, block_key="donor", n_fit_perturbations=2)


def test_without_dask(cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"nbcompare\[dask\]"):
        run(cells, path=tmp_path / "screen.zarr")
