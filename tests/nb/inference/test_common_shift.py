"""The common shift is the log fold change of most genes, whatever the others do."""

from __future__ import annotations

import numpy as np
import pytest

from nbcompare._nb.inference.common_shift import common_shift


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_genes_that_change_in_one_direction_do_not_move_it(share):
    rng = np.random.default_rng(2)
    n = 4000
    se = rng.uniform(0.05, 0.5, n)
    changed = np.where(rng.random(n) < share, np.abs(rng.normal(0, 1.0, n)), 0.0)
    log_fc = -0.3 + changed + se * rng.normal(size=n)
    assert common_shift(log_fc, se) == pytest.approx(-0.3, abs=0.02 if share < 0.2 else 0.05)
    assert common_shift(-log_fc, se) == pytest.approx(-common_shift(log_fc, se), abs=1e-4)


def test_equal_log_fold_changes():
    assert common_shift(np.full(300, 0.7), np.full(300, 0.1)) == pytest.approx(0.7)
