"""The kernels of a design on all genes, in pieces, and what they find in the coordinates of the user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from nbcompare._nb.data import Trend
from nbcompare._nb.glm.contrast import LIKELIHOOD_RATIO, MODERATED, QUASI_LIKELIHOOD, WALD
from nbcompare._nb.glm.dispersion.moderation import Moderation
from nbcompare._nb.glm.fit.design import DesignMatrices
from nbcompare._nb.glm.fit.newton import GeneCounts, Start
from nbcompare._nb.glm.genes import ContrastArrays, fit_and_test
from nbcompare._nb.numerics.parallel import in_parallel

TESTS = {"moderated": MODERATED, "lrt": LIKELIHOOD_RATIO, "ql": QUASI_LIKELIHOOD, "wald": WALD}


@dataclass(frozen=True)
class ContrastResults:
    """What the kernels write, in the coordinates of the user."""

    log_fc: np.ndarray
    se: np.ndarray
    statistic: np.ndarray
    p_value: np.ndarray
    separated: np.ndarray
    coefficients: np.ndarray

    def take_likelihood_ratios(self, gain: np.ndarray, tested: np.ndarray) -> None:
        """Statistics from log likelihoods gained with the dispersion fitted anew under the null."""
        chi2 = 2 * np.maximum(gain, 0)
        one = tested == 1
        self.statistic[...] = np.where(one, np.copysign(np.sqrt(chi2), self.statistic), chi2)
        self.p_value[:, one] = 2 * ndtr(-np.abs(self.statistic[:, one]))


def fixed_dispersions(dispersion: np.ndarray, counts: np.ndarray) -> Moderation:
    """Dispersions taken as they are: normal and chi-squared references, no trend."""
    no_trend = Trend(np.ones(1), np.full(1, np.nan), np.nan, 0)
    one, infinite = np.ones(len(counts)), np.full(len(counts), np.inf)
    ratio = np.ones(counts.shape[1])
    return Moderation(
        dispersion,
        dispersion,
        one,
        infinite,
        0 * one,
        infinite,
        one,
        dispersion,
        no_trend,
        counts.mean(axis=1),
        ratio,
        None,
    )


def run_tests(
    counts: np.ndarray,
    offset: np.ndarray,
    matrices: DesignMatrices,
    basis: Moderation,
    test: int,
    null: np.ndarray,
    n_threads: int,
) -> ContrastResults:
    """All genes, in pieces; effects and coefficients turned back from the designs of `matrices`."""
    n_genes, n_contrasts = len(counts), len(matrices.tested)
    is_started = basis.coefficients is not None
    coefficients = (
        np.full((n_genes, matrices.n_coefficients), np.nan) if basis.coefficients is None else basis.coefficients
    )
    effect, se, statistic, p_value = np.full((4, n_genes, n_contrasts), np.nan)
    separated = np.zeros((n_genes, n_contrasts), bool)
    length = np.where(matrices.tested == 1, matrices.length, 1.0)

    designs = matrices.kernels(basis.ratio)

    def run(part: slice) -> None:
        fit_and_test(
            GeneCounts(counts[part], offset if len(offset) == 1 else offset[part], matrices.centred),
            basis.part(part),
            test,
            designs,
            null / length,
            Start(is_started, coefficients[part]),
            ContrastArrays(effect[part], se[part], statistic[part], p_value[part], separated[part]),
        )

    in_parallel(run, n_genes, n_threads)
    coefficients[basis.mean <= 0] = np.nan
    return ContrastResults(
        effect * length + null,
        se * length,
        statistic,
        p_value,
        separated,
        matrices.coefficients(coefficients, counts, offset),
    )
