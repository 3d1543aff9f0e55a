"""A bounded run of `benchmarks/audit/fuzz.py`: odd data and odd arguments give a result or an error of nbcompare's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from anndata import AnnData

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "audit" / "fuzz.py"
N_CASES = 300  # fixed by number and not by time, so that every machine runs the same cases

# Arguments whose types are not checked at the door of every function yet, and why. To be emptied.
NOT_CHECKED_YET: dict[str, str] = {}


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_script"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_script"]


@pytest.mark.slow
def test_odd_calls_give_a_result_or_an_error_of_our_own(fuzz):
    mpl.use("Agg")
    found, n_run = [], 0
    for seed in range(N_CASES):
        case, function = fuzz.make_case(seed)
        if case.odd & set(NOT_CHECKED_YET):
            continue
        n_run += 1
        if (why := fuzz.failure_of(case, function)) is not None:
            found.append(f"{case}\n    {why}")
    assert n_run > N_CASES / 4
    assert not found, "\n".join(found)


def _case(fuzz, adata=None) -> object:
    adata = AnnData(np.ones((3, 2), np.float32)) if adata is None else adata
    return fuzz.Case(0, "f", {}, frozenset(), adata)


def test_an_error_from_elsewhere_is_a_failure(fuzz):
    assert "TypeError" in fuzz.failure_of(_case(fuzz), lambda adata: np.zeros(2) + {})
    assert fuzz.failure_of(_case(fuzz), lambda adata: None) is None


def test_an_adata_changed_by_a_refused_call_is_a_failure(fuzz):
    def refuse_too_late(adata):
        adata.X[0, 0] = 7
        raise ValueError

    assert fuzz.failure_of(_case(fuzz), refuse_too_late) == "refused (ValueError), but .X has changed"


def test_a_result_that_cannot_be_written_is_a_failure(fuzz):
    assert "cannot be written" in fuzz.failure_of(
        _case(fuzz), lambda adata: adata.uns.update(bad=3 + 1j, worse=object())
    )
