"""Posteriors of any number of tests by a trained network, in batches on any device. torch is loaded by the first call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import get_num_threads

from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._nb.posterior.columns import NETWORK, Columns, Posterior, from_columns
from nbcompare._nb.posterior.gaussian import change_moments
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import NULL_PROPORTION, Prior
from nbcompare._nb.posterior.summary import summarise_mixture
from nbcompare._transformer.batch import checked, in_batches
from nbcompare._transformer.cpu.features import compute_features_into
from nbcompare._transformer.cpu.mixture import assemble
from nbcompare._transformer.device import default_batch_size, find_device, runs_all_steps
from nbcompare._transformer.layout import LOG_BAYES_FACTOR, N_FEATURES, N_LAPLACE
from nbcompare._transformer.weights import Trained, load_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nbcompare._nb.posterior.empirical_bayes import Data
    from nbcompare._transformer.batch import Batch
    from nbcompare._transformer.network import Network


@dataclass(frozen=True)
class NetworkSummary:
    """What the network says of n tests, without refinement."""

    posterior: Posterior
    change_mean: np.ndarray  # (n,) of the log fold change given a change
    change_sd: np.ndarray


def posterior_of(
    counts1: np.ndarray,
    exposure1: np.ndarray,
    counts2: np.ndarray,
    exposure2: np.ndarray,
    prior: Prior,
    *,
    network: Trained | None = None,
    device: str = "auto",
    batch_size: int | None = None,
) -> Mixture:
    """The posterior of every test as the network gives it.

    Parameters
    ----------
    counts1, counts2
        Of reference and treated group, (n_tests, n_replicates).
    exposure1, exposure2
        Their exposures, (n_replicates,) or (n_tests, n_replicates); 0 is an absent replicate. Every group needs one that is present.
    prior
        Of every test, in natural logarithms.
    network
        From `load_network`; by default that of the package.
    device
        ``"auto"`` (CUDA or MPS where there is one, else the CPU) or a name that torch knows. Devices with float64, as CUDA's, do all of
        the work; for others the features are computed on the CPU.
    batch_size
        Tests at once; by default what fits into a quarter of the free memory, and no more than is fast.

    Raises
    ------
    ImportError
        Without torch and safetensors.
    ValueError
        Where a count is negative or not a number, a group has no replicate, or a prior is no prior.
    """
    own, place, parts = _prepared((counts1, exposure1, counts2, exposure2), prior, network, device, batch_size)
    if runs_all_steps(place):
        from nbcompare._transformer.gpu.posterior import mixture_on_device

        return Mixture.joined([mixture_on_device(own, part, place) for part in parts])
    return Mixture.joined([_mixture(own, part, place) for part in parts])


def summarize(
    counts1: np.ndarray,
    exposure1: np.ndarray,
    counts2: np.ndarray,
    exposure2: np.ndarray,
    prior: Prior,
    *,
    network: Trained | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    levels: Sequence[float] = (),
) -> NetworkSummary:
    """Summaries of the posteriors of `posterior_of`, and the moments to compare with the Gaussian approximation.

    Parameters
    ----------
    counts1, exposure1, counts2, exposure2, prior, network, device, batch_size
        As in `posterior_of`.
    levels
        Of the further quantiles of the log fold change given a change and of the log dispersion.
    """
    groups = (counts1, exposure1, counts2, exposure2)
    place = find_device(device)
    if runs_all_steps(place):
        from nbcompare._transformer.gpu.posterior import summary_on_device

        own, place, parts = _prepared(groups, prior, network, place, batch_size)
        return joined_summaries([summary_on_device(own, part, place, levels) for part in parts])
    mixture = posterior_of(*groups, prior, network=network, device=place, batch_size=batch_size)
    return NetworkSummary(summarise_mixture(mixture, levels=levels), *change_moments(mixture))


def joined_summaries(parts: list[list[np.ndarray]]) -> NetworkSummary:
    """What `summary_on_device` says of batches, of all tests."""
    columns, change, changes, dispersions = (np.concatenate(one) for one in zip(*parts, strict=True))
    return NetworkSummary(from_columns(Columns(columns, changes, dispersions), NETWORK), *change.T.copy())


def _prepared(
    groups: Data, prior: Prior, network: Trained | None, device: str, batch_size: int | None
) -> tuple[Network, str, Iterator[Batch]]:
    """The network where it will run, that place, and the tests in batches."""
    from nbcompare._transformer.network import on_device

    trained = load_network() if network is None else network
    data = checked(groups, prior)
    place = find_device(device)
    n_replicates = data[0][0].shape[1] + data[0][2].shape[1]
    size = batch_size or default_batch_size(trained.network.config.numbers_at_once, place, n_replicates)
    return on_device(trained.network, place), place, in_batches(data, size)


def _mixture(network: Network, batch: Batch, device: str) -> Mixture:
    """The posterior of one batch, features and mixtures on the CPU."""
    import torch

    from nbcompare._transformer.network import raw_in_parts

    groups, priors = batch
    laplace = np.empty((len(priors), N_LAPLACE))
    features = np.empty((len(priors), N_FEATURES), dtype=np.float32)
    in_parallel(
        lambda part: compute_features_into(groups, priors, part, laplace, features),
        len(priors),
        get_num_threads(),
        size=256,
    )
    with torch.inference_mode():
        x = torch.from_numpy(features).to(device=device, dtype=network.spread.dtype)
        found = raw_in_parts(network, x, n_threads=get_num_threads())
        factor, alternative, null = (part.cpu().numpy() for part in found)
    with np.errstate(divide="ignore"):
        prior_odds = np.log(priors[:, NULL_PROPORTION]) - np.log1p(-priors[:, NULL_PROPORTION])
    return assemble(laplace, prior_odds + laplace[:, LOG_BAYES_FACTOR] + factor, alternative, null)
