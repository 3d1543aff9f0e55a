"""Bad input is refused with the right class and a message that helps, and nothing is written."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbcompare import pp, tl

few = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

REFUSED = {
    "no such condition column": ({"groupby": "conditoin"}, KeyError, "no column 'conditoin'.*Did you mean 'condition'"),
    "no such replicate column": ({"replicate_key": "donor"}, KeyError, "no column 'donor'"),
    "no such block column": ({"block_key": "batch"}, KeyError, "no column 'batch'"),
    "no such layer": ({"layer": "count"}, KeyError, "no layer 'count'"),
    "no such reference": (
        {"reference": "Ctrl"},
        ValueError,
        "no group 'Ctrl' to be the reference. Did you mean 'ctrl'",
    ),
    "no reference": (
        {"reference": None},
        ValueError,
        "reference is required. Available groups: 'ctrl', 'a/b', 'c' .or 'rest'.",
    ),
    "no such group": ({"groups": ["a/b", "d"]}, ValueError, "no group 'd' to compare"),
    "only the reference": ({"groups": ["ctrl"]}, ValueError, "nothing to compare with the reference 'ctrl'"),
    "no groups": ({"groups": []}, ValueError, "nothing to compare"),
    "cells as replicates": (
        {"replicate_key": None},
        ValueError,
        "look like cells.*replicate_key.*allow_cells_as_replicates=True",
    ),
    "replicates are conditions": ({"replicate_key": "condition"}, ValueError, "both 'condition'"),
    "scaled layer": (
        {"layer": "scaled"},
        ValueError,
        r"adata.layers\['scaled'\].*fractional.*adata.X holds whole numbers",
    ),
    "method": ({"method": "glm"}, ValueError, "method is 'glm', but must be one of 'mom', 'mle'"),
    "test": ({"test": "t-test"}, ValueError, "test is 't-test', but must be one of 'moderated', 'wald', 'lrt'"),
    "dispersion": ({"dispersion": "none"}, ValueError, "dispersion is 'none', but must be one of 'all', 'pair'"),
    "blocks and wald": (
        {"block_key": "replicate", "test": "wald"},
        ValueError,
        "block_key cannot be combined with test='wald'",
    ),
    "blocks and likelihood": (
        {"block_key": "replicate", "method": "mle"},
        ValueError,
        "block_key cannot be combined with.*method='mom'",
    ),
    "adjusted moments": ({"cox_reid": True}, ValueError, "cox_reid requires method='mle'"),
    "pairs and wald": ({"dispersion": "pair", "test": "wald"}, ValueError, "dispersion='pair'"),
    "conditions as blocks": ({"block_key": "condition"}, ValueError, "confounded.*Leave block_key out"),
    "replicates as blocks": ({"block_key": "replicate"}, ValueError, "No block holds samples of both groups"),
    "cells differ in block": (
        {"block_key": "batch_of_cell"},
        ValueError,
        "several values within.*add the column to replicate_key",
    ),
    "size factors": ({"size_factors": "deseq"}, KeyError, "neither a method .* nor a column"),
    "size factors of cells": ({"size_factors": "cell_number"}, ValueError, "not one number within each sample"),
    "text as size factors": ({"size_factors": "word"}, ValueError, "but size factors are numbers"),
    "missing size factors": ({"size_factors": "missing"}, ValueError, "must be finite and above 0"),
    "an array for cells": ({"size_factors": np.ones(3)}, ValueError, r"shape \(3,\).*pp.pseudobulk"),
    "one size factor": ({"size_factors": 2.0}, ValueError, r"shape \(\)"),
    "slash in the key": ({"key_added": "a/b"}, ValueError, "key_added is 'a/b'.*slash"),
    "empty key": ({"key_added": ""}, ValueError, "key_added is empty"),
    "negative min_gene_counts": ({"min_gene_counts": -1}, ValueError, "min_gene_counts is -1.*0 or more"),
    "min_gene_counts is not a number": ({"min_gene_counts": np.nan}, ValueError, "min_gene_counts is nan"),
    "all samples too small": ({"min_cells": 10_000}, ValueError, "None of the 9 samples has 10000 cells"),
}


def with_odd_columns(cells):
    cells.obs["cell_number"] = np.arange(cells.n_obs) + 1.0
    cells.obs["batch_of_cell"] = np.where(np.arange(cells.n_obs) % 2, "x", "y")
    cells.obs["word"] = "deep"
    cells.obs["missing"] = np.nan
    return cells


@pytest.mark.parametrize("name", REFUSED)
def test_refused(cells, unchanged, name):
    options, error, message = REFUSED[name]
    cells = with_odd_columns(cells)
    arguments = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate"} | options
    before = cells.copy()
    with pytest.raises(error) as caught:
        tl.nb_compare(cells, arguments.pop("groupby"), **arguments)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    unchanged(cells, before)


@pytest.mark.parametrize("bad", [-1.0, 0.5, np.nan, np.inf])
def test_what_are_not_counts(cells, unchanged, bad):
    cells.X = cells.X.astype(np.float64)
    cells.X.data[17] = bad
    cells.layers["counts"] = np.ones(cells.shape)
    before = cells.copy()
    with pytest.raises(
        ValueError, match=r"adata\.X .*Raw counts are needed\. adata\.layers\['counts'\] holds whole numbers"
    ):
        tl.nb_compare(cells, "condition", reference="ctrl", replicate_key="replicate")
    np.testing.assert_array_equal(cells.X.data, before.X.data)
    assert set(cells.varm) == set(before.varm)
    assert "nb_compare" not in cells.uns


def test_a_reference_without_samples(cells, unchanged):
    few_controls = cells[(cells.obs["condition"] != "ctrl") | (np.arange(cells.n_obs) % 12 == 0)].copy()
    before = few_controls.copy()
    with pytest.raises(
        ValueError, match=r"No sample of the reference 'ctrl' is left: fewer than 10 cells\. Lower min_cells"
    ):
        tl.nb_compare(few_controls, "condition", reference="ctrl", replicate_key="replicate")
    unchanged(few_controls, before)


def test_one_replicate_everywhere(cells, unchanged):
    """No test can tell an effect from chance; the message says so, and how many samples were dropped."""
    first = cells[cells.obs["replicate"].isin(["ctrl_1", "treated_1_1", "treated_2_1"])].copy()
    before = first.copy()
    for test in ("moderated", "wald"):
        with pytest.raises(
            ValueError, match="Each of the 3 groups has one replicate.*two or more biological replicates"
        ):
            tl.nb_compare(first, "condition", reference="ctrl", replicate_key="replicate", test=test)
    unchanged(first, before)
    few_cells = cells[
        cells.obs["replicate"].isin(["ctrl_1", "treated_1_1", "treated_2_1"]) | (np.arange(cells.n_obs) % 4 == 0)
    ].copy()
    with pytest.raises(ValueError, match="one replicate.*6 samples were dropped"):
        tl.nb_compare(few_cells, "condition", reference="ctrl", replicate_key="replicate", min_cells=11)


def test_blocks_that_use_up_everything(samples):
    counts = np.random.default_rng(0).poisson(50, (4, 40))
    adata = samples(counts, ["ctrl", "ctrl", "t", "t"], batch=["x", "y", "x", "z"])
    with pytest.raises(ValueError, match="leave no residual degrees of freedom"):
        tl.nb_compare(adata, "condition", reference="ctrl", block_key="batch")


def test_a_group_called_rest(cells):
    cells.obs["condition"] = cells.obs["condition"].cat.rename_categories({"c": "rest"})
    with pytest.raises(ValueError, match="a group is called 'rest' as well"):
        tl.nb_compare(cells, "condition", reference="rest", replicate_key="replicate")
    tl.nb_compare(cells, "condition", reference="ctrl", replicate_key="replicate")
    assert "rest" in cells.uns["nb_compare"]["comparisons"]


def test_one_condition_only(cells):
    controls = cells[cells.obs["condition"] == "ctrl"].copy()
    with pytest.raises(ValueError, match="nothing to compare"):
        tl.nb_compare(controls, "condition", reference="ctrl", replicate_key="replicate")
    with pytest.raises(ValueError, match="nothing to compare"):
        tl.nb_compare(controls, "condition", reference="rest", replicate_key="replicate")


def test_a_copy_of_a_file_is_refused_before_any_work(cells, tmp_path):
    import anndata as ad

    cells.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(ValueError, match="copy=True cannot copy a matrix that lies in a file"):
        tl.nb_compare(backed, "condition", reference="ctrl", replicate_key="replicate", copy=True)
    backed.file.close()


def test_size_factors_of_the_wrong_length(cells):
    pdata = pp.pseudobulk(cells, "condition", replicate_key="replicate")
    for values in (np.ones(8), np.ones((9, 1))):
        with pytest.raises(ValueError, match="one for each of the 9 rows"):
            tl.nb_compare(pdata, "condition", reference="ctrl", size_factors=values)
    for values in (np.zeros(9), np.full(9, np.nan), -np.ones(9)):
        with pytest.raises(ValueError, match="finite and above 0"):
            tl.nb_compare(pdata, "condition", reference="ctrl", size_factors=values)


def test_cells_may_be_replicates_if_the_user_insists(cells):
    tl.nb_compare(cells, "condition", reference="ctrl", allow_cells_as_replicates=True)
    assert len(cells.uns["nb_compare"]["samples"]) == cells.n_obs
    assert cells.uns["nb_compare"]["params"]["allow_cells_as_replicates"] is True


CHOICES: dict[str, list[object]] = {
    "groupby": ["condition", "replicate", "nothing", ["condition", "batch_of_cell"]],
    "reference": ["ctrl", "a/b", "rest", "nothing", 5],
    "groups": ["all", ["c"], ["c", "ctrl"], [], "nothing", ("a/b",)],
    "replicate_key": ["replicate", None, "condition", "batch_of_cell", ["replicate", "batch_of_cell"]],
    "block_key": [None, None, None, "replicate", "batch_of_cell", "condition"],
    "method": ["mom", "mle", "nothing"],
    "test": ["moderated", "wald", "lrt", "nothing"],
    "layer": [None, None, "scaled", "nothing"],
    "size_factors": ["auto", "total", "poscounts", "tmm", "cell_number", "word", [1.0, 2.0]],
    "dispersion": ["all", "pair"],
    "cox_reid": [False, True],
    "min_cells": [0, 10, 24, 1000],
    "min_counts": [0, 3000, 1e9],
    "min_gene_counts": [0, 10, 1e9, -1],
    "allow_cells_as_replicates": [False, True],
    "key_added": ["nb_compare", "x", "a/b"],
}


@few
@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CHOICES.items()}))
def test_any_call_works_or_says_why(cells, unchanged, options):
    """KeyError or ValueError with a sentence, and nothing written; or all that was promised. Warnings are those that are documented."""
    cells = with_odd_columns(cells[:, :40].copy())
    before = cells.copy()
    arguments = {"groupby": "condition", "reference": "ctrl", "replicate_key": "replicate"} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tl.nb_compare(cells, arguments.pop("groupby"), **arguments)
        except (KeyError, ValueError) as error:
            refusal = str(error)
        else:
            refusal = None
    if refusal:
        assert len(refusal) > 40, refusal
        unchanged(cells, before)
        return
    key = arguments.get("key_added", "nb_compare")
    p, adjusted, status = (cells.varm[f"{key}_{word}"] for word in ("pvals", "pvals_adj", "status"))
    assert p.shape == (40, len(cells.uns[key]["comparisons"]))
    np.testing.assert_array_equal(np.isnan(p), (status & 255) > 0)
    assert (adjusted[~np.isnan(p)] >= p[~np.isnan(p)]).all()
    for warning in caught:
        assert re.match("Every replicate in|No sample of", str(warning.message)), warning.message
