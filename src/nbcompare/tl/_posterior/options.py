"""Options of posterior methods, and what is refused of them before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from nbcompare._messages import SEE_COMBINATIONS
from nbcompare.tl._posterior.prior_fields import RANGES, given_fields

POSTERIOR_METHODS = ("transformer", "quadrature")


@dataclass(frozen=True)
class PosteriorOptions:
    """Method of a call, and the options that posterior methods alone use."""

    method: str = "mom"
    prior: Mapping[str, Any] | None = None
    network: str | PathLike[str] | None = None
    device: str = "auto"
    importance_sampling: bool = True
    null_spread: bool = True

    @property
    def is_posterior(self) -> bool:
        """Whether the method is a posterior method."""
        return self.method in POSTERIOR_METHODS


def refuse_unused(options: PosteriorOptions) -> None:
    """Refuse options that posterior methods alone use, with another method."""
    given = {"prior": options.prior is not None, "network": options.network is not None}
    given["device"] = options.device != "auto"
    if unused := [name for name, is_given in given.items() if is_given]:
        msg = (
            f"{unused[0]} requires method='transformer' or 'quadrature', but method is {options.method!r}. "
            f"Leave {unused[0]} out, or change the method. {SEE_COMBINATIONS}"
        )
        raise ValueError(msg)


def check_prior(prior: Mapping[str, Any] | None, n_genes: int | None = None) -> None:
    """Refuse names and numbers that mean nothing, and arrays that do not have one number for each gene."""
    for field, value in given_fields(prior).items():
        if np.ndim(value) and field != "log_dispersion":
            name = next(name for name, (of_name, *_) in RANGES.items() if of_name == field)
            msg = (
                f"prior[{name!r}] is an array, but must be one number. Only 'dispersion' can have one number per gene."
            )
            raise ValueError(msg)
        if n_genes is not None and np.shape(value) not in ((), (n_genes,)):
            msg = f"prior['dispersion'] has the shape {np.shape(value)}, but must be one number, or one per gene: ({n_genes},)."
            raise ValueError(msg)


def check_network(options: PosteriorOptions) -> None:
    """Load the network and find the device, or refuse what quadrature does not use."""
    if options.method == "quadrature":
        if options.network is not None or options.device != "auto":
            msg = (
                "network and device require method='transformer', but method is 'quadrature', which uses no network. Leave them out. "
                + SEE_COMBINATIONS
            )
            raise ValueError(msg)
        return
    from nbcompare._transformer.device import find_device
    from nbcompare._transformer.weights import load_network

    load_network(options.network)
    find_device(options.device)
