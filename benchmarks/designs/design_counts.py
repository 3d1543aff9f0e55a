"""The eight designs of benchmarks/designs/designs.py, and counts simulated in them with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SETTINGS = {  # dispersion at high means, log-sd of its scatter, log-sd of the exposures
    "moderate": (0.1, 0.5, 0.3),
    "scattered": (0.02, 1.0, 0.3),
    "unequal depths": (0.1, 0.5, 1.0),
    "hard": (0.4, 0.7, 0.3),
}
MODERATE = tuple(SETTINGS)[:3]
NUISANCE = 0.5  # standard deviation of the effects that are not tested
EFFECT = 3.0  # of true effects, in standard errors
SHARE = 0.2  # of genes with an effect


@dataclass(frozen=True)
class Simulated:
    """Counts of a design, tested at one contrast."""

    counts: np.ndarray  # (n_genes, n_samples)
    log_exposure: np.ndarray  # (1, n_samples)
    design: np.ndarray  # (n_samples, n_coefficients)
    contrast: np.ndarray  # (n_coefficients,)
    mean: np.ndarray  # (n_genes,)
    dispersion: np.ndarray  # (n_genes,)
    null: np.ndarray  # (n_genes,) bool


def paired(n_donors: int) -> np.ndarray:
    """A column a donor, the condition last."""
    return np.column_stack([np.tile(np.eye(n_donors), (2, 1)), np.repeat([0.0, 1.0], n_donors)])


def batches() -> np.ndarray:
    """Three against three; two controls and one treated sample in the first batch, one and two in the second."""
    return np.column_stack([np.ones(6), [0, 0, 1, 0, 1, 1], np.repeat([0.0, 1.0], 3)])


def interaction() -> np.ndarray:
    """Two factors, three samples in each of four cells; the interaction last."""
    first, second = np.repeat([0.0, 0.0, 1.0, 1.0], 3), np.repeat([0.0, 1.0, 0.0, 1.0], 3)
    return np.column_stack([np.ones(12), first, second, first * second])


def slope() -> np.ndarray:
    """Ten samples along a covariate."""
    return np.column_stack([np.ones(10), np.linspace(-1.5, 1.5, 10)])


def adjusted() -> np.ndarray:
    """Three against three with a covariate."""
    return np.column_stack([np.ones(6), [-1.2, 0.1, 0.9, -0.6, 0.4, 1.3], np.repeat([0.0, 1.0], 3)])


def groups() -> np.ndarray:
    """Five groups of three, a column for each but the first; the last is tested."""
    return np.column_stack([np.ones(15), np.repeat(np.eye(5), 3, axis=0)[:, 1:]])


DESIGNS = {
    "3 donors x 2": paired(3),
    "4 donors x 2": paired(4),
    "8 donors x 2": paired(8),
    "3 v 3 in 2 batches, unbalanced": batches(),
    "2 x 2 interaction, 3 a cell": interaction(),
    "slope of a covariate, n = 10": slope(),
    "3 v 3 adjusted for a covariate": adjusted(),
    "5 groups of 3, one contrast": groups(),
}


def simulate(rng: np.random.Generator, name: str, setting: str, n_genes: int) -> Simulated:
    """Genes of mean 1 to 1000 (log-uniform), dispersion phi0 (1 + 5/mean) LogNormal, the last coefficient tested and zero in most."""
    design = DESIGNS[name]
    n, p = design.shape
    phi0, log_dispersion_var, spread = SETTINGS[setting]
    mean = np.exp(rng.uniform(0, np.log(1000), n_genes))
    phi = phi0 * (1 + 5 / mean) * np.exp(rng.normal(0, log_dispersion_var, n_genes))
    log_exposure = rng.normal(0, spread, n)
    log_exposure -= log_exposure.mean()
    nuisance = rng.normal(0, NUISANCE, (n_genes, p - 1))
    nuisance[:, 0] *= not np.allclose(design[:, 0], 1)  # the intercept is the mean
    base = np.log(mean)[:, None] + nuisance @ design[:, :-1].T + log_exposure
    weight = 1 / (np.exp(-base) + phi[:, None])
    information = np.einsum("gi,ij,ik->gjk", weight, design, design)
    se = np.sqrt(np.linalg.inv(information)[:, -1, -1])
    null = rng.random(n_genes) >= SHARE
    effect = np.where(null, 0, np.minimum(EFFECT * se, 4.0) * rng.choice([-1, 1], n_genes))
    m = np.exp(base + effect[:, None] * design[:, -1])
    counts = rng.poisson(m * rng.gamma(1 / phi[:, None], phi[:, None], m.shape)).astype(float)
    contrast = np.zeros(p)
    contrast[-1] = 1
    return Simulated(counts, log_exposure[None], design, contrast, mean, phi, null)
