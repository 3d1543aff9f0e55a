"""From a formula to a model matrix with named coefficients; formulaic reads the formula."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._messages import choices
from nbcompare.tl._formula.allowed import (
    ALLOWED,
    CONTRASTS,
    LONGEST,
    NUMERIC,
    NotAllowedError,
    check_tokens,
    expression_tree,
)

# Functions that formulaic does not have itself; variables of the caller are not visible to a formula.
CONTEXT: dict[str, Any] = {name: getattr(np, name) for name in NUMERIC}


@dataclass(frozen=True)
class Model:
    """What a formula makes of the samples."""

    design: str
    covariates: pd.DataFrame  # (n_samples, n_columns), categories or numbers
    matrix: np.ndarray  # (n_samples, n_coefficients)
    coefficients: list[str]
    terms: dict[str, list[int]]  # term of the formula -> its coefficients
    term_columns: dict[str, list[str]]  # term of the formula -> columns of obs
    labels: frozenset[str]  # columns that enter as levels, `C(batch)` included
    spec: Any  # formulaic's, codes further rows alike

    @property
    def columns(self) -> list[str]:
        """Columns of obs, in the order of the formula."""
        return list(self.covariates.columns)

    def levels(self, column: str) -> list[Any]:
        """Levels of a column of labels."""
        values = self.covariates[column]
        return list(values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else sorted(set(values))

    def rows(self, conditions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Rows of the matrix (n_conditions, n_coefficients) at these values; columns not named are at their first level or mean."""
        defaults = {
            name: self.levels(name)[0] if name in self.labels else self.covariates[name].mean() for name in self.columns
        }
        frame = pd.DataFrame([defaults | dict(condition) for condition in conditions])
        for name in self.columns:
            if isinstance(self.covariates[name].dtype, pd.CategoricalDtype):
                frame[name] = pd.Categorical(frame[name], categories=self.levels(name))
        return np.asarray(self.spec.get_model_matrix(frame, context=CONTEXT), dtype=np.float64)


def formula_columns(design: str, known: Sequence[str]) -> list[str]:
    """The columns of obs that a formula names, in its order; refuses what is no formula of these."""
    formula = _parsed(design)
    columns: dict[str, None] = {}
    for factor in dict.fromkeys(factor for term in formula for factor in term.factors):
        if factor.eval_method.value == "literal":
            continue
        plain = factor.eval_method.value == "lookup"
        for name, other in {factor.expr: ""}.items() if plain else _names(factor.expr, known).items():
            if name in known and other != "function":
                columns[name] = None
            elif not other:
                msg = f"design {design!r} names {name!r}, which is no column of adata.obs. {choices(name, list(known))}"
                raise KeyError(msg)
    return list(columns)


def plain_columns(design: str) -> tuple[set[str], set[str]]:
    """Columns that the formula names by themselves, and those that it uses as numbers, in a function other than `C( )` or in arithmetic."""
    plain: set[str] = set()
    numbers: set[str] = set()
    for factor in (factor for term in _parsed(design) for factor in term.factors):
        if factor.eval_method.value == "lookup":
            plain.add(factor.expr)
        elif factor.eval_method.value != "literal":
            numbers |= _outside_of_c(factor.expr)
    return plain, numbers


def build_model(design: str, covariates: pd.DataFrame) -> Model:
    """The model matrix of the samples; refuses a formula that cannot be evaluated, or gives what is not a number."""
    from formulaic.errors import FormulaicError

    try:
        with np.errstate(all="ignore"):  # what is not finite is named below
            coded = _parsed(design).get_model_matrix(covariates, context=CONTEXT, na_action="ignore")
    except (FormulaicError, SyntaxError) as error:
        msg = f"design {design!r} cannot be evaluated: {_first_line(error)} The columns are {', '.join(map(repr, covariates))}."
        raise ValueError(msg) from error
    spec, matrix = coded.model_spec, np.asarray(coded, dtype=np.float64)
    names = [str(name) for name in coded.columns]
    if (bad := np.argwhere(~np.isfinite(matrix))).size:
        sample, column = bad[0]
        msg = f"design {design!r}: {names[column]!r} is not a number in sample {covariates.index[sample]!r} ({len(bad)} such entries)."
        raise ValueError(msg)
    categorical = {factor for factor, (kind, *_) in spec.encoder_state.items() if kind.value == "categorical"}
    labels = {str(name) for factor in categorical for name in spec.factor_variables[factor]} & set(covariates.columns)
    labels |= set(covariates.select_dtypes("category").columns)
    columns_of = {
        str(term): sorted({str(v) for v in found} & set(covariates.columns), key=list(covariates.columns).index)
        for term, found in spec.term_variables.items()
    }
    terms = {str(term): list(where) for term, where in spec.term_indices.items()}
    return Model(design, covariates, matrix, names, terms, columns_of, frozenset(labels), spec)


def _parsed(design: str):
    from formulaic import Formula, SimpleFormula
    from formulaic.errors import FormulaicError
    from formulaic.parser.algos.sanitize_tokens import sanitize_tokens
    from formulaic.parser.algos.tokenize import tokenize

    if not isinstance(design, str):
        msg = f"design is {type(design).__name__}, but a formula is text, such as '~ donor + condition'."
        raise TypeError(msg)
    if len(design) > LONGEST:
        msg = f"design has {len(design)} characters, but a formula has at most {LONGEST}. Write it as '~ donor + condition'."
        raise ValueError(msg)
    try:
        check_tokens(list(sanitize_tokens(tokenize(design))))  # what is not allowed is neither parsed further nor run
        formula = Formula(design)
    except NotAllowedError as error:
        msg = f"design {design!r} cannot be evaluated: it holds {error}. {ALLOWED}"
        raise ValueError(msg) from None
    except (FormulaicError, SyntaxError, IndexError, MemoryError, RecursionError, ValueError) as error:
        reserved = [word for word in re.findall(r"[A-Za-z_]+", design) if keyword.iskeyword(word)]
        hint = f" {reserved[0]!r} is a reserved word of Python: rename that column." if reserved else ""
        msg = f"design {design!r} is no formula: {_first_line(error)}{hint} Write it as '~ donor + condition'."
        raise ValueError(msg) from error
    if not design.strip(" ~"):
        msg = f"design {design!r} is empty. Write it as '~ donor + condition'."
        raise ValueError(msg)
    if not isinstance(formula, SimpleFormula):
        msg = f"design {design!r} has several sides or parts, but the counts are always the response. Write it as '~ donor + condition'."
        raise ValueError(msg)
    return formula


def _names(expression: str, known: Sequence[str]) -> dict[str, str]:
    """Names in an expression such as `np.log(age)`, and what else than a column each may be: a function, a module."""
    tree, aliases = expression_tree(expression, known)
    names = dict.fromkeys(aliases.values(), "")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names[node.value.id] = "module"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names[node.func.id] = "function"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in aliases:
            names.setdefault(node.id, "function" if node.id in CONTRASTS and node.id not in known else "")
    return names


def _outside_of_c(expression: str) -> set[str]:
    """Names in an expression that are not within `C( )`, functions and modules included."""
    quoted = re.findall(r"`([^`]+)`", expression)
    of_quoted = {f"quoted_{i}_": name for i, name in enumerate(quoted)}
    for identifier, name in of_quoted.items():
        expression = expression.replace(f"`{name}`", identifier, 1)
    try:
        waiting: list[ast.AST] = [ast.parse(expression.strip(), mode="eval")]
    except SyntaxError:  # refused by formulaic when it is evaluated
        return set()
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "C":
            continue
        if isinstance(node, ast.Name):
            found.add(of_quoted.get(node.id, node.id))
        waiting += ast.iter_child_nodes(node)
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
