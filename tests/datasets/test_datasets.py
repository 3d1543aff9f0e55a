from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from nbcompare import datasets


def summed(adata):
    """Counts (n_genes, n_samples) and the condition of each sample."""
    obs = adata.obs.groupby(["condition", "replicate"], observed=True).indices
    return np.stack([np.asarray(adata.X[rows].sum(axis=0)).ravel() for rows in obs.values()], axis=1), [
        k[0] for k in obs
    ]


def test_simulated_cells_are_counts_with_labels():
    adata = datasets.simulate(n_genes=120, n_conditions=3, n_replicates=[2, 3, 4], n_cells=15, rng=1)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert np.all(adata.X.data == np.rint(adata.X.data))
    assert adata.X.data.min() >= 1
    per_condition = adata.obs.groupby("condition", observed=True)["replicate"].nunique()
    assert per_condition.to_dict() == {"ctrl": 2, "treated_1": 3, "treated_2": 4}
    assert adata.obs["replicate"].nunique() == 9  # no replicate is shared unless donors are
    sizes = adata.obs.groupby("replicate", observed=True).size()
    assert sizes.min() > 0
    assert sizes.nunique() > 1
    assert adata.varm["true_logfoldchanges"].shape == (120, 2)
    assert adata.var_names.is_unique
    assert adata.obs_names.is_unique


def test_simulated_seed():
    first, again, other = (datasets.simulate(n_genes=30, n_cells=5, rng=seed) for seed in (7, 7, 8))
    assert (first.X != again.X).nnz == 0
    assert first.shape != other.shape or (first.X != other.X).nnz
    by_generator = datasets.simulate(n_genes=30, n_cells=5, rng=np.random.default_rng(7))
    assert (first.X != by_generator.X).nnz == 0


def test_simulated_dispersion_and_effects_are_those_stored():
    adata = datasets.simulate(
        n_genes=400,
        n_replicates=60,
        n_cells=10,
        n_cells_sd=0,
        depth=4e5,
        depth_sd=0,
        abundance_sd=0.3,
        de_fraction=0.5,
        rng=2,
    )
    counts, condition = summed(adata)
    reference = counts[:, np.array(condition) == "ctrl"]
    treated = counts[:, np.array(condition) == "treated_1"]
    mean = reference.mean(axis=1)
    moment = (reference.var(axis=1, ddof=1) - mean) / mean**2
    ratio = moment / adata.var["true_dispersion"]
    assert np.median(ratio) == pytest.approx(1, abs=0.05)  # 400 genes, each with a standard error of sqrt(2 / 59)
    z = (mean / adata.var["true_mean"] - 1) / np.sqrt(adata.var["true_dispersion"] / 60)
    assert np.abs(z.mean()) < 0.2
    error = np.log2(treated.mean(axis=1) / mean) - adata.varm["true_logfoldchanges"][:, 0]
    se = np.sqrt(2 * adata.var["true_dispersion"] / 60) / np.log(2)
    assert np.std(error / se) == pytest.approx(1, abs=0.15)
    assert np.mean(adata.varm["true_logfoldchanges"] != 0) == pytest.approx(0.5, abs=0.1)


def test_simulated_trend_without_spread():
    adata = datasets.simulate(n_genes=50, n_cells=5, dispersion=0.02, dispersion_extra=2, dispersion_sd=0, rng=0)
    np.testing.assert_allclose(adata.var["true_dispersion"], 0.02 + 2 / adata.var["true_mean"])


def test_simulated_without_dispersion_is_poisson():
    adata = datasets.simulate(
        n_genes=300, n_replicates=40, n_cells=5, n_cells_sd=0, depth_sd=0, dispersion=0, dispersion_extra=0, rng=0
    )
    counts, condition = summed(adata)
    reference = counts[:, np.array(condition) == "ctrl"]
    keep = reference.mean(axis=1) > 3
    assert np.mean(reference.var(axis=1, ddof=1)[keep] / reference.mean(axis=1)[keep]) == pytest.approx(1, abs=0.06)


def test_simulated_donors_are_shared():
    adata = datasets.simulate(n_genes=400, n_replicates=4, depth=1e5, paired=True, donor_sd=1, dispersion=0.01, rng=0)
    assert adata.obs["donor"].nunique() == 4
    assert (adata.obs["donor"].astype(str) == adata.obs["replicate"].astype(str)).all()
    counts, _ = summed(adata)
    logs = np.log(counts[counts.min(axis=1) > 50])
    logs -= logs.mean(axis=1, keepdims=True)
    correlation = np.corrcoef(logs.T)
    assert np.diag(correlation[:4, 4:]).min() > 0.6  # one donor in the two conditions
    assert (correlation[:4, 4:] - np.diag(np.diag(correlation[:4, 4:]))).max() < 0.3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_genes": 0}, "n_genes is 0"),
        ({"depth": -1.0}, "depth is -1"),
        ({"n_conditions": 0}, "n_conditions is 0"),
        ({"n_replicates": [3]}, "one for each of the 2"),
        ({"n_replicates": 0}, "1 or more"),
        ({"n_replicates": [3, 4], "paired": True}, "same donors"),
        ({"dispersion": -0.1}, "dispersion is -0.1"),
        ({"effect_sd": float("nan")}, "effect_sd is nan"),
        ({"de_fraction": 1.5}, "from 0 to 1"),
    ],
)
def test_simulate_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        datasets.simulate(**arguments)


def test_simulated_round_trip(tmp_path):
    import anndata

    adata = datasets.simulate(n_genes=20, n_cells=5, n_replicates=[2, 3], rng=0)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert list(back.uns["simulate"]["n_replicates"]) == [2, 3]
    assert back.uns["simulate"]["rng"] == 0


def test_papalexi():
    adata = datasets.papalexi2021()
    assert adata.shape == (8456, 299)
    cells = adata.obs.groupby(["perturbation", "replicate"], observed=True).size()
    assert cells["SPI1"].to_list() == [14, 6, 13]
    assert cells["control"].to_list() == [468, 421, 310]
    measured = set(adata.var_names[adata.var["is_target"]])
    assert measured == {"STAT1", "STAT2", "CMTM6", "NFKBIA", "IFNGR2"}
    assert np.all(adata.X.data == np.rint(adata.X.data))
    adata.X.data[:] = 0
    assert datasets.papalexi2021().X.sum() > 0  # a fresh copy each time


def test_papalexi_licence_stands_beside_the_data():
    from importlib.resources import files

    text = (files("nbcompare.datasets") / "data" / "papalexi2021_eccite_a.LICENSE").read_text()
    for words in ("MIT License", "GSE153056", "sceptredata", "ec722d5", "Copyright (c) the sceptredata authors"):
        assert words in text
