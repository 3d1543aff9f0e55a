"""What can be asked of effects beside a test against zero: shrunken effects, and tests against a threshold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nbcompare._nb.inference.benjamini_hochberg import adjust_p_values
from nbcompare._nb.inference.shrinkage import shrink
from nbcompare._nb.inference.threshold import larger, smaller
from nbcompare._nb.status import Status, status_of
from nbcompare.tl._compare.options import TestOptions


def with_effects(
    arrays: dict[str, np.ndarray], shifted: np.ndarray | None, options: TestOptions
) -> dict[str, np.ndarray]:
    """The arrays with shrunken effects, by the p-values against zero, and with p-values against the threshold, if asked for.

    `shifted` are deviates of the nulls -threshold and threshold, (n_genes, n_comparisons, 2).
    """
    if options.shrink:
        arrays = {**arrays, **_shrunken(arrays)}
    if shifted is not None:
        arrays = {**arrays, **_against_threshold(arrays, shifted, options.alternative)}
    return arrays


def _shrunken(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Posterior of the effects, each comparison with a prior of its own. Logarithms to base 2."""
    columns = zip(*(arrays[word].T for word in ("logfoldchanges", "lfc_se", "pvals", "scores")), strict=True)
    found = [shrink(*column) for column in columns]
    return {
        word: np.stack([getattr(one, name) for one in found], axis=1)
        for word, name in {"lfc_shrunken": "mean", "lfc_shrunken_se": "sd", "lfsr": "lfsr", "svalue": "s_value"}.items()
    }


def _against_threshold(
    arrays: Mapping[str, np.ndarray], shifted: np.ndarray, alternative: str
) -> dict[str, np.ndarray]:
    """P-values, their adjustment and scores. A change that rests on one replicate is no more certain than without it."""
    before, status = arrays["pvals"], arrays["status"]
    tested, on_one = ~np.isnan(before), (status & Status.OUTLIER_REPLICATE) > 0
    below, above = np.where(tested[..., None], shifted, np.nan).transpose(2, 0, 1)
    if alternative == "less_abs":
        p, scores = smaller(below, above, arrays["logfoldchanges"])
        status = status_of(p, status & ~np.uint32(Status.OUTLIER_REPLICATE))
        return {"pvals": p, "pvals_adj": adjust_p_values(p), "scores": scores, "status": status} | _all(arrays, p)
    p, scores = larger(below, above, arrays["logfoldchanges"])
    guarded = np.where(on_one, np.maximum(p, before), p)
    scores = np.where(on_one & (before > p), arrays["scores"], scores)
    adjusted, status = adjust_p_values(guarded), status_of(guarded, status)
    return {"pvals": guarded, "pvals_adj": adjusted, "scores": scores, "status": status} | _all(arrays, p)


def _all(arrays: Mapping[str, np.ndarray], p: np.ndarray) -> dict[str, np.ndarray]:
    return {"pvals_unfiltered": p} if "pvals_unfiltered" in arrays else {}
