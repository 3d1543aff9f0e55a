"""Comparisons adjusted for hidden factors: factors once for a data set, then each comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nbcompare._nb.hidden.blend import (
    LoadInflation,
    blend_weights,
    blended_load,
    fixed_weights,
    load_inflation,
)
from nbcompare._nb.hidden.dataset import Coordinates, HiddenData, contrast_coordinates, gene_residuals
from nbcompare._nb.hidden.factors import Factors, GeneResiduals, leading_factors
from nbcompare._nb.hidden.held_out import HeldOut, held_out_tests
from nbcompare._nb.hidden.intervals import BlendedTest, blended_interval
from nbcompare._nb.hidden.slopes import Slopes, fit_slopes

MOST_FACTORS = 8
LEAST_DEGREES = 6  # residual degrees of freedom
FEW_COUNTS = 2.0  # mean count of a sample, below which the unadjusted test is kept
LEAST_WEIGHT = 1e-4  # of a number of factors, to enter the blend
STORED_WEIGHT = 0.05  # of a number of factors, to store that many


@dataclass(frozen=True)
class HiddenModel:
    """Factors of a data set and their held-out tests."""

    data: HiddenData
    residuals: GeneResiduals
    directions: np.ndarray  # (n_samples, d)
    information: np.ndarray  # (n_genes, n_samples)
    mean: np.ndarray  # (n_genes,) mean count of a sample
    factors: Factors
    held_out: HeldOut
    n_factors: int | None  # that the user asks for; None: chosen
    calibrations: dict[
        int, tuple[np.ndarray, LoadInflation | None]
    ]  # found before, by the number of factors near the contrast

    def calibration(self, near: int) -> tuple[np.ndarray, LoadInflation | None]:
        """Weights of 0, 1, ... factors, and the inflation of their blend; None without factors."""
        if near not in self.calibrations:
            kmax = self.factors.loadings.shape[1]
            chosen = (
                blend_weights(self.held_out.score, near)
                if self.n_factors is None
                else fixed_weights(self.n_factors, kmax)
            )
            inflation = load_inflation(self.held_out.z, self.held_out.load, chosen) if chosen[0] < 1 else None
            self.calibrations[near] = chosen, inflation
        return self.calibrations[near]


@dataclass(frozen=True)
class Unadjusted:
    """One comparison without hidden factors. Natural logarithms, (n_genes,) each; NaN where not tested."""

    statistic: np.ndarray  # signed normal deviate
    statistic_all: np.ndarray  # the same before the leave-one-replicate-out rule
    log_fc: np.ndarray
    se: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Adjusted:
    """One comparison adjusted for hidden factors. Natural logarithms; genes (n_genes,)."""

    result: Unadjusted  # statistics, effects and intervals after the adjustment
    inflation: np.ndarray  # (n_genes,) by which the variance of deviates was divided
    weights: np.ndarray  # (kmax + 1,) of 0, 1, ... factors
    factors: np.ndarray  # (n_samples, k) the factors, with what they share with the contrast
    slopes: np.ndarray  # (k,) on the contrast
    variance_inflation: float  # 1 + b'b
    shift: float  # common log fold change of all genes
    by_load: LoadInflation | None

    @property
    def used(self) -> bool:
        """Whether any factor is adjusted for."""
        return bool(self.weights[0] < 1)


def largest_number(n_samples: int, n_columns: int) -> int:
    """The largest number of factors with these samples and columns of the design; 0 if there are too few samples."""
    d = n_samples - n_columns
    return d // 2 if d >= LEAST_DEGREES else 0


def fit_hidden(data: HiddenData, n_factors: int | None = None) -> HiddenModel:
    """Residuals, factors and held-out tests of a data set; `n_factors` None chooses their number from the held-out tests."""
    residuals, directions, information = gene_residuals(data)
    kmax = min(MOST_FACTORS, largest_number(*data.design.shape)) if n_factors is None else n_factors
    factors = leading_factors(residuals, kmax)
    mean = data.counts.mean(axis=1)
    held_out = held_out_tests(residuals, factors, mean)
    return HiddenModel(data, residuals, directions, information, mean, factors, held_out, n_factors, {})


def adjust_comparison(
    model: HiddenModel, own: Unadjusted, contrast: np.ndarray, pair: tuple[int, int] | None = None
) -> Adjusted:
    """Adjust one comparison, or return it as it is where factors do not help.

    Parameters
    ----------
    model
        The factors of the data set.
    own
        The comparison without factors, of the genes of the model.
    contrast
        Weights of the coefficients of the design.
    pair
        Reference (-1: all others) and treated group, where the design is groups.
    """
    at = contrast_coordinates(model.data, model.information, contrast, pair)
    tested = np.isfinite(own.statistic) & (at.root_information > 0)
    weight = np.where(tested, model.residuals.weight, 0.0)
    slopes = fit_slopes(at.along, at.root_information, weight, model.factors, model.directions.shape[1])
    weights, by_load = model.calibration(slopes.near)
    if by_load is None:
        return Adjusted(
            own, np.ones(len(tested)), weights, np.zeros((len(model.directions), 0)), np.zeros(0), 1.0, 0.0, None
        )
    inflation = np.where(tested, by_load.at(blended_load(model.factors.load, weights)), np.nan)
    result = _blended(model, own, at, slopes, weights, inflation)
    k = int(np.flatnonzero(weights >= min(STORED_WEIGHT, weights.max()))[-1])
    b = slopes.slopes[k, :k]
    return Adjusted(
        result,
        inflation,
        weights,
        model.directions @ model.factors.vectors[:, :k] + np.outer(at.contrast.direction, b),
        b,
        float(weights @ slopes.inflation),
        float(weights[1:] @ slopes.shift[1:]) * at.contrast.length,
        by_load,
    )


def _blended(
    model: HiddenModel, own: Unadjusted, at: Coordinates, slopes: Slopes, weights: np.ndarray, inflation: np.ndarray
) -> Unadjusted:
    """The blend of the comparison with 0, 1, ... factors; the unadjusted test over the root of the inflation at low counts."""
    tested, few = np.isfinite(inflation), model.mean < FEW_COUNTS
    used = np.flatnonzero(weights[1:] > LEAST_WEIGHT) + 1
    blended = np.flatnonzero(tested & ~few)
    root, root_information = np.sqrt(inflation), at.root_information[blended]
    unit = at.contrast.length / root_information
    removed = slopes.shift[used, None] * root_information + slopes.slopes[used] @ model.factors.loadings[blended].T
    log_fc = own.log_fc[blended] - weights[used] @ removed * unit  # weights sum to one
    test = BlendedTest(
        slopes.t[used][:, blended],
        np.sqrt(slopes.variance[used][:, blended]) * unit,
        model.factors.degrees[used][:, blended],
        weights[used],
        float(weights[0]),
        own.statistic_all[blended],
        own.se[blended],
        root[blended],
    )
    no_shift = np.zeros(len(blended))
    found = (
        replace(test, own_statistic=own.statistic[blended]).at(no_shift),
        test.at(no_shift),
        log_fc,
        *blended_interval(test, log_fc),
    )
    stretched = (
        own.statistic / root,
        own.statistic_all / root,
        own.log_fc,
        own.se * root,
        own.log_fc - (own.log_fc - own.lower) * root,
        own.log_fc + (own.upper - own.log_fc) * root,
    )
    before = (own.statistic, own.statistic_all, own.log_fc, own.se, own.lower, own.upper)
    arrays = [np.where(tested, at_few, old) for at_few, old in zip(stretched, before, strict=True)]
    for array, values in zip(arrays, found, strict=True):
        array[blended] = values
    return Unadjusted(*arrays)
