"""`/openapi.json` of the whole gateway: the admin application's own routes and those that the relays serve."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import BaseRoute

from app.supervisor.admin.openapi_routes import foreign_routes
from app.supervisor.admin.schemas import ErrorAnswer, Health
from backends.endpoint import State

_OPEN = frozenset({"/", "/api/version", "/livez", "/readyz", "/version"})
_BEARER = {"type": "http", "scheme": "bearer", "description": "A key; none is needed while none is configured."}
_REFUSALS = {
    400: "The request is not valid.",
    401: "The key is missing or wrong.",
    403: "The key may not do this.",
    404: "There is no such model, or not for this key.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests; see Retry-After.",
    502: "The engine failed.",
    501: "That is not for clients, or the engine cannot do it.",
    503: "The engine is not serving; see Retry-After.",
    504: "The engine did not answer in time.",
}


class _Open(BaseModel):
    """Fields that are not listed pass through unchanged, in both directions."""

    model_config = ConfigDict(extra="allow")


class CompletionUsage(_Open):
    """How many tokens the request and its response had."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class Message(_Open):
    """One message of a conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(_Open):
    """`model` may be missing only where a default model is configured."""

    model: str | None = Field(None, description="A public name, an alias, or one that a wildcard covers.")
    messages: list[Message]
    stream: bool = False


class ChatChoice(_Open):
    """One of the responses that were asked for with `n`."""

    index: int
    message: Message
    finish_reason: str | None


class ChatCompletion(_Open):
    """The engine's response to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage | None = None


class CompletionRequest(_Open):
    """A text to continue."""

    model: str | None = None
    prompt: str | list[str] | list[int] | list[list[int]]
    stream: bool = False


class TextChoice(_Open):
    """One of the continuations that were asked for with `n`."""

    index: int
    text: str
    finish_reason: str | None


class Completion(_Open):
    """The engine's continuation of the text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None


class EmbeddingsRequest(_Open):
    """Texts to embed."""

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]


class Embedding(_Open):
    """One vector: numbers, or base64 when that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(_Open):
    """One vector for each text."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: CompletionUsage | None = None


class ModelEntry(_Open):
    """One public name, with its state."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    state: State


class Alive(BaseModel):
    """The gateway runs, or is ready, as the route says."""

    status: Literal["ok"]


class ModelList(_Open):
    """The models that this key may use."""

    object: Literal["list"]
    data: list[ModelEntry]


def document(own: Sequence[BaseRoute], version: str, root_path: str) -> dict[str, Any]:
    """The OpenAPI document of everything that the public port answers. `own`: the admin application's routes."""
    described = get_openapi(
        title="Modelport",
        version=version,
        summary="One OpenAI-compatible endpoint for self-hosted models.",
        routes=[*_relay_routes().routes, *own],
        servers=[{"url": root_path}] if root_path else None,
    )
    described.setdefault("components", {})["securitySchemes"] = {"key": _BEARER}
    for path, operations in described["paths"].items():
        for operation in operations.values():
            # FastAPI adds a 422 of its own; our responses to invalid requests are 400.
            operation["responses"].pop("422", None)
            if path not in _OPEN:
                operation["security"] = [{"key": []}]
    for unused in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(unused, None)
    return described


def page(described: Mapping[str, Any]) -> str:
    """The document as one HTML page, which loads no other file."""
    rows = [
        f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('summary', ''))}. {html.escape(operation.get('description', ''))}</td></tr>"
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    info = described["info"]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Modelport</title>'
        "<style>body{font:16px sans-serif;margin:2rem}td{padding:.3rem .8rem;vertical-align:top}</style>"
        f"<h1>{html.escape(info['title'])} {html.escape(info['version'])}</h1><table>{''.join(rows)}</table>"
        '<p>The whole description: <a href="openapi.json">openapi.json</a></p></html>'
    )


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses with these statuses, as FastAPI's `responses` takes them."""
    return {status: {"model": ErrorAnswer, "description": _REFUSALS[status]} for status in statuses}


def health_answers() -> dict[int | str, dict[str, Any]]:
    """The responses of `/health`: everything for an administrator, and for others what `/readyz` answers."""
    return {200: {"model": Health | Alive, "description": "How it is."}, **errors(401, 503)}


def _relay_routes() -> APIRouter:
    """The routes that relays serve. They are only described here and never called."""
    router = APIRouter()
    engine = errors(400, 401, 404, 408, 413, 415, 429, 502, 503, 504)
    stream = {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "The response, or a stream.",
    }
    generate: dict[int | str, dict[str, Any]] = {200: stream, **engine}

    @router.post("/v1/chat/completions", responses=generate, tags=["models"])
    async def chat_completions(body: ChatRequest) -> ChatCompletion:
        raise NotImplementedError

    @router.post("/v1/completions", responses=generate, tags=["models"])
    async def completions(body: CompletionRequest) -> Completion:
        raise NotImplementedError

    @router.post("/v1/embeddings", responses=engine, tags=["models"])
    async def embeddings(body: EmbeddingsRequest) -> Embeddings:
        raise NotImplementedError

    foreign_routes(router, engine)

    @router.get("/v1/models", responses=errors(401), tags=["models"])
    async def list_models() -> ModelList:
        raise NotImplementedError

    @router.get("/v1/models/{model}", responses=errors(401, 404), tags=["models"])
    async def retrieve_model(model: str) -> ModelEntry:
        raise NotImplementedError

    @router.get("/livez", tags=["probes"])
    async def livez() -> Alive:
        """The relay runs."""
        raise NotImplementedError

    @router.get("/readyz", responses=errors(503), tags=["probes"])
    async def readyz() -> Alive:
        """Not draining, and at least one model serves or can be started."""
        raise NotImplementedError

    return router
