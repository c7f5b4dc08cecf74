"""What a prompt begins with, as hashes of its blocks: two prompts have as much in common as blocks from the first on.

A block is a message, or a part of a long one. Bytes are compared as the client wrote them; tokens are never counted.
The hashes are of this process and mean nothing outside it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from app.relay.http.json_body import RequestHead

# What a relay looks at: about 30,000 tokens. It takes 0.1 ms, and prompts that differ only later fall together.
MAX_BYTES: Final = 128 * 1024
MAX_BLOCKS: Final = 96
BLOCK_BYTES: Final = 4096
# The first blocks of a completion's prompt, which has no messages.
SHORT_BLOCK_BYTES: Final = 1024
# Of a list of tools, and of a first message: its begin and its end are enough to tell it from others.
EDGE_BYTES: Final = 4096
MAX_PREAMBLE: Final = 8  # messages
MAX_TRIES: Final = 4
_OPERATORS: Final = frozenset({"system", "developer"})


class Beginning(NamedTuple):
    """`blocks`: for each block a hash of the prompt up to its end; `ends`: how many bytes that are. From the block with
    the index `own` on it is what one conversation says, and no instruction that many may share; no block is where that
    is not less than their number. `opening`: the texts that stay as they are as long as the conversation goes on.
    """

    blocks: list[int]
    ends: list[int]
    own: int
    opening: list[memoryview]

    @property
    def goes_on(self) -> bool:
        """Whether it is a conversation in which something was said after its opening."""
        return self.own < len(self.blocks) and self.ends[-1] > sum(map(len, self.opening))


class _Role(msgspec.Struct):
    role: str = ""


_raws = msgspec.json.Decoder(list[msgspec.Raw])
_roles = msgspec.json.Decoder(_Role)


def beginning(head: RequestHead, scope: str) -> Beginning | None:
    """Of a chat or a completion; None for what has no prompt. Only prompts of the same `scope` and with the same tools
    have anything in common."""
    first = hash((scope, edges(memoryview(head.tools))))
    view = memoryview(head.messages)
    if bytes(view[:1]) == b"[":
        return _of_messages(_whole_messages(view), first)
    view = memoryview(head.prompt)
    return _of_text(view, first) if bytes(view[:1]) in (b'"', b"[") else None


def opening(of: Beginning) -> bytes:
    """The same for every turn of a conversation, and another one for nearly every conversation."""
    return b"".join(map(edges, of.opening))


def edges(view: memoryview) -> bytes:
    """A text, or what tells a long one from others: its length, its begin and its end."""
    if len(view) <= 2 * EDGE_BYTES:
        return bytes(view)
    return b"".join((b"%d" % len(view), view[:EDGE_BYTES], view[-EDGE_BYTES:]))


def _whole_messages(view: memoryview) -> list[memoryview]:
    """The messages of a list, as far as they are within MAX_BYTES; of the last one only a part may be."""
    if len(view) <= MAX_BYTES:
        return [memoryview(each) for each in _raws.decode(view)]
    piece = bytes(view[:MAX_BYTES])
    for end in _ends_of_messages(piece):
        try:
            whole = _raws.decode(b"%b]" % piece[:end])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        return [*(memoryview(each) for each in whole), memoryview(piece[end:].lstrip(b", \t\r\n"))]
    return [memoryview(piece[1:].lstrip())]


def _ends_of_messages(piece: bytes) -> Iterator[int]:
    """Where the last whole message of the beginning of a list may end, the likeliest place first; a few places only.

    A `"role"` whose quotes are not escaped is no part of a text, and mostly the first member of its message. A brace
    may be a part of a text: then what is before it is no list.
    """
    at = len(piece)
    for _ in range(MAX_TRIES):
        at = piece.rfind(b'"role"', 0, at)
        if at < 0 or (end := piece.rfind(b"}", 0, at)) < 0:
            break
        yield end + 1
    end = len(piece)
    for _ in range(MAX_TRIES):
        end = piece.rfind(b"}", 0, end)
        if end < 0:
            break
        yield end + 1


def _of_messages(messages: list[memoryview], first: int) -> Beginning:
    blocks: list[int] = []
    ends: list[int] = []
    last_opening = _end_of_preamble(messages)
    own = MAX_BLOCKS
    total, last = 0, first
    for index, message in enumerate(messages):
        for at in range(0, len(message), BLOCK_BYTES):
            block = bytes(message[at : at + BLOCK_BYTES])
            last = hash((last, block))
            total += len(block)
            blocks.append(last)
            ends.append(total)
        if index == last_opening:
            own = max(0, len(blocks) - 1)  # a message may be cut to nothing
        if len(blocks) >= MAX_BLOCKS:
            break
    return Beginning(blocks[:MAX_BLOCKS], ends[:MAX_BLOCKS], own, messages[: last_opening + 1])


def _end_of_preamble(messages: list[memoryview]) -> int:
    """The index of the first message that is no instruction of whoever wrote the client's program."""
    for index, message in enumerate(messages[:MAX_PREAMBLE]):
        try:
            role = _roles.decode(message).role
        except (msgspec.DecodeError, UnicodeDecodeError):
            return index
        if role not in _OPERATORS:
            return index
    return 0


def _of_text(view: memoryview, first: int) -> Beginning:
    blocks: list[int] = []
    ends: list[int] = []
    text = view[:MAX_BYTES]
    at, last = 0, first
    # Only whole blocks: the last piece goes on in another way as soon as the text goes on.
    while (end := at + (SHORT_BLOCK_BYTES if at < BLOCK_BYTES else BLOCK_BYTES)) < len(text):
        last = hash((last, bytes(text[at:end])))
        blocks.append(last)
        ends.append(end)
        at = end
    return Beginning(blocks, ends, MAX_BLOCKS, [text[:SHORT_BLOCK_BYTES]])
