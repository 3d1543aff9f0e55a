"""What users write in a design: quantities stored as text, interactions in any order, reserved words; and files of other writers."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import nbcompare as nb


@pytest.fixture
def samples() -> ad.AnnData:
    adata = nb.datasets.simulate(n_genes=50, n_replicates=6, n_cells=30, paired=True, rng=1)
    adata = nb.pp.pseudobulk(adata, "condition", replicate_key="replicate", verbose=False)
    adata.obs["sex"] = ["f", "m"] * 6
    return adata


def run(adata: ad.AnnData, design: str, **options) -> np.ndarray:
    call = {"reference": "ctrl"} | options
    nb.tl.nb_compare(adata, "condition", **call, design=design, verbose=False)
    return adata.varm["nb_compare_pvals"]


AGES = np.array([39.9, 44.4, 51.0, 62.3, 47.7, 58.1, 33.3, 71.2, 49.5, 55.6, 60.4, 42.8])


@pytest.mark.parametrize("missing", [None, "NA", "nan"])
@pytest.mark.parametrize("kind", ["fractions", "once each", "categories"])
def test_a_quantity_stored_as_text(samples, kind, missing):
    text = [str(value) for value in (AGES.astype(int) if kind == "once each" else AGES)]
    text[0] = missing or text[0]
    samples.obs["age"] = pd.Categorical(text) if kind == "categories" else text
    with pytest.raises(
        ValueError, match=r"holds text that reads as numbers.*pd.to_numeric\(adata.obs\['age'\].*C\(age\)"
    ):
        run(samples, "~ age + condition")
    if missing is None:
        samples.obs["age"] = pd.to_numeric(samples.obs["age"].astype(str), errors="coerce")
        number = run(samples, "~ age + condition").copy()
        samples.obs["age"] = samples.obs["age"].astype(object)
        np.testing.assert_array_equal(run(samples, "~ age + condition"), number)


def test_labels_that_read_as_numbers(samples):
    """Whole numbers as text that repeat are labels, and C() confirms any text."""
    samples.obs["batch"] = ["101", "107", "1015"] * 4
    run(samples, "~ batch + condition")
    assert "batch[T.107]" in samples.uns["nb_compare"]["design"]["coefficients"]
    samples.obs["dose"] = ["0.5", "1.5"] * 6
    run(samples, "~ C(dose) + condition")
    assert any("1.5" in name for name in samples.uns["nb_compare"]["design"]["coefficients"])


@pytest.mark.parametrize("contrast", ["C(sex):condition", "condition:C(sex)"])
def test_an_interaction_in_any_order(samples, contrast):
    run(samples, "~ C(sex) * condition", contrast=contrast, reference=None)
    one = samples.varm["nb_compare_pvals"].copy()
    run(samples, "~ condition * C(sex)", contrast=contrast, reference=None)
    np.testing.assert_allclose(samples.varm["nb_compare_pvals"], one, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:design .* lets differences depend on:UserWarning")
def test_a_coefficient_of_an_interaction_in_any_order(samples):
    run(samples, "~ sex * condition")
    (name,) = [name for name in samples.uns["nb_compare"]["design"]["coefficients"] if ":" in name]
    both = [
        run(samples, "~ sex * condition", contrast=text, reference=None).copy()
        for text in (name, ":".join(name.split(":")[::-1]))
    ]
    np.testing.assert_array_equal(*both)


def test_a_reserved_word(samples):
    samples.obs["class"] = samples.obs["sex"].to_numpy()
    with pytest.raises(ValueError, match="'class' is a reserved word of Python: rename that column"):
        run(samples, "~ C(class) + condition")


@pytest.fixture
def cells() -> ad.AnnData:
    return nb.datasets.simulate(n_genes=30, n_cells=15, rng=1)


CALL = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", "progress": False, "verbose": False}


def test_counts_in_raw_of_a_file(cells, tmp_path):
    logged = cells.copy()
    logged.raw = cells
    logged.X = np.log1p(logged.X.toarray() * 1.3)
    logged.write_h5ad(tmp_path / "a.h5ad")
    logged.write_zarr(tmp_path / "a.zarr")
    for name in ("a.h5ad", "a.zarr"):
        with pytest.raises(ValueError, match="adata.raw holds whole numbers: pass adata.raw.to_adata"):
            nb.tl.nb_screen(tmp_path / name, **CALL)


def test_a_file_of_an_old_version(cells, tmp_path):
    """As anndata wrote before 0.7: tables are arrays, categories lie in uns."""
    path = Path(tmp_path / "old.h5ad")
    columns = {name: pd.Categorical(cells.obs[name]) for name in ("condition", "replicate")}
    with h5py.File(path, "w") as file:
        matrix, group = cells.X.tocsr(), file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        rows = np.zeros(cells.n_obs, dtype=[("index", "S20"), ("condition", "i1"), ("replicate", "i1")])
        rows["index"] = cells.obs_names.to_numpy().astype("S20")
        for name, column in columns.items():
            rows[name] = column.codes
            file[f"uns/{name}_categories"] = column.categories.to_numpy().astype("S")
        file["obs"] = rows
        genes = np.zeros(cells.n_vars, dtype=[("index", "S20")])
        genes["index"] = cells.var_names.to_numpy().astype("S20")
        file["var"] = genes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nb.tl.nb_screen(path, **CALL)
    np.testing.assert_array_equal(old.layers["pvals"], nb.tl.nb_screen(cells, **CALL).layers["pvals"])


def test_a_mudata(cells, tmp_path):
    with h5py.File(tmp_path / "m.h5mu", "w") as file:
        for key, value in (("mod/rna", cells), ("obs", cells.obs), ("var", cells.var)):
            ad.io.write_elem(file, key, value)
    with pytest.raises(ValueError, match="holds a MuData of the modalities 'rna'"):
        nb.tl.nb_screen(tmp_path / "m.h5mu", **CALL)
