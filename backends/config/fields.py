"""Types of single settings, with the messages for values that are not valid."""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    WithJsonSchema,
)

Seconds = Annotated[float, Field(gt=0, le=86_400)]
GB = Annotated[float, Field(gt=0, le=1_000_000)]
Device = Annotated[int, Field(ge=0, le=1024)] | Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9A-Za-z/-]+$")]

# Headers that say how a request is sent: only the gateway may set them, another value would break the connection.
_OURS: Final = frozenset(
    {
        *("accept-encoding", "content-length", "content-type", "host"),
        *("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


# In these messages `{value}` stands for the value, which is not always shown (app/config/messages.py).


def _with_host(url: str) -> str:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        (host or "").encode("idna")
    except UnicodeError as exc:
        raise ValueError("{value} has no host name that can be looked up") from exc
    except ValueError as exc:
        raise ValueError("{value} has a port (1 to 65535) or an address in brackets that is not valid") from exc
    if not host:
        raise ValueError("{value} names no host")
    if port == 0:
        raise ValueError("{value} names port 0, where nobody listens")
    if not parts.path.isascii():
        raise ValueError("{value} has a path with characters that must be written as %XX")
    return url


def _credential(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text:
        raise ValueError("is empty: give a key, or leave it out")
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise ValueError(
            "{value} holds a line break, a space at its beginning or end, or another character that no header can have"
        )
    return key


def _sendable(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError(f"{name!r} is not a header's name: use letters, digits and -, without spaces")
        if name.lower() in _OURS:
            raise ValueError(f"'{name}' is set by the gateway itself")
        text = value.get_secret_value()
        if not re.fullmatch(r"[\t -~\xa1-\xff]*", text) or text != text.strip():
            raise ValueError(
                f"the value of '{name}' holds a line break, a space at its beginning or end, or another character that "
                "no header can have (it is not shown)"
            )
    return headers


def _numeric(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as exc:
        raise ValueError("{value} is not an IP address") from exc


Address = Annotated[str, AfterValidator(_numeric)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s?#@]+$"), AfterValidator(_with_host)]


def _base(url: str) -> str:
    """The URL without a route at its end that was copied along: an SDK would append it again."""
    return re.sub(r"(?<=[^/:])/+(?:chat/completions|completions|embeddings|responses|models)/*$", "", url)


# What clients append to a daemon's address: routes of its own API and of OpenAI's and Anthropic's.
_ROUTE = (
    r"chat(?:/+completions)?|completions|generate|embed|embeddings|responses|messages(?:/+count_tokens)?|models|tags|"
    r"show|ps|version|pull|create|audio/+\w+"
)
_APPENDED = re.compile(rf"(?i)(?:^|/+)(?:v1|api)(?:/+(?:{_ROUTE}))?/*$")


def _root(url: str) -> str:
    """The daemon's URL without what its clients append to it, such as `/v1`."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    while (match := _APPENDED.search(path)) is not None:
        path = path[: match.start()]
    return f"{scheme}://{host}/{path}".rstrip("/")


BaseUrl = Annotated[Url, AfterValidator(_base)]
DaemonUrl = Annotated[Url, AfterValidator(_root)]
Credential = Annotated[SecretStr, AfterValidator(_credential)]
Headers = Annotated[dict[str, SecretStr], AfterValidator(_sendable)]


def _words(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


# A command line: a list of words, or one text that is split as a shell would split it.
Words = Annotated[
    tuple[str, ...],
    BeforeValidator(_words),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
