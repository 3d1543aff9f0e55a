"""One gene over cell types and comparisons, and the other figures of results in several cell types."""

from __future__ import annotations

import warnings
from functools import partial

import anndata as ad
import numpy as np
import pytest
from matplotlib.colors import to_hex

from nbcompare import datasets, get, pl, tl

UP, DOWN, DARK = "#d55e00", "#0072b2", "#4d4d4d"


@pytest.fixture(scope="module")
def _types_once():
    parts = []
    for seed, name in enumerate(["B", "CD4/T", "mono"]):
        part = datasets.simulate(n_genes=150, n_conditions=3, n_cells=20, paired=True, de_fraction=0.3, rng=seed)
        part.obs["cell_type"] = name
        part.obs_names = [f"{name}_{i}" for i in range(part.n_obs)]
        parts.append(part[(part.obs["condition"] != "treated_2").to_numpy() | (name != "mono")])
    adata = ad.concat(parts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of 6 comparisons could not be made")
        tl.nb_compare(
            adata, "condition", reference="ctrl", replicate_key="replicate", block_key="donor", split_by="cell_type"
        )
    return adata


@pytest.fixture
def types(_types_once):
    """Results in three cell types, of which the last lacks the second treatment."""
    return _types_once.copy()


def called_gene(adata):
    """The gene with the smallest p-value of the first column."""
    return adata.var_names[np.nanargmin(adata.varm["nb_compare_pvals"][:, 0])]


def drawn(ax, gid):
    return next(collection for collection in ax.collections if collection.get_gid() == gid)


def labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_effects_and_intervals(types):
    gene = called_gene(types)
    ax = pl.forest(types, gene, "treated_1")
    assert labels(ax) == ["B", "CD4/T", "mono"]
    row = types.var_names.get_loc(gene)
    change, lower, upper, adjusted = (
        types.varm[f"nb_compare_{word}"][row, [0, 2, 4]]
        for word in ("logfoldchanges", "lfc_lower", "lfc_upper", "pvals_adj")
    )
    np.testing.assert_allclose(drawn(ax, "effect").get_offsets(), np.stack([change, [0, 1, 2]], axis=1))
    ends = np.array([segment[:, 0] for segment in drawn(ax, "interval").get_segments()])
    low, high = ax.get_xlim()
    np.testing.assert_allclose(ends, np.clip(np.stack([lower, upper], axis=1), low, high))
    expected = [(UP if x > 0 else DOWN) if p < 0.05 else DARK for x, p in zip(change, adjusted, strict=True)]
    assert [to_hex(colour) for colour in drawn(ax, "effect").get_facecolor()] == expected
    assert expected[0] != DARK
    words = [text.get_text() for text in ax.texts]
    assert words == ["adjusted p", *(f"{p:.2g}" for p in adjusted)]
    assert ax.get_title(loc="left") == gene
    assert ax.get_xlabel() == "log$_2$ fold change, treated_1 vs ctrl"


def test_an_interval_leaves_out_zero_where_p_is_small(types):
    """In every gene, groups without counts included."""
    from nbcompare.pl._forest import _rows

    for gene in types.var_names[:60]:
        rows = _rows(types, gene, None, None, "nb_compare")
        p = types.varm["nb_compare_pvals_unfiltered"][types.var_names.get_loc(gene)]
        out = (rows["lower"] > 0) | (rows["upper"] < 0)
        sure = np.abs(p - 0.05) > 3e-4
        assert (out == (p < 0.05))[sure].all()


def test_an_infinite_bound_is_an_arrow_to_the_edge(types):
    row = types.var_names.get_loc(called_gene(types))
    types.varm["nb_compare_lfc_upper"][row, 0] = np.inf
    types.varm["nb_compare_lfc_lower"][row, 2] = -np.inf
    ax = pl.forest(types, called_gene(types), split=["B", "CD4/T"], groups="treated_1")
    low, high = ax.get_xlim()
    ends = np.array([segment[:, 0] for segment in drawn(ax, "interval").get_segments()])
    assert ends[0, 1] == high
    assert ends[1, 0] == low
    arrows = [c.get_offsets().tolist() for c in ax.collections if c.get_gid() == "beyond"]
    assert arrows == [[[low, 1.0]], [[high, 0.0]]]
    assert high - low < 50


def test_shrunken_effects(types):
    with pytest.raises(ValueError, match="without shrink=True"):
        pl.forest(types, "gene_020", shrunken=True)
    types.varm["nb_compare_lfc_shrunken"] = types.varm["nb_compare_logfoldchanges"] / 2
    types.varm["nb_compare_lfc_shrunken_se"] = types.varm["nb_compare_lfc_se"] / 3
    ax = pl.forest(types, "gene_020", split="B", shrunken=True)
    row = types.var_names.get_loc("gene_020")
    change, se = (types.varm[f"nb_compare_{word}"][row, :2] for word in ("logfoldchanges", "lfc_se"))
    np.testing.assert_allclose(drawn(ax, "effect").get_offsets()[:, 0], change / 2)
    widths = [np.ptp(segment[:, 0]) for segment in drawn(ax, "interval").get_segments()]
    np.testing.assert_allclose(widths, 2 * 1.96 * se / 3)
    assert ax.get_xlabel() == "shrunken log$_2$ fold change vs ctrl"


def test_types_by_comparisons(types):
    ax = pl.forest(types, called_gene(types))
    assert labels(ax) == [
        "B",
        "treated_1",
        "treated_2",
        "CD4/T",
        "treated_1",
        "treated_2",
        "mono",
        "treated_1",
        "treated_2",
    ]
    assert [label.get_fontweight() for label in ax.get_yticklabels()][:3] == ["bold", "normal", "normal"]
    untested = [text for text in ax.texts if text.get_gid() == "untested"]
    assert [text.get_text() for text in untested] == ["not tested: group missing"]
    assert untested[0].xy[1] == 8
    assert len(drawn(ax, "effect").get_offsets()) == 5
    one = pl.forest(types, called_gene(types), split="B")
    assert labels(one) == ["treated_1", "treated_2"]
    assert one.get_title(loc="left") == f"{called_gene(types)}, B"
    two = pl.forest(types, called_gene(types), ["treated_2"], split=["mono", "B"])
    assert labels(two) == ["mono", "B"]


def test_without_types(stored):
    gene = stored.var_names[10]
    assert labels(pl.forest(stored, gene)) == ["treated_1", "treated_2"]
    stored.var["symbol"] = [f"S{i}" for i in range(stored.n_vars)]
    assert pl.forest(stored, gene, gene_symbols="symbol").get_title(loc="left") == "S10"


def test_an_interval_far_longer_than_the_others_ends_in_an_arrowhead(types):
    row = types.var_names.get_loc(called_gene(types))
    types.varm["nb_compare_logfoldchanges"][row, :4] = [1.0, 1.0, 1.0, 1.0]
    types.varm["nb_compare_lfc_lower"][row, :4] = [0.5, 0.5, 0.5, -60.0]
    types.varm["nb_compare_lfc_upper"][row, :4] = [1.5, 1.5, 1.5, 60.0]
    ax = pl.forest(types, called_gene(types), split=["B", "CD4/T"])
    arrows = [collection for collection in ax.collections if collection.get_gid() == "beyond"]
    assert [len(collection.get_offsets()) for collection in arrows] == [1, 1]
    assert ax.get_xlim()[1] < 10


def test_a_gene_tested_nowhere(types):
    row = types.var_names.get_loc("gene_007")
    for word in ("pvals", "pvals_adj", "scores"):
        types.varm[f"nb_compare_{word}"][row] = np.nan
    ax = pl.forest(types, "gene_007")
    assert len([text for text in ax.texts if text.get_gid() == "untested"]) == 6


def test_refusals(types, stored):
    with pytest.raises(KeyError, match="no gene 'nothing'"):
        pl.forest(types, "nothing")
    with pytest.raises(KeyError, match="has no split 'T'"):
        pl.forest(types, types.var_names[0], split="T")
    with pytest.raises(KeyError, match="has no comparison 'treated_9'"):
        pl.forest(types, types.var_names[0], "treated_9")
    with pytest.raises(ValueError, match="compared without split_by"):
        pl.forest(stored, stored.var_names[0], split="B")
    with pytest.raises(KeyError, match="No results"):
        pl.forest(types, types.var_names[0], key="other")


# the other figures in a cell type

FIGURES = {
    "volcano": partial(pl.volcano, n_top=0),
    "ma": partial(pl.ma, n_top=0),
    "dispersion": pl.dispersion,
    "pvalues": pl.pvalues,
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_figures_of_one_type(types, figure):
    """As of the type alone, but for the title."""
    ax = figure(types, "treated_2", split="CD4/T")
    assert ax.get_title(loc="left") == "CD4/T: treated_2 vs ctrl"
    alone = types[(types.obs["cell_type"] == "CD4/T").to_numpy()].copy()
    tl.nb_compare(alone, "condition", reference="ctrl", replicate_key="replicate", block_key="donor")
    same = figure(alone, "treated_2")
    assert len(ax.collections) == len(same.collections)
    for ours, theirs in zip(ax.collections, same.collections, strict=True):
        np.testing.assert_array_equal(ours.get_offsets(), theirs.get_offsets())
    for ours, theirs in zip(ax.lines, same.lines, strict=True):
        np.testing.assert_array_equal(ours.get_ydata(), theirs.get_ydata())
    with pytest.raises(ValueError, match="holds 3 splits, name one of them as split: 'B', 'CD4/T', 'mono'"):
        figure(types, "treated_2")
    with pytest.raises(ValueError, match=r"not compared in the split 'mono'.*no sample of 'treated_2'\.$"):
        figure(types, "treated_2", split="mono")


def test_gene_of_one_type(types):
    gene = called_gene(types)
    ax = pl.gene(types, gene, split="B")
    assert ax.get_title(loc="left") == f"{gene}\nB"
    table = get.nb_gene_df(types, gene, split="B")
    for level in ("ctrl", "treated_1", "treated_2"):
        assert sorted(drawn(ax, level).get_offsets()[:, 1]) == sorted(
            table.loc[table["condition"] == level, "normalized"]
        )
    assert sum(line.get_gid() == "block" for line in ax.lines) == 3
    with pytest.raises(ValueError, match="holds 3 splits"):
        pl.gene(types, gene)


def test_gene_joins_replicates_that_were_not_blocks():
    adata = datasets.simulate(n_genes=60, n_conditions=6, n_cells=15, paired=True, rng=0)
    adata.obs["sample"] = adata.obs["condition"].astype(str) + adata.obs["replicate"].astype(str)
    tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="sample")
    assert not [line for line in pl.gene(adata, "gene_10").lines if line.get_gid() == "block"]
    joined = [line for line in pl.gene(adata, "gene_10", block_key="donor").lines if line.get_gid() == "block"]
    table = get.nb_gene_df(adata, "gene_10", block_key="donor")
    assert len(joined) == table["block"].nunique() == 3
    heights = sorted(sorted(line.get_ydata()) for line in joined)
    assert heights == sorted(sorted(part["normalized"]) for _, part in table.groupby("block"))
    with pytest.raises(KeyError, match="no column 'animal'"):
        pl.gene(adata, "gene_10", block_key="animal")
