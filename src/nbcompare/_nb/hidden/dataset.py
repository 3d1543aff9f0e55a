"""From counts and a design to the residuals of genes, and to their coordinates along the contrasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.data import Trend
from nbcompare._nb.dispersion.trend import prior_dispersion
from nbcompare._nb.hidden.directions import (
    ContrastDirection,
    contrast_direction,
    fitted_means,
    group_contrast,
    group_design,
    group_means,
    null_groups,
    residual_directions,
)
from nbcompare._nb.hidden.factors import GeneResiduals
from nbcompare._nb.hidden.moderation import mean_trend
from nbcompare._nb.hidden.stabilise import SMALLEST_DISPERSION, residuals


@dataclass(frozen=True)
class HiddenData:
    """Counts of a data set, and what is known of their dispersion and their design."""

    counts: np.ndarray  # (n_genes, n_samples) float64, genes with counts
    exposures: np.ndarray  # (1 or n_genes, n_samples) size factors
    design: np.ndarray  # (n_samples, p) of full column rank
    trend: Trend
    ratio: np.ndarray  # (n_samples,) dispersion of the samples relative to the gene's
    group: np.ndarray | None = None  # (n_samples,) where the design is one column for each group

    @property
    def working(self) -> np.ndarray:
        """Dispersion that the trend expects of each gene, (n_genes,)."""
        mean = self.counts.mean(axis=1)
        found = prior_dispersion(mean, self.trend.at(mean), self.trend.log_dispersion_var, self.trend.error)[0]
        return np.maximum(found, SMALLEST_DISPERSION)

    def genes(self, chosen: np.ndarray) -> HiddenData:
        """The same of some genes."""
        exposures = self.exposures if len(self.exposures) == 1 else np.ascontiguousarray(self.exposures[chosen])
        counts = np.ascontiguousarray(self.counts[chosen])
        return HiddenData(counts, exposures, self.design, self.trend, self.ratio, self.group)


@dataclass(frozen=True)
class Coordinates:
    """Genes along one contrast."""

    along: np.ndarray  # (n_genes,) residuals without the contrast along q
    root_information: np.ndarray  # (n_genes,) what one natural log unit along q adds to it
    contrast: ContrastDirection


def group_data(
    counts: np.ndarray,
    exposures: np.ndarray,
    group: np.ndarray,
    block: np.ndarray | None,
    trend: Trend,
    ratio: np.ndarray,
) -> HiddenData:
    """The data of samples in groups, perhaps within blocks."""
    return HiddenData(counts, exposures, group_design(group, block), trend, ratio, group if block is None else None)


def gene_residuals(data: HiddenData) -> tuple[GeneResiduals, np.ndarray, np.ndarray]:
    """Residuals along all directions that the design leaves free, these directions (n_samples, d), and the information of each count."""
    working = data.working
    dispersions = working[:, None] * data.ratio
    means = (
        fitted_means(data.counts, data.exposures, data.design, working)
        if data.group is None
        else group_means(data.counts, data.exposures, data.group)
    )
    information = means / (1 + dispersions * means)
    of_gene = information.mean(axis=1)
    rho = np.minimum(working * of_gene, 1.0)
    directions = residual_directions(data.design)
    along = residuals(data.counts, means, dispersions) @ directions
    trend = mean_trend(data.counts.mean(axis=1))
    return GeneResiduals(along, rho, np.sqrt(of_gene), trend), directions, information


def contrast_coordinates(
    data: HiddenData, information: np.ndarray, contrast: np.ndarray, pair: tuple[int, int] | None = None
) -> Coordinates:
    """Genes along a contrast of coefficients: residuals around the fit without the contrast, so that counts are compared on one scale.

    `pair` are the reference (-1: all others) and the treated group where the design is groups.
    """
    found = contrast_direction(data.design, contrast)
    working = data.working
    if pair is None or data.group is None:
        means = fitted_means(data.counts, data.exposures, found.null_design, working)
    else:
        means = group_means(data.counts, data.exposures, null_groups(data.group, *pair))
    along = residuals(data.counts, means, working[:, None] * data.ratio) @ found.direction
    return Coordinates(along, np.sqrt(information @ found.direction**2), found)


def pair_contrast(data: HiddenData, group: np.ndarray, reference: int, treated: int) -> np.ndarray:
    """Weights of the coefficients of the design for one group against another, those of blocks zero."""
    weights = group_contrast(group, reference, treated)
    return np.r_[weights, np.zeros(data.design.shape[1] - len(weights))]
