"""What the network says: symmetric, exact in what must not matter, and close to quadrature."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import Prior
from nbcompare._nb.posterior.summary import grid_posterior, summarise_mixture
from nbcompare._transformer.device import default_batch_size, find_device
from nbcompare._transformer.posterior import posterior_of
from nbcompare._transformer.training.simulate import Simulated
from nbcompare._transformer.training_range import Ranges, in_range
from nbcompare._transformer.weights import WEIGHTS, load_network

from .conftest import assert_same, exchanged, posterior

torch = pytest.importorskip("torch")
NETWORKS = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest):
    return load_network(request.param)


def test_exchange_of_the_groups(drawn: Simulated, network) -> None:
    one = posterior(drawn, network=network)
    other = posterior(exchanged(drawn), network=network)
    sign = np.array([1.0, -1.0, 1.0])
    own = network.network.config.own
    pairs = network.network.config.pairs
    order = [*range(own), *range(own + pairs, own + 2 * pairs), *range(own, own + pairs)]
    mirrored = replace(
        other,
        weight=other.weight[:, order],
        mean=other.mean[:, order] * sign,
        cholesky=other.cholesky[:, order] * sign[:, None] * sign,
    )
    assert_same(mirrored, one, 2e-4)
    summaries = [summarise_mixture(mixture) for mixture in (one, other)]
    np.testing.assert_allclose(summaries[0].log_fc, -summaries[1].log_fc, atol=1e-5)
    np.testing.assert_allclose(summaries[0].lfsr, summaries[1].lfsr, atol=1e-5)


def test_order_and_padding_of_replicates(drawn: Simulated, network) -> None:
    rng = np.random.default_rng(1)
    wider = {}
    for name in ("counts1", "exposure1", "counts2", "exposure2"):
        values = getattr(drawn, name)
        wider[name] = np.concatenate([values, np.zeros((len(values), 5))], axis=1)
    for side in "12":
        order = rng.permuted(np.tile(np.arange(wider[f"counts{side}"].shape[1]), (len(drawn.null), 1)), axis=1)
        for name in ("counts", "exposure"):
            wider[f"{name}{side}"] = np.take_along_axis(wider[f"{name}{side}"], order, axis=1)
    assert_same(posterior(replace(drawn, **wider), network=network), posterior(drawn, network=network), 2e-4)


def test_unit_of_exposure(drawn: Simulated, network) -> None:
    unit = np.exp(np.random.default_rng(1).normal(0, 3, (len(drawn.null), 1)))
    prior = drawn.prior.copy()
    prior[:, 0] -= np.log(unit[:, 0])
    scaled = replace(drawn, exposure1=drawn.exposure1 * unit, exposure2=drawn.exposure2 * unit, prior=prior)
    found, expected = posterior(scaled, network=network), posterior(drawn, network=network)
    shift = np.log(unit)[:, :, None]
    found = replace(found, mean=found.mean + shift * [1, 0, 0], null_mean=found.null_mean + shift * [1, 0])
    assert_same(found, expected, 2e-4)


def test_shared_exposures_and_batches(drawn: Simulated) -> None:
    """One row of exposures is that row for all, and the size of batches changes nothing."""
    counts1, counts2 = drawn.counts1[:100, :3], drawn.counts2[:100, :4]
    exposure1, exposure2 = np.array([0.5, 1.0, 2.0]), np.array([1.0, 1.0, 0.0, 3.0])
    prior = Prior(1.0, 2.0, -2.0, 0.7, 1.0, 0.8, 0.7)
    expected = posterior_of(counts1, np.tile(exposure1, (100, 1)), counts2, np.tile(exposure2, (100, 1)), prior)
    assert_same(posterior_of(counts1, exposure1, counts2, exposure2, prior, batch_size=7), expected, 1e-4)
    nothing = posterior_of(counts1[:0], exposure1, counts2[:0], exposure2, prior)
    assert len(nothing) == 0


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_bits_depend_neither_on_batches_nor_on_threads(drawn: Simulated, n_threads: int) -> None:
    """An interrupted screen that goes on meets its tests in other batches."""
    before = torch.get_num_threads()
    two_groups = (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)
    try:
        torch.set_num_threads(1)
        expected = posterior(drawn)
        torch.set_num_threads(n_threads)
        for size in (1, 3, 31, 90, 200, 333):
            found = posterior(drawn, batch_size=size)
            for name, values in vars(expected).items():
                np.testing.assert_array_equal(getattr(found, name), values, err_msg=f"{name}, {size}")
        rows = np.random.default_rng(0).permutation(len(drawn.null))[:77]
        some = posterior_of(*(array[rows] for array in two_groups), Prior(*drawn.prior[rows].T), device="cpu")
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(some, name), values[rows], err_msg=name)
    finally:
        torch.set_num_threads(before)


def test_groups_of_different_dispersion_are_not_the_network_s(drawn: Simulated) -> None:
    two_groups = (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)
    prior = replace(Prior(*drawn.prior.T), ratio_treated=2.0)
    assert not in_range(*two_groups, prior, ranges=Ranges()).any()
    with pytest.raises(ValueError, match="Use method='quadrature'"):
        posterior_of(*two_groups, prior, device="cpu")
    both = posterior_of(*two_groups, replace(prior, ratio_reference=2.0), device="cpu")
    moved = posterior_of(
        *two_groups, replace(Prior(*drawn.prior.T), log_dispersion=drawn.prior[:, 2] + np.log(2)), device="cpu"
    )
    np.testing.assert_array_equal(both.null_probability, moved.null_probability)


def test_single_precision(drawn: Simulated) -> None:
    network = load_network()
    double = replace(network, network=load_copy(network).double())
    found, expected = (summarise_mixture(posterior(drawn, network=n)) for n in (network, double))
    for name in ("null_probability", "lfsr"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-3)
    for name in ("log_fc", "log_dispersion", "log_mean"):
        difference = np.abs(getattr(found, name) - getattr(expected, name))
        assert np.max(difference / getattr(expected, f"{name}_sd")) < 1e-3


def load_copy(network):
    from copy import deepcopy

    return deepcopy(network.network)


def test_against_quadrature(drawn: Simulated, network) -> None:
    """Largest error over tests of the whole training distribution, and the mean one."""
    inside = in_range(
        drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2, Prior(*drawn.prior.T), ranges=Ranges()
    )
    rows = np.flatnonzero(inside)[:150]
    few = Simulated(**{name: values[rows] for name, values in vars(drawn).items()})
    found = summarise_mixture(posterior(few, network=network))
    exact = grid_posterior(few.counts1, few.exposure1, few.counts2, few.exposure2, Prior(*few.prior.T))
    gap = np.abs(found.null_probability - exact.null_probability)
    assert gap.max() < 0.08
    assert gap.mean() < 0.005
    for name in ("log_fc", "log_dispersion", "log_mean"):
        gap = np.abs(getattr(found, name) - getattr(exact, name)) / getattr(exact, f"{name}_sd")
        assert gap.max() < 0.2
        assert gap.mean() < 0.02
        ratio = getattr(found, f"{name}_sd") / getattr(exact, f"{name}_sd")
        assert np.abs(np.log(ratio)).mean() < 0.03


def test_null_proportion_is_taken_as_it_is(drawn: Simulated) -> None:
    """The null share moves the odds alone; 0 and 1 are certainties."""
    found: list[Mixture] = []
    for share in (0.0, 0.2, 0.9, 1.0):
        prior = drawn.prior.copy()
        prior[:, 5] = share
        found.append(posterior(replace(drawn, prior=prior)))
    assert np.all(found[0].null_probability < 1e-300)
    assert np.all(found[3].null_probability == 1)
    use = (found[1].null_probability > 1e-6) & (found[2].null_probability < 1 - 1e-6)
    odds = [(m.null_probability / (1 - m.null_probability))[use] for m in found[1:3]]
    np.testing.assert_allclose(odds[1] / odds[0], 9 / 0.25, rtol=1e-6)


def test_in_range(drawn: Simulated) -> None:
    two_groups = (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)
    assert in_range(*two_groups, Prior(*drawn.prior.T), ranges=Ranges()).mean() > 0.98
    for field, value in (
        ("log_dispersion", 4.0),
        ("log_dispersion_sd", 2.0),
        ("log_fc_sd", 5.0),
        ("log_mean", 20.0),
        ("log_mean_sd", 9.0),
    ):
        assert not in_range(*two_groups, replace(Prior(*drawn.prior.T), **{field: value}), ranges=Ranges()).any(), field
    many = (np.ones((2, 3001)), np.ones(3001), np.ones((2, 3)), np.ones(3))
    assert not in_range(*many, Prior(0.0, 1.0, -2.0, 0.7, 0.0, 0.5, 0.7), ranges=Ranges()).any()
    conflict = (np.full((1, 4), 1e4), np.ones(4), np.zeros((1, 4)), np.ones(4))
    assert not in_range(*conflict, Prior(4.0, 2.0, -2.0, 0.7, 0.0, 0.5, 0.3), ranges=Ranges()).any()


def test_extreme_counts_and_priors_have_a_posterior() -> None:
    """Far outside of the training range, and where counts and prior contradict each other, the numbers are numbers."""
    rng = np.random.default_rng(3)
    n = 2000
    two_groups = []
    for _ in range(2):
        exposure = np.exp(rng.normal(0, 3, (n, 6))) * (np.arange(6) < rng.integers(1, 7, (n, 1)))
        counts = np.floor(np.exp(rng.uniform(-2, 21, (n, 1)) + rng.normal(0, 2, (n, 6))))
        two_groups += [counts * (exposure > 0) * (rng.random((n, 6)) < rng.random((n, 1))), exposure]
    spreads = [np.exp(rng.uniform(low, high, n)) for low, high in ((-4, 3), (-8, 1.5), (-5, 3))]
    tail = (rng.random(n) < 0.5).astype(float)
    prior = Prior(rng.normal(0, 8, n), spreads[0], rng.uniform(-14, 6, n), spreads[1], tail, rng.random(n), spreads[2])
    found = posterior_of(*two_groups, prior, device="cpu")
    for name, values in vars(found).items():
        assert np.isfinite(values).all(), name
    assert np.diagonal(found.cholesky, axis1=2, axis2=3).min() > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"counts1": -1.0}, "counts1 has values"),
        ({"counts2": np.nan}, "counts2 has values"),
        ({"exposure2": 0.0}, "leave a test without a replicate"),
        ({"log_fc_sd": 0.0}, "spreads that are not positive"),
        ({"null_proportion": 1.5}, "null_proportion is a probability"),
    ],
)
def test_refusals(change: dict, sentence: str) -> None:
    arguments = {name: np.ones((2, 3)) for name in ("counts1", "exposure1", "counts2", "exposure2")}
    prior = {
        "log_mean": 0.0,
        "log_mean_sd": 1.0,
        "log_dispersion": -2.0,
        "log_dispersion_sd": 0.7,
        "family": 0.0,
        "null_proportion": 0.5,
        "log_fc_sd": 0.7,
    }
    for name, value in change.items():
        if name in prior:
            prior[name] = value
        else:
            arguments[name] = np.full((2, 3), value)
    with pytest.raises(ValueError, match=sentence):
        posterior_of(*arguments.values(), Prior(**prior))


def test_missing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'nbcompare\[transformer\]'"):
        load_network()


def test_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no network"):
        load_network(tmp_path / "nothing.safetensors")


def test_devices() -> None:
    assert find_device("cpu") == "cpu"
    assert find_device("auto") in {"cpu", "cuda", "mps"}
    with pytest.raises(ValueError, match="cannot be used here"):
        find_device("abacus")
    assert 64 <= default_batch_size(load_network().network.config.numbers_at_once, "cpu") <= 4096


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees(drawn: Simulated) -> None:
    two_groups = (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)
    assert_same(posterior_of(*two_groups, Prior(*drawn.prior.T), device="cuda"), posterior(drawn), 1e-3)
