"""The cells of a screen, summed into samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from os import PathLike

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import SampleTable, in_memory, opened, reference_missing
from nbcompare._anndata.rows import without_known
from nbcompare._anndata.screen.tables import check_table
from nbcompare.tl._progress import bar
from nbcompare.tl._samples.groups import factors_of_samples, read_sample_counts
from nbcompare.tl._screen.options import METHODS, ScreenOptions


@dataclass(frozen=True)
class ScreenData:
    """The samples of a call."""

    samples: SampleTable
    counts: np.ndarray  # (n_samples, n_genes) float64, or the float32 of the AnnData itself: not to be changed
    var: pd.DataFrame
    depths: np.ndarray | None  # (n_samples,) size factors where they are given

    @property
    def description(self) -> pd.DataFrame:
        """The table of samples with the given size factors."""
        table = without_known(self.samples.table)
        return table if self.depths is None else table.assign(given=self.depths)


def read_screen(adata: AnnData | str | PathLike, options: ScreenOptions) -> ScreenData:
    """Sum the cells, in one pass, by condition and replicate; a guide is a replicate of its perturbation, too."""
    replicate_key = options.replicates
    factors = options.size_factors
    with opened(adata) as cells:
        with bar("cells", "cells", cells.n_obs, shown=options.progress) as shown:
            samples, counts = read_sample_counts(
                cells,
                replace(options.samples, replicate_key=replicate_key),
                chunk_size=options.chunk_size,
                joined=options.reference_levels,
                may_lack=options.append,
                named=[str(options.reference)],
                check=partial(_check_reference, reference=options.reference),
                may_share=True,
                progress=shown.update,
            )
        given = not (isinstance(factors, str) and factors in METHODS)
        depths = factors_of_samples(cells, samples, factors, replicate_key) if given else None
        return ScreenData(samples, counts, in_memory(cells.var), depths)


def gene_names(adata: AnnData | str | PathLike) -> pd.Index:
    """The names of the genes, in memory or in a file."""
    with opened(adata) as cells:
        return cells.var_names


def check_genes(adata: AnnData | str | PathLike) -> None:
    """Refuse a table of genes that a store cannot hold."""
    with opened(adata) as cells:
        check_table(in_memory(cells.var), "var")


def _check_reference(samples: SampleTable, reference: str | None) -> None:
    """Refuse a reference that is missing, before a cell is summed."""
    if reference is None:
        raise ValueError(reference_missing(samples.conditions, rest=False))
