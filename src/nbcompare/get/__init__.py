"""Stored arrays to tidy tables, and to the format that scanpy's plots read."""

from ._check_screen import check_screen
from ._nb_compare_df import nb_compare_df
from ._nb_gene_df import nb_gene_df
from ._nb_screen_df import nb_screen_df
from ._summary import summary
from ._to_rank_genes_groups import to_rank_genes_groups

__all__ = ["check_screen", "nb_compare_df", "nb_gene_df", "nb_screen_df", "summary", "to_rank_genes_groups"]
