"""An answer in one piece: sound or not, its cost, and the client's name in it."""

from __future__ import annotations

import json

import pytest

from app.dialects.openai import Settlement
from app.dialects.whole import settle
from backends.errors import Broken, EngineFailed
from tests import fake_wire as wire
from tests.answers import terms

CHAT, COMPLETION = wire.Ask("chat", "fake"), wire.Ask("completions", "fake")
EMBEDDING = wire.Ask("embeddings", "fake", inputs=("a", "b"))
ANSWERS = {
    "chat": (CHAT, Settlement(12, 12, "stop")),
    "text_completion": (COMPLETION, Settlement(12, 12, "stop")),
    "embeddings": (EMBEDDING, Settlement(8, 0, None)),
}


@pytest.mark.parametrize(("operation", "ask", "cost"), [(k, *v) for k, v in ANSWERS.items()], ids=ANSWERS)
def test_a_sound_answer_passes_byte_for_byte_and_is_counted(operation: str, ask: wire.Ask, cost: Settlement) -> None:
    body = wire.dumps(wire.answer(ask))

    assert settle(terms("fake", operation=operation), body) == (body, cost)


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize("public", ["mine", "ollama/x", 'a "b"', "模型"])
@pytest.mark.parametrize("engine", ["fake", "/srv/model", "zwölf"])
def test_only_the_models_name_is_changed(operation: str, public: str, engine: str) -> None:
    value = wire.answer(wire.Ask(ANSWERS[operation][0].route, engine, inputs=("a",)))

    for body in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value).replace("/", "\\/")):
        answer, _ = settle(terms(public, operation=operation), body.encode())

        assert json.loads(answer) == value | {"model": public}
        assert abs(len(answer) - len(body.encode())) < 80


BROKEN = {
    "empty": (b"", "an empty body"),
    "blank": (b" \n", "an empty body"),
    "half": (b'{"choices":[', "not a JSON answer"),
    "html": (b"<html></html>", "not a JSON answer"),
    "bad comma": (b'{"choices":[,]}', "not a JSON answer"),
    "list": (b"[]", "not a JSON answer"),
    "string": (b'"hello"', "not a JSON answer"),
    "wrong type": (b'{"choices":"x"}', "choices that are none|not an answer to this request"),
    "other object": (b'{"hello":1}', "not an answer to this request"),
    "null": (b'{"choices":null}', "not an answer to this request"),
    "too deep": (b'{"choices":' + b"[" * 100_000, "not a JSON answer"),
}


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize(("body", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_answer_is_broken(operation: str, body: bytes, said: str) -> None:
    with pytest.raises(Broken, match=said):
        settle(terms("fake", operation=operation), body)


def test_an_answer_of_another_operation_is_broken() -> None:
    with pytest.raises(Broken):
        settle(terms("fake", operation="embeddings"), wire.dumps(wire.answer(CHAT)))
    with pytest.raises(Broken):
        settle(terms("fake", operation="chat"), wire.dumps(wire.answer(EMBEDDING)))


@pytest.mark.parametrize("error", ["boom", {"message": "boom"}, [{"msg": "boom"}]])
def test_an_error_under_status_200_is_a_failure_of_the_engine(error: object) -> None:
    with pytest.raises(EngineFailed, match="boom"):
        settle(terms("fake", operation="chat"), wire.dumps({"error": error}))


COSTS = {
    '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}': Settlement(3, 4),
    '{"choices":[],"usage":{"prompt_tokens":3,"total_tokens":3}}': Settlement(3, 0),
    '{"choices":[],"usage":{"prompt_tokens":null,"completion_tokens":null}}': Settlement(0, 0),
    '{"choices":[],"usage":null,"error":null}': Settlement(is_counted=True),
    '{"choices":[],"timings":{"prompt_n":3,"cache_n":2,"predicted_n":4}}': Settlement(5, 4),
    '{"choices":[{"message":{},"finish_reason":"length"}]}': Settlement(0, 0, "length", is_counted=True),
}


@pytest.mark.parametrize(("body", "cost"), COSTS.items())
def test_the_cost_is_what_the_engine_says(body: str, cost: Settlement) -> None:
    assert settle(terms("fake", operation="chat"), body.encode())[1] == cost
