"""Designs of real data through the public call, beside R's results on the same samples and genes."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import stats

from nbcompare import get, pp, tl

# name -> formula, groupby, reference; least hits at 5 %
DESIGNS = {
    "airway": ("~ cell + dex", "dex", "untrt", 5000),
    "pasilla": ("~ type + condition", "condition", "untreated", 1100),
    "kang_mono": ("~ donor + condition", "condition", "ctrl", 590),
}
PEERS = ["deseq2_pvalue", "edger_ql_pvalue", "voom_pvalue", "glmgampoi_ql_pvalue"]


@pytest.fixture(scope="module")
def load(shared):
    """Samples x genes of a data set, those that edgeR kept, with DESeq2's size factors."""

    def build(name):
        factors = pd.read_csv(shared / "data" / "r_reference" / f"{name}_samples.csv")
        if name == "kang_mono":
            cells = read_h5ad(shared / "data" / "kang2018_pbmc_8donors.h5ad")
            cells = cells[cells.obs["cell_type"] == "CD14+ Monocytes"]
            samples = pp.pseudobulk(cells, "condition", replicate_key="donor", min_cells=1)
            key = samples.obs["condition"].astype(str) + samples.obs["donor"].astype(str)
            factors = factors.set_index(factors["condition"] + factors["donor"].astype(str)).loc[key]
        else:
            counts = pd.read_csv(shared / "data" / f"{name}_counts.csv.gz", index_col=0)
            obs = pd.read_csv(shared / "data" / f"{name}_samples.csv", index_col=0).loc[counts.columns]
            samples = AnnData(counts.T.to_numpy(float), obs=obs, var=pd.DataFrame(index=counts.index))
            factors = factors.set_index("sample").loc[samples.obs_names]
        samples.obs["depth"] = factors["deseq2_sizeFactor"].to_numpy()
        return samples

    return build


@pytest.mark.parametrize("name", DESIGNS)
def test_ranks_hits_and_effects_are_those_of_r(load, shared, name):
    design, groupby, reference, least = DESIGNS[name]
    theirs = (
        pd.read_csv(shared / "data" / "r_reference" / f"{name}_de.csv.gz").drop_duplicates("gene").set_index("gene")
    )
    samples = load(name)
    samples = samples[:, theirs["edger_ql_pvalue"].reindex(samples.var_names).notna()].copy()
    tl.nb_compare(samples, groupby, reference=reference, design=design, size_factors="depth", min_cells=1)
    ours = get.nb_compare_df(samples).set_index("names").loc[samples.var_names]
    theirs = theirs.loc[samples.var_names]
    assert ours["pvals"].notna().all()
    ranked = pd.Series(samples.varm["nb_compare_pvals_unfiltered"][:, 0], index=samples.var_names)  # R leaves none out
    for peer in PEERS:
        both = theirs[peer].notna()
        # in Kang's cells groups are nearly empty in many genes, whose tests have fewer degrees of freedom here
        least_rank = 0.975 if name == "kang_mono" else 0.98
        assert stats.spearmanr(ranked[both], theirs[peer][both]).statistic > least_rank, peer
    # fold changes of genes that one arm lacks are infinite but for a prior
    seen = ours["status"].str.contains("zero_group") == 0
    assert np.corrcoef(ours["logfoldchanges"][seen], theirs["glmgampoi_lfc"][seen])[0, 1] > 0.998
    assert (ours["pvals_adj"] < 0.05).sum() >= least


def test_a_time_course_by_an_interaction_of_five_coefficients(load, shared):
    """The gene that was deleted comes first, and ranks are those of DESeq2's likelihood ratio test."""
    samples = load("fission")
    samples = samples[:, samples.X.sum(axis=0) >= 100].copy()
    samples.obs["minute"] = samples.obs["minute"].astype(str)
    tl.nb_compare(samples, "strain", design="~ strain * minute", contrast="strain:minute", size_factors="depth")
    ours = get.nb_compare_df(samples).set_index("names")
    assert samples.uns["nb_compare"]["design"]["contrasts"].shape == (12, 5)
    assert ours.index[0] == "SPBC2F12.09c"
    theirs = pd.read_csv(shared / "data" / "r_reference" / "fission_lrt.csv.gz").set_index("gene").loc[ours.index]
    ratio = samples.uns["nb_compare"]["trend"]["dispersion_ratio"].max()
    assert (
        4 < ratio < 6.5
    )  # three replicates of one strain and minute scatter as much more than the others, which DESeq2 does not ask
    assert stats.spearmanr(ours["pvals"], theirs["deseq2_lrt_pvalue"], nan_policy="omit").statistic > 0.9
    assert 1 <= (ours["pvals_adj"] < 0.05).sum() <= 20
