"""From obs to samples: every kind of column, what is left out, and what the errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nbcompare._anndata import read_matrix, read_samples, sum_counts, sum_gene_counts, sum_samples

CONDITION = ["b", "a", "a", "b", "b", "a", "b", "a"]
REPLICATE = ["r2", "r1", "r2", "r1", "r1", "r1", "r2", "r2"]


def cells(**columns: Any) -> ad.AnnData:
    counts = np.arange(16, dtype=np.float32).reshape(8, 2)
    obs = pd.DataFrame({"condition": CONDITION, "replicate": REPLICATE, **columns}, index=[f"c{i}" for i in range(8)])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs)


def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["condition"], table["replicate"], strict=True))


def test_samples() -> None:
    samples = read_samples(cells(), "condition", replicate_key="replicate")
    assert pairs(samples.table) == [("a", "r1"), ("a", "r2"), ("b", "r1"), ("b", "r2")]
    assert samples.table["n_cells"].tolist() == [2, 2, 2, 2]
    assert samples.codes.tolist() == [3, 0, 1, 2, 2, 0, 3, 1]
    assert samples.codes.dtype == np.int64
    assert samples.names[0] == "a | r1"
    assert set(samples.n_cells_excluded.values()) == {0}
    assert list(samples.dropped.columns) == ["condition", "replicate", "n_cells", "counts", "reason"]
    assert samples.dropped.empty


KINDS = {
    "object": lambda values: pd.Series(values, dtype=object),
    "string": lambda values: pd.Series(values, dtype="string"),
    "str": lambda values: pd.Series(values, dtype=pd.StringDtype(na_value=np.nan)),
    "category": lambda values: pd.Series(values, dtype="category"),
    "bool": lambda values: pd.Series(values) == "b",
    "boolean": lambda values: (pd.Series(values) == "b").astype("boolean"),
    "int": lambda values: (pd.Series(values) == "b").astype(int),
    "Int64": lambda values: (pd.Series(values) == "b").astype("Int64"),
    "float": lambda values: (pd.Series(values) == "b").astype(float),
    "mixed": lambda values: pd.Series([1 if value == "a" else "b" for value in values], dtype=object),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_column(kind: str) -> None:
    adata = cells()
    adata.obs["key"] = (
        KINDS[kind](CONDITION).to_numpy() if kind == "mixed" else KINDS[kind](CONDITION).set_axis(adata.obs_names)
    )
    expected = read_samples(adata, "condition", replicate_key="replicate")
    for samples in (
        read_samples(adata, "key", replicate_key="replicate"),
        read_samples(adata, ["key"], replicate_key=["replicate"]),
    ):
        assert samples.codes.tolist() == expected.codes.tolist()
        assert all(isinstance(label, str) for label in samples.table["condition"])
    by_replicate = read_samples(adata, "replicate", replicate_key="key")
    assert by_replicate.table["n_cells"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"bool", "int"}))
def test_missing_values_are_left_out_and_counted(kind: str) -> None:
    adata = cells()
    column = KINDS[kind](CONDITION).set_axis(adata.obs_names)
    column.iloc[[0, 5]] = pd.NA if kind in ("string", "boolean", "Int64") else np.nan
    adata.obs["key"] = column
    samples = read_samples(adata, "key", replicate_key="replicate")
    assert samples.n_cells_excluded == {"no_condition": 2, "other_groups": 0, "no_replicate": 0, "no_block": 0}
    assert (samples.codes == -1).nonzero()[0].tolist() == [0, 5]
    samples = read_samples(adata, "replicate", replicate_key="key", block_key="key")
    assert samples.n_cells_excluded == {"no_condition": 0, "other_groups": 0, "no_replicate": 2, "no_block": 0}


def test_order_of_categories_is_kept() -> None:
    adata = cells()
    adata.obs["condition"] = pd.Categorical(CONDITION, ["b", "unused", "a"])
    adata.obs["replicate"] = pd.Categorical(REPLICATE, ["r2", "r1"])
    samples = read_samples(adata, "condition", replicate_key="replicate")
    assert pairs(samples.table) == [("b", "r2"), ("b", "r1"), ("a", "r2"), ("a", "r1")]


def test_numbers_are_sorted_as_numbers() -> None:
    adata = cells(dose=[10, 9, 100, 9, 10, 100, 9, 10])
    samples = read_samples(adata, "dose", replicate_key="replicate")
    assert list(dict.fromkeys(samples.table["condition"])) == ["9", "10", "100"]


def test_several_columns() -> None:
    adata = cells(batch=pd.Categorical(["x", "y"] * 4, ["y", "x"]))
    samples = read_samples(adata, "condition", replicate_key=["batch", "replicate"])
    assert pairs(samples.table)[:3] == [("a", "y | r1"), ("a", "y | r2"), ("a", "x | r2")]
    of_cell = samples.table["replicate"].to_numpy()[samples.codes]
    assert of_cell.tolist() == [f"{batch} | {r}" for batch, r in zip(adata.obs["batch"], REPLICATE, strict=True)]
    adata.obs.loc["c0", "batch"] = np.nan
    assert read_samples(adata, "condition", replicate_key=["batch", "replicate"]).n_cells_excluded["no_replicate"] == 1


def test_each_row_a_replicate() -> None:
    samples = read_samples(cells(), "condition", replicate_key=None)
    assert samples.table["replicate"].tolist() == ["c1", "c2", "c5", "c7", "c0", "c3", "c4", "c6"]
    assert samples.table["n_cells"].tolist() == [1] * 8
    repeated = cells()
    repeated.obs_names = ["same"] * 8
    assert len(read_samples(repeated, "condition", replicate_key=None).table) == 8


def test_groups() -> None:
    samples = read_samples(cells(), "condition", replicate_key="replicate", groups=["b"])
    assert pairs(samples.table) == [("b", "r1"), ("b", "r2")]
    assert samples.n_cells_excluded["other_groups"] == 4
    assert (
        read_samples(cells(), "condition", replicate_key="replicate", groups="b").codes.tolist()
        == samples.codes.tolist()
    )
    with pytest.raises(ValueError, match="There is no group 'bb' in adata.obs.'condition'.. Did you mean 'b'"):
        read_samples(cells(), "condition", replicate_key="replicate", groups=["a", "bb"])


def test_blocks() -> None:
    adata = cells(donor=["d2" if r == "r2" else "d1" for r in REPLICATE])
    samples = read_samples(adata, "condition", replicate_key="replicate", block_key="donor")
    assert samples.table["block"].tolist() == ["d1", "d2", "d1", "d2"]
    assert list(samples.table.columns) == ["condition", "replicate", "block", "n_cells"]
    adata.obs.loc["c1", "donor"] = np.nan
    samples = read_samples(adata, "condition", replicate_key="replicate", block_key="donor")
    assert samples.n_cells_excluded["no_block"] == 1
    adata.obs.loc["c1", "donor"] = "d2"
    with pytest.raises(
        ValueError, match=r"several values within 1 samples, such as a \| r1. .* add the column to replicate_key"
    ):
        read_samples(adata, "condition", replicate_key="replicate", block_key="donor")


@pytest.mark.parametrize(
    ("groupby", "options", "error", "sentence"),
    [
        (
            "conditon",
            {"replicate_key": "replicate"},
            KeyError,
            "no column 'conditon' in adata.obs. Did you mean 'condition'",
        ),
        ("condition", {"replicate_key": "zzz"}, KeyError, "no column 'zzz'.*There are: 'condition', 'replicate'"),
        ("condition", {"replicate_key": "condition"}, ValueError, "groupby and replicate_key are both 'condition'"),
        ("condition", {"replicate_key": "replicate", "block_key": "lane"}, KeyError, "no column 'lane'"),
        ("nothing", {"replicate_key": "replicate"}, ValueError, "No cell is left.*'no_condition': 8"),
        ("twice", {"replicate_key": "replicate"}, ValueError, "Different values of 'twice' are all written '1'"),
    ],
)
def test_errors(groupby: str, options: dict[str, Any], error: type[Exception], sentence: str) -> None:
    adata = cells(nothing=np.nan, twice=[1, "1"] * 4)
    with pytest.raises(error, match=sentence):
        read_samples(adata, groupby, **options)


def test_small_samples_are_dropped_with_the_reason() -> None:
    adata = cells()
    adata.obs["condition"] = ["few", "a", "a", "b", "b", "a", "zero", "zero"]
    adata.obs["replicate"] = "r"
    adata.X[6:] = 0
    before = read_samples(adata, "condition", replicate_key="replicate")
    samples, counts = sum_samples(adata, before, min_cells=2, min_counts=20)
    assert samples.dropped.to_numpy().tolist() == [
        ["few", "r", 1, 1.0, "fewer than 2 cells"],
        ["zero", "r", 2, 0.0, "no counts"],
    ]
    assert samples.table["condition"].tolist() == ["a", "b"]
    assert samples.table["counts"].tolist() == [35.0, 30.0]
    assert counts.tolist() == [[16.0, 19.0], [14.0, 16.0]]
    assert samples.codes.tolist() == [-1, 0, 0, 1, 1, 0, -1, -1]
    samples, counts = sum_samples(adata, before, min_cells=1, min_counts=32)
    assert samples.dropped["reason"].tolist() == ["fewer than 32 counts"] * 2 + ["no counts"]
    assert counts.shape == (1, 2)
    with pytest.raises(ValueError, match="None of the 4 samples has 50 cells .*the largest have 3 cells and 35 counts"):
        sum_samples(adata, before, min_cells=50)


def test_no_sum_is_copied_without_need() -> None:
    adata = cells()
    _, counts = sum_samples(adata, read_samples(adata, "condition", replicate_key="replicate"), min_cells=1)
    assert counts.flags.owndata
    assert counts.flags.c_contiguous


def test_the_right_layer_is_named() -> None:
    adata = cells()
    raw = adata.X.copy()
    adata.layers["counts"] = raw
    adata.X = raw.log1p()
    codes = np.zeros(8, dtype=np.int64)
    with pytest.raises(
        ValueError,
        match="adata.X looks log-transformed.*adata.layers.'counts'. holds whole numbers: pass layer='counts'",
    ):
        sum_counts(adata, codes, 1)
    with pytest.raises(ValueError, match="adata.X looks log-transformed"):
        sum_gene_counts(adata, 0, codes, 1)
    np.testing.assert_array_equal(sum_counts(adata, codes, 1, layer="counts").counts, raw.toarray().sum(axis=0)[None])
    np.testing.assert_array_equal(sum_gene_counts(adata, 1, codes, 1, layer="counts"), [raw.toarray()[:, 1].sum()])
    adata.X, adata.layers["counts"] = raw, raw * 0.5
    with pytest.raises(
        ValueError, match="adata.layers.'counts'. holds parts of reads.*adata.X holds whole numbers: pass layer=None"
    ):
        sum_counts(adata, codes, 1, layer="counts")
    del adata.layers["counts"]
    adata.raw = adata.copy()
    adata.X = raw * 0.5
    with pytest.raises(ValueError, match="adata.raw holds whole numbers"):
        sum_counts(adata, codes, 1)
    del adata.raw
    with pytest.raises(ValueError, match="No other layer holds whole numbers"):
        sum_counts(adata, codes, 1)


def test_layers_that_are_not_there() -> None:
    adata = cells()
    adata.layers["counts"] = adata.X.copy()
    with pytest.raises(KeyError, match="no layer 'count'. Did you mean 'counts'"):
        read_matrix(adata, "count")
    adata.X = None
    with pytest.raises(ValueError, match="adata.X is empty. Pass layer.*'counts'"):
        read_matrix(adata, None)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        sum_counts(adata, np.zeros(8, dtype=np.int64), 1, layer="counts", chunk_size=0)


@pytest.mark.parametrize("format", ["h5ad", "zarr"])
def test_lazily_read_cells(format: str, tmp_path: Path) -> None:
    adata = cells(donor=pd.Categorical(["d1", "d2"] * 4))
    adata.obs["condition"] = pd.Categorical(CONDITION, ["b", "a"])
    adata.layers["counts"] = adata.X.copy()
    expected, sums = sum_samples(
        adata, read_samples(adata, "condition", replicate_key=["replicate", "donor"]), min_cells=1
    )
    path = tmp_path / f"cells.{format}"
    getattr(adata, f"write_{format}")(path)
    lazy = ad.experimental.read_lazy(path)
    for layer in (None, "counts"):
        samples = read_samples(lazy, "condition", replicate_key=["replicate", "donor"])
        samples, found = sum_samples(lazy, samples, layer=layer, min_cells=1)
        pd.testing.assert_frame_equal(samples.table, expected.table)
        np.testing.assert_array_equal(found, sums)


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_order_of_cells_does_not_matter(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n_cells = data.draw(st.integers(1, 30))
    obs = pd.DataFrame(
        {
            "condition": rng.choice(["a", "b", "a/b", None], n_cells, p=[0.4, 0.3, 0.2, 0.1]),
            "replicate": rng.choice(["1", "2", None], n_cells, p=[0.5, 0.4, 0.1]),
        },
        index=[f"c{i}" for i in range(n_cells)],
    ).astype(object)
    obs.iloc[0] = ["a", "1"]
    adata = ad.AnnData(rng.poisson(2.0, (n_cells, 3)).astype(float) + 1, obs=obs)
    expected, sums = sum_samples(adata, read_samples(adata, "condition", replicate_key="replicate"), min_cells=1)
    shuffled = adata[rng.permutation(n_cells)].copy()
    samples, found = sum_samples(shuffled, read_samples(shuffled, "condition", replicate_key="replicate"), min_cells=1)
    pd.testing.assert_frame_equal(samples.table, expected.table)
    np.testing.assert_array_equal(found, sums)
    assert expected.table["n_cells"].sum() + sum(expected.n_cells_excluded.values()) == n_cells
