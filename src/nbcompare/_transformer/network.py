"""From the features of a test to its posterior, in units of its Laplace approximations.

The trunk sees the groups in both orders, with the odd features' signs changed; what must not change under the exchange is the mean of the two
readings, what must change sign half their difference, and components that are exchanged are one reading each. So the symmetry is exact.
"""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from nbcompare._nb.numerics.parallel import in_parallel
from nbcompare._transformer.device import one_thread
from nbcompare._transformer.layout import N_EVEN, N_FEATURES, N_GROUP, N_ODD

WORST = (
    -30.0
)  # log density of a test in training, so that the one in a million whose Laplace approximation failed does not rule
AT_ONCE, AT_ONCE_ON_DEVICE = 2**9, 2**16  # tests that the layers take together
EVEN = (
    0,
    1,
    2,
    4,
    5,
    6,
    7,
)  # of the ten numbers of a component: log weight, mean of alpha, centre; log scales, alpha with centre
ODD = (3, 8, 9)  # mean of beta, alpha with beta, centre with beta


@dataclass(frozen=True)
class Config:
    """Sizes of the network."""

    width: int = 96
    depth: int = 3
    own: int = 3  # components that the exchange of the groups maps onto themselves
    pairs: int = 1  # pairs of components that it exchanges
    null: int = 3  # components where beta = 0

    def as_dict(self) -> dict:
        """The sizes by name."""
        return asdict(self)

    @property
    def numbers_at_once(self) -> int:
        """Float32 numbers of a test that the network holds at once."""
        components = self.own + 2 * self.pairs + self.null
        return 2 * self.width * (self.depth + 3) + 4 * N_FEATURES + 20 * components


@dataclass(frozen=True)
class Components:
    """Gaussian mixtures in units of the Laplace approximations; axes alpha, centre, beta (alpha, centre where beta = 0)."""

    log_weight: Tensor  # (n, K), normalised
    mean: Tensor  # (n, K, axes)
    log_scale: Tensor  # (n, K, axes) log diagonal of the factor of the covariance
    mixed: Tensor  # (n, K, axes (axes - 1) / 2) below the diagonal, by rows

    def log_density(self, u: Tensor) -> Tensor:
        """Log density at points (n, axes), but for the constant of a Gaussian."""
        v: list[Tensor] = []
        k = 0
        for axis in range(u.shape[1]):
            rest = u[:, None, axis] - self.mean[..., axis]
            for before in v:
                rest = rest - self.mixed[..., k] * before
                k += 1
            v.append(rest * torch.exp(-self.log_scale[..., axis]))
        squares = sum((one * one for one in v), torch.zeros(()))
        return torch.logsumexp(self.log_weight - 0.5 * squares - self.log_scale.sum(-1), dim=-1)

    def joined(self) -> Tensor:
        """Weights, means, log scales and below the diagonal side by side."""
        return torch.cat([self.log_weight.exp()[..., None], self.mean, self.log_scale, self.mixed], dim=-1)


class Network(nn.Module):
    """Features -> what to add to the log Bayes factor, and the two mixtures."""

    centre: Tensor
    spread: Tensor

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(N_EVEN + N_GROUP))
        self.register_buffer("spread", torch.ones(N_EVEN + N_GROUP + N_ODD))
        self.first = nn.Linear(N_EVEN + 2 * N_GROUP + N_ODD, config.width)
        self.trunk = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth - 1))
        self.own_even = nn.Linear(config.width, len(EVEN) * config.own)
        self.own_odd = nn.Linear(config.width, len(ODD) * config.own, bias=False)
        self.pairs = nn.Linear(config.width, 10 * config.pairs)
        self.null = nn.Linear(config.width, 6 * config.null)
        self.factor = nn.Linear(config.width, 1)
        spread_out(self)

    def standardise(self, features: Tensor) -> Tensor:
        """Features (n, 55) in standard deviations of the training distribution, bounded."""
        even, group = self.centre[:N_EVEN], self.centre[N_EVEN:]
        centre = torch.cat([even, group, group, torch.zeros_like(self.spread[:N_ODD])])
        even, group, odd = self.spread.split([N_EVEN, N_GROUP, N_ODD])
        return ((features - centre) / torch.cat([even, group, group, odd])).clamp(-8.0, 8.0)

    def set_scales(self, features: Tensor) -> None:
        """Centres and spreads of features like these; the groups share theirs."""
        even, first, second, odd = features.split([N_EVEN, N_GROUP, N_GROUP, N_ODD], dim=1)
        groups = torch.cat([first, second])
        self.centre.copy_(torch.cat([even.mean(0), groups.mean(0)]))
        self.spread.copy_(torch.cat([even.std(0), groups.std(0), odd.square().mean(0).sqrt()]).clamp(min=1e-3))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The two readings, (n, width) each."""
        x = self.standardise(features)
        even, first, second, odd = x.split([N_EVEN, N_GROUP, N_GROUP, N_ODD], dim=1)
        both = torch.cat([x, torch.cat([even, second, first, -odd], dim=1)])
        h = torch.nn.functional.silu(self.first(both))
        for layer in self.trunk:
            h = h + torch.nn.functional.silu(layer(h))
        one, other = h.chunk(2)
        return one, other

    def log_factor(self, one: Tensor, other: Tensor) -> Tensor:
        """What to add to the log Bayes factor of the Laplace approximations, (n,)."""
        return self.factor(0.5 * (one + other))[:, 0]

    def alternative_mixture(self, one: Tensor, other: Tensor) -> Tensor:
        """The mixture where beta is not 0: (n, K, 10) log weights, means, log scales and below the diagonal."""
        n, config = len(one), self.config
        even = self.own_even(0.5 * (one + other)).view(n, config.own, len(EVEN))
        odd = self.own_odd(0.5 * (one - other)).view(n, config.own, len(ODD))
        first = self.pairs(one).view(n, config.pairs, 10)
        second = exchange(self.pairs(other).view(n, config.pairs, 10))
        return torch.cat([interleave(even, odd), first, second], dim=1)

    def null_mixture(self, one: Tensor, other: Tensor) -> Tensor:
        """The mixture where beta is 0: (n, K0, 6), the same of alpha and centre."""
        return self.null(0.5 * (one + other)).view(len(one), self.config.null, 6)

    def raw(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All three heads, weights normalised and scales bounded: what `assemble` takes."""
        one, other = self(features)
        alternative, null = (
            as_components(raw) for raw in (self.alternative_mixture(one, other), self.null_mixture(one, other))
        )
        return self.log_factor(one, other), alternative.joined(), null.joined()


def on_device(network: Network, device: str) -> Network:
    """The network there: a copy, except on the CPU."""
    return network if device == "cpu" else deepcopy(network).to(device)


def raw_in_parts(network: Network, features: Tensor, *, n_threads: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """`Network.raw` with a fixed number of tests at once, the last part filled up with zeros; on a CPU in threads over parts.

    The last digits of a product of matrices depend on their sizes and on how many threads share the work, and those of a function on
    whether a value is in the remainder behind the last full vector. With one size, and one thread for each part, an answer depends on
    its test alone, not on how many others are asked for with it.
    """
    on_cpu = features.device.type == "cpu"
    size = AT_ONCE if on_cpu else AT_ONCE_ON_DEVICE
    parts: dict[int, list[Tensor]] = {}

    def run(part: slice) -> None:
        if on_cpu and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        with torch.inference_mode():
            found = network.raw(filled(features[part], size))
            parts[part.start] = [array[: part.stop - part.start] for array in found]

    with one_thread() if on_cpu else nullcontext():
        in_parallel(run, len(features), n_threads if on_cpu else 1, size=size)
    if not parts:
        return network.raw(features)
    factor, alternative, null = (torch.cat(arrays) for arrays in zip(*(parts[k] for k in sorted(parts)), strict=True))
    return factor, alternative, null


def filled(array: Tensor, size: int) -> Tensor:
    """The rows and as many of zeros as are missing; always memory of its own, of one alignment."""
    whole = array.new_zeros((size, *array.shape[1:]))
    whole[: len(array)] = array
    return whole


def as_components(raw: Tensor) -> Components:
    """Ten or six numbers a component as a mixture."""
    axes = 3 if raw.shape[-1] == 10 else 2
    weight, mean, scale, mixed = raw.split([1, axes, axes, raw.shape[-1] - 2 * axes - 1], dim=-1)
    return Components(torch.log_softmax(weight[..., 0], dim=-1), mean, scale.clamp(-5.0, 3.0), mixed)


def interleave(even: Tensor, odd: Tensor) -> Tensor:
    """The ten numbers of components from their even and odd ones."""
    return torch.cat([even[..., :3], odd[..., :1], even[..., 3:7], odd[..., 1:]], dim=-1)


def exchange(raw: Tensor) -> Tensor:
    """The ten numbers of components with the sign of beta changed."""
    return torch.cat([raw[..., :3], -raw[..., 3:4], raw[..., 4:8], -raw[..., 8:]], dim=-1)


def spread_out(network: Network) -> None:
    """Start near the Gaussians of the Laplace approximations, components a little apart along alpha."""
    with torch.no_grad():
        for head in (network.own_even, network.own_odd, network.pairs, network.null, network.factor):
            head.weight *= 0.1
            if head.bias is not None:
                head.bias.zero_()
        for bias, size, count in (
            (network.own_even.bias, len(EVEN), network.config.own),
            (network.null.bias, 6, network.config.null),
        ):
            bias.view(count, size)[:, 1] = torch.linspace(-0.6, 0.6, count)


def log_likelihoods(network: Network, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean log score of each part: whether beta = 0, the parameters where it is not, and where it is."""
    one, other = network(batch["features"])
    logit = batch["log_factor"] + network.log_factor(one, other)
    is_null = batch["is_null"]
    alternative = as_components(network.alternative_mixture(one[~is_null], other[~is_null]))
    null = as_components(network.null_mixture(one[is_null], other[is_null]))
    factor = torch.nn.functional.logsigmoid(torch.where(is_null, logit, -logit)).clamp(min=WORST)
    return {
        "factor": factor.mean(),
        "alternative": alternative.log_density(batch["alternative"][~is_null]).clamp(min=WORST).mean(),
        "null": null.log_density(batch["null"][is_null]).clamp(min=WORST).mean(),
    }
