"""The body's check against the standard library's parser as oracle, wherever its steps cut the body."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.dialects import json_members
from app.errors import Problem
from app.relay.http import json_body
from app.relay.http.json_body import MAX_DEPTH, RequestHead
from app.relay.http.member_names import KNOWN, MAX_MEMBERS, folded

# Sizes of the two kinds of step; the small ones cut everywhere.
STEPS = st.sampled_from([(1, 16), (7, 17), (32 * 1024, 512 * 1024)])
NAMES = st.sampled_from(["model", "stream", "stream_options", "messages", "mo", "modes", "é", "🙂", ""]) | st.text(
    max_size=4
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


# Functions with names: Hypothesis describes a lambda by parsing the whole file, deep in a recursive value.
def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)


def as_model(text: str) -> bytes:
    return f'{{"model":{text}}}'.encode()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


VALUES = st.recursive(LEAVES, nested, max_leaves=12)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
# The fields that are read, right or nearly so, and more than once now and then.
MEMBERS = st.lists(
    st.tuples(st.just("model"), st.just("fake") | VALUES)
    | st.tuples(st.just("stream"), st.booleans() | VALUES)
    | st.tuples(st.just("messages"), st.lists(OBJECTS, max_size=2) | VALUES)
    | st.tuples(st.just("stream_options"), st.dictionaries(st.just("include_usage"), st.booleans()) | VALUES)
    | st.tuples(NAMES, VALUES),
    max_size=5,
)
TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    '"model"',
    '"stream"',
    '"m\\u006fdel"',
    "\\ud83d",
    "\\ude00",
    "\\u0041",
]
TOKENS += [
    "NaN",
    "Infinity",
    "null",
    "true",
    "1",
    "-",
    "0",
    ".",
    "e9",
    "01",
    " ",
    "\n",
    "\t",
    "\x00",
    "\x7f",
    "é",
    "🙂",
    "//",
]
PIECES = st.lists(st.sampled_from(TOKENS) | st.text(max_size=2), max_size=30).map("".join)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """An object as some client writes it: with or without escapes and white space, members in any number."""
    ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, 0, 1]))
    pairs = [
        (json.dumps(name, ensure_ascii=draw(st.booleans())), json.dumps(value, ensure_ascii=ascii_only, indent=indent))
        for name, value in draw(MEMBERS)
    ]
    return ("{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}").encode("utf-8", "surrogatepass")


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """The same with a few bytes lost, doubled or put in."""
    data = draw(written())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + 4)))
        data = data[:at] + draw(PIECES | st.just("")).encode("utf-8", "surrogatepass") + data[until:]
    return data


def check(data: bytes, steps: tuple[int, int] = (32 * 1024, 512 * 1024)) -> RequestHead:
    """What a route does with a body."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "STEP_BYTES", steps[0])
        patch.setattr(json_body, "SURVEY_BYTES", steps[1])
        for _ in json_body.walk(data):
            pass
    return json_body.opened(data)[0]


class Strange(ValueError):
    """JSON that the standard library takes and we do not."""


def no_constant(name: str) -> object:
    raise Strange(name)


def depth(value: object) -> int:
    """How many objects and lists are inside each other."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def oracle(data: bytes) -> list[tuple[str, Any]]:
    """The outermost object's members by the standard library; ValueError (Strange too) for what must not pass."""
    pairs: list[tuple[str, Any]] = []

    def keep(members: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = members  # the outermost object comes last
        return dict(members)

    text = data.decode("utf-8")
    value = json.loads(text, parse_constant=no_constant, object_pairs_hook=keep)
    if not isinstance(value, dict):
        raise Strange("not an object")
    json.dumps(pairs, ensure_ascii=False).encode("utf-8")  # UnicodeEncodeError for half a surrogate pair
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names) or depth(value) > MAX_DEPTH:
        raise Strange("twice or too deep")
    if any(name not in KNOWN and folded(name) in KNOWN for name in names):
        raise Strange("a known name in another spelling")
    return pairs


@settings(max_examples=300, deadline=None)
@given(spoiled() | PIECES.map(str.encode) | PIECES.map(as_model), STEPS)
@example(b'{"a":{"model":1,"model":2},"model":"x"}', (1, 16))
@example(rb'{"model":"x","mod\u0065l":"y"}', (1, 16))
@example(rb'{"model":"x","a":"\\ud83d"}', (1, 16))
def test_what_passes_is_an_object_for_everybody_else_too(data: bytes, steps: tuple[int, int]) -> None:
    try:
        head = check(data, steps)
    except Problem:
        return

    members = dict(oracle(data))
    assert head.model == members.get("model")
    assert head.stream == members.get("stream")
    options = members.get("stream_options")
    assert (head.stream_options is None) == (options is None)
    assert options is None or head.stream_options == json_body.StreamOptions(options.get("include_usage"))
    assert isinstance(members.get("messages"), list | None)


@settings(max_examples=200, deadline=None)
@given(written(), STEPS)
def test_what_the_oracle_takes_passes_when_its_fields_have_their_types(data: bytes, steps: tuple[int, int]) -> None:
    try:
        pairs = oracle(data)
    except ValueError:
        with pytest.raises(Problem):
            check(data, steps)
        return
    members = dict(pairs)
    known = [name for name in members if name in KNOWN]
    assume(all(f'"{name}"'.encode() in data for name in known))  # else one is written with escapes
    inner = members.get("stream_options")
    assume(not isinstance(inner, dict) or b"\\u" not in data)
    options = members.get("stream_options")
    is_typed = (
        isinstance(members.get("model"), str | None)
        and isinstance(members.get("stream"), bool | None)
        and isinstance(members.get("messages"), list | None)
        and isinstance(options, dict | None)
        and isinstance((options or {}).get("include_usage"), bool | None)
    )

    if is_typed:
        check(data, steps)
    else:
        with pytest.raises(Problem) as refusal:
            check(data, steps)
        assert refusal.value.param in ("model", "stream", "messages", "stream_options")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, MAX_DEPTH * 2), st.sampled_from(["list", "object", "both"]), STEPS)
def test_depth_is_counted_alike_for_lists_and_objects(deep: int, kind: str, steps: tuple[int, int]) -> None:
    value: object = 1
    for level in range(deep - 1):
        value = [value, "]"] if kind == "list" or (kind == "both" and level % 2) else {"a": "}", "b": value}
    data = json.dumps({"model": "fake", "x": value}).encode()

    if deep <= MAX_DEPTH:
        assert check(data, steps).model == "fake"
    else:
        with pytest.raises(Problem):
            check(data, steps)


@pytest.mark.parametrize("cut", range(40))
def test_a_field_is_found_twice_wherever_the_steps_meet(cut: int) -> None:
    data = b'{"x":"' + b"." * cut + b'","model":"a",' + b'"model":"b","stream":true}'

    with pytest.raises(Problem) as refusal:
        check(data, (7, 32))
    assert refusal.value.code == "duplicate_field"


def raw(data: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in msgspec.json.decode(data, type=dict[str, msgspec.Raw]).items()}


@settings(max_examples=200, deadline=None)
@given(written(), st.dictionaries(NAMES, VALUES.map(as_json), max_size=3))
def test_an_edit_sets_its_fields_and_leaves_the_rest_byte_for_byte(data: bytes, fields: dict[str, bytes]) -> None:
    before = raw(data)

    after = raw(json_members.edit(data, fields))

    assert after == before | fields
    assert list(after) == [*before, *(name for name in fields if name not in before)]


@settings(max_examples=100, deadline=None)
@given(st.none() | st.dictionaries(NAMES | st.just("include_usage"), VALUES, max_size=3))
def test_usage_is_asked_for_beside_what_the_client_asked_for(options: dict[str, Any] | None) -> None:
    given = msgspec.Raw(json.dumps(options).encode())

    assert json.loads(json_members.with_usage(given)) == (options or {}) | {"include_usage": True}
    assert json.loads(json_members.with_usage(None)) == {"include_usage": True}


MANY = ",".join(f'"{n}":1' for n in range(MAX_MEMBERS + 1)).encode()


@pytest.mark.parametrize("data", [b'{"model":"fake",' + MANY + b"}", b"{" + MANY + b',"model":"fake","x":"\\u0041"}'])
def test_a_body_of_very_many_fields_is_refused_before_any_of_them_costs_time(data: bytes) -> None:
    with pytest.raises(Problem) as refusal:
        check(data, (json_body.STEP_BYTES, json_body.SURVEY_BYTES))
    assert (refusal.value.status, refusal.value.code) == (400, "too_many_fields")


def test_as_many_strings_inside_the_messages_are_fine() -> None:
    data = json.dumps({"model": "fake", "messages": [{"role": "user", "content": "x"}] * 3 * MAX_MEMBERS}).encode()

    assert check(data, (json_body.STEP_BYTES, json_body.SURVEY_BYTES)).model == "fake"


def test_stream_options_of_any_size_are_not_taken_apart() -> None:
    with pytest.raises(Problem) as refusal:
        json_members.with_usage(msgspec.Raw(b"{" + MANY + b"}"))
    assert refusal.value.param == "stream_options"
