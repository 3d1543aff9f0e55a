"""Results of a comparison, written to an AnnData all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._nb.status import MEANING, status_codes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


FORMAT = 2  # of what is stored: 2 since the status has 32 bits and every method stores intervals


@dataclass(frozen=True)
class Results:
    """What `tl.nb_compare` stores. Logarithms to base 2."""

    arrays: Mapping[str, np.ndarray]  # word -> (n_genes, n_comparisons)
    columns: Mapping[str, np.ndarray]  # word -> (n_genes,), of several splits (n_genes, n_splits)
    comparisons: list[str]
    reference: str
    params: Mapping[str, Any]
    samples: pd.DataFrame
    dropped_samples: pd.DataFrame
    n_cells_left_out: Mapping[str, int]
    trend: Mapping[str, Any] = field(default_factory=dict)
    splits: np.ndarray | None = None  # (n_comparisons,) str, the split of each column
    split_table: pd.DataFrame | None = None  # one row a column
    design: Mapping[str, Any] = field(default_factory=dict)
    coefficients: np.ndarray | None = None  # (n_genes, n_coefficients)
    prior: Mapping[str, Any] = field(default_factory=dict)  # of the posterior, under the users' names


def check_format(stored: Mapping[str, Any], what: str, verb: str) -> None:
    """Refuse results that another version of the package stored in another format."""
    found = int(stored.get("format", 1))
    if found != FORMAT:
        other = "an older" if found < FORMAT else "a newer"
        msg = (
            f"{what} was stored in format {found} by {other} version of nbcompare ({stored.get('version', 'unknown')}). "
            f"This version reads format {FORMAT}. Run nbcompare.tl.{verb} again, or install the version that stored it."
        )
        raise ValueError(msg)


def check_key(key: str) -> None:
    """Refuse a `key_added` that cannot be the start of a key in a file."""
    if not key or "/" in key:
        msg = (
            f"key_added is {key!r}, but the names of arrays in h5ad and zarr files are neither empty nor hold a slash."
        )
        raise ValueError(msg)


def write_results(adata: AnnData, results: Results, key: str) -> None:
    """Store the results under `key`, replacing those of an earlier call with the same key."""
    of_genes = {word: values for word, values in results.columns.items() if values.ndim == 1}
    arrays = {**results.arrays, **{word: values for word, values in results.columns.items() if values.ndim == 2}}
    arrays |= {} if results.coefficients is None else {"coefficients": results.coefficients}
    for slot, words in ((adata.varm, arrays), (adata.var, of_genes)):
        stale = {f"{key}_{word}" for word in WORDS.difference(words)}.intersection(slot.keys())
        for name in stale:
            del (slot if hasattr(slot, "__delitem__") else slot.ds)[name]  # a lazily read var hides its data set
    for word, values in arrays.items():
        adata.varm[f"{key}_{word}"] = values
    for word, values in of_genes.items():
        adata.var[f"{key}_{word}"] = values
    adata.uns[key] = {
        "comparisons": np.array(results.comparisons, dtype=object),
        "reference": results.reference,
        "params": dict(results.params),
        "samples": results.samples,
        "dropped_samples": results.dropped_samples,
        "n_cells_left_out": dict(results.n_cells_left_out),
        "trend": dict(results.trend),
        "status_codes": status_codes(),
        "status_meaning": dict(MEANING),
        "log_base": 2,
        "fdr_scope": "comparison" if results.splits is None else "split and comparison",
        "version": version("nbcompare"),
        "format": FORMAT,
        **({} if results.splits is None else {"splits": results.splits, "split_table": results.split_table}),
        **({"design": dict(results.design)} if results.design else {}),
        **({"prior": dict(results.prior)} if results.prior else {}),
    }


WORDS = frozenset(
    {
        "logfoldchanges",
        "lfc_se",
        "lfc_unshrunken",
        "lfc_median",
        "lfc_sd",
        "lfc_lower",
        "lfc_upper",
        "null_probability",
        "lfsr",
        "lfc_shrunk",
        "lfc_shrunk_se",
        "svalue",
        "pareto_k",
        "scores",
        "pvals",
        "pvals_adj",
        "pvals_all_replicates",
        "dispersions",
        "dispersions_genewise",
        "coefficients",
        "offset_factors",
        "status",
        "base_mean",
        "dispersion_trend",
    }
)
