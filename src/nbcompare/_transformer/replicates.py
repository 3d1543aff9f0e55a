"""Attention among the replicates of a test: within each arm, then across the arms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nbcompare._transformer.summaries import N_ARM, N_EVEN, N_ODD

N_FEATURES = 6
HEADS = 4
MOST_TOKENS = 64


class Replicates(nn.Module):
    """What the replicates add to the first layer of the trunk: nothing before training."""

    def __init__(self, config):
        super().__init__()
        width = config.replicate_width
        self.embed = nn.Linear(N_FEATURES, width)
        self.context = nn.Linear(N_EVEN + 2 * N_ARM + N_ODD, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.replicate_blocks))
        self.out = nn.Linear(2 * width, config.width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, first: Tensor, second: Tensor, present1: Tensor, present2: Tensor) -> Tensor:
        """Standardised summaries (n, 55), features (n, r, 6) and presence (n, r) of the replicates -> (2 n, width), both orders."""
        even, one, two, odd = x.split([N_EVEN, N_ARM, N_ARM, N_ODD], dim=1)
        a = self.embed(first) + self.context(x)[:, None]
        b = self.embed(second) + self.context(torch.cat([even, two, one, -odd], dim=1))[:, None]
        for block in self.blocks:
            a, b = block(a, b, present1, present2), block(b, a, present2, present1)
        a, b = pool(a, present1), pool(b, present2)
        return torch.cat([self.out(torch.cat([a, b], dim=1)), self.out(torch.cat([b, a], dim=1))])


class Block(nn.Module):
    """Attention within the arm, to the other arm, and a layer of its own."""

    def __init__(self, width: int):
        super().__init__()
        self.within = Attention(width)
        self.across = Attention(width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, own: Tensor, other: Tensor, own_present: Tensor, other_present: Tensor) -> Tensor:
        """Tokens (n, r, width) of one arm, having seen both."""
        own = own + self.within(own, own, own_present)
        own = own + self.across(own, other, other_present)
        return own + self.narrow(torch.nn.functional.silu(self.wide(self.norm(own))))


class Attention(nn.Module):
    """Attention of tokens to the present ones of an arm."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, seen: Tensor, present: Tensor) -> Tensor:
        """Tokens (n, r, width), seen (n, s, width), present (n, s)."""
        n, r, width = tokens.shape
        heads = lambda x: x.view(n, -1, HEADS, width // HEADS).transpose(1, 2)
        key, value = self.key_value(self.norm(seen)).chunk(2, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(
            heads(self.query(self.norm(tokens))), heads(key), heads(value), attn_mask=present[:, None, None, :]
        )
        return self.out(mixed.transpose(1, 2).reshape(n, r, width))


def pool(tokens: Tensor, present: Tensor) -> Tensor:
    """Mean over the present replicates."""
    weight = present.to(tokens.dtype)[..., None]
    return (tokens * weight).sum(1) / weight.sum(1)


def features(counts: Tensor, exposure: Tensor, eta: Tensor, phi: Tensor) -> Tensor:
    """What is said of a replicate, (n, r, 6): residuals at the anchors, its expected count, its exposure, and what it tells of the rate.

    Float64 in, float32 out; absent replicates (exposure 0) are 0.
    """
    present = exposure > 0
    mean = torch.where(present, exposure, 1.0) * torch.exp(eta)[:, None]
    noise = phi[:, None] * mean
    pearson = torch.asinh((counts - mean) / torch.sqrt(mean * (1.0 + noise)))
    ratio = torch.log((counts + 0.5) / (mean + 0.5))
    both = torch.stack(
        [
            pearson,
            pearson * pearson - 0.5,
            ratio.clamp(-6, 6) / 2,
            torch.log1p(mean) / 4 - 1,
            torch.log1p(noise) / 2 - 1,
            torch.log(mean / (1.0 + noise) + 0.01) / 3,
        ],
        dim=-1,
    )
    return torch.where(present[..., None], both, 0.0).to(torch.float32)


def tokens(arms: list[np.ndarray], anchors: np.ndarray, device: str) -> tuple[Tensor, ...]:
    """Features and presence of the replicates of both arms, of at most 64 an arm, evenly picked; no wider than the widest test."""
    told, presence = [], []
    phi = np.exp(anchors[:, 0])
    for counts, exposure, sign in ((arms[0], arms[1], -0.5), (arms[2], arms[3], 0.5)):
        exposure = np.broadcast_to(exposure, counts.shape)
        order = np.argsort(exposure <= 0, axis=1, kind="stable")
        width = max(int((exposure > 0).sum(axis=1).max()), 1)
        order = order[:, np.unique(np.linspace(0, width - 1, min(width, MOST_TOKENS)).astype(int))]
        picked = [torch.as_tensor(np.take_along_axis(array, order, axis=1)) for array in (counts, exposure)]
        eta = torch.as_tensor(anchors[:, 1] + sign * anchors[:, 2])
        told.append(features(picked[0], picked[1], eta, torch.as_tensor(phi)).to(device))
        presence.append((picked[1] > 0).to(device))
    return *told, *presence
