"""Forms of answers that would hold an engine of this machine up for everybody are refused before it is asked.

A list of 2,000 values held the embedded engine for half a minute, one of 20,000 for longer than anybody waited.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.dialects.validation import constraint_cost, constraint_width
from app.relay.http import json_body
from backends.errors import Unsupported
from backends.kinds import PROFILES
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import chat
from tests.rigs.relay import Rig, backend, models, running

VALUES = [f"v{number}" for number in range(20_000)]


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(count)}}


def doubling(levels: int) -> dict[str, Any]:
    """Small to write, and twice as wide with every level."""
    defs: dict[str, Any] = {"a0": {"type": "string"}}
    for level in range(1, levels + 1):
        defs[f"a{level}"] = {"anyOf": [{"$ref": f"#/$defs/a{level - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/a{levels}"}


def nested(inner: Any, levels: int) -> Any:
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return inner


def recursive(*branches: dict[str, Any]) -> dict[str, Any]:
    return {"$defs": {"t": {"anyOf": [*branches, {"type": "number"}]}}, "$ref": "#/$defs/t"}


def node(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


SELF = {"$ref": "#/$defs/t"}
MAYBE_SELF = {"anyOf": [SELF, {"type": "null"}]}
WIDE: dict[str, Any] = {
    "branches that contain themselves at the same place": recursive(node(a=SELF), node(a=SELF, b={})),
    "the same behind what is equal": recursive(node(k={"type": "string"}, a=SELF), node(k={}, a={"items": SELF})),
    "lists of themselves": recursive({"type": "array", "items": SELF}, {"type": "array", "items": SELF}),
    "maps of themselves": recursive(
        {"type": "object", "additionalProperties": SELF}, {"properties": {"a": MAYBE_SELF}}
    ),
    "optional and within": recursive({"properties": {"a": SELF}}, {"properties": {"a": {"properties": {"b": SELF}}}}),
    "through another name": {
        **recursive(node(a={"$ref": "#/$defs/u"}), node(a={"$ref": "#/$defs/u"}, c={})),
        "$defs": {
            **recursive(node(a={"$ref": "#/$defs/u"}), node(a={"$ref": "#/$defs/u"}, c={}))["$defs"],
            "u": node(b=SELF),
        },
    },
    "enum": {"enum": VALUES[:2_000]},
    "a very long enum": {"enum": VALUES},
    "enum far inside": nested({"type": "object", "properties": {"a": {"enum": VALUES[:2_000]}}}, 10),
    "anyOf": {"anyOf": [{"const": value} for value in VALUES[:600]]},
    "oneOf": {"oneOf": [optional(10) for _ in range(100)]},
    "several enums at one place": {"anyOf": [{"enum": VALUES[at : at + 200]} for at in (0, 200, 400)]},
    "optional properties": optional(600),
    "references that double": doubling(30),
    "a long chain of references": {
        "$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(1_000)},
        "$ref": "#/$defs/a0",
    },
    "pattern of optional letters": {"type": "string", "pattern": "^" + "a?" * 500 + "$"},
    "pattern of optional groups": {"type": "string", "pattern": "^" + "(?:ab|)" * 200 + "$"},
    "pattern of repeated repetitions": {"type": "string", "pattern": "^((a{0,10}){0,10}){0,10}$"},
    "pattern of alternatives": {"type": "string", "pattern": "^(" + "|".join(VALUES[:1_000]) + ")$"},
    "pattern that opens brackets": {"type": "string", "pattern": "(" * 5_000},
    "pattern under another keyword": {"not": {"pattern": "a?" * 500}},
    "many parts": {"type": "array", "prefixItems": [{"type": "string"}] * 20_000},
}
USUAL: dict[str, Any] = {
    "anything": True,
    "an object": optional(100),
    "a label of 300": {"enum": VALUES[:300]},
    "two enums, one after the other": {
        "type": "object",
        "properties": {"a": {"enum": VALUES[:300]}, "b": {"enum": VALUES[300:600]}},
        "required": ["a", "b"],
    },
    "long texts": {"type": "string", "minLength": 1, "maxLength": 100_000},
    "long lists": {"type": "array", "maxItems": 10_000, "items": {"type": "integer"}},
    "a tree": {
        "$defs": {"t": {"type": "object", "properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}}}},
        "$ref": "#/$defs/t",
    },
    "an expression": recursive(
        node(kind={"const": "binary"}, left=SELF, right=SELF), node(kind={"const": "unary"}, operand=SELF)
    ),
    "nodes of two kinds": recursive(
        node(id={"type": "string"}, children={"type": "array", "items": SELF}), node(id={"type": "string"}, next=SELF)
    ),
    "a branch and a list": recursive(node(a=SELF), node(b={"type": "array", "items": SELF})),
    "itself": {"type": "object", "properties": {"child": {"$ref": "#"}}},
    "a chain, as pydantic writes it": {
        "$defs": {"t": {"type": "object", "properties": {"v": {}, "next": MAYBE_SELF}, "required": ["v"]}},
        "$ref": "#/$defs/t",
    },
    "a tree of nodes or null": {"$defs": {"t": node(v={"type": "string"}, l=MAYBE_SELF, r=MAYBE_SELF)}, **SELF},
    "a list or a map of itself": recursive(
        {"type": "array", "items": SELF}, {"type": "object", "additionalProperties": SELF}
    ),
    "a date": {
        "type": "string",
        "pattern": r"^\d{4}-(0[1-9]|1[0-2])-\d{2}(T\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?$",
    },
    "an address": {"type": "string", "pattern": r"^[\w.+-]+@[\w-]+(\.[\w-]+)+$"},
    "a telephone number": {"pattern": r"^(\+\d{1,2}\s?)?\(?\d{3}\)?[\s.-]?\d{3}[\s.-]?\d{4}$"},
    "long default and description": {"type": "string", "default": "x" * 1_000, "examples": VALUES},
    "required fields": {**optional(2_000), "required": [f"p{number}" for number in range(2_000)]},
}
JSON_GRAMMAR = """
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\\"" ( [^"\\\\] | "\\\\" (["\\\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\\"" ws  # with "a ::= b" in a comment
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\\n" [ \\t]{0,20}
"""
GRAMMARS: dict[str, tuple[str, bool]] = {
    "JSON": (JSON_GRAMMAR, False),
    "optional letters": ("root ::= " + '"a"? ' * 500, True),
    "optional rules": ("root ::= " + "x " * 200 + '\nx ::= "a" | ""', True),
    "repeated repetitions": ('root ::= (("a"{0,10}){0,10}){0,10}', True),
    "a long repetition": ('root ::= "a"{0,2000}', False),
    "alternatives": ("root ::= " + " | ".join(f'"{value}"' for value in VALUES[:1_000]), True),
    "rules that double": (
        "root ::= a30\na0 ::= [a-z]\n" + "\n".join(f"a{n} ::= a{n - 1} | a{n - 1}" for n in range(1, 31)),
        True,
    ),
    "an end mark within a text": ('root ::= "x ::= y" | "b"', False),
    "recursion": ('root ::= "(" root ")" | [0-9]+', False),
    "no root": ("a ::= " + '"a"? ' * 500, True),
    "too long": ('root ::= "a"\n' * 50_000, True),
}


def places(schema: Any) -> dict[str, dict[str, Any]]:
    """Every way of asking for an answer of that form."""
    tool = {"name": "f", "parameters": schema}
    return {
        "response_format": {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
        "response_format of llama.cpp": {"response_format": {"type": "json_object", "schema": schema}},
        "response_format without a name": {"response_format": {"type": "json_schema", "json_schema": schema}},
        "json_schema": {"json_schema": schema},
        "tools": {"tools": [{"type": "function", "function": tool}]},
        "functions": {"functions": [tool]},
        "guided_json": {"guided_json": schema},
        "guided_json as text": {"guided_json": json.dumps(schema)},
        "structured_outputs": {"structured_outputs": {"json": schema}},
    }


def check(fields: dict[str, Any], kind: str = "llama_cpp", extras: dict[str, Any] | None = None) -> None:
    head = json_body.opened(json.dumps({"model": "m", "messages": [], **fields}).encode())[0]
    constraint_cost.check(head, extras or {}, "demo", PROFILES[kind])


@pytest.mark.parametrize("place", places(True))
@pytest.mark.parametrize("schema", WIDE.values(), ids=WIDE)
def test_what_takes_an_engine_too_long_is_refused_wherever_it_stands(schema: Any, place: str) -> None:
    fields = places(schema)[place]

    with pytest.raises(Unsupported) as refused:
        check(fields)

    assert refused.value.param == next(iter(fields))
    assert refused.value.message.startswith(f"'{refused.value.param}")
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("place", places(True))
@pytest.mark.parametrize("schema", USUAL.values(), ids=USUAL)
def test_what_people_ask_for_passes(schema: Any, place: str) -> None:
    check(places(schema)[place])

    assert PROFILES["llama_cpp"].max_constraint_ways == 500


@pytest.mark.parametrize(("grammar", "is_refused"), GRAMMARS.values(), ids=GRAMMARS)
@pytest.mark.parametrize("name", ["grammar", "guided_grammar", "structured_outputs"])
def test_grammars_too(grammar: str, is_refused: bool, name: str) -> None:
    fields: dict[str, Any] = {name: {"grammar": grammar} if name == "structured_outputs" else grammar}
    refused = ""

    try:
        check(fields)
    except Unsupported as exc:
        refused = str(exc.param)

    assert refused == (name if is_refused else "")


@pytest.mark.parametrize("name", ["guided_choice", "guided_regex", "structured_outputs", "structural_tag"])
def test_choices_and_expressions_too(name: str) -> None:
    told: dict[str, Any] = {
        "guided_choice": VALUES,
        "guided_regex": "a?" * 500,
        "structured_outputs": {"choice": VALUES},
        "structural_tag": {"structures": [{"begin": "<f>", "schema": {"enum": VALUES}, "end": "</f>"}]},
    }

    with pytest.raises(Unsupported, match=name):
        check({name: told[name]}, "vllm")


def test_what_other_dialects_call_format_too() -> None:
    with pytest.raises(Unsupported, match="format"):
        check({}, extras={"format": {"type": "json_schema", "json_schema": {"schema": WIDE["enum"]}}})


def test_each_kind_of_engine_has_its_own_bound_and_others_have_none() -> None:
    fields = places({"enum": VALUES[:1_500]})["response_format"]

    check(fields, "vllm")
    check(places(WIDE["a very long enum"])["response_format"], "remote")
    for kind in ("llama_cpp", "ollama"):
        with pytest.raises(Unsupported, match="1500 ways"):
            check(fields, kind)


def test_a_number_out_of_range_is_no_error_of_ours() -> None:
    raw = b'{"model": "m", "messages": [], "response_format": {"schema": {"pattern": "a", "maximum": 1e400}}}'

    with pytest.raises(Unsupported, match="out of range"):
        constraint_cost.check(json_body.opened(raw)[0], {}, "demo", PROFILES["llama_cpp"])


def test_hidden_words_are_seen() -> None:
    raw = b'{"model": "m", "messages": [], "json_schema": {"p\\u0061ttern": "%s"}}' % (b"a?" * 500)

    with pytest.raises(Unsupported, match="json_schema"):
        constraint_cost.check(json_body.opened(raw)[0], {}, "demo", PROFILES["llama_cpp"])


@pytest.mark.parametrize(
    "fields",
    [
        *(
            places(schema)["response_format"]
            for schema in (
                {"type": "string", "minLength": 5, "maxLength": 1},
                {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 1},
                {"properties": {"a": {"type": "string", "pattern": "^a{5,1}$"}}},
            )
        ),
        {"tools": [{"function": {"name": "f", "parameters": {"properties": {"a": {"minLength": 2, "maxLength": 1}}}}}]},
        {"grammar": 'root ::= "a"{5,1}'},
        {"guided_regex": "a{5,1}"},
        {"structured_outputs": {"regex": "(ab){2,1}"}},
    ],
)
def test_at_least_more_than_at_most_holds_an_engine_up_for_ever(fields: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="has a minimum above its maximum"):
        check(fields)


def test_as_many_at_least_as_at_most_are_usual() -> None:
    check(places({"type": "string", "minLength": 5, "maxLength": 5, "pattern": "^a{5,5}$"})["response_format"])
    check({"grammar": 'root ::= "a"{5,} "b"{,5} "c"{5}'})


def test_the_widest_place_is_named() -> None:
    tools = [{"function": {"name": f"f{n}", "parameters": {"enum": VALUES[: 100 * n]}}} for n in range(8)]

    with pytest.raises(Unsupported, match=r"'tools\[7\]' lets an answer go on in 700 ways"):
        check({"tools": tools})


def test_more_than_is_looked_at_is_too_much() -> None:
    with pytest.raises(constraint_width.TooMuch, match="levels"):
        constraint_width.of_regex("(" * 500)
    with pytest.raises(constraint_width.TooMuch, match="pieces"):
        constraint_width.of_regex("a" * 30_000)


# -- over a real relay


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(("fake",)) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    local = backend(engine.url, kind="llama_cpp")
    async with running({"engine": local}, models("fake")) as gateway:
        yield gateway


SCHEMA = WIDE["enum"]
USER = [{"role": "user", "content": "hi"}]
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "OpenAI's chat": ("/v1/chat/completions", places(SCHEMA)["response_format"]),
    "OpenAI's tools": ("/v1/chat/completions", places(SCHEMA)["tools"]),
    "completions": ("/v1/completions", {"prompt": "a", "json_schema": SCHEMA}),
    "a grammar": ("/v1/completions", {"prompt": "a", "grammar": "root ::= " + '"a"? ' * 500}),
    "Anthropic's tools": ("/v1/messages", {"max_tokens": 9, "tools": [{"name": "f", "input_schema": SCHEMA}]}),
    "Anthropic's format": (
        "/v1/messages",
        {"max_tokens": 9, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    "responses": (
        "/v1/responses",
        {"input": "a", "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
    ),
    "tools of responses": (
        "/v1/responses",
        {"input": "a", "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]},
    ),
    "Ollama's chat": ("/api/chat", {"format": SCHEMA}),
    "Ollama's generate": ("/api/generate", {"prompt": "a", "format": SCHEMA}),
    "raw generate": ("/api/generate", {"prompt": "a", "format": SCHEMA, "raw": True}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ROUTES)
async def test_on_every_route_it_is_a_400_and_the_engine_is_not_asked(
    rig: Rig, engine: FakeEngine, route: str, stream: bool
) -> None:
    path, fields = ROUTES[route]
    body = {"model": "fake", "messages": USER, **fields, "stream": stream}
    if "prompt" in fields or "input" in fields:
        del body["messages"]

    reply = await rig.ask(path, body)

    assert reply.status == 400
    assert b"compute" in reply.body
    assert engine.posts == []


async def test_a_usual_schema_reaches_the_engine_as_it_is(rig: Rig, engine: FakeEngine) -> None:
    body = json.dumps(chat(**places(USUAL["a label of 300"])["response_format"])).encode()

    reply = await rig.ask(body=body)

    assert reply.status == 200
    assert engine.posts[-1].body == body
