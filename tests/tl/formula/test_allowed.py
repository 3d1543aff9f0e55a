"""A formula is no program: what is allowed gives the matrix of formulaic, all else is refused and not run."""

import os
import time
import warnings
from pathlib import Path

import formulaic
import numpy as np
import pandas as pd
import pytest

from nbcompare import datasets, pp, tl
from nbcompare.tl._formula.model_matrix import build_model, formula_columns


@pytest.fixture
def covariates():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "donor": pd.Categorical(np.repeat(list("xyz"), 6)),
            "condition": pd.Categorical(["ctrl", "A", "B"] * 6, categories=["ctrl", "A", "B"]),
            "cell type": pd.Categorical(rng.permutation(list("mn" * 9))),
            "cell_type": rng.normal(size=18),
            "it's; __import__('os')": rng.normal(size=18),
            "a.b": rng.normal(size=18),
            "age": 20 + rng.permutation(18) * 1.7,
            "batch": rng.permutation([1, 2, 3] * 6),
        }
    )


ALLOWED = [
    "donor + condition",
    "~ 0 + donor*condition",
    "~ -1 + donor:age + condition",
    "~ donor + condition - 1",
    "~ (donor + condition + age)**2",
    "~ (donor + condition + age) ^ 2",
    "~ donor/age",
    "~ age %in% donor",
    "~ 2:age",
    "~ `cell type` + cell_type + `a.b` + a.b",
    "~ `it's; __import__('os')` + age",
    "~ I(`cell type` == 'm') + I(`it's; __import__('os')` * 2)",
    "~ I((`cell type` == 'm') * cell_type)",
    "~ C(donor) + C(batch, contr.treatment(2))",
    "~ C(donor, contr.sum) + C(condition, contr.helmert)",
    "~ C(donor, Sum) + C(condition, Helmert())",
    "~ C(donor, Treatment('y')) + C(condition, Treatment(reference='B'))",
    "~ C(batch, levels=[3, 2, 1])",
    "~ C(donor, contr.custom([[1, 0], [0, 1], [-1, -1]]))",
    "~ C(donor, Diff) + C(batch, contr.poly) + C(condition, contr.SAS)",
    "~ log(age) + log2(age) + log10(age)",
    "~ exp(age / 100) + exp2(age / 50) + exp10(age / 50)",
    "~ log1p(age) + sqrt(age) + abs(cell_type)",
    "~ np.log(age) + np.log2(age) + np.log10(age) + np.log1p(age)",
    "~ np.exp(age / 100) + np.sqrt(age) + np.abs(cell_type)",
    "~ np.sin(2 * np.pi * age / 24) + np.cos(2 * np.pi * age / 24)",
    "~ center(age) + scale(cell_type) + standardize(`a.b`)",
    "~ scale(age, center=False, scale=True, ddof=0)",
    "~ poly(age, 3)",
    "~ poly(age, degree=2, raw=True)",
    "~ bs(age, df=5)",
    "~ bs(age, knots=[25, 40], degree=2, include_intercept=False)",
    "~ cr(age, df=4) + donor",
    "~ cs(age, df=4)",
    "~ cc(age, df=4)",
    "~ poly(center(age), 2):condition",
    "~ I(age ** 2) + {age + 1} + I(age ** (1 / 2)) + I(-age ** -1)",
    "~ {(age > 30) & (batch != 2)} + {~(batch == 1)}",
    "~ I(age // 10) + I(age % 7) + I(2 ** batch)",
]


@pytest.mark.parametrize("design", ALLOWED)
def test_allowed_formulas_give_the_matrix_of_formulaic(covariates, design):
    columns = formula_columns(design, list(covariates))
    model = build_model(design, covariates[columns])
    names = {"sqrt": np.sqrt, "log1p": np.log1p}
    expected = formulaic.model_matrix(design, covariates, context=names)
    assert model.coefficients == list(expected.columns)
    np.testing.assert_array_equal(model.matrix, np.asarray(expected, dtype=float))
    again = model.rows(covariates[columns].to_dict("records"))
    np.testing.assert_allclose(again, model.matrix, rtol=1e-12, atol=1e-12)


# MARK is a file that must never appear
RUNS_CODE = [
    "~ condition + __import__('os').system('touch MARK')",
    "~ condition + {__import__('os').system('touch MARK')}",
    "~ condition + I(__import__('pathlib').Path('MARK').touch() or age)",
    "~ condition + I(open('MARK', 'w').write('x') * age)",
    "~ condition + I(log(open('MARK', 'w').write('x')) * age)",
    "~ condition + C(open('MARK', 'w').write('x'))",
    "~ condition + C(condition, levels=[open('MARK', 'w').write('x')])",
    "~ condition + C(condition, levels={'x': open('MARK', 'w')})",
    "~ condition + {age + log(1 + abs(open('MARK', 'w').write('x')))}",
    '~ condition + I(eval(\'__import__("pathlib").Path("MARK").touch()\') or age)',
    "~ condition + I(exec(\"open('MARK', 'w')\") or age)",
    "~ condition + I((lambda: open('MARK', 'w'))() and age)",
    "~ condition + I((lambda f: f(f))(lambda f: f(f)) + age)",
    "~ condition + I([c for c in ().__class__.__base__.__subclasses__() if 'Popen' in str(c)][0](['touch', 'MARK']).wait() + age)",
    "~ condition + I([open('MARK', 'w') for i in range(1)] and age)",
    "~ condition + I({open('MARK', 'w')} and age)",
    "~ condition + np.save('MARK', age)",
    "~ condition + np.f2py.os.system('touch MARK')",
    "~ condition + np.log.__class__.__base__(age)",
    "~ condition + I(age.to_csv('MARK') or age)",
    "~ condition + I(age.__class__)",
    "~ condition + log(age).to_csv('MARK')",
    "~ condition + I(np.load.__globals__['os'].system('touch MARK') + age)",
    "~ condition + I(getattr(age, 'to_csv')('MARK') or age)",
    "~ condition + I(vars()['__builtins__']['open']('MARK', 'w') or age)",
    "~ condition + `age`.to_pickle('MARK')",
    "~ condition + I(`age`.to_pickle('MARK') or age)",
    "~ condition + I(f\"{open('MARK', 'w')}\" == age)",
    "~ condition + I('{0.__class__}'.format(age) == age)",
    "~ condition + I((x := open('MARK', 'w')) and age)",
    "~ condition + I(age if open('MARK', 'w') else age)",
    "~ condition + I(*[open('MARK', 'w')])",
    "~ condition + I(**{'x': open('MARK', 'w')})",
    "~ condition + I(age)[open('MARK', 'w')]",
    "~ condition + log(age)(open('MARK', 'w'))",
    "~ condition + C(condition, _context=open('MARK', 'w'))",
    "~ condition + center(age, _state={'x': 1})",
    "~ condition + np.log(age, out=age)",
    "~ condition + Q('age')",
    "~ condition + lag(age)",
    "~ condition + hashed(age)",
    "~ condition + I(print('hi') or age)",
    "~ condition + I(exit())",
    "~ condition + {exit()}",
    "~ condition + ｏｐｅｎ('MARK', 'w')",
    # text with quotes leaves the text in the code that formulaic writes around stateful transforms
    """~ condition + C(condition, levels=['") or open(\\'MARK\\', \\'w\\') or ("'])""",
    """~ condition + C(condition, levels=['") or open(chr(77), str(chr(119))) or ("', 'b'])""",
    "~ condition + C(condition, levels=['a\\\\'])",
    "~ condition + I(__FORMULAIC_CONTEXT__)",
    "~ condition + I(age @ age)",
    "~ condition + I(age in age)",
    "~ condition + I(1j * age)",
    "~ condition + I(age is None)",
]
TAKES_FOREVER = [
    "~ condition + I([0] * 10**10)",
    "~ condition + I('a' * 10**10)",
    "~ condition + I(10**10**10 + age)",
    "~ condition + I(1 << 10**10)",
    "~ condition + I(((age ** 100) ** 100) ** 10**9)",
    "~ condition + I(age ** (9007199254740991 * 9007199254740991))",
    "~ condition + I(999999999999999999999 * age)",
    "~ (condition + age) ** 1000000",
    "~ (condition + age) ^ (1000000)",
    "~ condition + poly(age, 10**9)",
    "~ condition + poly(age, degree=1000000000)",
    "~ condition + bs(age, df=1000000000)",
    "~ condition + I(" + "(" * 3000 + "age" + ")" * 3000 + ")",
    "~ condition + I(" + "-" * 9000 + "age)",
    "~ condition" + " + age" * 5000,
    "~ condition + I(``)",
]


@pytest.fixture(scope="module")
def samples():
    cells = datasets.simulate(n_genes=20, n_conditions=2, n_replicates=4, n_cells=20, paired=True, rng=2)
    pdata = pp.pseudobulk(cells, "condition", replicate_key="donor")
    pdata.obs["age"] = 20 + np.arange(8.0) ** 1.5
    return pdata


def refuse(samples, design, mark):
    before = (set(samples.varm), set(samples.uns), samples.obs.copy())
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"cannot be evaluated: it holds|is no formula|at most 10000") as caught:
            tl.nb_compare(samples, "condition", reference="ctrl", design=design)
    assert time.perf_counter() - start < 5
    assert not mark.exists()
    assert (set(samples.varm), set(samples.uns)) == before[:2]
    pd.testing.assert_frame_equal(samples.obs, before[2])
    return str(caught.value)


@pytest.mark.parametrize("design", RUNS_CODE)
def test_code_in_a_formula_is_refused_and_not_run(samples, design, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "mark"
    refuse(samples, design.replace("MARK", "mark"), mark)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("design", TAKES_FOREVER, ids=range(len(TAKES_FOREVER)))
def test_formulas_that_would_take_all_time_or_memory_are_refused(samples, design, tmp_path):
    refuse(samples, design, tmp_path / "mark")


def test_the_refusal_says_what_was_found_what_is_allowed_and_what_to_do(samples, tmp_path):
    said = refuse(samples, "~ condition + np.power(age, 2)", tmp_path / "mark")
    assert "np.power( ), which is none of the functions of a formula" in said
    assert "poly" in said
    assert "make a column of it: adata.obs['x'] = ..." in said
