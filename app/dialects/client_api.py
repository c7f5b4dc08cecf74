"""The seam between the data path and a client's own dialect.

Behind it every request is an OpenAI request: one plan, one dispatch, one way back. A `ClientApi` makes a
`TranslatedRequest` of what the client sent, and its `ResponseEncoder` writes what comes back in the client's dialect. A
client that speaks OpenAI has no encoder: its bytes pass as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from app.dialects import json_members
from app.dialects.usage import EngineStats, Usage
from app.errors import Problem, bad_request
from backends.http.delta import Delta

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


class ResponseEncoder(Protocol):
    """Writes the response to one request in its client's dialect. What a method returns goes to the client as it is.

    `next`, `end` and `whole` raise ValueError (a sentence that goes behind "it sent …") for a response that cannot
    be put into this dialect.
    """

    whole_type: str
    stream_type: str
    # Codes of refusals that clients look for in the events of a stream only: such a stream is one of status 200, and
    # its last event says all.
    event_codes: frozenset[str]

    def refused(self, problem: Problem) -> bytes:
        """A failure before the first byte: a whole body."""
        ...

    def failed(self, problem: Problem) -> bytes:
        """A failure in the middle of a stream: its last event."""
        ...

    def waiting(self, what: str) -> bytes:
        """What keeps a stream alive in which nothing comes, at the beginning or later."""
        ...

    def next(self, delta: Delta) -> bytes:
        """The events of a stream for the next delta; possibly none."""
        ...

    def end(self, usage: Usage, stats: EngineStats) -> bytes:
        """The end of a stream whose response is complete."""
        ...

    def whole(self, delta: Delta, usage: Usage, stats: EngineStats) -> bytes:
        """A whole response, all of which is in the delta."""
        ...

    def embeddings(self, answer: bytes, usage: Usage) -> bytes:
        """The response to a request for embeddings, made of OpenAI's."""
        ...


class ErrorEncoder:
    """What is the same of all response encoders of routes that write no text: they answer whole, with what an engine or
    this gateway has made, and only errors are written in the dialect, by subclasses.
    """

    whole_type = "application/json"
    stream_type = "text/event-stream"
    event_codes: frozenset[str] = frozenset()

    def refused(self, problem: Problem) -> bytes:
        """OpenAI's error."""
        return problem.body()

    def failed(self, problem: Problem) -> bytes:
        """As `refused`; it does not stream."""
        return self.refused(problem)

    def waiting(self, what: str) -> bytes:
        """Nothing; it does not stream."""
        return b""

    def next(self, delta: Delta) -> bytes:
        """Nothing; it does not stream."""
        return b""

    def end(self, usage: Usage, stats: EngineStats) -> bytes:
        """Nothing; it does not stream."""
        return b""

    def whole(self, delta: Delta, usage: Usage, stats: EngineStats) -> bytes:
        """Nothing; it has no text."""
        return b""

    def embeddings(self, answer: bytes, usage: Usage) -> bytes:
        """The response as it is."""
        return answer


class TranslatedRequest(msgspec.Struct, frozen=True):
    """A request as OpenAI's: the route, the model's name as the client spells it, and the body's other fields.

    `extras` are parameters that OpenAI does not have; the engine decides which of them it gets (engine_options.py).
    `dropped` are the client's names for what no engine gets. `loads`: nothing is asked but that the model be ready; the
    bytes are the answer then.
    """

    path: str
    model: str | None
    fields: Mapping[str, Any]
    encoder: ResponseEncoder
    extras: Mapping[str, Any] = {}
    dropped: tuple[str, ...] = ()
    loads: bytes | None = None


class ClientApi(Protocol):
    """One route of another dialect."""

    def encoder(self, token: str) -> ResponseEncoder:
        """For refusals before anything is known of the request. `token`: random letters, of which ids are made."""
        ...

    def translate(self, body: bytes, token: str) -> TranslatedRequest:
        """The request in OpenAI's dialect, of a sound JSON body; Problem (400) for what is not valid or supported."""
        ...


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type; Problem (400) that names the field that is wrong and never its content."""
    if not body.strip():
        raise bad_request("missing request body", code="invalid_json")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        # msgspec says: Expected `str`, got `int` - at `$.messages[0].role`; only types and the place are in it.
        reason = str(exc)
        place = re.search(r"at `\$\.?([^`]*)`", reason)
        field = place.group(1) if place else ""
        wrong = reason.partition(" - at ")[0].replace("`", "")
        bound = re.search(r"Expected `\w+` ([<>]=) ([0-9.]+)", reason)
        if bound is not None:
            most = "at most" if bound[1] == "<=" else "at least"
            message = f"'{field}' must be {most} {float(bound[2]):g}."
            raise bad_request(message, param=field, code="invalid_value") from exc
        named = f"'{field}' has the wrong type: {wrong}." if field else "The request's body must be a JSON object."
        raise bad_request(named, param=field or None, code="invalid_type") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise bad_request("The request's body is not valid JSON.", code="invalid_json") from exc


def unknown(known: type[msgspec.Struct], body: bytes) -> list[str]:
    """The names of the body's members that `known` has no field for, but for those that are null."""
    members = json_members.decode(body)
    fields = set(known.__struct_encode_fields__)
    names = [name for name in members.keys() - fields if _NAME.match(name)]
    return sorted(name for name in names if bytes(memoryview(members[name])[:4]) != b"null")


def unknown_inside(body: bytes, known: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The same for members inside of members, as `outer.inner`."""
    members = json_members.decode(body)
    names: list[str] = []
    for outer, inner in known.items():
        raw = members.get(outer)
        if raw is not None and bytes(memoryview(raw)[:1]) == b"{":
            inside = json_members.decode(raw)
            names += [f"{outer}.{name}" for name in inside.keys() - set(inner) if _NAME.match(name)]
    return sorted(names)


def word(kind: Any) -> str | None:
    """A kind as the client wrote it, cut to 40 characters; None where a header or a sentence cannot hold it."""
    is_word = isinstance(kind, str) and kind.isascii() and kind.replace("_", "").isalnum()
    return kind[:40] if is_word else None


def left_out(where: str, kind: Any) -> str:
    """The name under which the client is told that something of this kind has no effect, such as `tools.web_search`."""
    name = word(kind)
    return f"{where}.{name}" if name is not None else where


def with_results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, tools' results as OpenAI's API takes them; `shown` of a result are its pictures and files.

    Results stand in the order of the calls: ids tell them apart, but many chat templates show none and a model goes by
    the order, while agents send them as they come (Claude Code 2.1 sent those of two commands the other way round).
    What they show is not taken there: it comes with the user's next words, or before anybody else's.
    """
    ordered: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}  # of the last turn's calls, by id
    for message in [*messages, None]:
        if message is not None and message["role"] == "tool":
            results.append(message)
            continue
        results.sort(key=lambda result: numbers.get(result["tool_call_id"], len(numbers)))
        shown = [part for result in results for part in result.pop("shown", ())]
        ordered += results
        results = []
        if shown and message is not None and message["role"] == "user":
            content = message["content"]
            words = [{"type": "text", "text": content}] if isinstance(content, str) else content
            message = {**message, "content": [*shown, *words]}
        elif shown:
            ordered.append({"role": "user", "content": shown})
        if message is not None:
            ordered.append(message)
            numbers = {call["id"]: number for number, call in enumerate(message.get("tool_calls") or ())}
    return ordered


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
