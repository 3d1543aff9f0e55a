"""One data set: from its samples and their counts to the arrays of all its comparisons, whatever the options are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nbcompare._anndata import SampleTable

from ._design import make_design
from ._estimate import moderated, unmoderated


@dataclass(frozen=True)
class Outcome:
    """What the comparisons of one data set give. Logarithms to base 2."""

    arrays: dict[str, np.ndarray]  # word -> (n_genes, n_comparisons)
    columns: dict[str, np.ndarray]  # word -> (n_genes,)
    trend: dict[str, Any]  # empty where the test knows none
    comparisons: list[str]
    samples: pd.DataFrame  # with `size_factor`
    became: dict[str, Any]  # what arguments such as "auto" became, by name


def compare_samples(adata: AnnData, samples: SampleTable, counts: np.ndarray, options: Mapping[str, Any]) -> Outcome:
    """All comparisons among these samples, counts (n_samples, n_genes); `options` are the arguments of `nb_compare` by name.

    The only way from samples to results: all that is shared by genes (size factors, trend, blocks) is shared by these samples.
    What a set of samples cannot answer is a ValueError that says why.
    """
    design = make_design(
        adata,
        samples,
        counts,
        reference=options["reference"],
        groups=options["groups"],
        factors=options["size_factors"],
        replicate_key=options["replicate_key"],
    )
    given = {name: options[name] for name in ("method", "cox_reid", "min_total")}
    trend: dict[str, Any] = {}
    if options["test"] == "moderated":
        arrays, columns, trend = moderated(design, shared=options["dispersion"] == "all", **given)
    else:
        arrays, columns = unmoderated(design, test=options["test"], **given)
    table = samples.table.assign(size_factor=design.pseudobulk.exposure)
    return Outcome(arrays, columns, trend, design.comparisons, table, {"size_factors_used": design.factors_used})
