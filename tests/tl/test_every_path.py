"""What every way of asking for a comparison has in common: the same p-values where the question is the same, scores that match, reasons."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from nbcompare import tl
from nbcompare._nb.status import NOT_TESTED, Status

FOLD = 1.2
CALLS = {
    "plain": {},
    "pair": {"dispersion": "pair"},
    "rest": {"reference": "rest"},
    "blocks": {"block_key": "batch"},
    "design": {"design": "~ condition"},
    "covariate": {"design": "~ condition + batch"},
    "ql": {"design": "~ condition + batch", "test": "ql"},
    "joint": {"design": "~ condition", "contrast": "condition"},
    "wald": {"test": "wald"},
    "lrt": {"test": "lrt", "method": "mle"},
    "mle": {"method": "mle"},
    "larger": {"lfc_threshold": 0.5},
    "smaller": {"lfc_threshold": 3, "alternative": "less_abs"},
}


def counts_of(sizes, ratios, *, seed=0, n_genes=1500, sparse=0.2):
    """Samples x genes, a fifth of the genes rare, some with an outlying replicate, the groups' dispersions multiplied."""
    rng = np.random.default_rng(seed)
    names = [f"g{k}" for k in range(len(sizes))]
    group = np.repeat(np.arange(len(sizes)), sizes)
    depth = rng.lognormal(0, 0.3, len(group))
    mean = np.exp(rng.uniform(np.log(3), np.log(2000), n_genes))
    mean[: int(sparse * n_genes)] = rng.uniform(0.05, 2, int(sparse * n_genes))
    change = np.where(rng.random(n_genes) < 0.1, rng.normal(0, FOLD, n_genes), 0)
    phi = 0.05 * np.array(ratios)[group][:, None]
    m = depth[:, None] * mean * np.exp(np.outer(group == 1, change))
    y = rng.negative_binomial(1 / phi, 1 / (1 + phi * m)).astype(float)
    y[0, ::40] *= 10
    y[group == 1, 7] = 0
    obs = pd.DataFrame(
        {
            "condition": np.array(names)[group],
            "batch": [f"b{i % 2}" for i in range(len(group))],
            "depth": depth,
        },
        index=[f"s{i}" for i in range(len(group))],
    )
    return AnnData(y, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]))


def compare(adata, **options):
    tl.nb_compare(adata, "condition", **{"reference": "g0", "size_factors": "depth"} | options)
    return {
        name.removeprefix("nb_compare_"): np.array(values)
        for name, values in adata.varm.items()
        if name.startswith("nb_compare_")
    }


@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [
        ((4, 4, 4), (4, 1, 1)),
        ((4, 4, 4), (1, 4, 1)),
        ((3, 12), (4, 1)),
        ((12, 3), (1, 3)),
        ((8, 3, 3, 3), (2, 1, 1, 1)),
        ((4, 4), (1, 1)),
    ],
)
def test_paths_give_the_same_p_values_with_a_high_dispersion_group(sizes, ratios):
    """Plain call, screen and `~ condition` are one question: p to 1e-6, dispersions and effects too."""
    adata = counts_of(sizes, ratios)
    plain = compare(adata)
    high_dispersion = adata.uns["nb_compare"]["trend"]["dispersion_ratio"].max()
    assert high_dispersion == pytest.approx(max(ratios), rel=0.3)
    design = compare(adata, design="~ condition")
    screen = tl.nb_screen(
        adata, "condition", reference="g0", size_factors="depth", progress=False, dtype="float64", n_jobs=1
    )
    for word in ("pvals", "scores", "logfoldchanges", "lfc_se", "dispersions"):
        np.testing.assert_allclose(screen.layers[word].T, plain[word], rtol=1e-6, atol=1e-9, err_msg=f"screen {word}")
        np.testing.assert_allclose(design[word], plain[word], rtol=1e-6, atol=1e-9, err_msg=f"design {word}")
    np.testing.assert_array_equal(screen.layers["status"].T, plain["status"])
    np.testing.assert_array_equal(design["status"], plain["status"])
    assert ((plain["status"] & Status.HIGH_DISPERSION_GROUP) > 0).any() == (max(ratios) > 1)


@pytest.mark.parametrize("name", list(CALLS))
def test_scores_are_those_of_the_p_values_and_missing_ones_have_a_reason(name):
    """p = 2 (1 - Phi(|score|)) in every gene, also with an empty group and with one replicate left out; NaN implies a status."""
    found = compare(counts_of((4, 4, 4), (1, 1, 1), seed=1), **CALLS[name])
    p, scores, status = found["pvals"], found["scores"], found["status"]
    tested = (status & NOT_TESTED) == 0
    np.testing.assert_array_equal(np.isfinite(p), tested)
    np.testing.assert_array_equal(np.isfinite(scores), tested)
    assert tested.mean() > 0.5
    np.testing.assert_allclose(2 * stats.norm.sf(np.abs(scores[tested])), p[tested], rtol=1e-6, atol=1e-300)
    if name in ("plain", "design", "blocks", "covariate"):
        assert ((status & Status.ZERO_GROUP) > 0).any()
        assert ((status & Status.OUTLIER_REPLICATE) > 0).any()


@pytest.mark.parametrize("size_factors", [1e-150, 1e150])
@pytest.mark.parametrize("options", [{}, {"reference": "rest"}, {"dispersion": "pair"}], ids=str)
def test_extreme_size_factors_leave_no_missing_value_without_a_reason(size_factors, options):
    adata = counts_of((3, 3, 3), (1, 1, 1), n_genes=200)
    adata.obs["depth"] = np.where(adata.obs["condition"] == "g1", size_factors, 1.0)
    found = compare(adata, **options)
    np.testing.assert_array_equal(np.isfinite(found["pvals"]), (found["status"] & NOT_TESTED) == 0)
