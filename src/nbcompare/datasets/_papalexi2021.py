from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import anndata

from nbcompare._arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData


@checked
def papalexi2021() -> AnnData:
    """Part of a real Perturb-seq screen with replicates: knock-outs in THP-1 cells under interferon gamma.

    8,456 cells and 299 genes of the ECCITE-seq screen of Papalexi et al., Nature Genetics 53:322 (2021), GSE153056:
    13 knocked-out genes and the control in three biological replicates. Five of the targets are among the measured
    genes (`STAT1`, `STAT2`, `CMTM6`, `NFKBIA`, `IFNGR2`) and must go down in their own knock-out; `STAT1` and
    `IFNGR2` knock-outs also lower the interferon genes `PSMB9`, `UBE2L6` and `APOBEC3G`.
    The file is part of the package; its licence (MIT) and what was changed stand beside it.

    Returns
    -------
    A fresh copy in memory: whole-number UMI counts in `.X` (CSR, float32);
    `.obs` with `perturbation` (the target, or `control`), `guide`, `replicate`, `is_control` and the numbers of UMIs;
    `.var["is_target"]`, the gene is one of the targets.

    Notes
    -----
    With 299 genes, of which three interferon genes hold 16 % of all UMIs, total counts are no measure of depth:
    compare with the median of ratios.

    Examples
    --------
    >>> import nbcompare as nb
    >>> adata = nb.datasets.papalexi2021()
    >>> adata.shape, adata.obs["perturbation"].nunique(), list(adata.obs["replicate"].cat.categories)
    ((8456, 299), 14, ['rep_1', 'rep_2', 'rep_3'])
    """
    with as_file(files("nbcompare.datasets") / "data" / "papalexi2021_eccite_a.h5ad") as path:
        return anndata.read_h5ad(path)
