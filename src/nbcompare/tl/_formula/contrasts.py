"""From what a user asks of the coefficients to weights on them, with names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata import is_labelled, numbers_of, the_level
from nbcompare._messages import choices
from nbcompare.tl._formula.model_matrix import Model

Contrast = str | Sequence[Any] | Mapping[str, Any] | np.ndarray


@dataclass(frozen=True)
class Hypothesis:
    """Combinations of coefficients that are zero if nothing changes."""

    name: str
    weights: np.ndarray  # (n_coefficients, k), k > 1 where several are tested together


def read_contrasts(model: Model, contrast: Contrast) -> list[Hypothesis]:
    """The hypotheses that `contrast` asks for; refuses what names nothing, says nothing, or says it twice."""
    if isinstance(contrast, Mapping) and contrast and not _are_weights(contrast):
        found = [Hypothesis(str(name), _weights(model, requested)) for name, requested in contrast.items()]
    elif isinstance(contrast, list) and contrast and all(_is_difference(model, one) for one in contrast):
        found = [Hypothesis(_name(model, one), _weights(model, one)) for one in contrast]
    else:
        found = [Hypothesis(_name(model, contrast), _weights(model, contrast))]
    for one in found:
        _check_weights(model, one)
    repeated = pd.Index([one.name for one in found]).duplicated()
    if repeated.any():
        msg = f"Two contrasts are named {found[int(np.argmax(repeated))].name!r}. Name them: contrast={{'one name': ..., 'other': ...}}."
        raise ValueError(msg)
    return found


def group_contrasts(
    model: Model, groups: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Any]
) -> list[Hypothesis]:
    """Each group, given as values of its columns, against the reference; all else being equal."""
    rows = model.rows([reference, *groups.values()])
    found = [Hypothesis(name, (row - rows[0])[:, None]) for name, row in zip(groups, rows[1:], strict=True)]
    for one in found:
        _check_weights(model, one)
    return found


def _weights(model: Model, requested: Any) -> np.ndarray:
    """Weights (n_coefficients, k) of one hypothesis."""
    if isinstance(requested, str):
        return np.eye(len(model.coefficients))[:, _coefficients(model, requested)]
    if isinstance(requested, Mapping):
        if not _are_weights(requested) or not requested:
            msg = (
                f"A contrast is {requested!r}, but as a dict it gives a number for each of some coefficients. {_form()}"
            )
            raise TypeError(msg)
        weights = np.zeros((len(model.coefficients), 1))
        for name, value in requested.items():
            weights[_one_coefficient(model, name), 0] = float(value)
        return weights
    if _is_levels(model, requested):
        column, level, baseline = requested
        return _difference(model, {column: level}, {column: baseline})
    if _is_pair(requested):
        return _difference(model, *requested)
    if _are_numbers(requested):
        return _as_vectors(model, requested)
    if isinstance(requested, Iterable) and (parts := list(requested)):
        return np.concatenate([_weights(model, part) for part in parts], axis=1)
    msg = f"contrast {requested!r} is none of the forms of a contrast. {_form()}"
    raise TypeError(msg)


def _in_our_order(model: Model, name: str) -> str:
    """The name of a coefficient or term of an interaction, whose parts the user may give in any order."""
    if ":" not in str(name):
        return name
    parts = sorted(str(name).split(":"))
    same = [known for known in (*model.coefficients, *model.terms) if sorted(known.split(":")) == parts]
    return name if name in same or not same else same[0]


def _coefficients(model: Model, name: str) -> list[int]:
    """Positions of a coefficient, or of all those of a term."""
    name = _in_our_order(model, name)
    if name in model.coefficients:
        return [model.coefficients.index(name)]
    if name in model.terms and name != "1":
        return model.terms[name]
    known = [*model.coefficients, *(term for term in model.terms if term != "1" and term not in model.coefficients)]
    msg = f"contrast names {str(name)!r}, but there is no coefficient or term {str(name)!r} in design {model.design!r}. {choices(name, known)}"
    raise KeyError(msg)


def _one_coefficient(model: Model, name: Any) -> int:
    if name not in model.coefficients:
        msg = f"contrast gives a weight to {name!r}, but there is no coefficient {name!r} in design {model.design!r}. {choices(str(name), model.coefficients)}"
        raise KeyError(msg)
    return model.coefficients.index(name)


def _difference(model: Model, one: Mapping[str, Any], other: Mapping[str, Any]) -> np.ndarray:
    """The fitted log mean at one set of values less that at the other, columns in neither being equal."""
    values = [{name: _value(model, name, value) for name, value in side.items()} for side in (one, other)]
    rows = model.rows(values)
    return (rows[0] - rows[1])[:, None]


def _value(model: Model, column: str, requested: Any) -> Any:
    """A value as the column holds it: a level, whatever its type was, or a number."""
    if column not in model.columns:
        msg = f"A contrast names {column!r}, which is no column of design {model.design!r}. {choices(str(column), model.columns)}"
        raise KeyError(msg)
    if column in model.labels:
        levels = {str(level): level for level in model.levels(column)}
        name = the_level(requested, levels)
        if name not in levels:
            msg = f"A contrast names the level {requested!r} of {column!r}, which no sample has. {choices(str(requested), list(levels))}"
            if isinstance(requested, Real | np.number) and not isinstance(requested, bool):
                msg += f" {column!r} is used as labels: for a slope write I({column}) in the design."
            raise ValueError(msg)
        return levels[name]
    try:
        value = float(requested)
    except (TypeError, ValueError):
        value = np.nan
    if not np.isfinite(value):
        msg = (
            f"A contrast names the value {requested!r} of {column!r}, which is a quantity in design {model.design!r}: give numbers, or "
            f"write C({column}) in the design to compare levels."
        )
        raise ValueError(msg)
    return value


def _as_vectors(model: Model, requested: Any) -> np.ndarray:
    """One vector of weights, or the rows of a matrix of them."""
    if isinstance(requested, list | tuple) and any(is_labelled(part) for part in requested):
        return np.concatenate([_as_vectors(model, part) for part in requested], axis=1)
    needed = (
        f"one weight is needed for each of the {len(model.coefficients)} coefficients (rows of a matrix are tested together): "
        f"{', '.join(map(repr, model.coefficients))}."
    )
    axes = (
        {"contrast": None, "coefficient": model.coefficients}
        if np.ndim(requested) > 1
        else {"coefficient": model.coefficients}
    )
    return np.atleast_2d(numbers_of(requested, axes, "contrast", needed)).T


def _check_weights(model: Model, hypothesis: Hypothesis) -> None:
    weights = hypothesis.weights
    if not np.isfinite(weights).all():
        msg = f"Contrast {hypothesis.name!r} holds weights that are not finite."
        raise ValueError(msg)
    if not weights.any():
        msg = f"Contrast {hypothesis.name!r} gives no coefficient of design {model.design!r} a weight: there is nothing to test."
        raise ValueError(msg)
    rank = int(np.linalg.matrix_rank(weights))
    if rank < weights.shape[1]:
        msg = (
            f"Contrast {hypothesis.name!r} tests {weights.shape[1]} combinations of coefficients together, but only {rank} of them "
            "are independent: leave out those that follow from the others."
        )
        raise ValueError(msg)


def _name(model: Model, requested: Any) -> str:
    """What a contrast is called that was given no name."""
    if isinstance(requested, str):
        return requested
    if isinstance(requested, Mapping):
        return (
            _sum({str(name): float(value) for name, value in requested.items()})
            if _are_weights(requested)
            else str(requested)
        )
    if _is_levels(model, requested):
        return f"{requested[1]} vs {requested[2]}"
    if _is_pair(requested):
        return " vs ".join(" ".join(str(value) for value in side.values()) for side in requested)
    if _are_numbers(requested):
        return (
            _sum(dict(zip(model.coefficients, _as_vectors(model, requested)[:, 0], strict=True)))
            if np.ndim(requested) == 1
            else "contrast"
        )
    return " & ".join(_name(model, part) for part in requested) if isinstance(requested, Iterable) else "contrast"


def _sum(weights: Mapping[str, float]) -> str:
    parts = [
        f"{'-' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):.4g} '}{name}" for name, w in weights.items() if w
    ]
    text = " ".join(parts)
    return text[2:] if text.startswith("+") else text.replace("- ", "-", 1) or "0"


def _is_difference(model: Model, requested: Any) -> bool:
    return (
        _is_levels(model, requested)
        or _is_pair(requested)
        or (isinstance(requested, Mapping) and _are_weights(requested))
    )


def _is_levels(model: Model, requested: Any) -> bool:
    """`(column, level, baseline)`, unless all three are coefficients that are tested together."""
    return (
        isinstance(requested, list | tuple)
        and len(requested) == 3
        and isinstance(requested[0], str)
        and not any(isinstance(part, list | tuple | Mapping) or np.ndim(part) > 0 for part in requested)
        and not all(isinstance(part, str) and (part in model.coefficients or part in model.terms) for part in requested)
    )


def _is_pair(requested: Any) -> bool:
    """A tuple of two sets of values of columns; a list of dicts would be weights."""
    return (
        isinstance(requested, tuple)
        and len(requested) == 2
        and all(isinstance(side, Mapping) and side for side in requested)
    )


def _are_weights(requested: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, Real | np.number) and not isinstance(value, bool) for value in requested.values())


def _are_numbers(requested: Any) -> bool:
    try:
        if isinstance(requested, pd.Series | pd.DataFrame):
            return requested.size > 0 and all(
                pd.api.types.is_numeric_dtype(dtype) for dtype in pd.DataFrame(requested).dtypes
            )
        array = np.asarray(requested)
        return array.dtype.kind in "iuf" and array.size > 0 and array.ndim > 0
    except ValueError:  # ragged
        return False


def _form() -> str:
    return (
        "Give (column, level, baseline), the name of a coefficient or term, a vector or dict of weights of coefficients, a list of "
        "names to test together, or a dict of named contrasts."
    )
