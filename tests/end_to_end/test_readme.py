from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_prints_what_the_readme_shows(capsys):
    """To five digits: the last ones depend on the processor."""
    mpl.use("Agg")
    code, shown = re.search(r"```python\n(.*?)```\s+```text\n(.*?)```", README, flags=re.DOTALL).groups()
    exec(compile(code, "README.md", "exec"), {})
    plt.close("all")
    printed, expected = (pd.read_csv(io.StringIO(text), sep=r"\s+") for text in (capsys.readouterr().out, shown))
    pd.testing.assert_frame_equal(printed, expected, rtol=1e-5)


def test_figure_of_the_readme_is_there_and_small():
    """By a path in the repository, so that it shows in a clone."""
    (path,) = re.findall(r"!\[.*?\]\((docs/.*?)\)", README)
    assert (Path(__file__).parents[2] / path).stat().st_size < 200_000
