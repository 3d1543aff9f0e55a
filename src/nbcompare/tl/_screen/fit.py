"""What all tests of a screen share: fitted once, kept beside the results, and taken up again for new perturbations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nbcompare._anndata import as_text
from nbcompare._counts.size_factor_reference import DepthReference, depth_factors, fit_depths
from nbcompare._counts.size_factors import follows_depth
from nbcompare._messages import warn
from nbcompare._nb.data import Pseudobulk
from nbcompare._nb.dispersion.underdispersion import flagged
from nbcompare._nb.screen.model import ScreenModel, fit_screen
from nbcompare.tl._samples.checks import sample_flags, warn_of_underdispersion
from nbcompare.tl._screen.options import ScreenOptions
from nbcompare.tl._screen.samples import ScreenData
from nbcompare.tl._screen.targets import Targets, block_codes, check_fit, choose_fit_perturbations, samples_of_fit


@dataclass(frozen=True)
class Depths:
    """How deep samples are, on the scale of those of the fit."""

    reference: DepthReference | None  # None where depths are given
    log_unit: float  # of given depths: mean log over the samples of the fit
    may_exclude: bool  # whether samples whose depth the counts do not determine are not tested: under "auto"

    def at(
        self,
        counts: np.ndarray,
        given: np.ndarray | None,
        rows: np.ndarray,
        groups: np.ndarray,
        *,
        n_threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Size factors of these rows of (n_samples, n_genes), of these groups (n_rows,), 1 where unknown, and which the counts do not determine."""
        if self.reference is None:
            assert given is not None
            return np.exp(np.log(given[rows]) - self.log_unit), np.zeros(len(rows), bool)
        factors, unknown = depth_factors(self.reference, counts, groups, rows=rows, n_threads=n_threads)
        absent = np.isnan(factors)
        return np.where(absent, 1.0, factors), (unknown & self.may_exclude) | absent


def depths_by(method: str, counts: np.ndarray, groups: np.ndarray, *, n_threads: int = 1) -> Depths:
    """Size factors by a method, relative to samples (n_samples, n_genes) of these groups (n_samples,)."""
    factors, reference = fit_depths(counts, method, groups, n_threads=n_threads)
    if reference.method == "poscounts" and (text := follows_depth(factors, counts.sum(axis=1))):
        warn(text)
    return Depths(reference, 0.0, method == "auto")


@dataclass(frozen=True)
class ScreenFit:
    """The model of a screen, and what turns samples into its units."""

    model: ScreenModel
    depths: Depths
    base_mean: np.ndarray  # (n_genes,) mean of counts / size factor over the samples of the fit
    reference_flags: np.uint32  # status bits of the reference's samples, taken over by all tests
    blocks: np.ndarray  # labels of the blocks, empty without
    fit_perturbations: np.ndarray  # names of the perturbations of the fit, whose groups count from 1

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For a file."""
        depth = {} if self.depths.reference is None else self.depths.reference.to_arrays()
        return {
            **{f"model_{name}": values for name, values in self.model.to_arrays().items()},
            **{f"depth_{name}": values for name, values in depth.items()},
            "log_unit": np.array(self.depths.log_unit),
            "depths_judged": np.array(self.depths.may_exclude),
            "base_mean": self.base_mean,
            "reference_flags": np.array(self.reference_flags),
            "blocks": self.blocks,
            "fit_perturbations": self.fit_perturbations,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ScreenFit:
        """From a file."""
        model, depth = (
            {name.removeprefix(part): values for name, values in arrays.items() if name.startswith(part)}
            for part in ("model_", "depth_")
        )
        return cls(
            ScreenModel.from_arrays(model),
            Depths(
                DepthReference.from_arrays(depth) if depth else None,
                float(arrays["log_unit"]),
                bool(arrays["depths_judged"]),
            ),
            arrays["base_mean"],
            np.uint32(arrays["reference_flags"]),
            arrays["blocks"],
            arrays["fit_perturbations"],
        )

    def places_of(self, names: np.ndarray) -> np.ndarray:
        """Groups of perturbations in the fit, -1 for one that was not part of it."""
        places = {name: place for place, name in enumerate(self.fit_perturbations, start=1)}
        return np.array([places.get(name, -1) for name in names], dtype=np.int64)


def fit_model(data: ScreenData, targets: Targets, options: ScreenOptions, *, n_threads: int = 1) -> ScreenFit:
    """Fit on the reference and evenly spaced perturbations."""
    samples = data.samples
    fit_perturbations = targets[choose_fit_perturbations(targets, options.n_fit_perturbations)]
    rows, group = samples_of_fit(samples, str(options.reference), fit_perturbations)
    chosen = data.counts[rows].astype(np.float64, copy=False)
    if data.depths is None:
        depths = depths_by(str(options.size_factors), chosen, group, n_threads=n_threads)
    else:
        depths = Depths(None, float(np.log(data.depths[rows]).mean()), False)
    exposure, unstable = depths.at(data.counts, data.depths, rows, group, n_threads=n_threads)
    blocked = "block" in samples.table
    labels = as_text(list(dict.fromkeys(samples.table["block"].iloc[rows])) if blocked else [])
    block = block_codes(samples, labels, rows)
    pseudobulk = Pseudobulk(np.ascontiguousarray(chosen.T), exposure, group, block)
    del chosen  # half a gigabyte for 3,000 samples of 20,000 genes
    check_fit(samples, pseudobulk)
    of_reference = sample_flags(samples.tiny[rows], unstable)[group == 0]
    model = fit_screen(pseudobulk, 0, min_gene_counts=options.min_gene_counts, n_threads=n_threads)
    if warn_of_underdispersion(pseudobulk):
        model = replace(model, gene_status=flagged(model.gene_status))
    return ScreenFit(
        model,
        depths,
        pseudobulk.counts @ (1 / exposure) / len(exposure),
        np.bitwise_or.reduce(of_reference),
        labels,
        fit_perturbations.names,
    )
