"""Formulas on the columns of obs, contrasts of their coefficients, and what is confounded with what."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from formulaic_contrasts import FormulaicContrasts
from hypothesis import given, settings
from hypothesis import strategies as st

from nbcompare.tl._formula.contrasts import group_contrasts, read_contrasts
from nbcompare.tl._formula.estimability import aliased, check_estimable, reduce_matrix
from nbcompare.tl._formula.model_matrix import build_model, formula_columns


def table(**columns):
    """Samples by columns; strings of letters are levels."""
    return pd.DataFrame({k: pd.Categorical(list(v)) if isinstance(v, str) else v for k, v in columns.items()})


@pytest.fixture
def covariates():
    """Three donors with four conditions each, a column with a space, an age and whole numbers."""
    return pd.DataFrame(
        {
            "donor": pd.Categorical(np.repeat(list("xyz"), 4)),
            "condition": pd.Categorical(["ctrl", "A", "B", "C"] * 3, categories=["ctrl", "A", "B", "C"]),
            "cell type": pd.Categorical(list("mnmnnmnmmmnn")),
            "age": np.arange(12.0) ** 1.3 + 20,
            "batch": np.array([1, 2, 2, 1, 2, 1, 1, 2, 1, 2, 2, 1]),
        }
    )


def model_of(design, covariates):
    return build_model(design, covariates[formula_columns(design, list(covariates))])


# formulas


@pytest.mark.parametrize(
    ("design", "columns", "coefficients"),
    [
        ("~ donor + condition", ["donor", "condition"], ["Intercept", "donor[T.y]", "donor[T.z]", "condition[T.A]"]),
        ("donor", ["donor"], ["Intercept", "donor[T.y]", "donor[T.z]"]),
        ("~ 0 + donor", ["donor"], ["donor[x]", "donor[y]", "donor[z]"]),
        ("~ donor - 1", ["donor"], ["donor[x]", "donor[y]", "donor[z]"]),
        ("~ `cell type`*age", ["cell type", "age"], ["Intercept", "cell type[T.n]", "age", "cell type[T.n]:age"]),
        ("~ log(age) + np.sqrt(age)", ["age"], ["Intercept", "log(age)", "np.sqrt(age)"]),
        ("~ C(batch)", ["batch"], ["Intercept", "C(batch)[T.2]"]),
        ("~ batch", ["batch"], ["Intercept", "batch"]),
        ("~ poly(age, 2)", ["age"], ["Intercept", "poly(age, 2)[1]", "poly(age, 2)[2]"]),
        ("~ I(age ** 2) + {age + 1}", ["age"], ["Intercept", "I(age ** 2)", "age + 1"]),
        ("~ C(donor, contr.treatment('y'))", ["donor"], ["Intercept"]),
    ],
)
def test_columns_and_coefficients(covariates, design, columns, coefficients):
    assert formula_columns(design, list(covariates)) == columns
    model = model_of(design, covariates)
    assert model.coefficients[: len(coefficients)] == coefficients
    assert model.matrix.shape == (12, len(model.coefficients))
    assert sorted(j for where in model.terms.values() for j in where) == list(range(len(model.coefficients)))


def test_a_column_that_is_called_like_a_function(covariates):
    covariates = covariates.rename(columns={"batch": "log"})
    assert formula_columns("~ log(age)", list(covariates)) == ["age"]
    assert formula_columns("~ log + age", list(covariates)) == ["log", "age"]


@pytest.mark.parametrize(
    ("design", "error", "message"),
    [
        (3, TypeError, "design is int, but a formula is text"),
        ("~ donor +", ValueError, "no formula"),
        ("", ValueError, "is empty"),
        ("counts ~ donor", ValueError, "several sides"),
        ("~ donor | condition", ValueError, "several sides or parts"),
        ("~ doner", KeyError, "'doner', which is no column.*Did you mean 'donor'"),
        ("~ log(agee)", KeyError, "'agee', which is no column.*Did you mean 'age'"),
        ("~ `cell typ`", KeyError, "Did you mean 'cell type'"),
        ("~ lg(age)", ValueError, "cannot be evaluated.*lg"),
        ("~ log(donor)", ValueError, "cannot be evaluated"),
        ("~ log(age - 20)", ValueError, "is not a number in sample 0 .1 such"),
        ("~ __import__('os').getcwd() + donor", ValueError, "no formula"),
        ("~ .", ValueError, "no formula"),
    ],
)
def test_refused_formulas(covariates, design, error, message):
    with pytest.raises(error, match=message):
        check_estimable(model_of(design, covariates))


# contrasts


def weights(model, contrast):
    return {one.name: one.weights.T for one in read_contrasts(model, contrast)}


def test_ways_to_ask_for_the_same(covariates):
    model = model_of("~ donor + condition", covariates)
    n = len(model.coefficients)
    expected = np.eye(n)[[model.coefficients.index("condition[T.B]")]]
    for contrast in (
        ("condition", "B", "ctrl"),
        ["condition", "B", "ctrl"],
        "condition[T.B]",
        {"condition[T.B]": 1},
        expected[0],
        expected,
        expected[0].astype(int).tolist(),
        {"a name": ("condition", "B", "ctrl")},
        [("condition", "B", "ctrl")],
        ({"condition": "B"}, {"condition": "ctrl"}),
        ({"condition": "B", "donor": "z"}, {"condition": "ctrl", "donor": "z"}),
    ):
        (found,) = weights(model, contrast).values()
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("contrast", "names"),
    [
        (("condition", "B", "A"), ["B vs A"]),
        ([("condition", "A", "ctrl"), ("condition", "B", "A")], ["A vs ctrl", "B vs A"]),
        ("condition", ["condition"]),
        (["condition[T.A]", "age"], ["condition[T.A] & age"]),
        ({"condition[T.A]": 0.5, "condition[T.B]": -1}, ["0.5 condition[T.A] - condition[T.B]"]),
        ({"one": "age", "both": ["condition[T.A]", "condition[T.B]"]}, ["one", "both"]),
        (({"condition": "A", "donor": "x"}, {"condition": "B", "donor": "y"}), ["A x vs B y"]),
        ({"several": [("condition", "A", "ctrl"), ("condition", "B", "ctrl")]}, ["several"]),
    ],
)
def test_names_of_contrasts(covariates, contrast, names):
    assert list(weights(model_of("~ donor + condition + age", covariates), contrast)) == names


def test_a_term_is_tested_as_a_whole(covariates):
    model = model_of("~ donor + condition*age", covariates)
    assert weights(model, "condition")["condition"].shape[0] == 3
    assert weights(model, "condition:age")["condition:age"].shape[0] == 3
    assert weights(model, "age")["age"].shape[0] == 1
    assert weights(model, ["condition", "condition:age"])["condition & condition:age"].shape[0] == 6


@pytest.mark.parametrize("design", ["~ donor + condition", "~ 0 + condition + donor", "~ condition * `cell type`"])
def test_levels_are_compared_as_formulaic_contrasts_does(covariates, design):
    """An independent owner of these weights; quantities and splines are not its business."""
    model = model_of(design, covariates)
    theirs = FormulaicContrasts(covariates, design)
    for level, baseline in (("A", "ctrl"), ("B", "C")):
        (ours,) = weights(model, ("condition", level, baseline)).values()
        np.testing.assert_allclose(ours[0], theirs.contrast("condition", baseline, level), atol=1e-12)


def test_quantities_are_compared_at_their_values_and_else_at_their_mean(covariates):
    model = model_of("~ condition*age", covariates)
    at = dict(zip(model.coefficients, weights(model, ("condition", "A", "ctrl"))["A vs ctrl"][0], strict=True))
    assert at["condition[T.A]"] == 1
    assert at["condition[T.A]:age"] == pytest.approx(covariates["age"].mean())
    years = dict(zip(model.coefficients, weights(model, ("age", 60, 40))["60 vs 40"][0], strict=True))
    assert {name: value for name, value in years.items() if abs(value) > 1e-12} == {"age": 20}
    model = model_of("~ poly(age, 2)", covariates)
    fitted = model.matrix @ np.array([1.0, 2.0, -1.0])
    difference = weights(model, ("age", covariates["age"][3], covariates["age"][7])).popitem()[1]
    assert (difference @ [1.0, 2.0, -1.0])[0] == pytest.approx(fitted[3] - fitted[7])


def test_whole_numbers_as_levels(covariates):
    model = model_of("~ C(batch) + age", covariates)
    for level, baseline in ((2, 1), ("2", "1")):
        np.testing.assert_allclose(weights(model, ("batch", level, baseline))["2 vs 1"], [[0, 1, 0]], atol=1e-12)
    with pytest.raises(ValueError, match="level 3 of 'batch', which no sample has. There are: '1', '2'"):
        read_contrasts(model, ("batch", 3, 1))


def test_groups_against_a_reference(covariates):
    model = model_of("~ 0 + condition + donor", covariates)
    found = group_contrasts(model, {"A": {"condition": "A"}, "C": {"condition": "C"}}, {"condition": "ctrl"})
    assert [one.name for one in found] == ["A", "C"]
    for one in found:
        assert one.weights.sum() == pytest.approx(0)
        assert one.weights[model.coefficients.index(f"condition[{one.name}]"), 0] == 1


@pytest.mark.parametrize(
    ("contrast", "error", "message"),
    [
        (
            ("condition", "D", "ctrl"),
            ValueError,
            "level 'D' of 'condition', which no sample has. There are: 'ctrl', 'A'",
        ),
        (("conditions", "A", "ctrl"), KeyError, "Did you mean 'condition'"),
        (("condition", "A", "A"), ValueError, "nothing to test"),
        (("age", "old", "young"), ValueError, "quantity in design.*write C.age."),
        ("condition[T.D]", KeyError, "no coefficient or term.*Did you mean 'condition"),
        ({"condition[T.D]": 1}, KeyError, "no coefficient 'condition.T.D.'"),
        ({"condition[T.A]": 0}, ValueError, "nothing to test"),
        ({"condition[T.A]": np.nan}, ValueError, "not finite"),
        ([1, -1], ValueError, r"shape \(2,\).*7 coefficients.*'Intercept', 'donor.T.y.'"),
        (np.ones((2, 3)), ValueError, r"shape \(2, 3\)"),
        (np.ones((2, 7)), ValueError, "2 combinations.*only 1 of them are independent"),
        (["age", "age"], ValueError, "only 1 of them"),
        ([("condition", "A", "ctrl")] * 2, ValueError, "Two contrasts are named 'A vs ctrl'"),
        ({"x": 1.0, "y": "age"}, TypeError, "none of the forms"),
        ({"x": {"condition": "A"}}, TypeError, "gives a number for each"),
        ({}, TypeError, "as a dict"),
        ([], TypeError, "none of the forms"),
        (3.0, TypeError, "none of the forms"),
        (True, TypeError, "none of the forms"),
        ([[1.0], [2.0, 3.0]], ValueError, "shape"),
    ],
)
def test_refused_contrasts(covariates, contrast, error, message):
    with pytest.raises(error, match=message):
        read_contrasts(model_of("~ donor + condition + age", covariates), contrast)


@cache
def small_model():
    condition = pd.Categorical(["ctrl", "A"] * 3)
    return model_of("~ donor + condition + age", table(donor="xxyyzz", condition=condition, age=np.arange(6.0)))


FORMULA_PARTS = st.one_of(
    st.sampled_from(["condition", "donor", "age", "A", "ctrl", "condition[T.A]", "Intercept", "", "1", None, True, 2]),
    st.floats(),
    st.integers(-2, 2),
)
ANYTHING = st.recursive(
    FORMULA_PARTS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(ANYTHING)
@settings(max_examples=60)
def test_any_other_contrast_is_refused_in_words(contrast):
    model = small_model()
    try:
        found = read_contrasts(model, contrast)
    except (ValueError, KeyError, TypeError) as error:
        words = str(error)
    else:
        words = "a name that says what is tested"
        for one in found:
            assert one.weights.shape[0] == len(model.coefficients)
            assert np.linalg.matrix_rank(one.weights) == one.weights.shape[1]
    assert len(words) > 25


# confounding

CONFOUNDED = {
    "donors nested in conditions": (
        "~ donor + condition",
        {"donor": "abcdef", "condition": "xyxyxy"},
        "'donor' is nested in 'condition' .donor a contains only condition x.*leave 'donor' out.*Not determined: 'condition.T.y.'",
    ),
    "nested, the other way round": (
        "~ condition + donor",
        {"donor": "aabbcc", "condition": "xxxxyy"},
        "'donor' is nested in 'condition'.*Not determined: 'donor.T.c.'",
    ),
    "batches that are conditions": (
        "~ batch + condition",
        {"batch": "bbbcccc", "condition": "xxxyyyy"},
        "'batch' and 'condition' have the same levels .b = x, c = y.",
    ),
    "a batch with one condition": (
        "~ batch + condition",
        {"batch": "bbbbcc", "condition": "xyxyzz"},
        "condition z contains only batch c",
    ),
    "parts that share nothing": (
        "~ batch + condition",
        {"batch": "aabbccdd", "condition": "xyxyzwzw"},
        "batch a and b contain only condition x and y, batch c and d contain only condition w and z",
    ),
    "an empty cell": (
        "~ time * condition",
        {"time": "aaaabbbb", "condition": "xyxyxxxx"},
        "no sample has time 'b' and condition 'y'",
    ),
    "a constant quantity": (
        "~ condition + age",
        {"condition": "xyxyxy", "age": np.full(6, 30.0)},
        "'age' is 30 in every",
    ),
    "a quantity of donors": (
        "~ donor + age",
        {"donor": "aabbcc", "age": np.array([1.0, 1, 2, 2, 5, 5])},
        "'donor' is nested in 'age'",
    ),
    "a quantity twice": (
        "~ condition + age + years",
        {"condition": "xyxyxy", "age": np.arange(6.0), "years": 1 + 2 * np.arange(6.0)},
        "'years' is Intercept . 2 age",
    ),
    "three columns together": (
        "~ a*b + c",
        {"a": "xxyyxxyy", "b": "xyxyxyxy", "c": "xyyxxyyx"},
        "'a.T.y.:b.T.y.' is 0.5 a.T.y. . 0.5 b.T.y. - 0.5 c.T.y.",
    ),
    "one level": ("~ condition", {"condition": "xxxxxx"}, "all 6 samples that are left have the value 'x'"),
    "no degrees of freedom": (
        "~ donor * condition",
        {"donor": "aabbcc", "condition": "xyxyxy"},
        "6 coefficients for 6 samples .intercept 1, donor 2, condition 1, donor:condition 2.*no residual degrees of freedom",
    ),
    "more coefficients than samples": ("~ a + b + c", {"a": "xyzw", "b": "xyxy", "c": "xxyy"}, "cannot be estimated"),
    "nothing": ("~ 0", {"a": "xyxy"}, "no coefficients"),
}


@pytest.mark.parametrize("name", CONFOUNDED)
def test_confounding_is_named(name):
    design, columns, message = CONFOUNDED[name]
    with pytest.raises(ValueError, match=message):
        check_estimable(model_of(design, table(**columns)))


def test_incomplete_blocks_are_no_confounding():
    check_estimable(model_of("~ batch + condition", table(batch="aaaabbcc", condition="xyxyxxyy")))


def test_contrasts_that_are_estimable_need_no_full_rank():
    """Donors of two groups, two conditions in each: what differs within donors is estimable, what differs between groups is not."""
    model = model_of(
        "~ group + donor + condition + group:condition", table(group="ggggkkkk", donor="aabbccdd", condition="xyxyxyxy")
    )
    n = len(model.coefficients)
    requested = {name: np.eye(n)[:, [model.coefficients.index(name)]] for name in model.coefficients}
    within = {name: w for name, w in requested.items() if "condition" in name}
    assert len(within) == 2
    check_estimable(model, within)
    with pytest.raises(
        ValueError,
        match=r"contrast 'group\[T.k\]' cannot be estimated.*'donor' is nested in 'group'.*cannot be separated from",
    ) as caught:
        check_estimable(model, {"group[T.k]": requested["group[T.k]"]})
    assert "donor[T.d] cannot be separated from group[T.k] - donor[T.c]" in str(caught.value)
    with pytest.raises(ValueError, match=r"contrasts 'Intercept', 'group\[T.k\]'"):
        check_estimable(
            model,
            {name: requested[name] for name in ("Intercept", "group[T.k]", *within)}
            | {"Intercept": requested["donor[T.d]"]},
        )


def test_what_cannot_be_given_apart_is_named():
    model = model_of("~ batch + condition", table(batch="112233", condition="aabbcc"))
    weights = np.eye(len(model.coefficients))[:, [model.coefficients.index("condition[T.b]")]]
    with pytest.raises(ValueError, match=r"condition\[T.b\] cannot be separated from batch\[T.2\]\."):
        check_estimable(model, {"b": weights})
    empty = model_of("~ time * condition", table(time="aaaabbbb", condition="xyxyxxxx"))
    with pytest.raises(ValueError, match=r"no sample has time 'b' and condition 'y'.*is zero in every sample"):
        check_estimable(empty, {"interaction": np.eye(4)[:, [3]]})
    check_estimable(empty, {"y at a": np.eye(4)[:, [2]]})


@given(st.integers(0, 2**32))
@settings(max_examples=40)
def test_estimable_is_in_the_row_space(seed):
    """The reduction gives the matrix back, and a contrast is estimable if the rank does not rise with it as one more row."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(3, 10)), int(rng.integers(2, 8))
    matrix = rng.integers(0, 2, (n, p)).astype(float)
    reduction = reduce_matrix(matrix)
    np.testing.assert_allclose(matrix[:, reduction.kept] @ reduction.expressed, matrix, atol=1e-8)
    rank = np.linalg.matrix_rank(matrix)
    for weights in [*np.eye(p), *rng.integers(-1, 2, (5, p)).astype(float), rng.normal(size=n) @ matrix]:
        if weights.any():
            expected = np.linalg.matrix_rank(np.vstack([matrix, weights])) == rank
            assert reduction.can_estimate(weights[:, None]).tolist() == [expected]
    b = rng.normal(size=p)
    fitted = reduction.expand((reduction.expressed @ b)[None])[0]
    known = ~np.isnan(fitted)
    np.testing.assert_allclose(fitted[known], b[known], atol=1e-8)
    assert known.tolist() == reduction.can_estimate(np.eye(p)).tolist()


@given(st.integers(0, 2**32))
@settings(max_examples=25)
def test_aliased_columns_follow_from_those_before(seed):
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(3, 10)), int(rng.integers(2, 8))
    matrix = rng.integers(0, 2, (n, p)).astype(float)
    found = aliased(matrix)
    assert p - len(found) == np.linalg.matrix_rank(matrix)
    for j, sums in found.items():
        assert all(k < j and k not in found for k in sums)
        np.testing.assert_allclose(
            sum((w * matrix[:, k] for k, w in sums.items()), np.zeros(n)), matrix[:, j], atol=1e-8
        )
    if len(found) == 0 and n > p:
        kept = [j for j in range(p) if j not in found]
        assert np.linalg.matrix_rank(matrix[:, kept]) == p
