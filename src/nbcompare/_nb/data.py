"""The nouns of the method: what goes into an estimator or a test, and what comes out. Natural logarithms throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """The replicates of one condition."""

    counts: np.ndarray  # (n_genes, n_replicates) float64, whole numbers
    exposure: np.ndarray  # (n_replicates,) size factors, > 0


@dataclass(frozen=True)
class Pseudobulk:
    """All samples of a data set, a sample being the summed cells of one condition and one replicate."""

    counts: np.ndarray  # (n_genes, n_samples) float64, C order: the samples of a gene lie side by side
    exposure: np.ndarray  # (n_samples,) size factors, > 0
    group: np.ndarray  # (n_samples,) intp, condition of the sample, 0 .. n_groups - 1
    block: np.ndarray | None = None  # (n_samples,) intp, block (donor, batch) of the sample, 0 .. n_blocks - 1
    of_gene: np.ndarray | None = None  # (n_genes, n_samples) exposures where genes have their own

    @property
    def exposures(self) -> np.ndarray:
        """Exposures, (1 or n_genes, n_samples)."""
        return self.exposure[None, :] if self.of_gene is None else self.of_gene

    @property
    def n_groups(self) -> int:
        """Number of conditions."""
        return int(self.group.max()) + 1

    @property
    def n_blocks(self) -> int:
        """Number of blocks, 1 without blocks."""
        return 1 if self.block is None else int(self.block.max()) + 1

    def take(self, samples: np.ndarray) -> Group:
        """The samples at these positions as one `Group`."""
        return Group(np.ascontiguousarray(self.counts[:, samples]), self.exposure[samples])


@dataclass(frozen=True)
class Trend:
    """Dispersion against mean count, and how far genes spread around it."""

    mean: np.ndarray  # (n_bins,) mean count of a sample at the knots, ascending
    dispersion: np.ndarray  # (n_bins,) dispersion at the knots
    log_dispersion_var: float  # variance of log dispersion between genes of one mean
    n_genes: int  # genes that informed the spread
    error: float = 0.0  # variance of the trend itself, where few genes inform it: of the log of relative variances

    def at(self, mean: np.ndarray) -> np.ndarray:
        """Dispersion at these mean counts: log-linear between the knots, constant beyond them."""
        return np.exp(np.interp(np.log(np.maximum(mean, 1e-9)), np.log(self.mean), np.log(self.dispersion)))


@dataclass(frozen=True)
class Fit:
    """Estimates of one comparison."""

    log_mean: np.ndarray  # (n_genes,) natural log of the reference's rate per unit of exposure
    log_fc: np.ndarray  # (n_genes,) natural log fold change, treated over reference
    dispersion: np.ndarray  # (n_genes,) phi of variance = m + phi m^2
    status: np.ndarray  # (n_genes,) uint32, bits of `status.Status`


@dataclass(frozen=True)
class TestResult:
    """Inference of one comparison."""

    se: np.ndarray  # (n_genes,) standard error of the natural log fold change, NaN where not tested
    statistic: np.ndarray  # (n_genes,) signed, a standard normal deviate under the null
    p_value: np.ndarray  # (n_genes,) two-sided, NaN where not tested
    status: np.ndarray  # (n_genes,) uint32, bits of `status.Status`
