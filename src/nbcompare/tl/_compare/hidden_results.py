"""Comparisons adjusted for hidden factors as they are stored, and warnings about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri_exp

from nbcompare._messages import listed, warn
from nbcompare._nb.hidden.compare import Adjusted, Unadjusted
from nbcompare._nb.status import Status
from nbcompare.tl._compare.hidden_data import DEEP, FEW_GENES, ContrastOfSamples

WARNED_INFLATION = 2.0  # 1 + b'b: the factor's correlation with the contrast is above 0.7
LOG2 = np.log(2)


def unadjusted(arrays: Mapping[str, np.ndarray], genes: np.ndarray, c: int) -> Unadjusted:
    """One comparison as it was tested, in natural logarithms."""
    of = {word: arrays[word][genes, c] for word in ("scores", "logfoldchanges", "lfc_se", "lfc_lower", "lfc_upper")}
    p_all = arrays["pvals_unfiltered"][genes, c]
    with np.errstate(divide="ignore", invalid="ignore"):
        all_replicates = np.copysign(-ndtri_exp(np.log(np.maximum(p_all, 5e-324) / 2)), of["scores"])
    same = p_all == arrays["pvals"][genes, c]
    effects = (of[word] * LOG2 for word in ("logfoldchanges", "lfc_se", "lfc_lower", "lfc_upper"))
    return Unadjusted(of["scores"], np.where(same, of["scores"], all_replicates), *effects)


def store_adjusted(arrays: dict[str, np.ndarray], one: Adjusted, genes: np.ndarray, c: int) -> None:
    """Write the adjusted comparison into its column of the arrays."""
    result = one.result
    tested = np.isfinite(result.statistic)
    p_value, p_all = (2 * ndtr(-np.abs(z)) for z in (result.statistic, result.statistic_all))
    columns = {
        "scores": result.statistic,
        "pvals": p_value,
        "pvals_unfiltered": p_all,
        "logfoldchanges": result.log_fc / LOG2,
        "lfc_se": result.se / LOG2,
        "lfc_lower": result.lower / LOG2,
        "lfc_upper": result.upper / LOG2,
        "hidden_inflation": one.inflation,
    }
    for word, values in columns.items():
        arrays[word][genes[tested], c] = values[tested]
    now_alike = genes[tested & (p_value == p_all)]
    arrays["status"][now_alike, c] &= ~np.uint32(Status.OUTLIER_REPLICATE)


def described_factors(found: Sequence[Adjusted], score: np.ndarray, share: np.ndarray) -> dict[str, Any]:
    """The factors as they are stored; columns of `factors` belong to the comparisons that `factor_of` names by number."""
    k = np.array([one.factors.shape[1] for one in found], np.int64)
    by_load = [one.by_load for one in found]
    return {
        "n_factors": k,
        "weights": np.stack([one.weights for one in found]),
        "factors": np.concatenate([one.factors for one in found], axis=1),
        "factor_of": np.repeat(np.arange(len(found)), k),
        "slopes": np.concatenate([one.slopes for one in found]),
        "variance_inflation": np.array([one.variance_inflation for one in found]),
        "shift": np.array([one.shift for one in found]) / LOG2,
        "variance_share": share,
        "score": score,
        "inflation_loads": np.stack([np.full(5, np.nan) if one is None else _padded(one.loads) for one in by_load]),
        "inflation": np.stack([np.full(5, np.nan) if one is None else _padded(one.inflation) for one in by_load]),
        "refused": "",
    }


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, (0, 5 - len(values)), constant_values=np.nan)


def warn_of_refused(stored: Mapping[str, Any], splits: Sequence[str]) -> None:
    """One warning of the data set, or of all splits, in which `"auto"` could not estimate factors; `stored` as it is written."""
    found = {splits[int(number)]: one for number, one in stored.items()} if splits else {"": stored}
    refused = {name: one["refused"] for name, one in found.items() if one.get("refused")}
    if refused:
        name, reason = next(iter(refused.items()))
        where = f" in {len(refused)} of {len(splits)} splits ({listed(list(refused), most=5)})" if splits else ""
        in_first = f"{name!r}: " if splits else ""
        warn(f"hidden_factors='auto' adjusts for nothing{where}: {in_first}{reason}.")


def warn_of_few_genes(mean: np.ndarray) -> None:
    if (deep := int((mean >= DEEP).sum())) < FEW_GENES:
        warn(
            f"Only {deep} tested genes have a mean of {DEEP:g} counts per sample or more. Hidden factors are estimated less well from so few "
            "genes: compare with the p-values without factors ('pvals_without_factors' in .varm)."
        )


def warn_of_near(found: Sequence[Adjusted], contrasts: Sequence[ContrastOfSamples]) -> None:
    """One warning of the comparisons that a hidden factor follows closely."""
    near = {
        contrast.name: one.variance_inflation
        for contrast, one in zip(contrasts, found, strict=True)
        if one.variance_inflation > WARNED_INFLATION
    }
    if near:
        listed = ", ".join(f"{name!r} ({value:.1f} times the variance)" for name, value in list(near.items())[:5])
        warn(
            f"A hidden factor differs between the groups almost as the condition does, in {len(near)} of {len(found)} comparisons: {listed}. "
            "Log2 fold changes are uncertain there, because effects of the condition cannot be separated from the factor. Look for a batch "
            "or covariate that differs between the groups."
        )
