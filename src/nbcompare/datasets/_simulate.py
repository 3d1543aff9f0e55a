from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from nbcompare._arguments import checked


@checked
def simulate(
    *,
    n_genes: int = 2000,
    n_conditions: int = 2,
    n_replicates: int | Sequence[int] = 3,
    n_cells: int = 100,
    n_cells_sd: float = 0.4,
    depth: float = 1000.0,
    depth_sd: float = 0.3,
    abundance_sd: float = 1.5,
    de_fraction: float = 0.1,
    effect_sd: float = 1.5,
    dispersion: float = 0.05,
    dispersion_extra: float = 1.0,
    dispersion_sd: float = 0.7,
    paired: bool = False,
    donor_sd: float = 0.3,
    rng: int | np.random.Generator | None = 0,
) -> AnnData:
    r"""Cells of several conditions and replicates, with known effects and dispersions.

    Replicates, not cells, carry the overdispersion. Gene :math:`g` in replicate :math:`r` of condition :math:`k` has
    a gamma distributed rate :math:`\Lambda_{gkr} = a_g \, 2^{\beta_{gk}} \, b_{gr} \, \Gamma_{gkr}` with
    :math:`E\,\Gamma = 1` and :math:`\operatorname{Var}\Gamma = \phi_g`, and a cell of depth :math:`l_c` has a
    :math:`\operatorname{Poisson}(l_c \Lambda_{gkr})` count. The summed cells of a sample are then exactly negative
    binomial, variance :math:`m + \phi_g m^2`. The dispersion follows the trend
    :math:`\phi = \texttt{dispersion} + \texttt{dispersion\_extra} / m`, :math:`m` the mean count of a sample, times a
    log-normal factor per gene.

    Parameters
    ----------
    n_genes
        Number of genes.
    n_conditions
        Number of conditions: the reference `"ctrl"` and `"treated_1"`, `"treated_2"`, ...
    n_replicates
        Replicates of each condition: one number, or one for each condition, the reference first.
    n_cells
        Mean number of cells of a sample.
    n_cells_sd
        Standard deviation of the natural log of the number of cells: samples are unequal. 0 for equal ones.
    depth
        Mean counts of a cell of the reference.
    depth_sd
        Standard deviation of the natural log of the depth of a cell.
    abundance_sd
        Standard deviation of the natural log of the abundance of the genes.
    de_fraction
        Share of the genes with an effect, drawn anew for each condition.
    effect_sd
        Standard deviation of these effects, log2; they are normal around zero.
    dispersion
        Dispersion of abundant genes.
    dispersion_extra
        What rare genes have more, over the mean count of a sample.
    dispersion_sd
        Standard deviation of the natural log of the dispersions around their trend.
    paired
        Whether all conditions come from the same donors. A donor then has effects of its own, shared by its
        samples, and `.obs["donor"]` names it: compare with `block_key="donor"`.
    donor_sd
        Standard deviation of the donor effects, natural log. Without `paired` there are none.
    rng
        Seed or generator; the same seed gives the same cells. `None` for fresh ones.

    Returns
    -------
    Cells by genes, counts as CSR float32, and the truth:
    `.obs["condition"]`, `.obs["replicate"]` and, when paired, `.obs["donor"]` (categorical);
    `.varm["true_logfoldchanges"]` (n_genes, n_conditions - 1), log2, condition over reference;
    `.var["true_dispersion"]`; `.var["true_mean"]`, mean count of a reference sample of `n_cells` cells;
    `.uns["simulate"]`, the arguments.

    Raises
    ------
    ValueError
        If a number is out of range, or paired conditions have unequal numbers of replicates.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.simulate(n_genes=50, n_conditions=3, n_cells=20, rng=0)
    >>> adata.obs["condition"].cat.categories.to_list(), adata.varm["true_logfoldchanges"].shape
    (['ctrl', 'treated_1', 'treated_2'], (50, 2))
    """
    replicates = _replicates(n_replicates, n_conditions=n_conditions, paired=paired)
    arguments = {
        "n_genes": n_genes,
        "n_conditions": n_conditions,
        "n_replicates": replicates,
        "n_cells": n_cells,
        "n_cells_sd": n_cells_sd,
        "depth": depth,
        "depth_sd": depth_sd,
        "abundance_sd": abundance_sd,
        "de_fraction": de_fraction,
        "effect_sd": effect_sd,
        "dispersion": dispersion,
        "dispersion_extra": dispersion_extra,
        "dispersion_sd": dispersion_sd,
        "paired": paired,
        "donor_sd": donor_sd,
        "rng": int(rng) if isinstance(rng, int | np.integer) else type(rng).__name__,
    }
    _check_ranges(arguments)
    generator = np.random.default_rng(rng)

    abundance = generator.lognormal(0.0, abundance_sd, n_genes)
    abundance /= abundance.sum()
    mean = abundance * depth * n_cells
    phi = (dispersion + dispersion_extra / mean) * np.exp(generator.normal(0.0, dispersion_sd, n_genes))
    changed = generator.random((n_genes, n_conditions - 1)) < de_fraction
    log2_fc = np.where(changed, generator.normal(0.0, effect_sd, changed.shape), 0.0)

    condition = np.repeat(np.arange(n_conditions), replicates)  # of a sample
    number = np.concatenate([np.arange(n) for n in replicates])  # of the replicate within its condition
    rate = abundance * 2.0 ** np.column_stack([np.zeros(n_genes), log2_fc]).T[condition]
    if paired:
        rate *= np.exp(generator.normal(0.0, donor_sd, (replicates[0], n_genes)) - donor_sd**2 / 2)[number]
    rate *= _unit_gamma(phi, rate.shape, generator)
    cells = np.rint(n_cells * np.exp(generator.normal(-(n_cells_sd**2) / 2, n_cells_sd, condition.size)))
    sample = np.repeat(np.arange(condition.size), np.maximum(cells, 1).astype(int))  # of a cell

    adata = AnnData(
        _cells(rate, sample, depth, depth_sd, generator),
        obs=_obs(condition, number, sample, n_conditions=n_conditions, paired=paired),
        var=pd.DataFrame(
            {"true_mean": mean, "true_dispersion": phi},
            index=[f"gene_{i:0{len(str(n_genes - 1))}d}" for i in range(n_genes)],
        ),
    )
    adata.varm["true_logfoldchanges"] = log2_fc
    adata.uns["simulate"] = arguments
    return adata


def _replicates(n_replicates: int | Sequence[int], *, n_conditions: int, paired: bool) -> list[int]:
    """One number for each condition."""
    if n_conditions < 1:
        msg = f"n_conditions is {n_conditions}; give 1 (the reference alone) or more."
        raise ValueError(msg)
    replicates = [int(n) for n in n_replicates] if isinstance(n_replicates, Sequence) else [n_replicates] * n_conditions
    if len(replicates) != n_conditions or min(replicates) < 1:
        msg = f"n_replicates is {n_replicates}; give one number of 1 or more, or one for each of the {n_conditions} conditions."
        raise ValueError(msg)
    if paired and len(set(replicates)) > 1:
        msg = f"n_replicates is {n_replicates}; paired conditions have the same donors, so give one number, or paired=False."
        raise ValueError(msg)
    return replicates


def _check_ranges(arguments: dict) -> None:
    """Counts of things and depths are positive, spreads not negative, the share within 0 and 1."""
    for name, value in arguments.items():
        if name in {"n_genes", "n_cells", "depth"} and not value > 0:
            msg = f"{name} is {value}; it must be above 0."
            raise ValueError(msg)
        if (name.endswith("_sd") or name.startswith("dispersion")) and not value >= 0:
            msg = f"{name} is {value}; it must be 0 or more."
            raise ValueError(msg)
    if not 0 <= arguments["de_fraction"] <= 1:
        msg = f"de_fraction is {arguments['de_fraction']}; it is a share between 0 and 1."
        raise ValueError(msg)


def _unit_gamma(phi: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Gamma variables of mean 1 and variance phi; exactly 1 where phi is 0."""
    safe = np.maximum(phi, 1e-12)
    return np.where(phi > 0, generator.gamma(1 / safe, safe, shape), 1.0)


def _cells(
    rate: np.ndarray, sample: np.ndarray, depth: float, depth_sd: float, generator: np.random.Generator
) -> sparse.csr_matrix:
    """Poisson counts of each cell (n_cells, n_genes), one sample after the other so that little is dense at a time."""
    size = depth * np.exp(generator.normal(-(depth_sd**2) / 2, depth_sd, sample.size))
    blocks = [
        sparse.csr_matrix(generator.poisson(size[sample == i, None] * rate[i]).astype(np.float32))
        for i in range(rate.shape[0])
    ]
    return sparse.vstack(blocks, format="csr")


def _obs(
    condition: np.ndarray, number: np.ndarray, sample: np.ndarray, *, n_conditions: int, paired: bool
) -> pd.DataFrame:
    """Condition and replicate of each cell; replicates have names of their own unless they are shared donors."""
    levels = ["ctrl", *(f"treated_{k}" for k in range(1, n_conditions))]
    names = np.array(
        [f"donor_{r + 1}" if paired else f"{levels[k]}_{r + 1}" for k, r in zip(condition, number, strict=True)]
    )
    replicate = pd.Categorical(names[sample], categories=list(dict.fromkeys(names.tolist())))
    columns = {"condition": pd.Categorical(np.array(levels)[condition[sample]], categories=levels)}
    columns |= {"replicate": replicate} | ({"donor": replicate.copy()} if paired else {})
    return pd.DataFrame(columns, index=[f"cell_{i}" for i in range(sample.size)])
