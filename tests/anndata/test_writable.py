"""Whether a result can be written is asked before any work, and nothing is changed where it cannot."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from nbcompare import _anndata, datasets, get, pp, tl

KEYS = {"reference": "ctrl", "replicate_key": "replicate"}


@pytest.fixture
def path(tmp_path):
    adata = datasets.simulate(n_genes=40, n_conditions=3, n_cells=12, rng=2)
    tl.nb_compare(adata, "condition", **KEYS, key_added="before")
    adata.write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


PARTS = {
    "cells": lambda backed: backed[(backed.obs["condition"] != "treated_2").to_numpy()],
    "genes": lambda backed: backed[:, :30],
    "genes by name": lambda backed: backed[:, backed.var_names[:5]],
    "both": lambda backed: backed[3:, :30],
    "all": lambda backed: backed[:],
}
CALLS = {
    "nb_compare": lambda part: tl.nb_compare(part, "condition", **KEYS),
    "nb_compare, copy": lambda part: tl.nb_compare(part, "condition", **KEYS, copy=True),
    "size_factors": lambda part: pp.size_factors(part),
    "size_factors, copy": lambda part: pp.size_factors(part, copy=True),
    "to_rank_genes_groups": lambda part: get.to_rank_genes_groups(part, key="before"),
}


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_of_a_backed_file(part, call, mode, path, monkeypatch):
    backed = ad.read_h5ad(path, backed=mode)
    given = part(backed)
    held = [set(getattr(given, slot).keys()) for slot in ("obs", "var", "varm", "uns")]
    for module in (_anndata.counts, pp._size_factors):
        monkeypatch.setattr(module, "sum_counts", lambda *_, **__: pytest.fail("counts were read"))
    with pytest.raises(ValueError, match=r"part \(a view\) of a file.*adata.to_memory\(\).*pp.pseudobulk"):
        call(given)
    assert given.is_view
    assert given.isbacked
    assert held == [set(getattr(given, slot).keys()) for slot in ("obs", "var", "varm", "uns")]
    backed.file.close()


def test_what_the_message_says_to_do(path):
    backed = ad.read_h5ad(path, backed="r")
    part = backed[(backed.obs["condition"] != "treated_2").to_numpy()]
    loaded = part.to_memory()
    tl.nb_compare(loaded, "condition", **KEYS)
    pdata = pp.pseudobulk(part, "condition", replicate_key="replicate")
    tl.nb_compare(pdata, "condition", **KEYS)
    pp.size_factors(pdata)
    np.testing.assert_array_equal(pdata.varm["nb_compare_pvals"], loaded.varm["nb_compare_pvals"])


@pytest.mark.parametrize("call", ["nb_compare, copy", "size_factors, copy"])
def test_a_copy_of_a_backed_file(call, path):
    with pytest.raises(ValueError, match="copy=True cannot copy a matrix that lies in a file"):
        CALLS[call](ad.read_h5ad(path, backed="r"))


def test_a_whole_backed_file(path):
    backed = ad.read_h5ad(path, backed="r")
    tl.nb_compare(backed, "condition", **KEYS)
    pp.size_factors(backed, method="total")
    assert backed.varm["nb_compare_pvals"].shape == (40, 2)
    assert backed.obs["size_factors"].notna().all()
