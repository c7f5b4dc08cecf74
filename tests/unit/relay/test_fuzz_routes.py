"""Whatever a client sends on whichever route, the answer is never a failure of the gateway's own.

A table of good requests, and a generator that spoils them: values of other types and sizes, numbers beyond all, names
in other letters, bytes lost. It is seeded, so a failure comes again.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import FakeOllama
from tests.rigs.comparison import keeping
from tests.rigs.ollama import row
from tests.rigs.raw_client import Client, request
from tests.rigs.relay import Rig, backend, models, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = 45  # of each route and engine
ENGINES = ("vllm", "llama_cpp", "ollama", "remote")
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
PART = {"type": "text", "text": "hi"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TALK = [{"role": "system", "content": "s"}, {"role": "user", "content": [PART, PICTURE]}]
TALK += [{"role": "assistant", "content": None, "reasoning": "r", "tool_calls": [CALL]}]
TALK += [{"role": "tool", "tool_call_id": "c", "content": "x"}, {"role": "user", "content": "hi"}]
SAMPLING: dict[str, Any] = {"temperature": 1, "top_p": 0.5, "max_tokens": 5, "seed": 1, "stop": ["a"], "n": 1}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer", "maximum": 5}}}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TALK, **SAMPLING, "tools": [TOOL], "tool_choice": "auto", "logprobs": True}
    | {"stream": True, "stream_options": {"include_usage": True}, "response_format": FORM, "reasoning_effort": "low"}
    | {"logit_bias": {"1": 1}, "chat_template_kwargs": {"enable_thinking": True}, "top_logprobs": 1, "user": "u"},
    "/v1/chat/completions/render": {"messages": TALK, **SAMPLING, "tools": [TOOL], "chat_template_kwargs": {}},
    "/v1/completions": {"prompt": "a", **SAMPLING, "logprobs": 1, "echo": False, "suffix": "", "best_of": 1},
    "/v1/compare": {
        "model": None,
        "models": ["vllm", "ollama"],
        "messages": TALK,
        **SAMPLING,
        "top_k": 1,
        "min_p": 0.1,
        "blind": False,
    }
    | {"stream": True, "force": True, "repetition_penalty": 1, "response_format": FORM, "logprobs": True},
    "/v1/compare/votes": {"id": "cmp-1", "winner": 0},
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "float", "dimensions": 4},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"], "top_n": 1},
    "/v1/score/evaluation": {"messages": ["a"]},
    "/v1/score": {"text_1": "a", "text_2": ["a", "b"]},
    "/v1/tokenize": {"messages": [{"role": "user", "content": [PART]}], "tools": [TOOL], "return_token_strs": True},
    "/v1/detokenize": {"tokens": [1, 2]},
    "/v1/messages": {"messages": [{"role": "user", "content": [PART]}], "max_tokens": 5, "system": "s", "top_k": 1}
    | {"tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}, "stream": True}
    | {"thinking": {"type": "enabled", "budget_tokens": 9}, "stop_sequences": ["a"], "metadata": {"user_id": "u"}},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}], "tools": []},
    "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "stream": True}
    | {"instructions": "i", "tools": [{"type": "function", "name": "f", "parameters": {}}], "max_output_tokens": 5}
    | {"text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "include": [], "metadata": {"a": "b"}},
    "/api/chat": {"messages": [{"role": "user", "content": "hi"}], "format": {"type": "integer", "maximum": 5}}
    | {"options": {"temperature": 1, "num_predict": -1, "top_k": 1, "stop": ["a"], "seed": 1, "num_ctx": 9}}
    | {"tools": [TOOL], "think": False, "keep_alive": "5m", "stream": True},
    "/api/generate": {
        "prompt": "a",
        "system": "s",
        "raw": False,
        "options": {"min_p": 0.1},
        "context": [],
        "images": [],
    },
    "/api/embed": {"input": ["a"], "truncate": True, "dimensions": 4, "options": {}},
    "/api/embeddings": {"prompt": "a"},
    "/api/show": {"verbose": True},
}
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**400, "", "x", "1", "\u0000", "\ud83d", "é" * 300, [], {}),
    *([[]], [{}], [None], ["x"], [1, "a"], {"x": 1}, {"type": 1}, {"type": "x"}, [[[[[1]]]]], {"url": "http://10.0.0.1"}),
    *(float("1e308"), {"maximum": "@1e400@"}, "@1e400@", "@-1e400@", ["@1e400@"], "@1E+999999@", f"@{'9' * 5000}@"),
)  # fmt: skip
SPELLINGS = (str.upper, str.title, lambda name: name + "_url", lambda name: f"image_{name}", lambda _name: "")


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value, by its path."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for key, each in inner for place in places(each, (*at, key)))]


def odd(dice: random.Random) -> Any:
    """One of them, and a value of its own."""
    return copy.deepcopy(dice.choice(ODD))


def spoiled(good: dict[str, Any], dice: random.Random) -> bytes:
    """A request with one to three places changed, and now and then bytes lost or doubled."""
    made: Any = copy.deepcopy(good)
    for _ in range(dice.randint(1, 3)):
        *way, last = dice.choice(places(made))
        inner = made
        for step in way:
            inner = inner[step]
        act = dice.random()
        if act < 0.75 or not isinstance(inner, dict):
            inner[last] = odd(dice)
        elif act < 0.85:
            del inner[last]
        else:
            inner[dice.choice(SPELLINGS)(last)] = dice.choice([inner[last], odd(dice)])
        if not made:
            break
    text = json.dumps(made, ensure_ascii=dice.random() < 0.5)
    for number in ("1e400", "-1e400", "1E+999999", "9" * 5000):
        text = text.replace(f'"@{number}@"', number)
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if dice.random() < 0.1:
        at = dice.randrange(len(data))
        data[at : at + dice.randint(0, 3)] = bytes(dice.choices(range(256), k=dice.randint(0, 3)))
    return bytes(data)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with FakeEngine(ENGINES) as engine, FakeOllama() as daemon:
        rows = {kind: backend(engine.url, kind, kind=kind) for kind in ENGINES}
        rows["ollama"] = await row(daemon)
        served = models("ollama", backend="ollama", engine_name="smollm2:135m")
        for kind in ("vllm", "llama_cpp", "remote"):
            served |= models(kind, backend=kind)
        async with running(rows, served) as gateway, keeping(gateway.state):
            yield gateway


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", ASKED)
async def test_nothing_that_is_sent_makes_the_gateway_fail(rig: Rig, path: str, engine: str) -> None:
    dice = random.Random(f"{path} {engine}")
    async with asyncio.timeout(60):
        for _ in range(ROUNDS):
            body = spoiled({"model": engine, **ASKED[path]}, dice)
            async with Client(rig.url) as client:
                client.send(request("POST", path, body))
                reply = await client.reply()

            # 501: what no engine here does, which is said of sound requests too. The fake engine dies of some of what
            # nobody checks for a remote engine.
            is_of_the_fake = engine == "remote" and b"without a response" in reply.body
            assert reply.status < 500 or reply.status == 501 or is_of_the_fake, (body, reply.body)
