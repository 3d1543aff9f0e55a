"""Posteriors of any number of tests by a trained network, in batches on any device. torch is loaded by the first call."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import get_num_threads

from nbcompare._nb.closed_form import change_moments
from nbcompare._nb.mixture import Mixture
from nbcompare._nb.pieces import in_pieces
from nbcompare._nb.posterior import NETWORK, Posterior, from_columns, summarise_mixture
from nbcompare._nb.prior import Prior, prior_matrix, with_one_dispersion
from nbcompare._optional import require
from nbcompare._transformer.arms import Batch, Data, checked, in_batches
from nbcompare._transformer.assemble import assemble
from nbcompare._transformer.devices import default_batch_size, on_device, wholly_there
from nbcompare._transformer.simulate import HIGHEST_LOG_MEAN, Ranges
from nbcompare._transformer.summaries import N_ANCHORS, N_SUMMARIES, summarise_into

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nbcompare._transformer.network import Network

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "posterior"  # name of the weights that are read where none are asked for
MOST_MEASURED = (
    3000  # replicates of an arm up to which the network, trained on 64, was found as close to quadrature as below
)
CONFLICT = 5.0  # prior standard deviations from the prior's mean, where data and prior contradict each other


@dataclass(frozen=True)
class Trained:
    """A network with what its file says of it."""

    network: Network
    header: dict[str, str]
    ranges: Ranges  # what it was trained on
    sha256: str = ""  # of its file


@dataclass(frozen=True)
class Judged:
    """What the network says of n tests, without refinement."""

    posterior: Posterior
    change_mean: np.ndarray  # (n,) of the log fold change given a change
    change_sd: np.ndarray


def load_network(path: str | os.PathLike[str] | None = None) -> Trained:
    """A trained network from its file.

    Parameters
    ----------
    path
        A safetensors file that ``python -m nbcompare._transformer.train`` wrote, or the name of one that comes with the package.
        By default the package's own.

    Raises
    ------
    ImportError
        Without torch and safetensors.
    ValueError
        Where there is no such file, or it is of another format.
    """
    require("torch", "transformer")
    require("safetensors", "transformer")
    file = Path(DEFAULT if path is None else path)
    bundled = WEIGHTS / f"{file}.safetensors"
    if not file.is_file() and bundled.is_file():
        file = bundled
    if not file.is_file():
        names = ", ".join(repr(found.stem) for found in sorted(WEIGHTS.glob("*.safetensors")))
        msg = f"There is no network {str(path)!r}. Give the path of a file of weights, or one of {names}."
        raise ValueError(msg)
    return _load(str(file), file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: str, _changed: int) -> Trained:
    from nbcompare._transformer.weights import read_weights

    network, header = read_weights(path)
    ranges: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(header["training"]).items()
    }
    return Trained(network, header, Ranges(**ranges), hashlib.sha256(Path(path).read_bytes()).hexdigest())


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
        Of reference and treated arm, (n_tests, n_replicates).
    exposure1, exposure2
        Their exposures, (n_replicates,) or (n_tests, n_replicates); 0 is an absent replicate. Every arm needs one that is present.
    prior
        Of every test, in natural logarithms.
    network
        From `load_network`; by default that of the package.
    device
        ``"auto"`` (CUDA or MPS where there is one, else the CPU) or a name that torch knows. Devices with float64, as CUDA's, do all of
        the work; for others anchors are found on the CPU.
    batch_size
        Tests at once; by default what fits into a quarter of the free memory, and no more than is fast.

    Raises
    ------
    ImportError
        Without torch and safetensors.
    ValueError
        Where a count is negative or not a number, an arm has no replicate, or a prior is no prior.
    """
    own, place, parts = _prepared((counts1, exposure1, counts2, exposure2), prior, network, device, batch_size)
    if wholly_there(place):
        from nbcompare._transformer.device_posterior import mixture_on_device

        return Mixture.joined([mixture_on_device(own, part, place) for part in parts])
    return Mixture.joined([_mixture(own, part, place) for part in parts])


def judge(
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
) -> Judged:
    """Summaries of the posteriors of `posterior_of`, and the moments that tell whether the closed form is far.

    Parameters
    ----------
    counts1, exposure1, counts2, exposure2, prior, network, device, batch_size
        As in `posterior_of`.
    levels
        Of the further quantiles of the log fold change given a change and of the log dispersion.
    """
    arms = (counts1, exposure1, counts2, exposure2)
    place = find_device(device)
    if wholly_there(place):
        from nbcompare._transformer.device_posterior import summary_on_device

        own, place, parts = _prepared(arms, prior, network, place, batch_size)
        return as_judged([summary_on_device(own, part, place, levels) for part in parts])
    mixture = posterior_of(*arms, prior, network=network, device=place, batch_size=batch_size)
    return Judged(summarise_mixture(mixture, levels=levels), *change_moments(mixture))


def in_range(
    counts1: np.ndarray,
    exposure1: np.ndarray,
    counts2: np.ndarray,
    exposure2: np.ndarray,
    prior: Prior,
    *,
    network: Trained | None = None,
) -> np.ndarray:
    """Whether each test lies where the network was trained, (n_tests,) bool.

    Its prior must lie within the bounds of the training distribution, both groups must have the same dispersion ratio and 1 to 3,000
    replicates present, and the groups' rates and their ratio must be within five standard deviations of what the prior says.
    """
    ranges = (load_network() if network is None else network).ranges
    prior, alike = with_one_dispersion(prior, len(counts1))
    log_mean, log_mean_sd, location, scatter, tail, _, scale = prior_matrix(prior, len(counts1)).T
    rates, depths, numbers, logs = [], [], [], np.zeros(1)
    for counts, exposure in ((counts1, exposure1), (counts2, exposure2)):
        exposure = np.atleast_2d(np.asarray(exposure, dtype=np.float64))
        present = exposure > 0
        numbers.append(present.sum(axis=1))
        depths.append(_sums(exposure))
        weight = present.astype(np.float64)
        total = counts @ weight[0] if len(weight) == 1 else np.einsum("ij,ij->i", counts, weight)
        rates.append(np.log((total + 0.5) / depths[-1]))
        logs = logs + _sums(np.log(np.where(present, exposure, 1.0)))
    count = log_mean + logs / (numbers[0] + numbers[1])
    within = lambda x, low, high: (x >= low - 1e-9) & (x <= high + 1e-9)
    least = np.sqrt(sum(1.0 / np.maximum(np.exp(rate) * depth, 0.5) for rate, depth in zip(rates, depths, strict=True)))
    noise = np.hypot(least, np.exp(0.5 * np.minimum(location, 4.0)) * np.sqrt(1 / numbers[0] + 1 / numbers[1]))
    fold = np.abs(rates[1] - rates[0])
    centre = np.abs(0.5 * (rates[0] + rates[1]) - log_mean)
    return (
        alike
        & within(
            count, np.log(ranges.mean[0]), np.minimum(np.log(ranges.mean[1]), HIGHEST_LOG_MEAN - 1.5 * log_mean_sd)
        )
        & within(log_mean_sd, *ranges.log_mean_sd)
        & within(location, *np.log(ranges.dispersion))
        & within(scatter, *ranges.scatter)
        & within(scale, *ranges.scale)
        & within(tail, 0.0, 1.0)
        & within(np.minimum(*numbers), ranges.replicates[0], np.inf)
        & within(np.maximum(*numbers), 1, max(ranges.replicates[1], MOST_MEASURED))
        & (fold <= CONFLICT * np.hypot(scale, noise))
        & (centre <= CONFLICT * np.hypot(log_mean_sd, 0.5 * noise))
    )


def _sums(rows: np.ndarray) -> np.ndarray:
    """Sums of rows, added up one after the other, so that zeros behind a row do not change the last digit."""
    return np.cumsum(rows, axis=1)[:, -1]


def find_device(device: str) -> str:
    """The device that is meant, as torch calls it."""
    torch = require("torch", "transformer")
    if device != "auto":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            msg = f"device={device!r} cannot be used here: {error}. Use 'auto' or 'cpu'."
            raise ValueError(msg) from error
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def as_judged(parts: list[list[np.ndarray]]) -> Judged:
    """What `summary_on_device` says of batches, of all tests."""
    columns, change, changes, dispersions = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Judged(from_columns([columns, changes, dispersions], NETWORK), *change.T.copy())


def _prepared(
    arms: Data, prior: Prior, network: Trained | None, device: str, batch_size: int | None
) -> tuple[Network, str, Iterator[Batch]]:
    """The network where it will run, that place, and the tests in batches."""
    trained = load_network() if network is None else network
    data = checked(arms, prior)
    place = find_device(device)
    n_replicates = data[0][0].shape[1] + data[0][2].shape[1]
    size = batch_size or default_batch_size(trained.network.config, place, n_replicates)
    return on_device(trained.network, place), place, in_batches(data, size)


def _mixture(network: Network, batch: Batch, device: str) -> Mixture:
    """The posterior of one batch, anchors and mixtures on the CPU."""
    import torch

    from nbcompare._transformer.network import raw_in_parts

    arms, priors = batch
    anchors = np.empty((len(priors), N_ANCHORS))
    summaries = np.empty((len(priors), N_SUMMARIES), dtype=np.float32)
    in_pieces(
        lambda part: summarise_into(arms, priors, part, anchors, summaries), len(priors), get_num_threads(), size=256
    )
    with torch.inference_mode():
        x = torch.from_numpy(summaries).to(device=device, dtype=network.spread.dtype)
        found = raw_in_parts(network, x, n_threads=get_num_threads())
        factor, changed, equal = (part.cpu().numpy() for part in found)
    with np.errstate(divide="ignore"):
        prior_odds = np.log(priors[:, 5]) - np.log1p(-priors[:, 5])
    return assemble(anchors, prior_odds + anchors[:, 14] + factor, changed, equal)
