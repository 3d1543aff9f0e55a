"""No result moves unless a commit says so: each stored array of many calls is held against a recorded hash.

On the kind of processor where the record was made each array must have the same bytes. Elsewhere the last digits differ: there the
summaries of each array must agree to a relative 1e-5. Renew the record after a change that is meant to move a result:

    python tests/end_to_end/test_golden.py
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import anndata as ad
import llvmlite.binding
import numba
import numpy as np
import pandas as pd
import pytest

import nbcompare as nb
from nbcompare.tl._posterior.arrays import posterior_of_arrays

RECORD = Path(__file__).with_name("golden.json")
PLATFORM = f"{llvmlite.binding.get_host_cpu_name()}, numpy {np.__version__}, numba {numba.__version__}"
RELATIVE = 1e-5  # of summaries, on other processors
NOT_A_RESULT = ("version", "path", "network_sha256", "format", "fingerprint")


def data(n_conditions: int = 3, **options) -> ad.AnnData:
    options = {"n_genes": 150, "n_replicates": 4, "n_cells": 25, "paired": True, "rng": 11} | options
    adata = nb.datasets.simulate(n_conditions=n_conditions, **options)
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.obs["age"] = 30 + 7 * adata.obs["replicate"].astype("category").cat.codes.to_numpy(float) ** 1.5
    return adata


def compare(**options) -> ad.AnnData:
    """`nb_compare` of simulated cells with some options."""
    adata = data()
    call = {"reference": "ctrl", "replicate_key": "replicate"} | options
    nb.tl.nb_compare(adata, "condition", **call)
    return adata


def compare_with_offset() -> ad.AnnData:
    adata = nb.pp.pseudobulk(data(), "condition", replicate_key="replicate")
    lengths = np.random.default_rng(3).normal(0, 0.5, adata.shape)
    nb.tl.nb_compare(adata, "condition", reference="ctrl", offset=lengths)
    return adata


def compare_many_genes(**options) -> ad.AnnData:
    """`nb_compare` of enough genes for a common shift and a null spread."""
    adata = data(2, n_genes=300, paired=False)
    nb.tl.nb_compare(adata, "condition", reference="ctrl", replicate_key="replicate", **options)
    return adata


def screen(**options) -> ad.AnnData:
    """`nb_screen` of simulated cells with some options, in memory."""
    cells = data(8, n_genes=60)
    call = {"reference": "ctrl", "replicate_key": "replicate", "progress": False} | options
    return nb.tl.nb_screen(cells, "condition", **call)


def screen_appended() -> ad.AnnData:
    """A screen on disk whose last perturbations were added by a second call."""
    cells = data(8, n_genes=60)
    later = cells.obs["condition"].isin(["treated_6", "treated_7"]).to_numpy()
    call = {"reference": "ctrl", "replicate_key": "replicate", "progress": False, "perturbations_per_chunk": 2}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "screen.zarr"
        nb.tl.nb_screen(cells[~later].copy(), "condition", path=path, **call)
        with_control = later | (cells.obs["condition"] == "ctrl").to_numpy()
        nb.tl.nb_screen(cells[with_control].copy(), "condition", path=path, append=True, **call)
        return ad.read_zarr(path)


def posterior(method: str) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    counts = rng.negative_binomial(5, 0.1, (2, 50, 3))
    prior = {
        "null_proportion": 0.5, "lfc_sd": 1.0, "dispersion": 0.2, "dispersion_log_sd": 0.5, "mean": 40.0, "mean_log_sd": 1.0,
    }  # fmt: skip
    return posterior_of_arrays(counts[0], counts[1], prior=prior, method=method)


def tables() -> pd.DataFrame:
    """The table of a screen, perturbations first and then their genes."""
    return nb.get.nb_screen_df(screen(), fdr_scope="hierarchical", n_top=200)


CALLS: dict[str, Callable[[], ad.AnnData | pd.DataFrame]] = {
    "moderated": compare,
    "rest": lambda: compare(reference="rest"),
    "pair": lambda: compare(dispersion="pair"),
    "wald": lambda: compare(test="wald"),
    "lrt": lambda: compare(method="mle", test="lrt"),
    "cox_reid": lambda: compare(method="mle", test="wald", cox_reid=True),
    "ql": lambda: compare(design="~ age + condition", test="ql"),
    "mle": lambda: compare(method="mle"),
    "blocks": lambda: compare(block_key="replicate"),
    "design": lambda: compare(design="~ replicate + condition"),
    "design_mle": lambda: compare(design="~ age + condition", method="mle", test="lrt"),
    "several_coefficients": lambda: compare(design="~ age + condition", contrast="condition", reference=None),
    "threshold": lambda: compare(lfc_threshold=0.5),
    "threshold_less": lambda: compare(lfc_threshold=1, alternative="less_abs"),
    "threshold_design": lambda: compare(lfc_threshold=0.5, design="~ age + condition"),
    "splits": lambda: compare(split_by="half"),
    "shrink": lambda: compare(shrink=True),
    "offset": compare_with_offset,
    "quadrature": lambda: compare(method="quadrature"),
    "transformer": lambda: compare(method="transformer"),
    "transformer_bare": lambda: compare(method="transformer", importance_sampling=False),
    "common_shift": lambda: compare_many_genes(common_shift=True),
    "null_spread": lambda: compare_many_genes(method="quadrature"),
    "screen": screen,
    "screen_blocks": lambda: screen(block_key="replicate"),
    "screen_intervals": lambda: screen(intervals=True, dtype="float64"),
    "screen_quadrature": lambda: screen(method="quadrature"),
    "screen_transformer": lambda: screen(method="transformer"),
    "screen_appended": screen_appended,
    "screen_table": tables,
    "posterior_quadrature": lambda: posterior("quadrature"),
    "posterior_transformer": lambda: posterior("transformer"),
}
WITH_TORCH = ("transformer", "transformer_bare", "screen_transformer", "posterior_transformer")


def arrays_of(result: ad.AnnData | pd.DataFrame) -> dict[str, np.ndarray]:
    """Each array of a result by its place."""
    if isinstance(result, pd.DataFrame):
        return dict(_flat(result, "table"))
    return {
        place: values
        for name in ("obs", "var", "varm", "layers", "uns")
        for place, values in _flat(getattr(result, name), name)
    }


def _flat(value, place: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, pd.DataFrame):
        value = {"index": value.index} | {name: value[name] for name in value}
    if isinstance(value, Mapping):
        for name in value:
            if name not in NOT_A_RESULT:
                yield from _flat(value[name], f"{place}/{name}")
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for number, one in enumerate(value):
            yield from _flat(one, f"{place}/{number}")
    else:
        found = np.asarray(value)
        yield place, found if found.dtype.kind in "biuf" else np.atleast_1d(found).astype(str)


def digest(values: np.ndarray) -> str:
    content = "\n".join(values.ravel().tolist()).encode() if values.dtype.kind == "U" else values.tobytes()
    return hashlib.sha256(f"{values.dtype.kind} {values.shape} ".encode() + content).hexdigest()[:16]


def summary(values: np.ndarray) -> list:
    """What other processors must find too: shape, missing values, and of numbers the mean size."""
    if values.dtype.kind == "U":
        return [list(values.shape), digest(values)]
    numbers = values.astype(float)
    finite = numbers[np.isfinite(numbers)]
    return [list(values.shape), int(np.isnan(numbers).sum()), float(np.mean(np.abs(finite))) if finite.size else 0.0]


def run(name: str) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return arrays_of(CALLS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_no_result_moves(name):
    if name in WITH_TORCH:
        pytest.importorskip("torch")
    record = json.loads(RECORD.read_text())
    found, expected = run(name), record["calls"][name]
    assert sorted(found) == sorted(expected), "other arrays are stored"
    same_platform = record["platform"] == PLATFORM
    for place, (hashed, *summarized) in expected.items():
        if same_platform:
            assert digest(found[place]) == hashed, place
        shape, *rest = summary(found[place])
        assert shape == summarized[0], place
        if isinstance(rest[0], str):
            assert rest == summarized[1:], place
        else:
            assert rest[0] == summarized[1], place
            np.testing.assert_allclose(rest[1], summarized[2], rtol=RELATIVE, err_msg=place)


def record() -> None:
    """Write the record anew."""
    calls = {
        name: {place: [digest(values), *summary(values)] for place, values in sorted(run(name).items())}
        for name in CALLS
    }
    lines = (
        f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(p)}: {json.dumps(v)}" for p, v in places.items()) + "}"
        for name, places in calls.items()
    )
    RECORD.write_text(f'{{"platform": {json.dumps(PLATFORM)},\n"calls": {{\n' + ",\n".join(lines) + "}}\n")


if __name__ == "__main__":
    record()
