"""The matrix of counts, and its sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nbcompare._counts.chunks import CHUNK_SIZE, blocks, in_memory
from nbcompare._counts.matrix_checks import DamagedMatrixError
from nbcompare._counts.sums import Sums, as_sums, looks_like_counts, sum_gene, sum_groups
from nbcompare._counts.validation import NotCountsError
from nbcompare._messages import choices, warn

ROWS_LOOKED_AT = 64
SAME_TOTAL = 1e-3  # relative

if TYPE_CHECKING:
    from anndata import AnnData


def read_matrix(adata: AnnData, layer: str | None):
    """The matrix of a layer, or `.X`, as it is stored."""
    if layer is None:
        if adata.X is None:
            msg = f"adata.X is empty. Pass layer, the name of the raw counts. {choices('counts', _layers(adata))}"
            raise ValueError(msg)
        return adata.X
    if layer not in _layers(adata):
        msg = f"There is no layer {layer!r}. {choices(layer, _layers(adata))}"
        raise KeyError(msg)
    return adata.layers[layer]


def read_values(adata: AnnData, layer: str) -> np.ndarray:
    """All of a layer in memory, (n_obs, n_vars) float64, whatever it is stored as."""
    matrix = read_matrix(adata, layer)
    try:
        return in_memory(matrix)
    except DamagedMatrixError as error:
        raise _damaged(layer, error) from None


def sum_counts(
    adata: AnnData,
    codes: np.ndarray,
    n_groups: int,
    *,
    layer: str | None = None,
    chunk_size: int = CHUNK_SIZE,
    may_share: bool = False,
    progress: Callable[[float], object] | None = None,
) -> Sums:
    """Sums of the cells of each group; what are not counts is refused, naming the layer and the likely right one.

    With `may_share` the sums of rows that are samples already may be the matrix itself: they must not be changed.
    """
    if chunk_size < 1:
        msg = f"chunk_size is {chunk_size}, but it is the number of rows read at once: 1 or more."
        raise ValueError(msg)
    matrix = read_matrix(adata, layer)
    try:
        shared = as_sums(matrix, codes) if may_share else None
        sums = shared or sum_groups(matrix, codes, n_groups, chunk_size=chunk_size, progress=progress)
    except NotCountsError as error:
        raise _refused(adata, layer, error) from None
    except DamagedMatrixError as error:
        raise _damaged(layer, error) from None
    if sums.rounding:
        warn(
            f"{_name(layer)} holds values that miss whole numbers by up to {sums.rounding:.1g}, as rounding errors do. They were rounded. "
            f"To store them so: {_name(layer)} = np.round({_name(layer)})."
        )
    return sums


def sum_gene_counts(
    adata: AnnData, gene_index: int, codes: np.ndarray, n_groups: int, *, layer: str | None = None
) -> np.ndarray:
    """Sums of one gene in each group, (n_groups,) float64."""
    try:
        return sum_gene(read_matrix(adata, layer), codes, n_groups, gene_index)
    except NotCountsError as error:
        raise _refused(adata, layer, error) from None
    except DamagedMatrixError as error:
        raise _damaged(layer, error) from None


def _refused(adata: AnnData, layer: str | None, error: NotCountsError) -> NotCountsError:
    total = _shared_total(read_matrix(adata, layer))
    what = str(error) if total is None else f"looks normalized: every row has the total {total:,.6g} ({error})"
    msg = f"{_name(layer)} {what}. Raw counts are needed. {_where_counts_are(adata, layer)}"
    if total is None and any(words in what for words in ("holds no whole numbers", "parts of reads")):
        msg += (
            f" If these are estimated counts (SoupX, CellBender, salmon, RSEM), round them, {_name(layer)} = np.round({_name(layer)}), "
            "and give differences in gene length by offset. Normalized values, such as CPM or TPM, cannot be used."
        )
    return NotCountsError(msg)


def _shared_total(matrix) -> float | None:
    """The total that the first rows share, as CPM, TPM and counts per 10,000 do; None if they have different ones."""
    block = next(iter(blocks(matrix, ROWS_LOOKED_AT)), None)
    if block is None or block.values.shape[0] < 2 or block.values.shape[1] != matrix.shape[1]:
        return None
    totals = np.asarray(block.values[:ROWS_LOOKED_AT].sum(axis=1), dtype=float).ravel()
    totals = totals[totals > 0]
    shared = len(totals) > 1 and np.ptp(totals) <= SAME_TOTAL * totals.max()
    return float(np.median(totals)) if shared else None


def _damaged(layer: str | None, error: DamagedMatrixError) -> DamagedMatrixError:
    msg = f"{_name(layer)} {error}"
    return DamagedMatrixError(msg)


def _where_counts_are(adata: AnnData, refused: str | None) -> str:
    """Which other matrix holds whole numbers. `.raw` is named, never used."""
    for layer in [name for name in (None, *_layers(adata)) if name != refused]:
        matrix = adata.X if layer is None else adata.layers[layer]
        if matrix is not None and looks_like_counts(matrix):
            return f"{_name(layer)} holds whole numbers: pass layer={layer!r}."
    if adata.raw is not None and looks_like_counts(adata.raw.X):
        return "adata.raw holds whole numbers: pass adata.raw.to_adata()."
    return "No other layer holds whole numbers: go back to the counts before normalization."


def _name(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _layers(adata: AnnData) -> list[str]:
    return [name for name in adata.layers if isinstance(name, str)]  # anndata 0.13 lists X as None
