"""The only reader and writer of AnnData: obs columns, samples, counts, results, and the store of a screen."""

from __future__ import annotations

from nbcompare._anndata.counts import read_matrix, read_values, sum_counts, sum_gene_counts
from nbcompare._anndata.joined import joined_name, reference_levels
from nbcompare._anndata.labelled import as_floats, as_labelled, is_labelled, numbers_of
from nbcompare._anndata.lazy import opened
from nbcompare._anndata.levels import (
    Level,
    is_missing,
    is_one_level,
    level_list,
    level_name,
    reference_missing,
    requested_levels,
    the_level,
)
from nbcompare._anndata.obs import as_text, column_names, in_memory, levels_of, read_obs
from nbcompare._anndata.positions import known_positions, position_of, positions_of, repeated_names
from nbcompare._anndata.results import FORMAT, Results, check_format, write_results
from nbcompare._anndata.sample_table import SampleTable
from nbcompare._anndata.samples import read_samples, sum_samples
from nbcompare._anndata.screen.fingerprint import differences, fingerprint
from nbcompare._anndata.screen.result import OVER_ALL, MemoryScreen, ScreenResult, bytes_a_test, layer_types
from nbcompare._anndata.screen.store import ScreenStore
from nbcompare._anndata.summary import reasons_untested, summary_of_samples, summary_of_screen
from nbcompare._anndata.writable import check_writable

__all__ = [
    "Level",
    "reasons_untested",
    "summary_of_samples",
    "summary_of_screen",
    "the_level",
    "reference_missing",
    "reference_levels",
    "joined_name",
    "level_name",
    "level_list",
    "is_one_level",
    "is_missing",
    "asked_levels",
    "FORMAT",
    "OVER_ALL",
    "MemoryScreen",
    "Results",
    "SampleTable",
    "ScreenResult",
    "ScreenStore",
    "as_floats",
    "as_labelled",
    "as_text",
    "bytes_a_test",
    "check_format",
    "check_writable",
    "column_names",
    "differences",
    "fingerprint",
    "in_memory",
    "is_labelled",
    "known_positions",
    "layer_types",
    "levels_of",
    "numbers_of",
    "opened",
    "position_of",
    "positions_of",
    "read_matrix",
    "read_obs",
    "read_samples",
    "read_values",
    "repeated_names",
    "sum_counts",
    "sum_gene_counts",
    "sum_samples",
    "write_results",
]
