"""How certain the dispersion of a gene in a design is: degrees of freedom against formulas, and null p-values far out in the tail."""

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nbcompare._nb.dispersion.trend import prior_degrees
from nbcompare._nb.glm.compare import design_tests
from nbcompare._nb.glm.fit.design import design_matrices


def pairs(n):
    return np.column_stack([np.eye(n)[np.repeat(np.arange(n), 2)], np.tile([0.0, 1], n)])


def null_counts(rng, design, n_genes, log_dispersion_var, low=2.0, high=500.0, effect=0.3):
    """Counts without a difference in the last column; log dispersions around .05 with this variance."""
    mean = np.exp(rng.uniform(np.log(low), np.log(high), n_genes))
    phi = 0.05 * np.exp(rng.normal(0, np.sqrt(log_dispersion_var), n_genes))[:, None]
    exposure = np.exp(0.3 * rng.normal(size=len(design)))
    nuisance = rng.normal(0, effect, (n_genes, design.shape[1] - 1))
    m = mean[:, None] * exposure * np.exp(nuisance @ design[:, :-1].T)
    return rng.poisson(m * rng.gamma(1 / phi, phi, m.shape)).astype(float), np.log(exposure)[None]


def last(design):
    return np.eye(design.shape[1])[-1]


def test_a_gene_whose_counts_lie_in_one_sample_has_few_degrees_of_freedom():
    """89 of 92 counts in one sample: its own fit follows that sample, and once said 224 degrees of freedom."""
    rng = np.random.default_rng(0)
    group = np.repeat([0.0, 1], 8)
    covariates = rng.normal(size=(16, 2))
    counts, offset = null_counts(rng, np.column_stack([np.ones(16), group]), 3000, 0.25)
    counts[0] = [0, 0, 0, 89, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    design = np.column_stack([np.ones(16), covariates, group])
    found = design_tests(counts, offset, design, [last(design)])
    mean = counts.mean(axis=1)
    trend = found.trend.at(mean)
    m = mean[:, None] * np.exp(offset) / np.exp(offset).mean()
    prior = prior_degrees(found.trend.log_dispersion_var * (trend * (m / (1 + trend[:, None] * m)).mean(axis=1)) ** 2)[
        0
    ]
    assert found.degrees[0] < prior[0] + 12
    assert (found.degrees <= prior + 12 * 1.5).all()  # the prior's at the pooled mean, and no more than the residuals


def test_an_almost_empty_group_does_not_make_the_dispersion_known():
    """3 counts in 8 samples of one group and 2,447 in the other: p was 1e-180, by a t with 2,293 degrees of freedom."""
    rng = np.random.default_rng(1)
    design = pairs(8)
    counts, offset = null_counts(rng, design, 3000, 1.8)
    counts[0, ::2] = [0, 1, 0, 0, 2, 0, 0, 0]
    counts[0, 1::2] = [310, 250, 402, 180, 333, 290, 360, 322]
    found = design_tests(counts, offset, design, [last(design)])
    assert 1e-18 < found.p_value[0, 0] < 1e-3
    assert found.degrees[0] < 20


@pytest.mark.parametrize("spread", [0.0, 2.5])
def test_degrees_of_a_contrast_are_those_of_the_formula(spread):
    """P-values of Wald tests tell their t's degrees: (d0 + q^2 d) / max(1, wc / wbar) from inverse matrices."""
    rng = np.random.default_rng(2)
    kind, treated, batch = np.repeat(np.arange(4), 8), np.tile(np.repeat([0, 1], 4), 4), np.tile([0, 1], 16)
    own = kind[:, None] == np.arange(4)
    design = np.column_stack([own, own * treated[:, None], batch]).astype(float)
    mean = np.exp(rng.uniform(3, 5, 400))[:, None] * np.exp(spread * rng.standard_normal((400, 4)))[:, kind]
    counts = rng.poisson(mean * rng.gamma(10, 0.1, mean.shape)).astype(float)
    contrast = np.eye(9)[4]
    found = design_tests(counts, np.zeros((1, 32)), design, [contrast], test="wald")
    matrices = design_matrices(design, [contrast])
    x = matrices.rows[1]
    fitted = np.exp(found.coefficients @ design.T)
    phi = found.dispersion[:, None]
    weight = fitted / (1 + phi * fitted)
    influence = np.linalg.inv(np.einsum("gn,np,nq->gpq", weight, x, x))[:, :, -1] @ x.T * weight
    at_contrast = (influence**2).sum(axis=1) / (influence**2 / weight).sum(axis=1)
    wald = np.abs(found.log_fc[:, 0] / found.se[:, 0])
    divided = np.maximum(at_contrast / weight.mean(axis=1), 1)
    p = 2 * stats.t.sf(wald, found.degrees / divided)
    informative = wald > 0.5
    if spread == 0:  # the same means under the null, q = 1, but for noise
        np.testing.assert_allclose(np.log(found.p_value[informative, 0]), np.log(p[informative]), atol=0.02, rtol=0.02)
    else:
        assert (divided > 1.2).mean() > 0.2
        close = np.abs(np.log(found.p_value[informative, 0]) - np.log(p[informative])) < 0.05 * np.abs(
            np.log(p[informative])
        )
        assert close.mean() > 0.7  # the others have q below one under the null
        without = 2 * stats.t.sf(wald, found.degrees)
        assert np.mean(without[informative] < found.p_value[informative, 0] * 1.001) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "log_dispersion_var"),
    [
        (pairs(4), 1.82),
        (pairs(8), 1.0),
        (np.column_stack([np.ones(16), np.random.default_rng(4).normal(size=(16, 2)), np.repeat([0.0, 1], 8)]), 1.82),
    ],
)
def test_far_tail_of_null_p_values(design, log_dispersion_var):
    """120,000 genes of very unequal dispersions: 1e-4 within .6-1.5 of nominal, no p below 1e-8 (it was 1e-24)."""
    p = []
    for seed in range(2):
        rng = np.random.default_rng([seed, 77])
        counts, offset = null_counts(rng, design, 60_000, log_dispersion_var)
        p.append(design_tests(counts, offset, design, [last(design)], level=design[:, -1]).p_value[:, 0])
    p = np.concatenate(p)
    p = p[np.isfinite(p)]
    assert p.min() > 1e-8
    for level, most in ((0.05, 1.12), (0.01, 1.15), (0.001, 1.4), (1e-4, 2.0)):
        assert (p < level).sum() <= most * level * len(p)
    assert (p < 0.01).mean() > 0.008


def test_paired_monocytes_are_no_more_certain_than_by_edger(shared):
    """Kang CD14+ monocytes of 8 donors: -log10 p at most twice that of edgeR's quasi-likelihood; CXCL11 had 216 to its 18."""
    folder = shared / "data"
    anndata = pytest.importorskip("anndata")
    cells = anndata.read_h5ad(folder / "kang2018_pbmc_8donors.h5ad")
    cells = cells[cells.obs["cell_type"].astype(str).str.contains("CD14")]
    key = cells.obs["donor"].astype(str) + "|" + cells.obs["condition"].astype(str)
    codes, names = pd.factorize(key, sort=True)
    sums = np.stack([np.asarray(cells.X[codes == i].sum(axis=0)).ravel() for i in range(len(names))], axis=1)
    table = pd.read_csv(folder / "r_reference" / "kang_mono_de.csv.gz")
    table = table.set_index(table.columns[0])
    both = [name for name in cells.var_names if name in table.index]
    counts = pd.DataFrame(sums, index=cells.var_names).loc[both].to_numpy(float)
    parts = pd.read_csv(StringIO("\n".join(names)), sep="|", header=None, names=["donor", "condition"], dtype=str)
    design = np.column_stack([pd.get_dummies(parts["donor"]).to_numpy(float), parts["condition"] == "stim"]).astype(
        float
    )
    positive = counts[(counts > 0).all(axis=1)]
    ratio = np.median(np.log(positive) - np.log(positive).mean(axis=1, keepdims=True), axis=0)
    found = design_tests(counts, ratio[None], design, [last(design)])
    edger = table.loc[both, "edger_ql_pvalue"].to_numpy(float)
    p = found.p_value[:, 0]
    strong = np.isfinite(p) & np.isfinite(edger) & (p < 1e-4)
    assert strong.sum() > 200
    assert (np.log10(p[strong]) / np.log10(edger[strong])).max() < 2.1
