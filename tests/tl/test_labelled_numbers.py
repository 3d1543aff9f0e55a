"""Every argument that takes numbers of rows, genes, coefficients or tests: by label where it has labels, by position where it has none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nbcompare import pp, tl
from nbcompare._anndata import numbers_of
from nbcompare.tl._posterior.arrays import posterior_of_arrays

GENES, REPLICATES = 120, 8
COEFFICIENTS = ["Intercept", "batch[T.y]", "condition[T.treated]"]
PRIOR = {
    "null_proportion": 0.5,
    "lfc_sd": 1.5,
    "dispersion": 0.1,
    "dispersion_log_sd": 0.8,
    "mean": 20,
    "mean_log_sd": 2,
}
RNG = np.random.default_rng(5)
DEPTH = np.array([1.0, 2, 4, 8, 1.5, 3, 5, 7])
OFFSET = np.log(DEPTH)[:, None] + RNG.normal(0, 0.3, (REPLICATES, GENES))
DISPERSION = RNG.lognormal(-2, 0.7, GENES)


@pytest.fixture(scope="module")
def _bulk_once() -> ad.AnnData:
    rng = np.random.default_rng(4)
    condition = np.repeat(["ctrl", "treated"], 4)
    mean = rng.uniform(20, 300, GENES) * DEPTH[:, None]
    mean[4:, :20] *= 3
    obs = pd.DataFrame({"condition": condition, "batch": list("xyxyxyxy")}, index=[f"s{i}" for i in range(REPLICATES)])
    counts = rng.negative_binomial(10, 1 / (1 + 0.1 * mean)).astype(float)
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))


@pytest.fixture
def bulk(_bulk_once: ad.AnnData) -> ad.AnnData:
    """Eight samples of two conditions and two batches, of different depth."""
    return _bulk_once.copy()


def compare(**options: Any) -> Callable[[ad.AnnData, Any], np.ndarray]:
    """A call of nb_compare with the values as the argument whose place is `...`."""

    def call(adata: ad.AnnData, values: Any) -> np.ndarray:
        tl.nb_compare(adata, "condition", reference="ctrl", **put(options, values))
        return np.column_stack([adata.varm["nb_compare_pvals"], adata.varm["nb_compare_logfoldchanges"]])

    return call


def screen(**options: Any) -> Callable[[ad.AnnData, Any], np.ndarray]:
    """The same of nb_screen."""

    def call(adata: ad.AnnData, values: Any) -> np.ndarray:
        found = tl.nb_screen(adata, "condition", reference="ctrl", progress=False, n_jobs=1, **put(options, values))
        return np.column_stack([found.layers["pvals"][0], found.layers["logfoldchanges"][0]])

    return call


def factors(adata: ad.AnnData, values: Any) -> np.ndarray:
    """Size factors of given numbers."""
    pp.size_factors(adata, method=values)
    return adata.obs["size_factors"].to_numpy()


def posterior(**options: Any) -> Callable[[ad.AnnData, Any], np.ndarray]:
    """The posterior of the first ten genes, whose counts are DataFrames."""

    def call(adata: ad.AnnData, values: Any) -> np.ndarray:
        counts = adata.to_df().T.iloc[:10]
        given = {"counts_reference": counts.iloc[:, :4], "counts_treated": counts.iloc[:, 4:], "prior": PRIOR}
        table = posterior_of_arrays(**(given | put(options, values)), method="quadrature")
        assert table.index.equals(counts.index)
        return table[["logfoldchanges", "lfc_sd"]].to_numpy()

    return call


def put(options: dict[str, Any], values: Any) -> dict[str, Any]:
    """The options with the values in the place that is `...`."""
    return {
        name: values if value is ... else put(value, values) if isinstance(value, dict) else value
        for name, value in options.items()
    }


@dataclass(frozen=True)
class Argument:
    """An argument of a function, numbers that it takes, and their labels."""

    call: Callable[[ad.AnnData, Any], np.ndarray]
    named: str  # how messages name it
    values: np.ndarray
    labels: tuple[list[str], ...]

    def labelled(self) -> pd.Series | pd.DataFrame:
        """The values with their labels."""
        if len(self.labels) == 1:
            return pd.Series(self.values, index=self.labels[0])
        return pd.DataFrame(self.values, index=self.labels[0], columns=self.labels[1])


ROWS, NAMES = [f"s{i}" for i in range(REPLICATES)], [f"g{i}" for i in range(GENES)]
TEN = NAMES[:10]
DESIGN = {"design": "~ batch + condition"}
COUNTS = RNG.poisson(30, (10, 4)).astype(float)
ARGUMENTS = {
    "nb_compare size_factors": Argument(compare(size_factors=...), "size_factors", DEPTH, (ROWS,)),
    "nb_compare size_factors in a design": Argument(
        compare(size_factors=..., **DESIGN), "size_factors", DEPTH, (ROWS,)
    ),
    "nb_compare offset": Argument(compare(offset=...), "offset", OFFSET, (ROWS, NAMES)),
    "nb_compare offset in a design": Argument(compare(offset=..., **DESIGN), "offset", OFFSET, (ROWS, NAMES)),
    "nb_compare prior": Argument(
        compare(prior={"dispersion": ...}, method="quadrature"), "prior['dispersion']", DISPERSION, (NAMES,)
    ),
    "nb_compare contrast": Argument(
        compare(contrast=..., **DESIGN), "contrast", np.array([0.0, 0.5, 1.0]), (COEFFICIENTS,)
    ),
    "nb_compare contrast by name": Argument(
        compare(contrast={"mine": ...}, **DESIGN), "contrast", np.array([0.0, 0.5, 1.0]), (COEFFICIENTS,)
    ),
    "nb_screen size_factors": Argument(screen(size_factors=...), "size_factors", DEPTH, (ROWS,)),
    "nb_screen prior": Argument(
        screen(prior={"dispersion": ...}, method="quadrature"), "prior['dispersion']", DISPERSION, (NAMES,)
    ),
    "pp.size_factors": Argument(factors, "method", DEPTH, (ROWS,)),
    "posterior_of_arrays prior": Argument(
        posterior(prior=PRIOR | {"dispersion": ...}), "prior['dispersion']", DISPERSION[:10], (TEN,)
    ),
    "posterior_of_arrays exposure of replicates": Argument(
        posterior(exposure_reference=...), "exposure_reference", DEPTH[:4], (ROWS[:4],)
    ),
    "posterior_of_arrays exposure of tests": Argument(
        posterior(exposure_treated=...), "exposure_treated", np.exp(OFFSET[4:, :10].T), (TEN, ROWS[4:])
    ),
}


def refuses(
    argument: Argument, adata: ad.AnnData, values: Any, *words: str, error: type[Exception] = ValueError
) -> None:
    """Assert that the call is refused in words that name the argument, and leaves the AnnData as it was."""
    before = (list(adata.obs), list(adata.var), list(adata.varm), list(adata.uns))
    with pytest.raises(error, match="(?i)" + re.escape(argument.named)) as caught:
        argument.call(adata, values)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert (list(adata.obs), list(adata.var), list(adata.varm), list(adata.uns)) == before


@pytest.mark.parametrize("name", ARGUMENTS)
def test_labels_are_followed_and_arrays_are_by_position(bulk: ad.AnnData, name: str) -> None:
    argument = ARGUMENTS[name]
    expected = argument.call(bulk.copy(), argument.values)
    in_order = argument.labelled()
    shuffled = in_order.sample(frac=1, random_state=1)
    if len(argument.labels) == 2:
        shuffled = shuffled.sample(frac=1, axis=1, random_state=2)
    assert not shuffled.index.equals(in_order.index)
    assert np.abs(argument.call(bulk.copy(), shuffled.to_numpy()) - expected).max() > 1e-4, "the order must matter"
    for given in (in_order, shuffled, argument.values.tolist(), shuffled.convert_dtypes()):
        np.testing.assert_array_equal(argument.call(bulk.copy(), given), expected)
    if len(argument.labels) == 1 and "contrast" not in name:
        np.testing.assert_array_equal(argument.call(bulk.copy(), shuffled.to_dict()), expected)
        np.testing.assert_array_equal(argument.call(bulk.copy(), pd.Series(argument.values)), expected)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_does_not_fit_is_refused(bulk: ad.AnnData, name: str) -> None:
    argument = ARGUMENTS[name]
    for axis, labels in enumerate(argument.labels):
        given = argument.labelled()
        first, last = labels[0], labels[-1]
        missing = given.drop(last, axis=axis)
        refuses(argument, bulk, missing, repr(last), "have no number", "by position")
        renamed = given.rename({first: "nobody"}, axis=axis)
        refuses(argument, bulk, renamed, repr(first), "'nobody'", "by position")
        extra = pd.concat([given, given.take([0], axis=axis).rename({first: "nobody"}, axis=axis)], axis=axis)
        refuses(argument, bulk, extra, "'nobody'", "by position")
        refuses(
            argument, bulk, pd.concat([given, given.take([0], axis=axis)], axis=axis), repr(first), "more than once"
        )
    short = np.delete(argument.values, 0, axis=-1)
    refuses(argument, bulk, short, str(short.shape[0]))
    for text in (argument.values.astype(str), argument.labelled().astype(str)):
        if argument.named == "contrast":  # where text is the name of a coefficient
            refuses(argument, bulk, text, "no coefficient or term '0.0'", error=KeyError)
        else:
            refuses(argument, bulk, text, "numbers are needed")
    hole = argument.labelled().copy()
    hole.iloc[(1,) * hole.ndim] = np.nan
    refuses(argument, bulk, hole)
    refuses(argument, bulk, hole.to_numpy())


def test_rows_of_weights_are_aligned_by_the_columns(bulk: ad.AnnData) -> None:
    """Contrasts that are tested together: a DataFrame, and a list of Series."""
    weights = pd.DataFrame([[0, 1.0, 0], [0, 0.5, 1.0]], columns=COEFFICIENTS, index=["one", "other"])
    call = compare(contrast=..., **DESIGN)
    expected = call(bulk.copy(), weights.to_numpy())
    turned = weights.iloc[:, ::-1]
    np.testing.assert_array_equal(call(bulk.copy(), turned), expected)
    np.testing.assert_array_equal(call(bulk.copy(), [turned.loc["one"], weights.loc["other"]]), expected)
    with pytest.raises(ValueError, match="coefficients have no number .'Intercept'"):
        call(bulk, turned.drop(columns="Intercept"))


def test_counts_of_a_posterior_are_aligned_by_test(bulk: ad.AnnData) -> None:
    counts = bulk.to_df().T.iloc[:10]
    reference, treated = counts.iloc[:, :4], counts.iloc[:, 4:]
    options = {"prior": PRIOR, "method": "quadrature"}
    expected = posterior_of_arrays(reference, treated, **options)
    pd.testing.assert_frame_equal(posterior_of_arrays(reference, treated.iloc[::-1], **options), expected)
    by_position = posterior_of_arrays(reference.to_numpy(), treated.to_numpy(), **options)
    np.testing.assert_array_equal(by_position["lfc_sd"], expected["lfc_sd"])
    with pytest.raises(ValueError, match=r"counts_treated.*1 of the 10 tests have no number \('g3'\)"):
        posterior_of_arrays(reference, treated.drop("g3"), **options)
    given = PRIOR | {"dispersion": pd.Series(DISPERSION[:10], index=TEN)}
    with pytest.raises(ValueError, match=r"prior\['dispersion'\].*labels name no test"):
        posterior_of_arrays(reference.to_numpy(), treated.to_numpy(), prior=given, method="quadrature")


def test_a_prior_with_labels_can_be_written(bulk: ad.AnnData, tmp_path: Any) -> None:
    prior = pd.Series({"dispersion": pd.Series(DISPERSION, index=NAMES).iloc[::-1], "null_proportion": 0.5})
    tl.nb_compare(bulk, "condition", reference="ctrl", method="quadrature", prior=prior)
    bulk.write_h5ad(tmp_path / "x.h5ad")
    stored = ad.read_h5ad(tmp_path / "x.h5ad").uns["nb_compare"]["params"]["prior"]
    np.testing.assert_array_equal(stored["dispersion"], DISPERSION)


def test_a_screen_on_disk_takes_the_same_prior_in_any_order(bulk: ad.AnnData, tmp_path: Any) -> None:
    pytest.importorskip("dask")
    bulk.write_h5ad(tmp_path / "x.h5ad")
    given = pd.Series(DISPERSION, index=NAMES)
    found = []
    for dispersion in (given, given.iloc[::-1], DISPERSION):  # the second and third read the finished screen
        result = tl.nb_screen(
            tmp_path / "x.h5ad",
            "condition",
            reference="ctrl",
            method="quadrature",
            prior={"dispersion": dispersion},
            path=tmp_path / "screen.zarr",
            progress=False,
            n_jobs=1,
        )
        found.append(np.asarray(result.layers["logfoldchanges"]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


LABELS = pd.Index(["a", "b", "c"])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pd.Series([3.0, 1, 2], index=["c", "a", "b"]), LABELS),
        (pd.Series([3, 1, 2], index=pd.CategoricalIndex(["c", "a", "b"])), LABELS),
        (pd.Series([3, 1, 2], index=["c", "a", "b"], dtype=object), LABELS),
        (pd.Series([3, 1, 2], index=["c", "a", "b"], dtype="Int64"), LABELS),
        (pd.Series([3.0, 1, 2], index=[103, 101, 102]), pd.Index(["101", "102", "103"])),
        (pd.Series([1.0, 2, 3]), LABELS),
        ({"c": 3, "a": 1, "b": 2}, LABELS),
        ((1, 2.0, np.float32(3)), LABELS),
        (np.ma.MaskedArray([1, 2, 3], [False, False, False]), LABELS),
        (pd.Index([1, 2, 3]), LABELS),
    ],
)
def test_types_that_are_taken(values: Any, labels: pd.Index) -> None:
    found = numbers_of(values, {"row": labels}, "depth")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1, 2, 3])


def test_xarray_is_aligned() -> None:
    xarray = pytest.importorskip("xarray")
    values = xarray.DataArray([3.0, 1, 2], coords={"row": ["c", "a", "b"]})
    np.testing.assert_array_equal(numbers_of(values, {"row": LABELS}, "depth"), [1, 2, 3])


def test_hidden_and_missing_values_become_nan() -> None:
    masked = np.ma.MaskedArray([1, 2, 3], [False, True, False])
    np.testing.assert_array_equal(numbers_of(masked, {"row": LABELS}, "depth"), [1, np.nan, 3])
    np.testing.assert_array_equal(
        numbers_of(pd.array([1, None, 3], dtype="Int64"), {"row": LABELS}, "depth"), [1, np.nan, 3]
    )


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (pd.Series([1.0, 2, 3]), ["2", "0", "1"], "unclear whether labels or positions are meant"),
        (
            pd.Series([1.0, 2, 3], index=["a", "b", "c"]),
            ["a", "b", "b"],
            "1 of the names of rows occur more than once .'b'",
        ),
        (pd.Series([1.0, 2, 3], index=[1, "1", "b"]), ["1", "b", "c"], "1 of its labels occur more than once .'1'"),
        (
            pd.Series(range(30), index=[f"x{i}" for i in range(30)]),
            LABELS,
            "30 of its labels name no row .*, [.]{3}[)]",
        ),
        (pd.Series([1.0, 2], index=["a", None]), LABELS, "2 of the 3 rows have no number"),
        (pd.DataFrame({"depth": [1.0, 2, 3]}, index=LABELS), LABELS, "give one column .*depth.'depth'."),
        ([pd.Series([1.0]), 2.0, 3.0], LABELS, "list of Series objects"),
        (pd.Series(pd.to_datetime(["2020", "2021", "2022"]), index=LABELS), LABELS, "datetime64"),
        ([1.0, "2", 3.0], LABELS, "numbers are needed"),
        ([1.0, None, "x"], LABELS, "holds 'x' .str."),
        ([1j, 2, 3], LABELS, "complex"),
        ([[1.0], [2.0, 3.0]], LABELS, "differ in length"),
        (None, LABELS, r"shape \(\), but one number is needed for each of the 3 rows"),
        ([1.0, 2.0], LABELS, r"shape \(2,\), but one number is needed for each of the 3 rows"),
    ],
)
def test_refused_values(values: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        numbers_of(values, {"row": labels}, "depth")
    assert str(caught.value).startswith("depth ")


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0, np.inf])
def test_a_screen_refuses_size_factors_that_are_no_depths(bulk: ad.AnnData, bad: float) -> None:
    """A single one used to leave the whole screen without numbers."""
    bulk.obs["depth"] = np.where(bulk.obs_names == "s5", bad, DEPTH)
    for given in ("depth", bulk.obs["depth"], bulk.obs["depth"].to_numpy()):
        with pytest.raises(ValueError, match="size_factors.* finite and above 0, but those of samples 'treated.*s5"):
            screen(size_factors=...)(bulk, given)


@pytest.mark.parametrize("given", [pd.Series([1.0]), pd.Series({"treated": 1.0}), {"treated": 1.0}, [1.0, 2.0], "1"])
def test_a_threshold_is_one_number(bulk: ad.AnnData, given: Any) -> None:
    with pytest.raises(TypeError, match=r"^lfc_threshold is .*, but must be a log2 fold change"):
        compare(lfc_threshold=...)(bulk, given)
    assert not bulk.varm


@pytest.mark.parametrize("call", [compare, screen])
def test_parts_of_a_prior_that_are_one_number(bulk: ad.AnnData, call: Any) -> None:
    for given in (pd.Series({"treated": 0.5}), pd.Series(0.5, index=NAMES), [0.5, 0.5]):
        with pytest.raises(ValueError, match="^prior.'null_proportion'. is an array, but must be one number"):
            call(method="quadrature", prior={"null_proportion": ...})(bulk, given)


def test_transposed_offsets_are_recognised(bulk: ad.AnnData) -> None:
    turned = pd.DataFrame(OFFSET.T, index=NAMES, columns=ROWS)
    with pytest.raises(ValueError, match="8 of the 8 rows have no number.*transposed"):
        compare(offset=...)(bulk, turned)
