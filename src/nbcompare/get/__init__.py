"""Stored arrays to tidy tables, and to the format that scanpy's plots read."""

from nbcompare.get._check_screen import check_screen
from nbcompare.get._nb_compare_df import nb_compare_df
from nbcompare.get._nb_gene_df import nb_gene_df
from nbcompare.get._nb_screen_df import nb_screen_df
from nbcompare.get._summary import summary
from nbcompare.get._to_rank_genes_groups import to_rank_genes_groups

__all__ = ["check_screen", "nb_compare_df", "nb_gene_df", "nb_screen_df", "summary", "to_rank_genes_groups"]
