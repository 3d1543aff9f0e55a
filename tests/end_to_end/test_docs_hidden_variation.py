"""The code of docs/hidden_variation.md runs."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from matplotlib import pyplot as plt

PAGE = (Path(__file__).parents[2] / "docs" / "hidden_variation.md").read_text()


def test_the_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 2
    variables: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Every replicate in")
        for block in blocks:
            exec(compile(block, "hidden_variation.md", "exec"), variables)
    plt.close("all")
