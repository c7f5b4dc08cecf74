"""What an engine's refusal of an answer's bound says of the bound that it would take."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.dialects.parameters.answer_limit import Fit, fit
from app.table import Rules
from tests.fakes import wire
from tests.rigs.hop import Server
from tests.rigs.raw_client import Reply, chat
from tests.rigs.relay import backend, models, running

# vLLM of this year and of earlier ones, SGLang, TGI, OpenAI, DeepSeek, and our own words for all of them.
TOO_MUCH: dict[str, tuple[int, Fit | None]] = {
    "max_tokens=8192 cannot be greater than max_model_len=512. Please request fewer output tokens.": (8192, Fit(None)),
    "'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum context length is 512 tokens and"
    " your request has 20 input tokens (500 > 512 - 20).": (500, Fit(492)),
    "This model's maximum context length is 512 tokens. However, you requested 500 output tokens and your prompt"
    " contains 20 input tokens, for a total of 520 tokens.": (500, Fit(492)),
    "This model's maximum context length is 512 tokens. However, you requested 500 output tokens and your prompt"
    " contains at least 13 input tokens, for a total of at least 513 tokens.": (500, Fit(None)),
    "This model's maximum context length is 512 tokens. However, you requested 520 tokens (20 in the messages, 500 in"
    " the completion).": (500, Fit(492)),
    "Requested token count exceeds the model's maximum context length of 512 tokens. You requested a total of 520"
    " tokens: 20 tokens from the input messages and 500 tokens for the completion.": (500, Fit(492)),
    "`inputs` tokens + `max_new_tokens` must be <= 512. Given: 20 `inputs` tokens and 500 `max_new_tokens`": (
        500,
        Fit(492),
    ),
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided"
    " 100000.": (100000, Fit(16384)),
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]": (9000, Fit(8192)),
    "This model's maximum context length is 512 tokens, and the request has 20 and asks for 500 more. Shorten it, or"
    " lower `max_tokens`.": (500, Fit(492)),
    # The prompt alone is too long: no bound helps.
    "This model's maximum context length is 512 tokens. However, you requested 1 output tokens and your prompt"
    " contains 600 input tokens, for a total of 601 tokens.": (1, None),
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]: 3": (3, None),
}


@pytest.mark.parametrize(("message", "asked", "expected"), [(text, *case) for text, case in TOO_MUCH.items()])
def test_what_fits_is_read_from_the_engines_own_numbers(message: str, asked: int, expected: Fit | None) -> None:
    assert fit(message, asked) == expected


# What vLLM 0.32 and others say of bounds that are wrong, not too large.
WRONG = [
    "min_tokens must be less than or equal to max_tokens=10, got 50.",
    "max_tokens must be at least 1, got -7.",
    "1 validation error: {'type': 'int_from_float', 'loc': ('body', 'max_tokens'), 'msg': 'Input should be a valid"
    " integer, got a number with a fractional part', 'input': 1.5}",
    "max_completion_tokens must be at least 1, got 0.",
    "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead.",
    "max_tokens (-3) must be greater than 0",
    "'stop' is wrong",
    "structured output is not possible with max_tokens",
]


@pytest.mark.parametrize("message", WRONG)
def test_a_bound_that_is_wrong_is_not_too_large(message: str) -> None:
    assert fit(message, 10) is None


class _Strict:
    """An engine that refuses with these words what has a bound above a number."""

    def __init__(self, message: str, most: int) -> None:
        self.message, self.most = message, most
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = json.loads(await reader.readexactly(length))
            self.bodies.append(body)
            if body.get("max_tokens", 0) > self.most or "min_tokens" in body:
                writer.write(wire.whole(400, wire.dumps({"error": {"message": self.message}}), reason="Bad Request"))
            else:
                pieces = [wire.chunk(wire.sse(piece)) for piece in wire.pieces(wire.Ask("chat", "fake"))]
                writer.write(wire.SSE_HEAD + b"".join(pieces) + wire.chunk(wire.DONE) + wire.LAST_CHUNK)

    async def asked(self, rules: Rules | None = None, kind: str = "vllm", **fields: Any) -> Reply:
        """One stream through a relay."""
        async with Server(self) as server:
            served = models("fake")
            served["fake"] = type(served["fake"])("fake", served["fake"].targets, rules=rules or Rules())
            async with running({"engine": backend(server.url, kind=kind)}, served) as rig:
                return await rig.ask(body=chat(stream=True, **fields))


FULL = (
    "This model's maximum context length is 512 tokens. However, you requested 500 output tokens and your prompt"
    " contains 20 input tokens, for a total of 520 tokens."
)


async def test_a_bound_beyond_what_fits_is_asked_once_more_with_what_fits_and_named() -> None:
    engine = _Strict(FULL, 492)

    reply = await engine.asked(max_tokens=500)

    assert (reply.text, reply.headers["x-modelport-adjusted-params"]) == (wire.TEXT, "max_tokens")
    assert [body.get("max_tokens") for body in engine.bodies] == [500, 492]


async def test_a_bound_of_the_administrators_is_lowered_too() -> None:
    engine = _Strict(FULL, 492)

    reply = await engine.asked(Rules(defaults={"max_tokens": 500}))

    assert reply.text == wire.TEXT
    assert [body.get("max_tokens") for body in engine.bodies] == [500, 492]


@pytest.mark.parametrize(("kind", "rules"), [("remote", None), ("vllm", Rules(normalize="strict"))])
async def test_an_engine_that_gets_what_the_client_wrote_is_asked_once(kind: str, rules: Rules | None) -> None:
    engine = _Strict(FULL, 492)

    reply = await engine.asked(rules, kind, max_tokens=500)

    assert (reply.status, len(engine.bodies)) == (400, 1)


async def test_a_bound_that_an_engine_calls_wrong_is_the_clients_mistake_and_never_becomes_none() -> None:
    engine = _Strict("min_tokens must be less than or equal to max_tokens=10, got 50.", 492)

    reply = await engine.asked(max_tokens=10, min_tokens=50)

    assert (reply.status, len(engine.bodies)) == (400, 1)
    assert "min_tokens" in reply.error["message"]
