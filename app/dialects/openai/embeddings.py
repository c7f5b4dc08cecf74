"""Embeddings in the form that was asked for, numbers or base64, whichever an engine sends. Pure.

SDKs unpack what they asked for without looking: a list of four numbers becomes one wrong number in openai-node.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any, Final

import msgspec

from app.dialects import json_members
from backends.errors import Broken, Unsupported

_NUMBER_BYTES: Final = 4
_FORMS: Final = {None: b"[", "float": b"[", "base64": b'"'}


class EmbeddingFormat(msgspec.Struct, frozen=True):
    """What a client wants of its embeddings. `encoding_format` is OpenAI's, or an engine's own word that is left to it.
    `dimensions`: how many numbers each is to have.
    """

    encoding_format: str | None = None
    dimensions: int | None = None


class _Answer(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] = []


class _Item(msgspec.Struct, frozen=True):
    embedding: msgspec.Raw = msgspec.Raw(b"null")


_answers = msgspec.json.Decoder(_Answer)
_items = msgspec.json.Decoder(_Item)
_numbers = msgspec.json.Decoder(list[float])


def fitted(engine: str, body: bytes, wanted: EmbeddingFormat) -> bytes:
    """The response with its embeddings in the form that is wanted; the very same bytes where they are.

    Unsupported where they have another number of dimensions; a response without embeddings stays as it is.
    """
    try:
        data = _answers.decode(body).data
        first = bytes(_items.decode(data[0]).embedding).strip() if data else b""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    form = _FORMS.get(wanted.encoding_format)
    if first[:1] not in (b"[", b'"'):
        return body
    if wanted.dimensions is not None:
        _check(engine, first, wanted.dimensions)
    if form is None or first[:1] == form:
        return body
    members: dict[str, Any] = dict(json_members.decode(body))
    members["data"] = [_turned(engine, item, is_packed=form == b'"') for item in data]
    return msgspec.json.encode(members)


def _check(engine: str, embedding: bytes, dimensions: int) -> None:
    try:
        count = len(_unpacked(engine, embedding) if embedding[:1] == b'"' else _numbers.decode(embedding))
    except (msgspec.DecodeError, Broken):
        return
    if count != dimensions:
        message = f"'dimensions' is {dimensions}, but this model's embeddings have {count} numbers: leave it out."
        raise Unsupported(engine, message, param="dimensions")


def _turned(engine: str, item: msgspec.Raw, *, is_packed: bool) -> dict[str, Any]:
    """One item with its embedding in the other form."""
    members: dict[str, Any] = dict(json_members.decode(item))
    raw = members.get("embedding", msgspec.Raw(b"null"))
    if is_packed:
        members["embedding"] = _packed(raw)
    elif bytes(memoryview(raw)[:1]) == b'"':
        members["embedding"] = _unpacked(engine, bytes(raw))
        members.pop("encoding_format", None)  # llama.cpp's
    return members


def _packed(raw: msgspec.Raw) -> Any:
    try:
        vector = _numbers.decode(raw)
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (msgspec.DecodeError, OverflowError):
        return raw  # several vectors for a text, or what is not numbers


def _unpacked(engine: str, embedding: bytes) -> tuple[float, ...]:
    try:
        packed = base64.b64decode(msgspec.json.decode(embedding, type=str), validate=True)
        return struct.unpack(f"<{len(packed) // _NUMBER_BYTES}f", packed)
    except (msgspec.DecodeError, binascii.Error, struct.error, ValueError) as exc:
        raise Broken(engine, "it sent an embedding that is neither numbers nor base64") from exc
