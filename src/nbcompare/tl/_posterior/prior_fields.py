"""The prior of a comparison as users give and read it: log2 fold changes, dispersions and rates instead of natural logarithms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata import as_floats, is_labelled, numbers_of
from nbcompare._nb.posterior.prior import INVERSE_GAMMA, NORMAL, Prior

TAILS = {"lognormal": NORMAL, "inverse_gamma": INVERSE_GAMMA}
RANGES = {  # name -> field, lowest, highest, and whether the field is its natural logarithm
    "null_proportion": ("null_proportion", 0.0, 1.0, False),
    "lfc_sd": ("log_fc_sd", 1e-3, 100.0, False),
    "dispersion": ("log_dispersion", 1e-8, 1e4, True),
    "dispersion_log_sd": ("log_dispersion_sd", 0.0, 10.0, False),
    "mean": ("log_mean", 1e-12, 1e12, True),
    "mean_log_sd": ("log_mean_sd", 1e-3, 100.0, False),
}
LOG_2 = float(np.log(2))


def plain_prior(prior: Any, names: Callable[[], pd.Index], noun: str) -> dict[str, Any] | None:
    """A prior as a dict of numbers and arrays; what carries labels is aligned with the names of the genes or tests (`noun`)."""
    if prior is None:
        return None
    if isinstance(prior, pd.Series):
        if prior.index.has_duplicates:
            msg = (
                f"prior holds {prior.index[prior.index.duplicated()][0]!r} more than once. Give each of its parts once."
            )
            raise ValueError(msg)
        prior = dict(prior.items())
    if not isinstance(prior, Mapping):
        msg = f"prior is a {type(prior).__name__}, but must be a dict, such as prior={{'dispersion': 0.1}}."
        raise TypeError(msg)
    plain = {}
    for name, value in prior.items():
        argument = f"prior[{name!r}]"
        if name not in RANGES:
            plain[name] = value
        elif is_labelled(value) and (noun == "test" or name == "dispersion"):  # others are refused as arrays
            plain[name] = numbers_of(value, {noun: names()}, argument)
        else:
            number = as_floats(value, argument)
            plain[name] = number if number.ndim else float(number)
    return plain


def given_fields(prior: Mapping[str, Any] | None) -> dict[str, np.ndarray | float]:
    """The fields of `Prior` that the user gives; refuses names and numbers that mean nothing."""
    found: dict[str, np.ndarray | float] = {}
    for name, value in (prior or {}).items():
        if name == "tail":
            if value not in TAILS:
                msg = f"prior['tail'] is {value!r}, but must be one of {', '.join(map(repr, TAILS))}."
                raise ValueError(msg)
            found["family"] = TAILS[value]
            continue
        if name not in RANGES:
            msg = f"prior has no {name!r}; it may hold {', '.join(map(repr, [*RANGES, 'tail']))}."
            raise ValueError(msg)
        field, lowest, highest, logarithm = RANGES[name]
        number = as_floats(value, f"prior[{name!r}]")
        if not ((number >= lowest) & (number <= highest)).all():
            msg = f"prior[{name!r}] is {value!r}, but must lie between {lowest:g} and {highest:g}."
            raise ValueError(msg)
        inside = np.log(number) if logarithm else number * (LOG_2 if name == "lfc_sd" else 1.0)
        found[field] = inside if inside.ndim else float(inside)
    return found


def as_given(priors: Sequence[Prior]) -> dict[str, Any]:
    """The priors of all comparisons under the users' names, (n_comparisons,) each; of the dispersions what does not vary by gene."""
    column = lambda field: np.array([float(getattr(prior, field)) for prior in priors])
    return {
        "null_proportion": column("null_proportion"),
        "lfc_sd": column("log_fc_sd") / LOG_2,
        "dispersion_log_sd": column("log_dispersion_sd"),
        "mean": np.exp(column("log_mean")),
        "mean_log_sd": column("log_mean_sd"),
        "tail": next(name for name, value in TAILS.items() if value == priors[0].family),
    }
