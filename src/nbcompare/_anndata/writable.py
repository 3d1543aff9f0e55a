"""Whether a result can be written to an AnnData, asked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def check_writable(adata: AnnData, function: str, *, copy: bool = False) -> None:
    """Refuse a part of a backed file, to which nothing can be added, and a copy of a backed file."""
    if not adata.isbacked:
        return
    if adata.is_view:
        msg = (
            "adata is a part (a view) of a file that is read in backed mode, and results cannot be stored in it. Load the part "
            f"first: adata = adata.to_memory(), then {function}(adata, ...). Or aggregate the cells with nbcompare.pp.pseudobulk, "
            "which reads a part of a file in pieces, and use its result."
        )
        raise ValueError(msg)
    if copy:
        msg = "copy=True cannot copy a matrix that lies in a file. Use copy=False, which writes to memory, or adata.to_memory()."
        raise ValueError(msg)
