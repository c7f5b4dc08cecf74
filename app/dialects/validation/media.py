"""Which URLs of pictures, sounds and files in a request an engine may be sent. Pure; nothing here fetches anything.

An engine that fetches what a client names is a client's way into the operator's network, so only data URLs pass, and
hosts that the operator lists. A request is decoded only where its bytes may hold such a URL at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from app.dialects import json_members

# messages[0].content[1].image_url.url is 6 deep; no engine looks for media further down.
MAX_DEPTH: Final = 8
# They hold names and schemas of the client's own, in which anything may be called a URL.
_ELSEWHERE: Final = frozenset({"tools", "tool_choice", "functions", "function_call", "response_format", "metadata"})
# Engines written in Go take `Image_URL` for `image_url`.
_END: Final = re.compile(rb'_[uU][rR][lL]"')
# A letter of a key may be escaped; other engines' JSON libraries do so with text, as in `\\u003c`.
_ESCAPED: Final = re.compile(rb"\\u00[2-7]")
_WEB: Final = re.compile(
    r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][^\\\s]*)?\Z", re.IGNORECASE
)

_OPENERS: Final = b"{["

_lists = msgspec.json.Decoder(list[msgspec.Raw])
_texts = msgspec.json.Decoder(str)


def may_have(body: bytes) -> bool:
    """Whether a body may hold a URL of a medium, so that it has to be decoded."""
    if _END.search(body) is not None:
        return True
    return b"\\" in body and b"\\u00" in body and _ESCAPED.search(body) is not None


def refused(body: bytes, domains: Collection[str]) -> str | None:
    """The place in the body (`messages[0].content[1].image_url.url`) of the first URL that must not be fetched; None
    when there is none. `domains`: hosts that are allowed; `*` is every host.
    """
    for place, raw in _urls(body):
        if not _is_allowed(raw, domains):
            return place
    return None


def _urls(body: bytes) -> Iterator[tuple[str, msgspec.Raw]]:
    for name, raw in json_members.decode(body).items():
        if name not in _ELSEWHERE:
            yield from _within(raw, name, MAX_DEPTH)


def _within(raw: msgspec.Raw, place: str, depth: int) -> Iterator[tuple[str, msgspec.Raw]]:
    """The URLs in a value: strings under a key that ends in `_url`, and under `url` in an object there."""
    match bytes(memoryview(raw)[:1]):
        case b"{" if depth:
            is_source = place.lower().endswith("_url")
            for name, inner in json_members.decode(raw).items():
                known = name.lower()
                if (known.endswith("_url") or (is_source and known == "url")) and _is_text(inner):
                    yield f"{place}.{name}", inner
                elif _may_hold(inner):
                    yield from _within(inner, f"{place}.{name}", depth - 1)
        case b"[" if depth:
            for index, inner in enumerate(_lists.decode(raw)):
                if _may_hold(inner):
                    yield from _within(inner, f"{place}[{index}]", depth - 1)


def _may_hold(raw: msgspec.Raw) -> bool:
    """Whether it is an object or a list that is not empty: most values are neither."""
    view = memoryview(raw)
    return view[0] in _OPENERS and len(view) > len("{}")


def _is_text(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b'"'


def _is_allowed(raw: msgspec.Raw, domains: Collection[str]) -> bool:
    if bytes(memoryview(raw)[1:6]).lower() == b"data:":
        return True
    address = _WEB.match(_texts.decode(raw)) if domains else None
    return address is not None and ("*" in domains or address[1].lower() in domains)
