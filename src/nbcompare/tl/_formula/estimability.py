"""Why a design cannot separate its coefficients, in terms of the columns and levels that the user knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from nbcompare._messages import warn
from nbcompare.tl._formula.model_matrix import Model

TOLERANCE = 1e-8  # of a coefficient's column, relative to its length, that those before it leave unexplained
ROW_SPACE = 1e-6  # of a contrast's largest weight, that the rows of the model matrix leave unexplained
MOST_NAMED = 4


@dataclass(frozen=True)
class Reduction:
    """A model matrix by those of its columns that do not follow from the ones before: matrix = matrix[:, kept] @ expressed."""

    kept: np.ndarray  # (rank,) columns
    expressed: np.ndarray  # (rank, n_coefficients)

    def can_estimate(self, weights: np.ndarray) -> np.ndarray:
        """Whether combinations (n_coefficients, k) of coefficients lie in the row space of the matrix, (k,) bool."""
        left = np.abs(self.expressed.T @ weights[self.kept] - weights).max(axis=0)
        return left <= ROW_SPACE * np.abs(weights).max(axis=0)

    def expand(self, coefficients: np.ndarray) -> np.ndarray:
        """All coefficients (n_genes, n_coefficients) from those of the kept columns, NaN where the samples do not determine one."""
        n_coefficients = self.expressed.shape[1]
        found = np.full((len(coefficients), n_coefficients), np.nan)
        found[:, self.kept] = coefficients
        found[:, ~self.can_estimate(np.eye(n_coefficients))] = np.nan
        return found


def reduce_matrix(matrix: np.ndarray) -> Reduction:
    """The reduction of a model matrix (n_samples, n_coefficients)."""
    aliases = aliased(matrix)
    kept = np.array([j for j in range(matrix.shape[1]) if j not in aliases], dtype=np.int64)
    expressed = np.eye(matrix.shape[1])[kept]
    for j, weights in aliases.items():
        expressed[:, j] = [weights.get(int(k), 0.0) for k in kept]
    return Reduction(kept, expressed)


def check_design(model: Model) -> None:
    """Refuse a design without coefficients, or with a column of labels that has one level."""
    if model.matrix.shape[1] == 0:
        msg = f"design {model.design!r} has no coefficients, so there is nothing to compare."
        raise ValueError(msg)
    for name in sorted(model.labels, key=model.columns.index):
        if len(model.levels(name)) < 2:
            msg = (
                f"design {model.design!r} names {name!r}, but all {len(model.matrix)} samples that are left have the value "
                f"{model.levels(name)[0]!r}. Leave it out, or see whether samples were dropped (min_cells, min_counts)."
            )
            raise ValueError(msg)


def check_estimable(model: Model, contrasts: Mapping[str, np.ndarray] | None = None) -> Reduction:
    """Refuse contrasts (n_coefficients, k), by name, that the samples do not determine, and a design without degrees of freedom left.

    Without contrasts every coefficient has to be determined. Gives the reduction of the model matrix.
    """
    check_design(model)
    reduction = reduce_matrix(model.matrix)
    if contrasts is None:
        contrasts = dict(zip(model.coefficients, np.eye(len(model.coefficients))[..., None], strict=True))
    refused = {name: weights for name, weights in contrasts.items() if not reduction.can_estimate(weights).all()}
    if refused:
        raise ValueError(_not_estimable(model, refused, "contrast" if len(contrasts) == 1 else "contrasts"))
    n_samples, rank = len(model.matrix), len(reduction.kept)
    if n_samples <= rank:
        msg = (
            f"design {model.design!r} has {rank} coefficients for {n_samples} samples ({_spent(model, reduction)}): no residual "
            "degrees of freedom are left to estimate the dispersion. Use a smaller design."
        )
        raise ValueError(msg)
    return reduction


def warn_of_aliases(model: Model) -> None:
    """Name the coefficients that the samples do not determine; contrasts without them are tested all the same."""
    aliases = aliased(model.matrix)
    if not aliases:
        return
    lost = ~reduce_matrix(model.matrix).can_estimate(np.eye(len(model.coefficients)))
    msg = (
        f"design {model.design!r} does not determine all coefficients: {'; '.join(_causes(model, aliases))}. The contrasts asked for are "
        f"estimable and are tested; the stored coefficients {_listed([model.coefficients[j] for j in np.flatnonzero(lost)])} are NaN."
    )
    warn(msg)


def _not_estimable(model: Model, refused: Mapping[str, np.ndarray], word: str) -> str:
    """Why these contrasts have no estimate: the aliases that change their value while no fitted mean changes."""
    weights = np.concatenate(list(refused.values()), axis=1)
    at_fault = {}
    for j, alias in aliased(model.matrix).items():
        change = weights[j] - sum((w * weights[k] for k, w in alias.items()), np.zeros(weights.shape[1]))
        if np.abs(change).max() > ROW_SPACE * np.abs(weights).max():
            at_fault[j] = alias
    apart = [
        f"{model.coefficients[j]} cannot be separated from {_terms(model, alias)}"
        if alias
        else f"{model.coefficients[j]} is zero in every sample"
        for j, alias in at_fault.items()
    ]
    return (
        f"{word if len(refused) == 1 else 'contrasts'} {_listed(list(refused))} cannot be estimated with design {model.design!r} from these "
        f"{len(model.matrix)} samples: {'; '.join(_causes(model, at_fault))}. Not determined: "
        f"{_listed([model.coefficients[j] for j in at_fault])}. {'; '.join(apart[:MOST_NAMED])}{'; ...' if len(apart) > MOST_NAMED else ''}. "
        "Change the design, or ask for contrasts that do not need these coefficients."
    )


def aliased(matrix: np.ndarray) -> dict[int, dict[int, float]]:
    """Columns that are sums of columns before them, each with the columns and weights that give it."""
    kept: list[int] = []
    found: dict[int, dict[int, float]] = {}
    for j in range(matrix.shape[1]):
        column = matrix[:, j]
        weights = np.linalg.lstsq(matrix[:, kept], column)[0] if kept else np.empty(0)
        left = column - matrix[:, kept] @ weights
        if np.linalg.norm(left) > TOLERANCE * float(np.linalg.norm(column)):
            kept.append(j)
        else:
            found[j] = {k: float(w) for k, w in zip(kept, weights, strict=True) if abs(w) > TOLERANCE}
    return found


def _causes(model: Model, aliases: dict[int, dict[int, float]]) -> list[str]:
    """Sentences for what the aliased coefficients have in common, the plainest there are."""
    term_of = {j: term for term, where in model.terms.items() for j in where}
    causes: dict[str, None] = {}
    for j, weights in aliases.items():
        own = model.term_columns[term_of[j]]
        others = {name for k in weights for name in model.term_columns[term_of[k]]} - set(own)
        causes[_empty_cells(model, own) or _pairwise(model, own, others) or _sum_of(model, j, weights)] = None
    return list(causes)


def _empty_cells(model: Model, columns: list[str]) -> str:
    """An interaction of labels some combinations of which no sample has."""
    labels = [name for name in columns if name in model.labels]
    if len(labels) < 2:
        return ""
    seen = set(model.covariates[labels].itertuples(index=False, name=None))
    cells = product(*(model.levels(name) for name in labels))
    empty = [_level_text(dict(zip(labels, cell, strict=True))) for cell in cells if cell not in seen]
    if not empty:
        return ""
    return f"no sample has {' or '.join(empty[:MOST_NAMED])}{' or ...' if len(empty) > MOST_NAMED else ''}"


def _pairwise(model: Model, own: list[str], others: set[str]) -> str:
    """A number that is constant; two columns that say the same, nest, or fall apart into parts that share nothing."""
    constant = [name for name in own if name not in model.labels and model.covariates[name].nunique() == 1]
    if constant:
        return f"{constant[0]!r} is {model.covariates[constant[0]].iloc[0]:g} in every sample"
    for later in own:
        for earlier in sorted(others, key=model.columns.index):
            if sentence := _of_pair(model, earlier, later):
                return sentence
    for earlier, later in combinations(model.columns, 2):
        if {earlier, later} & {*own, *others} and (sentence := _of_pair(model, earlier, later)):
            return sentence
    return ""


def _of_pair(model: Model, a: str, b: str) -> str:
    if a not in model.labels and b not in model.labels:
        return ""
    table = pd.crosstab(model.covariates[a], model.covariates[b])
    a_fixes_b, b_fixes_a = (table > 0).sum(axis=1).max() == 1, (table > 0).sum(axis=0).max() == 1
    both = a in model.labels and b in model.labels
    if a_fixes_b and b_fixes_a and both:
        pairs = [f"{x} = {table.columns[int(row.to_numpy().argmax())]}" for x, row in table.iterrows()]
        return f"{a!r} and {b!r} have the same levels ({_some(pairs)}), so their effects cannot be separated"
    if a_fixes_b and a in model.labels:
        return _nested(table, a, b)
    if b_fixes_a and b in model.labels:
        return _nested(table.T, b, a)
    return _parts(table, a, b) if both else ""


def _nested(table: pd.DataFrame, inner: str, outer: str) -> str:
    only = [
        f"{inner} {x!s} contains only {outer} {table.columns[int(row.to_numpy().argmax())]}"
        for x, row in table.iterrows()
    ]
    return (
        f"{inner!r} is nested in {outer!r} ({_some(only)}), so the effect of {outer!r} cannot be separated from that of {inner!r}; "
        f"leave {inner!r} out of the design if its levels are the replicates, or {outer!r} if it makes no difference"
    )


def _parts(table: pd.DataFrame, a: str, b: str) -> str:
    """Two columns whose levels form parts that share no sample."""
    part = _connected(table.to_numpy() > 0)
    if part.max() == 0:
        return ""
    words = []
    for k in range(part.max() + 1):
        mine, theirs = table.index[part == k], table.columns[table[part == k].any(axis=0)]
        words.append(f"{a} {_and(mine)} contain{'s' if len(mine) == 1 else ''} only {b} {_and(theirs)}")
    return f"{_some(words)}: differences between these parts of {b!r} cannot be separated from the effect of {a!r}"


def _connected(present: np.ndarray) -> np.ndarray:
    """Part (n_rows,) of each row, rows that share a column being in one part."""
    part = np.arange(len(present))
    for column in present.T:
        joined = np.unique(part[column])
        part[np.isin(part, joined[1:])] = joined[0] if joined.size else 0
    return np.unique(part, return_inverse=True)[1]


def _sum_of(model: Model, j: int, weights: dict[int, float]) -> str:
    if not weights:
        return f"{model.coefficients[j]!r} is zero in every sample"
    return f"{model.coefficients[j]!r} is {_terms(model, weights)}"


def _terms(model: Model, weights: dict[int, float]) -> str:
    """Weighted coefficients as a sum."""
    parts = [
        f"{'-' if w < 0 else '+'} {'' if np.isclose(abs(w), 1) else f'{abs(w):.3g} '}{model.coefficients[k]}"
        for k, w in weights.items()
    ]
    text = " ".join(parts)
    return text[2:] if text.startswith("+") else text.replace("- ", "-", 1)


def _spent(model: Model, reduction: Reduction) -> str:
    spent = {term: len(np.intersect1d(where, reduction.kept)) for term, where in model.terms.items()}
    return ", ".join(f"{'intercept' if term == '1' else term} {n}" for term, n in spent.items())


def _level_text(levels: dict[str, object]) -> str:
    return " and ".join(f"{name} {level!r}" for name, level in levels.items())


def _and(levels: pd.Index) -> str:
    return " and ".join(map(str, levels[:MOST_NAMED])) + (" and ..." if len(levels) > MOST_NAMED else "")


def _some(parts: list[str]) -> str:
    return ", ".join(parts[:MOST_NAMED]) + (", ..." if len(parts) > MOST_NAMED else "")


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:MOST_NAMED])) + (
        f", ... ({len(names)} in all)" if len(names) > MOST_NAMED else ""
    )
