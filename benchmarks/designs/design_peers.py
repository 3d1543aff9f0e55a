"""CPU seconds of edgePython's or PyDESeq2's whole call on stored counts, one line a repeat; started by design_speed.py."""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings

import numpy as np


def main() -> None:
    run = {"edgepython": edgepython, "pydeseq2": pydeseq2}[sys.argv[1]]
    stored = np.load(sys.argv[2])
    counts, condition, cell = stored["counts"], stored["condition"], stored["cell"]
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        run(counts[:500], condition, cell)
    for _ in range(int(sys.argv[3])):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            run(counts, condition, cell)
        print("seconds", time.process_time() - start)


def edgepython(counts: np.ndarray, condition: np.ndarray, cell: np.ndarray) -> object:
    """TMM, dispersions, quasi-likelihood F-test of the condition beside the cell line, table."""
    import edgepython as edge

    blocks = (cell[:, None] == np.unique(cell)).astype(float)
    design = np.column_stack([blocks, (condition == "trt").astype(float)])
    data = edge.calc_norm_factors(edge.make_dgelist(counts.astype(float), group=condition))
    data = edge.estimate_disp(data, design=design)
    result = edge.glm_ql_ftest(edge.glm_ql_fit(data, design=design), coef=design.shape[1] - 1)
    return edge.top_tags(result, n=len(counts))


def pydeseq2(counts: np.ndarray, condition: np.ndarray, cell: np.ndarray) -> object:
    """DESeq2's defaults: size factors, dispersions, Wald test, independent filtering."""
    import pandas as pd
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    names = [f"s{i}" for i in range(len(condition))]
    inference = DefaultInference(n_cpus=1)
    data = DeseqDataSet(
        counts=pd.DataFrame(counts.T.astype(int), index=names, columns=[f"g{i}" for i in range(len(counts))]),
        metadata=pd.DataFrame({"condition": condition, "cell": cell}, index=names),
        design="~cell + condition",
        inference=inference,
        quiet=True,
    )
    data.deseq2()
    result = DeseqStats(data, contrast=["condition", "trt", "untrt"], inference=inference, quiet=True)
    result.summary()
    return result.results_df


if __name__ == "__main__":
    main()
