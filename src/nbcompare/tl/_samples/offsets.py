"""Known log factors of every count (gene lengths, GC content, ambient corrections), beside the depth of the sample."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from nbcompare._anndata import SampleTable, numbers_of, read_values

FACTORS = 1e-6  # log geometric means below say that a matrix holds normalisation factors, not their logs


def read_offsets(adata: AnnData, samples: SampleTable, offset: str | np.ndarray) -> np.ndarray:
    """Natural logs (n_samples, n_genes) of a layer or matrix of rows that are samples, with mean 0 in each gene.

    What a gene has in all samples alike, its length, says nothing of differences.
    """
    used = np.flatnonzero(samples.codes >= 0)
    if len(used) > len(samples.table):
        msg = (
            f"offset belongs to samples, but {len(used)} rows are summed into {len(samples.table)} samples, and the logarithms of "
            "factors have no sum. Sum the cells with pp.pseudobulk first, and give its rows their offsets."
        )
        raise ValueError(msg)
    if isinstance(offset, str):
        values = read_values(adata, offset)
    else:
        needed = f"a natural logarithm is needed for each row and gene: {adata.shape}."
        values = numbers_of(offset, {"row": adata.obs_names, "gene": adata.var_names}, "offset", needed)
    of_sample = np.empty((len(samples.table), adata.n_vars))
    of_sample[samples.codes[used]] = values[used]
    if not np.isfinite(of_sample).all():
        bad = np.argwhere(~np.isfinite(of_sample))
        msg = (
            f"offset is not finite in {len(bad)} entries, such as gene {adata.var_names[bad[0, 1]]!r} of sample "
            f"{samples.names[bad[0, 0]]!r}. It holds natural logarithms of factors; 0 stands for no correction."
        )
        raise ValueError(msg)
    if (of_sample > 0).all() and np.abs(np.log(of_sample).mean(axis=0)).max() < FACTORS:
        msg = "offset holds factors with geometric mean 1 in each gene, but their natural logarithms are needed: pass np.log of it."
        raise ValueError(msg)
    return of_sample - of_sample.mean(axis=0)


def offset_factors(exposure: np.ndarray, of_gene: np.ndarray | None) -> np.ndarray | None:
    """The factors of the offsets as they are stored, (n_genes, n_samples): exposures over size factors, None without offsets."""
    return None if of_gene is None else (of_gene / exposure).astype(np.float32)
