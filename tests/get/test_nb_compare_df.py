from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import sparse

from nbcompare import get, pl
from nbcompare._anndata import FORMAT
from nbcompare.get._to_rank_genes_groups import MOST_RANKED


def test_table_of_one_comparison(stored):
    table = get.nb_compare_df(stored, "treated_2")
    assert table.columns.to_list() == [
        "names", "scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "lfc_lower", "lfc_upper", "base_mean",
        "dispersions", "status",
    ]  # fmt: skip
    assert sorted(table["names"]) == sorted(stored.var_names)
    tested = table["pvals"].notna().to_numpy()
    assert 0 < tested.sum() < len(table)
    assert np.all(np.diff(table["pvals"][tested]) >= 0)
    assert not tested[tested.sum() :].any()
    position = stored.var_names.get_indexer(table["names"])
    for word in ("scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "lfc_lower", "lfc_upper", "dispersions"):
        np.testing.assert_array_equal(table[word], stored.varm[f"nb_compare_{word}"][position, 1])
    np.testing.assert_array_equal(table["base_mean"], stored.var["nb_compare_base_mean"].iloc[position])
    assert set(table["status"][~tested]) == {"low_counts"}
    assert "ok" in set(table["status"][tested])


def test_table_of_all_comparisons(stored):
    table = get.nb_compare_df(stored)
    assert table.columns[0] == "group"
    assert table["group"].cat.categories.to_list() == ["treated_1", "treated_2"]
    assert len(table) == 2 * stored.n_vars
    some = get.nb_compare_df(stored, ["treated_2"])
    pd.testing.assert_frame_equal(some.drop(columns="group"), get.nb_compare_df(stored, "treated_2"))
    assert (some["group"] == "treated_2").all()


def test_cutoffs(stored):
    full = get.nb_compare_df(stored, "treated_1")
    table = get.nb_compare_df(stored, "treated_1", padj_cutoff=0.1, log2fc_min=-1, log2fc_max=2)
    keep = (full["pvals_adj"] <= 0.1) & (full["logfoldchanges"] > -1) & (full["logfoldchanges"] < 2)
    assert 0 < keep.sum() < len(full)
    pd.testing.assert_frame_equal(table, full[keep].reset_index(drop=True))
    assert get.nb_compare_df(stored, padj_cutoff=0).empty


def test_one_rule_of_what_is_a_hit(stored):
    """An adjusted p-value of exactly the cut-off is a hit, in tables and figures, as the counts of a screen have it."""
    adjusted = stored.varm["nb_compare_pvals_adj"][:, 0]
    cutoff = float(np.sort(adjusted[np.isfinite(adjusted)])[20])
    expected = int((adjusted <= cutoff).sum())
    assert expected > (adjusted < cutoff).sum()
    assert len(get.nb_compare_df(stored, "treated_1", padj_cutoff=cutoff)) == expected
    for figure in (pl.volcano, pl.ma):
        ax = figure(stored, "treated_1", padj_cutoff=cutoff, n_top=0)
        drawn = {c.get_gid(): len(c.get_offsets()) for c in ax.collections if c.get_gid() in ("down", "up")}
        assert sum(drawn.values()) == expected
    gene = stored.var_names[int(np.flatnonzero(adjusted == cutoff)[0])]
    for level, significant in ((cutoff, True), (cutoff * (1 - 1e-9), False)):
        ax = pl.forest(stored, gene, "treated_1", padj_cutoff=level)
        (colour,) = next(c for c in ax.collections if c.get_gid() == "effect").get_facecolor()
        assert (to_hex(colour) in ("#d55e00", "#0072b2")) == significant


def test_styles(stored):
    plain = get.nb_compare_df(stored, "treated_1")
    pertpy = get.nb_compare_df(stored, "treated_1", style="pertpy")
    assert pertpy.columns.to_list() == ["variable", "log_fc", "p_value", "adj_p_value", "contrast"]
    assert (pertpy["contrast"] == "treated_1").all()
    np.testing.assert_array_equal(pertpy["log_fc"], plain["logfoldchanges"])
    deseq2 = get.nb_compare_df(stored, "treated_1", style="deseq2")
    assert deseq2.columns.to_list() == [
        "baseMean", "log2FoldChange", "lfcSE", "lfcLower", "lfcUpper", "stat", "pvalue", "padj",
    ]  # fmt: skip
    np.testing.assert_array_equal(deseq2["lfcUpper"], plain["lfc_upper"])
    assert deseq2.index.to_list() == plain["names"].to_list()
    assert get.nb_compare_df(stored, style="pertpy")["contrast"].nunique() == 2
    assert get.nb_compare_df(stored, style="deseq2").columns[0] == "group"


def test_gene_symbols(stored):
    stored.var["symbol"] = [f"S{i}" for i in range(stored.n_vars)]
    table = get.nb_compare_df(stored, "treated_1", gene_symbols="symbol")
    assert table.columns[-1] == "symbol"
    assert (table["symbol"] == stored.var["symbol"].loc[table["names"]].to_numpy()).all()
    with pytest.raises(KeyError, match="no column of .var"):
        get.nb_compare_df(stored, gene_symbols="sybmol")


def test_errors_say_what_there_is(stored):
    with pytest.raises(KeyError, match="there are: 'nb_compare'"):
        get.nb_compare_df(stored, key="nb")
    with pytest.raises(KeyError, match="'treated_1', 'treated_2'.*Did you mean 'treated_1'"):
        get.nb_compare_df(stored, "treatd_1")
    with pytest.raises(ValueError, match="'scanpy', 'pertpy', 'deseq2'"):
        get.nb_compare_df(stored, style="edgeR")
    with pytest.raises(ValueError, match="group is empty"):
        get.nb_compare_df(stored, [])
    with pytest.raises(KeyError, match=r"no gene 'gene_07'.*Did you mean"):
        get.nb_gene_df(stored, "gene_07")
    with pytest.raises(KeyError, match=r"run nbcompare.tl.nb_compare first"):
        get.nb_compare_df(anndata.AnnData(np.ones((2, 2))))


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_tables_survive_a_round_trip(stored, tmp_path, suffix):
    get.to_rank_genes_groups(stored)
    if suffix == "h5ad":
        stored.write_h5ad(tmp_path / "a.h5ad")
        back = anndata.read_h5ad(tmp_path / "a.h5ad")
    else:
        stored.write_zarr(tmp_path / "a.zarr")
        back = anndata.read_zarr(tmp_path / "a.zarr")
    pd.testing.assert_frame_equal(get.nb_compare_df(back), get.nb_compare_df(stored))
    pd.testing.assert_frame_equal(
        get.nb_gene_df(back, "gene_007"), get.nb_gene_df(stored, "gene_007"), check_dtype=False
    )


def test_gene_table_against_the_formula(stored):
    gene = stored.var["nb_compare_base_mean"].sub(30).abs().idxmin()
    table = get.nb_gene_df(stored, gene)
    assert table.columns.to_list() == [
        "condition", "replicate", "block", "n_cells", "counts", "size_factor",
        "normalized", "fitted_mean", "interval_low", "interval_high",
    ]  # fmt: skip
    assert len(table) == 9
    column = np.asarray(stored[:, gene].X.todense()).ravel()
    stored.uns["nb_compare"]["trend"]["dispersion_ratio"] = np.array([[1.0, 1.0], [1.0, 3.0]])
    table = get.nb_gene_df(stored, gene)
    used = stored.varm["nb_compare_dispersions"][stored.var_names.get_loc(gene)]
    dispersion = {"ctrl": (used[0] + used[1] / 3) / 2, "treated_1": used[0], "treated_2": used[1]}
    for condition, rows in table.groupby("condition"):
        cells = (stored.obs["condition"] == condition).to_numpy()
        assert rows["counts"].sum() == column[cells].sum()
        for _, row in rows.iterrows():
            assert row["counts"] == column[cells & (stored.obs["replicate"] == row["replicate"]).to_numpy()].sum()
        total, depth = rows["counts"].sum(), rows["size_factor"].sum()
        error = np.sqrt(1 / total + dispersion[condition] * (rows["size_factor"] ** 2).sum() / depth**2)
        np.testing.assert_allclose(rows["fitted_mean"], total / depth)
        np.testing.assert_allclose(rows["interval_low"], np.exp(np.log(total / depth) - 1.96 * error))
        np.testing.assert_allclose(rows["interval_high"], np.exp(np.log(total / depth) + 1.96 * error))
    np.testing.assert_allclose(table["normalized"], table["counts"] / table["size_factor"])


def test_gene_table_of_any_matrix(stored, tmp_path):
    want = get.nb_gene_df(stored, "gene_010")
    for matrix in (stored.X.tocsc(), stored.X.toarray(), sparse.csr_array(stored.X), sparse.csc_array(stored.X)):
        other = stored.copy()
        other.X = matrix
        pd.testing.assert_frame_equal(get.nb_gene_df(other, "gene_010"), want)
    stored.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    pd.testing.assert_frame_equal(get.nb_gene_df(backed, "gene_010"), want, check_dtype=False)
    backed.file.close()


def test_gene_table_reads_the_layer_that_was_compared(stored):
    want = get.nb_gene_df(stored, "gene_010")
    stored.layers["counts"] = stored.X.copy()
    stored.X = np.log1p(stored.X)
    stored.uns["nb_compare"]["params"]["layer"] = "counts"
    pd.testing.assert_frame_equal(get.nb_gene_df(stored, "gene_010"), want)
    del stored.layers["counts"]
    with pytest.raises(KeyError, match="no layer 'counts'"):
        get.nb_gene_df(stored, "gene_010")
    stored.uns["nb_compare"]["params"]["layer"] = None
    del stored.obs["condition"]
    with pytest.raises(KeyError, match="no column 'condition'"):
        get.nb_gene_df(stored, "gene_010")


def test_gene_table_refuses_a_part_of_the_data(stored):
    for part in (stored[stored.obs["condition"] != "treated_1"], stored[::2]):
        with pytest.raises(ValueError, match="have other cells now"):
            get.nb_gene_df(part, "gene_010")


def test_gene_table_of_pseudobulk(stored):
    want = get.nb_gene_df(stored, "gene_010")
    samples = stored.uns["nb_compare"]["samples"]
    rows = [
        np.asarray(
            stored.X[((stored.obs["condition"] == c) & (stored.obs["replicate"] == r)).to_numpy()].sum(axis=0)
        ).ravel()
        for c, r in zip(samples["condition"], samples["replicate"], strict=True)
    ]
    names = [f"sample_{i}" for i in range(len(rows))]
    bulk = anndata.AnnData(np.stack(rows), obs=samples[["condition"]].set_axis(names), var=stored.var)
    for word, value in stored.varm.items():
        bulk.varm[word] = value
    bulk.uns["nb_compare"] = stored.uns["nb_compare"]
    bulk.uns["nb_compare"]["params"]["replicate_key"] = None
    bulk.uns["nb_compare"]["samples"] = samples.assign(replicate=names)
    got = get.nb_gene_df(bulk, "gene_010")
    np.testing.assert_array_equal(got["counts"], want["counts"])
    np.testing.assert_allclose(got["interval_high"], want["interval_high"])


def test_gene_table_without_counts_in_an_group(stored):
    cells = (stored.obs["condition"] == "treated_1").to_numpy()
    dense = stored.X.toarray()
    dense[cells, 5] = 0
    stored.X = dense
    table = get.nb_gene_df(stored, "gene_005")
    empty = table[table["condition"] == "treated_1"]
    np.testing.assert_allclose(empty["fitted_mean"], 0.5 / empty["size_factor"].sum())
    assert np.isfinite(table["interval_high"]).all()


class TestBridge:
    def test_same_numbers_in_scanpy(self, stored):
        import scanpy as sc

        get.to_rank_genes_groups(stored)
        for group in ("treated_1", "treated_2"):
            theirs = sc.get.rank_genes_groups_df(stored, group).set_index("names")
            assert np.all(np.diff(theirs["scores"]) <= 0)
            ours = get.nb_compare_df(stored, group).set_index("names").loc[theirs.index]
            for word in ("logfoldchanges", "pvals", "pvals_adj"):
                np.testing.assert_allclose(theirs[word], ours[word], rtol=1e-6)
            np.testing.assert_allclose(theirs["scores"], ours["scores"].fillna(0), rtol=1e-6)
            called = sc.get.rank_genes_groups_df(stored, group, pval_cutoff=0.05, log2fc_min=0)
            assert set(called["names"]) == set(
                get.nb_compare_df(stored, group, padj_cutoff=0.05, log2fc_min=0)["names"]
            )

    def test_layout_is_that_of_scanpy(self, stored):
        import scanpy as sc

        get.to_rank_genes_groups(stored, key_added="ours")
        stored.X = np.log1p(stored.X)
        stored.uns["log1p"] = {"base": None}
        sc.tl.rank_genes_groups(stored, "condition", reference="ctrl", method="t-test", key_added="theirs")
        ours, theirs = stored.uns["ours"], stored.uns["theirs"]
        assert set(theirs) == set(ours)
        assert set(theirs["params"]) <= set(ours["params"])
        for word in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
            assert ours[word].dtype == theirs[word].dtype

    @pytest.mark.parametrize(
        "plot", ["", "_violin", "_stacked_violin", "_heatmap", "_dotplot", "_matrixplot", "_tracksplot"]
    )
    @pytest.mark.filterwarnings("default")
    def test_every_plot_of_scanpy(self, stored, plot):
        import matplotlib as mpl
        import matplotlib.pyplot as plt
        import scanpy as sc

        mpl.use("Agg")
        get.to_rank_genes_groups(stored)
        draw = getattr(sc.pl, f"rank_genes_groups{plot}")
        more = {} if plot in {"", "_violin"} else {"dendrogram": False}
        draw(stored, n_genes=4, show=False, **more)
        if more:
            draw(stored, n_genes=-3, show=False, **more)
        plt.close("all")

    def test_refuses_what_no_file_can_hold(self, stored):
        many = anndata.AnnData(np.zeros((1, 3)))
        names = np.array([f"target_{i}" for i in range(901)])
        many.uns["nb_compare"] = {
            "comparisons": names,
            "reference": "ctrl",
            "format": FORMAT,
            "params": {"groupby": "target"},
        }
        for word in ("scores", "logfoldchanges", "pvals", "pvals_adj"):
            many.varm[f"nb_compare_{word}"] = np.zeros((3, 901))
        with pytest.raises(ValueError, match="901 comparisons.*nb_compare_df"):
            get.to_rank_genes_groups(many)

    def test_most_that_a_file_can_hold(self, tmp_path):
        many = anndata.AnnData(np.zeros((1, 3)))
        names = np.array([f"target_{i:04d}" for i in range(MOST_RANKED)])
        many.uns["nb_compare"] = {
            "comparisons": names,
            "reference": "ctrl",
            "format": FORMAT,
            "params": {"groupby": "target"},
        }
        for word in ("scores", "logfoldchanges", "pvals", "pvals_adj"):
            many.varm[f"nb_compare_{word}"] = np.zeros((3, names.size))
        get.to_rank_genes_groups(many)
        many.write_h5ad(tmp_path / "many.h5ad")
        assert (
            anndata.read_h5ad(tmp_path / "many.h5ad").uns["rank_genes_groups"]["pvals"].dtype.names[-1] == "target_0899"
        )


@pytest.mark.parametrize(("found", "words"), [(None, "format 1 by an older"), (99, "format 99 by a newer")])
def test_another_format_is_refused(stored, found, words):
    stored.uns["nb_compare"].pop("format")
    if found is not None:
        stored.uns["nb_compare"]["format"] = found
    with pytest.raises(ValueError, match=words):
        get.nb_compare_df(stored)
