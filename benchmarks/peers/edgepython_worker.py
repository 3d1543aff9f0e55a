"""CPU seconds of edgePython's quasi-likelihood F-test on stored counts, one line a repeat; started by speed.py in edgePython's own environment."""

from __future__ import annotations

import sys
import time

import edgepython as edge
import numpy as np


def main() -> None:
    stored = np.load(sys.argv[1])
    run(stored["counts"][:500], stored["exposure"], stored["condition"])
    for _ in range(int(sys.argv[2])):
        start = time.process_time()
        run(stored["counts"], stored["exposure"], stored["condition"])
        print("seconds", time.process_time() - start)


def run(counts: np.ndarray, exposure: np.ndarray, condition: np.ndarray) -> object:
    design = np.column_stack([np.ones(len(condition)), condition]).astype(float)
    data = edge.make_dgelist(counts.copy(), lib_size=exposure * 1e6, group=condition)
    data = edge.estimate_disp(data, design=design)
    return edge.glm_ql_ftest(edge.glm_ql_fit(data, design=design), coef=1)


if __name__ == "__main__":
    main()
