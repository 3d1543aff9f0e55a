"""Comparisons whose groups share no block but are linked through others: one warning that offers the design to type."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nbcompare import tl

CHAIN = ([0, 2, 0, 2, 2, 3, 2, 3, 3, 1, 3, 1], np.repeat(range(6), 2))
COMPLETE = ([0, 1, 2] * 4, np.repeat(range(4), 3))


def samples(group, block, columns, n_genes=60):
    """Pseudobulk samples whose group and block are in these columns."""
    counts = np.random.default_rng(0).negative_binomial(10, 0.1, (len(group), n_genes)).astype(float)
    labels = [[f"c{k}" for k in group], [f"b{k}" for k in block]]
    obs = pd.DataFrame(dict(zip(columns, labels, strict=True)), index=[f"s{i}" for i in range(len(group))])
    return AnnData(counts, obs=obs)


def said(adata, columns, **options):
    """Warnings of a comparison with blocks that speak of a design."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tl.nb_compare(adata, columns[0], reference="c0", block_key=columns[1], **options)
    return [str(warning.message) for warning in caught if "design=" in str(warning.message)]


@pytest.mark.parametrize("columns", [("condition", "donor"), ("treatment", "my donor")])
def test_a_chain_of_blocks_is_sent_to_a_design(columns):
    """The formula in the message runs as it stands, and names the user's columns; groups that share a block are not named."""
    adata = samples(*CHAIN, columns)
    (message,) = said(adata, columns)
    assert "'c1', 'c3'" in message
    assert "'c2'" not in message
    formula = re.search(r"design='([^']+)'", message)[1]
    tl.nb_compare(adata, columns[0], reference="c0", design=formula)
    assert np.isfinite(adata.varm["nb_compare_pvals"]).mean() > 0.9


def test_only_comparisons_that_are_made_count():
    assert not said(samples(*CHAIN, ("condition", "donor")), ("condition", "donor"), groups=["c2"])


def test_complete_blocks_say_nothing():
    assert not said(samples(*COMPLETE, ("condition", "donor")), ("condition", "donor"))


def test_blocks_of_cell_types():
    """Each split has its own samples; what is linked in any of them is named once."""
    both = [np.concatenate([a, b]) for a, b in zip(CHAIN, COMPLETE, strict=True)]
    adata = samples(*both, ("condition", "donor"))
    adata.obs["cell_type"] = ["T"] * 12 + ["B"] * 12
    (message,) = said(adata, ("condition", "donor"), split_by="cell_type")
    assert "'c1', 'c3'" in message
