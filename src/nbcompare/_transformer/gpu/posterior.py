"""All steps on a device: counts go there, answers come back. For devices with float64, which the Laplace approximations need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import NULL_PROPORTION
from nbcompare._transformer.gpu.batch import as_tests
from nbcompare._transformer.gpu.features import compute_features
from nbcompare._transformer.gpu.mixture import DeviceMixture, assemble
from nbcompare._transformer.gpu.mixture import summarise as summarise_mixture
from nbcompare._transformer.layout import LOG_BAYES_FACTOR
from nbcompare._transformer.network import raw_in_parts

if TYPE_CHECKING:
    from nbcompare._transformer.batch import Batch
    from nbcompare._transformer.network import Network


def mixture_on_device(network: Network, batch: Batch, device: str) -> Mixture:
    """The mixtures of one batch, as arrays. `network` is there already."""
    with torch.inference_mode():
        return mixture_of(network, batch, device).to_host()


def summary_on_device(network: Network, batch: Batch, device: str, levels: Sequence[float]) -> list[np.ndarray]:
    """Of one batch, columns: the 13 of `Posterior`, moments of the log fold change given a change, its quantiles, those of the log dispersion."""
    with torch.inference_mode():
        return [rows.cpu().numpy().T for rows in summarise_mixture(mixture_of(network, batch, device), levels)]


def mixture_of(network: Network, batch: Batch, device: str) -> DeviceMixture:
    """The mixtures of one batch, where they are."""
    groups, priors = batch
    data = [as_rows(array, device) for array in groups]
    prior = as_rows(priors, device)
    laplace, features = compute_features(*as_tests(data, prior))
    factor, alternative, null = raw_in_parts(network, features.T.to(network.spread.dtype))
    log_odds = (
        torch.log(prior[NULL_PROPORTION]) - torch.log1p(-prior[NULL_PROPORTION]) + laplace[LOG_BAYES_FACTOR] + factor
    )
    return assemble(laplace, log_odds, alternative, null)


def as_rows(array: np.ndarray, device: str) -> Tensor:
    """An array there, its columns as rows; torch takes none that is read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device).T.contiguous()
