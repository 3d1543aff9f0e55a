from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nbcompare._anndata import check_writable
from nbcompare._arguments import checked

from ._stored import chosen_columns, one_split, stored_results

if TYPE_CHECKING:
    from anndata import AnnData

MOST_RANKED = 900  # comparisons; h5ad cannot hold the header of a record array with more fields


@checked
def to_rank_genes_groups(
    adata: AnnData, key: str = "nb_compare", *, split: str | None = None, key_added: str = "rank_genes_groups"
) -> None:
    """Write stored results in scanpy's format, for `sc.get.rank_genes_groups_df` and `sc.pl.rank_genes_groups_*`.

    Writes `.uns[key_added]`: `params` and the record arrays `names`, `scores`, `logfoldchanges` (log2), `pvals` and
    `pvals_adj`, one field for each comparison, the highest score first. A gene that was not tested has the score 0,
    between the two directions as in scanpy's own results, but keeps NaN for its p-values.

    Parameters
    ----------
    adata
        Data with stored results.
    key
        Where the results are stored, `key_added` of the call.
    split
        The split (cell type) of a comparison with `split_by`: scanpy's format has a place for one, so that each needs a
        `key_added` of its own. May be left out if there is one only.
    key_added
        Where to write.

    Raises
    ------
    KeyError
        If there are no such results or split.
    ValueError
        If there are several splits and none is named; if there are more than 900 comparisons: scanpy's format has one field each, and h5ad cannot write more.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.to_rank_genes_groups(adata)
    >>> adata.uns["rank_genes_groups"]["names"].dtype.names
    ('treated_1',)
    """
    check_writable(adata, "nbcompare.get.to_rank_genes_groups")
    results = stored_results(adata, key)
    split = one_split(results, split, key)
    chosen = chosen_columns(results, None, split, key)
    groups, numbers = [column.group for column in chosen], [column.number for column in chosen]
    if len(groups) > MOST_RANKED:
        msg = (
            f"{key!r} holds {len(groups)} comparisons; scanpy's format takes one field each and h5ad files hold about "
            f"{MOST_RANKED} of them. Read the stored arrays with nbcompare.get.nb_compare_df instead."
        )
        raise ValueError(msg)
    stored = {
        word: np.asarray(adata.varm[f"{key}_{word}"])[:, numbers]
        for word in ("scores", "logfoldchanges", "pvals", "pvals_adj")
    }
    stored["scores"] = np.nan_to_num(stored["scores"], nan=0.0)
    order = np.argsort(-stored["scores"], axis=0, kind="stable")
    columns: dict[str, np.ndarray] = {"names": adata.var_names.to_numpy(object)[order]}
    columns |= {word: np.take_along_axis(values, order, axis=0) for word, values in stored.items()}
    kinds = {"names": "O", "scores": "f4", "logfoldchanges": "f4", "pvals": "f8", "pvals_adj": "f8"}

    params = results["params"]
    ranked: dict[str, Any] = {
        "params": {
            "groupby": params["groupby"],
            "reference": results["reference"],
            "method": f"nb_compare: {params.get('method')}, {params.get('test')}",
            "use_raw": False,
            "layer": params.get("layer"),
            "corr_method": "benjamini-hochberg",
        }
    }
    for word, kind in kinds.items():
        ranked[word] = np.rec.fromarrays(list(columns[word].T), dtype=[(name, kind) for name in groups])
    adata.uns[key_added] = ranked
