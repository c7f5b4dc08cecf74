"""Whether a loaded adapter does anything, and whether the engine still computes numbers: what is asked, and how the
answers are compared. Pure.

The probe is a few short texts in one request, each with the most probable next tokens. Log-probabilities of the prompt
itself (`echo`) would say more at once, but with adapters enabled vLLM 0.32 for the CPU dies of them when other requests
run at the same time. The texts are shorter than a block of the KV cache, so nothing of an earlier answer is used again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backends.engine import Proof

# Differences below this are rounding: an adapter that does something moves log-probabilities by a thousand times more.
LEAST_EFFECT: Final = 1e-4
ROUNDS: Final = 3  # as often, at most, while the base's own answers differ too much to tell
CLEAR: Final = 3.0  # an effect so many times the base's own difference needs no more rounds
_TOKENS: Final = 5
TEXTS: Final = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "你好，",
    "1, 2, 3, 4,",
)
_NOT_FINITE: Final = re.compile(
    r"Out of range float values are not JSON compliant|\bnan\b.*\bnot\b.*JSON", re.IGNORECASE
)

Figures = Sequence[Mapping[str, float]]  # one for each text: tokens with their log-probabilities, or places with values


def question(task: str, model: str) -> tuple[str, dict[str, object]]:
    """The route and the body of the probe for an engine of this task."""
    if task == "generate":
        body = {"model": model, "prompt": list(TEXTS), "max_tokens": 1, "logprobs": _TOKENS, "temperature": 0}
        return "/v1/completions", body
    route = "/v1/embeddings" if task == "embed" else "/classify"
    return route, {"model": model, "input": list(TEXTS)}


def says_not_finite(body: bytes) -> bool:
    """Whether a refusal means that what the engine computed are no numbers."""
    return _NOT_FINITE.search(body.decode(errors="replace")) is not None


def figures(task: str, reply: Any) -> Figures | None:
    """The numbers of an answer; None where it has none. What is no number comes as NaN."""
    try:
        if task == "generate":
            choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
            return [_numbers(choice["logprobs"]["top_logprobs"][0]) for choice in choices] or None
        key = "embedding" if task == "embed" else "probs"
        return [_numbers(dict(enumerate(each[key]))) for each in reply["data"]] or None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        return None


def _numbers(values: Mapping[Any, Any]) -> dict[str, float]:
    return {str(key): math.nan if value is None else float(value) for key, value in values.items()}


def are_finite(answer: Figures) -> bool:
    """Whether all of them are numbers."""
    return all(math.isfinite(value) for values in answer for value in values.values())


def distance(one: Figures, other: Figures) -> float:
    """The largest difference between two answers, at least: of a token that only one of them names, it is known that
    the other has it below all that it names.
    """
    apart = 0.0
    for left, right in zip(one, other, strict=True):
        for ours, theirs in ((left, right), (right, left)):
            lowest = min(theirs.values(), default=0.0)
            for key, value in ours.items():
                apart = max(apart, abs(value - theirs[key]) if key in theirs else value - lowest)
    return apart


@dataclass(slots=True)
class Comparison:
    """What has been answered until now: two answers of the base in each round, and one of the adapter."""

    base: list[Figures]
    adapter: list[Figures]

    def proof(self) -> Proof:
        """How far they are apart at least, and how far the base's own answers are at most."""
        effect = min(distance(one, other) for one in self.adapter for other in self.base)
        noise = max((distance(one, other) for one in self.base for other in self.base), default=0.0)
        return Proof(effect, noise)


def is_nothing(proof: Proof) -> bool:
    """Whether the adapter is no further from the base than the base from itself."""
    return proof.effect <= max(proof.noise, LEAST_EFFECT)


def is_clear(proof: Proof) -> bool:
    """Whether another round could tell nothing else."""
    return proof.effect > max(CLEAR * proof.noise, LEAST_EFFECT) or (proof.noise == 0 and is_nothing(proof))
