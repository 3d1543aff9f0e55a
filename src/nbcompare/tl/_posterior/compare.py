"""The posterior of comparisons: a network or quadrature, guarded and refined, beside the p-values of the moderated test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nbcompare._messages import counted, listed, warn
from nbcompare._nb.moderated import moderated_tests
from nbcompare._nb.posterior.columns import CLOSED_FORM, NOT_COMPUTED, Posterior
from nbcompare._nb.posterior.empirical_bayes import Data, Estimates, posterior_input
from nbcompare._nb.posterior.gaussian import change_moments, changes_contradict, contradicts
from nbcompare._nb.posterior.importance.sampling import refine
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.null_spread.null import NullDistribution
from nbcompare._nb.posterior.prior import Prior, take_prior, with_one_dispersion
from nbcompare._nb.posterior.summary import grid_posterior, summarise_mixture
from nbcompare._nb.status import NOT_TESTED, Status
from nbcompare.tl._compare.estimate import group_pairs, moderated_arrays
from nbcompare.tl._compare.options import CompareOptions
from nbcompare.tl._posterior.dispersion_prior import DispersionPriors
from nbcompare.tl._posterior.options import PosteriorOptions, check_prior
from nbcompare.tl._posterior.prior_fields import LOG_2, as_given, given_fields
from nbcompare.tl._samples.groups import Design

LARGE_SPREAD = 1.1  # null spreads above it are warned of
CONTRADICTION = 0.5  # between two probabilities that nothing changes
OF_DISPERSION = ("prior_dispersions", "prior_dispersion_log_sd")
POSTERIOR_NAMES = (
    "logfoldchanges",
    "lfc_median",
    "lfc_sd",
    "lfc_lower",
    "lfc_upper",
    "null_probability",
    "lfsr",
    "pareto_k",
)


def with_posterior(
    design: Design, options: CompareOptions
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Arrays (n_genes, n_comparisons), columns, trend, prior and null: p-values of the moderated test, effects of the posterior."""
    given = given_fields(options.posterior.prior)
    check_prior(options.posterior.prior, len(design.pseudobulk.counts))
    result = moderated_tests(design.pseudobulk, design.pairs, min_gene_counts=options.test.min_gene_counts)
    arrays, columns, trend = moderated_arrays(result, design, method="mom", cox_reid=False)
    tests = arrays["logfoldchanges"]
    for word in POSTERIOR_NAMES:
        arrays[word] = np.full(result.p_value.shape, np.nan)
    arrays["lfc_unshrunken"], arrays["dispersions"] = tests, np.full(result.p_value.shape, np.nan)
    if options.test.method == "quadrature":
        del arrays["pareto_k"]
    for word in OF_DISPERSION:
        arrays[word] = np.full(result.p_value.shape, np.nan)
    dispersion_priors = DispersionPriors(design, result, is_given=gives_dispersion(given))
    of_data_set = (
        given["log_dispersion_sd"] if "log_dispersion_sd" in given else float(np.sqrt(result.trend.log_dispersion_var))
    )
    priors, nulls = [], []
    for c, (reference, treated) in enumerate(group_pairs(design)):
        tested = np.flatnonzero((arrays["status"][:, c] & NOT_TESTED) == 0)
        data = (reference.counts[tested], reference.exposure, treated.counts[tested], treated.exposure)
        expected, degrees = dispersion_priors.expected(c, result.dispersion_ratio[c])
        estimates = Estimates(result.log_fc[:, c], result.se[:, c], result.dispersion[:, c], degrees)
        one = posterior_input(
            data,
            estimates.take(tested),
            expected.take(tested),
            given_of_genes(given, tested) | ratios_of(result.dispersion_ratio[c]),
            null_spread=options.posterior.null_spread,
        )
        prior = one.stated
        nulls.append(one.null)
        priors.append(replace(prior, log_dispersion_sd=of_data_set))
        for word, values in zip(
            OF_DISPERSION, (np.exp(prior.log_dispersion) * prior.ratio_treated, prior.log_dispersion_sd), strict=True
        ):
            arrays[word][tested, c] = values
        posterior, outside = posterior_of_tests(one.data, one.prior, one.approximation, options.posterior)
        posterior = one.restored(posterior)
        for word, values in as_stored(posterior).items():
            if word in arrays:
                arrays[word][tested, c] = values
        arrays["status"][tested, c] |= flags_of(posterior, outside)
    return arrays, columns, trend, as_given(priors), stored_null(nulls)


def stored_null(nulls: Sequence[NullDistribution]) -> dict[str, np.ndarray]:
    """The null spread and the common shift of all comparisons as stored, log2, (n_comparisons,) each."""
    return {
        "null_spread": np.array([null.spread for null in nulls]),
        "common_shift": np.array([null.shift for null in nulls]) / LOG_2,
    }


def warn_of_null_spread(spread: np.ndarray | None, comparisons: Sequence[str]) -> None:
    """One warning for all comparisons, (n_comparisons,), whose non-DE genes vary clearly more than their standard errors."""
    if spread is None or not (np.nan_to_num(spread) > LARGE_SPREAD).any():
        return
    large = [name for name, one in zip(comparisons, spread, strict=True) if one > LARGE_SPREAD]
    msg = (
        f"In {len(large)} of {counted(len(spread), 'comparison')} ({listed(large, most=5)}) the log fold changes of non-DE genes vary up to "
        f"{np.nanmax(spread):.2f} times as much as their standard errors indicate. The samples probably differ in more than the condition, "
        "such as in batch, sex or age. The posterior accounts for this (null_spread in .uns or .obs), p-values do not."
    )
    warn(msg)


def gives_dispersion(given: Mapping[str, Any]) -> bool:
    """Whether the user says what dispersions to expect, so that other groups need not."""
    return "log_dispersion" in given or "log_dispersion_sd" in given


def ratios_of(dispersion_ratio: np.ndarray) -> dict[str, float]:
    """The dispersion ratios of reference and treated group, (2,), as fields of `Prior`."""
    return {"ratio_reference": float(dispersion_ratio[0]), "ratio_treated": float(dispersion_ratio[1])}


def given_of_genes(given: Mapping[str, Any], genes: np.ndarray) -> dict[str, Any]:
    """What is given of the prior of these genes."""
    return {name: value[genes] if np.ndim(value) else value for name, value in given.items()}


def posterior_of_tests(
    data: Data, prior: Prior, approximation: Mixture, options: PosteriorOptions, *, batch_size: int | None = None
) -> tuple[Posterior, np.ndarray]:
    """Posterior of every test, and which lie outside of what the network was trained on, (n_tests,) bool.

    Where the two groups differ in dispersion, quadrature answers, because the network was trained on groups with one dispersion.
    `batch_size` is of the network.
    """
    posterior, outside = _unchecked(data, prior, approximation, options, batch_size)
    return posterior.checked(), outside


def flags_of(posterior: Posterior, outside: np.ndarray) -> np.ndarray:
    """Status bits of tests with this posterior, (n_tests,) uint32; `outside` as of `posterior_of_tests`."""
    flags = np.where(outside, np.uint32(Status.OUTSIDE_TRAINING), np.uint32(0))
    missing = posterior.source == NOT_COMPUTED
    return np.asarray(np.where(missing, np.uint32(Status.POSTERIOR_NOT_COMPUTED), flags))


def _unchecked(
    data: Data, prior: Prior, approximation: Mixture, options: PosteriorOptions, batch_size: int | None
) -> tuple[Posterior, np.ndarray]:
    """`posterior_of_tests` before the look at what could not be computed."""
    n = len(data[0])
    outside = np.zeros(n, bool)
    if options.method == "quadrature" or n == 0:
        return grid_posterior(*data, prior), outside
    prior, alike = with_one_dispersion(prior, n)
    if alike.all():
        return _by_network(data, prior, approximation, options, batch_size)
    one, two = np.flatnonzero(alike), np.flatnonzero(~alike)
    exact = grid_posterior(*_rows(data, two), take_prior(prior, n, two))
    if one.size == 0:
        return exact, outside
    found, outside[one] = _by_network(
        _rows(data, one), take_prior(prior, n, one), approximation.take(one), options, batch_size
    )
    return _joined(found, exact, one, two), outside


def _by_network(
    data: Data, prior: Prior, approximation: Mixture, options: PosteriorOptions, batch_size: int | None
) -> tuple[Posterior, np.ndarray]:
    """Posterior of tests whose groups have one dispersion, and which lie outside of what the network was trained on.

    Those are by quadrature with `importance_sampling`, in closed form without. Without, quadrature answers where network and closed form contradict
    each other about whether anything changes: the network starts from one mode of the dispersion, and one test in thousands has two.
    """
    n = len(data[0])
    from nbcompare._transformer.posterior import posterior_of, summarize
    from nbcompare._transformer.training_range import in_range
    from nbcompare._transformer.weights import load_network

    network = load_network(options.network)
    where: dict[str, Any] = {"network": network, "device": options.device, "batch_size": batch_size}
    outside = ~in_range(*data, prior, ranges=network.ranges)
    if not options.importance_sampling:
        by_network = summarize(*data, prior, **where)
        outside |= changes_contradict((by_network.change_mean, by_network.change_sd), change_moments(approximation))
        apart = np.abs(by_network.posterior.null_probability - approximation.null_probability) > CONTRADICTION
        out, doubtful = np.flatnonzero(outside), np.flatnonzero(apart & ~outside)
        closed = summarise_mixture(approximation.take(out))
        closed.source[:] = CLOSED_FORM
        grid = grid_posterior(*_rows(data, doubtful), take_prior(prior, n, doubtful))
        return by_network.posterior.replaced(out, closed).replaced(doubtful, grid), outside
    mixture = posterior_of(*data, prior, **where)
    outside |= contradicts(mixture, approximation)
    inside, out = np.flatnonzero(~outside), np.flatnonzero(outside)
    refined = refine(*_rows(data, inside), take_prior(prior, n, inside), mixture.take(inside))
    grid = grid_posterior(*_rows(data, out), take_prior(prior, n, out))
    return _joined(refined, grid, inside, out), outside


def as_stored(posterior: Posterior) -> dict[str, np.ndarray]:
    """The posterior under the stored words, log2."""
    return {
        "logfoldchanges": posterior.log_fc / LOG_2,
        "lfc_median": posterior.log_fc_median / LOG_2,
        "lfc_sd": posterior.log_fc_sd / LOG_2,
        "lfc_lower": posterior.log_fc_lower / LOG_2,
        "lfc_upper": posterior.log_fc_upper / LOG_2,
        "null_probability": posterior.null_probability,
        "lfsr": posterior.lfsr,
        "dispersions": np.exp(posterior.log_dispersion_median),
        "pareto_k": posterior.pareto_k,
    }


def _rows(data: Data, tests: np.ndarray) -> Data:
    """The counts and exposures of these tests."""
    y1, l1, y2, l2 = (array if array.ndim == 1 else array[tests] for array in data)
    return y1, l1, y2, l2


def _joined(first: Posterior, second: Posterior, inside: np.ndarray, out: np.ndarray) -> Posterior:
    """Two posteriors of parts of the tests as one of all."""
    merged: dict[str, Any] = {}
    for name, values in vars(first).items():
        merged[name] = np.empty((len(inside) + len(out), *values.shape[1:]), values.dtype)
        merged[name][inside], merged[name][out] = values, getattr(second, name)
    return Posterior(**merged)
