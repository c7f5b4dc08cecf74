"""What an engine must not repeat to anybody: its own credentials and the operator's headers. Pure.

Some engines echo the whole request in an error. What they were sent besides the client's body is taken out of their
words, in the spellings in which programs write it, and also where it was cut.
"""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, quote_plus, urlsplit

from backends.endpoint import Endpoint
from backends.errors import BackendError, Rejected

MASK: Final = "***"
# From here on a value is known by itself; a shorter one, or one that may be a word, only where it stands alone.
_TELLING: Final = 8
_LEAST: Final = 3
# So much of the beginning of one is taken for it, wherever it ends; less only at the end of a text that was cut.
_BEGINNING: Final = 12
_CUT_CHARS: Final = 400
_CUT: Final = "…"
_LEAST_OF_CUT: Final = 4
_ORDINARY: Final = frozenset({"true", "false", "null", "none", "json", "yes", "application/json"})
_SCHEMES: Final = ("bearer", "basic", "token", "apikey", "digest")


def hide(text: str, address: str, headers: Mapping[str, str]) -> str:
    """The text without what requests to that address carry in these headers."""
    telling, words = _secrets(address, tuple(sorted(headers.items())))
    for begin in dict.fromkeys(secret[:_BEGINNING] for secret in telling):
        text = _without(text, begin, [secret for secret in telling if secret.startswith(begin)])
    text = _without_end(text, telling)
    return words.sub(MASK, text) if words is not None else text


def in_bytes(data: bytes, address: str, headers: Mapping[str, str]) -> bytes:
    """The same in an answer as it came."""
    text = data.decode("utf-8", "surrogateescape")
    return hide(text, address, headers).encode("utf-8", "surrogateescape")


def in_error(error: BackendError, endpoint: Endpoint | None) -> None:
    """The same in what the engine at that endpoint said, in place."""
    if endpoint is None:
        return
    error.message = hide(error.message, endpoint.address, endpoint.headers)
    if isinstance(error, Rejected):
        error.code = error.code and hide(error.code, endpoint.address, endpoint.headers)
        error.param = error.param and hide(error.param, endpoint.address, endpoint.headers)
        error.type = hide(error.type, endpoint.address, endpoint.headers)


def _without(text: str, begin: str, secrets: Sequence[str]) -> str:
    """Without as much of any of these as stands there behind their common beginning."""
    at = text.find(begin)
    while at >= 0:
        end = max(at + _shared(text, at, secret) for secret in secrets)
        text = text[:at] + MASK + text[end:]
        at = text.find(begin, at + len(MASK))
    return text


def _shared(text: str, at: int, secret: str) -> int:
    most = min(len(secret), len(text) - at)
    return next((n for n in range(most) if text[at + n] != secret[n]), most)


def _without_end(text: str, secrets: Sequence[str]) -> str:
    """Without the beginning of a secret at the end of a text that was cut."""
    if len(text) < _CUT_CHARS and not text.endswith(_CUT):
        return text
    body = text.removesuffix(_CUT)
    for size in range(_BEGINNING - 1, _LEAST_OF_CUT - 1, -1):
        if any(body.endswith(secret[:size]) for secret in secrets):
            return body[:-size] + MASK + text[len(body) :]
    return text


@functools.lru_cache(maxsize=256)
def _secrets(address: str, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], re.Pattern[str] | None]:
    """Those that are known by themselves, the longest first, and a pattern for the rest."""
    values = dict.fromkeys(_values(address, headers))
    found = {spelled for value in values for spelled in _spellings(value)}
    telling = {value for value in found if len(value) >= _TELLING and not value.isalpha()}
    telling.update(told for value in values for told in _encodings(value) if len(told) >= _TELLING)
    rest = sorted((value for value in found - telling if len(value) >= _LEAST), key=len, reverse=True)
    words = "|".join(map(re.escape, rest))
    pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])") if words else None
    return tuple(sorted(telling, key=len, reverse=True)), pattern


def _values(address: str, headers: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for _, value in headers:
        yield value
        scheme, _, credential = value.partition(" ")
        if scheme.lower() in _SCHEMES:
            yield credential.strip()
        if scheme.lower() == "basic":
            yield from _pair(credential)
    try:
        parts = urlsplit(address)
    except ValueError:
        return
    if parts.password:
        yield parts.password
    if parts.query:
        yield parts.query


def _pair(credential: str) -> Iterator[str]:
    try:
        told = base64.b64decode(credential, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield told
    yield told.partition(":")[2]


def _spellings(value: str) -> Iterator[str]:
    """As it is, and as it stands in JSON, JSON in JSON, HTML and URLs."""
    if not value or value.lower() in _ORDINARY:
        return
    in_json = json.dumps(value)[1:-1]
    nested = json.dumps(in_json)[1:-1]
    plain = (value, in_json, in_json.replace("/", "\\/"), nested, repr(value)[1:-1])
    in_pages = (html.escape(value), html.escape(value, quote=False))
    in_urls = [
        how(value, safe=safe, errors="replace")
        for how in (quote, quote_plus)
        for safe in ("", "/", "/:&=?;,$", "!~*'()")
    ]
    yield from (*plain, *in_pages, *in_urls)


def _encodings(value: str) -> Iterator[str]:
    """As it stands in other letters, in dumps of bytes and in base64."""
    if len(value) < _TELLING or value.lower() in _ORDINARY:
        return
    data = value.encode("utf-8", "replace")
    if not value.isalpha():
        yield from (value.upper(), value.lower())
    yield from (data.hex(), data.hex().upper(), data.hex(" "), data.hex(":"))
    yield "".join(f"\\u{ord(char):04x}" for char in value)
    yield from _in_base64(data)


def _in_base64(data: bytes) -> Iterator[str]:
    """What stands for it in base64, wherever it begins in what was encoded."""
    for before in range(3):
        told = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        # The characters at both ends hold bits of what stands beside it.
        inner = told[before + 1 if before else 0 : (before + len(data)) * 8 // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))
