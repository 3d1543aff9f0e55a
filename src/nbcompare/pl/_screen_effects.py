"""What a map of a screen shows: the strongest perturbations, the genes that they move, and the effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nbcompare.get._comparison_arrays import is_significant
from nbcompare.get._screen_arrays import gene_columns, own_columns, perturbation_rows, read_obs, read_tests, zero_order

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Effects:
    """What the map shows."""

    rows: np.ndarray
    columns: np.ndarray
    change: np.ndarray  # (n_rows, n_columns), NaN where not tested
    called: np.ndarray  # (n_rows, n_columns) bool

    def ordered(self, by_row: np.ndarray, by_column: np.ndarray) -> Effects:
        both = np.ix_(by_row, by_column)
        return Effects(self.rows[by_row], self.columns[by_column], self.change[both], self.called[both])


def chosen_effects(
    screen: AnnData,
    n_perturbations: int,
    n_genes: int,
    perturbations: str | Sequence[str] | None,
    genes: str | Sequence[str] | None,
    padj_cutoff: float,
) -> Effects:
    """The effects asked for, or the strongest, perturbations and genes in their own order."""
    rows = _strongest(screen, n_perturbations) if perturbations is None else perturbation_rows(screen, perturbations)
    columns = gene_columns(screen, genes)
    called = is_significant(read_tests(screen, "pvals_adj", rows, columns), padj_cutoff)
    if genes is None:
        columns = _most_moved(screen, rows, called, n_genes)
        called = called[:, columns]
        if not columns.size:
            msg = f"No gene of these perturbations has an adjusted p-value of at most {padj_cutoff:g}; name genes to show."
            raise ValueError(msg)
    return Effects(rows, columns, read_tests(screen, "logfoldchanges", rows, columns).astype(float), called)


def _strongest(screen: AnnData, n: int) -> np.ndarray:
    """Rows of the perturbations with the most hits, ascending; of equals, the smaller overall p-value, then the largest score."""
    table = read_obs(screen, ["n_hits", "pval"])
    n_hits = table["n_hits"].to_numpy()
    order = np.lexsort((zero_order(screen, table["pval"].to_numpy()), table["pval"].to_numpy(), -n_hits))[:n]
    rows = np.sort(order[n_hits[order] > 0])
    if not rows.size:
        msg = "No perturbation of the screen has a hit; name perturbations and genes to see their effects."
        raise ValueError(msg)
    return rows


def _most_moved(screen: AnnData, rows: np.ndarray, called: np.ndarray, n: int) -> np.ndarray:
    """Columns of the genes that most of these perturbations move, ascending."""
    own = own_columns(screen, rows)
    counted = called.copy()
    counted[np.flatnonzero(own >= 0), own[own >= 0]] = False
    scores = read_tests(screen, "scores", rows, np.arange(screen.n_vars))
    total = np.where(called, np.abs(scores), 0.0).sum(axis=0)
    order = np.lexsort((-total, -counted.sum(axis=0)))[:n]
    return np.sort(order[called[:, order].any(axis=0)])
