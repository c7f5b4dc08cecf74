"""An answer in one piece: sound or not, its cost, and the client's name in it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai.normalize import ResponseContext, WholeNormalizer
from app.dialects.openai.response import as_plain, settle
from app.dialects.usage import Usage
from backends.errors import Broken, EngineFailed
from tests.fakes import wire
from tests.rigs.read_answer import response_context

CHAT, COMPLETION = wire.Ask("chat", "fake"), wire.Ask("completions", "fake")
EMBEDDING = wire.Ask("embeddings", "fake", inputs=("a", "b"))
ANSWERS = {
    "chat": (CHAT, Usage(12, 12, "stop")),
    "text_completion": (COMPLETION, Usage(12, 12, "stop")),
    "embeddings": (EMBEDDING, Usage(8, 0, None)),
}


@pytest.mark.parametrize(("operation", "ask", "cost"), [(k, *v) for k, v in ANSWERS.items()], ids=ANSWERS)
def test_a_sound_answer_passes_byte_for_byte_and_is_counted(operation: str, ask: wire.Ask, cost: Usage) -> None:
    body = wire.dumps(wire.answer(ask))

    assert settle(response_context("fake", operation=operation), body) == (body, cost)


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize("public", ["mine", "ollama/x", 'a "b"', "模型"])
@pytest.mark.parametrize("engine", ["fake", "/srv/model", "zwölf"])
def test_only_the_models_name_is_changed(operation: str, public: str, engine: str) -> None:
    value = wire.answer(wire.Ask(ANSWERS[operation][0].route, engine, inputs=("a",)))

    for body in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value).replace("/", "\\/")):
        answer, _ = settle(response_context(public, operation=operation), body.encode())

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
    "wrong type": (b'{"choices":"x"}', "choices that are not a list of objects|not an answer to this request"),
    "other object": (b'{"hello":1}', "not an answer to this request"),
    "null": (b'{"choices":null}', "not an answer to this request"),
    "too deep": (b'{"choices":' + b"[" * 100_000, "not a JSON answer"),
}


@pytest.mark.parametrize("operation", ANSWERS)
@pytest.mark.parametrize(("body", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_answer_is_broken(operation: str, body: bytes, said: str) -> None:
    with pytest.raises(Broken, match=said):
        settle(response_context("fake", operation=operation), body)


def test_an_answer_of_another_operation_is_broken() -> None:
    with pytest.raises(Broken):
        settle(response_context("fake", operation="embeddings"), wire.dumps(wire.answer(CHAT)))
    with pytest.raises(Broken):
        settle(response_context("fake", operation="chat"), wire.dumps(wire.answer(EMBEDDING)))


@pytest.mark.parametrize("error", ["boom", {"message": "boom"}, [{"msg": "boom"}]])
def test_an_error_under_status_200_is_a_failure_of_the_engine(error: object) -> None:
    with pytest.raises(EngineFailed, match="boom"):
        settle(response_context("fake", operation="chat"), wire.dumps({"error": error}))


COSTS = {
    '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}': Usage(3, 4),
    '{"choices":[],"usage":{"prompt_tokens":3,"total_tokens":3}}': Usage(3, 0),
    '{"choices":[],"usage":{"prompt_tokens":null,"completion_tokens":null}}': Usage(0, 0),
    '{"choices":[],"usage":null,"error":null}': Usage(is_counted=True),
    '{"choices":[],"timings":{"prompt_n":3,"cache_n":2,"predicted_n":4}}': Usage(5, 4, cached_tokens=2),
    '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8},'
    '"completion_tokens_details":{"reasoning_tokens":4}}}': Usage(9, 5, cached_tokens=8, reasoning_tokens=4),
    '{"choices":[{"message":{},"finish_reason":"length"}]}': Usage(0, 0, "length", is_counted=True),
}


@pytest.mark.parametrize(("body", "cost"), COSTS.items())
def test_the_cost_is_what_the_engine_says(body: str, cost: Usage) -> None:
    assert settle(response_context("fake", operation="chat"), body.encode())[1] == cost


# -- put right

HEAD = {"id": "chatcmpl-t0ken", "object": "chat.completion", "created": 1_700_000_000, "model": "mine"}


def told(choice: object, **more: Any) -> Any:
    """The one choice of an answer as the client gets it."""
    answer = json.loads(settle(response_context(**more), json.dumps({"choices": [choice]}).encode())[0])
    return answer["choices"][0]


def test_an_answer_has_all_that_clients_rely_on() -> None:
    answer, cost = settle(response_context(), b'{"choices":[{"message":{"content":"Hi"}}]}')

    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    assert json.loads(answer) == {**HEAD, "choices": [choice]}
    assert cost.finish_reason == "stop"


MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no content": ({"message": {"role": "assistant"}}, {"role": "assistant", "content": ""}),
    "parts": ({"message": {"content": [{"type": "text", "text": "Hi"}]}}, {"content": "Hi"}),
    "a delta": ({"delta": {"content": "Hi"}}, {"role": "assistant", "content": "Hi"}),
    "a text": ({"text": "Hi"}, {"role": "assistant", "content": "Hi"}),
    "thinking": ({"message": {"content": "Hi", "reasoning": "a"}}, {"reasoning": "a", "reasoning_content": "a"}),
    "tags": ({"message": {"content": "<think>a</think>Hi"}}, {"content": "<think>a</think>Hi"}),
}


@pytest.mark.parametrize(("given", "wanted"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_put_right(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    message = told(given)["message"]

    assert {name: message[name] for name in wanted} == wanted


def test_calls_have_ids_types_and_text_for_arguments() -> None:
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"id": "x", "function": {"name": "g"}}]
    choice = told({"message": {"tool_calls": calls}})

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "call_t0ken00", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "x", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_thinking_in_the_text_is_split_where_that_is_wanted() -> None:
    content = "<think>\n7 + 5\n</think>\n\nTwelve."
    message = told({"message": {"content": content}}, reasoning="split")["message"]

    assert message == {
        "role": "assistant",
        "content": "Twelve.",
        "reasoning": "7 + 5",
        "reasoning_content": "7 + 5",
    }
    assert told({"message": {"content": "Twelve."}}, reasoning="split")["message"]["content"] == "Twelve."


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"message": 7},
        {"message": {"content": 7}},
        {"message": {"tool_calls": [{}]}},
        {"text": "a", "finish_reason": 7},
    ],
)
def test_a_choice_without_a_message_is_broken(choice: object) -> None:
    with pytest.raises(Broken):
        told(choice)


@pytest.mark.parametrize("choice", [{"message": {}, "finish_reason": "error"}, {"error": {"message": "boom"}}])
def test_a_choice_that_failed_is_a_failure(choice: object) -> None:
    with pytest.raises(EngineFailed):
        told(choice)


_ANY = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(allow_nan=False), st.text(max_size=3))
_VALUE = st.one_of(_ANY, st.lists(_ANY, max_size=2), st.dictionaries(st.text(max_size=3), _ANY, max_size=2))
_MESSAGE = ("role", "content", "refusal", "tool_calls", "reasoning", "reasoning_content", "function_call", "error", "x")
_CHOICE = ("index", "finish_reason", "logprobs", "stop_reason", "delta", "text", "error", "message", "token_ids", "x")
_ANSWER = ("id", "object", "created", "model", "usage", "timings", "error", "detail", "choices", "x")


@given(st.data())
def test_what_passes_without_a_look_is_what_a_look_leaves_alone(data: st.DataObject) -> None:
    """`_PlainAnswer` takes nothing that `WholeNormalizer` would change, and counts the same."""
    context = ResponseContext("engine", "m", "chat", "token", 1, "keep")
    message: dict[str, Any] = {"role": "assistant", "content": "text"}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    answer: dict[str, Any] = {
        "id": "a",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    for place, names in ((message, _MESSAGE), (choice, _CHOICE), (answer, _ANSWER)):
        for name in data.draw(st.lists(st.sampled_from(names), max_size=2)):
            place[name] = data.draw(st.sampled_from(["stop", "length", "tool_calls", 0, 5]) | _VALUE)
    body = json.dumps(answer).encode()

    plain = as_plain(body)

    if plain is not None:
        value = json.loads(body)
        assert not WholeNormalizer(context).normalize(value)
        looked_at = msgspec.structs.replace(context, reasoning="split")
        assert settle(context, body) == settle(looked_at, body)
