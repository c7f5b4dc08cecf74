"""Measures files, one after the other, each in child processes of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from app.quant_report.figures import Measured, Scores, Speed
from app.quant_report.lower_bounds import Likeliest, bounds
from app.quant_report.passages import Passage
from app.quant_report.windows import Window
from backends.llama_cpp.likelihood.library import library

_CHILDREN: Final = Path(__file__).with_name("children")
SERVED, LOGITS, CHART = (_CHILDREN / f"{name}.py" for name in ("served", "logits", "chart"))
# The version whose library was seen to give the engine's own figures. Every other has to agree with the engine as well.
PROVEN_ENGINE: Final = "2026.10.11549"
TOLERANCE: Final = 0.001  # nats, between the library's log probabilities and the engine's
_PROBED: Final = (2, 5, 37, 128, 300)  # lengths of prompts that are compared
_TIMED_PROMPT: Final = 256  # tokens
_WRITTEN: Final = 64  # tokens
TOP: Final = 20  # as many as OpenAI's API tells
# libgomp's threads give the processor back soon: several times faster beside other work, and not slower alone.
_ENVIRONMENT: Final = {"GOMP_SPINCOUNT": "1000"}

EXACT: Final = "exact"
TOP_LOGPROBS: Final = "top-logprobs"
BOTH: Final = "both"
METHODS: Final = (EXACT, TOP_LOGPROBS, BOTH)


class Tell(Protocol):
    """Who is told how far the work is."""

    def step(self, text: str) -> None:
        """A new step begins."""

    def count(self, done: int, total: int) -> None:
        """So many tokens of the step are done."""


# As backends/toolenv/child.py has it: interpreter, script, request, progress; `env` on top.
Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Workbench:
    """How models are measured: the interpreter with numpy, threads, and windows of `size` tokens."""

    numpy_python: Path
    threads: int
    size: int
    call: Call
    tell: Tell

    @property
    def context(self) -> int:
        """The engine's context in tokens."""
        return max(self.size, _TIMED_PROMPT + _WRITTEN)

    def served(self, model: Path, **members: Any) -> Any:
        """What the embedded engine says of the model."""
        request = {"model": str(model), "threads": self.threads, "context": self.context, **members}
        return self.call(Path(sys.executable), SERVED, request, self._progress, env=_ENVIRONMENT)

    def logits(self, model: Path, **members: Any) -> Any:
        """What all logits say of the model."""
        request = {
            "library": str(library()),
            "model": str(model),
            "threads": self.threads,
            "context": self.size,
            "tolerance": TOLERANCE,
            **members,
        }
        return self.call(self.numpy_python, LOGITS, request, self._progress, env=_ENVIRONMENT)

    def _progress(self, said: Mapping[str, Any]) -> None:
        self.tell.count(int(said["done"]), int(said["total"]))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The text as the model's tokens: a list for each passage that was taken; `start` stands before every text (BOS).
    `refused` conversations are not there, because the chat template cannot render them.
    """

    passages: tuple[tuple[int, ...], ...]
    start: tuple[int, ...]
    refused: int
    first_refusal: str


def tokens(bench: Workbench, model: Path, passages: Sequence[Passage], limit: int) -> Tokens:
    """The first `limit` tokens of the passages, rendered by the model's own chat template as the engine has it."""
    asked = [
        {"messages": each.messages, **({"tools": each.tools} if each.tools else {})}
        if each.messages
        else {"text": each.text}
        for each in passages
    ]
    said = bench.served(model, passages=asked, limit=limit)
    return Tokens(tuple(map(tuple, said["tokens"])), tuple(said["bos"]), said["refused"], said["first_refusal"])


class Session:
    """The reference and everything that is compared with it, on the same windows. `scratch`: a file for the reference's
    logits. Each method blocks for as long as a model is measured, and raises what `call` raises.
    """

    def __init__(self, bench: Workbench, reference: Path, cut: Sequence[Window], method: str, scratch: str) -> None:
        self._bench = bench
        self._reference = reference
        self._cut = cut
        self._method = method
        self._scratch = scratch
        self._is_exact = method != TOP_LOGPROBS
        self._likeliest: list[Likeliest] | None = None

    def reference(self) -> Measured:
        """Measure the reference. Comes first, as the others need its logits."""
        measured = self._measured(self._reference, is_reference=True)
        self._is_exact = measured.exact is not None
        return measured

    def compared(self, model: Path) -> Measured:
        """Measure a file against the reference."""
        return self._measured(model, is_reference=False)

    def reference_bounds(self) -> Scores:
        """What the reference's likeliest tokens say, for files that have nothing else to be compared by."""
        return self._approximate(self._reference, is_reference=True)

    def _measured(self, model: Path, *, is_reference: bool) -> Measured:
        bench, name = self._bench, model.name
        longest = max((window.tokens for window in self._cut), key=len)
        probes = [longest[:length] for length in _PROBED if length < len(longest)]
        bench.tell.step(f"{name}: speed and memory")
        said = bench.served(model, probes=probes, timing=longest[:_TIMED_PROMPT], generate=_WRITTEN)
        speed = Speed(said["prompt_per_s"], said["generated_per_s"], said["resident_bytes"])
        exact, difference = None, None
        if self._is_exact:
            exact, difference = self._exact(model, list(zip(probes, said["probes"], strict=True)), is_reference)
        approximate = None
        if exact is None or self._method == BOTH:
            approximate = self._approximate(model, is_reference)
        return Measured(speed, exact, approximate, difference)

    def _exact(self, model: Path, probes: list[Any], is_reference: bool) -> tuple[Scores | None, float]:
        self._bench.tell.step(f"{model.name}: all logits")
        said = self._bench.logits(
            model,
            windows=[(window.tokens, window.first) for window in self._cut],
            probes=probes,
            logits=self._scratch,
            is_reference=is_reference,
        )
        if "nll" not in said:
            return None, said["difference"]
        return Scores(tuple(said["nll"]), tuple(said["kl"]), tuple(said["same"])), said["difference"]

    def _approximate(self, model: Path, is_reference: bool) -> Scores:
        if self._likeliest is None and not is_reference:
            self._likeliest = self._steps(self._reference)
        own = self._steps(model)
        if is_reference:
            self._likeliest = own
        targets = [token for window in self._cut for token in window.predicted]
        others: Sequence[Likeliest | None] = [None] * len(own) if is_reference else self._likeliest or []
        said = [bounds(*each) for each in zip(targets, own, others, strict=True)]
        seen = sum(each.is_seen for each in said) / len(said)
        nll = tuple(each.nll for each in said)
        if is_reference:
            return Scores(nll, seen=seen)
        return Scores(nll, tuple(each.kl for each in said), tuple(each.is_same for each in said), seen)

    def _steps(self, model: Path) -> list[Likeliest]:
        self._bench.tell.step(f"{model.name}: the {TOP} likeliest tokens at each position")
        steps = [(window.tokens, window.first) for window in self._cut]
        said = self._bench.served(model, steps=steps, top=TOP)["steps"]
        return [[(int(token), float(log)) for token, log in step] for step in said]
