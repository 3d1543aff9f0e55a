"""The public functions: few positional arguments, complete docstrings, a runnable example, types in the signature only."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import nbcompare

NAMESPACES = ["datasets", "get", "pl", "pp", "tl"]
SECTIONS = ["Parameters", "Returns", "Raises", "Warns", "See Also", "Notes", "References", "Examples"]
OURS = {"adata", "pdata", "screen"}  # cells, samples, perturbations


def public_functions() -> dict[str, Callable]:
    """Every public function by its name within the package."""
    found: dict[str, Callable] = {}
    for namespace in NAMESPACES:
        try:
            module = importlib.import_module(f"nbcompare.{namespace}")
        except ModuleNotFoundError:
            continue  # test_namespaces says so
        for name in getattr(module, "__all__", vars(module)):
            function = getattr(module, name)
            if not name.startswith("_") and inspect.isfunction(function):
                found[f"{namespace}.{name}"] = function
    return found


FUNCTIONS = public_functions()
each_function = pytest.mark.parametrize("name", sorted(FUNCTIONS))


def sections_of(function: Callable) -> dict[str, str]:
    """The text under each underlined heading of a numpydoc docstring, in order; the text before them under ""."""
    text = inspect.getdoc(function) or ""
    chunks = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    return {"": chunks[0]} | dict(zip(chunks[1::2], chunks[2::2], strict=True))


def documented(section: str) -> dict[str, str]:
    """The entries of a section of definitions: the lines that are not indented, with the text below each."""
    chunks = re.split(r"^(\S.*)$", section, flags=re.MULTILINE)
    return dict(zip(chunks[1::2], (text.strip() for text in chunks[2::2]), strict=True))


def test_namespaces() -> None:
    public = {name for name in dir(nbcompare) if not name.startswith("_") and name != "annotations"}
    assert public == set(NAMESPACES)
    assert {name.split(".")[0] for name in FUNCTIONS} == set(NAMESPACES)


def test_the_api_page_lists_every_function_and_no_other() -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
    listed = re.findall(rf"^    ((?:{'|'.join(NAMESPACES)})\.\w+)$", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(FUNCTIONS)


@each_function
def test_arguments(name: str) -> None:
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    kinds = {parameter.kind for parameter in parameters}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}, "no *args, no **kwargs"
    positional = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 3
    if not name.startswith("datasets."):
        assert parameters[0].name in OURS or name == "get.check_screen"  # from a path
        assert parameters[0].default is parameters[0].empty


@each_function
def test_types_are_in_the_signature(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    untyped = [parameter.name for parameter in signature.parameters.values() if parameter.annotation is parameter.empty]
    assert not untyped
    assert signature.return_annotation is not signature.empty


@each_function
def test_parameters_are_documented(name: str) -> None:
    description = documented(sections_of(FUNCTIONS[name]).get("Parameters", ""))
    typed = [entry for entry in description if ":" in entry]
    assert not typed, "types belong in the signature"
    names = [part.strip() for entry in description for part in entry.split(",")]
    assert names == list(inspect.signature(FUNCTIONS[name]).parameters), "documented in the order of the signature"
    empty = [entry for entry, text in description.items() if not text]
    assert not empty, "every parameter is described"


@each_function
def test_sections(name: str) -> None:
    sections = sections_of(FUNCTIONS[name])
    summary = sections.pop("").strip().split("\n\n")[0]
    assert summary, "one sentence says what the function does"
    assert list(sections) == [section for section in SECTIONS if section in sections], "numpydoc's sections in order"
    assert "Examples" in sections
    returns_nothing = inspect.signature(FUNCTIONS[name]).return_annotation in (None, "None")
    assert ("Returns" in sections) or returns_nothing


@each_function
def test_has_a_runnable_example(name: str) -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(FUNCTIONS[name]) or "")
    assert any(not example.options.get(doctest.SKIP) for example in examples)
