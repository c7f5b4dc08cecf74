"""Rerank, score, tokenize and detokenize by llama.cpp's server, in vLLM's shape for the client. Pure.

Each is a generator: it yields requests to one engine, is sent their responses, and returns the client's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from app.dialects.tasks.requests import Detokenizing, Ranking, Scoring, Task, Tokenizing
from app.dialects.usage import Usage, tokens
from backends.errors import Broken, Rejected, Unsupported

MAX_PAIRS: Final = 256  # requests to the engine for one `/v1/score`


class Step(msgspec.Struct, frozen=True):
    """One request to the engine: GET where it has no body. `is_beside`: its path lies beside `/v1`, not below it."""

    path: str
    body: bytes = b""
    is_beside: bool = False


class Stamp(msgspec.Struct, frozen=True):
    """What tells one response of ours from others: random letters, and the time in Unix seconds."""

    token: str
    created: int


class Done(msgspec.Struct, frozen=True):
    """The client's response, as JSON, and what it cost."""

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
    """llama.cpp's response to `/tokenize`."""

    tokens: list[int]


class _Piece(msgspec.Struct, frozen=True):
    id: int
    piece: str | list[int]


class _Pieces(msgspec.Struct, frozen=True):
    tokens: list[_Piece]


class _Content(msgspec.Struct, frozen=True):
    content: str


class Prompt(msgspec.Struct, frozen=True):
    """llama.cpp's response to `/apply-template`."""

    prompt: str


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: int


class _Props(msgspec.Struct, frozen=True):
    default_generation_settings: _Settings
    bos_token: str | None = None
    eos_token: str | None = None
    chat_template: str | None = None


def decoded(engine: str, response: bytes, type_: type[T]) -> T:
    """A response, decoded; Broken for one of another shape."""
    try:
        return msgspec.json.decode(response, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Broken(engine, "it sent JSON that is not an answer to this request") from exc


def step(path: str, fields: Mapping[str, Any], *, is_beside: bool = True) -> Step:
    """A request whose JSON body has these fields."""
    return Step(path, msgspec.json.encode(fields), is_beside)


def _rank(engine: str, query: str, documents: list[str]) -> Generator[Step, bytes, _Ranked]:
    request = step("/rerank", {"query": query, "documents": documents}, is_beside=False)
    ranking = decoded(engine, (yield request), _Ranked)
    if sorted(rank.index for rank in ranking.results) != list(range(len(documents))):
        raise Broken(engine, "it sent a ranking of other texts than it was given")
    return ranking


def ranked(asked: Ranking, engine: str, name: str, stamp: Stamp) -> Steps:
    """Answer `/v1/rerank`; `name` is the client's name for the model."""
    documents = [asked.documents] if isinstance(asked.documents, str) else asked.documents
    ranking = yield from _rank(engine, asked.query, documents)
    best = sorted(ranking.results, key=lambda rank: -rank.relevance_score)[: asked.top_n if asked.top_n > 0 else None]
    results = [
        {"index": rank.index, "document": {"text": documents[rank.index]}, "relevance_score": rank.relevance_score}
        for rank in best
    ]
    used = _used(ranking)
    answer = {"id": f"rerank-{stamp.token}", "model": name, "usage": used, "results": results}
    return Done(msgspec.json.encode(answer), Usage(used["prompt_tokens"]))


def scored(asked: Scoring, engine: str, name: str, stamp: Stamp) -> Steps:
    """Answer `/v1/score` with a ranking for each different text on the left."""
    lefts, rights = asked.pairs()
    scores: list[float] = [0.0] * len(rights)
    total = 0
    # Neighbours with the same left side are one request.
    starts = [at for at in range(len(lefts)) if at == 0 or lefts[at] != lefts[at - 1]]
    if len(starts) > MAX_PAIRS:
        raise Unsupported(engine, f"Its engine scores at most {MAX_PAIRS} different texts at once.", param="text_1")
    for start, end in zip(starts, [*starts[1:], len(lefts)], strict=True):
        ranking = yield from _rank(engine, lefts[start], rights[start:end])
        for rank in ranking.results:
            scores[start + rank.index] = rank.relevance_score
        total += _used(ranking)["prompt_tokens"]
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


def _used(ranking: _Ranked) -> dict[str, int]:
    count = tokens(ranking.usage)
    prompt = count.prompt_tokens if count is not None else 0
    return {"prompt_tokens": prompt, "total_tokens": prompt}


def tokenized(task: Task, asked: Tokenizing, engine: str) -> Steps:
    """Answer `/v1/tokenize`; of a conversation the text that the model's template makes of it."""
    content, special = asked.prompt, asked.add_special_tokens is not False
    if content is None:
        chat = {name: value for name, value in task.fields.items() if name not in ("add_special_tokens", "prompt")}
        content = decoded(engine, (yield step("/apply-template", chat)), Prompt).prompt
        special = True  # as it does itself with a chat
    asks = {"content": content, "add_special": special, "parse_special": True}
    spelled: list[str] | None = None
    if asked.return_token_strs:
        pieces = decoded(engine, (yield step("/tokenize", {**asks, "with_pieces": True})), _Pieces).tokens
        ids, spelled = [piece.id for piece in pieces], [_spelled(piece.piece) for piece in pieces]
    else:
        ids = decoded(engine, (yield step("/tokenize", asks)), TokenIds).tokens
    longest = decoded(engine, (yield Step("/props", is_beside=True)), _Props).default_generation_settings.n_ctx
    answer = {"count": len(ids), "max_model_len": longest, "tokens": ids, "token_strs": spelled}
    return Done(msgspec.json.encode(answer))


def _spelled(piece: str | list[int]) -> str:
    """A token as text: llama.cpp sends the bytes of one that is not a whole character."""
    return piece if isinstance(piece, str) else bytes(n & 255 for n in piece).decode("utf-8", "replace")


def detokenized(asked: Detokenizing, engine: str) -> Steps:
    """Answer `/v1/detokenize`."""
    if any(not 0 <= token < 2**31 for token in asked.tokens):
        raise invalid_token(engine)
    text = decoded(engine, (yield step("/detokenize", {"tokens": asked.tokens})), _Content).content
    return Done(msgspec.json.encode({"prompt": text}))


def described(engine: str) -> Steps:
    """Answer `/tokenizer_info`, with the members of a `tokenizer_config.json` that the engine knows."""
    props = decoded(engine, (yield Step("/props", is_beside=True)), _Props)
    answer = {
        "tokenizer_class": "llama.cpp",
        "model_max_length": props.default_generation_settings.n_ctx,
        "bos_token": props.bos_token or None,
        "eos_token": props.eos_token or None,
        "chat_template": props.chat_template or None,
    }
    return Done(msgspec.json.encode(answer))


def invalid_token(engine: str) -> Rejected:
    """The 400 for a number that is not a token; the engine itself answers 500."""
    message = "'tokens' holds a number that is not a token of this model."
    return Rejected(engine, message, status=400, type_="invalid_request_error", code="invalid_request", param="tokens")
