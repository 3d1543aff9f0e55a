"""Blocked designs of real data beside DESeq2, edgeR, voom and glmGamPoi on the same samples and genes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.status import Status


@pytest.mark.parametrize(
    ("name", "nuisance", "condition", "reference", "hits"),
    [("pasilla", "type", "condition", "untreated", 1131), ("airway", "cell", "dex", "untrt", 5121)],
)
def test_hits_ranks_and_effects_are_those_of_r(shared, name, nuisance, condition, reference, hits):
    folder = shared / "data"
    samples = pd.read_csv(folder / "r_reference" / f"{name}_samples.csv")
    table = pd.read_csv(folder / "r_reference" / f"{name}_de.csv.gz").drop_duplicates("gene").set_index("gene")
    table = table[table["edger_ql_pvalue"].notna()]
    counts = pd.read_csv(folder / f"{name}_counts.csv.gz", index_col=0).loc[table.index, samples["sample"]]
    blocks = pd.get_dummies(samples[nuisance]).to_numpy(float)
    design = np.column_stack([blocks, samples[condition] != reference])
    offset = np.log(samples["deseq2_sizeFactor"].to_numpy(float))[None]
    found = design_tests(counts.to_numpy(float), offset, design.astype(float), [np.eye(design.shape[1])[-1]])
    p = found.p_value_all[:, 0]  # the peers have no rule on single replicates
    for column in ("deseq2_pvalue", "edger_ql_pvalue", "voom_pvalue", "glmgampoi_ql_pvalue"):
        both = ~np.isnan(p) & table[column].notna().to_numpy()
        assert stats.spearmanr(p[both], table[column][both]).statistic > 0.98
    filled = (found.status[:, 0] & Status.ZERO_GROUP) == 0
    change = found.log_fc[filled, 0] / np.log(2)
    assert np.corrcoef(change, table["glmgampoi_lfc"][filled])[0, 1] > 0.998
    significant = adjust_p_values(found.p_value_all)[:, 0] <= 0.05
    assert abs(significant.sum() - hits) <= 0.01 * hits
    theirs = stats.false_discovery_control(table["edger_ql_pvalue"]) <= 0.05
    assert (significant & theirs).sum() > 0.95 * theirs.sum()
    efficiency = adjust_p_values(found.p_value)[:, 0] <= 0.05
    assert 0.98 * significant.sum() <= efficiency.sum() <= significant.sum()
