"""An engine that repeats its request does not show anybody the operator's credentials."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from functools import partial

import pytest

from backends.http.probe_client import ProbeClient
from backends.redaction import MASK, hide
from tests.fakes.scripted import Json, Scripted, events, whole
from tests.rigs.raw_client import chat
from tests.rigs.relay import backend, models, running

KEY = 'sk-operator/0123456789"abcdef'
TEAM, SHORT = "team-4711-internal", "eu1"
NOTE = "of the operator's"
HEADERS = {"authorization": f"Bearer {KEY}", "x-team": TEAM, "x-region": SHORT, "x-note": NOTE}
ADDRESS = "https://user:pass-word-1@engine.example/v1"

SAID = {
    "as it is": f"bad request with Authorization: Bearer {KEY}",
    "in JSON": json.dumps({"headers": HEADERS}),
    "in JSON in JSON": json.dumps({"error": json.dumps({"headers": HEADERS})}),
    "with escaped slashes": json.dumps(HEADERS).replace("/", "\\/"),
    "in Python's words": repr(HEADERS),
    "in a URL": "GET /?key=sk-operator%2F0123456789%22abcdef&team=team-4711-internal",
    "in a form": "key=sk-operator%2F0123456789%22abcdef&note=of+the+operator%27s",
    "in other letters": f"{KEY.upper()} and {KEY.lower()}",
    "in base64": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "in base64 for URLs": base64.urlsafe_b64encode(f"{NOTE}\n{KEY}".encode()).decode(),
    "in base64 within others": base64.b64encode(repr(HEADERS).encode()).decode(),
    "as bytes": KEY.encode().hex(),
    "in escapes": "".join(f"\\u{ord(char):04x}" for char in KEY),
    "in HTML": "<b>sk-operator/0123456789&quot;abcdef</b>",
    "without its scheme": f"the key {KEY} is wrong",
    "twice": f"{KEY}{KEY} {TEAM}{TEAM}",
    "cut": f"the headers were {KEY[:14]}...",
    "cut at our length": f"{'x' * 490} {KEY[:7]}…",
    "of its address": "no access for user:pass-word-1@engine.example",
}


@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_no_secret_is_left_however_it_is_written(text: str) -> None:
    masked = hide(text, ADDRESS, HEADERS)

    assert MASK in masked
    for secret in ("sk-operator", "0123456789", "sk-oper", TEAM, "pass-word", "the+operator"):
        assert secret not in masked.lower()
    for encoded in _encoded():
        assert encoded not in masked


def _encoded() -> list[str]:
    """Pieces of the middle of the key, as they stand in each encoding."""
    inner = [base64.b64encode(bytes(before) + KEY.encode()).decode()[8:20] for before in range(3)]
    return [*inner, KEY.encode().hex()[4:12], "\\u006f\\u0070"]


def test_short_values_go_where_they_stand_alone_and_words_stay() -> None:
    text = "region eu1 is not neu12; 'x-mode' must be true or a team"

    assert hide(text, "http://h/v1", {"x-region": SHORT, "x-mode": "true", "x-n": "7"}) == text.replace(
        " eu1 ", " *** "
    )


def test_a_pair_is_known_by_its_parts() -> None:
    masked = hide("login user with hunter-22 failed", "http://h/v1", {"authorization": "Basic dXNlcjpodW50ZXItMjI="})

    assert masked == "login user with *** failed"


def test_without_secrets_nothing_changes() -> None:
    assert hide("the same …", "http://h/v1", {}) == "the same …"


def refuse(status: int, _asked: Json) -> bytes:
    return whole({"error": {"message": f"got {HEADERS}"}}, status)


LONG = "x" * 480  # so that the answer is shortened in the middle of the key
BODIES: dict[str, Callable[[Json], bytes]] = {
    **{f"status {status}": partial(refuse, status) for status in (400, 409, 413, 422, 500, 502)},
    "a detail": lambda _asked: whole({"detail": [{"msg": f"got {json.dumps(HEADERS)}"}]}, 422),
    "plain text": lambda _asked: whole(f"got {HEADERS}", 500),
    "a code": lambda _asked: whole({"error": {"message": "no", "code": KEY, "param": TEAM}}, 400),
    "shortened": lambda _asked: whole({"error": {"message": f"{LONG} {KEY}"}}, 400),
    "an error under status 200": lambda _asked: whole({"error": {"message": f"got {HEADERS}"}}),
    "an event": lambda _asked: events({"error": {"message": f"got {HEADERS}"}}),
    "an event behind others": lambda _asked: events(
        {"id": "a", "choices": [{"index": 0, "delta": {"content": "hi"}}]}, {"error": {"message": f"got {HEADERS}"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("behave", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"])
@pytest.mark.parametrize("kind", ["remote", "vllm"])
async def test_what_an_engine_repeats_reaches_no_client(behave: Callable[[Json], bytes], path: str, kind: str) -> None:
    async with Scripted(lambda _path, body: behave(body)) as engine:
        row = backend(engine.url, kind=kind, headers=HEADERS)
        asked = chat("m", stream=True) | {"max_tokens": 5}
        if path == "/v1/responses":
            asked = {"model": "m", "input": "hi", "stream": True}
        async with running({"engine": row}, models("m")) as rig, asyncio.timeout(20):
            reply = await rig.ask(path, asked)

    assert b"error" in reply.body
    for secret in ("sk-operator", "sk-oper", "0123456789", TEAM):
        assert secret.encode() not in reply.body


async def test_what_an_engine_repeats_to_the_supervisor_is_hidden_too() -> None:
    async with Scripted(lambda _path, _body: whole({"error": f"got {HEADERS}"}, 500)) as engine:
        reply = await ProbeClient("engine").ask(f"{engine.url}/chat/completions", HEADERS, timeout_s=20, body={})

    assert reply.status == 500
    assert MASK.encode() in reply.body
    assert b"sk-operator" not in reply.body
