"""Refuse matrices that are not what they say: whatever a kernel indexes with is looked at once, here."""

from __future__ import annotations

import numpy as np
from fast_array_utils import types


class DamagedMatrixError(ValueError):
    """A matrix does not fit together; the text says in a few words how, and what to do."""


REREAD = "Write or read the matrix again from its source; scipy's check_format() shows whether it is sound."


def check_storage(values, row: int = 0, column: int = 0, shape: tuple[int, int] | None = None) -> None:
    """Refuse a matrix in memory that has masked values, another shape than it should have, or damaged indices.

    `row` and `column` are the place of its first cell and gene, for the message. Kinds of matrix that cannot be read
    at all are refused where they are read.
    """
    held = getattr(values, "data", None) if isinstance(values, types.CSBase) else values
    if isinstance(held, np.ma.MaskedArray):
        msg = "is a masked array, and a masked count is not 0. Fill it, .filled(0), or leave such cells or genes out."
        raise DamagedMatrixError(msg)
    if shape is not None and tuple(values.shape) != tuple(shape):
        msg = (
            f"has a chunk of shape {tuple(values.shape)} at row {row}, column {column}, where its chunks say {tuple(shape)}. "
            "Make the dask array again with the right chunks."
        )
        raise DamagedMatrixError(msg)
    if isinstance(values, types.CSBase):
        _check_sparse(values, row, column)


def check_bounds(bounds: np.ndarray, n_lines: int, n_data: int, n_indices: int, lines: str) -> None:
    """Refuse the `indptr` of a sparse matrix unless it ascends from 0, has an entry for each line and one more, and lies within the data."""
    what = ""
    if not isinstance(bounds, np.ndarray) or bounds.ndim != 1 or bounds.dtype.kind not in "iu":
        what = "indptr does not hold whole numbers"
    elif len(bounds) != n_lines + 1:
        what = f"indptr has {len(bounds)} entries, but for {n_lines} {lines} there are {n_lines + 1}"
    elif bounds[0] != 0:
        what = f"indptr starts with {bounds[0]}, not with 0"
    elif (falls := np.flatnonzero(bounds[1:] < bounds[:-1])).size:
        what = f"indptr falls from {bounds[falls[0]]} to {bounds[falls[0] + 1]} at {lines[:-1]} {falls[0]}"
    elif bounds[-1] > min(n_data, n_indices):
        what = f"indptr ends with {bounds[-1]}, but there are {n_data} values and {n_indices} indices"
    if what:
        msg = f"is a damaged sparse matrix: {what}. {REREAD}"
        raise DamagedMatrixError(msg)


def check_kind(indices) -> None:
    """Refuse indices, in memory or on disk, that are not a list of whole numbers: scipy would round them."""
    if len(indices.shape) != 1 or indices.dtype.kind not in "iu":
        msg = f"is a damaged sparse matrix: its indices are of dtype {indices.dtype}, not whole numbers. {REREAD}"
        raise DamagedMatrixError(msg)


def not_computed(error: Exception) -> DamagedMatrixError:
    """The error for chunks of a dask array that are not computed because what they read does not fit together."""
    found = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return DamagedMatrixError(
        f"has chunks that cannot be computed ({found}). If they are read from a file, it is damaged. {REREAD}"
    )


def check_codes(codes: np.ndarray, n_rows: int, n_groups: int) -> None:
    """Refuse codes of groups unless there is one for each row, a whole number from -1 to `n_groups` - 1."""
    right = codes.shape == (n_rows,) and codes.dtype.kind in "iu"
    if right and (not n_rows or (codes.min() >= -1 and codes.max() < n_groups)):
        return
    msg = f"Codes of groups must be {n_rows} whole numbers from -1 to {n_groups - 1}, one for each row."
    raise ValueError(msg)


def _check_sparse(values: types.CSBase, row: int, column: int) -> None:
    by_row = values.format == "csr"
    n_lines, n_across = values.shape if by_row else values.shape[::-1]
    bounds, indices = values.indptr, values.indices
    check_bounds(bounds, n_lines, len(values.data), len(indices), "rows" if by_row else "columns")
    check_kind(indices)
    used = indices[: bounds[-1]]
    if not used.size or used.view(used.dtype.str.replace("i", "u")).max() < n_across:  # negative ones count as huge
        return
    at = int(np.flatnonzero((used < 0) | (used >= n_across))[0])
    line, across = int(np.searchsorted(bounds, at, side="right")) - 1, int(used[at])
    what = f"column {across} in row {line + row}" if by_row else f"row {across} in column {line + column}"
    of_all = f"{n_across} {'columns (genes)' if by_row else 'rows (cells)'}"
    msg = f"is a damaged sparse matrix: it has an entry at {what}, but there are {of_all}, numbered from 0. {REREAD}"
    raise DamagedMatrixError(msg)
