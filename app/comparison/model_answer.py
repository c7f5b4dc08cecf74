"""What one model answered to one question. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answer, or the reason why there is none.

    `question`: its id. `model`: the public name. `repeat`: 0 is the answer that counts; from 1 on, the same question
    once more with the same settings, which tells how far a model is from itself. `text` is without the `reasoning`
    (thinking). `seconds`: from the request to its end, `first_token_s` to the first token of text or thinking.
    `serving`: the digest of what the answer was made from. `error`: one sentence, and then everything else tells
    nothing. `reference_logprob`: the sum over the `reference_tokens` tokens of the reference answer, in nats, 0 or
    less.
    """

    question: str
    model: str
    repeat: int = 0
    text: str = ""
    reasoning: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    seconds: float | None = None
    serving: str | None = None
    error: str | None = None
    reference_logprob: float | None = None
    reference_tokens: int | None = None
