"""Who may import whom (docs/architecture.md), and that importing the package is quiet and light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import nbcompare

SOURCE = Path(nbcompare.__file__).parent
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"

EVERYWHERE = {"numpy", "nbcompare._messages", "nbcompare._optional"}
ARGUMENTS = "nbcompare._arguments"  # of the parts with public functions
NEVER_AT_TOP = {"formulaic", "matplotlib", "scanpy", "torch"}


@dataclass(frozen=True)
class Rule:
    """What a part may import at the top of a file; inside functions and for types alone, `late` too."""

    top: set[str]
    late: set[str] = field(default_factory=set)

    def allows(self, name: str, *, late: bool) -> bool:
        """Whether this name, or a package it lies in, is on the list; the whole of ours only by its own name."""
        listed = EVERYWHERE | self.top | (self.late if late else set())
        parts = name.split(".")
        packages = {".".join(parts[:i]) for i in range(1, len(parts))} - {"nbcompare"}
        return bool(listed & {name, *packages})


ARRAYS = {"llvmlite", "numba", "scipy"}
EDGE = {"anndata", "nbcompare._anndata", "nbcompare._counts", "nbcompare._nb", "pandas", "scipy"}
PUBLIC = {f"nbcompare.{part}" for part in ("datasets", "get", "pl", "pp", "tl")}
RULES = {  # beside the part itself
    "_nb": Rule(ARRAYS),
    "_counts": Rule(ARRAYS | {"fast_array_utils"}, {"dask", "distributed"}),
    "_anndata": Rule(
        {"anndata", "fast_array_utils", "pandas", "scipy"}
        | {"nbcompare._counts", "nbcompare._nb.data", "nbcompare._nb.status"},
        {"h5py", "numcodecs", "zarr"},
    ),
    "_transformer": Rule(ARRAYS | {"nbcompare._nb", "safetensors", "torch"}, {"tqdm"}),
    "_arguments": Rule({"anndata", "nbcompare._anndata", "pandas"}),
    "_messages": Rule(set()),
    "_optional": Rule(set()),
    "tl": Rule(EDGE | {ARGUMENTS}, {"formulaic", "nbcompare._transformer", "numba", "tqdm"}),
    "pp": Rule(EDGE | {ARGUMENTS}),
    "get": Rule(
        {
            ARGUMENTS,
            "fast_array_utils",
            "nbcompare._anndata",
            "nbcompare._nb.inference.hierarchical",
            "nbcompare._nb.status",
            "pandas",
        },
        {"anndata"},
    ),
    "pl": Rule({ARGUMENTS, "nbcompare.get", "pandas", "scipy"}, {"adjustText", "anndata", "matplotlib"}),
    "datasets": Rule({ARGUMENTS, "anndata", "pandas", "scipy"}),
    "datasets.demo": Rule({"anndata", "nbcompare", "pandas"} | PUBLIC, {"matplotlib"}),
    "__init__": Rule(PUBLIC),
}


@dataclass(frozen=True)
class Import:
    """One imported name, with the line it stands on."""

    name: str
    line: int
    late: bool  # inside a function, or for type checkers alone


def module_name(path: Path) -> str:
    """Dotted name of a file, without the package's own."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The row of the table that a module belongs to."""
    return module if module in RULES else module.split(".")[0]


def imports_of(path: Path) -> list[Import]:
    """Every import of a file by absolute name, standard library left out."""
    package = ["nbcompare", *path.relative_to(SOURCE).parent.parts]
    found = [
        Import(name, node.lineno, late)
        for node, late in walk(ast.parse(path.read_text()), late=False)
        for name in names_of(node, package)
    ]
    return [item for item in found if item.name.split(".")[0] not in sys.stdlib_module_names]


def walk(node: ast.AST, *, late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import statements, and whether they run later than the import of the file."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, late
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield from walk(ast.Module([statement], []), late=True)
            for statement in child.orelse:
                yield from walk(ast.Module([statement], []), late=late)
        else:
            yield from walk(child, late=late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def names_of(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    """Absolute names that a statement imports: a module where it is one of ours, else the module it comes from."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else []
    origin = ".".join([*base, *([node.module] if node.module else [])])
    if origin.split(".")[0] != "nbcompare":
        return [origin]
    return [f"{origin}.{alias.name}" if is_ours(f"{origin}.{alias.name}") else origin for alias in node.names]


def is_ours(name: str) -> bool:
    """Whether a dotted name is a file or folder of the package."""
    path = SOURCE.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def broken_rules(path: Path) -> list[str]:
    """Sentences that name what a file must not import."""
    module = module_name(path)
    part = part_of(module)
    file = path.relative_to(SOURCE).as_posix()
    if part not in RULES:
        return [f"{file}: the table in docs/architecture.md has no row for `{part}`"]
    sentences = []
    for item in imports_of(path):
        where = f"{file}:{item.line}"
        if not item.late and item.name.split(".")[0] in NEVER_AT_TOP - RULES[part].top:
            sentences.append(f"{where}: {item.name} must not be imported at the top of a file")
        elif not item.name.startswith(f"nbcompare.{part}") and not RULES[part].allows(item.name, late=item.late):
            how = "" if item.late or not RULES[part].allows(item.name, late=True) else " outside a function"
            sentences.append(f"{where}: `{part}` must not import {item.name}{how}")
    return sentences


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_rules(path: Path) -> None:
    assert not broken_rules(path), "\n".join(broken_rules(path))


@pytest.mark.parametrize(
    ("file", "code", "sentence"),
    [
        ("_nb/moments.py", "import torch", "torch must not be imported at the top"),
        ("_nb/moments.py", "def f():\n    import torch", "`_nb` must not import torch"),
        ("_nb/moments.py", "from .._counts import sums", "`_nb` must not import nbcompare._counts"),
        ("_counts/sums.py", "import dask.array", "`_counts` must not import dask.array outside a function"),
        ("_counts/sums.py", "from nbcompare import _nb", "`_counts` must not import nbcompare._nb"),
        (
            "_anndata.py",
            "from ._nb.trend import fit_trend",
            "`_anndata` must not import nbcompare._nb.trend",
        ),
        ("tl/nb_compare.py", "def f():\n    from matplotlib import pyplot", "`tl` must not import matplotlib"),
        ("get.py", "from . import _nb", "`get` must not import nbcompare._nb"),
        ("pl/volcano.py", "from matplotlib import pyplot", "matplotlib must not be imported at the top"),
        ("pl/volcano.py", "from .._anndata import read", "`pl` must not import nbcompare._anndata"),
        ("datasets/simulate.py", "from nbcompare.tl import nb_compare", "`datasets` must not import nbcompare.tl"),
        ("helpers/more.py", "import numpy", "no row for `helpers`"),
    ],
)
def test_rules_are_enforced(
    file: str, code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("_anndata", "_counts/__init__", "_nb/trend", "_nb/__init__", "tl/nb_compare"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / f"{part}.py").touch()
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    (found,) = broken_rules(path)
    assert sentence in found
    assert found.startswith(file)


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations\nimport math\nimport numpy as np",
        "def f():\n    import matplotlib.pyplot as plt",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from matplotlib.axes import Axes",
        "from .. import get\nfrom ..get import nb_compare_df\nfrom .._optional import require",
    ],
)
def test_what_plots_may_import(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "pl").mkdir()
    for name in ("get.py", "_optional.py"):
        (tmp_path / name).touch()
    path = tmp_path / "pl" / "volcano.py"
    path.write_text(code)
    assert broken_rules(path) == []


def test_rules_are_those_of_the_architecture() -> None:
    section = ARCHITECTURE.read_text().split("## Who may import whom")[1].split("\n##")[0]
    first_column = re.findall(r"^\|([^|]*)\|", section, flags=re.MULTILINE)
    parts = {part for cell in first_column for part in re.findall(r"`(\w+)`", cell)}
    unwritten = {"__init__", "_messages", "_optional", "datasets.demo"}
    assert parts == set(RULES) - unwritten


def test_import_is_quiet_and_light() -> None:
    code = """
import logging, sys, warnings
import anndata  # what it does is its own affair
filters, handlers = list(warnings.filters), list(logging.getLogger().handlers)
import nbcompare
loaded = {"formulaic", "matplotlib", "scanpy", "torch"} & set(sys.modules)
assert not loaded, f"import nbcompare loads {loaded}"
added = [rule for rule in warnings.filters if rule not in filters]
assert not added, f"import nbcompare installs the warning filters {added}"
assert logging.getLogger().handlers == handlers, "import nbcompare adds handlers to the root logger"
assert not logging.getLogger("nbcompare").handlers, "import nbcompare adds handlers to its logger"
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""
