"""Shrunken effects and thresholds through the public call: what is stored, what stays, what is refused."""

import numpy as np
import pytest

from nbcompare import datasets, get, pl, tl
from nbcompare._nb.status import Status

COLUMNS = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate"}


@pytest.fixture(scope="module")
def cells():
    return datasets.simulate(n_genes=250, rng=0)


def compare(adata, **options):
    """The stored arrays by their words."""
    tl.nb_compare(adata, **COLUMNS, key_added="key", **options)
    return {name.removeprefix("key_"): adata.varm[name].copy() for name in adata.varm if name.startswith("key_")}


@pytest.mark.parametrize("options", [{}, {"test": "wald"}, {"method": "mle"}, {"design": "~ condition"}])
def test_shrinking_adds_and_changes_nothing(cells, options):
    plain = compare(cells, **options)
    shrunken_effects = compare(cells, **options, shrink=True)
    assert set(shrunken_effects) - set(plain) == {"lfc_shrunken", "lfc_shrunken_se", "lfsr", "svalue"}
    for word, values in plain.items():
        np.testing.assert_array_equal(shrunken_effects[word], values)
    tested = ~np.isnan(plain["pvals"])
    for word in ("lfc_shrunken", "lfc_shrunken_se", "lfsr", "svalue"):
        np.testing.assert_array_equal(~np.isnan(shrunken_effects[word]), tested)
    assert (np.abs(shrunken_effects["lfc_shrunken"][tested]) <= np.abs(plain["logfoldchanges"][tested]) + 1e-12).all()
    assert "lfsr" not in compare(cells, **options)  # an earlier call's are gone


def test_log_two_and_the_truth(cells):
    """Shrunken effects are nearer to the simulated truth."""
    stored = compare(cells, shrink=True)
    name = cells.uns["key"]["comparisons"][0]
    truth = np.asarray(cells.varm["true_logfoldchanges"])[:, 0] if "true_logfoldchanges" in cells.varm else None
    if truth is None:
        pytest.skip(f"no truth of {name} in the data")
    tested = ~np.isnan(stored["pvals"][:, 0])
    far = [np.square(stored[word][tested, 0] - truth[tested]).mean() for word in ("lfc_shrunken", "logfoldchanges")]
    assert far[0] < far[1]


@pytest.mark.parametrize("options", [{}, {"method": "mle"}, {"design": "~ condition"}, {"dispersion": "pair"}])
def test_thresholds(cells, options):
    """Larger p-values for larger changes, smaller for smaller; everything else as without a threshold."""
    plain = compare(cells, **options)
    large = compare(cells, **options, lfc_threshold=0.5)
    small = compare(cells, **options, lfc_threshold=0.5, alternative="less_abs")
    tested = ~np.isnan(plain["pvals"])
    changed = tested & (np.abs(plain["logfoldchanges"]) > 0.1)
    assert (large["pvals"][changed] >= plain["pvals"][changed]).all()
    assert (np.sign(large["scores"][changed]) == np.sign(plain["logfoldchanges"][changed])).mean() > 0.99
    assert (small["pvals"][tested] + large["pvals"][tested] > 0.5).all()
    for word in ("logfoldchanges", "lfc_se", "dispersions"):
        np.testing.assert_array_equal(large[word], plain[word])
        np.testing.assert_array_equal(small[word], plain[word])
    assert not (small["status"] & Status.OUTLIER_REPLICATE).any()
    certain = tested & (large["pvals_adj"] < 0.05)
    assert (np.abs(plain["logfoldchanges"][certain]) > 0.5).all()
    assert (np.abs(plain["logfoldchanges"][small["pvals_adj"] < 0.05]) < 0.5).all()


def test_one_replicate_carries_no_threshold():
    """Where the rule replaced the p-value against zero, that against a threshold is no smaller."""
    adata = datasets.simulate(n_genes=250, n_cells=60, rng=1)
    treated = (adata.obs["condition"] != "ctrl").to_numpy()
    first = (adata.obs["replicate"] == adata.obs["replicate"][treated].iloc[0]).to_numpy()
    counts = adata.X.toarray() if hasattr(adata.X, "toarray") else np.array(adata.X)
    counts[np.ix_(treated & first, np.arange(60))] = counts[np.ix_(treated & first, np.arange(60))] * 30 + 3
    adata.X = counts
    plain, large = compare(adata), compare(adata, lfc_threshold=0.3)
    on_one = (plain["status"] & Status.OUTLIER_REPLICATE) > 0
    assert on_one.any()
    assert (large["pvals"][on_one] >= plain["pvals"][on_one]).all()
    assert (large["pvals_unfiltered"] <= large["pvals"])[~np.isnan(large["pvals"])].all()


def test_shrinkage_is_that_of_the_test_against_zero(cells):
    one, other = compare(cells, shrink=True), compare(cells, shrink=True, lfc_threshold=1)
    np.testing.assert_array_equal(one["lfsr"], other["lfsr"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lfc_threshold": -1}, "from 0 to 30"),
        ({"lfc_threshold": np.nan}, "from 0 to 30"),
        ({"lfc_threshold": 100}, "a log2 fold change from 0 to 30 .1 stands for twofold"),
        ({"lfc_threshold": 1, "test": "wald"}, "lfc_threshold requires test='moderated'"),
        ({"alternative": "less_abs"}, "requires lfc_threshold"),
        ({"alternative": "two-sided"}, "'greater_abs', 'less_abs'"),
        ({"method": "quadrature", "shrink": True}, "shrink cannot be combined with"),
        ({"method": "quadrature", "lfc_threshold": 1}, "lfc_threshold cannot be combined with"),
    ],
)
def test_refusals(cells, options, words):
    before = set(cells.varm)
    with pytest.raises(ValueError, match=words):
        tl.nb_compare(cells, **COLUMNS, key_added="refused", **options)
    assert set(cells.varm) == before


def test_tables_and_figures(cells):
    compare(cells, shrink=True)
    name = cells.uns["key"]["comparisons"][0]
    table = get.nb_compare_df(cells, name, key="key")
    assert table.columns[-5:].tolist() == ["lfc_shrunken", "lfc_shrunken_se", "lfsr", "svalue", "status"]
    assert get.nb_compare_df(cells, name, key="key", style="deseq2").columns[-1] == "svalue"
    assert get.nb_compare_df(cells, name, key="key", style="pertpy").columns[-1] == "s_value"
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    ax = pl.volcano(cells, name, key="key", shrunken=True, n_top=0)
    assert ax.get_xlabel() == "shrunken log$_2$ fold change"
    ax = pl.ma(cells, name, key="key", shrunken=True, n_top=0)
    assert ax.get_ylabel() == "shrunken log$_2$ fold change"
    compare(cells)
    with pytest.raises(KeyError, match="shrink=True"):
        pl.ma(cells, name, key="key", shrunken=True)


def test_blocks_of_one_condition_are_named(paired):
    """A donor without control tells nothing: it is marked among the samples, and said."""
    idle = str(paired.obs["donor"].iloc[0])
    level = next(name for name in paired.obs["condition"].unique() if name != "ctrl")
    alone = (paired.obs["condition"] == "ctrl") & (paired.obs["donor"].astype(str) == idle)
    two = paired[paired.obs["condition"].isin(["ctrl", level]) & ~alone].copy()
    with pytest.warns(UserWarning, match=f"'{idle}', do not contribute"):
        tl.nb_compare(two, **COLUMNS, block_key="donor", key_added="key")
    samples = two.uns["key"]["samples"]
    assert samples.loc[~samples["informative_block"], "block"].unique().tolist() == [idle]
    assert np.isfinite(two.varm["key_pvals"]).any()
