"""The page on designs: its examples run, and what it says of errors and names is so."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from nbcompare import datasets, tl

PAGE = (Path(__file__).parents[2] / "docs" / "designs.md").read_text()


@pytest.fixture(scope="module")
def adata():
    """The data of the page, after all its examples have run."""
    mpl.use("Agg")
    variables: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "designs.md", "exec"), variables)
    plt.close("all")
    return variables["adata"]


def test_contrasts_are_called_as_the_page_says(adata):
    table = PAGE.split("| `contrast=` | tests | name of the result |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    checked = 0
    for requested, _, called in rows:
        contrast = re.search(r"`(.*)`", requested)
        name = re.fullmatch(r"`(.*)` \|", called)
        if contrast is None or name is None or "..." in requested or requested.startswith("| `[0"):
            continue
        names = name[1].split("`, `")
        tl.nb_compare(
            adata,
            "condition",
            reference="ctrl",
            replicate_key="donor",
            design="~ condition * sex + I(age)",
            contrast=eval(contrast[1]),
            key_added="x",
        )
        assert adata.uns["x"]["comparisons"].tolist() == names
        checked += 1
    assert checked == 7


def test_formulas_of_the_page_are_formulas(adata):
    table = PAGE.split("| formula | fits |")[1].split("\n\n")[0]
    formulas = re.findall(r"`` (.*?) ``|`(~ .*?)`", table)
    adata = adata.copy()
    obs = adata.obs
    donor = obs["donor"].astype(str).str[-1].astype(int)
    obs["batch"], obs["plate"], obs["cell line"] = donor % 3 > 0, donor % 3, (donor > 3).map({True: "a", False: "b"})
    obs["dose"], obs["minute"] = donor + 1.0, donor**2.0
    for formula in [quoted or plain for quoted, plain in formulas]:
        contrast = None if "condition" in formula else formula.split("~ ")[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an interaction is compared at its first level
            tl.nb_compare(
                adata,
                "condition",
                reference="ctrl",
                replicate_key="donor",
                design=formula,
                contrast=contrast,
                key_added="x",
            )
        assert adata.uns["x"]["design"]["formula"] == formula
    assert len(formulas) > 10


def test_words_of_errors_are_those_of_the_page():
    adata = datasets.simulate(n_genes=20, n_cells=20, rng=0)
    for phrase, design in {
        "'replicate' is nested in 'condition'": "~ replicate + condition",
        "6 coefficients for 6 samples": "~ replicate",
    }.items():
        with pytest.raises(ValueError, match=phrase):
            tl.nb_compare(
                adata, "condition", replicate_key="replicate", design=design, contrast="replicate", min_cells=1
            )
