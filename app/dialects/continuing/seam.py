"""Where another engine goes on with an answer: the tokens that it is given as its prompt, and the text with which it
repeats what the client has already. Pure.

Each finder is a generator: it yields requests to that engine, is sent their responses, and returns the seam. Text that
the first engine held back, because it may have been half a character or the beginning of a text that ends the answer,
no client has got: the seam lies before it. What lies between the seam and the end of the client's text is written
again, compared, and left out (continued_chunks.py): so nothing is lost and nothing comes twice, or the answer does not
go on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from itertools import pairwise
from typing import Any, Final, TypeVar

import msgspec

from app.dialects.continuing.token_record import TokenRecord
from app.dialects.tasks.llama_cpp import Prompt, Step, decoded, step
from backends.engine_profile import TokenTelling
from backends.errors import Broken

T = TypeVar("T")
# Tokens before the answer that are made text with it: the first one's space may depend on what stands before it.
_CONTEXT: Final = 8
# The farthest that a seam may lie before the end: a text that ends answers and is held back is not longer.
_MAX_BACK: Final = 512
# Tokens whose text is asked for one by one.
_MAX_ASKED: Final = 64
_CHAT: Final = (
    *("messages", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "reasoning_effort"),
)


class Seam(msgspec.Struct, frozen=True):
    """`prompt`: the JSON of the prompt; `kept`: how many tokens of the answer are in it; `repeats`: what is written
    again first."""

    prompt: bytes
    kept: int
    repeats: str = ""


Finding = Generator[Step, bytes, Seam]


class _Text(msgspec.Struct, frozen=True):
    prompt: str


class _Content(msgspec.Struct, frozen=True):
    content: str


class _Piece(msgspec.Struct, frozen=True):
    id: int
    piece: str | list[int]

    @property
    def text(self) -> bytes:
        """Its bytes, which are a list where they are no UTF-8."""
        return self.piece.encode() if isinstance(self.piece, str) else bytes(self.piece)


class _Pieces(msgspec.Struct, frozen=True):
    tokens: list[_Piece]


def find(record: TokenRecord, members: Mapping[str, msgspec.Raw], limit: int | None, engine: str) -> Finding:
    """The seam of an answer, of whose request `members` were sent, and which may have `limit` tokens. Raises Broken
    (with the sentence that belongs behind `engine`) where there is none."""
    most = None if limit is None else limit - 1  # one is left to write
    if record.telling is TokenTelling.NUMBERS:
        return _by_ids(record, members, most, engine)
    return _by_pieces(record, members, most, engine)


def _by_ids(record: TokenRecord, members: Mapping[str, msgspec.Raw], most: int | None, engine: str) -> Finding:
    """Of an engine that tells the prompt's tokens, and all of the answer's as soon as it has them."""
    prompt, text, ids = record.prompt, record.text, record.ids.tolist()
    if prompt is None or not ids:
        raise Broken(engine, "the tokens of its prompt were not told")
    before = prompt[-_CONTEXT:]
    model = msgspec.json.decode(members["model"]) if "model" in members else ""

    def as_text(count: int) -> Generator[Step, bytes, str]:
        asks = {"model": model, "tokens": [*before, *ids[:count]]}
        return decoded(engine, (yield step("/detokenize", asks)), _Text).prompt

    base = yield from as_text(0)
    kept, back = len(ids) if most is None else min(len(ids), most), 1
    while back <= _MAX_BACK:
        whole = yield from as_text(kept)
        if whole.startswith(base) and text.startswith(whole[len(base) :]):
            repeats = text[len(whole) - len(base) :]
            return Seam(msgspec.json.encode([*prompt, *ids[:kept]]), kept, repeats)
        kept, back = max(0, kept - back), back * 2
    raise Broken(engine, "the text of its tokens is not what was sent")


def _by_pieces(record: TokenRecord, members: Mapping[str, msgspec.Raw], most: int | None, engine: str) -> Finding:
    """Of an engine that tells with each piece of text the last token that it was made of."""
    told = record.told
    if not record.ids or told.decode("utf-8", "replace") != record.text:
        raise Broken(engine, "the text of its tokens is not what was sent")
    canonical = _boundaries((yield from _tokenized(record.text, engine)), told)
    pieces: dict[int, bytes] = {}
    for (start, end), number in canonical.items():
        pieces[number] = told[start:end]
    starts = {start: (end, number) for (start, end), number in canonical.items()}
    ids: list[int] = []
    ends: list[int] = []  # of each of `ids`, in bytes
    asked = 0
    for (start, end), number in zip(pairwise([0, *record.ends]), record.ids, strict=True):
        if number not in pieces:
            if (asked := asked + 1) > _MAX_ASKED:
                raise Broken(engine, "its tokens are unlike those of its text")
            content = decoded(engine, (yield step("/detokenize", {"tokens": [number]})), _Content).content
            pieces[number] = content.encode()
        if pieces[number] == told[start:end]:
            ids.append(number)
            ends.append(end)
            continue
        tiles = _tiles(starts, start, end)
        if tiles is None:
            raise Broken(engine, "some of its tokens were not told")
        ids += [each for _, each in tiles]
        ends += [each for each, _ in tiles]
    kept = len(ids) if most is None else min(len(ids), most)
    while kept > 0 and not _is_between_characters(told, ends[kept - 1]):
        kept -= 1
    if kept == 0:
        raise Broken(engine, "nothing of its answer is left to go on from")
    prompt = yield from _prompt(members, engine)
    return Seam(msgspec.json.encode([*prompt, *ids[:kept]]), kept, told[ends[kept - 1] :].decode("utf-8", "replace"))


def _prompt(members: Mapping[str, msgspec.Raw], engine: str) -> Generator[Step, bytes, list[Any]]:
    """The prompt, as text or as tokens; of a chat, what its template makes of it."""
    if "messages" not in members:
        given = msgspec.json.decode(members["prompt"])
        return given if isinstance(given, list) else [given]
    chat = {name: members[name] for name in _CHAT if name in members}
    return [decoded(engine, (yield step("/apply-template", chat)), Prompt).prompt]


def _tokenized(text: str, engine: str) -> Generator[Step, bytes, list[_Piece]]:
    asks = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
    return decoded(engine, (yield step("/tokenize", asks)), _Pieces).tokens


def _boundaries(tokens: list[_Piece], told: bytes) -> dict[tuple[int, int], int]:
    """The tokens of a text by where they begin and end in it, in bytes; empty where their text is another one. Some
    vocabularies put a space before every text."""
    whole = b"".join([token.text for token in tokens])
    if whole not in (told, b" " + told):
        return {}
    at = len(told) - len(whole)
    placed: dict[tuple[int, int], int] = {}
    for token in tokens:
        start, at = at, at + len(token.text)
        if start >= 0:
            placed[start, at] = token.id
    return placed


def _tiles(starts: Mapping[int, tuple[int, int]], start: int, end: int) -> list[tuple[int, int]] | None:
    """The tokens that are exactly the text from `start` to `end`, each with its end; None where there are none."""
    tiles: list[tuple[int, int]] = []
    while start < end:
        tile = starts.get(start)
        if tile is None or tile[0] <= start:
            return None
        tiles.append(tile)
        start = tile[0]
    return tiles if start == end else None


def _is_between_characters(text: bytes, at: int) -> bool:
    return at == len(text) or text[at] & 0xC0 != 0x80
