"""Names of genes, samples, perturbations and columns: unique, repeated or missing, in every function that takes them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nbcompare import get, pl, pp, tl
from nbcompare._anndata.positions import known_positions, position_of, positions_of, repeated_names

pytestmark = [  # anndata's own
    pytest.mark.filterwarnings("ignore:Variable names are not unique"),
    pytest.mark.filterwarnings("ignore:Observation names are not unique"),
]
N_GENES = 60
TWICE = (20, 30)  # positions of the gene name that repeats
FIRST, SECOND = "g05", "g07"  # genes with names of their own


def make_samples(genes: list[str] | None = None) -> AnnData:
    """Four samples each of ctrl and of two perturbations, named after genes; the second `DUP` rises fourfold."""
    rng = np.random.default_rng(5)
    mean = np.exp(rng.uniform(3, 6, N_GENES))
    counts = rng.negative_binomial(20, 1 / (1 + 0.05 * np.tile(mean, (12, 1)))).astype(float)
    counts[4:, TWICE[1]] *= 6
    counts[4:8, 5] = np.round(counts[4:8, 5] / 4)
    obs = pd.DataFrame(
        {"condition": np.repeat(["ctrl", "DUP", FIRST], 4), "batch": ["x", "y"] * 6},
        index=[f"s{i:02d}" for i in range(12)],
    )
    names = [f"g{j:02d}" for j in range(N_GENES)] if genes is None else genes
    return AnnData(counts, obs=obs, var=pd.DataFrame({"symbol": [f"S{j:02d}" for j in range(N_GENES)]}, index=names))


def repeated() -> list[str]:
    names = [f"g{j:02d}" for j in range(N_GENES)]
    names[TWICE[0]] = names[TWICE[1]] = "DUP"
    return names


@pytest.fixture(scope="module")
def compared() -> AnnData:
    adata = make_samples(repeated())
    tl.nb_compare(adata, "condition", reference="ctrl", method="quadrature")
    return adata


@pytest.fixture(scope="module")
def screen() -> AnnData:
    with pytest.warns(UserWarning, match="1 perturbations have no on-target values.*'DUP'.*var_names_make_unique"):
        return tl.nb_screen(make_samples(repeated()), "condition", reference="ctrl", progress=False)


OF_GENES = {
    "nb_gene_df": lambda a, s, gene: get.nb_gene_df(a, gene),
    "nb_screen_df": lambda a, s, gene: get.nb_screen_df(s, gene=gene),
    "nb_screen_df, several": lambda a, s, gene: get.nb_screen_df(s, gene=[SECOND, gene]),
    "gene": lambda a, s, gene: pl.gene(a, gene),
    "gene, symbols": lambda a, s, gene: pl.gene(a, gene, gene_symbols="symbol"),
    "forest": lambda a, s, gene: pl.forest(a, gene),
    "forest, symbols": lambda a, s, gene: pl.forest(a, gene, gene_symbols="symbol"),
    "posterior": lambda a, s, gene: pl.posterior(a, gene, group=FIRST),
    "volcano": lambda a, s, gene: pl.volcano(a, FIRST, genes=[gene]),
    "volcano of a screen": lambda a, s, gene: pl.volcano(s, FIRST, genes=[gene]),
    "ma": lambda a, s, gene: pl.ma(a, FIRST, genes=gene),
    "screen_map": lambda a, s, gene: pl.screen_map(s, genes=[SECOND, gene]),
}


@pytest.mark.parametrize("call", OF_GENES.values(), ids=OF_GENES)
class TestGenes:
    def test_a_unique_name_beside_a_repeated_one(self, call, compared, screen):
        assert call(compared, screen, FIRST) is not None

    def test_a_repeated_name(self, call, compared, screen):
        with pytest.raises(
            ValueError, match=r"'DUP' occurs 2 times in var_names \(positions 20, 30\).*make_unique\(\)"
        ):
            call(compared, screen, "DUP")

    def test_a_missing_name(self, call, compared, screen):
        with pytest.raises(KeyError, match="no gene 'g0x' in var_names. Did you mean 'g"):
            call(compared, screen, "g0x")


OF_PERTURBATIONS = {
    "nb_screen_df": lambda s, name: get.nb_screen_df(s, name),
    "volcano": lambda s, name: pl.volcano(s, name),
    "ma": lambda s, name: pl.ma(s, name),
    "knockdown": lambda s, name: pl.knockdown(s, perturbations=name),
    "perturbation_strength": lambda s, name: pl.perturbation_strength(s, perturbations=[name]),
    "screen_map": lambda s, name: pl.screen_map(s, perturbations=[name], genes=[FIRST, SECOND]),
}


@pytest.mark.parametrize("call", OF_PERTURBATIONS.values(), ids=OF_PERTURBATIONS)
def test_perturbations(call, screen):
    assert call(screen, FIRST) is not None
    twice = screen[[0, 0, 1]].copy()  # two rows of one name, and one of its own
    own, other = twice.obs_names[2], twice.obs_names[0]
    if own == FIRST or call is not OF_PERTURBATIONS["knockdown"]:  # the target of the other has no values
        assert call(twice, own) is not None
    with pytest.raises(ValueError, match=rf"perturbation '{other}' occurs 2 times in obs_names \(positions 0, 1\)"):
        call(twice, other)
    with pytest.raises(KeyError, match="no perturbation 'g0x'"):
        call(screen, "g0x")


def test_a_figure_shows_the_gene_that_it_is_coloured_by(compared):
    """Every gene with a name of its own: the counts drawn are those of the row whose verdict is written."""
    unique = make_samples()
    tl.nb_compare(unique, "condition", reference="ctrl")
    for gene in (FIRST, SECOND, "g59"):
        pd.testing.assert_frame_equal(
            get.nb_gene_df(compared, gene)[["counts"]], get.nb_gene_df(unique, gene)[["counts"]]
        )
        place = unique.var_names.get_loc(gene)
        np.testing.assert_array_equal(get.nb_gene_df(compared, gene)["counts"].sort_index(), _in_order(unique, place))


def _in_order(adata: AnnData, place: int) -> np.ndarray:
    samples = adata.uns["nb_compare"]["samples"]
    return adata[samples["replicate"].to_numpy()].X[:, place]


def test_a_repeated_target_has_no_values_of_its_own(screen):
    of_target = [column for column in screen.obs if column.startswith("on_target")]
    assert len(of_target) == 5
    assert screen.obs.loc["DUP", of_target].isna().all()
    assert screen.obs.loc[FIRST, of_target].notna().all()
    np.testing.assert_allclose(
        screen.obs.loc[FIRST, "on_target_pval"], screen[FIRST].layers["pvals"][0, screen.var_names.get_loc(FIRST)]
    )


def test_samples_of_one_name():
    adata = make_samples()
    adata.obs_names = ["twin" if i in (0, 1) else name for i, name in enumerate(adata.obs_names)]
    tl.nb_compare(adata, "condition", reference="ctrl")
    with pytest.raises(ValueError, match=r"sample 'twin' occurs 2 times in obs_names.*obs_names_make_unique"):
        get.nb_gene_df(adata, FIRST)


OF_COLUMNS = {
    "groupby": lambda a: tl.nb_compare(a, "batch", reference="x"),
    "block_key": lambda a: tl.nb_compare(a, "condition", reference="ctrl", block_key="batch"),
    "design": lambda a: tl.nb_compare(a, "condition", reference="ctrl", design="~ batch + condition"),
    "split_by": lambda a: tl.nb_compare(a, "condition", reference="ctrl", split_by="batch"),
    "size_factors": lambda a: tl.nb_compare(a, "condition", reference="ctrl", size_factors="batch"),
    "nb_screen": lambda a: tl.nb_screen(a, "condition", reference="ctrl", block_key="batch", progress=False),
    "pseudobulk": lambda a: pp.pseudobulk(a, "condition", replicate_key="batch"),
    "pp.size_factors": lambda a: pp.size_factors(a, groupby="batch"),
}


@pytest.mark.parametrize("call", OF_COLUMNS.values(), ids=OF_COLUMNS)
def test_a_column_that_occurs_twice(call):
    adata = make_samples()
    adata.obs = pd.concat([adata.obs, adata.obs[["batch"]]], axis=1)
    with pytest.raises(ValueError, match=r"column 'batch' occurs 2 times in adata.obs \(positions 1, 2\)"):
        call(adata)


def test_pseudobulk_beside_a_column_that_occurs_twice():
    adata = make_samples()
    adata.obs["donor"] = np.arange(12) // 2
    adata.obs = pd.concat([adata.obs, adata.obs[["batch"]]], axis=1)
    assert list(pp.pseudobulk(adata, "condition", replicate_key="donor", min_cells=1).obs.columns[:2]) == [
        "condition",
        "donor",
    ]


def test_positions_against_brute_force():
    rng = np.random.default_rng(0)
    index = pd.Index([f"n{i}" for i in rng.integers(0, 40, 50)])
    requested = [f"n{i}" for i in range(45)]
    found = [np.flatnonzero(index.to_numpy() == name) for name in requested]
    expected = [int(places[0]) if len(places) == 1 else -1 for places in found]
    assert known_positions(requested, index).tolist() == expected
    assert repeated_names(requested, index) == [
        name for name, places in zip(requested, found, strict=True) if len(places) > 1
    ]
    once = [name for name, place in zip(requested, expected, strict=True) if place >= 0]
    assert positions_of(once, index, "gene", "var_names").tolist() == [index.tolist().index(name) for name in once]
    assert [position_of(name, index, "gene", "var_names") for name in once] == [index.tolist().index(n) for n in once]


@pytest.mark.parametrize(
    "column",
    ["names", "scores", "logfoldchanges", "pvals", "pvals_adj", "lfc_se", "base_mean", "dispersions", "status"],
)
def test_symbols_called_like_a_column(column, compared, screen):
    """Refused where the table has such a column; else the last column, with order and limits by the stored numbers."""
    for data, table in ((compared.copy(), get.nb_compare_df), (screen.copy(), get.nb_screen_df)):
        plain = table(data, FIRST)
        if column not in data.var:  # a screen's own base_mean
            data.var[column] = data.var["symbol"].to_numpy()
        with pytest.raises(ValueError, match=rf"gene_symbols is '{column}'.*has a column of this name"):
            table(data, FIRST, gene_symbols=column)
        if column in ("base_mean", "names"):
            continue
        other = table(data, FIRST, gene_symbols=column, style="pertpy", padj_cutoff=0.9)
        assert other.columns[-1] == column
        kept = plain[plain["pvals_adj"] <= 0.9]
        assert other["variable"].tolist() == kept["names"].tolist()
        np.testing.assert_array_equal(other["p_value"], kept["pvals"])
        symbols = dict(zip(data.var_names, data.var["symbol"], strict=True))
        pairs = [(v, s) for v, s in zip(other["variable"], other[column], strict=True) if v != "DUP"]
        assert pairs == [(v, symbols[v]) for v, _ in pairs]


@pytest.mark.parametrize("column", ["group", "split"])
def test_symbols_called_like_a_leading_column(column):
    adata = make_samples()
    adata.var[column] = adata.var["symbol"]
    adata.obs["half"] = ["a", "a", "b", "b"] * 3
    tl.nb_compare(adata, "condition", reference="ctrl", split_by="half")
    with pytest.raises(ValueError, match="has a column of this name"):
        get.nb_compare_df(adata, gene_symbols=column)
