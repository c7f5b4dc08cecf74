"""Ranks, scores and tokens of llama.cpp's server, in vLLM's words. Pure.

Each is a generator of requests to one engine that is sent their answers and returns the client's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from app.dialects.tasks.requests import Detokenizing, Ranking, Scoring, Task, Tokenizing
from app.dialects.usage import Usage, tokens
from backends.errors import Broken, Rejected, Unsupported

MAX_PAIRS: Final = 256  # of texts that are scored one by one


class Step(msgspec.Struct, frozen=True):
    """One request to the engine: GET where there is no body. `is_beside`: its path lies beside `/v1`, not below it."""

    path: str
    body: bytes = b""
    is_beside: bool = False


class Stamp(msgspec.Struct, frozen=True):
    """What an answer of ours is told apart by: random, and Unix seconds."""

    token: str
    created: int


class Done(msgspec.Struct, frozen=True):
    """The client's answer."""

    body: bytes
    cost: Usage = Usage()


Steps = Generator[Step, bytes, Done]
T = TypeVar("T")


class _Rank(msgspec.Struct, frozen=True):
    index: int
    relevance_score: float


class _Ranked(msgspec.Struct, frozen=True):
    results: list[_Rank]
    usage: dict[str, Any] = {}


class TokenIds(msgspec.Struct, frozen=True):
    """Of `/tokenize`."""

    tokens: list[int]


class _Piece(msgspec.Struct, frozen=True):
    id: int
    piece: str | list[int]


class _Pieces(msgspec.Struct, frozen=True):
    tokens: list[_Piece]


class _Content(msgspec.Struct, frozen=True):
    content: str


class Prompt(msgspec.Struct, frozen=True):
    """Of `/apply-template`."""

    prompt: str


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: int


class _Props(msgspec.Struct, frozen=True):
    default_generation_settings: _Settings


def told(engine: str, answer: bytes, type_: type[T]) -> T:
    """What an answer says; Broken for one that does not."""
    try:
        return msgspec.json.decode(answer, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Broken(engine, "it sent JSON that is not an answer to this request") from exc


def step(path: str, fields: Mapping[str, Any], *, is_beside: bool = True) -> Step:
    """A request with these fields."""
    return Step(path, msgspec.json.encode(fields), is_beside)


def _rank(engine: str, query: str, documents: list[str]) -> Generator[Step, bytes, _Ranked]:
    found = told(engine, (yield step("/rerank", {"query": query, "documents": documents}, is_beside=False)), _Ranked)
    if sorted(rank.index for rank in found.results) != list(range(len(documents))):
        raise Broken(engine, "it sent a ranking of other texts than it was given")
    return found


def ranked(asked: Ranking, engine: str, name: str, stamp: Stamp) -> Steps:
    """`/v1/rerank`."""
    documents = [asked.documents] if isinstance(asked.documents, str) else asked.documents
    found = yield from _rank(engine, asked.query, documents)
    best = sorted(found.results, key=lambda rank: -rank.relevance_score)[: asked.top_n if asked.top_n > 0 else None]
    results = [
        {"index": rank.index, "document": {"text": documents[rank.index]}, "relevance_score": rank.relevance_score}
        for rank in best
    ]
    used = _used(found)
    answer = {"id": f"rerank-{stamp.token}", "model": name, "usage": used, "results": results}
    return Done(msgspec.json.encode(answer), Usage(used["prompt_tokens"]))


def scored(asked: Scoring, engine: str, name: str, stamp: Stamp) -> Steps:
    """`/v1/score`: a ranking for every text on the left."""
    lefts, rights = asked.pairs()
    scores: list[float] = [0.0] * len(rights)
    total = 0
    # Neighbours with the same left side are one request.
    starts = [at for at in range(len(lefts)) if at == 0 or lefts[at] != lefts[at - 1]]
    if len(starts) > MAX_PAIRS:
        raise Unsupported(engine, f"Its engine scores at most {MAX_PAIRS} different texts at once.", param="text_1")
    for start, end in zip(starts, [*starts[1:], len(lefts)], strict=True):
        found = yield from _rank(engine, lefts[start], rights[start:end])
        for rank in found.results:
            scores[start + rank.index] = rank.relevance_score
        total += _used(found)["prompt_tokens"]
    data = [{"index": at, "object": "score", "score": score} for at, score in enumerate(scores)]
    used = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0}
    answer = {
        "id": f"score-{stamp.token}",
        "object": "list",
        "created": stamp.created,
        "model": name,
        "data": data,
        "usage": used,
    }
    return Done(msgspec.json.encode(answer), Usage(total))


def _used(found: _Ranked) -> dict[str, int]:
    count = tokens(found.usage)
    prompt = count.prompt_tokens if count is not None else 0
    return {"prompt_tokens": prompt, "total_tokens": prompt}


def tokenized(task: Task, asked: Tokenizing, engine: str) -> Steps:
    """`/v1/tokenize`; a conversation is what the engine would read for it."""
    content, special = asked.prompt, asked.add_special_tokens is not False
    if content is None:
        chat = {name: value for name, value in task.fields.items() if name not in ("add_special_tokens", "prompt")}
        content = told(engine, (yield step("/apply-template", chat)), Prompt).prompt
        special = True  # as it does itself with a chat
    asks = {"content": content, "add_special": special, "parse_special": True}
    spelled: list[str] | None = None
    if asked.return_token_strs:
        pieces = told(engine, (yield step("/tokenize", {**asks, "with_pieces": True})), _Pieces).tokens
        found, spelled = [piece.id for piece in pieces], [_spelled(piece.piece) for piece in pieces]
    else:
        found = told(engine, (yield step("/tokenize", asks)), TokenIds).tokens
    longest = told(engine, (yield Step("/props", is_beside=True)), _Props).default_generation_settings.n_ctx
    answer = {"count": len(found), "max_model_len": longest, "tokens": found, "token_strs": spelled}
    return Done(msgspec.json.encode(answer))


def _spelled(piece: str | list[int]) -> str:
    """llama.cpp sends the bytes of a token that is not a whole letter."""
    return piece if isinstance(piece, str) else bytes(n & 255 for n in piece).decode("utf-8", "replace")


def untokenized(asked: Detokenizing, engine: str) -> Steps:
    """`/v1/detokenize`."""
    if any(not 0 <= token < 2**31 for token in asked.tokens):
        raise no_token(engine)
    text = told(engine, (yield step("/detokenize", {"tokens": asked.tokens})), _Content).content
    return Done(msgspec.json.encode({"prompt": text}))


def no_token(engine: str) -> Rejected:
    """For a number that is no token; the engine itself says 500."""
    message = "'tokens' holds a number that is no token of this model."
    return Rejected(engine, message, status=400, type_="invalid_request_error", code="invalid_request", param="tokens")
