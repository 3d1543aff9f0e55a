"""What a call did, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import stored_results
from nbcompare.get._screen_arrays import KEY, check_screen, is_screen

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def summary(adata: AnnData, key: str = "nb_compare") -> str:
    """Return in one line what a comparison or a screen did: samples, genes tested, design, test.

    The same line is shown by :func:`~nbcompare.tl.nb_compare` and :func:`~nbcompare.tl.nb_screen`.

    Parameters
    ----------
    adata
        AnnData with results of :func:`~nbcompare.tl.nb_compare`, or the result of :func:`~nbcompare.tl.nb_screen`.
    key
        The `key_added` of the comparison. Ignored for a screen.

    Returns
    -------
    The line.

    Raises
    ------
    KeyError
        If there are no results of this key.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=200, n_cells=40, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate", verbose=False)
    >>> print(nb.get.summary(adata).split(";")[0])
    nb_compare: 1 comparison ('treated_1') with reference 'ctrl'
    """
    if is_screen(adata):
        check_screen(adata)
        return str(adata.uns[KEY]["summary"])
    return str(stored_results(adata, key)["summary"])
