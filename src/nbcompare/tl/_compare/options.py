"""Options of `nb_compare`: five frozen records, and how they are stored."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from nbcompare._arguments import plain
from nbcompare.tl._formula.contrasts import Contrast
from nbcompare.tl._posterior.options import PosteriorOptions
from nbcompare.tl._samples.options import SampleOptions, SizeFactorOptions

Alternative = Literal["greater_abs", "less_abs"]
NOT_STORED = ("number_labels", "reference_levels", "size_factors", "offset", "contrast")  # or in another form


@dataclass(frozen=True)
class Question:
    """Which comparisons are made: groups with a reference, or contrasts of a design."""

    reference: str | None = None
    groups: Any = "all"
    design: str | None = None
    contrast: Contrast | None = None
    reference_levels: tuple[str, ...] = ()  # where several groups are one reference
    number_labels: AbstractSet[str] | None = None  # columns of numbers that are labels in all splits, once known

    @property
    def formula(self) -> str:
        """The formula of a call with a design."""
        return self.design or ""


@dataclass(frozen=True)
class TestOptions:
    """Test, and estimator of dispersions; log2 fold changes."""

    __test__ = False  # not for pytest
    method: str = "mom"
    test: str = "moderated"
    dispersion: str = "all"
    cox_reid: bool = False
    min_gene_counts: float = 10
    lfc_threshold: float = 0
    alternative: Alternative = "greater_abs"
    shrink: bool = False
    common_shift: bool = False
    hidden_factors: str | int | None = None


@dataclass(frozen=True)
class CompareOptions:
    """All options of a call."""

    samples: SampleOptions
    question: Question
    size_factors: SizeFactorOptions
    test: TestOptions
    posterior: PosteriorOptions

    def asking(self, **changes: Any) -> CompareOptions:
        """The same options with another question."""
        return replace(self, question=replace(self.question, **changes))

    def as_stored(self) -> dict[str, Any]:
        """The arguments as files can hold them; arrays and contrasts as text."""
        records = (self.samples, self.question, self.size_factors, self.test, self.posterior)
        values = {field.name: getattr(record, field.name) for record in records for field in fields(record)}
        stored = {name: plain(value) for name, value in values.items() if name not in NOT_STORED}
        stored["contrast"] = None if values["contrast"] is None else repr(values["contrast"])
        for name in ("size_factors", "offset"):
            stored[name] = values[name] if values[name] is None or isinstance(values[name], str) else "given"
        if self.question.reference_levels:
            stored["reference_levels"] = plain(list(self.question.reference_levels))
        return stored
