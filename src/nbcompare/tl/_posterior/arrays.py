"""Posteriors of any tests, from arrays: for those who simulate, or keep their counts elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from nbcompare._anndata import as_labelled, is_labelled, numbers_of
from nbcompare._nb.posterior.empirical_bayes import Data
from nbcompare._nb.posterior.gaussian import gaussian_approximation
from nbcompare._nb.posterior.mixture import Mixture
from nbcompare._nb.posterior.prior import FIELDS, INVERSE_GAMMA, Prior
from nbcompare.tl._posterior.compare import as_stored, posterior_of_tests
from nbcompare.tl._posterior.options import PosteriorOptions, check_network
from nbcompare.tl._posterior.prior_fields import RANGES, given_fields, plain_prior

Method = Literal["transformer", "quadrature"]
EXPOSURES = (1e-15, 1e15)  # beyond them a float has no digits left for rates
SOURCES = np.array(["network", "refined", "quadrature", "closed_form", "not_computed"], dtype=object)


def posterior_of_arrays(
    counts_reference: np.ndarray,
    counts_treated: np.ndarray,
    *,
    prior: Mapping[str, Any],
    exposure_reference: np.ndarray | None = None,
    exposure_treated: np.ndarray | None = None,
    method: Method = "transformer",
    network: str | PathLike[str] | None = None,
    device: str = "auto",
    importance_sampling: bool = True,
) -> pd.DataFrame:
    r"""Posterior of fold change, rate and dispersion of any number of two-group comparisons, from arrays of counts.

    Counts are negative binomial with mean :math:`l e^{\eta}` and variance :math:`m + \phi m^2`, :math:`\phi` the same in both
    groups. The centre of the two log rates is normal, their difference zero with a known probability and otherwise
    normal, and :math:`\phi` inverse gamma or log-normal. The posterior is integrated numerically, or given by a trained network
    :cite:p:`svensson2025` that knows the prior, and then corrected by importance sampling :cite:p:`vehtari2024`. See :doc:`/methods`.

    Parameters
    ----------
    counts_reference, counts_treated
        Whole numbers, (n_tests, n_replicates) each. The rows of DataFrames are aligned by their labels, which also name the rows of the
        result; the columns name the replicates.
    prior
        Numbers for all tests, or arrays (n_tests,); a Series is aligned by its labels, those of the tests. `null_proportion`: share of tests in which nothing changes; `lfc_sd`: standard deviation of
        the others' log2 fold changes; `dispersion`: geometric mean of :math:`\phi`; `dispersion_log_sd`: standard deviation of its natural
        logarithm; `mean`: geometric mean of the counts per unit of exposure; `mean_log_sd`: standard deviation of their
        natural logarithm; `tail`: `"inverse_gamma"` (default) or `"lognormal"`.
    exposure_reference, exposure_treated
        How deep each replicate is, (n_replicates,) or (n_tests, n_replicates); 0 where a test lacks a replicate; one by default. A Series is
        aligned with the columns of the counts, a DataFrame with their rows and columns.
    method
        `"transformer"`, or `"quadrature"`: exact, a quarter of a millisecond a test, without torch.
    network
        File of weights, or the name of one that comes with the package; the default is the package's own.
    device
        Where the network runs: `"auto"`, `"cpu"`, `"cuda"`, `"mps"`.
    importance_sampling
        Correct the network by importance sampling, and by quadrature where that cannot be trusted.

    Returns
    -------
    One row a test: `logfoldchanges` (posterior mean, log2), `lfc_median`, `lfc_sd`, `lfc_lower`, `lfc_upper` (central 95%
    interval), `null_probability`, `lfsr` (local false sign rate :cite:p:`stephens2017`), `mean` (the reference's
    rate) and `dispersions` (medians), `pareto_k`, and `source`: `"network"`, `"refined"`,
    `"quadrature"`, `"closed_form"`, or `"not_computed"` where counts and exposures are too extreme for a number: the row is NaN.

    Raises
    ------
    ImportError
        If the method is `"transformer"` and torch is missing.
    ValueError
        If arrays do not match, hold what are not counts, or a test lacks a group; if the prior is incomplete.

    See Also
    --------
    nbcompare.tl.nb_compare : The same for cells, with the prior that their genes give.

    Examples
    --------
    >>> import numpy as np
    >>> from nbcompare.tl._posterior.arrays import posterior_of_arrays
    >>> prior = dict(null_proportion=0.5, lfc_sd=1.5, dispersion=0.1, dispersion_log_sd=0.8, mean=20, mean_log_sd=2)
    >>> reference, treated = np.array([[10, 12, 9], [10, 12, 9]]), np.array([[11, 8, 12], [55, 31, 40]])
    >>> posterior_of_arrays(reference, treated, prior=prior, method="quadrature")["null_probability"].round(2).tolist()
    [0.77, 0.01]
    """
    if method not in get_args(Method):
        msg = f"method is {method!r}, but must be one of {', '.join(map(repr, get_args(Method)))}."
        raise ValueError(msg)
    options = PosteriorOptions(method, prior, network, device, importance_sampling)
    check_network(options)
    tests = _names_of_tests(counts_reference, counts_treated)
    data = (
        *_group("reference", counts_reference, exposure_reference, tests),
        *_group("treated", counts_treated, exposure_treated, tests),
    )
    if len(data[0]) != len(data[2]):
        msg = f"The reference has {len(data[0])} tests and the treated group {len(data[2])}. Give both the same rows."
        raise ValueError(msg)
    n_tests = len(data[0])
    known = _complete(
        plain_prior(prior, lambda: pd.RangeIndex(n_tests) if tests is None else tests, "test") or {}, n_tests
    )
    posterior, _ = posterior_of_tests(data, known, _approximation(data, known), options)
    words = as_stored(posterior)
    pareto_k = {"pareto_k": words.pop("pareto_k")}
    dispersions = {"mean": np.exp(posterior.log_mean_median), "dispersions": words.pop("dispersions")}
    return pd.DataFrame({**words, **dispersions, **pareto_k, "source": SOURCES[posterior.source]}, index=tests)


def _names_of_tests(*counts: Any) -> pd.Index | None:
    """Labels of the tests, those of the first DataFrame; None if the counts are arrays."""
    frames = [one for one in map(as_labelled, counts) if isinstance(one, pd.DataFrame)]
    return next((one.index for one in frames if not isinstance(one.index, pd.RangeIndex)), None)


def _group(name: str, counts: Any, exposure: Any, tests: pd.Index | None) -> tuple[np.ndarray, np.ndarray]:
    """Counts and exposure of one group, both (n_tests, n_replicates), with the tests in the order of their labels."""
    counts = as_labelled(counts)
    if np.ndim(counts) != 2:
        msg = f"counts_{name} has the shape {np.shape(counts)}, but must be (n_tests, n_replicates)."
        raise ValueError(msg)
    replicates = counts.columns if isinstance(counts, pd.DataFrame) else pd.RangeIndex(np.shape(counts)[1])
    its_own = isinstance(counts, pd.DataFrame) and counts.index is tests
    counts = numbers_of(counts, {"test": None if its_own else tests, "replicate": None}, f"counts_{name}")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and (counts == np.round(counts)).all()):
        msg = f"counts_{name} holds what are not counts. Give whole numbers, 0 or more, not normalised or logged."
        raise ValueError(msg)
    exposure = np.ones(counts.shape[1]) if exposure is None else as_labelled(exposure)
    if not is_labelled(exposure) and np.shape(exposure) not in (counts.shape, counts.shape[1:]):
        msg = f"exposure_{name} has the shape {np.shape(exposure)}, but must be {counts.shape[1:]} or {counts.shape}."
        raise ValueError(msg)
    of_test = {"test": pd.RangeIndex(len(counts)) if tests is None else tests} if np.ndim(exposure) == 2 else {}
    depth = numbers_of(exposure, {**of_test, "replicate": replicates}, f"exposure_{name}")
    lowest, highest = EXPOSURES
    if not (np.isfinite(depth).all() and ((depth == 0) | ((depth >= lowest) & (depth <= highest))).all()):
        msg = f"exposure_{name} must be positive, between {lowest:g} and {highest:g}, or 0 where a test lacks a replicate."
        raise ValueError(msg)
    depth = np.ascontiguousarray(np.broadcast_to(depth, counts.shape))
    if not (depth > 0).any(axis=1).all():
        msg = f"exposure_{name} is 0 in all replicates of a test. Leave such tests out."
        raise ValueError(msg)
    return np.where(depth > 0, counts, 0.0), depth


def _complete(prior: Mapping[str, Any], n_tests: int) -> Prior:
    found = {"family": INVERSE_GAMMA} | given_fields(prior)
    missing = [name for name, (field, *_) in RANGES.items() if field not in found]
    if missing:
        msg = f"prior lacks {', '.join(map(repr, missing))}. Without a data set there is nothing to estimate it from."
        raise ValueError(msg)
    for name, (field, *_) in RANGES.items():
        if np.ndim(found[field]) and np.shape(found[field]) != (n_tests,):
            msg = f"prior[{name!r}] is an array of the shape {np.shape(found[field])}, but must be ({n_tests},): one number a test."
            raise ValueError(msg)
    return Prior(**{name: found[name] for name in FIELDS})


def _approximation(data: Data, prior: Prior) -> Mixture:
    """The posterior in closed form at the prior's dispersion."""
    phi = np.exp(np.broadcast_to(np.asarray(prior.log_dispersion, float), len(data[0])))
    log_rates, variance = [], np.zeros(len(phi))
    for counts, exposure in (data[:2], data[2:]):
        rate = np.maximum(counts.sum(axis=1), 0.5) / exposure.sum(axis=1)
        mean = exposure * rate[:, None]
        variance += 1.0 / (mean / (1.0 + phi[:, None] * mean)).sum(axis=1)
        log_rates.append(np.log(rate))
    centre, log_fc = 0.5 * (log_rates[0] + log_rates[1]), log_rates[1] - log_rates[0]
    return gaussian_approximation(centre, log_fc, np.sqrt(variance), phi, np.ones(len(phi)), prior)
