"""The relays' routes of other dialects as `/openapi.json` describes them; what they take is others' to define."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    """The dialect's own fields."""

    model_config = ConfigDict(extra="allow")


class ResponseRequest(_Open):
    """OpenAI's, as far as it needs no memory."""

    model: str | None = None
    input: str | list[dict[str, Any]]
    stream: bool = False


class RankRequest(_Open):
    """vLLM's."""

    model: str | None = None
    query: str
    documents: str | list[str]
    top_n: int = 0


class ScoreRequest(_Open):
    """vLLM's; either side has three names there."""

    model: str | None = None
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None


class TokenRequest(_Open):
    """vLLM's: a prompt or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    return_token_strs: bool = False


class TokenList(BaseModel):
    """Of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenRequest(_Open):
    """vLLM's."""

    model: str | None = None
    tokens: list[int]


class Text(BaseModel):
    """Of tokens."""

    prompt: str


class MessageRequest(_Open):
    """Anthropic's."""

    model: str | None = None
    messages: list[dict[str, Any]]
    max_tokens: int
    stream: bool = False


class CountRequest(_Open):
    """Anthropic's."""

    model: str | None = None
    messages: list[dict[str, Any]]


class OllamaChat(_Open):
    """Ollama's."""

    model: str | None = None
    messages: list[dict[str, Any]] = []
    stream: bool = True
    options: dict[str, Any] = {}


class OllamaPrompt(_Open):
    """Ollama's."""

    model: str | None = None
    prompt: str = ""
    stream: bool = True
    options: dict[str, Any] = {}


class OllamaTexts(_Open):
    """Ollama's."""

    model: str | None = None
    input: str | list[str]


class OllamaName(_Open):
    """Ollama's."""

    model: str


class OllamaError(BaseModel):
    """What every failure under `/api/` is."""

    error: str


class AnthropicFault(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(BaseModel):
    """What every failure of `/v1/messages` is."""

    type: str = "error"
    error: AnthropicFault


Answers = dict[int | str, dict[str, Any]]


_AUDIO = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "stream": {"type": "boolean"},
    },
}


def foreign_routes(router: APIRouter, refused: Answers) -> None:
    """Add them, to be described and never to be called."""
    _openai(router, refused)
    _anthropic(router)
    _ollama(router)


def _stream(kind: str, failure: type[BaseModel] | None) -> Answers:
    told: Answers = {
        200: {"content": {kind: {"schema": {"type": "string"}}}, "description": "The answer, or a stream."}
    }
    if failure is not None:
        told["default"] = {"model": failure, "description": "A failure."}
    return told


def _openai(router: APIRouter, refused: Answers) -> None:
    @router.post("/v1/rerank", responses=refused, tags=["models"])
    async def rerank(body: RankRequest) -> _Open:
        raise NotImplementedError

    @router.post("/v1/score", responses=refused, tags=["models"])
    async def score(body: ScoreRequest) -> _Open:
        raise NotImplementedError

    @router.post("/v1/tokenize", responses=refused, tags=["models"])
    async def tokenize(body: TokenRequest) -> TokenList:
        raise NotImplementedError

    @router.post("/v1/detokenize", responses=refused, tags=["models"])
    async def detokenize(body: DetokenRequest) -> Text:
        raise NotImplementedError

    @router.post(
        "/v1/audio/transcriptions",
        responses={**_stream("text/event-stream", None), **refused},
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _AUDIO}}}},
        tags=["models"],
    )
    async def transcriptions() -> _Open:
        raise NotImplementedError

    @router.post("/v1/responses", responses=_stream("text/event-stream", None), tags=["models"])
    async def responses(body: ResponseRequest) -> _Open:
        raise NotImplementedError


def _anthropic(router: APIRouter) -> None:
    failure: Answers = {"default": {"model": AnthropicError, "description": "A failure."}}

    @router.post("/v1/messages", responses=_stream("text/event-stream", AnthropicError), tags=["anthropic"])
    async def messages(body: MessageRequest) -> _Open:
        raise NotImplementedError

    @router.post("/v1/messages/count_tokens", responses=failure, tags=["anthropic"])
    async def count_tokens(body: CountRequest) -> _Open:
        raise NotImplementedError


def _ollama(router: APIRouter) -> None:
    failure: Answers = {"default": {"model": OllamaError, "description": "A failure."}}
    lines = _stream("application/x-ndjson", OllamaError)

    @router.get("/", tags=["ollama"])
    async def root() -> str:
        raise NotImplementedError

    @router.get("/api/version", tags=["ollama"])
    async def ollama_version() -> _Open:
        raise NotImplementedError

    @router.get("/api/tags", responses=failure, tags=["ollama"])
    async def tags() -> _Open:
        raise NotImplementedError

    @router.get("/api/ps", responses=failure, tags=["ollama"])
    async def running() -> _Open:
        raise NotImplementedError

    @router.post("/api/show", responses=failure, tags=["ollama"])
    async def show(body: OllamaName) -> _Open:
        raise NotImplementedError

    @router.post("/api/chat", responses=lines, tags=["ollama"])
    async def chat(body: OllamaChat) -> _Open:
        raise NotImplementedError

    @router.post("/api/generate", responses=lines, tags=["ollama"])
    async def generate(body: OllamaPrompt) -> _Open:
        raise NotImplementedError

    @router.post("/api/embed", responses=failure, tags=["ollama"])
    async def embed(body: OllamaTexts) -> _Open:
        raise NotImplementedError

    @router.post("/api/embeddings", responses=failure, tags=["ollama"])
    async def embeddings_of_one(body: OllamaPrompt) -> _Open:
        raise NotImplementedError
