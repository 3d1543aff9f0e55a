"""Functions take few arguments by position: records carry the rest."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "nbcompare"
MOST = 8
EXCEPTIONS = {  # only to be shortened
    "_nb/dispersion/pearson.py::statistic_of_group": 10,
    "_nb/glm/fit/mle.py::_maximise_genes": 11,
    "_nb/glm/fit/profile.py::maximize": 9,
    "_nb/glm/fit/profile.py::search": 9,
    "_nb/glm/likelihood_intervals.py::_ratio_intervals": 9,
    "_nb/likelihood/profile_maximum.py::interior": 11,
    "_nb/screen/intervals.py::target_intervals": 9,
    "_nb/screen/reference.py::_shared_information": 9,
    "_nb/stratified/pearson.py::pearson_within_blocks": 9,
    "_nb/two_group/block_effects.py::_fit_genes": 10,
    "_nb/two_group/block_effects.py::sweep": 10,
    "_nb/two_group/gene_test.py::compare_two_groups": 10,
    "_nb/two_group/gene_test.py::counts_of_groups": 9,
    "_nb/two_group/intervals.py::counts_interval": 9,
    "_nb/two_group/intervals.py::groups_interval": 11,
}


def long_lists() -> dict[str, int]:
    """Functions with more than `MOST` arguments by position, and how many they have; the instance does not count."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
                number = len(arguments) - (arguments[:1] in (["self"], ["cls"]))
                if number > MOST:
                    found[f"{path.relative_to(SOURCE).as_posix()}::{node.name}"] = number
    return found


def test_few_arguments_by_position() -> None:
    assert long_lists() == EXCEPTIONS


def test_no_exception_has_more_than_twelve() -> None:
    assert max(EXCEPTIONS.values()) <= 12
