"""Whether a stored screen is whole."""

from __future__ import annotations

from os import PathLike

import pandas as pd

from nbcompare._anndata import ScreenStore
from nbcompare._arguments import checked


@checked
def check_screen(path: str | PathLike[str]) -> pd.DataFrame:
    """Read all numbers of a screen on disk and list what is damaged.

    :func:`~nbcompare.tl.nb_screen` notes a checksum for each layer of each block of perturbations. They are computed again here. The
    layer `pvals_adj_global`, which is derived from all p-values, has none.

    Parameters
    ----------
    path
        The zarr store that :func:`~nbcompare.tl.nb_screen` wrote.

    Returns
    -------
    One row for each damaged part: `layer`, `rows` (the first and the last perturbation, counted from 0) and `problem`. No rows
    where the screen is whole. To mend a block, delete its file in `.nb_screen/blocks` and repeat the call that made the screen.

    Raises
    ------
    FileNotFoundError
        If there is no finished screen at the path.
    ValueError
        If a table, a whole layer or the record of the calls is missing or damaged.

    Examples
    --------
    >>> import nbcompare as nb
    >>> import tempfile
    >>> adata = nb.datasets.simulate(n_conditions=5, n_genes=50, n_cells=40, rng=0)
    >>> path = tempfile.mkdtemp() + "/screen.zarr"
    >>> _ = nb.tl.nb_screen(adata, "condition", reference="ctrl", replicate_key="replicate", path=path, progress=False)
    >>> len(nb.get.check_screen(path))
    0
    """
    store = ScreenStore(path)
    if not store.runs or not store.runs[0]["finished"]:
        what = "is not finished: repeat the call that began it" if store.runs else "does not exist"
        msg = f"The screen at {str(path)!r} {what}."
        raise FileNotFoundError(msg)
    store.read()
    store.open_finished()
    return pd.DataFrame(store.damaged_blocks(), columns=["layer", "rows", "problem"])
