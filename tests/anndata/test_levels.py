"""Levels: what a user calls a level is the level in every function, and names that look like mistakes are named."""

from __future__ import annotations

import datetime
import warnings

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import nbcompare as nb
from nbcompare._anndata import the_level

mpl.use("Agg")

LEVELS = {
    "int": (0, 24),
    "bool": (False, True),
    "whole float": (0.0, 24.0),
    "float": (0.5, 2.5),
    "float32": (np.float32(0.1), np.float32(0.7)),
    "text": ("ctrl", "stim"),
    "date": (pd.Timestamp("2024-01-01"), pd.Timestamp("2024-02-01")),
}
SPELLINGS = {
    "int": [lambda v: v, str, float, np.int8, np.float64, lambda v: np.array(v), lambda v: pd.Categorical([v])[0]],
    "bool": [lambda v: v, str, np.bool_],
    "whole float": [lambda v: v, str, int, np.float32, lambda v: str(int(v))],
    "float": [lambda v: v, str, np.float64],
    "float32": [lambda v: v, str, lambda v: float(str(v))],
    "text": [lambda v: v, np.str_, lambda v: pd.Categorical([v])[0]],
    "date": [lambda v: v, str, np.datetime64, lambda v: v.to_pydatetime(), lambda v: v.date()],
}
WAYS = [(name, number) for name, ways in SPELLINGS.items() for number in range(len(ways))]


def samples(low, high, name: str = "condition") -> ad.AnnData:
    """Four samples at each of the two levels in each of two cell types, which are called the same."""
    rng = np.random.default_rng(0)
    values = np.array([low, high], dtype=object)[np.arange(16) // 4 % 2]
    types = np.array([low, high], dtype=object)[np.arange(16) // 8]
    obs = pd.DataFrame(index=[f"s{i}" for i in range(16)])
    obs[name], obs["type"] = pd.Series(values).infer_objects().to_numpy(), pd.Series(types).infer_objects().to_numpy()
    if isinstance(low, np.float32):
        obs = obs.astype(np.float32)
    return ad.AnnData(rng.negative_binomial(20, 0.2, (16, 60)).astype(float), obs=obs)


@pytest.mark.parametrize(("name", "number"), WAYS)
@pytest.mark.parametrize("categorical", [False, True])
def test_a_level_is_found_by_its_value_in_every_function(name, number, categorical):
    low, high = LEVELS[name]
    way = SPELLINGS[name][number]
    data = samples(low, high)
    if categorical:
        data.obs = data.obs.astype("category")
    label, control = str(high), str(low)
    given = {"reference": way(low), "groups": way(high)}

    nb.tl.nb_compare(data, "condition", **given)
    assert data.uns["nb_compare"]["comparisons"].tolist() == [label]
    assert data.uns["nb_compare"]["reference"] == control
    expected = nb.get.nb_compare_df(data, label)
    pd.testing.assert_frame_equal(nb.get.nb_compare_df(data, way(high)), expected)
    assert nb.get.nb_compare_df(data, [way(high)])["group"].unique().tolist() == [label]
    assert nb.pl.volcano(data, way(high)).get_title(loc="left").startswith(label)
    for figure in (nb.pl.ma, nb.pl.pvalues, nb.pl.dispersion):
        assert figure(data, way(high)) is not None
    assert nb.pl.forest(data, "0", groups=way(high)).get_yticklabels()[0].get_text() == label
    assert [tick.get_text() for tick in nb.pl.gene(data, "0", groups=way(high)).get_xticklabels()] == [control, label]

    nb.tl.nb_compare(data, "condition", **given, design="~ condition", key_added="design")
    assert data.uns["design"]["comparisons"].tolist() == [label]
    pair = ("condition", way(high), way(low))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that whole numbers are labels
        nb.tl.nb_compare(data, "condition", design="~ condition", contrast={"pair": pair}, key_added="pair")
    np.testing.assert_allclose(data.varm["pair_pvals"], data.varm["design_pvals"], rtol=1e-6)

    nb.tl.nb_compare(data, "condition", **given, split_by="type", key_added="types")
    table = nb.get.nb_compare_df(data, way(high), split=way(high), key="types")
    pd.testing.assert_frame_equal(table, nb.get.nb_compare_df(data, label, split=label, key="types"))
    assert len(nb.get.nb_gene_df(data, "0", split=way(high), key="types")) == 8
    assert nb.pl.ma(data, way(high), split=way(low), key="types") is not None
    nb.get.to_rank_genes_groups(data, "types", split=way(high))

    screen = nb.tl.nb_screen(data, "condition", reference=way(low), progress=False)
    assert screen.obs_names.tolist() == [label]
    assert screen.uns["nb_screen"]["reference"] == control
    assert len(nb.get.nb_screen_df(screen, way(high))) == 60
    assert nb.pl.volcano(screen, way(high)) is not None
    mpl.pyplot.close("all")


def test_a_level_that_is_not_there_is_refused_in_every_function():
    data = samples(0, 24)
    with pytest.raises(ValueError, match="no group '12'"):
        nb.tl.nb_compare(data, "condition", reference=0, groups=12)
    with pytest.raises(ValueError, match="no group 'False' to be the reference"):
        nb.tl.nb_compare(data, "condition", reference=False)
    with pytest.raises(ValueError, match="no group '12' to be the reference"):
        nb.tl.nb_screen(data, "condition", reference=12, progress=False)
    nb.tl.nb_compare(data, "condition", reference=0)
    for call in (nb.get.nb_compare_df, nb.pl.volcano):
        with pytest.raises(KeyError, match="no comparison '12'"):
            call(data, 12)


@pytest.mark.parametrize(
    ("value", "known", "level"),
    [
        (0, ["0", "24"], "0"),
        (0, ["0.0", "24.0"], "0.0"),
        ("0", ["0.0", "24.0"], "0.0"),
        (7, ["007", "8"], "7"),  # not known: an identifier is not its number
        ("07", ["7"], "07"),
        (1, ["True", "False"], "1"),
        (True, ["1", "0"], "True"),
        (1, ["1", "1.0"], "1"),
        (10**16 + 1, [str(10**16), str(10**16 + 1)], str(10**16 + 1)),
        (10**16 + 1, [str(10**16)], str(10**16 + 1)),  # the same as a float
        (np.float32(0.1), ["0.1"], "0.1"),
        (datetime.date(2024, 1, 1), ["2024-01-01 00:00:00"], "2024-01-01 00:00:00"),
        (("a", 1), ["a | 1"], "a | 1"),
        ("nan", ["nan"], "nan"),
    ],
)
def test_values_and_levels(value, known, level):
    assert the_level(value, known) == level


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_missing_reference_is_asked_for(missing):
    data = samples("ctrl", "stim")
    said = "reference is required. Available groups: 'ctrl', 'stim'"
    for options, end in (
        ({}, " (or 'rest')."),
        ({"split_by": "type"}, " (or 'rest')."),
        ({"design": "~ condition"}, "."),
    ):
        with pytest.raises(ValueError, match="reference is required") as caught:
            nb.tl.nb_compare(data, "condition", reference=missing, **options)
        assert str(caught.value) == said + end
    with pytest.raises(ValueError, match="reference is required") as caught:
        nb.tl.nb_screen(data, "condition", reference=missing, progress=False)
    assert str(caught.value) == said + "."
    with pytest.raises(ValueError, match="reference is required"):
        nb.tl.nb_screen(data, "condition", progress=False)


def test_screens_and_comparisons_point_to_each_other():
    data = samples("ctrl", "stim")
    screen = nb.tl.nb_screen(data, "condition", reference="ctrl", progress=False)
    for call in (nb.get.nb_compare_df, nb.get.to_rank_genes_groups, nb.pl.dispersion):
        with pytest.raises(KeyError, match="is a screen.*nb_screen_df"):
            call(screen)
    nb.tl.nb_compare(data, "condition", reference="ctrl", key_added="mine")
    for call in (nb.get.nb_screen_df, nb.pl.screen_map):
        with pytest.raises(ValueError, match="'mine'.*nb_compare_df"):
            call(data)


def cells() -> ad.AnnData:
    """Cells of two conditions, four donors, two batches, two cell types."""
    rng = np.random.default_rng(1)
    n = 640
    obs = pd.DataFrame(
        {
            "condition": np.where(np.arange(n) % 2 == 0, "ctrl", "stim"),
            "donor": [f"d{k}" for k in np.arange(n) // 2 % 4],
            "batch": [f"b{k}" for k in np.arange(n) // 2 % 4 // 2],
            "type": [f"t{k}" for k in np.arange(n) // 8 % 2],
        },
        index=[f"c{i}" for i in range(n)],
    ).astype(object)
    return ad.AnnData(rng.poisson(3, (n, 60)).astype(float), obs=obs)


FUNCTIONS = {
    "nb_compare": lambda data: nb.tl.nb_compare(
        data, "condition", reference="ctrl", replicate_key=["donor", "batch"], block_key="batch", split_by="type"
    ),
    "nb_screen": lambda data: nb.tl.nb_screen(
        data,
        "condition",
        reference="ctrl",
        replicate_key=["donor", "batch", "type"],
        block_key="batch",
        progress=False,
    ),
    "pseudobulk": lambda data: nb.pp.pseudobulk(data, ["condition", "type"], replicate_key=["donor", "batch"]),
}


def said_by(call, data) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(data)
    return [one for one in caught if "means missing" in str(one.message) or "spaces or case" in str(one.message)]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("column", ["condition", "donor", "batch", "type"])
@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "N/A", "none", "None", "<NA>", "", "  "])
def test_text_that_means_missing_is_named(function, column, word):
    data = cells()
    data.obs.loc[data.obs_names[-64:], column] = word
    said = said_by(FUNCTIONS[function], data)
    assert len(said) == 1
    assert said[0].filename == __file__
    message = str(said[0].message)
    assert f"adata.obs[{column!r}] holds the text {word!r} in 64 cells" in message
    exec(message.split("write ")[1].split(". Such")[0], {"adata": data})  # what the message says to write
    assert data.obs[column].isna().sum() == 64
    assert not said_by(FUNCTIONS[function], data)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_levels_that_differ_by_spaces_or_case_are_named(function):
    data = cells()
    data.obs.loc[data.obs_names[-64::2], "condition"] = "ctrl "
    data.obs.loc[data.obs_names[-32:], "donor"] = data.obs["donor"].iloc[-32:].str.upper()
    said = said_by(FUNCTIONS[function], data)
    assert len(said) == 1
    message = str(said[0].message)
    assert "adata.obs['condition']: 'ctrl' (288 cells), 'ctrl ' (32 cells)" in message
    assert "'D0' (8 cells), 'd0' (152 cells)" in message
    assert said[0].filename == __file__


def test_several_words_are_one_warning_and_a_level_that_is_asked_for_is_meant():
    data = cells()
    data.obs.loc[data.obs_names[-64:-32], "donor"] = "NA"
    data.obs.loc[data.obs_names[-32:], "donor"] = ""
    data.obs.loc[data.obs_names[:64], "batch"] = "nan"
    message = str(said_by(FUNCTIONS["pseudobulk"], data)[0].message)
    assert "'' in 32 cells and 'NA' in 32 cells" in message
    assert "adata.obs['batch'] holds the text 'nan' in 64 cells" in message
    untreated = cells()
    untreated.obs["condition"] = untreated.obs["condition"].replace("ctrl", "none")
    keys = {"reference": "none", "replicate_key": "donor"}
    assert not said_by(lambda one: nb.tl.nb_compare(one, "condition", **keys), untreated)
    assert not said_by(lambda one: nb.tl.nb_screen(one, "condition", **keys, progress=False), untreated)
    assert not said_by(lambda one: nb.get.nb_gene_df(one, "0"), untreated)


def test_nothing_is_said_of_usual_names():
    for call in FUNCTIONS.values():
        assert not said_by(call, cells())
