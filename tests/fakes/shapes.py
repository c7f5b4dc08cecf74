"""Streams as engines and proxies are known to write them wrongly, and what a client gets for each.

docs/wire.md has this table; tests/unit/house/test_docs_wire.py holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.fakes import wire
from tests.fakes.peer import Peer
from tests.fakes.scenario import End, Scenario, Stage
from tests.fakes.wire import DONE, Ask, Json, dumps, sse

LONG_TEXT = "x" * (4 * 1024 * 1024)
FIRST_TEXT = "".join(wire.WORDS[:3])
FAILED = "CUDA error: an illegal memory access was encountered"
CALL = {"name": "weather", "arguments": '{"city": "Köln"}'}
ERROR = "what came before, then the error"

Change = Callable[[Json], object]


@dataclass(frozen=True, slots=True)
class Shape:
    """`sends`, `gets`: the row of the table. `text`, `thinking`, `calls`: all that a client must have in the end.
    `is_error`: it must also get an error that says that this is not all.
    """

    sends: str
    gets: str
    write: Callable[[Ask], Sequence[bytes]]
    text: str = wire.TEXT
    thinking: str = ""
    calls: tuple[Json, ...] = ()
    is_error: bool = False


def choice(piece: Json) -> Json:
    """The first choice of an event, which is the only one here."""
    first: Json = piece["choices"][0]
    return first


def each(change: Change, *, end: bytes = DONE) -> Callable[[Ask], Sequence[bytes]]:
    """A whole stream, with every event changed."""

    def write(ask: Ask) -> Sequence[bytes]:
        pieces = wire.pieces(ask)
        for piece in pieces:
            change(piece)
        return [*map(sse, pieces), end]

    return write


def framed(change: Callable[[bytes], bytes]) -> Callable[[Ask], Sequence[bytes]]:
    """A whole stream, with the bytes of every event changed."""
    return lambda ask: [change(event) for event in [*map(sse, wire.pieces(ask)), DONE]]


def last(change: Change) -> Callable[[Ask], Sequence[bytes]]:
    """A whole stream, with its last event changed."""

    def write(ask: Ask) -> Sequence[bytes]:
        pieces = wire.pieces(ask)
        change(pieces[-1])
        return [*map(sse, pieces), DONE]

    return write


def behind(*rest: object) -> Callable[[Ask], Sequence[bytes]]:
    """A whole stream, with these events before the end mark."""
    more = [each if isinstance(each, bytes) else sse(each) for each in rest]
    return lambda ask: [*map(sse, wire.pieces(ask)), *more, DONE]


def broken(sends: str, *rest: object, end: bytes = DONE, gets: str = ERROR) -> Shape:
    """The first words, these events, and the end mark as if all were well."""
    more = [each if isinstance(each, bytes) else sse(each) for each in rest]

    def write(ask: Ask) -> Sequence[bytes]:
        return [*map(sse, wire.pieces(ask, wire.WORDS)[:4]), *more, end]

    return Shape(sends, gets, write, FIRST_TEXT, is_error=True)


def deltas(*given: Json, finish: str = "stop") -> Callable[[Ask], Sequence[bytes]]:
    """A stream of these deltas."""

    def write(ask: Ask) -> Sequence[bytes]:
        pieces = [wire.piece(ask, None) for _ in given]
        for piece, delta in zip(pieces, given, strict=True):
            choice(piece)["delta"] = delta
        return [*map(sse, [*pieces, wire.piece(ask, None, finish)]), DONE]

    return write


def calling(sends: str, gets: str, *pieces: Json, calls: int = 1) -> Shape:
    """A stream of parts of tool calls."""
    given: list[Json] = [{"role": "assistant", "content": None}, *({"tool_calls": [piece]} for piece in pieces)]
    return Shape(sends, gets, deltas(*given, finish="tool_calls"), "", calls=(CALL,) * calls)


def call(name: str | None = None, arguments: object = None, **more: object) -> Json:
    """A part of a tool call."""
    given = {"name": name, "arguments": arguments}
    return {**more, "function": {key: value for key, value in given.items() if value is not None}}


def _without(name: str) -> Change:
    return lambda piece: piece.pop(name)


def _parts(piece: Json) -> None:
    delta = choice(piece)["delta"]
    delta["content"] = [{"type": "text", "text": delta["content"]}]


def _late_id(ask: Ask) -> Sequence[bytes]:
    pieces = wire.pieces(ask)
    del pieces[0]["id"]
    return [*map(sse, pieces), DONE]


def _late_role(ask: Ask) -> Sequence[bytes]:
    pieces = wire.pieces(ask)[1:]
    choice(pieces[-1])["delta"]["role"] = "assistant"
    return [*map(sse, pieces), DONE]


def _as_message(ask: Ask) -> Sequence[bytes]:
    piece = wire.piece(ask, None, "stop")
    del choice(piece)["delta"]
    choice(piece)["message"] = {"role": "assistant", "content": wire.TEXT}
    return [sse(piece), DONE]


def _as_text(piece: Json) -> None:
    choice(piece)["text"] = choice(piece).pop("delta")["content"]


def _usages(ask: Ask) -> Sequence[bytes]:
    return [*(sse(p | {"usage": wire.usage(ask, at)}) for at, p in enumerate(wire.pieces(ask))), DONE]


def _long(ask: Ask) -> Sequence[bytes]:
    return [sse(wire.piece(ask, "", role=True)), sse(wire.piece(ask, LONG_TEXT, "stop")), DONE]


def _bytes(ask: Ask) -> Sequence[bytes]:
    return [bytes([byte]) for byte in b"".join([*map(sse, wire.pieces(ask)), DONE])]


def _unended(ask: Ask) -> Sequence[bytes]:
    *events, end = map(sse, wire.pieces(ask))
    return [*events, end.rstrip()]


def _fill(piece: Json) -> None:
    if choice(piece)["finish_reason"] is None:
        choice(piece)["finish_reason"] = ""


def _say_null(piece: Json) -> None:
    if choice(piece)["finish_reason"] is None:
        choice(piece)["finish_reason"] = "null"


def _drop_finish(piece: Json) -> None:
    if choice(piece)["finish_reason"] is None:
        del choice(piece)["finish_reason"]


_FILLED = "one, the same in every event"
_ANSWER = "the whole text"
_ONE_CALL = "the call with its id, type, name and arguments"
_USAGE = {"prompt_tokens": 12, "completion_tokens": 12, "total_tokens": 24}
_NULL: Json = {"function": {"name": "weather", "arguments": None}}
_HEAD = {"id": "chatcmpl-8f2c1d", "object": "chat.completion.chunk", "created": wire.CREATED, "model": "fake"}

SHAPES: dict[str, Shape] = {
    "no_id": Shape("no `id`", _FILLED, each(_without("id"))),
    "null_id": Shape("`id: null`", _FILLED, each(lambda p: p.update(id=None))),
    "late_id": Shape("an `id` from the second event on", _FILLED, _late_id),
    "no_object": Shape("no `object`", _FILLED, each(_without("object"))),
    "no_created": Shape("no `created`", _FILLED, each(_without("created"))),
    "created_as_text": Shape("`created` as a text", "a number", each(lambda p: p.update(created="2026-11-22"))),
    "no_model": Shape("no `model`", "the name the client used", each(_without("model"))),
    "empty_model": Shape("an empty `model` at the end", "the name the client used", last(lambda p: p.update(model=""))),
    "null_choices": Shape("`choices: null`", "`choices: []`", behind({**_HEAD, "choices": None, "usage": None})),
    "no_choices": Shape("usage without `choices`", "`choices: []`", behind({**_HEAD, "usage": _USAGE})),
    "one_choice": Shape("a choice, not a list of them", "a list", each(lambda p: p.update(choices=choice(p)))),
    "no_index": Shape("no `index` of a choice", "its place in the list", each(lambda p: choice(p).pop("index"))),
    "text_index": Shape("`index` as a text", "a number", each(lambda p: choice(p).update(index="0"))),
    "no_role": Shape("no `role`", "`assistant`, first", each(lambda p: choice(p)["delta"].pop("role", None))),
    "roles": Shape(
        "`role` in every event", "in the first", each(lambda p: choice(p)["delta"].update(role="assistant"))
    ),
    "late_role": Shape("`role` in the last event", "in the first", _late_role),
    "null_delta": Shape("`delta: null`", "`{}`", behind({**_HEAD, "choices": [{"index": 0, "delta": None}]})),
    "message": Shape("a `message` for a `delta`", _ANSWER, _as_message),
    "text": Shape("a `text` for a `delta`", _ANSWER, each(_as_text)),
    "parts": Shape("content as a list of parts", _ANSWER, each(_parts)),
    "no_finish_key": Shape("`finish_reason` in the last event only", "`null` in the others", each(_drop_finish)),
    "empty_finish": Shape('`finish_reason: ""`', "`null`", each(_fill)),
    "null_finish": Shape('`finish_reason: "null"`', "`null`", each(_say_null)),
    "other_finish": Shape(
        "`finish_reason` in another word (`eos_token`, `MAX_TOKENS`)",
        "OpenAI's, `length` for one that nobody knows",
        last(lambda p: choice(p).update(finish_reason="EOS_TOKEN")),
    ),
    "two_finishes": Shape(
        "`finish_reason` twice",
        "once",
        behind({**_HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    ),
    "usages": Shape("usage in every event", "as sent", _usages),
    "no_done": Shape("no end mark", "`[DONE]`", each(lambda p: None, end=b"")),
    "two_dones": Shape("the end mark twice", "once", each(lambda p: None, end=DONE * 2)),
    "junk": Shape(
        "anything behind the end mark",
        "nothing of it",
        each(lambda p: None, end=DONE + b"data: {" + wire.JUNK.encode()),
    ),
    "crlf": Shape("lines that end in CRLF", "in LF", framed(lambda event: event.replace(b"\n", b"\r\n"))),
    "cr": Shape("lines that end in CR", "in LF", framed(lambda event: event.replace(b"\n", b"\r"))),
    "split": Shape("every byte in a chunk of its own", "whole events", _bytes),
    "long": Shape("a line of 4 MiB", "the same", _long, LONG_TEXT),
    "bom": Shape("a byte order mark", "none", lambda ask: [b"\xef\xbb\xbf", *each(lambda p: None)(ask)]),
    "comments": Shape("comments between events", "the same", framed(lambda event: b": ping\n\n" + event)),
    "no_space": Shape("`data:` without a space", "with one", framed(lambda event: event.replace(b"data: ", b"data:"))),
    "two_lines": Shape(
        "an event's data on two lines", "on one", framed(lambda e: e.replace(b',"choices"', b'\ndata: ,"choices"'))
    ),
    "no_blank_lines": Shape("no blank lines between events", _ANSWER, framed(lambda event: event[:-1])),
    "unended": Shape("no blank line at the very end", _ANSWER, _unended),
    "empty_data": Shape("events with empty data", "none of them", framed(lambda event: b"data:\n\ndata: \n\n" + event)),
    "null_data": Shape("`data: null`", "none of them", framed(lambda event: b"data: null\n\n" + event)),
    "named": Shape("events with a name and a number", _ANSWER, framed(lambda event: b"event: chunk\nid: 7\n" + event)),
    "reasoning": Shape(
        "thinking as `reasoning`",
        "under both names",
        deltas({"reasoning": "7 + "}, {"reasoning": "5"}, {"content": "12"}),
        "12",
        "7 + 5",
    ),
    "reasoning_content": Shape(
        "thinking as `reasoning_content`",
        "under both names",
        deltas({"reasoning_content": "7 + "}, {"reasoning_content": "5"}, {"content": "12"}),
        "12",
        "7 + 5",
    ),
    "call_no_index": calling(
        "a tool call without `index`",
        _ONE_CALL,
        call("weather", '{"city":', id="c", type="function"),
        call(arguments=' "Köln"}'),
    ),
    "call_no_id": calling(
        "a tool call without `id`",
        _ONE_CALL,
        call("weather", "", index=0, type="function"),
        call(arguments=CALL["arguments"], index=0),
    ),
    "call_no_type": calling(
        "a tool call without `type`", _ONE_CALL, call("weather", CALL["arguments"], index=0, id="c")
    ),
    "call_from_one": calling(
        "tool calls counted from 1",
        "from 0",
        call("weather", CALL["arguments"], index=1, id="c"),
        call("weather", CALL["arguments"], index=2, id="d"),
        calls=2,
    ),
    "call_same_index": calling(
        "every tool call as number 0",
        "each with its own",
        call("weather", CALL["arguments"], index=0, id="c"),
        call("weather", CALL["arguments"], index=0, id="d"),
        calls=2,
    ),
    "call_mixed": calling(
        "the pieces of two tool calls in turns",
        "the calls with their ids, types, names and arguments",
        call("weather", '{"city":', index=0, id="c"),
        call("weather", "", index=1, id="d"),
        call(arguments='{"city"', index=1),
        call(arguments=' "Köln"}', index=0),
        call(arguments=': "Köln"}', index=1),
        calls=2,
    ),
    "call_mixed_by_id": calling(
        "the same, every call as number 0",
        "each with its own",
        call("weather", '{"city":', index=0, id="c"),
        call("weather", '{"city"', index=0, id="d"),
        call(arguments=' "Köln"}', index=0, id="c"),
        call(arguments=': "Köln"}', index=0, id="d"),
        calls=2,
    ),
    "call_repeated": calling(
        "id and name in every piece of a call",
        "in the first",
        call("weather", '{"city":', index=0, id="c"),
        call("weather", ' "Köln"}', index=0, id="c"),
    ),
    "call_late_name": calling(
        "a name behind the arguments",
        _ONE_CALL,
        call(arguments='{"city":', index=0, id="c"),
        call("weather", ' "Köln"}', index=0),
    ),
    "call_object": calling("arguments as an object", "as a text", call("weather", {"city": "Köln"}, index=0, id="c")),
    "call_empty": replace(
        calling('arguments `""`', '`"{}"`', call("weather", "", index=0, id="c")),
        calls=({"name": "weather", "arguments": "{}"},),
    ),
    "call_null": replace(
        calling("arguments `null`", '`"{}"`', {**call("weather", index=0, id="c"), **_NULL}),
        calls=({"name": "weather", "arguments": "{}"},),
    ),
    "error": broken('`{"error": {…}}`', {"error": {"message": FAILED, "type": "InternalServerError", "code": 500}}),
    "error_text": broken('`{"error": "…"}`', {"error": FAILED}),
    "error_object": broken('`{"object": "error", …}`', {"object": "error", "message": FAILED, "code": 500}),
    "error_detail": broken('`{"detail": …}`', {"detail": [{"msg": FAILED, "loc": ["body"]}]}),
    "error_beside": broken("an error beside choices", {**_HEAD, "choices": [], "error": {"message": FAILED}}),
    "error_in_choice": broken(
        "an error in a choice",
        {**_HEAD, "choices": [{"index": 0, "delta": {}, "error": {"message": FAILED}, "finish_reason": "error"}]},
    ),
    "error_reason": broken(
        "`finish_reason: error` or `abort`", {**_HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}
    ),
    "error_named": broken("`event: error` with a text", b"event: error\ndata: " + FAILED.encode() + b"\n\n"),
    "error_bare": broken("an error without `data:`", dumps({"error": {"message": FAILED}}) + b"\n\n"),
    "error_field": broken("`error: {…}` for `data:`", b"error: " + dumps({"code": 500, "message": FAILED}) + b"\n\n"),
    "no_json": broken("data that is no JSON", b"data: {not JSON\n\n"),
    "no_chunk": broken("JSON that is no chunk", b"data: [1, 2]\n\n"),
    "call_no_name": broken(
        "a tool call without a name",
        {
            **_HEAD,
            "choices": [
                {
                    "index": 0,
                    "delta": {"tool_calls": [call(arguments="{}", index=0, id="c")]},
                    "finish_reason": "tool_calls",
                }
            ],
        },
    ),
    "no_finish": broken("the end mark without a `finish_reason`"),
    "no_end": broken("neither of them", end=b""),
    "half": broken("half an event at the end", end=b'data: {"choices":[{"index":0,"delta":{"content":"never'),
}


def _scenario(shape: Shape) -> Scenario:
    async def act(peer: Peer) -> None:
        await peer.send_stream(*shape.write(peer.ask))
        await peer.send(wire.LAST_CHUNK)

    end = End.ERROR if shape.is_error else End.WHOLE
    return Scenario(act, Stage.STREAM if shape.is_error else Stage.FINE, (200,), end, shape.text, only_stream=True)


def _at_first(shape: Shape) -> Scenario:
    """The same without the words before it."""

    async def act(peer: Peer) -> None:
        await peer.send_stream(*shape.write(peer.ask)[4:])
        await peer.send(wire.LAST_CHUNK)

    return Scenario(act, Stage.BEFORE, (502,), End.ERROR, only_stream=True)


THOUGHT, SAID = "7 + 5\n\nis 12", "Twelve."
TAGGED = f"<think>\n{THOUGHT}\n</think>\n\n{SAID}"


async def thinks(peer: Peer) -> None:
    """A stream with its reasoning in the text, in pieces of three letters."""
    if peer.ask.stream:
        words = [TAGGED[at : at + 3] for at in range(0, len(TAGGED), 3)]
        await peer.send_stream(*map(sse, wire.pieces(peer.ask, words)), DONE)
        await peer.send(wire.LAST_CHUNK)
        return
    answer = wire.answer(peer.ask)
    choice(answer)["message"]["content"] = TAGGED
    await peer.send_json(answer)


SCENARIOS: dict[str, Scenario] = {
    "thinks": Scenario(thinks, Stage.FINE, text=TAGGED),
    **{f"shape_{name}": _scenario(shape) for name, shape in SHAPES.items()},
    **{f"first_{name}": _at_first(shape) for name, shape in SHAPES.items() if shape.is_error},
}
