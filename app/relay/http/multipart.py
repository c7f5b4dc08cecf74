"""A form with a file in it (`multipart/form-data`, RFC 7578): read strictly, and written anew. Pure.

What an engine gets is written from what was read here, with a boundary of ours, so that it cannot find another model or
another file in the client's bytes than we did. One search for the boundary is all that a large file costs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from app.dialects.parameters.judge import judged
from app.errors import Problem, bad_request
from backends.engine_profile import Act, EngineProfile

MAX_PARTS: Final = 64
MAX_HEAD_BYTES: Final = 8 * 1024  # of one part's headers
MAX_WORD: Final = 64  # bytes of a value that may be one of those that an engine heeds
MAX_TEXT_BYTES: Final = 64 * 1024  # of a field that is not a file
_BOUNDARY: Final = re.compile(r'(?i:multipart/form-data)\s*;\s*(?i:boundary)=(?:"([^"\\]{1,70})"|([^\s";]{1,70}))\s*\Z')
_BOUNDARY_CHARACTERS: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}(?:\[\])?\Z")
_PARAMETER: Final = re.compile(rb';[ \t]*([A-Za-z-]+\*?)[ \t]*=[ \t]*(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s";]+))[ \t]*')
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}\Z")
_UNSAFE: Final = re.compile(r"[^\w .()+-]")


class FormPart(msgspec.Struct, frozen=True):
    """One field; where it is a file, with the file's name and content type. `value` is a view on the request's body."""

    name: str
    value: memoryview
    filename: str | None = None
    type: str = "application/octet-stream"


class Form(msgspec.Struct, frozen=True):
    """All fields of a form in their order; a name may occur more than once."""

    parts: tuple[FormPart, ...]

    @property
    def size(self) -> int:
        """How many bytes all values have together."""
        return sum(len(part.value) for part in self.parts)

    def text(self, name: str) -> str | None:
        """The text of a field that may occur once: None where there is none, "" for a file.

        Problem (400) for a field that occurs twice or is not UTF-8.
        """
        parts = [part for part in self.parts if part.name == name]
        if len(parts) > 1:
            raise bad_request("The form holds a field twice.", param=name, code="duplicate_field")
        if not parts:
            return None
        try:
            return bytes(parts[0].value).decode() if parts[0].filename is None else ""
        except UnicodeDecodeError as exc:
            raise bad_request(f"'{name}' is not valid UTF-8.", param=name, code="invalid_type") from exc

    def unheeded(self, profile: EngineProfile) -> tuple[str, ...]:
        """Names of the fields that such an engine does not know."""
        names: dict[str, None] = {}
        known = judged("transcription", profile)
        for part in self.parts:
            fate = known.get(part.name.partition("[")[0])
            if fate is None or fate.act is not Act.DROPPED or len(part.value) == 0:
                continue
            if f'"{bytes(part.value[:MAX_WORD]).decode("utf-8", "replace")}"' not in fate.unless:
                names[part.name] = None
        return tuple(names)

    def written(self, boundary: str, fields: Mapping[str, str], without: Collection[str] = ()) -> bytes:
        """The form's bytes, with `fields` set and the fields of `without` left out. `boundary` must not occur in it."""
        line = f"--{boundary}\r\n".encode()
        pieces: list[bytes | memoryview] = []
        for part in self.parts:
            if part.name in fields or part.name in without:
                continue
            head = f'content-disposition: form-data; name="{part.name}"'
            if part.filename is not None:
                head += f'; filename="{part.filename}"\r\ncontent-type: {part.type}'
            pieces += [line, head.encode(), b"\r\n\r\n", part.value, b"\r\n"]
        for name, value in fields.items():
            pieces += [line, f'content-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()]
        return b"".join((*pieces, f"--{boundary}--\r\n".encode()))


def boundary_of(content_type: str) -> bytes:
    """What separates the parts; Problem (415) for the content type of anything but a form with a boundary."""
    match = _BOUNDARY.match(content_type.strip())
    boundary = (match[1] or match[2]) if match else ""
    if not boundary or not _BOUNDARY_CHARACTERS.match(boundary):
        raise Problem(415, "unsupported_media_type", "The request's body must be multipart/form-data with a boundary.")
    return boundary.encode("latin-1")


def read(body: bytes, boundary: bytes) -> Form:
    """The form in a whole body, whose parts are views on it; Problem (400) for a body that is not a valid form."""
    mark = b"\r\n--" + boundary
    if not body.startswith(mark[2:]):
        raise _wrong("does not begin with its boundary")
    view = memoryview(body)
    parts: list[FormPart] = []
    at = len(mark) - 2
    while body[at : at + 2] != b"--":
        if body[at : at + 2] != b"\r\n":
            raise _wrong("holds a malformed boundary")
        if len(parts) == MAX_PARTS:
            raise _wrong(f"has more than {MAX_PARTS} parts")
        head_end = body.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES)
        if head_end < 0:
            raise _wrong("has a part without headers, or with too many")
        end = body.find(mark, head_end + 4)
        if end < 0:
            raise _wrong("is not complete")
        parts.append(_part(body[at + 2 : head_end], view[head_end + 4 : end]))
        at = end + len(mark)
    if body[at + 2 :].strip(b"\r\n"):
        raise _wrong("goes on after its end")
    return Form(tuple(parts))


def _part(head: bytes, value: memoryview) -> FormPart:
    headers: dict[str, bytes] = {}
    for line in head.split(b"\r\n"):
        field, colon, rest = line.partition(b":")
        known = field.decode("latin-1").lower()
        if not colon or known in headers or b"\n" in line or b"\r" in line:
            raise _wrong("has a part whose headers cannot be read")
        headers[known] = rest.strip()
    kind, _, more = headers.get("content-disposition", b"").partition(b";")
    parameters = _parameters(b";" + more if more else b"")
    name = parameters.get("name", b"").decode("latin-1")
    is_plain = headers.get("content-transfer-encoding", b"binary").lower() in (b"binary", b"8bit", b"7bit")
    if kind.strip().lower() != b"form-data" or not _NAME.match(name) or not is_plain:
        raise _wrong("has a part that is not a valid field")
    filename = _filename(parameters)
    if filename is None:
        if len(value) > MAX_TEXT_BYTES:
            raise Problem(413, "request_too_large", f"A field of the form has more than {MAX_TEXT_BYTES} bytes.")
        return FormPart(name, value)
    given = headers.get("content-type", b"").decode("latin-1").lower().partition(";")[0].strip()
    return FormPart(name, value, filename, given if _TYPE.match(given) else "application/octet-stream")


def _filename(parameters: Mapping[str, bytes]) -> str | None:
    """A file's name with its harmless characters only; None for a field that is not a file."""
    if "filename" in parameters:
        given = parameters["filename"].decode("utf-8", "replace")
    elif "filename*" in parameters:  # RFC 5987: UTF-8''na%C3%AFve.wav
        given = unquote(parameters["filename*"].decode("latin-1").rpartition("'")[2])
    else:
        return None
    return _UNSAFE.sub("_", given)[-100:] or "file"


def _parameters(text: bytes) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise _wrong("has a part whose headers cannot be read")
        name = match[1].decode("ascii").lower()
        if name in values or name == "name*":
            raise _wrong("has a part with two names")
        values[name] = match[2] if match[2] is not None else match[3]
        at = match.end()
    return values


def _wrong(what: str) -> Problem:
    return bad_request(f"The request's form {what}.", code="invalid_form")
