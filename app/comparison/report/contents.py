"""What a report of a comparison consists of. `report.json` is exactly these values; the HTML and Markdown reports are
made of nothing else, so that one can be made from a stored `report.json` at any time, in either language. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from app.comparison.analysis.findings import Findings

FORMAT = 1  # of report.json; goes up when a reader of an older one would read something wrongly


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One model as it was served: its public name, the digest of what its answers were made from, and how it ran."""

    name: str
    serving: str | None = None
    engine: str | None = None  # "vllm 0.32.0", as shown
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class ControlLine:
    """One thing that could make models unlike besides their weights: what (`sampling`, `prompt`, `context`, …), whether
    it was the same for all, and how that is known, in a sentence.
    """

    what: str
    state: Literal["same", "different", "unknown"]
    how: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How the comparison was run. `date` is ISO 8601 in UTC; `sampling` is what each request carried."""

    id: str
    date: str
    models: tuple[ComparedModel, ...]
    questions_file: str
    questions_format: str
    questions: int
    repeats: int  # how often the same was asked again, for the noise floor
    sampling: dict[str, Any]
    seed: int
    pair: str | None = None
    controls: tuple[ControlLine, ...] = ()
    notes: tuple[str, ...] = ()
    is_whole: bool = True  # False: the run ended before all questions were answered


@dataclass(frozen=True, slots=True)
class ShownMeasure:
    """A measure in words, English and Chinese. `unit`: "" for shares from 0 to 1; differences of these are shown in
    points. `higher_is_better` is None where neither direction is better.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    text: str
    chinese: str = ""


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """A model's answer as the report shows it. An error has no text."""

    model: str
    text: str
    reasoning: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    scores: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShownQuestion:
    """A question that is among the largest changes, with all models' answers."""

    id: str
    category: str | None
    prompt: str
    reference: str | None
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """The whole report. `headline` says the outcome in sentences, English and Chinese (`{"en": […], "zh": […]}`)."""

    run: RunFacts
    findings: Findings
    measures: tuple[ShownMeasure, ...]
    questions: tuple[ShownQuestion, ...]
    headline: dict[str, tuple[str, ...]]
    format: int = FORMAT
