"""Columns of numbers in a formula: labels if whole numbers repeat between samples, whatever they are, else quantities."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nbcompare as nb

IDENTIFIERS = {
    "101, 107, 1015, 1256": [101, 107, 1015, 1256],
    "one to four": [1, 2, 3, 4],
    "a gap": [1, 2, 4, 5],
    "from zero": [0, 1, 2, 3],
    "negative": [-3, 5, 11, 200],
    "minutes": [0, 15, 30, 60],
    "days as numbers": [20240105, 20240112, 20240201, 20240215],
    "large": [10**12, 10**12 + 1, 10**12 + 2, 10**12 + 3],
}
TYPES = {
    "int64": lambda v: np.asarray(v, np.int64),
    "float64": lambda v: np.asarray(v, np.float64),
    "Int64": lambda v: pd.array(v, dtype="Int64"),
    "Float64": lambda v: pd.array(np.asarray(v, float), dtype="Float64"),
    "object": lambda v: np.array([int(x) for x in v], dtype=object),
}


def samples(codes) -> ad.AnnData:
    """Four donors with effects of their own, two samples of each condition of each donor; the first 40 genes double."""
    rng = np.random.default_rng(3)
    donor, treated = np.repeat(np.arange(4), 4), np.arange(16) % 2
    mean = 100 * np.exp(rng.normal(0, 1, (4, 200)))[donor]
    mean[:, :40] *= np.where(treated[:, None] == 1, 2, 1)
    obs = pd.DataFrame({"condition": np.where(treated == 1, "stim", "ctrl")}, index=[f"s{i}" for i in range(16)])
    obs["donor"] = codes
    return ad.AnnData(rng.negative_binomial(20, 20 / (20 + mean)).astype(float), obs=obs)


def compared(codes, design: str, **more) -> tuple[ad.AnnData, list[str]]:
    data = samples(codes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nb.tl.nb_compare(data, "condition", reference="ctrl", design=design, **more)
    return data, [str(one.message) for one in caught]


@pytest.fixture(scope="module")
def by_labels() -> ad.AnnData:
    """Donors as text in the order of the identifiers."""
    return compared(np.repeat(["a", "b", "c", "d"], 4), "~ donor + condition")[0]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", IDENTIFIERS)
def test_numbers_that_repeat_are_labels(by_labels, name, kind):
    codes = TYPES[kind](np.repeat(IDENTIFIERS[name], 4))
    found, said = compared(codes, "~ donor + condition")
    np.testing.assert_array_equal(found.varm["nb_compare_pvals"], by_labels.varm["nb_compare_pvals"])
    assert (found.varm["nb_compare_pvals_adj"][:40] < 0.05).sum() >= 36
    assert len(said) == 1
    assert "'donor'" in said[0]
    assert "I(donor)" in said[0]
    confirmed, said = compared(codes, "~ C(donor) + condition")
    np.testing.assert_array_equal(found.varm["nb_compare_pvals"], confirmed.varm["nb_compare_pvals"])
    assert not said


@pytest.mark.parametrize("kind", ["text", "category of int", "category of text", "dates", "bool"])
def test_text_categories_dates_and_booleans_are_labels_without_a_word(by_labels, kind):
    numbers = np.repeat([101, 107, 1015, 1256], 4)
    codes = {
        "text": numbers.astype(str).astype(object),
        "category of int": pd.Categorical(numbers),
        "category of text": pd.Categorical(numbers.astype(str)),
        "dates": pd.to_datetime("2024-01-01") + pd.to_timedelta(numbers, unit="D"),
        "bool": numbers > 500,
    }[kind]
    found, said = compared(codes, "~ donor + condition")
    assert not said
    n_coefficients = 3 if kind == "bool" else 5
    assert found.varm["nb_compare_coefficients"].shape[1] == n_coefficients
    if kind != "bool":  # the levels of text are in another order
        np.testing.assert_allclose(
            found.varm["nb_compare_pvals"], by_labels.varm["nb_compare_pvals"], rtol=1e-5, atol=1e-300
        )


@pytest.mark.parametrize("term", ["I(donor)", "{donor}", "center(donor)", "scale(donor)"])
@pytest.mark.parametrize("kind", [*TYPES, "text", "category"])
def test_a_function_states_a_quantity(term, kind):
    minutes = np.repeat([0, 15, 30, 60], 4)
    make = TYPES | {"text": lambda v: np.asarray(v).astype(str).astype(object), "category": pd.Categorical}
    found, said = compared(make[kind](minutes), f"~ {term} + condition")
    expected, _ = compared(minutes, f"~ {term} + condition")
    assert found.varm["nb_compare_coefficients"].shape[1] == 3
    np.testing.assert_allclose(found.varm["nb_compare_pvals"], expected.varm["nb_compare_pvals"], rtol=1e-9)
    assert not said


def test_a_slope_with_a_contrast():
    found, said = compared(
        np.repeat([0, 15, 30, 60], 4),
        "~ I(donor) + condition",
        contrast={"slope": "I(donor)", "15 min": ("donor", 15, 0)},
    )
    slope, difference = found.varm["nb_compare_logfoldchanges"].T
    np.testing.assert_allclose(difference, 15 * slope, rtol=1e-9)
    assert not said


@pytest.mark.parametrize("values", [np.repeat([0.5, 1, 2, 4], 4), np.arange(16), np.arange(16.0) * 3])
def test_fractions_and_values_without_repeats_are_quantities(values):
    found, said = compared(values, "~ donor + condition")
    assert found.uns["nb_compare"]["design"]["coefficients"].tolist() == ["Intercept", "donor", "condition[T.stim]"]
    assert not said


def test_labels_are_named_where_they_make_a_design_impossible():
    with pytest.raises(ValueError, match=r"'donor' holds whole numbers.*write I\(donor\)"):
        compared(np.r_[np.arange(15), 3], "~ donor + condition")
    with pytest.raises(ValueError, match=r"level 7 of 'donor'.*write I\(donor\)"):
        compared(np.repeat([0, 15, 30, 60], 4), "~ donor + condition", contrast=("donor", 7, 0))


def test_dates_are_no_numbers():
    dates = pd.to_datetime("2024-01-01") + pd.to_timedelta(np.repeat([0, 1, 2, 3], 4), unit="D")
    with pytest.raises(ValueError, match="'donor'.*holds dates.*Make a column of numbers"):
        compared(dates, "~ I(donor) + condition")


def test_two_columns_are_named_in_one_warning():
    data = samples(np.repeat([1, 2, 4, 8], 4))
    data.obs["cell line"] = np.tile([1, 1, 7, 7], 4)
    with pytest.warns(UserWarning, match=r"'donor', 'cell line' hold .* I\(donor\) and I\(`cell line`\)") as said:
        nb.tl.nb_compare(data, "condition", reference="ctrl", design="~ donor + `cell line` + condition")
    assert len(said) == 1
    nb.tl.nb_compare(data, "condition", reference="ctrl", design="~ I(donor) + I(`cell line`) + condition")
    assert data.varm["nb_compare_coefficients"].shape[1] == 4


def test_all_splits_agree_on_what_is_a_label():
    """Minutes repeat in one cell type only, of which more samples are left."""
    first, second = samples(np.repeat([0, 15, 30, 60], 4)), samples(np.repeat([0, 15, 30, 60], 4))
    second = second[[0, 5, 10, 15]].copy()
    second.obs_names = [f"{name}_b" for name in second.obs_names]
    data = ad.concat({"b": first, "t": second}, label="cell_type", index_unique=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nb.tl.nb_compare(
            data, "condition", reference="ctrl", split_by="cell_type", design="~ donor + condition", min_cells=1
        )
    said = [str(one.message) for one in caught if str(one.message).startswith("'donor' holds")]
    assert len(said) == 1
    assert caught[0].filename == __file__
    names = data.uns["nb_compare"]["split_table"].set_index("split")["reason"]
    assert names["b"] == ""
    assert "donor" in names["t"]  # four samples, four labels
