from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._anndata import check_writable, column_names, levels_of, read_obs
from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import Column, chosen_columns, one_split, stored_results
from nbcompare.get._hypothesis import hypothesis_of

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

    scanpy's plots look up the groups in the column `params["groupby"]`. For a `groupby` of several columns, or of one that holds no
    text, a column of the joined labels is written to `.obs`, such as `.obs["condition | type"]`, and named there. What is written stays as
    it is when `nb_compare` is called again: call this function again, too.

    Parameters
    ----------
    adata
        Data with stored results.
    key
        Key of the results (`key_added` of the call).
    split
        The split (cell type) of a comparison with `split_by`: scanpy's format has a place for one, so that each needs a
        `key_added` of its own. May be left out if there is one only.
    key_added
        Where to write.

    Returns
    -------
    None. The results are in `.uns[key_added]`.

    Raises
    ------
    KeyError
        If there are no such results or split.
    ValueError
        If the comparisons are contrasts of a design, which are no groups of `.obs`; if they show that genes do not change
        (`alternative="less_abs"`); if a group has the name `""`; if there are several splits and none is named; if there are more than 900 comparisons: scanpy's format has one field each, and h5ad cannot write more.

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
    _check_groups(results, chosen, key)
    groupby, joined = _column_of_groups(adata, results["params"]["groupby"])
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
            "groupby": groupby,
            "reference": results["reference"],
            "method": f"nb_compare: {params.get('method')}, {params.get('test')}",
            "use_raw": False,
            "layer": params.get("layer"),
            "corr_method": "benjamini-hochberg",
        }
    }
    for word, kind in kinds.items():
        ranked[word] = np.rec.fromarrays(list(columns[word].T), dtype=[(name, kind) for name in groups])
    if joined is not None:
        adata.obs[groupby] = joined
    adata.uns[key_added] = ranked


def _check_groups(results: Mapping[str, Any], chosen: Sequence[Column], key: str) -> None:
    """Refuse comparisons that scanpy's tables and plots of marker genes would misread."""
    table = f"The table of the results is nbcompare.get.nb_compare_df(adata, key={key!r})."
    if results["params"].get("contrast") is not None:
        msg = (
            f"{key!r} holds contrasts of a design, such as {chosen[0].group!r}, but scanpy's format is for groups of a column of .obs. "
            f"{table} Or run nbcompare.tl.nb_compare with reference and groups in place of contrast, which a design takes as well."
        )
        raise ValueError(msg)
    if hypothesis_of(results, chosen[0]).kind == "smaller":
        msg = (
            f"{key!r} was tested with alternative='less_abs': a small p-value shows that a gene does not change, and scanpy would list "
            f"such genes as markers. {table}"
        )
        raise ValueError(msg)
    if "" in [column.group for column in chosen]:
        msg = (
            f"A group of {key!r} has the empty text '' as its name, and the record arrays of scanpy's format have no field of this "
            f"name. Rename it in adata.obs[{results['params']['groupby']!r}] and run nbcompare.tl.nb_compare again. {table}"
        )
        raise ValueError(msg)


def _column_of_groups(adata: AnnData, groupby: str | Sequence[str]) -> tuple[str, pd.Series | None]:
    """The column of `.obs` that holds the groups by name; for several columns, and for one without text, also the column to write."""
    columns = column_names(groupby)
    if len(columns) == 1 and columns[0] not in adata.obs.columns:
        return columns[0], None  # scanpy's tables do not need the column
    obs = read_obs(adata, columns)
    if len(columns) == 1:
        column = obs[columns[0]]
        values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna()
        if all(isinstance(value, str) for value in values):
            return columns[0], None
    name = " | ".join(columns) if len(columns) > 1 else f"{columns[0]} as text"
    levels = levels_of(obs, groupby)
    labels = pd.Index(levels.labels, dtype=object)
    joined = pd.Series(pd.Categorical.from_codes(levels.codes.astype(np.intp), labels), index=obs.index)
    if name in adata.obs.columns and not _as_labels(read_obs(adata, [name])[name]).equals(_as_labels(joined)):
        msg = f"adata.obs[{name!r}] is the place for the joined labels of groupby={groupby!r}, but it holds other values. Rename it."
        raise ValueError(msg)
    return name, joined


def _as_labels(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), None).map(str)
