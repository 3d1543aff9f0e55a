"""Whether samples of a data set share directions: the largest eigenvalue of the residuals against that of independent genes."""

from __future__ import annotations

import numpy as np

from nbcompare._nb.hidden.dataset import HiddenData, gene_residuals
from nbcompare._nb.hidden.factors import gram_eigenvectors
from nbcompare._nb.hidden.moderation import moderate_squares

ENOUGH_GENES = 2000


def shared_variation(data: HiddenData) -> float:
    """The largest eigenvalue of the weighted Gram matrix over (1 + sqrt(d / n))^2 times the mean, n = (sum w)^2 / sum w^2 genes.

    It is about one where genes are independent. Of many genes 2,000 are used, evenly spaced by mean.
    """
    mean = data.counts.mean(axis=1)
    order = np.argsort(mean, kind="stable")
    if len(order) > ENOUGH_GENES:
        order = order[np.linspace(0, len(order) - 1, ENOUGH_GENES).astype(np.intp)]
    residuals = gene_residuals(data.genes(order))[0]
    d = residuals.along.shape[1]
    moderated = moderate_squares((residuals.along**2).mean(axis=1), d, residuals.trend, residuals.rho)
    values = gram_eigenvectors(residuals.along, moderated.variance, residuals.weight)[0]
    n_genes = residuals.weight.sum() ** 2 / (residuals.weight**2).sum()
    return float(values[0] / values.mean() / (1 + np.sqrt(d / n_genes)) ** 2)
