"""Whether a request body is one sound JSON object, and the few fields of it that routing reads. Pure; bytes stay bytes.

msgspec alone accepts duplicate keys, any depth, and bad UTF-8 or surrogates in fields it skips; a full parse of 30 MiB
of small objects takes 2.6 s. So what is cheap to count is counted first, and only where that does not settle it is the
structure walked, in steps that let other streams go on.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from app.dialects.parameters.adjust import RequestParameters
from app.errors import Problem, bad_request
from app.relay.http import member_names as names

MAX_DEPTH = 64
# Members and elements of a body: 100,000 that are read whole take about 0.1 s of one core.
MAX_ITEMS = 100_000
# The same where a field may be a list of tokens, which is not decoded. It is passed over in 10 ms.
MAX_TOKENS = 4_000_000
# One step of the walk: about 1 ms.
STEP_BYTES = 32 * 1024
# One step of the survey that decides whether a walk is needed, which is substring searches only.
SURVEY_BYTES = 512 * 1024

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
# Possessive, and ended by the end of the piece too: no input makes it look at a byte twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+("|\Z)', re.DOTALL)
_OF_PROMPTS = re.compile(rb'\[[ \t\r\n]*["\[]')
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_DELTA = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ONES = bytes.maketrans(b"0123456789", b"1" * 10)
_BLANKS = b" \t\r\n"
_BACKSLASH = ord("\\")


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's `stream_options`, what we read of it."""

    include_usage: bool | None = None


class RequestHead(RequestParameters, frozen=True):
    """The fields that decide where a request goes and how its answer is read, and those that may be edited."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    messages: msgspec.Raw = msgspec.Raw(b"null")
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    user: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def prompts(self) -> int:
        """The number of texts that a completion continues: of a list, its texts or its lists of tokens; else one."""
        view = memoryview(self.prompt)
        # A list of tokens is one text, and too long to be decoded.
        if bytes(view[:1]) != b"[" or not _OF_PROMPTS.match(view):
            return 1
        return len(_raws.decode(self.prompt))


_raws = msgspec.json.Decoder(list[msgspec.Raw])
_heads = msgspec.json.Decoder(RequestHead)


def opened(body: bytes) -> tuple[RequestHead, dict[str, msgspec.Raw]]:
    """The head and the members (name → raw value) of a body that passed `walk`.

    Problem (400) for a body that is not a JSON object or has a field of a wrong type; it names the field, and never
    repeats its content.
    """
    if not body.strip():
        raise bad_request("The request has no body; a JSON object is expected.", code="invalid_json")
    try:
        head = _heads.decode(body)
    except msgspec.ValidationError as exc:
        raise _wrong_type(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise bad_request("The request's body is not valid JSON.", code="invalid_json") from exc
    if bytes(memoryview(head.messages)[:1]) not in (b"[", b"n"):
        raise bad_request("'messages' must be a list.", param="messages", code="invalid_type")
    return head, names.members(body)


def _wrong_type(text: str) -> Problem:
    """In our words what msgspec says, such as: Expected `str`, got `int` - at `$.model`."""
    expected = re.search(r"Expected `([^`]*)`", text)
    path = re.search(r"at `\$\.?([a-z_.]*)", text)
    field = path.group(1).split(".")[0].rstrip("[") if path and path.group(1) else None
    names = {"str": "a string", "bool": "true or false", "array": "a list", "object": "an object"}
    wanted = names.get((expected.group(1) if expected else "").split(" | ")[0], "of another type")
    if field is None:
        return bad_request("The request's body must be a JSON object.", code="invalid_json")
    return bad_request(f"'{field}' must be {wanted}.", param=field, code="invalid_type")


def check(body: bytes, max_items: int = MAX_ITEMS) -> None:
    """`walk` in one go, for a body that is small."""
    if not _is_plain(body):
        for _ in walk(body, max_items):
            pass


def walk(body: bytes, max_items: int = MAX_ITEMS) -> Iterator[None]:
    """Check what msgspec does not: Problem (400) for bad UTF-8, lone surrogates, too deep nesting, too many items.

    It yields about every millisecond, so that a large body is checked between other work. Members and elements are
    bounded so that no later step takes long or much memory: the smallest take two bytes here, and a hundred once they
    are decoded. `max_items` counts the numbers in lists too (MAX_TOKENS where they may be tokens).
    """
    if _is_plain(body):
        return
    text = codecs.getincrementaldecoder("utf-8")()
    openers = commas = 0
    has_surrogates = False
    for start in range(0, len(body), SURVEY_BYTES):
        piece = body[start : start + SURVEY_BYTES] if len(body) > SURVEY_BYTES else body
        try:
            text.decode(piece, final=start + SURVEY_BYTES >= len(body))
        except UnicodeDecodeError as exc:
            raise bad_request("The request's body is not valid UTF-8.", code="invalid_json") from exc
        joint = body[start + SURVEY_BYTES - 8 : start + SURVEY_BYTES + 8]  # what straddles two pieces
        openers += piece.count(b"[") + piece.count(b"{")
        commas += piece.count(b",")
        has_surrogates = has_surrogates or any(half in where for half in (b"\\ud", b"\\uD") for where in (piece, joint))
        yield
    if has_surrogates:
        yield from _check_surrogates(body)
    if openers > MAX_DEPTH or commas > MAX_ITEMS:
        yield from _check_structure(body, max_items)


def _is_plain(body: bytes) -> bool:
    """Whether a body is so small and plain that nothing in it has to be walked: nearly every one is."""
    return (
        len(body) <= STEP_BYTES
        and (body.isascii() or _is_utf8(body))
        and b"\\u" not in body
        and body.count(b"[") + body.count(b"{") <= MAX_DEPTH
    )


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_surrogates(body: bytes) -> Iterator[None]:
    high_end, step = -1, STEP_BYTES
    for match in _ESCAPE.finditer(body):
        if match.start() > step:
            step += STEP_BYTES
            yield
        digits = match.group(1)
        unit = int(digits, 16) if digits else 0
        is_low = 0xDC00 <= unit <= 0xDFFF
        if is_low != (high_end == match.start()) or (high_end >= 0 and not is_low):
            raise _lone_surrogate()
        high_end = match.end() if 0xD800 <= unit <= 0xDBFF else -1
    if high_end >= 0:
        raise _lone_surrogate()


def _lone_surrogate() -> Problem:
    return bad_request("The request's body holds half of a surrogate pair.", code="invalid_json")


def _check_structure(body: bytes, max_numbers: int) -> Iterator[None]:
    """Problem (400) for more than MAX_DEPTH objects and lists inside each other, or more items than may be."""
    depth, items, numbers = 0, 0, 0
    for bare in _without_strings(body):
        digits = bare.translate(_ONES, _BLANKS)
        more = digits.count(b",1")  # numbers behind others in a list; of an object's member only the colon is left
        numbers += more
        items += digits.count(b",") - more
        if items > MAX_ITEMS or items + numbers > max_numbers:
            most = MAX_ITEMS if items > MAX_ITEMS else max_numbers
            message = f"The request's body has more than {most} fields and elements."
            raise bad_request(message, code="too_many_fields")
        brackets = bare.translate(None, _NOT_BRACKETS)
        depths = list(accumulate(map(_DELTA.__getitem__, brackets), initial=depth))
        if max(depths) > MAX_DEPTH:
            raise bad_request(f"The request's body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json")
        depth = depths[-1]
        yield


def _without_strings(body: bytes) -> Iterator[bytes]:
    """The body without its strings, a step at a time."""
    start, in_string = 0, False
    while start < len(body):
        stop = min(start + STEP_BYTES, len(body))
        while stop < len(body) and body[stop - 1] == _BACKSLASH:
            stop += 1  # never between a backslash and what it escapes
        piece = (b'"' if in_string else b"") + body[start:stop]
        parts = _STRING.split(piece)
        in_string = len(parts) > 1 and parts[-2] == b""
        yield b"".join(parts[::2])
        start = stop
