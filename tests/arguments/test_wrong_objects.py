"""A path or another object in place of results: the message says what was given and what to pass."""

from __future__ import annotations

import pytest

import nbcompare as nb


@pytest.mark.parametrize("wrong", ["cells.h5ad", None, 3])
def test_tables_of_what_is_no_anndata(wrong):
    with pytest.raises(TypeError, match="adata is .*, but must be an AnnData"):
        nb.get.nb_compare_df(wrong)
    with pytest.raises(TypeError, match="screen is .*, but must be an AnnData"):
        nb.get.nb_screen_df(wrong)


def test_a_path_is_given_how_to_be_read():
    with pytest.raises(TypeError, match=r"anndata.read_h5ad"):
        nb.get.nb_compare_df("cells.h5ad")
