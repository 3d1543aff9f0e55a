"""The posterior wholly on a device, in torch, run here on the CPU in double precision: against the compiled kernels, which are written apart from it."""

from __future__ import annotations

import weakref
from copy import deepcopy
from dataclasses import fields

import numpy as np
import pytest

from nbcompare._nb.log_pmf import mean_slopes, rising_factorial_slopes
from nbcompare._nb.numerics.special import digamma_minus_log, fast_log1p, stirling_remainder
from nbcompare._nb.posterior.gaussian import change_moments
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import Prior
from nbcompare._nb.posterior.summary import Posterior, summarise_mixture
from nbcompare._transformer import posterior as estimate
from nbcompare._transformer.batch import Batch, checked, in_batches
from nbcompare._transformer.cpu.features import Features, compute_features
from nbcompare._transformer.layout import LOG_BAYES_FACTOR
from nbcompare._transformer.posterior import NetworkSummary, joined_summaries, posterior_of, summarize
from nbcompare._transformer.training.simulate import Simulated
from nbcompare._transformer.weights import load_network

from ..conftest import assert_same, exchanged  # noqa: TID252

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from nbcompare._transformer import device as devices  # noqa: E402
from nbcompare._transformer.gpu import laplace as device_laplace  # noqa: E402
from nbcompare._transformer.gpu import log_pmf as device_density  # noqa: E402
from nbcompare._transformer.gpu.batch import as_tests  # noqa: E402
from nbcompare._transformer.gpu.features import compute_features as features_there  # noqa: E402
from nbcompare._transformer.gpu.mixture import Normals, assemble  # noqa: E402
from nbcompare._transformer.gpu.posterior import as_rows, mixture_on_device, summary_on_device  # noqa: E402

LEVELS = (0.01, 0.5, 0.95)
RESOLVED = 1e8  # counts up to which the falls of a log posterior of size y log y are seen to 1e-6


@pytest.fixture(params=["on the device", "the last ones here"])
def stragglers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether Newton's last tests are finished by the kernels, as they are, or not."""
    monkeypatch.setattr(device_laplace, "STRAGGLERS", 0 if request.param == "on the device" else 100)


def data_of(tests: Simulated) -> Batch:
    return checked((tests.counts1, tests.exposure1, tests.counts2, tests.exposure2), Prior(*tests.prior.T))


def there(tests: Simulated) -> Features:
    """Anchors and summaries of the device's path."""
    two_groups, priors = data_of(tests)
    with torch.inference_mode():
        found = features_there(*as_tests([as_rows(array, "cpu") for array in two_groups], as_rows(priors, "cpu")))
    return Features(*(rows.numpy().T for rows in found))


def mixture_there(tests: Simulated, *, size: int = 10**6) -> Mixture:
    network = load_network().network
    return Mixture.joined([mixture_on_device(network, batch, "cpu") for batch in in_batches(data_of(tests), size)])


def summarized_there(tests: Simulated, *, size: int = 10**6) -> NetworkSummary:
    network = load_network().network
    return joined_summaries(
        [summary_on_device(network, batch, "cpu", LEVELS) for batch in in_batches(data_of(tests), size)]
    )


def summarized_here(tests: Simulated) -> NetworkSummary:
    two_groups = (tests.counts1, tests.exposure1, tests.counts2, tests.exposure2)
    return summarize(*two_groups, Prior(*tests.prior.T), device="cpu", levels=LEVELS)


def assert_alike(found: NetworkSummary, expected: NetworkSummary, tolerance: float) -> None:
    """All columns: of what has a standard deviation in its units."""
    own = expected.posterior
    sd = {"log_fc": expected.change_sd, "log_mean": own.log_mean_sd, "log_dispersion": own.log_dispersion_sd}
    for field in fields(Posterior):
        name, values = field.name, getattr(own, field.name)
        gap = np.abs(getattr(found.posterior, name) - values)
        unit = next((sd[key] for key in sd if name.startswith(key)), np.ones(len(own)))
        if name.endswith("quantiles"):
            unit = (own.log_dispersion_sd if name.startswith("disp") else expected.change_sd)[:, None]
        if name == "pareto_k":
            assert np.isnan(getattr(found.posterior, name)).all()
        elif gap.size:
            assert np.max(gap / unit) < tolerance, name
    np.testing.assert_allclose(found.change_mean, expected.change_mean, atol=tolerance)
    np.testing.assert_allclose(found.change_sd, expected.change_sd, rtol=10 * tolerance)


@pytest.mark.usefixtures("stragglers")
def test_approximations(drawn: Simulated) -> None:
    """Newton takes the same steps, so only rounding differs: 1e-9 of a standard deviation in most tests, 1e-6 where counts are 1e7."""
    expected, found = compute_features(*data_of(drawn)[0], drawn.prior).laplace, there(drawn).laplace
    row = lambda factor: np.sqrt((expected[:, factor] ** 2).sum(axis=1))
    sd = np.stack([row(rows) for rows in ([3], [4, 5], [6, 7, 8], [11], [12, 13])], axis=1)
    gap = np.abs(found - expected)
    modes = gap[:, [0, 1, 2, 9, 10]] / sd
    assert modes.max() < 5e-6
    assert np.median(modes.max(axis=1)) < 1e-9
    assert np.max(gap[:, 3:9] / sd[:, [0, 1, 1, 2, 2, 2]]) < 1e-5
    assert np.max(gap[:, 11:14] / sd[:, [3, 4, 4]]) < 1e-5


def test_summaries(drawn: Simulated) -> None:
    expected, found = compute_features(*data_of(drawn)[0], drawn.prior), there(drawn)
    plain = np.maximum(drawn.counts1.max(axis=1), drawn.counts2.max(axis=1)) < RESOLVED
    assert plain.mean() > 0.99
    np.testing.assert_allclose(found.features[plain], expected.features[plain], rtol=1e-6, atol=2e-5)
    np.testing.assert_allclose(
        found.laplace[plain, LOG_BAYES_FACTOR], expected.laplace[plain, LOG_BAYES_FACTOR], rtol=1e-6, atol=2e-5
    )
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-6, atol=2e-3)


@pytest.mark.usefixtures("stragglers")
def test_summaries_of_the_posterior(drawn: Simulated) -> None:
    assert_alike(summarized_there(drawn), summarized_here(drawn), 1e-4)


def test_mixtures(drawn: Simulated) -> None:
    two_groups = (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)
    expected = posterior_of(*two_groups, Prior(*drawn.prior.T), device="cpu")
    assert_same(mixture_there(drawn), expected, 2e-4)


def test_a_mixture_has_one_summary(drawn: Simulated) -> None:
    """The same mixtures summarised here and there: to what a quantile is sought to."""
    found, mixture = summarized_there(drawn), mixture_there(drawn)
    expected = NetworkSummary(summarise_mixture(mixture, levels=LEVELS), *change_moments(mixture))
    assert_alike(found, expected, 1e-6)
    for name in ("null_probability", "lfsr"):
        one, other = getattr(found.posterior, name), getattr(expected.posterior, name)
        np.testing.assert_allclose(one, other, atol=1e-12, err_msg=name)


def test_exchange_of_the_groups(drawn: Simulated) -> None:
    one, other = summarized_there(drawn).posterior, summarized_there(exchanged(drawn)).posterior
    sd = np.maximum(one.log_fc_sd, 1e-3)
    assert np.max(np.abs(one.log_fc + other.log_fc) / sd) < 1e-4
    assert np.max(np.abs(one.log_fc_lower + other.log_fc_upper) / sd) < 1e-3
    np.testing.assert_allclose(one.lfsr, other.lfsr, atol=1e-5)


def test_batches_do_not_matter(drawn: Simulated) -> None:
    assert_alike(summarized_there(drawn, size=37), summarized_there(drawn), 1e-4)


def test_shared_exposures_and_no_tests(drawn: Simulated) -> None:
    """One row of exposures is that row for all, of one arm or of both; one replicate against many."""
    counts = [drawn.counts1[:100, :1], drawn.counts2[:100, :6]]
    rows = [np.array([0.7]), np.array([1.0, 2.0, 0.5, 0.0, 3.0, 1.0])]
    prior = Prior(1.0, 2.0, -2.0, 0.7, 1.0, 0.8, 0.7)
    network = load_network().network
    tiled = [np.tile(row, (100, 1)) for row in rows]
    found = [
        mixture_on_device(network, checked((counts[0], first, counts[1], second), prior), "cpu")
        for first in (rows[0], tiled[0])
        for second in (rows[1], tiled[1])
    ]
    for one in found[:-1]:
        assert_same(one, found[-1], 1e-5)
    shared = [np.broadcast_to(array[:1], array.shape) for array in (*counts, *tiled)]  # read-only
    alike = mixture_on_device(network, checked((shared[0], shared[2], shared[1], shared[3]), prior), "cpu")
    np.testing.assert_allclose(alike.null_probability, found[0].null_probability[0])
    summarized = summarize(counts[0], rows[0], counts[1], rows[1], prior, device="cpu")
    np.testing.assert_allclose(summarise_mixture(found[0]).log_fc, summarized.posterior.log_fc, atol=1e-5)
    nothing = checked((counts[0][:0], rows[0], counts[1][:0], rows[1]), prior)
    assert len(joined_summaries([summary_on_device(network, nothing, "cpu", LEVELS)]).posterior) == 0
    assert len(mixture_on_device(network, nothing, "cpu")) == 0


def test_empty_groups_and_extreme_numbers() -> None:
    """No counts in one arm or both, certainties, and counts and priors that contradict each other: numbers, and those of the kernels."""
    rng = np.random.default_rng(3)
    n = 400
    two_groups = []
    for side in range(2):
        exposure = np.exp(rng.normal(0, 2, (n, 5))) * (np.arange(5) < rng.integers(1, 6, (n, 1)))
        counts = np.floor(np.exp(rng.uniform(-2, 16, (n, 1)) + rng.normal(0, 1, (n, 5))))
        two_groups += [counts * (exposure > 0) * (np.arange(n) % 3 > side)[:, None], exposure]
    spreads = [np.exp(rng.uniform(low, high, n)) for low, high in ((-1, 2), (-3, 0.5), (-2, 1))]
    share = np.where(rng.random(n) < 0.1, np.round(rng.random(n)), rng.random(n))
    tail = (rng.random(n) < 0.5).astype(float)
    prior = Prior(rng.normal(3, 4, n), spreads[0], rng.uniform(-9, 3, n), spreads[1], tail, share, spreads[2])
    batch = checked((two_groups[0], two_groups[1], two_groups[2], two_groups[3]), prior)
    found = joined_summaries([summary_on_device(load_network().network, batch, "cpu", LEVELS)])
    for field in fields(Posterior):
        if field.name != "pareto_k":
            assert np.isfinite(getattr(found.posterior, field.name)).all(), field.name
    expected = summarize(*two_groups, prior, device="cpu", levels=LEVELS)
    gap = np.abs(found.posterior.log_fc - expected.posterior.log_fc) / expected.change_sd
    assert np.median(gap) < 1e-6
    assert np.quantile(gap, 0.98) < 1e-3  # where Newton walks to and fro, rounding decides where it is left


def test_likelihood_at_all_dispersions() -> None:
    """Slopes in alpha against the kernels' where phi is 1e-8 as where it is 1e3: no digits are lost."""
    phi = np.exp(np.linspace(-18, 8, 40))
    for y in (0.0, 1.0, 7.0, 10.0, 11.0, 300.0, 1e5, 1e8):
        counts = torch.full((1, len(phi)), y, dtype=torch.float64)
        large = (counts > 10).double()
        small = torch.where(counts > 10, 0.0, counts)
        beyond = torch.cat([(small > j).double() for j in range(1, 10)])
        slope, curvature = device_density.rising_factorial_slopes(
            counts, large, beyond, torch.from_numpy(phi), 1 / torch.from_numpy(phi)
        )
        expected = np.array([rising_factorial_slopes(y, p, *digamma_minus_log(1 / p)) for p in phi]).T
        np.testing.assert_allclose(slope, phi * expected[0], rtol=1e-8, atol=1e-13 * max(y, 10))
        np.testing.assert_allclose(
            curvature, -phi * (expected[0] + phi * expected[1]), rtol=1e-8, atol=1e-13 * max(y, 10)
        )
        m = 1.3 * y + 0.2
        z = torch.from_numpy(phi * m)
        excess = device_density.excess(z, z / (1 + z)).numpy()
        first = np.array([mean_slopes(0.0, m, p)[0] for p in phi])
        np.testing.assert_allclose(excess / phi, phi * first, rtol=1e-11)
    k = 1 / phi
    rests = np.array([digamma_minus_log(value) for value in k])
    digamma, trigamma = device_density.gamma_remainders_of_any(torch.from_numpy(k))
    np.testing.assert_allclose(digamma, rests[:, 0], rtol=1e-12)
    np.testing.assert_allclose(trigamma.numpy() + 1 / k, rests[:, 1], rtol=1e-12)
    rest = device_density.stirling_remainder_of_any(torch.from_numpy(k))
    np.testing.assert_allclose(rest, [stirling_remainder(value) for value in k], rtol=1e-12, atol=1e-15)
    assert torch.log1p(torch.tensor(1e-9, dtype=torch.float64)).item() == pytest.approx(fast_log1p(1e-9), rel=1e-15)


def test_quantiles_of_mixtures_without_some_components() -> None:
    """Components of weight 0 far away do not matter, a negative level is the mass at zero."""
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    mean, sd = torch.tensor([[2.0], [1e6]]).double(), torch.tensor([[0.5], [3.0]]).double()
    normals = Normals(weight, mean, sd)
    for level, expected in ((0.5, 2.0), (0.95, 2.0 + 0.5 * 1.6448536), (1e-4, 2.0 - 0.5 * 3.7190165), (-1.0, 0.0)):
        found = normals.quantile(torch.tensor([level]).double(), torch.tensor([40.0]).double())
        assert found.item() == pytest.approx(expected, abs=1e-6)


class Memory(TorchDispatchMode):
    """The most bytes of tensors that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.most, self.known = 0, 0, set()

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage.nbytes() and storage.data_ptr() not in self.known:
                self.alive += storage.nbytes()
                self.known.add(storage.data_ptr())
                self.most = max(self.most, self.alive)
                weakref.finalize(storage, self.forget, storage.data_ptr(), storage.nbytes())
        return out

    def forget(self, pointer: int, size: int) -> None:
        """A tensor is gone."""
        self.known.discard(pointer)
        self.alive -= size


@pytest.mark.parametrize("width", [1, 64])
def test_memory_of_a_test(width: int) -> None:
    """What a batch takes is what the batch size reckons with, or less."""
    rng = np.random.default_rng(1)
    n = 600
    two_groups = [rng.poisson(20, (n, width)), rng.uniform(0.5, 2, (n, width))] * 2
    prior = Prior(3.0, 1.0, -2.0, 0.7, 1.0, 0.8, 0.7)
    with Memory() as memory:
        summary_on_device(load_network().network, checked(tuple(two_groups), prior), "cpu", LEVELS)
    reckoned = devices.bytes_of_a_test(2 * width)
    assert 0.3 * reckoned < memory.most / n < reckoned


def test_batch_size_follows_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = load_network().network.config.numbers_at_once
    monkeypatch.setattr(devices, "runs_all_steps", lambda device: device == "cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 2**30, 0))
    sizes = [devices.default_batch_size(numbers, "cuda", n) for n in (2, 20, 200)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size * devices.bytes_of_a_test(n) <= 2 * 2**30 for size, n in zip(sizes, (2, 20, 200), strict=True))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 0))
    assert devices.default_batch_size(numbers, "cuda", 10) == devices.MOST_AT_ONCE


def test_where_everything_runs() -> None:
    assert not devices.runs_all_steps("cpu")
    assert not devices.runs_all_steps("cpu:0")
    assert devices.runs_all_steps("meta")  # knows float64, and is no CPU


def test_nothing_is_left_behind() -> None:
    """No tensor of the CPU meets one of the device: here those of torch's device without numbers, on which no kernel is run."""
    n = 30
    empty = lambda *shape: torch.empty(shape, dtype=torch.float64, device="meta")
    tests, totals = as_tests([empty(5, n), empty(5, 1), empty(4, n), empty(4, n)], empty(7, n))
    start = device_laplace.find_start(tests, totals)
    for null, rows in ((False, 9), (True, 5)):
        found, near = device_laplace.advance(tests, start, 1.0, null=null)
        assert found.shape == (rows, n)
        assert found.device == near.device == start.device
    phi = empty(10, n)
    log_rising = device_density.log_rising_factorial(tests.counts, tests.large, [True] * 9, tests.beyond, phi, phi)
    mixture = assemble(empty(15, n), empty(n), empty(n, 5, 10), empty(n, 3, 6))
    parts = [log_rising, *mixture.log_mean().moments(), *mixture.log_dispersion().moments()]
    assert {part.device.type for part in parts} == {"meta"}


def test_judge_takes_the_device(drawn: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """`summarize` and `posterior_of` through the path of a device."""
    expected = summarized_here(drawn)
    mixture = posterior_of(*data_of(drawn)[0], Prior(*drawn.prior.T), device="cpu")
    monkeypatch.setattr(estimate, "runs_all_steps", lambda device: True)
    assert_alike(summarized_here(drawn), expected, 1e-4)
    assert_same(posterior_of(*data_of(drawn)[0], Prior(*drawn.prior.T), device="cpu"), mixture, 2e-4)


def test_products_keep_their_precision(drawn: Simulated) -> None:
    """Nothing of ours lets a GPU round the factors of float32 products to ten bits: torch's own setting, off, is left as it is."""
    summarized_there(drawn)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees(drawn: Simulated) -> None:
    two_groups = (drawn.counts1, drawn.exposure1, drawn.counts2, drawn.exposure2)
    found = summarize(*two_groups, Prior(*drawn.prior.T), device="cuda", levels=LEVELS)
    assert_alike(found, summarized_here(drawn), 1e-3)


def test_single_precision(drawn: Simulated) -> None:
    """The network's float32 is within 1e-3 of float64 in all that is reported."""
    double = deepcopy(load_network().network).double()
    found = joined_summaries([summary_on_device(double, data_of(drawn), "cpu", LEVELS)])
    assert_alike(summarized_there(drawn), found, 1e-3)
