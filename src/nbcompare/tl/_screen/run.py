"""The tests of a screen, block by block of perturbations, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata import OVER_ALL, ScreenResult, known_positions, repeated_names
from nbcompare._messages import warn
from nbcompare._nb.inference.screen_fdr import PooledPValues, adjust_rows, count_hits
from nbcompare._nb.screen.compare import compare_targets
from nbcompare._nb.screen.intervals import target_intervals
from nbcompare._nb.screen.model import ScreenBlock
from nbcompare._nb.status import NOT_TESTED, Status, status_of
from nbcompare.tl._samples.checks import sample_flags
from nbcompare.tl._screen.fit import ScreenFit
from nbcompare.tl._screen.options import ScreenOptions
from nbcompare.tl._screen.posterior import (
    PosteriorRequest,
    add_posterior,
    one_thread_each,
    posterior_request,
    priors_of,
)
from nbcompare.tl._screen.samples import ScreenData
from nbcompare.tl._screen.targets import Targets, block_codes

FIELDS = {
    "logfoldchanges": "log_fc",
    "lfc_se": "se",
    "scores": "statistic",
    "pvals": "p_value",
    "dispersions": "dispersion",
    "status": "status",
}
BOUNDS = ("lfc_lower", "lfc_upper")
LOG_2 = np.log(2)


@dataclass(frozen=True)
class Screen:
    """The perturbations of a run and all that their tests need."""

    fit: ScreenFit
    targets: Targets
    counts: np.ndarray  # (n_samples, n_genes) of all samples, used or not
    exposure: np.ndarray  # (n_rows,) size factors of the targets' samples, one target after the other
    flags: np.ndarray  # (n_rows,) uint32, status bits of a sample, taken over by its tests
    block: np.ndarray | None  # (n_rows,) int64
    genes: np.ndarray  # (n_genes,) object array of str
    fdr: float  # false discovery rate at which hits are counted
    posterior: PosteriorRequest | None = None
    intervals: bool = False  # whether the tests' confidence intervals are layers; a posterior has its own

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Layers that a block fills."""
        return (*FIELDS, "pvals_adj", *added_layers(self.posterior, intervals=self.intervals))

    @property
    def estimate(self) -> str:
        """The layer of log2 fold changes that belong to the test."""
        return "logfoldchanges" if self.posterior is None else "lfc_unshrunken"


def added_layers(posterior: PosteriorRequest | None, *, intervals: bool) -> tuple[str, ...]:
    """Layers that a screen with this posterior, or with confidence intervals, has in addition to the others."""
    if posterior is None:
        return BOUNDS if intervals else ()
    return tuple(word for word in posterior.layer_names if word not in FIELDS)


def prepare(data: ScreenData, fit: ScreenFit, targets: Targets, options: ScreenOptions, *, n_threads: int) -> Screen:
    """Depths, flags and blocks of the samples of these perturbations."""
    rows = targets.samples
    groups = np.repeat(np.arange(len(targets)), np.diff(targets.bounds))
    exposure, unstable = fit.depths.at(data.counts, data.depths, rows, groups, n_threads=n_threads)
    control = (fit.reference_flags & Status.SIZE_FACTOR_UNSTABLE) > 0
    if control or unstable.any():
        lost = len(targets) if control else len(np.unique(groups[unstable]))
        whose = "of the control" if control else f"of {unstable.sum()} of {len(rows)} samples"
        msg = (
            f"{lost} of {len(targets)} perturbations are not tested (status size_factor_unstable): the counts {whose} are too few, or "
            "too different from the others', to determine their sequencing depth. Drop such samples with min_counts or "
            "min_cells, or pass size_factors='total'."
        )
        warn(msg)
    flags = sample_flags(data.samples.tiny[rows], unstable)
    block = block_codes(data.samples, fit.blocks, rows)
    names = data.var.index.astype(str).to_numpy(object)
    return Screen(
        fit,
        targets,
        data.counts,
        exposure,
        flags,
        block,
        names,
        options.fdr,
        posterior_request(options.posterior),
        options.intervals,
    )


def run_blocks(
    screen: Screen,
    blocks: Sequence[slice],
    store: ScreenResult,
    *,
    n_threads: int,
    progress: Callable[[int], object],
) -> None:
    """Test the perturbations of these rows of the result, and keep each block as it is done."""
    first_row = store.runs[-1]["start"]
    of_block = max(1, n_threads // max(len(blocks), 1))  # a small screen is one block

    def run(rows: slice) -> int:
        into = store.arrays(rows, screen.layer_names)
        run_rows = slice(rows.start - first_row, rows.stop - first_row)
        summary = compare_block(screen, run_rows, into, n_threads=of_block)
        store.write_block(rows, into, summary)
        return rows.stop - rows.start

    with one_thread_each(screen.posterior):
        in_threads(run, blocks, n_threads, progress)


def compare_block(screen: Screen, run: slice, into: dict[str, np.ndarray], *, n_threads: int = 1) -> dict[str, Any]:
    """Fill the layers (n_targets, n_genes) of a run of the perturbations, and sum them up; those without a sample are NaN."""
    targets = screen.targets[run]
    n_sampled = targets.n_sampled
    if n_sampled == len(targets):
        return _compare_sampled(screen, run, into, n_threads=n_threads)
    without = _without_samples(screen, targets[n_sampled:], {word: values[n_sampled:] for word, values in into.items()})
    if not n_sampled:
        return without
    first = {word: values[:n_sampled] for word, values in into.items()}
    found = _compare_sampled(screen, slice(run.start, run.start + n_sampled), first, n_threads=n_threads)
    of_genes = {"n_perturbations": found["n_perturbations"]}
    return {word: np.concatenate([values, without[word]]) for word, values in found.items()} | of_genes


def _without_samples(screen: Screen, targets: Targets, into: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same of perturbations all of whose samples were dropped."""
    for word, values in into.items():
        values[...] = Status.GROUP_MISSING if word == "status" else np.nan if values.dtype.kind == "f" else 0
    own, nothing = np.full(len(targets), -1), np.full(len(targets), np.nan)
    summary = _summary(screen, targets, own, into, nothing) | {f"on_target_{word}": nothing for word in BOUNDS}
    return summary | ({} if screen.posterior is None else priors_of([None] * len(targets)))


def _compare_sampled(screen: Screen, run: slice, into: dict[str, np.ndarray], *, n_threads: int) -> dict[str, Any]:
    targets = screen.targets[run]
    bounds = screen.targets.bounds
    rows = slice(bounds[run.start], bounds[run.stop])
    counts, exposure = targets.of(screen.counts), screen.exposure[rows]
    block = None if screen.block is None else screen.block[rows]
    of_test = {field: into[word] for word, field in FIELDS.items()} | {"log_fc": into[screen.estimate]}
    result = compare_targets(
        screen.fit.model,
        counts,
        exposure,
        block,
        targets.bounds,
        screen.fit.places_of(targets.names),
        out=ScreenBlock(dispersion_ratio=np.ones(len(targets)), **of_test),
        n_threads=n_threads,
    )
    flags = np.bitwise_or.reduceat(screen.flags[rows], targets.bounds[:-1]) | screen.fit.reference_flags
    _flag(result, flags)
    for p_value, status in zip(result.p_value, result.status, strict=True):
        status[...] = status_of(p_value, status)
    for word in (screen.estimate, "lfc_se"):
        into[word] /= into[word].dtype.type(LOG_2)
    adjust_rows(into["pvals"], into["pvals_adj"])
    own = _genes_on_target(screen, targets)
    tested = (screen.fit.model, counts, exposure, block, targets.bounds, result.dispersion_ratio, into["status"])
    bounds_on_target = np.empty((len(targets), 1)), np.empty((len(targets), 1))
    target_intervals(*tested, *bounds_on_target, genes=own, n_threads=n_threads)
    if screen.posterior is None and screen.intervals:
        target_intervals(*tested, *(into[word] for word in BOUNDS), n_threads=n_threads)
        for word in BOUNDS:
            into[word] /= into[word].dtype.type(LOG_2)
    summary = _summary(screen, targets, own, into, result.dispersion_ratio)
    summary |= {
        f"on_target_{word}": values[:, 0] / LOG_2 for word, values in zip(BOUNDS, bounds_on_target, strict=True)
    }
    if screen.posterior is None:
        return summary
    chunks = [slice(*pair) for pair in zip(targets.bounds[:-1], targets.bounds[1:], strict=True)]
    samples = [(counts[chunk], exposure[chunk], None if block is None else block[chunk]) for chunk in chunks]
    model, places = screen.fit.model, screen.fit.places_of(targets.names)
    in_fit = (places >= 0) & model.group_in_fit[places]
    return summary | add_posterior(
        screen.posterior, model, samples, result.dispersion_ratio, in_fit, into, n_threads=n_threads
    )


def adjust_over_all(store: ScreenResult, *, n_threads: int) -> None:
    """Write the layer of p-values adjusted over the whole screen, in two passes over the p-values."""
    blocks = store.all_blocks()
    parts = [PooledPValues() for _ in range(n_threads)]

    def take_in(start: int) -> None:
        for rows in blocks[start::n_threads]:
            parts[start].add(store.read_layer("pvals", rows))

    in_threads(take_in, range(n_threads), n_threads)
    pool = PooledPValues()
    for part in parts:
        pool.join(part)
    adjustment = pool.adjustment()

    def write(rows: slice) -> None:
        into = store.arrays(rows, [OVER_ALL])[OVER_ALL]
        store.layers[OVER_ALL][rows] = adjustment.adjust(store.read_layer("pvals", rows), into)

    in_threads(write, blocks, n_threads)


def in_threads(
    work: Callable[[Any], Any],
    chunks: Sequence[Any],
    n_threads: int,
    progress: Callable[[Any], object] = lambda _: None,
) -> None:
    """Do the work of every part; after an error, or an interrupt, those not begun are left. `progress` is called with the result."""
    with ThreadPoolExecutor(n_threads) as pool:
        running = [pool.submit(work, chunk) for chunk in chunks]
        try:
            for done in as_completed(running):
                progress(done.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _flag(result: ScreenBlock, flags: np.ndarray) -> None:
    """Set status bits of targets (n_targets,) in all their tests; where these are not tested for them, they become NaN."""
    if not flags.any():
        return
    untested = (result.status & NOT_TESTED) > 0
    result.status[...] |= np.where(untested, flags[:, None] & NOT_TESTED, flags[:, None]).astype(np.uint32)
    for k in np.flatnonzero(flags & NOT_TESTED):
        result.status[k] &= NOT_TESTED
        for values in (result.statistic, result.p_value, result.dispersion):
            values[k] = np.nan


def _genes_on_target(screen: Screen, targets: Targets) -> np.ndarray:
    """The gene that each perturbation is named after, (n_targets,), -1 for none, and where several genes have the name."""
    return known_positions(targets.names, pd.Index(screen.genes)).astype(np.int64)


def warn_of_shared_names(targets: Targets, genes: pd.Index) -> None:
    """Several genes called like a perturbation: none of them can be taken for its target."""
    if not (shared := repeated_names(targets.names, genes)):
        return
    msg = (
        f"{len(shared)} perturbations have no on-target values (on_target_* is NaN), because several genes of var_names have the "
        f"name of the target: {', '.join(map(repr, shared[:5]))}{', ...' if len(shared) > 5 else '.'} "
        "Make the names unique, for instance with adata.var_names_make_unique()."
    )
    warn(msg)


def _summary(
    screen: Screen, targets: Targets, own: np.ndarray, layers: dict[str, np.ndarray], dispersion_ratio: np.ndarray
) -> dict[str, Any]:
    """What is stored of each perturbation, (n_targets,), and how many of them move each gene; `own` are the genes on target."""
    hits = count_hits(layers["pvals_adj"], screen.fdr)
    own_of = (np.arange(len(targets)), own)
    return {
        "names": targets.names,
        "n_cells": targets.n_cells,
        "n_replicates": targets.stops - targets.starts,
        "n_tested": hits.n_tested,
        "n_hits": hits.n_hits,
        "dispersion_ratio": dispersion_ratio,
        "on_target_logfoldchange": np.where(own < 0, np.nan, layers[screen.estimate][own_of].astype(np.float64)),
        "on_target_lfc_se": np.where(own < 0, np.nan, layers["lfc_se"][own_of].astype(np.float64)),
        "on_target_pval": np.where(own < 0, np.nan, layers["pvals"][own_of]),
        "pval": hits.overall,
        "status": np.bitwise_and.reduce(layers["status"] & np.uint32(NOT_TESTED), axis=1),
        "n_perturbations": hits.rows_of_gene,
    }
