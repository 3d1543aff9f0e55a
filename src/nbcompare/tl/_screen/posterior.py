"""The posterior of a screen's tests: each perturbation with a prior of its own, the network in batches over genes and perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nbcompare._nb.posterior.dispersion_prior import Statistics, expected_dispersion, statistics_of_group
from nbcompare._nb.posterior.empirical_bayes import Data, Estimates, PosteriorInput, posterior_input
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import Prior, joined_prior
from nbcompare._nb.screen.compare import stands_alone
from nbcompare._nb.screen.model import ScreenModel
from nbcompare._nb.status import NOT_TESTED
from nbcompare.tl._posterior.compare import (
    POSTERIOR_NAMES,
    as_stored,
    flags_of,
    given_of_genes,
    gives_dispersion,
    posterior_of_tests,
    ratios_of,
    stored_null,
)
from nbcompare.tl._posterior.options import PosteriorOptions
from nbcompare.tl._posterior.prior_fields import LOG_2, as_given, given_fields
from nbcompare.tl._screen.options import threads_of

ON_CPU = 2**12  # tests at once; fixed, as is what follows, so that the free memory does not change the last digits
ON_DEVICE, BYTES_ON_DEVICE = 2**18, 2**31
OF_PERTURBATION = ("null_proportion", "lfc_sd", "mean", "mean_log_sd")  # of the prior; the rest is the screen's


@dataclass(frozen=True)
class PosteriorRequest:
    """Which posterior is asked for; goes to other processes as it is."""

    options: PosteriorOptions
    given: dict[str, Any]  # fields of `Prior`

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Layers that a posterior adds; the importance weights are those of the refinement."""
        has_weights = self.options.method == "transformer" and self.options.importance_sampling
        return ("lfc_unshrunken", *(word for word in POSTERIOR_NAMES if has_weights or word != "pareto_k"))

    def batch_size(self, n_replicates: int) -> int:
        """Tests at once, of this many replicates in both groups together."""
        if self.options.method == "quadrature":
            return ON_CPU
        from nbcompare._transformer.device import bytes_of_a_test, find_device

        on_cpu = find_device(self.options.device) == "cpu"
        return ON_CPU if on_cpu else min(ON_DEVICE, BYTES_ON_DEVICE // bytes_of_a_test(n_replicates))


@dataclass(frozen=True)
class Control:
    """The reference's samples, genes first: the same in all tests of a block."""

    counts: np.ndarray  # (n_genes, n_replicates)
    exposure: np.ndarray  # (n_genes, n_replicates), or one row for all genes
    statistics: Statistics
    dispersion_ratio: float  # dispersion relative to the data set's

    @classmethod
    def of(cls, model: ScreenModel) -> Control:
        counts = np.ascontiguousarray(model.reference_counts.T, dtype=np.float64)
        exposure = _adjusted(model, model.reference_exposure, model.reference_block)
        dispersion_ratio = model.reference_dispersion_ratio
        return cls(
            counts,
            exposure,
            statistics_of_group(counts, exposure, model.prior_phi * dispersion_ratio),
            dispersion_ratio,
        )


@dataclass(frozen=True)
class TestsOfTarget:
    """The tested genes of one perturbation."""

    genes: np.ndarray  # (n_tests,)
    input: PosteriorInput


def posterior_request(options: PosteriorOptions) -> PosteriorRequest | None:
    """The posterior that a call asks for, None with another method."""
    return PosteriorRequest(options, given_fields(options.prior)) if options.is_posterior else None


def one_thread_each(requested: PosteriorRequest | None) -> AbstractContextManager[None]:
    """While this lasts the network runs in the thread that asks it, one for each block."""
    if requested is None or requested.options.method == "quadrature":
        return nullcontext()
    from nbcompare._transformer.device import one_thread

    return one_thread()


def add_posterior(
    requested: PosteriorRequest,
    model: ScreenModel,
    samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    dispersion_ratio: np.ndarray,
    in_fit: np.ndarray,
    layers: dict[str, np.ndarray],
    *,
    n_threads: int,
) -> dict[str, np.ndarray]:
    """Fill the layers of the posterior (n_targets, n_genes), log2, from those of the tests; the priors, (n_targets,) each.

    `samples` are counts (n_replicates, n_genes), exposure and block of every target, `dispersion_ratio` (n_targets,) their dispersion ratios, `in_fit`
    (n_targets,) whether their statistics are among the model's. `layers` hold the tests' log2 fold change as `lfc_unshrunken`,
    `lfc_se`, `dispersions` and `status`; the dispersions are replaced.
    """
    from numba import get_num_threads, set_num_threads

    batch_size = requested.batch_size(len(model.reference_exposure) + max(len(rows) for rows, _, _ in samples))
    at_once = max(1, batch_size // len(model.mean))
    threads = get_num_threads()
    set_num_threads(min(n_threads, threads_of(None)))  # of this thread: the others have blocks of their own
    try:
        control = Control.of(model)
        inputs: list[PosteriorInput | None] = []
        for first in range(0, len(samples), at_once):
            targets = range(first, min(first + at_once, len(samples)))
            tests = [
                _tests_of(requested, model, control, samples[k], float(dispersion_ratio[k]), bool(in_fit[k]), layers, k)
                for k in targets
            ]
            _summarize(requested, tests, layers, targets, batch_size)
            inputs += [one.input if len(one.genes) else None for one in tests]
    finally:
        set_num_threads(threads)
    return priors_of(inputs)


def prior_of_screen(requested: PosteriorRequest, log_dispersion_var: float) -> dict[str, Any]:
    """What of the prior is the same for all perturbations, under the users' names."""
    fixed = Prior(0.0, 1.0, 0.0, np.sqrt(log_dispersion_var), 1.0, 0.5, 1.0)
    named = as_given([Prior(**(vars(fixed) | {k: v for k, v in requested.given.items() if not np.ndim(v)}))])
    return {"dispersion_log_sd": float(named["dispersion_log_sd"][0]), "tail": named["tail"]}


def _tests_of(
    requested: PosteriorRequest,
    model: ScreenModel,
    control: Control,
    samples: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    dispersion_ratio: float,
    in_fit: bool,
    layers: Mapping[str, np.ndarray],
    k: int,
) -> TestsOfTarget:
    """Counts, prior and closed form of the k-th target."""
    rows, exposure, block = samples
    genes = np.flatnonzero((layers["status"][k] & NOT_TESTED) == 0)
    counts, adjusted = np.ascontiguousarray(rows.T, dtype=np.float64), _adjusted(model, exposure, block)
    depths = [l[0] if len(l) == 1 else l[genes] for l in (control.exposure, adjusted)]
    data = (control.counts[genes], depths[0], counts[genes], depths[1])
    log_fc, se, dispersion = (
        layers[word][k].astype(np.float64) for word in ("lfc_unshrunken", "lfc_se", "dispersions")
    )
    own = statistics_of_group(counts, adjusted, model.prior_phi * dispersion_ratio)
    alone = stands_alone(model, dispersion_ratio)
    weight = own.df + control.statistics.df if alone else model.weight
    in_model = ([control.statistics] if model.reference_in_fit else []) + ([own] if in_fit else [])
    others = Statistics(model.numerator, model.weight).without(*in_model).after(model.df_ratio)
    from_others = None if alone or gives_dispersion(requested.given) else others
    expected = expected_dispersion(model.mean, model.trend, model.log_dispersion_var, from_others, model.trend_error)
    estimates = Estimates(log_fc * LOG_2, se * LOG_2, dispersion, model.prior_df + weight / model.df_ratio)
    blocks = None if block is None or model.reference_block is None else np.append(model.reference_block, block)
    found = posterior_input(
        data,
        estimates.take(genes),
        expected.take(genes),
        given_of_genes(requested.given, genes) | ratios_of(np.array([control.dispersion_ratio, dispersion_ratio])),
        null_spread=requested.options.null_spread,
        block=blocks,
    )
    return TestsOfTarget(genes, found)


def _adjusted(model: ScreenModel, exposure: np.ndarray, block: np.ndarray | None) -> np.ndarray:
    """Exposures with the effects of blocks, (n_genes, n_replicates); without blocks one row for all genes."""
    if block is None or len(model.effects) == 1:
        return exposure[None]
    return np.ascontiguousarray((exposure[:, None] * model.effects[block]).T)


def _summarize(
    requested: PosteriorRequest,
    tests: Sequence[TestsOfTarget],
    layers: dict[str, np.ndarray],
    targets: range,
    batch_size: int,
) -> None:
    """Write the posterior of these targets."""
    data, prior, approximation = _joined(tests)
    posterior, outside = posterior_of_tests(data, prior, approximation, requested.options, batch_size=batch_size)
    sizes = [len(one.genes) for one in tests]
    bounds = np.cumsum([0, *sizes])
    spread = np.repeat([one.input.null.spread for one in tests], sizes)
    posterior = posterior.rescaled(spread, np.concatenate([one.input.log_mean_move for one in tests]))
    found, flags = as_stored(posterior), flags_of(posterior, outside)
    for one, k, start, stop in zip(tests, targets, bounds[:-1], bounds[1:], strict=True):
        for word in (*requested.layer_names[1:], "dispersions"):
            layers[word][k] = np.nan
            layers[word][k, one.genes] = found[word][start:stop]
        layers["status"][k, one.genes] |= flags[start:stop]


def _joined(tests: Sequence[TestsOfTarget]) -> tuple[Data, Prior, Mixture]:
    """The tests of several targets one after the other, replicates that one lacks at exposure 0."""
    if len(tests) == 1:
        return tests[0].input.data, tests[0].input.prior, tests[0].input.approximation
    arrays = []
    for i in range(4):
        parts = [one.input.data[i] for one in tests]
        if i == 1 and all(part.ndim == 1 for part in parts):  # one row for all
            arrays.append(parts[0])
            continue
        shapes = [(len(one.genes), part.shape[-1]) for one, part in zip(tests, parts, strict=True)]
        joined = np.zeros((sum(n for n, _ in shapes), max(width for _, width in shapes)))
        start = 0
        for part, (n, width) in zip(parts, shapes, strict=True):
            joined[start : start + n, :width] = part
            start += n
        arrays.append(joined)
    prior = joined_prior([one.input.prior for one in tests], [len(one.genes) for one in tests])
    approximation = Mixture.joined([one.input.approximation for one in tests])
    return (arrays[0], arrays[1], arrays[2], arrays[3]), prior, approximation


def priors_of(inputs: Sequence[PosteriorInput | None]) -> dict[str, np.ndarray]:
    """The priors and nulls of targets under the users' names, NaN where nothing was tested."""
    columns = {f"prior_{name}": np.full(len(inputs), np.nan) for name in OF_PERTURBATION}
    columns |= {name: np.full(len(inputs), np.nan) for name in stored_null([])}
    for k, found in enumerate(inputs):
        if found is not None:
            for name, values in stored_null([found.null]).items():
                columns[name][k] = values[0]
            named = as_given([replace(found.stated, log_dispersion_sd=0.0)])  # it differs between genes
            for name in OF_PERTURBATION:
                columns[f"prior_{name}"][k] = named[name][0]
    return columns
