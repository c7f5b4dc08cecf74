"""LLaMA-Factory's `/v1/score/evaluation`: a reward model's score of each text, by vLLM's `/classify`. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.dialects.client_api import ErrorEncoder
from app.dialects.tasks.llama_cpp import Done, Stamp, Steps, decoded, step
from app.dialects.tasks.requests import Evaluating
from app.errors import Problem
from backends.errors import Broken, Rejected

# What LLaMA-Factory's server says where no reward model is served.
NOT_ALLOWED: Final = "Not allowed"


class _Class(msgspec.Struct, frozen=True):
    probs: list[float]


class _Classes(msgspec.Struct, frozen=True):
    data: list[_Class]


def evaluated(asked: Evaluating, engine: str, model: str, name: str, stamp: Stamp) -> Steps:
    """The scores as they come out of the model, without an activation, in the order of the texts."""
    body: dict[str, Any] = {"model": model, "input": asked.messages, "use_activation": False}
    if asked.max_length is not None:
        body |= {"truncate_prompt_tokens": asked.max_length, "truncation_side": "right"}
    rows = decoded(engine, (yield step("/classify", body)), _Classes).data
    if len(rows) != len(asked.messages) or any(len(row.probs) != 1 for row in rows):
        raise Broken(engine, "it sent other than one score for each text")
    answer = {
        "id": f"scoreval-{stamp.token}",
        "object": "score.evaluation",
        "model": name,
        "scores": [row.probs[0] for row in rows],
    }
    return Done(msgspec.json.encode(answer))


def not_allowed(engine: str) -> Rejected:
    """The error for an engine that has no reward model."""
    message = f"{NOT_ALLOWED}: the model behind this name is not a reward model."
    return Rejected(engine, message, status=405, type_="invalid_request_error", code="not_supported", param="model")


class DetailErrors(ErrorEncoder):
    """Fulfils ResponseEncoder for refusals: OpenAI's error with LLaMA-Factory's `detail` beside it."""

    def refused(self, problem: Problem) -> bytes:
        """Both words for it in one object."""
        detail = NOT_ALLOWED if problem.status == 405 else problem.message
        return msgspec.json.encode({"detail": detail, **msgspec.json.decode(problem.body())})
