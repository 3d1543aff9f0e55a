from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.hidden.compare import Adjusted, HiddenModel, Unadjusted, adjust_comparison, fit_hidden
from nbcompare._nb.hidden.dataset import HiddenData, group_data, pair_contrast
from nbcompare._nb.moderated import moderated_tests


@dataclass(frozen=True)
class Simulated:
    counts: np.ndarray  # (n_genes, n_samples)
    group: np.ndarray
    effect: np.ndarray  # (n_genes,) natural log fold change


def simulate(
    seed: int, n: int = 8, n_genes: int = 1500, strength: float = 0.3, cosine: float = 0.4, changed: float = 0.1
) -> Simulated:
    """Two groups of n samples with one hidden factor at this cosine to the condition; loadings are N(0, strength)."""
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1], n)
    mean = np.exp(rng.uniform(np.log(10), np.log(1000), n_genes))
    dispersion = 0.05 * rng.lognormal(0, 0.5, n_genes)
    effect = np.where(rng.random(n_genes) < changed, rng.normal(0, 0.8, n_genes), 0.0)
    condition = (group - 0.5) / np.sqrt(n / 2)
    other = rng.normal(size=2 * n)
    other -= other.mean() + condition * (condition @ other)
    factor = cosine * condition + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    log_mean = np.log(mean)[:, None] + effect[:, None] * (group - 0.5)
    log_mean = log_mean + np.outer(rng.normal(0, strength, n_genes), factor) * np.sqrt(2 * n)
    size = 1 / dispersion[:, None]
    counts = rng.poisson(np.exp(log_mean) * rng.gamma(size, 1 / size, log_mean.shape)).astype(float)
    efficiency = counts.sum(axis=1) >= 10
    return Simulated(counts[efficiency], group, effect[efficiency])


def prepare(counts: np.ndarray, group: np.ndarray) -> tuple[HiddenData, Unadjusted]:
    """The data of two groups, and their unadjusted comparison."""
    exposure = np.ones(len(group))
    tests = moderated_tests(Pseudobulk(counts, exposure, group), np.array([[0, 1]]), intervals=True)
    own = Unadjusted(
        tests.statistic[:, 0], tests.statistic[:, 0], tests.log_fc[:, 0], tests.se[:, 0], *tests.interval[:, 0].T
    )
    return group_data(counts, exposure[None, :], group, None, tests.trend, np.ones(len(group))), own


def adjust(
    counts: np.ndarray, group: np.ndarray, n_factors: int | None = None
) -> tuple[HiddenModel, Unadjusted, Adjusted]:
    data, own = prepare(counts, group)
    model = fit_hidden(data, n_factors)
    return model, own, adjust_comparison(model, own, pair_contrast(data, group, 0, 1), (0, 1))


@pytest.fixture(scope="session")
def hidden() -> SimpleNamespace:
    """Functions that simulate, prepare and adjust a data set."""
    return SimpleNamespace(simulate=simulate, prepare=prepare, adjust=adjust)


@pytest.fixture(scope="session")
def factor_data() -> Simulated:
    return simulate(1, cosine=0.6)


@pytest.fixture(scope="session")
def adjusted(factor_data) -> tuple[HiddenModel, Unadjusted, Adjusted]:
    return adjust(factor_data.counts, factor_data.group)
