"""What the benchmarks compare with: one call per tool, counts (n_genes, n_samples) and exposures in, estimates out. Natural logarithms."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Group


@dataclass(frozen=True)
class Estimates:
    """One row a gene; NaN where the tool failed."""

    log_mean: np.ndarray
    log_fc: np.ndarray
    dispersion: np.ndarray
    p_value: np.ndarray


def stacked(reference: Group, treated: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, exposures and condition (0 or 1) of all samples."""
    counts = np.concatenate([reference.counts, treated.counts], axis=1)
    exposure = np.concatenate([reference.exposure, treated.exposure])
    return counts, exposure, np.repeat([0, 1], [len(reference.exposure), len(treated.exposure)])


def statsmodels(reference: Group, treated: Group) -> Estimates:
    """`NegativeBinomial(...).fit()` with defaults, gene by gene; failure is an exception, no convergence, or a parameter that is not finite."""
    from statsmodels.discrete.discrete_model import NegativeBinomial

    counts, exposure, condition = stacked(reference, treated)
    design = np.column_stack([np.ones(len(condition)), condition])
    offset = np.log(exposure)
    rows = np.full((4, len(counts)), np.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for i, y in enumerate(counts):
            try:
                fit = NegativeBinomial(y, design, offset=offset).fit(disp=0)
                found = np.array([*fit.params, fit.pvalues[1]])
            except (np.linalg.LinAlgError, ValueError, FloatingPointError, ZeroDivisionError):
                continue
            if fit.mle_retvals["converged"] and np.isfinite(found[:3]).all():
                rows[:, i] = found
    return Estimates(*rows)


def pydeseq2(reference: Group, treated: Group) -> Estimates:
    """DESeq2's Wald test in Python, our exposures as size factors, one process; independent filtering and Cook's rule off."""
    import pandas as pd
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    counts, exposure, condition = stacked(reference, treated)
    names = [f"s{i}" for i in range(len(condition))]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        inference = DefaultInference(n_cpus=1)
        data = DeseqDataSet(
            counts=pd.DataFrame(counts.T.astype(int), index=names, columns=[f"g{i}" for i in range(len(counts))]),
            metadata=pd.DataFrame({"condition": np.where(condition == 1, "b", "a")}, index=names),
            design="~condition",
            refit_cooks=False,
            inference=inference,
            quiet=True,
        )
        data.obs["size_factors"] = exposure / np.exp(np.log(exposure).mean())
        data.fit_genewise_dispersions()
        data.fit_dispersion_trend()
        data.fit_dispersion_prior()
        data.fit_MAP_dispersions()
        data.fit_LFC()
        result = DeseqStats(
            data,
            contrast=["condition", "b", "a"],
            cooks_filter=False,
            independent_filter=False,
            inference=inference,
            quiet=True,
        )
        result.summary()
        logging.disable(logging.NOTSET)
    table = result.results_df
    return Estimates(
        np.log(table["baseMean"].to_numpy()),
        table["log2FoldChange"].to_numpy() * np.log(2),
        np.asarray(data.var["dispersions"], float),
        table["pvalue"].to_numpy(),
    )
