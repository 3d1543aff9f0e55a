"""No file claims an organization, a registry entry, a badge or a forum that does not exist, and relative links lead somewhere."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CODE_OF_CONDUCT.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "methods").glob("*.md")),
]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
SETTINGS = [
    ROOT / "CITATION.cff",
    ROOT / "pyproject.toml",
    ROOT / "docs" / "conf.py",
    *sorted((ROOT / ".github").rglob("*.y*ml")),
]
CLAIMS = re.compile(
    r"scverse/nbcompare|nbcompare\.readthedocs|discourse\.scverse|shields\.io|pypi\.org/(p|project)/nbcompare|pypi-publish"
    r"|scverse code of conduct|pip install [\"']?nbcompare|conda install"
)


def _text(path: Path) -> str:
    """The text of a page; of a notebook that of its cells of text."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS, *SETTINGS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_claims_what_does_not_exist(path):
    assert [found.group() for found in CLAIMS.finditer(_text(path))] == []


def test_the_address_of_the_repository_stands_once():
    (address,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"].values()
    assert [path.name for path in [*PAGES, *NOTEBOOKS, *SETTINGS] if address in _text(path)] == ["pyproject.toml"]


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files(path):
    links = re.findall(
        r"\]\((?!https?:|mailto:|#|attachment:)([^)\s#]+)",
        re.sub(r"```.*?```|`[^`\n]*`", "", _text(path), flags=re.DOTALL),
    )
    assert [link for link in links if not (path.parent / link).exists()] == []


NAMED_SCRIPT = re.compile(r"benchmarks/[\w/]+\.(?:py|md)")


@pytest.mark.parametrize(
    "path", [*PAGES, *NOTEBOOKS, ROOT / "CHANGELOG.md"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_scripts_that_are_named_exist(path: Path) -> None:
    missing = [name for name in NAMED_SCRIPT.findall(path.read_text()) if not (ROOT / name).is_file()]
    assert not missing
