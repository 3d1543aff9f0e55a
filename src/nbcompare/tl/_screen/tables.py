"""The tables of a screen's result: perturbations, genes, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from nbcompare._anndata import FORMAT, ScreenResult, in_memory, summary_of_screen
from nbcompare._anndata.rows import without_known
from nbcompare._messages import counted, listed, warn
from nbcompare._nb.inference.screen_fdr import Selection, select_rows
from nbcompare._nb.status import MEANING, status_codes, status_text
from nbcompare.tl._screen.fit import ScreenFit
from nbcompare.tl._screen.posterior import prior_of_screen
from nbcompare.tl._screen.run import Screen
from nbcompare.tl._screen.samples import ScreenData
from nbcompare.tl._screen.targets import targets_of


def tables(
    result: ScreenResult, screen: Screen, var: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """obs, var and uns of all runs."""
    first = result.runs[0]["fingerprint"]
    summaries = result.summaries()
    kept = [result.kept(f"samples_{run['start']:09d}") or {} for run in result.runs]
    samples = _joined(kept)
    obs, selection = _perturbations(summaries, first["params"]["fdr"], samples["dropped_samples"])
    uns = _description(first, screen, selection, samples)
    uns["summary"] = summary_of_screen(first["params"], obs, len(var), samples)
    return obs, _genes(var, screen.fit, summaries), {"nb_screen": uns}


def sample_tables(data: ScreenData, screen: Screen, reference: str | None) -> dict[str, np.ndarray]:
    """The samples of a run, and of the reference, those that were dropped, and how many cells were left out, for a file."""
    samples = data.samples
    control = targets_of(samples, [] if reference is None else [reference]).samples
    rows = np.append(control, screen.targets.samples)
    exposure = np.append(
        screen.fit.depths.at(data.counts, data.depths, control, np.zeros(len(control), int))[0], screen.exposure
    )
    used = without_known(samples.table).iloc[rows].assign(size_factor=exposure)
    return {
        **{f"samples {name}": column.to_numpy() for name, column in used.items()},
        **{f"dropped {name}": column.to_numpy() for name, column in samples.dropped.items()},
        **{f"left {reason}": np.array(number) for reason, number in samples.n_cells_excluded.items()},
    }


def _perturbations(
    summaries: Sequence[Mapping[str, np.ndarray]], fdr: float, dropped: pd.DataFrame
) -> tuple[pd.DataFrame, Selection]:
    """A row for each perturbation, those that act selected at this false discovery rate."""
    words = [word for word in summaries[0] if word not in ("names", "n_perturbations")]
    table = pd.DataFrame({word: np.concatenate([summary[word] for summary in summaries]) for word in words})
    table.index = pd.Index(np.concatenate([summary["names"] for summary in summaries]), dtype=object)
    selection = select_rows(table["pval"].to_numpy(), fdr)
    table = _with_reasons(table, dropped)
    return table.assign(pval_adj=selection.adjusted, selected=selection.selected), selection


def _with_reasons(table: pd.DataFrame, dropped: pd.DataFrame) -> pd.DataFrame:
    """The status that all genes of a perturbation share, as text, and the reason where none is tested."""
    why: Mapping[str, str] = (
        dict(dropped.groupby("condition", sort=False)["reason"].unique().map(", ".join)) if len(dropped) else {}
    )
    status = table["status"].map({value: status_text(int(value)) for value in table["status"].unique()})
    reasons = [
        "" if text == "ok" else f"no sample left: {why[name]}" if count == 0 and name in why else _meaning(text)
        for name, text, count in zip(table.index, status, table["n_replicates"], strict=True)
    ]
    return table.assign(status=pd.Categorical(list(status)), reason=pd.Categorical(reasons))


def warn_of_untested(obs: Any) -> None:
    """One warning of the perturbations in which no gene is tested, by the reason."""
    table = in_memory(obs[["n_tested", "status"]])
    named_already = table["status"].astype(str).str.contains("size_factor_unstable").to_numpy()
    without = table[(table["n_tested"].to_numpy() == 0) & ~named_already]
    if len(without):
        why = ", ".join(f"{n:,} {status}" for status, n in without["status"].astype(str).value_counts().items())
        msg = (
            f"No gene is tested in {len(without):,} of {counted(len(table), 'perturbation')} ({why}). They stay as rows with NaN; "
            f"the column 'reason' of .obs says why, such as for {listed(without.index, most=5)}."
        )
        warn(msg)


def _meaning(status: str) -> str:
    return "; ".join(MEANING[word].removeprefix("not tested: ") for word in status.split("|"))


def _genes(var: pd.DataFrame, fit: ScreenFit, summaries: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """As in the cells, and what the model and the hits say of each gene."""
    return var.assign(
        base_mean=fit.base_mean,
        dispersion_trend=fit.model.trend,
        dispersion=fit.model.reference_constants.dispersion[0],
        n_perturbations=np.sum([summary["n_perturbations"] for summary in summaries], axis=0),
    )


def _joined(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The samples of all runs."""

    def part(run: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in run.items() if name.startswith(prefix)}

    tables = {
        name: pd.concat([pd.DataFrame(part(run, prefix)) for run in runs], ignore_index=True)
        for name, prefix in {"samples": "samples ", "dropped_samples": "dropped "}.items()
    }
    left = {reason: int(sum(run[f"left {reason}"] for run in runs)) for reason in part(runs[0], "left ")}
    return {**tables, "n_cells_excluded": left}


def _description(
    fingerprint: Mapping[str, Any], screen: Screen, selection: Selection, samples: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters, samples, the model's trend, and what the layers' numbers mean."""
    params, fit = fingerprint["params"], screen.fit
    prior = (
        {} if screen.posterior is None else {"prior": prior_of_screen(screen.posterior, fit.model.log_dispersion_var)}
    )
    return {
        "params": params,
        "reference": params["reference"],
        **samples,
        "trend": {
            "mean": fit.model.knots,
            "dispersion": fit.model.knot_dispersion,
            "log_dispersion_var": fit.model.log_dispersion_var,
            "n_genes": fit.model.n_trend_genes,
            "reference_ratio": fit.model.reference_dispersion_ratio,
        },
        **prior,
        "fdr": {
            "level": params["fdr"],
            "n_selected": int(selection.selected.sum()),
            "level_within_selected": selection.level_within,
        },
        "status_codes": status_codes(),
        "status_meaning": dict(MEANING),
        "log_base": 2,
        "version": version("nbcompare"),
        "format": FORMAT,
        "fingerprint": {name: value for name, value in fingerprint.items() if name != "params"},
    }
