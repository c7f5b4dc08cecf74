"""What is written down of a run beside its questions and answers: `run.json`, and what stands in it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from app.comparison.report.contents import ControlLine

RunState = Literal["running", "stopped", "finished"]


class RunProblem(Exception):
    """The comparison cannot go on. One sentence: what is wrong, with the value, and what to do."""


class DrawnWith(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer is drawn with, said to each engine in full. `seed`: what the answers' seeds are made from:
    others for each question and repeat, the same for all models.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0


class RunOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of whom, and what is made of the answers.

    `models`: public names, the first is what the others are held against. `digest`: of the questions as they are asked.
    `repeats`: how often each model is asked everything again, for the noise floor. `likelihood`: whether the reference
    answers' log-probability is measured. `judge`: the model that judges pairs of answers.
    """

    models: tuple[str, ...]
    file: str
    digest: str
    count: int
    primary: str
    sampling: DrawnWith = DrawnWith()
    repeats: int = 1
    likelihood: bool = True
    judge: str | None = None

    @property
    def answered_by(self) -> tuple[object, ...]:
        """All that answers depend on: orders that have it alike share their answers."""
        return self.models, self.digest, self.sampling, self.repeats

    @property
    def weighed_by(self) -> tuple[object, ...]:
        """What is made of the answers once they are there."""
        return self.primary, self.likelihood, self.judge

    def asks_more_than(self, other: RunOrder) -> bool:
        """Whether something must be asked for this order that `other`, with the same answers, has not asked."""
        decides = self.primary == "logprob" != other.primary
        return decides or self.judge not in (None, other.judge) or (self.likelihood and not other.likelihood)


class SeenModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it was when the run began. `servings`: the digests of what its answers are made from, one for each
    of its engines; empty where nobody knows. `prompt`: the digest of the prompt that it makes of the first question,
    None where its engine does not tell. `parity`: what its certificate says. `only_openai`: it is told nothing that
    OpenAI does not have.
    """

    name: str
    backend: str = ""
    kind: str = ""
    version: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    parity: str | None = None
    servings: tuple[str, ...] = ()
    prompt: str | None = None
    only_openai: bool = False


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json`. `created` and `finished`: Unix seconds. `models`, `questions`: whose answers, and to how many, as in
    `order`. `state`: `stopped` where the run cannot go on, and `reason` says why; a run whose command was ended is
    still `running`. `format`: of the questions' file. `served`: the models as they were when the run began. `controls`:
    what could make them unlike besides their weights. `declared`: the primary measure that the run began with; None
    where it is still that of `order`.
    """

    version: Literal[1] = 1
    id: str
    created: int
    pair: str | None = None
    models: tuple[str, ...]
    questions: int
    state: RunState = "running"
    reason: str | None = None
    finished: int | None = None
    format: str = ""
    order: RunOrder
    declared: str | None = None
    served: tuple[SeenModel, ...] = ()
    controls: tuple[ControlLine, ...] = ()
    notes: tuple[str, ...] = ()


def encoded(value: Any) -> bytes:
    """The value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
