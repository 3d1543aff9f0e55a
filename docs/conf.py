"""How Sphinx builds the documentation: `make docs`, or Read the Docs."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

info = metadata("nbcompare")
project = info["Name"]
author = "The nbcompare developers"
project_copyright = author
release = version = info["Version"]
repository = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "scanpydoc.definition_list_typed_field",  # after napoleon
    "sphinx_autodoc_typehints",
    "scanpydoc.elegant_typehints",  # after sphinx_autodoc_typehints
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxcontrib.katex",
    "sphinxext.opengraph",
    "status_table",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
default_role = "literal"

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = True
typehints_defaults = "braces"
always_use_bars_union = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_url_schemes = ("http", "https", "mailto")
numfig = True  # equations are numbered by page, (3.2), and so are unique over the methods pages
nb_execution_mode = "off"  # the outputs are committed
suppress_warnings: list[str] = []

# Links into other projects need their inventories from the network, so they are made where a reader will see them.
# Elsewhere only links within this package are checked.
online = bool(os.environ.get("READTHEDOCS") or os.environ.get("NBCOMPARE_DOCS_ONLINE"))
intersphinx_mapping = {
    name: (url, None)
    for name, url in {
        "anndata": "https://anndata.readthedocs.io/en/stable/",
        "matplotlib": "https://matplotlib.org/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "pandas": "https://pandas.pydata.org/docs/",
        "python": "https://docs.python.org/3/",
        "scanpy": "https://scanpy.readthedocs.io/en/stable/",
        "scipy": "https://docs.scipy.org/doc/scipy/",
    }.items()
    if online
}
katex_options = "" if online else 'output: "mathml"'  # needs no style sheet from the network
nitpicky = True
nitpick_ignore_regex = [] if online else [("py:.*", r"(?!nbcompare\b).*")]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_theme_options = {
    "show_navbar_depth": 1,
}
ogp_site_url = repository
ogp_social_cards = {"enable": False}

# The tutorials live beside `docs`, and Sphinx sees only what is inside.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
if any((HERE.parent / "tutorials").glob("*.ipynb")):
    shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for notebook in (HERE / "tutorials").glob("*.ipynb"):  # their links work in a clone, where docs lies beside them
        notebook.write_text(notebook.read_text().replace("](../docs/", "](../"))
else:
    exclude_patterns.append("tutorials.md")
    suppress_warnings += ["toc.excluded", "toc.not_readable"]
