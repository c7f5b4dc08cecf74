"""The double is held to what a real daemon was recorded doing: the same members in the same order, the same words."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, Fault
from tests.raw_client import Reply, ask
from tests.transcripts import Transcript, transcripts

# Not done by the double (its docstring says so), or several at a time (they have tests of their own).
ELSEWHERE = re.compile(r"14[0-4]_|220_|221_|260_|262_|272_|161_|270_|271_")
# What is different at each telling: names of answers, times, durations, digests of what was made.
_VARIES = {
    "id": "ID",
    "created": 0,
    "created_at": "",
    "modified_at": "",
    "expires_at": "",
    "digest": "",
    "size": 0,
    "total_duration": 0,
    "load_duration": 0,
    "prompt_eval_duration": 0,
    "eval_duration": 0,
    "context": None,
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_GGUF = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Members that the double leaves out: token ids.
_LEFT_OUT = {"context"}


def told(value: Any) -> Any:
    """A JSON value without what varies, its members as a list, so that their order counts."""
    if isinstance(value, dict):
        pairs = [(name, _VARIES[name] if name in _VARIES and each else told(each)) for name, each in value.items()]
        return [pair for pair in pairs if pair[0] not in _LEFT_OUT]
    if isinstance(value, list):
        return [told(each) for each in value]
    return _DIGEST.sub("sha256", value) if isinstance(value, str) and not value.startswith("digest mismatch") else value


def objects(text: str) -> list[Any]:
    """Every line of an answer."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.strip()]
    return [told(json.loads(line)) if line.startswith("{") else line for line in lines]


async def replayed(daemon: FakeOllama, one: Transcript) -> Reply:
    headers = dict(one.headers)
    return await ask(daemon.url, one.method, one.path, one.body.encode(), {"host": "127.0.0.1", **headers})


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        running.store.blobs[_GGUF] = b"GGUF and weights"
        yield running


async def prepare(daemon: FakeOllama, one: Transcript) -> None:
    """What the daemon was in when that was recorded."""
    name = one.name
    if name in ("013_ps_loaded", "122_ps_after_extra", "288_ps_forever", "181_ps_ctx256", "175_ps_ctx512"):
        sizes = {"181_ps_ctx256": 256, "175_ps_ctx512": 512}
        model = "mymodel" if name == "175_ps_ctx512" else "smollm2:135m"
        daemon.store.loaded.clear()
        options = {"num_ctx": sizes[name]} if name == "181_ps_ctx256" else {}
        body = {"model": model, "messages": [], "options": options}
        await ask(daemon.url, "POST", "/api/chat", body, {"host": "127.0.0.1"})
    if name == "002_root_head":
        daemon.store.loaded.clear()
    if name in ("230_chat_stream_runner_killed", "232_v1_stream_runner_killed", "236_v1_completions_stream_killed"):
        daemon.script(Fault("line", after=len(one.pieces) - 1))
    if name == "234_v1_nostream_runner_killed":
        daemon.script(Fault("line"))


async def test_the_same_requests_have_the_same_answers_in_the_order_of_the_recording(daemon: FakeOllama) -> None:
    seen = 0
    for one in transcripts().values():
        if ELSEWHERE.match(one.name):
            continue
        await prepare(daemon, one)

        reply = await replayed(daemon, one)

        assert reply.status == one.status, one.name
        assert reply.headers.get("content-type", "").partition(";")[0] == one.type.partition(";")[0], one.name
        assert objects(reply.body.decode()) == objects(one.answer), one.name
        assert reply.headers.get("allow", one.allow) == one.allow, one.name
        seen += 1
    assert seen > 110
