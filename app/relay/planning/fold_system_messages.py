"""System messages folded into the user's turns, where a model's chat template does not take them. Pure.

Templates differ: some take a system message anywhere, some at the beginning only and raise otherwise, some leave it out
without a word, some know no system messages at all. `developer` is OpenAI's newer name for the role.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from app.dialects import json_members
from app.dialects.chat_templates import ALL, TemplateSupport
from app.relay.http import json_body
from backends.errors import BackendError, EngineFailed, Rejected
from backends.prompt_too_long import TooLong

MAX_MESSAGES: Final = 20_000  # a longer conversation is left as it is
_SYSTEM: Final = b'"system"'
_DEVELOPER: Final = b'"developer"'
_USER: Final = b'"user"'
_ROLES: Final = ("system", "developer")
_RESULTS: Final = ("tool", "function")
# What agents write around such notes themselves, so models that are made for agents know it.
_BEGIN: Final = b"<system-reminder>"
_END: Final = b"</system-reminder>"
_BETWEEN: Final = b"\\n\\n"


AT_FRONT: Final = TemplateSupport(several=False, late=False)
NOWHERE: Final = TemplateSupport(first=False, several=False, late=False)


class TemplateShape(NamedTuple):
    """Which system messages a conversation has."""

    has_first: bool = False
    has_several: bool = False
    has_late: bool = False
    has_developer: bool = False

    @property
    def is_usual(self) -> bool:
        """At most one, at the beginning, which nearly every template takes."""
        return not (self.has_several or self.has_late or self.has_developer)


USUAL: Final = TemplateShape(has_first=True)


class _Role(msgspec.Struct, frozen=True):
    role: Any = None


class _Roles(msgspec.Struct, frozen=True):
    messages: list[_Role] = []


class _Body(msgspec.Struct, frozen=True):
    messages: list[msgspec.Raw] = []


class _Message(msgspec.Struct, frozen=True):
    role: Any = None
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct, frozen=True):
    text: msgspec.Raw = msgspec.Raw(b"null")


_roles = msgspec.json.Decoder(_Roles)
_bodies = msgspec.json.Decoder(_Body)
_messages = msgspec.json.Decoder(_Message)
_parts = msgspec.json.Decoder(list[_Role])
_parts_text = msgspec.json.Decoder(_Part)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


def shape(body: bytes) -> TemplateShape | None:
    """Which system messages the conversation of a chat's body has; None where it has none, or cannot be read. The usual
    ones are told from the bytes."""
    has_developer = _DEVELOPER in body
    first = body.find(_SYSTEM)
    if first < 0 and not has_developer:
        return None
    if not has_developer and body.find(_SYSTEM, first + 1) < 0 and first < body.find(_USER):
        return USUAL
    if body.count(b'"role"') > MAX_MESSAGES or body.count(b"{") > json_body.MAX_ITEMS:
        return None
    try:
        roles = [message.role for message in _roles.decode(body).messages]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    where = [at for at, role in enumerate(roles) if role in _ROLES]
    if not where:
        return None
    begin = _begin(roles)
    return TemplateShape(begin > 0, begin > 1, len(where) > begin, "developer" in roles)


def _begin(roles: Sequence[Any]) -> int:
    """How many system messages a conversation begins with."""
    return next((at for at, role in enumerate(roles) if role not in _ROLES), len(roles))


def fold(body: bytes, takes: TemplateSupport) -> bytes | None:
    """The messages of a body, as JSON, for a template that takes these; None where nothing changes. Untouched messages
    keep their bytes.

    A message at the beginning becomes the beginning of the first user's turn; a later one the end of the user's turn
    before it or, behind an answer, the beginning of the next one: it keeps its place, and what an engine has computed
    of the turns before stays of use.
    """
    try:
        given = [bytes(message) for message in _bodies.decode(body).messages]
        made = _folded(given, takes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if made == given else b"[" + b",".join(made) + b"]"


def _folded(given: list[bytes], takes: TemplateSupport) -> list[bytes]:
    roles = [_messages.decode(message).role for message in given]
    begin = _begin(roles)
    turns = _Turns()
    if not takes.first:
        turns.notes = [_note(message, is_late=False) for message in given[:begin]]
    elif begin > 1 and not takes.several:
        content = _together([_note(message, is_late=False) for message in given[:begin]])
        turns.out.append(json_members.edit(_as_system(given[0]), {"content": content}))
    else:
        turns.out = [_as_system(message) for message in given[:begin]]
    for role, message in zip(roles[begin:], given[begin:], strict=True):
        if role in _ROLES and not takes.late:
            turns.note(_note(message, is_late=True))
        elif role == "user":
            turns.user(message)
        else:
            turns.other(_as_system(message) if role in _ROLES else message, is_result=role in _RESULTS)
    return turns.end()


# A piece of a turn: text as it stands in JSON, which is never decoded (it may be megabytes), or parts.
_Piece = bytes | list[bytes]


class _Turns:
    """The conversation as it is built. `notes` wait for the next user's turn."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.notes: list[_Piece] = []
        self._turn: bytes | None = None  # the user's message that is the last one
        self._more: list[_Piece] = []  # what comes behind it in the same turn
        self._joins = False  # the next user's message belongs to the same turn: only a note stood between them

    def note(self, piece: _Piece) -> None:
        if self._turn is None:
            self.notes.append(piece)
        else:
            self._more.append(piece)
            self._joins = True

    def user(self, message: bytes) -> None:
        if self._turn is not None and self._joins:
            self._more.append(_content(message))
            self._joins = False
            return
        self._close()
        notes, self.notes = self.notes, []
        content = _together([*notes, _content(message)]) if notes else None
        self._turn = message if content is None else json_members.edit(message, {"content": content})

    def other(self, message: bytes, *, is_result: bool) -> None:
        self._close()
        if not is_result:  # nothing may come between calls and their results
            self._flush()
        self.out.append(message)

    def end(self) -> list[bytes]:
        self._close()
        self._flush()
        return self.out

    def _close(self) -> None:
        if self._turn is not None:
            content = _together([_content(self._turn), *self._more]) if self._more else None
            self.out.append(self._turn if content is None else json_members.edit(self._turn, {"content": content}))
        self._turn, self._more, self._joins = None, [], False

    def _flush(self) -> None:
        if self.notes:
            self.out.append(b'{"role":"user","content":' + _together(self.notes) + b"}")
            self.notes = []


def _as_system(message: bytes) -> bytes:
    """A message of the role `developer` under the name of the role that every template knows."""
    return json_members.edit(message, {"role": _SYSTEM}) if _messages.decode(message).role == "developer" else message


def _content(message: bytes) -> _Piece:
    return _piece(_messages.decode(message).content)


def _piece(content: msgspec.Raw) -> _Piece:
    """A message's content as a piece; ValidationError where it is not valid content."""
    start = bytes(memoryview(content)[:1])
    if start == b'"':
        return bytes(content)[1:-1]
    if start != b"[":
        return b""
    _parts.decode(content)  # a long list of something else ends here
    return [bytes(part) for part in _raws.decode(content)]


def _note(message: bytes, *, is_late: bool) -> _Piece:
    """A system message's content: one text, where it is text only."""
    piece = _content(message)
    if not isinstance(piece, bytes):
        texts = [bytes(_parts_text.decode(part).text) for part in piece]
        if not all(text.startswith(b'"') for text in texts):
            return piece
        piece = _BETWEEN.join(text[1:-1] for text in texts)
    if not is_late or not piece or piece.startswith(_BEGIN):
        return piece
    return _BEGIN + b"\\n" + piece + b"\\n" + _END


def _together(pieces: Sequence[_Piece]) -> bytes:
    """These pieces as the content of one message, as JSON."""
    given = [piece for piece in pieces if piece]
    texts = [piece for piece in given if isinstance(piece, bytes)]
    if len(texts) == len(given):
        return b'"' + _BETWEEN.join(texts) + b'"'
    parts: list[bytes] = []
    for piece in given:
        parts += [b'{"type":"text","text":"' + piece + b'"}'] if isinstance(piece, bytes) else piece
    return b"[" + b",".join(parts) + b"]"


# -- what an engine's refusal says of it

_ABOUT_ROLES: Final = re.compile(
    r"system (?:message|prompt|role|instruction)|\broles?\b|alternat|first message|developer|chat.?template|jinja"
    r"|raise_exception|template error|\buser\b.{0,40}\bassistant\b|[\"'`]system[\"'`]"
    r"|\bsystem\b.{0,40}\b(?:first|begin\w*|start)\b|(?:order|sequence|position)\w* of (?:the )?messages|message order",
    re.IGNORECASE,
)
_SURELY: Final = re.compile(
    r"system messages? (?:must|should|may|can)|system role|roles must alternate|unexpected (?:message )?role|jinja"
    r"|raise_exception|template ?error|error (?:in|while) (?:the )?(?:chat )?template",
    re.IGNORECASE,
)
_OF_SYSTEM: Final = re.compile(r"system (?:message|prompt)", re.IGNORECASE)
_KNOWS_NONE: Final = re.compile(
    r"system (?:role|messages?|prompt)\W* (?:is |are )?(?:not|un)"
    r"|(?:not|n't) (?:support|allow|accept|have)\w* (?:a |the )?\W{0,2}system"
    r"|only (?:the )?\W{0,2}user\W{0,2} (?:and|or)",
    re.IGNORECASE,
)


def is_about_roles(error: BackendError) -> bool:
    """Whether an engine refused the roles of a conversation. Nothing was generated, so it is safe to ask again."""
    if isinstance(error, Rejected):
        is_of_request = error.status in (400, 422) and not isinstance(error, TooLong)
        return is_of_request and _ABOUT_ROLES.search(error.message) is not None
    return isinstance(error, EngineFailed) and _SURELY.search(error.message) is not None


def next_support(body: bytes, error: BackendError, sent: TemplateSupport | None) -> TemplateSupport | None:
    """The template's support to fold a body for after such a refusal, where it was sent folded for `sent` (None: as it
    is); None where nothing is left to try.
    """
    if _KNOWS_NONE.search(error.message):
        supports: tuple[TemplateSupport, ...] = (NOWHERE,)
    elif sent is None and _OF_SYSTEM.search(error.message) is None:
        supports = (ALL, AT_FRONT, NOWHERE)  # only the name of the role may be wrong
    else:
        supports = (AT_FRONT, NOWHERE)
    before = fold(body, sent) if sent is not None else None
    for support in supports:
        made = fold(body, support)
        if support != sent and made is not None and made != before and (sent is None or sent.first):
            return support
    return None
