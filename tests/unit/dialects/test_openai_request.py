"""What OpenAI's specification calls invalid is refused for engines of this machine; what real clients send is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.dialects.validation import openai_request
from app.errors import Problem
from app.relay.http import json_body
from app.relay.planning.attempt import check
from app.relay.planning.plan import OPERATIONS, plan
from app.relay.routes.foreign_apis import CLIENT_APIS
from app.table import Backend, PublicModel, Table, Target
from backends.endpoint import Endpoint, State
from backends.errors import Rejected
from tests.rigs.allocations import allocated

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
PICTURE = "data:image/png;base64,iVBORw0KGgo="


def checked(operation: str, fields: dict[str, Any] | bytes, *, is_translated: bool = False) -> None:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    openai_request.check(operation, body, json_body.opened(body)[1], is_translated=is_translated)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


CONTENTS: list[Any] = [None, 1, {}, [], [1], ["x"], [{}], [{"type": 1}]]
CALLS: list[Any] = ["x", [1], [{"function": {}}], [{"id": "1", "type": "custom", "custom": {"name": "p", "input": ""}}]]
WRONG: dict[str, list[Any]] = {
    "temperature": ["1", -0.1, 2.1, True, [], {}],
    "top_p": ["1", -0.1, 1.1, False],
    "presence_penalty": [-2.1, 2.1, "x"],
    "frequency_penalty": [-2.1, 2.1, "x"],
    "max_tokens": [0, -1, 1.5, "5", [], True],
    "max_completion_tokens": [0, -7, 1.5, "5"],
    "n": [0, -1, 1.5, "2", True],
    "seed": [1.5, "x", 2**70],
    "stop": [1, True, {}, [1], [None], list("abcde")],
    "logprobs": [1, "x"],
    "top_logprobs": [-1, 21, 1.5, "x"],
    "logit_bias": ["x", [], [[1, 2]], {"1": 101}, {"1": "x"}, {"word": 1}],
    "user": [1, []],
    "metadata": ["x", {"a": 1}, {"a": "b" * 513}, {"a" * 65: "b"}, {str(n): "" for n in range(17)}],
    "parallel_tool_calls": ["x", 1],
    "store": ["yes"],
    "reasoning_effort": ["zzz", 1],
    "verbosity": ["loud"],
    "service_tier": ["best"],
    "modalities": ["text", ["smell"]],
    "tools": ["x", {}, [1], [{}], [{"type": "function"}], [{"type": "zzz"}]]
    + [[{"type": "function", "function": inner}] for inner in ({}, {"name": 1}, {"name": ""})]
    + [[{"type": "function", "function": {"name": "a", "parameters": []}}]],
    "tool_choice": ["zzz", 1, [], {}, {"type": "function"}, {"type": "function", "function": {}}],
    "functions": ["x", [{}], [1]],
    "function_call": ["zzz", 1, {}],
    "response_format": ["x", [], {}, {"type": 1}, {"type": "zzz"}, {"type": "json_schema"}]
    + [{"type": "json_schema", "json_schema": inner} for inner in (1, {}, {"name": 1}, {"name": "a", "schema": "x"})],
    "messages": [[], [1], ["x"], [[]], [{}], [{"content": "x"}], [{"role": 1, "content": "x"}], [{"role": ""}]]
    + [[{"role": "user", "content": content}] for content in CONTENTS]
    + [[{"role": "user", "content": [part]}] for part in ({"type": "text"}, {"type": "text", "text": 1})]
    + [[{"role": "user", "content": [{"type": "image_url", **part}]}] for part in ({}, {"image_url": 1})]
    + [[{"role": "user", "content": [{"type": "image_url", "image_url": inner}]}] for inner in ({}, {"url": 1})]
    + [[{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": 1, "format": "wav"}}]}]]
    + [[{"role": "user", "content": "x", "name": 1}], [{"role": "tool", "content": "x"}], [{"role": "user"}]]
    + [[{"role": "tool", "content": "x", "tool_call_id": 1}], [{"role": "assistant", "reasoning_content": 1}]]
    + [[{"role": "assistant", "content": "x", "tool_calls": calls}] for calls in CALLS]
    + [[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 1}}]}]],
}  # fmt: skip
WRONG_TEXT: dict[str, list[Any]] = {
    "prompt": [1, {}, [], [None], [1, "a"], ["a", 1], [-1], [1.5], [[]], [[1], []], [[1], 2], [[[1]]], [10**20]],
    "logprobs": [True, -1, 6, 1.5],
    "best_of": [0, "x"],
    "echo": ["x", 1],
    "suffix": [1],
    "max_tokens": [-1, 1.5],
    "stop": [1, list("abcde")],
}
WRONG_EMBEDDING: dict[str, list[Any]] = {
    "input": ["", 1, {}, [], [None], [[]], ["a", 1], ["a"] * 2049, [[1]] * 2049],
    "encoding_format": ["zzz", 1],
    "dimensions": [0, 1.5, "x"],
}
ALL_WRONG = [
    (operation, field, value)
    for operation, table in (("chat", WRONG), ("text_completion", WRONG_TEXT), ("embeddings", WRONG_EMBEDDING))
    for field, values in table.items()
    for value in values
]
BASE = {"chat": chat(), "text_completion": {"model": "m", "prompt": "a"}, "embeddings": {"model": "m", "input": "a"}}


@pytest.mark.parametrize(("operation", "field", "value"), ALL_WRONG)
def test_a_wrong_value_is_refused_by_its_name(operation: str, field: str, value: Any) -> None:
    with pytest.raises(Problem) as refusal:
        checked(operation, BASE[operation] | {field: value})

    assert (refusal.value.status, refusal.value.param) == (400, field)
    assert refusal.value.code in ("invalid_type", "invalid_value", "missing_field", "not_supported")
    assert f"'{field}" in refusal.value.message


RIGHT: list[dict[str, Any]] = [
    dict.fromkeys(field for field in WRONG if field != "messages"),  # null is what is left out
    {"temperature": 0, "top_p": 0, "max_tokens": 8192},  # Easy Dataset's
    {"send_reasoning": True, "reasoning": True, "tomorrow": {"a": [1]}},
    {"messages": [{**USER, "parts": [{"type": "text", "text": "hi"}], "experimental_attachments": []}]},
    {"temperature": 2, "top_p": 1.0, "n": 1.0, "seed": -(2**63), "stop": [], "logit_bias": {"50256": -100}},
    {"stop": list("abcd"), "max_tokens": 2**63, "max_completion_tokens": 1},
    {"tools": [], "tool_choice": "auto"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
    {"functions": [{"name": "look"}], "function_call": {"name": "look"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": None}}},
    {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
    {"messages": [{"role": "critic", "content": "tuned templates have roles of their own"}]},
    {"messages": [{"role": "critic"}, {"role": "assistant", "content": None}]},
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": []}]},
    {"messages": [{"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "x"}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": None}}]}]},
    {"messages": [{"role": "user", "name": None, "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": PICTURE}]}]},
    {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": PICTURE}}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
        ]
    },
]


@pytest.mark.parametrize("fields", RIGHT)
def test_what_clients_send_passes(fields: dict[str, Any]) -> None:
    checked("chat", chat(**fields))


PROMPTS = ["", "a", ["a", "b"], [1, 2], [[1, 2], [3]], [ 1 ] * 5000, [[1] * 5000] * 3]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_texts_and_tokens_pass(prompt: Any) -> None:
    checked("text_completion", {"model": "m", "prompt": prompt, "max_tokens": 0, "logprobs": 5})
    if prompt:
        checked("embeddings", {"model": "m", "input": prompt, "encoding_format": "base64"})


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 400])
@pytest.mark.parametrize("field", [field for field, values in WRONG.items() if "x" in values or "1" in values])
def test_a_number_beyond_all_is_refused_as_any_wrong_value(field: str, number: str) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"%b":%b}' % (field.encode(), number.encode())

    with pytest.raises(Problem) as refusal:
        checked("chat", body)

    assert (refusal.value.status, refusal.value.param) == (400, field)


def test_the_value_is_told_where_it_is_a_number_and_never_a_text() -> None:
    with pytest.raises(Problem, match=r"'temperature' must be a number from 0 to 2, and is 3\.5"):
        checked("chat", chat(temperature=3.5))
    with pytest.raises(Problem) as refusal:
        checked("chat", chat(temperature="Zaubertrank"))
    assert "Zaubertrank" not in refusal.value.message


def test_a_wrong_message_is_named_by_its_place() -> None:
    with pytest.raises(Problem, match=r"'messages\[1\]\.content\[0\]\.text' must be a string"):
        checked("chat", chat(messages=[USER, {"role": "user", "content": [{"type": "text", "text": 7}]}]))


def test_the_numbers_of_another_dialect_are_its_own_affair() -> None:
    checked("chat", chat(temperature=5, stop=list("abcdefg"), top_p=-1), is_translated=True)

    with pytest.raises(Problem):
        checked("chat", chat(messages=[{"role": "", "content": "x"}]), is_translated=True)


def table(**kinds: str) -> Table:
    """Names m and, behind it, a fallback, each served by an engine of that kind."""
    backends = {
        name: Backend(name, kind, State.READY, endpoint=Endpoint(name, 1, "http://127.0.0.1:1/v1"))
        for name, kind in kinds.items()
    }
    served = {name: PublicModel(name, (Target(name, name),)) for name in kinds}
    return Table(1, served, {}, (), backends)


@pytest.mark.parametrize("kind", ["vllm", "llama_cpp", "ollama"])
def test_engines_of_this_machine_are_not_sent_it_and_a_remote_one_is(kind: str) -> None:
    body = json.dumps(chat(temperature=-1)).encode()

    with pytest.raises(Problem):
        plan(OPERATIONS["/v1/chat/completions"], body, table(m=kind), None)

    planned = plan(OPERATIONS["/v1/chat/completions"], body, table(m="remote"), None)
    assert planned.body == body
    check(planned, table(m="remote").backends["m"], "m")
    with pytest.raises(Rejected) as refusal:  # as a fallback of it
        check(planned, table(m=kind).backends["m"], "m")
    assert (refusal.value.status, refusal.value.param) == (400, "temperature")


@pytest.mark.parametrize("messages", [[{"content": "x"}], [{"role": 1}], []])
def test_what_is_counted_is_a_conversation_too(messages: Any) -> None:
    body = json.dumps({"model": "m", "messages": messages}).encode()

    with pytest.raises(Problem) as refusal:
        plan(OPERATIONS["/v1/tokenize"], body, table(m="llama_cpp"), None)
    assert refusal.value.status == 400


def test_long_texts_are_not_decoded() -> None:
    """A check that decodes what it passes over would hold the memory of the whole request again."""
    text = "x" * (8 * 2**20)
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": PICTURE + text}}]
    body = json.dumps(chat(messages=[{"role": "user", "content": text}, {"role": "user", "content": parts}])).encode()
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])

    assert allocated(lambda: openai_request.check("chat", body, members)) < len(text) // 8


RANGES = [
    ("/v1/responses", "temperature", 2.5),
    ("/v1/responses", "top_p", -0.1),
    ("/v1/responses", "top_logprobs", 21),
]
RANGES += [("/v1/messages", "temperature", 1.5), ("/v1/messages", "top_p", -1)]


@pytest.mark.parametrize(("path", "field", "value"), RANGES)
def test_other_dialects_have_their_own_ranges(path: str, field: str, value: float) -> None:
    body = json.dumps({"model": "m", "input": "a", "messages": [USER], "max_tokens": 1, field: value}).encode()

    with pytest.raises(Problem, match=f"'{field}' must be at ") as refusal:
        CLIENT_APIS[path].translate(body, "t")
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", field)
