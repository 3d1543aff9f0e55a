"""The only reader and writer of AnnData: obs columns, samples, counts."""

from __future__ import annotations

from .counts import read_matrix, sum_counts, sum_gene_counts
from .obs import choices, column_names, in_memory, read_obs
from .results import Results, check_key, write_results
from .samples import SampleTable, read_samples, sum_samples

__all__ = [
    "Results",
    "SampleTable",
    "check_key",
    "choices",
    "column_names",
    "in_memory",
    "read_matrix",
    "read_obs",
    "read_samples",
    "sum_counts",
    "sum_gene_counts",
    "sum_samples",
    "write_results",
]
