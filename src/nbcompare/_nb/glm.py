"""Negative binomial comparisons in any design: one fit of a gene, as many contrasts of its coefficients as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Trend


@dataclass(frozen=True)
class DesignTests:
    """Tests of the contrasts of a design. Natural logarithms."""

    log_fc: (
        np.ndarray
    )  # (n_genes, n_contrasts) the contrast's value; NaN for hypotheses of several degrees and for empty genes
    se: np.ndarray  # (n_genes, n_contrasts) its standard error, NaN alike
    statistic: np.ndarray  # (n_genes, n_contrasts) signed normal equivalent; >= 0 for hypotheses of several degrees
    p_value: np.ndarray  # (n_genes, n_contrasts) two-sided, NaN where not tested
    dispersion: np.ndarray  # (n_genes,) that the tests used, NaN where nothing was fitted
    genewise: (
        np.ndarray
    )  # (n_genes,) from the gene's own counts: Pearson's, or maximum likelihood where that was asked for
    degrees: (
        np.ndarray
    )  # (n_genes,) degrees of freedom of the t or F reference, infinite for normal and chi-squared ones
    coefficients: np.ndarray  # (n_genes, n_coefficients) at `dispersion`
    status: np.ndarray  # (n_genes, n_contrasts) uint16, bits of `status.Status`
    trend: Trend  # without bins (`mean` has one value, `n_genes` 0) where dispersions are not moderated
    mean: np.ndarray  # (n_genes,) mean count of a sample, where the trend is read


def design_tests(
    counts: np.ndarray,
    offset: np.ndarray,
    design: np.ndarray,
    contrasts: Sequence[np.ndarray],
    *,
    test: str = "moderated",
    dispersion: str = "moderated",
    cox_reid: bool = False,
    null: np.ndarray | None = None,
    min_total: float = 10.0,
    n_threads: int = 1,
) -> DesignTests:
    """Fit log mean = offset + design @ coefficients gene by gene and test contrasts of the coefficients.

    Parameters
    ----------
    counts
        (n_genes, n_samples) float64.
    offset
        Natural log of the exposures, (1 or n_genes, n_samples).
    design
        (n_samples, n_coefficients) float64 of full column rank.
    contrasts
        Each (n_coefficients,) or (n_coefficients, k) of rank k: the hypothesis that its k combinations of coefficients are zero.
    test
        `"moderated"`: Skovgaard's r* on t (for k > 1 as `"ql"`). `"ql"`: quasi-likelihood F. `"wald"`, `"lrt"`: the classical tests,
        on t and F at moderated dispersions, on the normal and chi-squared at gene-wise ones.
    dispersion
        `"moderated"`: shared between genes by a trend and its scatter. `"genewise-ml"`: maximum likelihood, for `"wald"` and `"lrt"`.
    cox_reid
        Adjust the profile likelihood of gene-wise dispersions for the coefficients having been fitted.
    null
        Value of each contrast under its null hypothesis, (n_contrasts,) natural log, zero where k > 1; zero when None. Statistics are
        signed by log_fc - null.
    min_total
        Contrasts whose samples (those that tell of it) have fewer counts together are not tested.
    n_threads
        Genes are shared out among so many threads; results do not depend on it.
    """
    raise NotImplementedError
