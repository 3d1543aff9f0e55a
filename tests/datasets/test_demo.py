from __future__ import annotations

import anndata
import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt

from nbcompare import get
from nbcompare.datasets import demo


def test_demo_finds_every_measured_target(tmp_path, capsys):
    mpl.use("Agg")
    assert demo.main(str(tmp_path / "out")) == 0
    plt.close("all")
    printed = capsys.readouterr().out
    assert "13 perturbations against 'control'" in printed
    assert printed.count(": down\n") == 5
    written = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert len([name for name in written if name.endswith(".png")]) == 5
    assert min(written.values()) > 10_000
    stored = get.nb_compare_df(anndata.read_h5ad(tmp_path / "out" / "papalexi2021.h5ad"))
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table.shape == stored.shape
    assert set(stored["group"]) == set(table["group"])
