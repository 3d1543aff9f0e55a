"""Arguments in every type that they accept give the same result, which can be written and read."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from nbcompare import datasets, get, pl, pp, tl
from nbcompare._arguments import plain
from nbcompare._arguments.kinds import columns, levels

pytestmark = [
    pytest.mark.filterwarnings("ignore:Blocks with samples of one condition only:UserWarning"),
    pytest.mark.filterwarnings("ignore:Every replicate in:UserWarning"),
]

COLLECTIONS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "object array": lambda names: np.array(names, dtype=object),
    "Index": pd.Index,
    "Series": pd.Series,
    "Categorical": pd.Categorical,
    "categories": lambda names: pd.Categorical(names).categories,
    "set": set,
    "frozenset": frozenset,
    "dict": dict.fromkeys,
    "keys": lambda names: dict.fromkeys(names).keys(),
    "values": lambda names: dict(enumerate(names)).values(),
    "generator": lambda names: (name for name in names),
}
ONE = {"str": str, "numpy": np.str_}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    adata = datasets.simulate(n_genes=40, n_conditions=3, n_replicates=4, n_cells=12, paired=True, rng=2)
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.layers["counts"] = adata.X.copy()
    return adata


def saved(adata: ad.AnnData, tmp_path: Path, key: str, *, zarr: bool = False) -> dict:
    """The stored parameters after a round trip through a file; zarr takes 3 seconds, h5ad a tenth of one."""
    small = adata[:2, :2].copy()
    small.write_h5ad(tmp_path / "a.h5ad")
    read = [ad.read_h5ad(tmp_path / "a.h5ad").uns[key]]
    if zarr:
        small.write_zarr(tmp_path / "a.zarr")
        read.append(ad.read_zarr(tmp_path / "a.zarr").uns[key])
    for one in read:
        assert set(one) == set(adata.uns[key])
    return adata.uns[key]["params"]


WRITTEN = {"array", "Series", "Categorical", "set"}  # of these collections the result is written too


ARGUMENTS = {  # argument -> value in a list, and the other arguments
    "groupby": (["condition"], {}),
    "groups": (["treated_1", "treated_2"], {}),
    "replicate_key": (["replicate"], {}),
    "block_key": (["donor"], {}),
    "split_by": (["half"], {"min_cells": 2}),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_nb_compare(argument, cells, tmp_path):
    """The result of each type is that of a list of text, and what is stored of the argument too."""
    names, others = ARGUMENTS[argument]
    call = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", **others}
    expected = None
    for kind, build in COLLECTIONS.items():
        adata = cells.copy()
        tl.nb_compare(adata, **{**call, argument: build(names)})
        found = adata.uns["nb_compare"]["params"][argument], adata.varm["nb_compare_pvals"]
        assert found[0] == names
        expected = found[1] if expected is None else expected
        np.testing.assert_array_equal(found[1], expected)
        if kind in WRITTEN:
            saved(adata, tmp_path, "nb_compare", zarr=kind == "Series")
        if argument != "groups":
            assert len(get.nb_gene_df(adata, "gene_00"))


@pytest.mark.parametrize("argument", [name for name in ARGUMENTS if name != "groups"])
@pytest.mark.parametrize("build", ONE.values(), ids=ONE)
def test_one_name(argument, build, cells, tmp_path):
    names, others = ARGUMENTS[argument]
    call = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", **others}
    adata = cells.copy()
    tl.nb_compare(adata, **{**call, argument: build(names[0])})
    stored = saved(adata, tmp_path, "nb_compare")[argument]
    assert stored == names[0]
    assert type(stored) is str


NUMBERS = {
    "min_cells": 2,
    "min_counts": 1.0,
    "min_gene_counts": 5,
    "lfc_threshold": 0.5,
    "shrink": True,
    "cox_reid": False,
}


@pytest.mark.parametrize("build", [lambda x: x, np.array, lambda x: np.array([x])[0]], ids=["Python", "0-d", "numpy"])
def test_numbers_and_words(build, cells, tmp_path):
    for name, value in {**NUMBERS, "layer": "counts", "alternative": "greater_abs", "reference": "ctrl"}.items():
        options = {"reference": "ctrl", "lfc_threshold": 0.5} if name == "alternative" else {"reference": "ctrl"}
        options |= {name: build(value) if not isinstance(value, str) else np.str_(value)}
        adata = cells.copy()
        tl.nb_compare(adata, "condition", replicate_key="replicate", **options)
        stored = saved(adata, tmp_path, "nb_compare")[name]
        assert stored == value
        assert isinstance(stored, str | bool | int | float)
        assert not isinstance(stored, np.generic)


@pytest.mark.parametrize(
    "build",
    [float, np.float64, lambda x: np.full(40, x), lambda x: pd.Series(np.full(40, x)), lambda x: [x] * 40],
    ids=["Python", "numpy", "array", "Series", "list"],
)
def test_a_prior_of_genes(build, cells, tmp_path):
    adata = cells.copy()
    value = build(0.2)
    if isinstance(value, pd.Series):
        value.index = adata.var_names
    options = {"reference": "ctrl", "replicate_key": "replicate", "method": "quadrature", "groups": ["treated_1"]}
    tl.nb_compare(adata, "condition", **options, prior={"dispersion": value})
    np.testing.assert_allclose(saved(adata, tmp_path, "nb_compare")["prior"]["dispersion"], 0.2)


OF_SCREENS = {
    "groupby": (["condition"], {}),
    "replicate_key": (["replicate"], {}),
    "block_key": (["donor"], {}),
    "guide_key": (["half"], {"min_cells": 2}),
}


@pytest.mark.parametrize("argument", OF_SCREENS)
def test_nb_screen(argument, cells, tmp_path):
    names, others = OF_SCREENS[argument]
    call = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate", "progress": False, **others}
    for kind, build in COLLECTIONS.items():
        screen = tl.nb_screen(cells, **{**call, argument: build(names)})
        assert screen.uns["nb_screen"]["params"][argument] == names
        if kind in WRITTEN:
            saved(screen, tmp_path, "nb_screen", zarr=kind == "Series")
        if kind in ("Index", "set"):
            stored = tl.nb_screen(cells, **{**call, argument: build(names)}, path=tmp_path / f"{kind}.zarr")
            np.testing.assert_array_equal(np.asarray(stored.layers["pvals"]), screen.layers["pvals"])


def test_numbers_of_a_screen_on_disk(cells, tmp_path):
    call = {"reference": "ctrl", "replicate_key": "replicate", "progress": False, "path": tmp_path / "a.zarr"}
    screen = tl.nb_screen(
        cells, "condition", **call, min_cells=np.int64(5), fdr=np.float32(0.125), n_fit_perturbations=np.array(7)
    )
    assert screen.uns["nb_screen"]["fdr"]["level"] == 0.125
    again = tl.nb_screen(cells, "condition", **call, min_cells=5, fdr=0.125, n_fit_perturbations=7)  # the same call
    assert again.shape == screen.shape


@pytest.mark.parametrize("build", COLLECTIONS.values(), ids=COLLECTIONS)
def test_pp(build, cells, tmp_path):
    pdata = pp.pseudobulk(cells, build(["condition"]), replicate_key=build(["replicate"]))
    assert pdata.uns["pseudobulk"]["groupby"] == ["condition"]
    assert pdata.uns["pseudobulk"]["replicate_key"] == ["replicate"]
    pp.size_factors(pdata, method=np.str_("pooled_ratios"), groupby=build(["condition"]))
    assert pdata.uns["size_factors"]["groupby"] == ["condition"]
    pdata.write_h5ad(tmp_path / "p.h5ad")


@pytest.mark.parametrize("build", COLLECTIONS.values(), ids=COLLECTIONS)
def test_tables_and_figures(build, stored, screen):
    groups = ["treated_1", "treated_2"]
    pd.testing.assert_frame_equal(get.nb_compare_df(stored, build(groups)), get.nb_compare_df(stored, groups))
    assert len(pl.gene(stored, "gene_000", groups=build(groups)).get_xticks()) == 3
    assert len(pl.forest(stored, "gene_000", groups=build(groups)).get_yticks()) == 2
    rows, genes = list(screen.obs_names[:2]), list(screen.var_names[:2])
    pd.testing.assert_frame_equal(
        get.nb_screen_df(screen, build(rows), gene=build(genes)), get.nb_screen_df(screen, rows, gene=genes)
    )
    assert pl.volcano(screen, rows[0], n_top=0, genes=build(genes)) is not None
    assert pl.perturbation_strength(screen, n_top=0, perturbations=build(rows)) is not None


def test_what_is_no_name():
    for value in (5, 2.5, [1, 2], np.arange(3), [None], True, b"a", [["a"]]):
        with pytest.raises(TypeError, match="block_key is .*must be the name of a column of .obs"):
            columns(value, "block_key")
    for value in ([], (), set(), pd.Index([])):
        with pytest.raises(ValueError, match="block_key is empty"):
            columns(value, "block_key")


def test_levels_become_text_once():
    assert levels([0, True, "a", 2.5, np.int64(0)], "groups") == ["0", "True", "a", "2.5"]
    assert levels(np.int64(24), "groups") == "24"
    assert levels(pd.Series(["b", "a", "b"]), "groups") == ["b", "a"]
    assert levels({"b", "a"}, "groups") == ["a", "b"]


def test_plain_values():
    assert plain({"a": np.float64(1), "b": (np.int64(2), Path("c"))}) == {"a": 1.0, "b": [2, "c"]}
    assert type(plain(np.bool_(True))) is bool
    assert isinstance(plain(pd.Series([1.0])), np.ndarray)
