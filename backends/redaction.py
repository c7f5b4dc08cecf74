"""Takes an engine's credentials and the operator's headers out of what the engine says. Pure.

Some engines repeat the whole request in an error. What they were sent besides the client's body is masked in their
texts, in all the encodings in which programs write it, and also where it was cut off.
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
# A value of so many characters is masked wherever it stands; a shorter one, or one that may be a word, only as a word
# of its own, and one below _SHORTEST never.
_DISTINCT: Final = 8
_SHORTEST: Final = 3
# So many characters of its beginning are enough, wherever it ends; fewer only at the end of a text that was cut off.
_BEGINNING: Final = 12
_CUT_CHARS: Final = 400
_CUT: Final = "…"
_SHORTEST_AT_CUT: Final = 4
_ORDINARY: Final = frozenset({"true", "false", "null", "none", "json", "yes", "application/json"})
_SCHEMES: Final = ("bearer", "basic", "token", "apikey", "digest")


def hide(text: str, address: str, headers: Mapping[str, str]) -> str:
    """The text with MASK instead of whatever requests to that address carry in these headers and in the address."""
    distinct, words = _secrets(address, tuple(sorted(headers.items())))
    for begin in dict.fromkeys(secret[:_BEGINNING] for secret in distinct):
        text = _without(text, begin, [secret for secret in distinct if secret.startswith(begin)])
    text = _without_end(text, distinct)
    return words.sub(MASK, text) if words is not None else text


def in_bytes(data: bytes, address: str, headers: Mapping[str, str]) -> bytes:
    """The same in the bytes of a response."""
    text = data.decode("utf-8", "surrogateescape")
    return hide(text, address, headers).encode("utf-8", "surrogateescape")


def in_error(error: BackendError, endpoint: Endpoint | None) -> None:
    """The same in the texts of a failure of the engine at that endpoint, in place. Nothing without an endpoint."""
    if endpoint is None:
        return
    error.message = hide(error.message, endpoint.address, endpoint.headers)
    if isinstance(error, Rejected):
        error.code = error.code and hide(error.code, endpoint.address, endpoint.headers)
        error.param = error.param and hide(error.param, endpoint.address, endpoint.headers)
        error.type = hide(error.type, endpoint.address, endpoint.headers)


def _without(text: str, begin: str, secrets: Sequence[str]) -> str:
    """The text without as much of any of these secrets as follows their common beginning, wherever that stands."""
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
    """The text without the beginning of a secret at its end, where it was cut off."""
    if len(text) < _CUT_CHARS and not text.endswith(_CUT):
        return text
    body = text.removesuffix(_CUT)
    for size in range(_BEGINNING - 1, _SHORTEST_AT_CUT - 1, -1):
        if any(body.endswith(secret[:size]) for secret in secrets):
            return body[:-size] + MASK + text[len(body) :]
    return text


@functools.lru_cache(maxsize=256)
def _secrets(address: str, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], re.Pattern[str] | None]:
    """The secrets that are masked wherever they stand, the longest first, and a pattern for the others."""
    values = dict.fromkeys(_values(address, headers))
    spellings = {spelled for value in values for spelled in _spellings(value)}
    distinct = {spelled for spelled in spellings if len(spelled) >= _DISTINCT and not spelled.isalpha()}
    distinct.update(encoded for value in values for encoded in _encodings(value) if len(encoded) >= _DISTINCT)
    rest = sorted((value for value in spellings - distinct if len(value) >= _SHORTEST), key=len, reverse=True)
    words = "|".join(map(re.escape, rest))
    pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])") if words else None
    return tuple(sorted(distinct, key=len, reverse=True)), pattern


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
    """Name and password of basic authentication, and the password alone."""
    try:
        pair = base64.b64decode(credential, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield pair
    yield pair.partition(":")[2]


def _spellings(value: str) -> Iterator[str]:
    """The value as it is, and as it is written in JSON, JSON in JSON, HTML and URLs."""
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
    """The value in upper and lower case, in dumps of bytes and in base64."""
    if len(value) < _DISTINCT or value.lower() in _ORDINARY:
        return
    data = value.encode("utf-8", "replace")
    if not value.isalpha():
        yield from (value.upper(), value.lower())
    yield from (data.hex(), data.hex().upper(), data.hex(" "), data.hex(":"))
    yield "".join(f"\\u{ord(char):04x}" for char in value)
    yield from _in_base64(data)


def _in_base64(data: bytes) -> Iterator[str]:
    """What stands for these bytes in base64, at whichever position of the encoded text they begin."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        # The characters at both ends hold bits of what stands beside the data.
        inner = text[before + 1 if before else 0 : (before + len(data)) * 8 // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))
