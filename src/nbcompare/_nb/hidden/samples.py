"""Hidden factors as columns of samples, for figures and for designs of other methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbcompare._nb.hidden.blend import blend_weights
from nbcompare._nb.hidden.compare import STORED_WEIGHT, HiddenModel
from nbcompare._nb.hidden.dataset import contrast_coordinates, pair_contrast
from nbcompare._nb.hidden.slopes import fit_slopes


@dataclass(frozen=True)
class SampleFactors:
    """Factors of samples and loadings of genes."""

    factors: np.ndarray  # (n_samples, k) mean zero
    loadings: np.ndarray  # (n_genes, k) natural log units that one unit of the factor adds


def chosen_number(model: HiddenModel) -> int:
    """The number of factors asked for, or the largest that the held-out tests give weight to."""
    if model.n_factors is not None:
        return model.n_factors
    weights = blend_weights(model.held_out.score)
    return 0 if weights[0] == 1 else int(np.flatnonzero(weights >= min(STORED_WEIGHT, weights.max()))[-1])


def sample_factors(model: HiddenModel, group: np.ndarray, k: int) -> SampleFactors:
    """The first k factors: residual directions, and differences between groups from the slopes of each group on the first."""
    efficiency = model.directions @ model.factors.vectors[:, :k]
    means = np.zeros((int(group.max()) + 1, k))
    d = model.directions.shape[1]
    for c in range(1, len(means)):
        pair = (0, c)
        at = contrast_coordinates(model.data, model.information, pair_contrast(model.data, group, *pair), pair)
        weight = np.where(at.root_information > 0, model.residuals.weight, 0.0)
        slopes = fit_slopes(at.along, at.root_information, weight, model.factors, d)
        means[c] = slopes.slopes[k, :k] * at.contrast.length
    factors = efficiency + means[group]
    loadings = model.factors.loadings[:, :k] / model.residuals.root_information[:, None]
    return SampleFactors(factors - factors.mean(axis=0), loadings)
