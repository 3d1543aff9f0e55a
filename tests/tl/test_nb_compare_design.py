"""`design` and `contrast`: comparisons by a formula, as users ask for them and find them again."""

import re
import warnings
from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nbcompare import datasets, get, pl, pp, tl
from nbcompare._nb.status import Status

ARRAYS = [
    "logfoldchanges",
    "lfc_se",
    "lfc_lower",
    "lfc_upper",
    "scores",
    "pvals",
    "pvals_adj",
    "dispersions",
    "dispersions_genewise",
    "status",
]
DONORS = "~ donor + condition"


def compare(adata, design=DONORS, **options):
    arguments = {"reference": "ctrl", "replicate_key": "donor"} | options
    return tl.nb_compare(adata, "condition", design=design, **arguments)


def stored(adata, key="nb_compare", column=slice(None)):
    return {word: adata.varm[f"{key}_{word}"][:, column] for word in ARRAYS}


def assert_close(one, other, **tolerance):
    for word, values in one.items():
        allowed = {"rtol": 1e-6, "atol": 1e-8} | tolerance
        if word in ("lfc_lower", "lfc_upper"):  # bounds are searched to .001
            allowed["atol"] = max(allowed["atol"], 1e-3)
        np.testing.assert_allclose(values, other[word], err_msg=word, **allowed)


def has_counts(adata):
    """Genes that are tested and have counts in all arms of all comparisons."""
    return ((adata.varm["nb_compare_status"] & (512 + 255)) == 0).all(axis=1)


@pytest.fixture(scope="module")
def _bulk_once():
    adata = datasets.simulate(n_genes=200, n_conditions=2, n_replicates=4, n_cells=30, n_cells_sd=0.1, rng=3)
    pdata = pp.pseudobulk(adata, "condition", replicate_key="replicate")
    rng = np.random.default_rng(0)
    pdata.obs["age"] = rng.normal(50, 10, 8)
    pdata.obs["sex"] = ["f", "m", "f", "m", "m", "f", "f", "m"]
    pdata.obs["batch"] = [1, 1, 2, 2, 1, 2, 1, 2]
    pdata.obs["cell type"] = pd.Categorical(["B", "T"] * 4)
    del pdata.obs["psbulk_cells"]
    return pdata


@pytest.fixture
def bulk(_bulk_once):
    """Eight samples, four of `ctrl` and four of `treated_1`, with age, sex, batch and a column with a space."""
    return _bulk_once.copy()


# agreement with what is known


def test_two_groups_are_those_of_the_closed_form(bulk):
    """Equal to the test without a formula, to the last digits."""
    factors = np.ones(8)
    tl.nb_compare(bulk, "condition", reference="ctrl", size_factors=factors, key_added="closed")
    tl.nb_compare(bulk, "condition", reference="ctrl", size_factors=factors, design="~ condition", key_added="formula")
    for word in ("pvals", "pvals_unfiltered"):
        np.testing.assert_allclose(bulk.varm[f"closed_{word}"], bulk.varm[f"formula_{word}"], rtol=1e-6)
    np.testing.assert_array_equal(bulk.varm["closed_status"], bulk.varm["formula_status"])
    np.testing.assert_allclose(
        bulk.varm["closed_logfoldchanges"], bulk.varm["formula_logfoldchanges"], rtol=1e-6, atol=1e-9
    )
    tl.nb_compare(bulk, "condition", reference="ctrl", key_added="closed")
    tl.nb_compare(bulk, "condition", reference="ctrl", design="~ condition", key_added="formula")
    np.testing.assert_allclose(bulk.varm["closed_pvals"], bulk.varm["formula_pvals"], rtol=1e-6)  # unequal depths
    np.testing.assert_allclose(bulk.var["closed_base_mean"], bulk.var["formula_base_mean"])


def test_a_high_dispersion_group_is_found_and_stored_beside_a_covariate():
    """3 against 20 replicates, four times the dispersion in the 3: stored ratio, status, dispersions of the noisy group."""
    rng = np.random.default_rng(0)
    n, condition = 23, np.repeat(["ctrl", "treated"], [20, 3])
    phi = np.where(condition == "treated", 0.4, 0.1)[:, None]
    mean = np.exp(rng.uniform(2, 6, 3000)) * rng.lognormal(0, 0.3, (n, 1))
    samples = ad.AnnData(
        rng.poisson(mean * rng.gamma(1 / phi, phi, mean.shape)).astype(np.float64),
        obs=pd.DataFrame({"condition": condition, "age": rng.normal(50, 9, n)}, index=[f"s{i}" for i in range(n)]),
    )
    samples.X[22, :40] *= 12
    tl.nb_compare(samples, "condition", reference="ctrl", design="~ age + condition")
    dispersion_ratio = samples.uns["nb_compare"]["trend"]["dispersion_ratio"]
    assert dispersion_ratio.shape == (1, 2)
    assert dispersion_ratio[0, 0] == 1
    assert dispersion_ratio[0, 1] == pytest.approx(4, rel=0.3)
    status, p = samples.varm["nb_compare_status"][:, 0], samples.varm["nb_compare_pvals"][:, 0]
    tested = np.isfinite(p)
    assert ((status[tested] & Status.HIGH_DISPERSION_GROUP) > 0).all()
    before = samples.varm["nb_compare_pvals_unfiltered"][:, 0]
    rests = (status & Status.OUTLIER_REPLICATE) > 0
    assert 3 < rests[:40].sum()
    assert (p[rests] > before[rests]).all()
    assert (p[40:] < 0.001).sum() <= stats.binom.ppf(0.9999, 2960, 0.001)


def test_donors_in_the_formula_agree_with_blocks(paired):
    compare(paired)
    tl.nb_compare(paired, "condition", reference="ctrl", replicate_key="donor", block_key="donor", key_added="blocks")
    one, other = paired.varm["nb_compare_scores"], paired.varm["blocks_scores"]
    both = np.isfinite(one) & np.isfinite(other)
    assert np.corrcoef(one[both], other[both])[0, 1] > 0.97
    assert paired.uns["nb_compare"]["comparisons"].tolist() == ["treated_1", "treated_2"]


# invariants


def test_swapped_levels_flip_signs_only(paired):
    compare(paired, groups=["treated_1"])
    compare(paired, reference="treated_1", groups=["ctrl"], key_added="swapped")
    one, other = stored(paired), stored(paired, "swapped")
    for word in ("logfoldchanges", "scores"):
        other[word] = -other[word]
    other["lfc_lower"], other["lfc_upper"] = -other["lfc_upper"], -other["lfc_lower"]
    assert_close(one, other, rtol=1e-5)


def test_the_order_of_rows_is_nothing(paired, bulk):
    compare(paired)
    shuffled = paired[np.random.default_rng(0).permutation(paired.n_obs)].copy()
    compare(shuffled)
    assert_close(stored(paired), stored(shuffled), rtol=1e-12)
    np.testing.assert_array_equal(paired.varm["nb_compare_coefficients"], shuffled.varm["nb_compare_coefficients"])
    tl.nb_compare(bulk, "condition", reference="ctrl", design="~ sex + condition")
    rows = bulk[np.random.default_rng(0).permutation(8)].copy()
    tl.nb_compare(rows, "condition", reference="ctrl", design="~ sex + condition")
    assert_close(stored(bulk), stored(rows))


@pytest.mark.parametrize(
    "design",
    [
        "~ condition + donor",
        "condition + donor",
        "~ 0 + condition + donor",
        "~ 0 + donor + condition",
        "~ C(donor, contr.sum) + condition",
        "~ C(condition, contr.helmert) + donor",
    ],
)
def test_codings_of_one_model_agree(paired, design):
    compare(paired)
    compare(paired, design, key_added="other")
    assert_close(stored(paired), stored(paired, "other"), rtol=2e-4, atol=1e-6)


def test_ways_to_ask_for_the_same(paired):
    compare(paired)
    expected = stored(paired, column=[1])
    weights = np.array([0.0, 0, 0, 0, 0, 1])
    for contrast in (
        ("condition", "treated_2", "ctrl"),
        "condition[T.treated_2]",
        {"condition[T.treated_2]": 1},
        {"mine": weights},
        weights,
        [("condition", "treated_2", "ctrl")],
    ):
        compare(paired, contrast=contrast, key_added="x")
        assert_close(expected, stored(paired, "x"), rtol=1e-6, atol=1e-6)
        assert paired.uns["x"]["reference"] == ""
    compare(paired, contrast={"n": -2 * weights}, key_added="x")
    np.testing.assert_allclose(paired.varm["x_logfoldchanges"], -2 * expected["logfoldchanges"], rtol=1e-9)
    np.testing.assert_allclose(paired.varm["x_pvals"], expected["pvals"], rtol=1e-6)


def test_contrasts_in_one_fit_are_those_alone(paired):
    names = {"a": "condition[T.treated_1]", "b": ("condition", "treated_2", "treated_1"), "all": "condition"}
    compare(paired, contrast=names)
    assert paired.uns["nb_compare"]["comparisons"].tolist() == ["a", "b", "all"]
    assert paired.uns["nb_compare"]["design"]["tests"].tolist() == ["moderated", "moderated", "ql"]
    for column, (name, contrast) in enumerate(names.items()):
        compare(paired, contrast={name: contrast}, key_added="alone")
        assert_close(stored(paired, "alone"), stored(paired, column=[column]), rtol=1e-6, atol=1e-6)
    two_groups = has_counts(
        paired
    )  # a contrast with an arm without counts has half a count in it, a coefficient has not
    effects, coefficients = (
        paired.varm["nb_compare_logfoldchanges"][two_groups],
        paired.varm["nb_compare_coefficients"][two_groups],
    )
    np.testing.assert_allclose(effects[:, 0], coefficients[:, 4], atol=1e-6)
    np.testing.assert_allclose(effects[:, 1], coefficients[:, 5] - coefficients[:, 4], atol=1e-6)
    assert np.isnan(effects[:, 2]).all()
    assert (paired.varm["nb_compare_scores"][:, 2][np.isfinite(paired.varm["nb_compare_pvals"][:, 2])] >= 0).all()


def test_one_degree_of_several(bulk):
    """The F test of one coefficient is the quasi-likelihood test of that coefficient."""
    for key, contrast in (("one", "sex[T.m]"), ("term", "sex")):
        tl.nb_compare(bulk, "condition", design="~ sex + condition", contrast=contrast, test="ql", key_added=key)
    np.testing.assert_allclose(bulk.varm["one_pvals"], bulk.varm["term_pvals"])


def test_effects_are_recovered():
    adata = datasets.simulate(
        n_genes=400, n_replicates=5, n_cells=60, paired=True, donor_sd=1.0, de_fraction=0.3, rng=5
    )
    compare(adata)
    truth, found = adata.varm["true_logfoldchanges"][:, 0], adata.varm["nb_compare_logfoldchanges"][:, 0]
    se = adata.varm["nb_compare_lfc_se"][:, 0]
    seen = adata.var["nb_compare_base_mean"] > 20
    assert np.mean(np.abs(found - truth)[seen] < 2.5 * se[seen]) > 0.93
    called = adata.varm["nb_compare_pvals_adj"][:, 0] < 0.05
    assert np.mean(truth[called] != 0) > 0.85
    assert called.sum() > 30


# quantities, interactions, whole numbers, names


def test_a_slope_and_an_interaction(bulk):
    rng = np.random.default_rng(1)
    bulk.X[:, 0] = rng.poisson(200 * np.exp(0.08 * (bulk.obs["age"] - 50)))
    treated, second = (bulk.obs["condition"] == "treated_1").to_numpy(), (bulk.obs["sex"] == "m").to_numpy()
    bulk.X[:, 1] = rng.poisson(np.where(treated & second, 800, 100))
    tl.nb_compare(bulk, "condition", design="~ condition + age", contrast={"slope": "age", "20 years": ("age", 60, 40)})
    table = get.nb_compare_df(bulk, "slope").set_index("names")
    assert table.index[0] == bulk.var_names[0]
    assert table["logfoldchanges"].iloc[0] == pytest.approx(0.08 / np.log(2), rel=0.15)
    np.testing.assert_allclose(
        get.nb_compare_df(bulk, "20 years")["logfoldchanges"], 20 * table["logfoldchanges"], rtol=1e-6, atol=1e-6
    )
    tl.nb_compare(bulk, "condition", design="~ condition * sex", contrast="condition:sex", reference="ctrl")
    table = get.nb_compare_df(bulk)
    assert table["names"].iloc[0] == bulk.var_names[1]
    assert table["logfoldchanges"].iloc[0] == pytest.approx(3, abs=0.5)


def test_an_interaction_without_a_contrast_says_at_which_level(bulk):
    with pytest.warns(
        UserWarning, match="depend on 'sex' .condition:sex.: the comparisons are those at sex 'f'"
    ) as said:
        tl.nb_compare(bulk, "condition", reference="ctrl", design="~ condition * sex")
    assert len(said) == 1
    assert said[0].filename == __file__
    tl.nb_compare(
        bulk,
        "condition",
        design="~ condition * sex",
        contrast="condition[T.treated_1]",
        reference="ctrl",
        key_added="x",
    )
    assert_close(stored(bulk), stored(bulk, "x"))


def test_whole_numbers_that_repeat_are_labels(bulk):
    bulk.obs["plate"] = [1, 1, 2, 2, 3, 3, 2, 3]
    with pytest.warns(UserWarning, match=r"'plate' holds whole numbers.*I\(plate\).*C\(plate\)") as said:
        tl.nb_compare(bulk, "condition", reference="ctrl", design="~ plate + condition")
    assert said[0].filename == __file__
    assert len(said) == 1
    assert bulk.varm["nb_compare_coefficients"].shape[1] == 4
    for design, n_coefficients in {"C(plate)": 4, "I(plate)": 3, "poly(plate, 2)": 4, "plate + log(plate)": 4}.items():
        tl.nb_compare(bulk, "condition", reference="ctrl", design=f"~ {design} + condition")  # states it: no warning
        assert bulk.varm["nb_compare_coefficients"].shape[1] == n_coefficients, design


def test_a_replicate_is_a_label_whatever_its_type(paired):
    compare(paired)
    numbers = paired.copy()
    numbers.obs["donor"] = numbers.obs["donor"].str[-1].astype(int)
    compare(numbers)
    assert_close(stored(paired), stored(numbers), rtol=1e-12)


def test_names_with_spaces_booleans_and_strings(bulk):
    bulk.obs["flag"] = bulk.obs["sex"] == "m"
    bulk.obs["text"] = bulk.obs["sex"].astype("string")
    tl.nb_compare(bulk, "condition", design="~ `cell type` + flag + condition", contrast=("cell type", "T", "B"))
    names = bulk.uns["nb_compare"]["design"]["coefficients"].tolist()
    assert names == ["Intercept", "cell type[T.T]", "flag[T.True]", "condition[T.treated_1]"]
    tl.nb_compare(bulk, "condition", design="~ flag + condition", contrast=("flag", True, False), key_added="a")
    tl.nb_compare(bulk, "condition", design="~ text + condition", contrast="text[T.m]", key_added="b")
    assert_close(stored(bulk, "a"), stored(bulk, "b"))


def test_the_reference_is_the_origin_of_the_coefficients(paired):
    compare(paired, reference="treated_2")
    names = paired.uns["nb_compare"]["design"]["coefficients"].tolist()
    assert names[-2:] == ["condition[T.ctrl]", "condition[T.treated_1]"]
    two_groups = has_counts(paired)
    effects, coefficients = paired.varm["nb_compare_logfoldchanges"], paired.varm["nb_compare_coefficients"]
    np.testing.assert_allclose(effects[two_groups], coefficients[two_groups, -2:], atol=1e-6)


def test_several_columns_of_conditions(paired):
    paired.obs["time"] = pd.Categorical(np.where(np.arange(paired.n_obs) % 2, "late", "early"))
    options = {"replicate_key": "donor", "min_cells": 3}
    tl.nb_compare(
        paired, ["condition", "time"], reference="ctrl | early", design="~ donor + condition + time", **options
    )
    names = paired.uns["nb_compare"]["comparisons"].tolist()
    assert names[:2] == ["ctrl | late", "treated_1 | early"]
    both = paired.varm["nb_compare_logfoldchanges"]
    at = {name: both[:, k] for k, name in enumerate(names)}
    np.testing.assert_allclose(at["treated_1 | late"], at["treated_1 | early"] + at["ctrl | late"], atol=1e-6)
    with pytest.raises(ValueError, match="does not name 'time', by which is compared"):
        tl.nb_compare(paired, ["condition", "time"], reference="ctrl | early", design="~ donor + condition", **options)


# tests and methods


@pytest.mark.parametrize("method", ["mom", "mle"])
@pytest.mark.parametrize("test", ["moderated", "ql", "wald", "lrt"])
def test_every_test_by_every_method(paired, test, method):
    compare(paired, test=test, method=method, contrast={"a": "condition[T.treated_1]", "all": "condition"})
    p, status = paired.varm["nb_compare_pvals"], paired.varm["nb_compare_status"]
    np.testing.assert_array_equal(np.isfinite(p), (status & 255) == 0)
    assert (p[np.isfinite(p)] <= 1).all()
    assert (p[np.isfinite(p)] > 0).all()
    moderated = method == "mom" or test in ("moderated", "ql")
    assert ("nb_compare_dispersion_trend" in paired.var) == moderated
    compare(paired, key_added="r")
    both = np.isfinite(p[:, 0])
    assert np.corrcoef(paired.varm["nb_compare_scores"][both, 0], paired.varm["r_scores"][both, 0])[0, 1] > 0.8


def test_gene_wise_dispersions_are_those_of_the_method(paired):
    compare(paired)
    compare(paired, method="mle", key_added="ml")
    compare(paired, method="mle", test="wald", key_added="wald")
    for word in ("pvals", "logfoldchanges", "dispersions"):
        np.testing.assert_array_equal(paired.varm[f"nb_compare_{word}"], paired.varm[f"ml_{word}"])
    tested = np.isfinite(paired.varm["ml_pvals"][:, 0])
    np.testing.assert_allclose(
        paired.varm["ml_dispersions_genewise"][tested, 0], paired.varm["wald_dispersions"][tested, 0]
    )
    assert not np.allclose(
        paired.varm["ml_dispersions_genewise"][tested], paired.varm["nb_compare_dispersions_genewise"][tested]
    )


# what is stored


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(paired, tmp_path, suffix):
    compare(paired, contrast={"a/b": ("condition", "treated_1", "ctrl"), "all": "condition"})
    path = tmp_path / f"x.{suffix}"
    getattr(paired, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path)
    for word in [*ARRAYS, "coefficients"]:
        np.testing.assert_array_equal(back.varm[f"nb_compare_{word}"], paired.varm[f"nb_compare_{word}"])
    design, expected = back.uns["nb_compare"]["design"], paired.uns["nb_compare"]["design"]
    assert design["formula"] == DONORS
    assert design["coefficients"].tolist() == expected["coefficients"].tolist()
    for word in ("model_matrix", "contrasts", "contrast_of"):
        np.testing.assert_array_equal(design[word], expected[word])
    assert design["model_matrix"].shape == (12, 6)
    assert design["contrasts"].shape == (6, 3)
    assert design["contrast_of"].tolist() == [0, 1, 1]
    params = back.uns["nb_compare"]["params"]
    assert params["design"] == DONORS
    assert eval(params["contrast"]) == {"a/b": ("condition", "treated_1", "ctrl"), "all": "condition"}
    pd.testing.assert_frame_equal(get.nb_compare_df(back, "a/b"), get.nb_compare_df(paired, "a/b"))
    with pytest.raises(ValueError, match="contrasts of a design, such as 'a/b'"):
        get.to_rank_genes_groups(back)


def test_a_call_without_a_design_leaves_nothing_of_it(paired):
    compare(paired)
    tl.nb_compare(paired, "condition", reference="ctrl", replicate_key="donor", block_key="donor")
    assert "nb_compare_coefficients" not in paired.varm
    assert "design" not in paired.uns["nb_compare"]


def test_the_model_matrix_belongs_to_the_stored_samples(paired):
    paired.obs.loc[paired.obs["donor"] == "donor_1", "condition"] = "ctrl"
    compare(paired, min_cells=15)
    uns = paired.uns["nb_compare"]
    assert uns["design"]["model_matrix"].shape[0] == len(uns["samples"]) < 12
    names = uns["design"]["coefficients"].tolist()
    treated = uns["design"]["model_matrix"][:, names.index("condition[T.treated_1]")]
    np.testing.assert_array_equal(treated == 1, uns["samples"]["condition"] == "treated_1")


def test_figures(paired, plt_closed):
    compare(paired, contrast={"a": "condition[T.treated_1]", "all": "condition"})
    for figure in (pl.volcano, pl.ma, pl.pvalues, pl.dispersion):
        assert figure(paired, "a").get_title(loc="left") in ("a", "")
    for figure in (pl.pvalues, pl.dispersion):
        assert figure(paired, "all").get_title(loc="left") in ("all", "")
    for figure in (pl.volcano, pl.ma):
        with pytest.raises(ValueError, match="'all' tests 2 coefficients together"):
            figure(paired, "all")
    ax = pl.gene(paired, paired.var_names[0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ctrl", "treated_1", "treated_2"]


@pytest.fixture
def plt_closed():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


# splits


def test_designs_in_splits(paired):
    paired.obs["cell_type"] = np.where(np.random.default_rng(0).random(paired.n_obs) < 0.5, "B", "T")
    options = {"split_by": "cell_type", "min_cells": 3}
    compare(paired, **options)
    uns = paired.uns["nb_compare"]
    assert uns["splits"].tolist() == ["B", "B", "T", "T"]
    assert sorted(uns["design"]) == ["0", "1"]
    assert paired.varm["nb_compare_coefficients"].shape[1] == sum(
        len(d["coefficients"]) for d in uns["design"].values()
    )
    for number, name in enumerate(["B", "T"]):
        part = paired[paired.obs["cell_type"] == name].copy()
        compare(part, min_cells=3)
        assert_close(stored(paired, column=slice(2 * number, 2 * number + 2)), stored(part), rtol=1e-12)
    compare(paired, contrast="condition", **options)
    assert uns["splits"].tolist() == ["B", "B", "T", "T"]
    assert get.nb_compare_df(paired, "condition", split="T")["pvals"].notna().any()


# designs of less than full rank


def by_hand(adata, matrix, kept, weights, **options):
    """The same comparison with the columns that are left, each as a quantity of its own, and no intercept."""
    names = [f"x{j}" for j in kept]
    terms = [f"I({name})" for name in names]  # 0 and 1, but coefficients and no levels
    for name, j in zip(names, kept, strict=True):
        adata.obs[name] = matrix[:, j]
    contrast = {"asked": {f"I(x{j})": float(weights[j]) for j in kept if weights[j]}}
    tl.nb_compare(
        adata, "condition", design="~ 0 + " + " + ".join(terms), contrast=contrast, key_added="hand", **options
    )
    return stored(adata, "hand")


@pytest.fixture
def nested():
    """Three donors in each of two groups, three conditions of each donor."""
    adata = datasets.simulate(
        n_genes=120, n_conditions=3, n_replicates=6, n_cells=20, n_cells_sd=0.1, paired=True, rng=5
    )
    pdata = pp.pseudobulk(adata, "condition", replicate_key="donor")
    number = pdata.obs["donor"].astype(str).str[-1].astype(int).to_numpy()
    pdata.obs["group"] = np.where(number <= 3, "old", "young")
    del pdata.obs["psbulk_cells"]
    return pdata


@pytest.mark.parametrize("options", [{}, {"test": "ql"}, {"test": "lrt"}, {"lfc_threshold": 0.5}, {"shrink": True}])
def test_what_differs_within_nested_donors_is_tested(nested, options):
    """Donors are nested in groups: the interaction of group and condition is that of the design without the column that is too many."""
    design = "~ group + donor + condition + group:condition"
    contrast = {"change": {"group[T.young]:condition[T.treated_1]": 1.0}}
    with pytest.warns(
        UserWarning,
        match="does not determine all coefficients: 'donor' is nested in 'group'.*'group.T.young.'.*are NaN",
    ):
        tl.nb_compare(nested, "condition", design=design, contrast=contrast, **options)
    description = nested.uns["nb_compare"]["design"]
    matrix, names = description["model_matrix"], description["coefficients"].tolist()
    rank = np.linalg.matrix_rank(matrix)
    assert matrix.shape == (18, len(names)) == (18, rank + 1)
    kept = [j for j, name in enumerate(names) if name != "group[T.young]"]
    weights = np.array([float(name == "group[T.young]:condition[T.treated_1]") for name in names])
    assert_close(stored(nested), by_hand(nested, matrix, kept, weights, **options), rtol=1e-6, atol=1e-8)
    coefficients, hand = nested.varm["nb_compare_coefficients"], nested.varm["hand_coefficients"]
    lost = [
        name in ("group[T.young]",) or name in ("donor[T.donor_4]", "donor[T.donor_5]", "donor[T.donor_6]")
        for name in names
    ]
    assert np.isnan(coefficients).all(axis=0).tolist() == lost
    known = ~np.array(lost)
    np.testing.assert_allclose(coefficients[:, known], hand[:, known[kept]], rtol=1e-5, atol=1e-6)


def test_groups_of_nested_donors_cannot_be_compared(nested, unchanged):
    before = nested.copy()
    with pytest.raises(
        ValueError,
        match=r"contrast 'young vs old' cannot be estimated.*'donor' is nested in 'group'.*cannot be separated from",
    ):
        tl.nb_compare(nested, "condition", design="~ group + donor + condition", contrast=("group", "young", "old"))
    unchanged(nested, before)


def test_an_interaction_with_an_empty_cell(nested):
    """No sample of the young has the second treatment: the other comparisons are those of the design without that coefficient."""
    part = nested[~((nested.obs["group"] == "young") & (nested.obs["condition"] == "treated_2"))].copy()
    contrast = {"at old": ("condition", "treated_2", "ctrl"), "difference": "group[T.young]:condition[T.treated_1]"}
    with pytest.warns(UserWarning, match="no sample has group 'young' and condition 'treated_2'"):
        tl.nb_compare(part, "condition", design="~ group * condition", contrast=contrast)
    description = part.uns["nb_compare"]["design"]
    matrix, names = description["model_matrix"], description["coefficients"].tolist()
    empty = names.index("group[T.young]:condition[T.treated_2]")
    assert np.isnan(part.varm["nb_compare_coefficients"]).all(axis=0).tolist() == [
        j == empty for j in range(len(names))
    ]
    kept = [j for j in range(len(names)) if j != empty]
    ours = stored(part)
    for column in range(2):
        hand = by_hand(part, matrix, kept, description["contrasts"][:, column])
        assert_close({word: values[:, [column]] for word, values in ours.items()}, hand, rtol=1e-8, atol=1e-10)
    with pytest.raises(
        ValueError,
        match="contrast 'group.T.young.:condition.T.treated_2.' cannot be estimated.*is zero in every sample",
    ):
        tl.nb_compare(part, "condition", design="~ group * condition", contrast="group[T.young]:condition[T.treated_2]")


# refusals

REFUSED = {
    "unknown column": ({"design": "~ doner + condition"}, KeyError, "Did you mean 'donor'"),
    "varies": (
        {"design": "~ parity + condition"},
        ValueError,
        "several values within 12 of 12 samples: 'ctrl . donor_1'.*replicate_key",
    ),
    "varies, a quantity": (
        {"design": "~ number + condition"},
        ValueError,
        "'number', which has several values.*Average it",
    ),
    "missing": (
        {"design": "~ hole + condition"},
        ValueError,
        "'hole'. is missing in 3 of 12 samples: 'ctrl . donor_2'",
    ),
    "infinite": ({"design": "~ endless + condition"}, ValueError, "'endless'. is infinite in 3 of 12 samples"),
    "nested": (
        {"replicate_key": ["donor", "condition"], "design": "~ mouse + condition"},
        ValueError,
        "'mouse' is nested in 'condition'",
    ),
    "no degrees of freedom": ({"design": "~ donor * condition"}, ValueError, "12 coefficients for 12 samples"),
    "no such reference": ({"reference": "Ctrl"}, ValueError, "Did you mean 'ctrl'"),
    "no reference": ({"reference": None}, ValueError, "reference is required. Available groups: 'ctrl', 'treated_1'"),
    "rest": ({"reference": "rest"}, ValueError, "cannot be combined with design"),
    "groupby not in the design": ({"design": "~ donor"}, ValueError, "does not name 'condition'"),
    "no such group": ({"groups": ["treated_3"]}, ValueError, "no group 'treated_3'"),
    "groups and contrast": ({"groups": ["treated_1"], "contrast": "condition"}, ValueError, "Leave one of them out"),
    "blocks": ({"block_key": "donor"}, ValueError, "Put the blocks in the formula: design='~ donor"),
    "pairs": ({"dispersion": "pair"}, ValueError, "fits all samples together"),
    "no such level": ({"contrast": ("condition", "treated_3", "ctrl")}, ValueError, "'treated_3' of 'condition'"),
    "no such coefficient": ({"contrast": "condition[T.ctrl]"}, KeyError, "no coefficient or term"),
    "contrast without design": ({"design": None, "contrast": "condition"}, ValueError, "contrast requires a design"),
    "ql without design": ({"design": None, "test": "ql"}, ValueError, "test='ql' requires a design"),
    "no test": ({"test": "score"}, ValueError, "must be one of"),
    "a number": ({"design": 3}, TypeError, "design is 3, but must be text, a formula"),
    "one level": ({"design": "~ constant + condition"}, ValueError, "all 12 samples that are left have the value 'k'"),
}


def with_odd_columns(adata):
    donor = adata.obs["donor"].astype(str)
    adata.obs["parity"] = np.where(np.arange(adata.n_obs) % 2, "odd", "even")
    adata.obs["number"] = np.arange(adata.n_obs) + 0.5
    adata.obs["hole"] = donor.map({"donor_1": 1.0, "donor_3": 2.0, "donor_4": 2.5}).astype(float)
    adata.obs["endless"] = donor.map({"donor_1": 1.0, "donor_2": np.inf, "donor_3": 2.0, "donor_4": 2.5}).astype(float)
    adata.obs["mouse"] = donor + adata.obs["condition"].astype(str)
    adata.obs["constant"] = "k"
    return adata


@pytest.mark.parametrize("name", REFUSED)
def test_refused(paired, unchanged, name):
    options, error, message = REFUSED[name]
    adata = with_odd_columns(paired)
    before = adata.copy()
    with pytest.raises(error) as caught:
        compare(adata, **options)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    unchanged(adata, before)


def test_refused_before_anything_is_summed(paired, monkeypatch):
    """A design that cannot be answered costs no pass over the counts."""
    from nbcompare._anndata import samples

    monkeypatch.setattr(samples, "sum_counts", lambda *_, **__: pytest.fail("counts were summed"))
    adata = with_odd_columns(paired)
    for name in (
        "unknown column",
        "varies",
        "missing",
        "nested",
        "no degrees of freedom",
        "no such level",
        "one level",
    ):
        options, error, _ = REFUSED[name]
        with pytest.raises(error):
            compare(adata, **options)


def test_covariates_of_dropped_samples_may_be_missing(paired):
    with_odd_columns(paired)
    kept = (paired.obs["donor"] != "donor_2") | (np.arange(paired.n_obs) % 5 == 0)
    adata = paired[kept.to_numpy()].copy()
    compare(adata, "~ hole + condition", min_cells=8)
    assert set(adata.uns["nb_compare"]["dropped_samples"]["replicate"]) == {"donor_2"}


@cache
def small_samples():
    adata = datasets.simulate(n_genes=20, n_conditions=3, n_replicates=4, n_cells=20, paired=True, rng=2)
    pdata = pp.pseudobulk(adata, "condition", replicate_key="donor")
    pdata.obs["age"] = np.arange(12.0)
    return pdata


POSTERIOR_NAMES = st.lists(
    st.sampled_from(["donor", "condition", "age", "+", "*", ":", "~", "(", ")", "0", "1", "-", "C(", "`", "log(", " "]),
    max_size=8,
)


@given(POSTERIOR_NAMES.map("".join))
@settings(max_examples=40)
def test_any_other_formula_is_refused_in_words(design):
    """A formula is compared by, or refused with a sentence; nothing else happens."""
    samples = small_samples()
    before = set(samples.varm), set(samples.uns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tl.nb_compare(samples, "condition", reference="ctrl", design=design, copy=True)
        except (ValueError, KeyError, TypeError) as error:
            said = str(error)
        else:
            said = "the comparison was made as it was asked for"
    assert len(said) > 25
    assert (set(samples.varm), set(samples.uns)) == before
