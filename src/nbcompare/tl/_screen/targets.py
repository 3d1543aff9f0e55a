"""What a screen tests: the rows of every perturbation among the samples, and which of them enter the shared fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nbcompare._anndata import SampleTable, ScreenResult
from nbcompare._messages import listed, warn
from nbcompare._nb.data import Pseudobulk
from nbcompare.tl._samples.groups import check_replicates, comparisons_with, suggest_block_key

LEAST_ROWS = 16  # of a block, so that a small screen keeps several threads busy and a large one does not fall to pieces
N_PARTS = 16


@dataclass(frozen=True)
class Targets:
    """Perturbations of a run; the samples of each lie side by side. Those without a sample, all of which were dropped, come last."""

    names: np.ndarray  # (n_targets,) object array of str
    starts: np.ndarray  # (n_targets,) int64, first sample
    stops: np.ndarray  # (n_targets,) int64, after the last
    n_cells: np.ndarray  # (n_targets,) int64

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: slice | np.ndarray) -> Targets:
        return Targets(*(array[which] for array in vars(self).values()))

    @property
    def samples(self) -> np.ndarray:
        """Their samples, (n_rows,)."""
        runs = [np.arange(*pair) for pair in zip(self.starts, self.stops, strict=True)]
        return np.concatenate([*runs, np.empty(0, np.int64)]).astype(np.int64)

    def of(self, by_sample: np.ndarray) -> np.ndarray:
        """Rows of an array that belong to them; not copied where there are no others between."""
        if np.array_equal(self.starts[1:], self.stops[:-1]):
            return by_sample[self.starts[0] : self.stops[-1]]
        return by_sample[self.samples]

    @property
    def n_sampled(self) -> int:
        """How many have samples."""
        return int((self.stops > self.starts).sum())

    @property
    def bounds(self) -> np.ndarray:
        """Where each starts among `samples`, and the end, (n_targets + 1,)."""
        return np.concatenate([[0], np.cumsum(self.stops - self.starts)]).astype(np.int64)


def _refuse_lost_names(names: Sequence[str]) -> None:
    """Refuse names that end in NUL, which text of numpy loses."""
    if lost := [name for name in names if str(name).endswith("\0")]:
        msg = f"The perturbation {lost[0]!r} ends in a NUL, which files of text lose. Rename it."
        raise ValueError(msg)


def targets_of(samples: SampleTable, names: Sequence[str]) -> Targets:
    """These conditions, in the order of their samples."""
    table = samples.table
    _refuse_lost_names(names)
    condition = table["condition"].to_numpy(object)
    first = np.flatnonzero(np.append(True, condition[1:] != condition[:-1]))
    stops = np.append(first[1:], len(condition))
    kept = np.isin(condition[first], np.asarray(names, dtype=object))
    n_cells = table["n_cells"].to_numpy(np.int64)
    return Targets(
        condition[first[kept]],
        first[kept],
        stops[kept],
        np.add.reduceat(n_cells, first)[kept],
    )


def perturbations(samples: SampleTable, reference: str, replicate_key: Sequence[str] | None) -> Targets:
    """All conditions but the reference; refuses what cannot be compared."""
    levels = list(dict.fromkeys(samples.table["condition"]))
    names = comparisons_with(samples, levels, reference, "all", name_dropped=False)
    if "block" not in samples.table:
        suggest_block_key(samples, replicate_key)
    return _with_dropped(targets_of(samples, names), samples, [*levels, reference])


def _with_dropped(targets: Targets, samples: SampleTable, known: Sequence[str]) -> Targets:
    """The same, then those all of whose samples were dropped, unless they are known."""
    table = samples.dropped[~samples.dropped["condition"].isin(list(known))]
    n_cells = table.groupby("condition", sort=False)["n_cells"].sum()
    end = np.full(len(n_cells), targets.stops[-1] if len(targets) else 0)
    added = (n_cells.index.to_numpy(object), end, end, n_cells.to_numpy(np.int64))
    return Targets(*(np.concatenate(pair) for pair in zip(vars(targets).values(), added, strict=True)))


def added_targets(samples: SampleTable, reference: str, result: ScreenResult) -> Targets:
    """The conditions that are not in the finished runs of a screen; warns of those that an earlier run dropped."""
    n_known = result.runs[-1]["stop"] if result.is_complete else result.runs[-1]["start"]
    summaries = result.summaries()
    known = np.concatenate([summary["names"] for summary in summaries])[:n_known]
    n_replicates = np.concatenate([summary["n_replicates"] for summary in summaries])[:n_known]
    names = set(samples.table["condition"])
    if again := sorted(names & set(known[n_replicates == 0])):
        msg = (
            f"Already in the screen, without a test, because all their samples were dropped then: {listed(again, most=5)}. They stay as "
            "they are. To test them, make a new screen of all cells."
        )
        warn(msg)
    targets = targets_of(samples, list(names - set(known) - {reference}))
    return _with_dropped(targets, samples, [*names, *known, reference])


def choose_fit_perturbations(targets: Targets, n_fit_perturbations: int) -> np.ndarray:
    """Places of the perturbations that the model is fitted on, evenly spaced."""
    n = targets.n_sampled
    return np.unique(np.linspace(0, n - 1, min(n_fit_perturbations, n)).round().astype(np.int64))


def samples_of_fit(samples: SampleTable, reference: str, fit_perturbations: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the reference, then of the perturbations of the fit, and their groups: 0 the reference, then one each."""
    control = targets_of(samples, [reference])
    both = [control.samples, fit_perturbations.samples]
    groups = np.repeat(np.arange(1, len(fit_perturbations) + 1), np.diff(fit_perturbations.bounds))
    return np.concatenate(both), np.concatenate([np.zeros(len(both[0]), np.int64), groups])


def check_fit(samples: SampleTable, pseudobulk: Pseudobulk) -> None:
    """Refuse a screen without replicates, or one that its blocks confound."""
    treated = np.arange(1, pseudobulk.n_groups)
    check_replicates(samples, pseudobulk, np.stack([np.zeros_like(treated), treated], axis=1))


def block_codes(samples: SampleTable, labels: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """Codes of the blocks of these samples among those of the fit, (n_rows,)."""
    if "block" not in samples.table:
        return None
    block = samples.table["block"].iloc[rows]
    codes = pd.Index(labels).get_indexer(block)
    if (codes < 0).any():
        new = block[codes < 0]
        msg = (
            f"Blocks {', '.join(map(repr, list(dict.fromkeys(new))[:10]))} hold {len(new)} samples, but none of the reference "
            "or of the perturbations that the model is fitted on, so their difference from the other blocks cannot be estimated. "
            "Raise n_fit_perturbations, leave those cells out, or leave block_key out."
        )
        raise ValueError(msg)
    return codes.astype(np.int64)


def rows_of_a_block(perturbations_per_chunk: int | None, n_targets: int, n_genes: int, bytes_a_test: int) -> int:
    """Perturbations tested at once and kept in one chunk: as asked for, or about 128 MB of layers.

    It does not depend on the number of threads: neither do the files.
    """
    if perturbations_per_chunk is not None:
        return min(perturbations_per_chunk, max(n_targets, 1))
    return max(1, min(2**27 // (bytes_a_test * n_genes), max(LEAST_ROWS, -(-n_targets // N_PARTS))))
