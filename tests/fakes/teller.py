"""Engines that write one fixed answer from wherever its prompt ends, and tell its tokens as vLLM and llama.cpp do.

Characters lie across tokens, and text that may begin a stop is held back, as the real ones do it (tried with vLLM 0.25
and xllamacpp 2026.10). A prompt of an answer's first tokens is gone on with behind them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from backends.engine_profile import TokenTelling
from tests.fakes import wire
from tests.rigs.hop import Server

Json = dict[str, Any]
PROMPT = (1, 2, 3)
# Two of the characters are of two tokens, one is of three, and one word is written in another way than the usual one.
_BEGIN: Final = (
    *(b"Gr", b"\xc3", b"\xbc", "ße".encode(), b", ", b"\xe4\xbd", b"\xa0", "好".encode(), b" "),
    *(b"\xf0\x9f", b"\x99", b"\x82", b" he", b"llo"),
)
PIECES: Final[tuple[bytes, ...]] = (
    *(*_BEGIN, b" ", b"STO", b"NE", b".", b"\n"),
    *(*_BEGIN[:5], b'"quoted"', b" {}", b"."),
)
VOCABULARY: dict[int, bytes] = dict(
    enumerate(dict.fromkeys((*PIECES, b" hello", "你".encode(), "🙂".encode())), start=100)
)
_NUMBERS = {piece: number for number, piece in VOCABULARY.items()}
ANSWER = [_NUMBERS[piece] for piece in PIECES]
TEXT = b"".join(PIECES).decode()
STOP = "STOP"
_ALL = VOCABULARY | {1: b"<user>", 2: b"hi", 3: b"<assistant>"}


def as_text(ids: Sequence[int]) -> str:
    """The text of tokens, with U+FFFD for what is no character."""
    return b"".join([_ALL[number] for number in ids]).decode("utf-8", "replace")


def tokenized(text: str) -> list[int]:
    """The tokens of a text in the usual way: the longest that fits, again and again."""
    rest, ids = text.encode(), []
    while rest:
        piece = max((each for each in VOCABULARY.values() if rest.startswith(each)), key=len)
        ids.append(_NUMBERS[piece])
        rest = rest[len(piece) :]
    return ids


def kept(prompt: object) -> int:
    """How many tokens of the answer are at a prompt's end; its text may be there as a text (`<user>hi<assistant>`)."""
    ids = [each for each in prompt if isinstance(each, int)] if isinstance(prompt, list) else []
    ids = ids[len(PROMPT) :] if ids[: len(PROMPT)] == list(PROMPT) else ids
    assert ids == ANSWER[: len(ids)] or as_text(ids) == as_text(ANSWER)[: len(as_text(ids))]
    return next(n for n in range(len(ANSWER) + 1) if as_text(ANSWER[:n]) == as_text(ids))


def _pieces(telling: TokenTelling, start: int, stop: str) -> Iterator[tuple[str, list[int], bytes]]:
    """What each event has: text, the tokens told, and the text that the last of them is told with."""
    told, sent = b"", 0
    for number in ANSWER[start:]:
        told += VOCABULARY[number]
        text = told.decode("utf-8", "ignore")
        if telling is TokenTelling.NUMBERS:
            end = max(sent, len(text) - max(0, len(stop) - 1))
            yield text[sent:end], [number], b""
            sent = end
            continue
        is_cut = len(text.encode()) < len(told)
        is_held = bool(stop) and any(text.endswith(stop[:n]) for n in range(1, len(stop)))
        if not (is_cut or is_held):
            yield text[sent:], [number], text[sent:].encode()
            sent = len(text)
    yield told.decode()[sent:], [], b""


def events(telling: TokenTelling, body: Json, *, is_chat: bool) -> Iterator[bytes]:
    """The stream's events, the end mark too."""
    start = 0 if is_chat else kept(body["prompt"])
    stop = str(body.get("stop") or "")
    head = {"id": f"id-{start}", "object": "chat.completion.chunk" if is_chat else "text_completion", "created": 1}
    asks = body.get("return_token_ids") or body.get("logprobs")
    is_first = True
    limit = body.get("max_tokens") or len(ANSWER) + 1
    wrote = min(limit, len(ANSWER) - start)
    count = 0
    for text, ids, told in _pieces(telling, start, stop):
        count += len(ids)
        is_last = not ids or (telling is TokenTelling.NUMBERS and count >= limit)
        reason = ("length" if count >= limit and start + count < len(ANSWER) else "stop") if is_last else None
        choice: Json = {"index": 0, "finish_reason": reason}
        choice |= {"delta": {"content": text} if text else {}} if is_chat else {"text": text}
        chunk: Json = {**head, "model": "m", "choices": [choice]}
        if telling is TokenTelling.NUMBERS:
            choice["token_ids"] = ids if asks else None
            if is_first and is_chat:
                yield wire.sse(
                    {
                        **chunk,
                        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
                        "prompt_token_ids": list(PROMPT) if asks else None,
                    }
                )
            elif is_first:
                choice["prompt_token_ids"] = list(PROMPT) if asks else None
        elif asks and ids:
            choice["logprobs"] = {"content": [{"id": ids[-1], "token": text, "bytes": list(told), "prob": 1.0}]}
        elif not is_chat:
            choice["logprobs"] = None
        is_first = False
        if is_last and telling is TokenTelling.PROBABILITIES:
            given = len(PROMPT) + (0 if is_chat else sum(isinstance(each, int) for each in body["prompt"]))
            chunk["timings"] = {"prompt_n": given, "cache_n": 0, "predicted_n": wrote}
        yield wire.sse(chunk)
        if is_last:
            break
    if telling is TokenTelling.NUMBERS and body.get("stream_options"):
        usage = {
            "prompt_tokens": len(PROMPT) + start,
            "completion_tokens": wrote,
            "total_tokens": len(PROMPT) + start + wrote,
        }
        yield wire.sse({**head, "model": "m", "choices": [], "usage": usage})
    yield wire.DONE


def beside(telling: TokenTelling, path: str, body: Json) -> Json:
    """The response of one of the routes beside `/v1`."""
    if path == "/apply-template":
        return {"prompt": "<user>hi<assistant>"}
    if path == "/detokenize":
        return {"prompt" if telling is TokenTelling.NUMBERS else "content": as_text(body["tokens"])}
    assert path == "/tokenize"
    numbers = tokenized(body["content"])
    return {"tokens": [{"id": number, "piece": _piece(VOCABULARY[number])} for number in numbers]}


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


class Teller:
    """Such an engine on a socket. `breaks_after`: events of each stream after which it closes the connection, or says
    no more (`hangs`), or says something else (`then`); `bodies` are all that it was sent, with their paths."""

    def __init__(
        self, telling: TokenTelling, breaks_after: int | None = None, *, hangs: bool = False, then: object = None
    ) -> None:
        self.telling = telling
        self.breaks_after = breaks_after
        self._hangs = hangs
        self._then = then
        self.bodies: list[tuple[str, Json]] = []
        self._server = Server(self._serve)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        return self._server.url

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            body, path = json.loads(await reader.readexactly(length) or b"{}"), head.split(b" ")[1].decode()
            self.bodies.append((path, body))
            if not path.startswith("/v1/"):
                writer.write(wire.whole(200, wire.dumps(beside(self.telling, path, body))))
                continue
            stream = events(self.telling, body, is_chat=path == "/v1/chat/completions")
            writer.write(wire.SSE_HEAD + b"".join(map(wire.chunk, islice(stream, self.breaks_after))))
            if self._then is not None:
                writer.write(wire.chunk(wire.sse(self._then)))
            if self._hangs:
                await reader.read()
            if self.breaks_after is not None:
                writer.close()
                return
            writer.write(b"0\r\n\r\n")
