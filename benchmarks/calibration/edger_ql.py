"""edgeR's quasi-likelihood F-test through edgePython (GPL, so in an environment of its own), for `calibration.py` and nothing else.

    python benchmarks/calibration/edger_ql.py FOLDER PART PARTS

The folder's `*.npz` are named in hexadecimals, and those whose name is PART modulo PARTS are done: from counts (genes x samples), design and
coefs the p-values, (2, genes, coefs), by edgeR 3 (legacy) and by edgeR 4. They are written beside the input as `.npy`; the input is removed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import edgepython
import numpy as np


def main() -> None:
    folder, part, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for path in (path for path in folder.glob("*.npz") if int(path.stem, 16) % parts == part):
        with np.load(path) as split:
            np.save(path.with_suffix(".npy"), p_values(split["counts"], split["design"], split["coefs"]))
        path.unlink()


def p_values(counts: np.ndarray, design: np.ndarray, coefs: np.ndarray) -> np.ndarray:
    data = edgepython.calc_norm_factors(edgepython.make_dgelist(counts))
    data = edgepython.estimate_disp(data, design=design)
    fits = [edgepython.glm_ql_fit(data, design=design, legacy=legacy) for legacy in (True, False)]
    tables = [[edgepython.glm_ql_ftest(fit, coef=int(coef))["table"] for coef in coefs] for fit in fits]
    return np.array([[table["PValue"].to_numpy() for table in of_fit] for of_fit in tables]).swapaxes(1, 2)


if __name__ == "__main__":
    main()
