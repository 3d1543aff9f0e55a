from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def unseen(monkeypatch):
    """No figure is shown, and no setting of matplotlib is touched."""
    mpl.use("Agg")
    plt.close("all")  # what doctests left open
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a figure was shown"))
    before = mpl.rcParams.copy()
    yield
    assert dict(mpl.rcParams) == dict(before)
    plt.close("all")
