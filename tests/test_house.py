"""The layout of the package (docs/architecture.md): layers of the statistics, no circles, small folders."""

from __future__ import annotations

import ast
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

import nbcompare

SOURCE = Path(nbcompare.__file__).parent
TESTS = Path(__file__).parent
ARCHITECTURE = TESTS.parent / "docs" / "architecture.md"
MOST_FILES = 14  # in a folder; figures have one file each and no limit
FILES = sorted(SOURCE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """The modules of this package that a file imports, at its top, inside functions and for types."""
    package = ["nbcompare", *path.relative_to(SOURCE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = ".".join(
                (package[: len(package) - node.level + 1] if node.level else [])
                + ([node.module] if node.module else [])
            )
            found |= {name for alias in node.names if (name := _module(f"{base}.{alias.name}") or _module(base))}
    return frozenset(found)


def _module(name: str) -> str | None:
    path = SOURCE.parent.joinpath(*name.split("."))
    is_ours = name.split(".")[0] == "nbcompare" and (path.with_suffix(".py").is_file() or path.is_dir())
    return name if is_ours else None


def layers() -> dict[str, set[str]]:
    """Of each part of `_nb` the parts that it may import, from the table in docs/architecture.md."""
    section = ARCHITECTURE.read_text().split("### Layers of the statistics")[1].split("\n#")[0]
    rows = re.findall(r"^\| *(`[^|]*`) *\|([^|]*)\|", section, flags=re.MULTILINE)
    return {part: set(re.findall(r"`(\w+)`", may)) for cell, may in rows for part in re.findall(r"`(\w+)`", cell)}


def part_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["nbcompare", "_nb"] and len(parts) > 2 else None


@pytest.mark.parametrize("path", sorted((SOURCE / "_nb").rglob("*.py")), ids=module_of)
def test_layers(path):
    """A file of the statistics imports only from its own part and from those that the table allows."""
    part = part_of(module_of(path))
    if part is None:
        return
    may = layers()[part]
    wrong = {name for name in imports_of(path) if part_of(name) not in {part, None, *may}}
    assert not wrong, f"`{part}` must not import {sorted(wrong)}"


def test_every_part_has_a_layer():
    assert set(layers()) == {part for path in FILES if (part := part_of(module_of(path)))}


def test_layers_have_an_order():
    """No two parts may import each other, directly or through others."""
    left = layers()
    while left:
        free = [part for part, may in left.items() if not may & set(left)]
        assert free, f"these parts import each other: {sorted(left)}"
        for part in free:
            del left[part]


def test_no_circles():
    """No file imports itself through others, imports inside functions and for types included."""
    graph = {module_of(path): set(imports_of(path)) - {module_of(path)} for path in FILES if path.name != "__init__.py"}
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    while graph:
        free = [name for name, others in graph.items() if not others & set(graph)]
        if not free:
            break
        for name in free:
            del graph[name]
    in_circle = {name for name in graph if _reaches(graph, name, name)}
    assert not in_circle, f"files that import each other: {sorted(in_circle)}"


def _reaches(graph: dict[str, set[str]], start: str, goal: str) -> bool:
    seen, waiting = set(), list(graph[start])
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name in graph and name not in seen:
            seen.add(name)
            waiting += graph[name]
    return False


@pytest.mark.parametrize(
    "folder",
    [folder for folder in FOLDERS if folder.name != "pl"],
    ids=lambda folder: folder.relative_to(SOURCE.parent).as_posix(),
)
def test_folder_size(folder):
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= MOST_FILES, f"{folder.name} has {len(files)} files"


RETIRED = set(
    "anchor anchors anchored arm arms branchless calm lane lanes lattice lend lender lenders lending lends lent noise noisy piece pieces "
    "questioned scatter scatters tell telling tells told vouch wild".split()
)
OTHERS_WORDS = {  # names that others gave, and the lanes of a sequencer
    "bbox_to_anchor",
    "scatter",
    "MOST_LANES",
    "lanes",
    "test_lanes_are_summed",
}
OF_OTHERS = re.compile(r"pl/|tests/pl/|dask|_anndata/rows|test_rows|benchmarks/figures/")  # where they stand


def names_of(path: Path) -> set[str]:
    with path.open("rb") as file:
        return {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}


def test_words():
    """No identifier has a word that the field does not use (docs/architecture.md, Words)."""
    root = TESTS.parent
    found = {
        f"{path.relative_to(root)}: {name}"
        for folder in ("src", "tests", "benchmarks")
        for path in (root / folder).rglob("*.py")
        for name in names_of(path)
        if {word.lower() for word in re.split(r"_|(?<=[a-z])(?=[A-Z])", name)} & RETIRED
        and not (name in OTHERS_WORDS and OF_OTHERS.search(path.as_posix()))
    }
    assert not found, sorted(found)
