"""Results of a comparison, written to an AnnData all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._anndata.summary import summary_of_comparison
from nbcompare._nb.status import MEANING, status_codes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


FORMAT = 4  # of what is stored: 4 since statuses, columns and parameters have the names of the field


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
    n_cells_excluded: Mapping[str, int]
    trend: Mapping[str, Any] = field(default_factory=dict)
    splits: np.ndarray | None = None  # (n_comparisons,) str, the split of each column
    split_table: pd.DataFrame | None = None  # one row a column
    design: Mapping[str, Any] = field(default_factory=dict)
    coefficients: np.ndarray | None = None  # (n_genes, n_coefficients)
    prior: Mapping[str, Any] = field(default_factory=dict)  # of the posterior, under the users' names
    hidden_factors: Mapping[str, Any] = field(default_factory=dict)
    null: Mapping[str, np.ndarray] = field(default_factory=dict)  # null spread and common shift, (n_comparisons,) each


def check_format(stored: Mapping[str, Any], what: str, function: str) -> None:
    """Refuse results that another version of the package stored in another format."""
    found = int(stored.get("format", 1))
    if found != FORMAT:
        other = "an older" if found < FORMAT else "a newer"
        msg = (
            f"{what} was stored in format {found} by {other} version of nbcompare ({stored.get('version', 'unknown')}). "
            f"This version reads format {FORMAT}. Run nbcompare.tl.{function} again, or install the version that stored it."
        )
        raise ValueError(msg)


def write_results(adata: AnnData, results: Results, key: str) -> str:
    """Store the results under `key`, replacing those of an earlier call with the same key; the summary of the call."""
    summary = summary_of_comparison(
        results.params,
        list(dict.fromkeys(results.comparisons)),
        results.reference,
        results.arrays["status"],
        {
            "samples": results.samples,
            "dropped_samples": results.dropped_samples,
            "n_cells_excluded": results.n_cells_excluded,
        },
        results.design,
        [] if results.splits is None else list(dict.fromkeys(results.splits)),
        results.hidden_factors,
    )
    of_genes = {word: values for word, values in results.columns.items() if values.ndim == 1}
    arrays = {**results.arrays, **{word: values for word, values in results.columns.items() if values.ndim == 2}}
    arrays |= {} if results.coefficients is None else {"coefficients": results.coefficients}
    _remove_earlier(adata, key)
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
        "n_cells_excluded": dict(results.n_cells_excluded),
        "trend": dict(results.trend),
        "status_codes": status_codes(),
        "status_meaning": dict(MEANING),
        "summary": summary,
        "written": {
            "varm": sorted(f"{key}_{word}" for word in arrays),
            "var": sorted(f"{key}_{word}" for word in of_genes),
        },
        "log_base": 2,
        "fdr_scope": "comparison" if results.splits is None else "split and comparison",
        "version": version("nbcompare"),
        "format": FORMAT,
        **({} if results.splits is None else {"splits": results.splits, "split_table": results.split_table}),
        **({"design": dict(results.design)} if results.design else {}),
        **({"prior": dict(results.prior)} if results.prior else {}),
        **({"hidden_factors": dict(results.hidden_factors)} if results.hidden_factors else {}),
        **results.null,
    }
    return summary


def _remove_earlier(adata: AnnData, key: str) -> None:
    """Remove the arrays that the last call with this key says it wrote."""
    earlier = adata.uns.get(key)
    written = earlier.get("written", {}) if isinstance(earlier, Mapping) else {}
    for slot, names in ((adata.varm, written.get("varm", [])), (adata.var, written.get("var", []))):
        for name in {str(name) for name in np.atleast_1d(names)}.intersection(slot.keys()):
            del (slot if hasattr(slot, "__delitem__") else slot.ds)[name]  # a lazily read var hides its data set
