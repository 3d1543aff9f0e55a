from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nbcompare._anndata import position_of, positions_of, read_samples, repeated_names, sum_gene_counts
from nbcompare._anndata.rows import cells_column
from nbcompare._arguments import checked
from nbcompare.get._comparison_arrays import chosen_columns, chosen_splits, stored_results, stored_trend

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def nb_gene_df(
    adata: AnnData,
    gene: str,
    *,
    split: str | Sequence[str] | None = None,
    block_key: str | Sequence[str] | None = None,
    key: str = "nb_compare",
) -> pd.DataFrame:
    r"""Return the counts of one gene in every sample, with the fitted mean of each group.

    The counts are summed anew from the matrix that was compared. With size factors :math:`l_i`, :math:`L = \sum l_i`
    and :math:`T` the counts of a condition (half a count if there are none), the mean is :math:`T / L` and its 95%
    interval :math:`\exp\bigl(\log(T/L) \pm 1.96\sqrt{1/T + \phi \sum l_i^2 / L^2}\bigr)`: log-normal, by the variance
    :math:`m + \phi m^2` of the negative binomial. :math:`\phi` is the dispersion that the condition's test used; for
    the reference, and where the gene was not tested, the median over the comparisons with the dispersion ratios of their groups
    divided out. Block effects are not part of the interval. Where the comparison had an `offset`, :math:`l_i` is the size factor
    times the offset's factor of the gene in the sample, and the samples have the weights of the test: :math:`1 / (1 + \phi m l_i)` at
    the trend's dispersion and the mean of the reference (of two groups, of both together).

    Parameters
    ----------
    adata
        Data with stored results: the cells, or the samples, that were compared.
    gene
        Name of the gene in `var_names`.
    split
        One split (cell type) of a comparison with `split_by`, several, or None for all.
    block_key
        Column of `.obs` with what replicates of different conditions share, such as the donor, to be given as `block`
        where the comparison was made without blocks. By default the blocks of the comparison.
    key
        Key of the results (`key_added` of the call).

    Returns
    -------
    One row for each sample: `split` if there are splits, `condition`, `replicate`, `block`, `n_cells`, `counts` of the gene, `size_factor`,
    with an offset `offset_factor`, `normalized` (counts over the size factor and the offset's factor), and `fitted_mean`, `interval_low`, `interval_high` of its condition (in its split) on the
    scale of `normalized`.

    Raises
    ------
    KeyError
        If there are no such results, gene, split, layer or columns of `.obs`.
    ValueError
        If cells were taken away after the comparison; if a sample lies in several blocks; if several genes, or several samples, have
        this name.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=100, rng=0)
    >>> nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate")
    >>> nb.get.nb_gene_df(adata, "gene_00")[["condition", "replicate"]].iloc[0].to_list()
    ['ctrl', 'ctrl_1']
    """
    results = stored_results(adata, key)
    position = position_of(gene, adata.var_names, "gene", "var_names")
    samples = results["samples"].reset_index(drop=True)
    counts, blocks = _read_samples(adata, position, samples, results["params"], block_key)
    table = samples.assign(block=blocks if block_key is not None else samples.get("block", ""), counts=counts)
    if f"{key}_offset_factors" in adata.varm:
        table["offset_factor"] = np.asarray(adata.varm[f"{key}_offset_factors"])[position].astype(float)
    table["normalized"] = table["counts"] / depths_of(table)
    leading = [name for name in ("split", "condition", "replicate", "block") if name in table]
    table = table[[*leading, *table.columns.difference(leading, sort=False)]]

    dispersions = np.asarray(adata.varm[f"{key}_dispersions"])[position]
    splits = chosen_splits(results, split, key)
    if not splits:
        at_trend = trend_dispersion(adata, key, position, None)
        return _with_fit(
            table, dispersions, results["comparisons"], results.get("trend", {}), results["reference"], at_trend
        )
    parts = []
    for name in splits:
        chosen = chosen_columns(results, None, name, key)
        here = [column.number for column in chosen]
        trend = stored_trend(results, chosen[0].split_number)
        part = table[table["split"] == name].reset_index(drop=True)
        at_trend = trend_dispersion(adata, key, position, chosen[0].split_number)
        parts.append(
            _with_fit(part, dispersions[here], results["comparisons"][here], trend, results["reference"], at_trend)
        )
    return pd.concat(parts, ignore_index=True)


def _with_fit(
    table: pd.DataFrame,
    dispersions: np.ndarray,
    comparisons: np.ndarray,
    trend: Mapping[str, Any],
    reference: str,
    trend_dispersion: float,
) -> pd.DataFrame:
    """The samples of a data set with the mean of their condition and its interval; `dispersions` of its comparisons."""
    table = table.copy()
    depths, condition = depths_of(table), table["condition"]
    weight = _weights(table, depths, reference, trend_dispersion) if "offset_factor" in table else 1.0
    parts = pd.DataFrame(
        {
            "counts": table["counts"],
            "y": weight * table["counts"],
            "l": weight * depths,
            "poisson": weight**2 * depths,
            "square": (weight * depths) ** 2,
        }
    )
    fitted = parts.groupby(condition, observed=True).sum()
    mean = (
        fitted["y"].where(fitted["counts"] > 0, 0.5 * fitted["l"] / depths.groupby(condition, observed=True).sum())
        / fitted["l"]
    )
    phi = _dispersions_of(fitted.index, dispersions, comparisons, trend)
    half_width = 1.96 * np.sqrt((fitted["poisson"] / mean + phi * fitted["square"]) / fitted["l"] ** 2)
    table["fitted_mean"] = table["condition"].map(mean).astype(float)
    table["interval_low"] = table["condition"].map(mean * np.exp(-half_width)).astype(float)
    table["interval_high"] = table["condition"].map(mean * np.exp(half_width)).astype(float)
    return table


def trend_dispersion(adata: AnnData, key: str, position: int, split_number: int | None) -> float:
    """The trend's dispersion at the gene's mean, 0 where there is no trend."""
    name = f"{key}_dispersion_trend"
    if split_number is not None and name in adata.varm:
        found = float(np.asarray(adata.varm[name])[position, split_number])
    else:
        found = float(adata.var[name].iloc[position]) if name in adata.var else 0.0
    return found if np.isfinite(found) else 0.0


def depths_of(table: pd.DataFrame) -> pd.Series:
    """What the gene's counts in each sample are divided by: the size factor, times the factor of the offset where one was given."""
    return table["size_factor"] * table.get("offset_factor", 1.0)


def _weights(table: pd.DataFrame, depths: pd.Series, reference: str, dispersion: float) -> pd.Series:
    """The weights that the test gives to samples of different depth, 1 / (1 + trend's dispersion x rate x depth).

    The rate is the reference's, of two groups the common one.
    """
    base = table["condition"].astype(str) == reference
    if not base.any() or table["condition"].nunique() == 2:
        base[:] = True
    rate = max(table["counts"][base].sum(), 0.5) / depths[base].sum()
    return 1 / (1 + dispersion * rate * depths)


def _dispersions_of(
    conditions: pd.Index, used: np.ndarray, comparisons: np.ndarray, trend: Mapping[str, Any]
) -> pd.Series:
    """Dispersion of one gene in each condition, NaN if it was tested nowhere."""
    dispersion_ratio = np.asarray(trend.get("dispersion_ratio", np.ones((len(used), 2))))
    of_reference = used / dispersion_ratio[:, 1] * dispersion_ratio[:, 0]
    tested = np.isfinite(used)
    otherwise = float(np.median(of_reference[tested])) if tested.any() else np.nan
    own = pd.Series(used, index=[str(name) for name in comparisons])
    return own.reindex(conditions.astype(str)).set_axis(conditions).fillna(otherwise)


def _read_samples(
    adata: AnnData,
    position: int,
    stored: pd.DataFrame,
    params: Mapping[str, Any],
    block_key: str | Sequence[str] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of one gene in each of the stored samples, summed anew, and the blocks; refuses data that lost cells since."""
    replicate_key = params.get("replicate_key")
    found = read_samples(
        adata,
        params["groupby"],
        replicate_key=replicate_key,
        block_key=block_key,
        split_by=params.get("split_by"),
        check_names=False,
        joined=list(params.get("reference_levels", ())),
    )
    label = found.label
    if replicate_key is None:  # samples are rows, whose names may repeat
        positions_of(repeated_names(stored["replicate"], adata.obs_names), adata.obs_names, "sample", "obs_names")
    rows = pd.MultiIndex.from_frame(stored[label].astype(str)).get_indexer(
        pd.MultiIndex.from_frame(found.table[label].astype(str))
    )
    cells = np.bincount(rows[rows >= 0], weights=found.table["n_cells"][rows >= 0], minlength=len(stored))
    whole = cells > 0 if replicate_key is None or cells_column(adata) is not None else cells == stored["n_cells"]
    if not np.all(whole):
        lost = stored[~np.asarray(whole)].iloc[0]
        msg = (
            f"{(~np.asarray(whole)).sum()} of the {len(stored)} samples that were compared have other cells now, such as "
            f"{lost['condition']!r}, {lost['replicate']!r}. Give the data that were compared, or compare these."
        )
        raise ValueError(msg)
    blocks = np.full(len(stored), "", dtype=object)
    if block_key is not None:
        blocks[rows[rows >= 0]] = found.table["block"][rows >= 0]
    codes = np.append(rows, -1)[found.codes]
    return sum_gene_counts(adata, position, codes, len(stored), layer=params.get("layer")), blocks
