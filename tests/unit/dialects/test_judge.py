"""Nothing is ignored without a word: each parameter of OpenAI's specification on each route and kind of engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.dialects import json_members
from app.dialects.parameters import judge as parameters_judge
from app.dialects.parameters.case import Given, RequestCase
from app.dialects.parameters.judge import judge, judged
from app.dialects.parameters.table import OWN, SPECIFIED, fates
from app.relay.http import json_body
from app.table import TEMPLATE_KWARGS
from backends.endpoint import UsageMode
from backends.engine_profile import Act
from backends.errors import Unsupported
from backends.kinds import PROFILES
from tests.fakes import wire
from tests.fakes.scripted import Json, Scripted, events, whole
from tests.rigs.raw_client import Reply
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.specifications import PARAMETERS, VALUES, beside

KINDS = ("vllm", "llama_cpp", "ollama")
ROUTES = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}
ADJUSTED, DROPPED = "x-modelport-adjusted-params", "x-modelport-dropped-params"
VECTOR = {"object": "list", "model": "m", "data": [{"index": 0, "embedding": [1.0, 2.0]}], "usage": {}}


def given(body: bytes) -> Given:
    """What of a body is looked at."""
    return parameters_judge.given(json_body.opened(body)[1])


def behave(path: str, body: Json) -> bytes:
    """As vLLM, as far as a parameter shows."""
    if path.endswith("/embeddings"):
        return whole(VECTOR)
    operation = "completions" if "prompt" in body else "chat"
    asked = wire.Ask(operation, "m", stream=body.get("stream") is True)
    if not asked.stream:
        return whole(wire.answer(asked) | {"choices": wire.answer(asked)["choices"] * body.get("n", 1)})
    pieces = [
        piece | {"choices": [piece["choices"][0] | {"index": at}]}
        for piece in wire.pieces(asked)
        for at in range(body.get("n", 1))
    ]
    return events(*pieces, wire.usage_piece(asked))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Scripted]:
    async with Scripted(behave) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: Scripted) -> AsyncIterator[Rig]:
    kinds = {
        kind: backend(engine.url, kind, kind=kind, usage=UsageMode.TRY) for kind in ("vllm", "llama_cpp", "remote")
    }
    async with running(kinds, {kind: models("m", backend=kind)["m"] for kind in kinds}) as gateway:
        yield gateway


def named(reply: Reply, header: str) -> list[str]:
    return reply.headers.get(header, "").split(", ")


def test_the_table_has_every_parameter_of_the_specification() -> None:
    for route, operation in ROUTES.items():
        assert set(SPECIFIED[operation]) == PARAMETERS[route] == set(VALUES[route]), route


@pytest.mark.parametrize(
    ("route", "name"), [(route, name) for route in ROUTES for name in sorted(PARAMETERS[route] - {"model"})]
)
@pytest.mark.parametrize("kind", ["vllm", "llama_cpp"])
async def test_what_is_in_the_table_is_what_happens(
    rig: Rig, engine: Scripted, kind: str, route: str, name: str
) -> None:
    body = {**beside(route, name), "model": kind, name: VALUES[route][name]}
    fate = fates(ROUTES[route], PROFILES[kind])[name]

    reply = await rig.ask(route, body)

    if fate.act is Act.REFUSED and name != "dimensions":
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "not_supported", name)
        assert engine.bodies == []
        return
    assert reply.status == 200, reply.body
    assert (name in named(reply, ADJUSTED), name in named(reply, DROPPED)) == (
        fate.act is Act.ADJUSTED and name != "tool_choice",
        fate.act is Act.DROPPED,
    )
    if fate.act is Act.DONE:
        assert engine.last[name] == body[name]
    elif name not in ("tool_choice", "dimensions"):
        assert name not in engine.last


@pytest.mark.parametrize(
    ("route", "name"), [(route, name) for route in ROUTES for name in sorted(PARAMETERS[route] - {"model"})]
)
async def test_a_remote_engine_gets_everything_as_it_was_written(
    rig: Rig, engine: Scripted, route: str, name: str
) -> None:
    body = {**beside(route, name), "model": "remote", name: VALUES[route][name]}

    reply = await rig.ask(route, body)

    assert reply.status == 200, reply.body
    assert {**engine.last, "model": "remote"} == body | (
        {"stream_options": {"include_usage": True}} if body.get("stream") else {}
    )
    assert not {ADJUSTED, DROPPED} & reply.headers.keys()


# -- what is judged, without a relay


def found(kind: str, operation: str = "chat", **fields: Any) -> tuple[Json, list[str], list[str]]:
    """What an engine gets beside what every request has, and what is named."""
    body = json.dumps({"model": "m", **fields}).encode()
    case = RequestCase("engine", PROFILES[kind], operation, given(body), kwargs=TEMPLATE_KWARGS)
    verdict = judge(case)
    members: Json = json.loads(json_members.edit(body, verdict.members))
    members.pop("model")
    return members, verdict.adjusted, verdict.dropped


def refused(kind: str, operation: str = "chat", **fields: Any) -> str:
    with pytest.raises(Unsupported) as caught:
        found(kind, operation, **fields)
    assert caught.value.param in fields
    return caught.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_what_asks_for_the_way_it_is_done_anyway_is_not_named(kind: str) -> None:
    for operation in SPECIFIED:
        for name, fate in judged(operation, PROFILES[kind]).items():
            for value in ("null", *fate.unless):
                case = RequestCase(
                    "engine", PROFILES[kind], operation, given(b'{"%s": %s}' % (name.encode(), value.encode()))
                )
                verdict = judge(case)
                assert (verdict.adjusted, verdict.dropped) == ([], []), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_own_parameter_that_is_refused_or_dropped_is(kind: str) -> None:
    for operation, names in OWN.items():
        for name in names:
            asked = {name: {"a": [1] * 3}}
            act = fates(operation, PROFILES[kind])[name].act
            if act is Act.REFUSED:
                assert name in refused(kind, operation, **asked)
            elif act is Act.DROPPED:
                assert found(kind, operation, **asked) == ({}, [], [name])


STOPS: list[tuple[Any, Any, bool]] = [
    ("", None, True),
    (["", "x"], ["x"], True),
    (["", ""], None, True),
    (["x"], ["x"], False),
    ([], [], False),
    ("x", "x", False),
    ('a""b', 'a""b', False),
    (" ", " ", False),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stop", "told", "is_named"), STOPS)
def test_empty_texts_to_stop_at_are_left_out_and_named(kind: str, stop: Any, told: Any, is_named: bool) -> None:
    members = {} if told is None else {"stop": told}

    for operation in ("chat", "text_completion"):
        assert found(kind, operation, stop=stop) == (members, ["stop"] if is_named else [], [])


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


def test_a_named_tool_is_the_only_one_that_the_embedded_engine_is_told_of() -> None:
    choice = {"type": "function", "function": {"name": "g"}}

    assert found("llama_cpp", tools=TOOLS, tool_choice=choice) == (
        {"tools": TOOLS[1:], "tool_choice": "required"},
        ["tool_choice"],
        [],
    )
    assert found("vllm", tools=TOOLS, tool_choice=choice)[0] == {"tools": TOOLS, "tool_choice": choice}
    assert found("llama_cpp", tools=TOOLS, tool_choice="required")[1:] == ([], [])


@pytest.mark.parametrize(
    "choice",
    [{"type": "function", "function": {"name": "h"}}, {"type": "allowed_tools", "allowed_tools": {}}, {}],
)
def test_a_choice_of_what_is_not_there_is_refused(choice: Json) -> None:
    assert "names no function" in refused("llama_cpp", tools=TOOLS, tool_choice=choice)


def test_how_much_to_think_is_told_to_the_chat_template() -> None:
    assert found("llama_cpp", reasoning_effort="low") == (
        {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}},
        ["reasoning_effort"],
        [],
    )
    theirs = found("llama_cpp", reasoning_effort="none", chat_template_kwargs={"enable_thinking": True})
    assert theirs[0] == {"chat_template_kwargs": {"enable_thinking": True}}


def test_a_template_that_may_not_be_told_of_thinking_is_not_told() -> None:
    verdict = judge(
        RequestCase("engine", PROFILES["llama_cpp"], "chat", given(b'{"reasoning_effort": "low"}'), kwargs=("other",))
    )

    assert (verdict.members, verdict.dropped) == ({"reasoning_effort": None}, ["reasoning_effort"])


def test_a_penalty_has_each_engines_own_name() -> None:
    assert found("llama_cpp", repetition_penalty=1.2) == ({"repeat_penalty": 1.2}, ["repetition_penalty"], [])
    assert found("vllm", repeat_penalty=1.2) == ({"repetition_penalty": 1.2}, ["repeat_penalty"], [])
    both = found("vllm", repeat_penalty=1.2, repetition_penalty=1.3)
    assert both == ({"repetition_penalty": 1.3}, [], ["repeat_penalty"])


def test_what_the_configuration_has_set_is_not_the_clients() -> None:
    verdict = judge(
        RequestCase(
            "engine", PROFILES["llama_cpp"], "chat", given(b'{"user": "u", "stop": ""}'), settled=("user", "stop")
        )
    )

    assert verdict == ({}, [], [])


@pytest.mark.parametrize(("best_of", "n", "is_taken"), [(1, None, True), (2, 2, True), (3, 2, False), (2, None, False)])
def test_the_best_of_as_many_as_are_wanted_is_all_of_them(best_of: int, n: int | None, is_taken: bool) -> None:
    asked = {"best_of": best_of, **({} if n is None else {"n": n})}

    if is_taken:
        assert found("vllm", "text_completion", **asked)[1:] == ([], [])
    else:
        assert "send 'n'" in refused("vllm", "text_completion", **asked)


def test_probabilities_of_the_answer_alone_are_asked_for_with_one_more() -> None:
    assert found("llama_cpp", "text_completion", logprobs=0) == ({"logprobs": 1}, ["logprobs"], [])
    assert found("llama_cpp", "text_completion", logprobs=2)[1] == []
    assert found("vllm", "text_completion", logprobs=0)[1] == []
    assert found("llama_cpp", logprobs=False)[1] == []


def test_a_text_of_nothing_is_not_one_of_one_token() -> None:
    assert "must be 1 or more" in refused("llama_cpp", "text_completion", max_tokens=0)
    assert found("llama_cpp", "text_completion", max_tokens=1)[1:] == ([], [])
    assert found("vllm", "text_completion", max_tokens=0)[1:] == ([], [])  # which refuses it itself


def test_options_of_streams_that_no_engine_has_are_named() -> None:
    asked: Json = {"stream_options": {"include_obfuscation": True, "continuous_usage_stats": True}}

    assert found("vllm", **asked)[2] == ["stream_options.include_obfuscation"]
    assert found("llama_cpp", **asked)[2] == [
        "stream_options.include_obfuscation",
        "stream_options.continuous_usage_stats",
    ]
    assert found("vllm", stream_options={"include_usage": True, "include_obfuscation": False})[2] == []


# -- the form of an answer

SCHEMA = {"type": "object"}
LABELS = ["yes", 'n"o\\', "é\n"]
FORMED: dict[str, tuple[str, str, Json, Json, list[str], list[str]]] = {
    "vllm json": (
        "vllm",
        "chat",
        {"guided_json": SCHEMA, "guided_decoding_backend": "xgrammar", "guided_whitespace_pattern": " "},
        {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " "}},
        ["guided_json", "guided_whitespace_pattern"],
        ["guided_decoding_backend"],
    ),
    "vllm choice": (
        "vllm",
        "text_completion",
        {"guided_choice": LABELS},
        {"structured_outputs": {"choice": LABELS}},
        ["guided_choice"],
        [],
    ),
    "vllm regex": (
        "vllm",
        "chat",
        {"guided_regex": "a+"},
        {"structured_outputs": {"regex": "a+"}},
        ["guided_regex"],
        [],
    ),
    "vllm grammar": (
        "vllm",
        "chat",
        {"guided_grammar": "root ::= x"},
        {"structured_outputs": {"grammar": "root ::= x"}},
        ["guided_grammar"],
        [],
    ),
    "vllm both names": (
        "vllm",
        "chat",
        {"guided_regex": "a+", "structured_outputs": {"regex": "b+"}},
        {"structured_outputs": {"regex": "b+"}},
        ["guided_regex"],
        [],
    ),
    "vllm tag": (
        "vllm",
        "chat",
        {"structural_tag": "t"},
        {"structured_outputs": {"structural_tag": "t"}},
        ["structural_tag"],
        [],
    ),
    "vllm blanks alone": (
        "vllm",
        "chat",
        {"guided_whitespace_pattern": " "},
        {},
        [],
        ["guided_whitespace_pattern"],
    ),
    "vllm of llama.cpp": (
        "vllm",
        "chat",
        {"grammar": "root ::= x"},
        {"structured_outputs": {"grammar": "root ::= x"}},
        ["grammar"],
        [],
    ),
    "vllm its own": (
        "vllm",
        "chat",
        {"structured_outputs": {"regex": "a"}},
        {"structured_outputs": {"regex": "a"}},
        [],
        [],
    ),
    "embedded json": ("llama_cpp", "chat", {"guided_json": SCHEMA}, {"json_schema": SCHEMA}, ["guided_json"], []),
    "embedded json as text": (
        "llama_cpp",
        "chat",
        {"guided_json": '{"type": "object"}', "guided_whitespace_pattern": "x"},
        {"json_schema": SCHEMA},
        ["guided_json"],
        ["guided_whitespace_pattern"],
    ),
    "embedded choice": (
        "llama_cpp",
        "chat",
        {"guided_choice": LABELS},
        {"grammar": 'root ::= "yes" | "n\\"o\\\\" | "é\\n"'},
        ["guided_choice"],
        [],
    ),
    "embedded grammar": (
        "llama_cpp",
        "text_completion",
        {"structured_outputs": {"grammar": "root ::= x"}},
        {"grammar": "root ::= x"},
        ["structured_outputs"],
        [],
    ),
    "embedded object": (
        "llama_cpp",
        "chat",
        {"structured_outputs": {"json_object": True, "json": None}},
        {"json_schema": SCHEMA},
        ["structured_outputs"],
        [],
    ),
    "embedded nothing": ("llama_cpp", "chat", {"structured_outputs": {}}, {}, [], []),
    "embedded what nobody knows": (
        "llama_cpp",
        "chat",
        {"structured_outputs": {"shape": "round"}},
        {},
        [],
        ["structured_outputs"],
    ),
    "embedded text beside labels": (
        "llama_cpp",
        "chat",
        {"guided_choice": ["a"], "response_format": {"type": "text"}, "grammar": ""},
        {"grammar": 'root ::= "a"', "response_format": {"type": "text"}},
        ["guided_choice"],
        [],
    ),
    "embedded its own": ("llama_cpp", "chat", {"json_schema": SCHEMA}, {"json_schema": SCHEMA}, [], []),
    "embedded text as JSON": (
        "llama_cpp",
        "text_completion",
        {"response_format": {"type": "json_object"}},
        {"json_schema": SCHEMA},
        ["response_format"],
        [],
    ),
    "embedded text of a schema": (
        "llama_cpp",
        "text_completion",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        {"json_schema": SCHEMA},
        ["response_format"],
        [],
    ),
    "embedded text as text": ("llama_cpp", "text_completion", {"response_format": {"type": "text"}}, {}, [], []),
    "embedded chat": (
        "llama_cpp",
        "chat",
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_object"}},
        [],
        [],
    ),
    "ollama json": (
        "ollama",
        "chat",
        {"guided_json": SCHEMA, "guided_decoding_backend": "x"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}},
        ["guided_json"],
        ["guided_decoding_backend"],
    ),
    "ollama of llama.cpp": (
        "ollama",
        "chat",
        {"json_schema": SCHEMA},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}},
        ["json_schema"],
        [],
    ),
}


@pytest.mark.parametrize(("kind", "operation", "asked", "told", "adjusted", "dropped"), FORMED.values(), ids=FORMED)
def test_a_form_is_demanded_in_each_engines_own_words(
    kind: str, operation: str, asked: Json, told: Json, adjusted: list[str], dropped: list[str]
) -> None:
    assert found(kind, operation, **asked) == (told, adjusted, dropped)


UNFORMED: list[tuple[str, str, Json]] = [
    ("llama_cpp", "chat", {"guided_regex": "a+"}),
    ("llama_cpp", "chat", {"structured_outputs": {"structural_tag": "x"}}),
    ("llama_cpp", "chat", {"structural_tag": "t"}),
    ("llama_cpp", "chat", {"guided_json": "{"}),
    ("llama_cpp", "chat", {"guided_json": [1]}),
    ("llama_cpp", "chat", {"guided_json": SCHEMA, "guided_choice": ["a"]}),
    ("llama_cpp", "chat", {"guided_choice": []}),
    ("llama_cpp", "chat", {"guided_choice": [1]}),
    ("llama_cpp", "chat", {"guided_choice": [""]}),
    ("llama_cpp", "chat", {"guided_choice": ["a"] * 501}),
    ("llama_cpp", "chat", {"guided_choice": ["a" * 17_000]}),
    ("llama_cpp", "text_completion", {"response_format": {"type": "grammar"}}),
    ("llama_cpp", "chat", {"structured_outputs": "x"}),
    *(
        ("llama_cpp", operation, two)
        for operation in ("chat", "text_completion")
        for two in (
            {"guided_choice": ["a"], "response_format": {"type": "json_object"}},
            {"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}},
            {"guided_choice": ["a"], "grammar": "root ::= x"},
            {"grammar": "root ::= x", "json_schema": SCHEMA},
            {"grammar": "root ::= x", "response_format": {"type": "json_object"}},
            {"json_schema": SCHEMA, "response_format": {"type": "json_object"}},
        )
    ),
    ("ollama", "chat", {"guided_json": SCHEMA, "response_format": {"type": "json_object"}}),
    ("ollama", "chat", {"json_schema": SCHEMA, "response_format": {"type": "json_object"}}),
    ("ollama", "chat", {"structured_outputs": [1]}),
    ("ollama", "chat", {"guided_choice": ["a"]}),
    ("ollama", "chat", {"guided_regex": "a"}),
    ("ollama", "chat", {"grammar": "root ::= x"}),
    ("ollama", "text_completion", {"structured_outputs": {"choice": ["a"]}}),
]


@pytest.mark.parametrize(("kind", "operation", "asked"), UNFORMED)
def test_a_form_that_an_engine_cannot_be_made_to_keep_to_is_refused(kind: str, operation: str, asked: Json) -> None:
    assert "is not supported by this engine" in refused(kind, operation, **asked)


@pytest.mark.parametrize(
    ("operation", "name"),
    [("embeddings", "encoding_format"), ("embeddings", "embd_normalize"), ("chat", "reasoning_format")],
)
def test_null_is_left_out_where_the_embedded_engine_refuses_it(operation: str, name: str) -> None:
    assert found("llama_cpp", operation, **{name: None}) == ({}, [], [])
