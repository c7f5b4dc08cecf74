"""What the header of a GGUF file says of its model; the weights are not read.

Source: the specification of GGUF in the ggml project, versions 2 and 3: everything little endian; magic, version,
number of tensors, number of pairs; then each pair as key, type and value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MAGIC: Final = b"GGUF"  # how such a file begins
# The types of numbers, as `struct` calls them.
_SCALARS: Final = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING: Final = 8
_ARRAY: Final = 9
_MOST_PAIRS: Final = 10_000
_MOST_ITEMS: Final = 4_096  # of a list that is kept: one number for each layer
_MOST_BYTES: Final = 1 << 20  # of a text
_SHORT: Final = "it ends too early"

Value = int | float | bool | str | tuple[int | float | bool, ...] | None


class Unreadable(Exception):
    """It is not a GGUF file that we can read."""


class UnknownType(Unreadable):
    """It holds a type of tensor that llama.cpp does not have: one of a fork's."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides how large the KV cache is, and the model's `architecture` ("llama", "qwen3").

    `context_length`: in tokens, 0 where the file does not say. `kv_width`: numbers in the cache for one token, over all
    layers.
    """

    context_length: int
    kv_width: int
    architecture: str | None = None


def shape(path: Path) -> ModelShape:
    """The shape of a model whose layers attend. Raises Unreadable or OSError. Blocks: it reads the file's beginning."""
    members: dict[str, Value] = {}
    with path.open("rb") as file:
        for key, value in read_pairs(file):
            # Writers put the tokenizer's tables, which are megabytes, behind what we want.
            if key.startswith("tokenizer.") and "general.architecture" in members:
                break
            members[key] = value
    family = members.get("general.architecture")

    def number(key: str, default: int) -> int:
        value = members.get(f"{family}.{key}", default)
        return value if isinstance(value, int) else default

    layers, heads = number("block_count", 0), number("attention.head_count", 0)
    width = number("embedding_length", 0) // heads if heads else 0
    per_head = number("attention.key_length", width) + number("attention.value_length", width)
    shared = members.get(f"{family}.attention.head_count_kv", heads)
    shared = shared if isinstance(shared, int | tuple) else heads
    # One number for all layers, or a list with one for each.
    kv_heads = sum(map(int, shared)) if isinstance(shared, tuple) else layers * shared
    architecture = family[:64] if isinstance(family, str) and family else None
    return ModelShape(number("context_length", 0), kv_heads * per_head, architecture)


# Tokenizers that change nothing of a text before they split it: llama's own, and byte pairs, which write each byte as a
# letter up to _LAST_BYTE.
_FAITHFUL: Final = ("llama", "gpt2")
_LAST_BYTE: Final = "\u0143"


def longest_token(path: Path) -> int | None:
    """The size of the longest token in the vocabulary, in bytes: no token stands for more bytes of a text. None where
    the tokenizer may shorten a text before it splits it. Raises Unreadable or OSError. Blocks: it reads megabytes.
    """
    kind: Value = None
    sizes: tuple[int | float | bool, ...] | None = None
    with path.open("rb") as file:
        for key, value in read_pairs(file, measured="tokenizer.ggml.tokens"):
            if key == "tokenizer.ggml.model":
                kind = value
            if key == "tokenizer.ggml.tokens" and isinstance(value, tuple):
                sizes = value
            if kind is not None and sizes is not None:
                break
    if sizes is None or kind not in _FAITHFUL:
        return None
    return int(sizes[_FAITHFUL.index(kind)]) or None


@dataclass(frozen=True, slots=True)
class ChatFacts:
    """What the file says of chats: its Jinja template, and the text of the token that ends a response; None each where
    it does not say it.
    """

    chat_template: str | None = None
    eos: str | None = None


def chat_facts(path: Path) -> ChatFacts:
    """What the file says of chats. Raises Unreadable or OSError. Blocks: it reads megabytes."""
    template: Value = None
    eos: Value = None
    with path.open("rb") as file:
        for key, value in read_pairs(file):
            if key == "tokenizer.chat_template":
                template = value
            if key == "tokenizer.ggml.eos_token_id":
                eos = value
    text = _token(path, eos) if isinstance(eos, int) else None
    return ChatFacts(template if isinstance(template, str) else None, text)


def _token(path: Path, index: int) -> str | None:
    """The text of one token of the vocabulary; None where there is no such one."""
    with path.open("rb") as file:
        file.seek(len(MAGIC) + struct.calcsize("<IQ"))
        for _ in range(int(read_number(file, "Q"))):
            key, kind = read_text(file), int(read_number(file, "I"))
            if key != "tokenizer.ggml.tokens" or kind != _ARRAY:
                _value(file, kind)
                continue
            inner, count = int(read_number(file, "I")), int(read_number(file, "Q"))
            if inner != _STRING or not 0 <= index < count:
                return None
            for _ in range(index):
                file.seek(int(read_number(file, "Q")), 1)
            return read_text(file)
    return None


def read_pairs(file: BinaryIO, measured: str = "") -> Iterator[tuple[str, Value]]:
    """The header's pairs of key and value, of a file that is read from its beginning. The value of a list
    of texts is None; of the list `measured` it is the size of its longest text in bytes, once as it is and once where
    texts are written as byte pairs.
    """
    magic, version = file.read(len(MAGIC)), read_number(file, "I")
    if magic != MAGIC:
        raise Unreadable("it is not a GGUF file")
    if version not in (2, 3):
        raise Unreadable(f"its GGUF version is {version}, not 2 or 3")
    read_number(file, "Q")
    count = read_number(file, "Q")
    if count > _MOST_PAIRS:
        raise Unreadable(f"its header says that it has {count} entries")
    for _ in range(int(count)):
        key = read_text(file)
        yield key, _value(file, int(read_number(file, "I")), is_measured=key == measured)


def _value(file: BinaryIO, kind: int, *, is_measured: bool = False) -> Value:
    if kind == _STRING:
        return read_text(file)
    if kind != _ARRAY:
        return read_number(file, _letter(kind))
    inner, count = int(read_number(file, "I")), int(read_number(file, "Q"))
    if inner == _STRING:
        longest = pairs = 0
        for _ in range(count):
            text = read_text(file)
            if is_measured:
                longest = max(longest, len(text.encode()))
                pairs = max(pairs, sum(1 if letter <= _LAST_BYTE else len(letter.encode()) for letter in text))
        return (longest, pairs) if is_measured else None
    letter = _letter(inner)
    if count > _MOST_ITEMS:
        file.seek(struct.calcsize(f"<{letter}") * count, 1)
        return None
    return tuple(read_number(file, letter) for _ in range(count))


def _letter(kind: int) -> str:
    if kind not in _SCALARS:
        raise Unreadable(f"its header has a value of the unknown type {kind}")
    return _SCALARS[kind]


def read_text(file: BinaryIO) -> str:
    """The text at this place of the file; Unreadable where it ends too early."""
    size = int(read_number(file, "Q"))
    if size > _MOST_BYTES:
        raise Unreadable(f"its header says that it has a text of {size} bytes")
    data = file.read(size)
    if len(data) < size:
        raise Unreadable(_SHORT)
    return data.decode(errors="replace")


def read_number(file: BinaryIO, letter: str) -> int | float | bool:
    """The number at this place of the file, of the type that `struct` calls so; Unreadable where it ends too early."""
    size = struct.calcsize(f"<{letter}")
    data = file.read(size)
    if len(data) < size:
        raise Unreadable(_SHORT)
    value: int | float | bool = struct.unpack(f"<{letter}", data)[0]
    return value
