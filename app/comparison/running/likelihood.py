"""How likely a model finds the reference answer: the sum of its tokens' log-probabilities behind the chat's prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from app.comparison.question import Question, prompt, reference_text
from app.comparison.running.gateway_client import GatewayClient
from app.comparison.running.run_record import RunProblem

_RENDER: Final = "/v1/chat/completions/render"
_TOKENIZE: Final = "/v1/tokenize"
_COMPLETIONS: Final = "/v1/completions"
_CANNOT: Final = frozenset({400, 404, 405, 501})  # the engine does not tell such things at all


class Likelihood(NamedTuple):
    """`logprob`: the sum in nats, over so many `tokens`; both None where it is not known, and `why` says so.
    `is_never`: this model never tells.
    """

    logprob: float | None = None
    tokens: int | None = None
    why: str | None = None
    is_never: bool = False


async def reference_likelihood(client: GatewayClient, model: str, question: Question) -> Likelihood:
    """How likely the model finds the reference answer to a question that has one."""
    assert question.answer is not None
    rendered = await client.ask(_RENDER, {"model": model, "messages": prompt(question)})
    if rendered.status != 200:
        return Likelihood(why=rendered.refusal, is_never=rendered.status in _CANNOT)
    before = rendered.value.get("tokens")
    if before is None:
        return Likelihood(why="its engine does not tell the tokens of a prompt", is_never=True)
    split = await client.ask(
        _TOKENIZE, {"model": model, "prompt": reference_text(question), "add_special_tokens": False}
    )
    if split.status != 200:
        return Likelihood(why=split.refusal, is_never=split.status in _CANNOT)
    answer = split.value["tokens"]
    asked = {"model": model, "prompt": [*before, *answer], "max_tokens": 0, "echo": True, "logprobs": 1}
    told = await client.ask(_COMPLETIONS, {**asked, "temperature": 0})
    if told.status != 200:
        # An engine that fails of it (vLLM for the CPU with adapters) would fail of every one.
        return Likelihood(why=told.refusal, is_never=True)
    return summed(told.value, len(before), len(answer))


async def refuse_untold(
    client: GatewayClient, models: Sequence[str], questions: Sequence[Question], *, is_measured: bool
) -> None:
    """RunProblem where the log-probability of reference answers cannot decide between these models: each is asked about
    one. `is_measured`: whether the run measures it at all.
    """
    question = next((each for each in questions if each.answer is not None), None)
    if not is_measured or question is None:
        why = (
            "it is not measured with --no-likelihood" if question is not None else "no question has a reference answer"
        )
        raise RunProblem(f"`logprob` cannot decide: {why}; name another measure with --primary.")
    for model in models:
        likely = await reference_likelihood(client, model, question)
        if likely.is_never:
            raise RunProblem(
                f"`logprob` cannot decide: how likely reference answers are is not known of {model!r} "
                f"({(likely.why or '').rstrip('.')}); name another measure with --primary."
            )


def summed(response: Any, before: int, count: int) -> Likelihood:
    """The sum over the last tokens of an echoed prompt. Pure."""
    try:
        logprobs = response["choices"][0]["logprobs"]["token_logprobs"]
        # What is generated beyond the prompt, where an engine must generate something, does not count.
        own = [float(each) for each in logprobs[before : before + count]]
    except (KeyError, IndexError, TypeError, ValueError):
        return Likelihood(why="its engine does not tell how likely the tokens of a prompt are", is_never=True)
    if len(own) != count or not count or not all(map(math.isfinite, own)):
        return Likelihood(why="its engine told other tokens than those of the prompt")
    return Likelihood(sum(own), count)
