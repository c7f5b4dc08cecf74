"""The route table of a relay: every path that it answers, for whom, and by what."""

from __future__ import annotations

from functools import partial

from app.dialects.client_api import ResponseEncoder
from app.dialects.tasks.evaluation import DetailErrors
from app.errors import not_found
from app.relay.compare.compare_api import CompareApi
from app.relay.http.origin_check import OriginRule
from app.relay.http.request import Request
from app.relay.routes import base_urls
from app.relay.routes.foreign_apis import (
    ForeignApis,
    anthropic_errors,
    anthropic_for_its_clients,
    ollama_errors,
    translated,
)
from app.relay.routes.gateway_api import GatewayApi, live, ready
from app.relay.routes.openai_api import OpenAIApi
from app.relay.routes.page_files import PageFiles
from app.relay.routes.route import ANY_METHOD, POST, READ, READ_OR_POST, Access, EncoderOf, Handler, Route, RouteTable

OPEN, KEY, ADMIN = Access.OPEN, Access.KEY, Access.ADMIN
# Ollama's orders to its daemon. They change what is on its disk, or run what a stranger sends: no client may give them.
OLLAMA_ORDERS = ("blobs", "copy", "create", "delete", "me", "pull", "push", "signin", "signout")


def route_table(
    openai: OpenAIApi, foreign: ForeignApis, gateway: GatewayApi, compare: CompareApi, page: PageFiles
) -> RouteTable:
    """All routes. What is not listed leads to a 404 in the dialect of the paths around it."""
    for_clients = (
        Route("/v1/chat/completions", POST, KEY, openai.run),
        Route("/v1/chat/completions/render", POST, KEY, openai.render),
        Route("/v1/completions", POST, KEY, openai.run),
        Route("/v1/embeddings", POST, KEY, openai.run),
        Route("/v1/rerank", POST, KEY, openai.run),
        Route("/v1/score", POST, KEY, openai.run),
        Route("/v1/score/evaluation", POST, KEY, openai.run, encoder=_with_detail),
        Route("/v1/tokenize", POST, KEY, openai.run),
        Route("/v1/detokenize", POST, KEY, openai.run),
        Route("/tokenize", POST, KEY, openai.run_at_root),
        Route("/detokenize", POST, KEY, openai.run_at_root),
        Route("/tokenizer_info", READ, KEY, openai.tokenizer_info),
        Route("/v1/audio/transcriptions", POST, KEY, openai.run_form),
        Route("/v1/models", READ, KEY, openai.list_models, encoder=anthropic_for_its_clients),
        Route("/v1/models/{model}", READ, KEY, openai.show_model, encoder=anthropic_for_its_clients),
        Route("/v1/responses", POST, KEY, foreign.run, encoder=translated),
        Route("/v1/messages", POST, KEY, foreign.run, encoder=translated),
        Route("/v1/messages/count_tokens", POST, KEY, foreign.run, encoder=translated),
        *_comparisons(compare),
        _ollama("/api/chat", POST, KEY, foreign.run, translated),
        _ollama("/api/generate", POST, KEY, foreign.run, translated),
        _ollama("/api/embed", POST, KEY, foreign.run, translated),
        _ollama("/api/embeddings", POST, KEY, foreign.run, translated),
        _ollama("/api/show", POST, KEY, foreign.show_model),
        _ollama("/api/tags", READ, KEY, foreign.list_models),
        _ollama("/api/ps", READ, KEY, foreign.list_running),
        _ollama("/api/version", READ, OPEN, foreign.version),
        _ollama("/", READ, OPEN, page.welcome),
        Route("/page/{file}", READ, OPEN, page.file),
        Route("/livez", READ, OPEN, live, origin=OriginRule.ANY),
        Route("/readyz", READ, OPEN, ready, origin=OriginRule.ANY),
        Route("/health", READ, ADMIN, gateway.forward, otherwise=ready),
    )
    by_the_supervisor = (
        Route("/version", READ, OPEN, gateway.forward),
        Route("/openapi.json", READ, OPEN, gateway.forward),
        Route("/docs", READ, OPEN, gateway.forward),
        Route("/metrics", READ, ADMIN, gateway.forward),
        Route("/metrics/engines", READ, ADMIN, gateway.forward),
        Route("/admin/*", READ_OR_POST, ADMIN, gateway.forward),
    )
    refused = tuple(
        _ollama(path, ANY_METHOD, OPEN, foreign.refuse_order)
        for order in OLLAMA_ORDERS
        for path in (f"/api/{order}", f"/api/{order}/*")
    )
    unknown = partial(_no_such_route, tuple(route.path for route in for_clients if route.is_exact))
    elsewhere = (
        Route("/v1/models/", ANY_METHOD, OPEN, unknown, encoder=anthropic_for_its_clients),
        Route("/v1/messages/*", ANY_METHOD, OPEN, unknown, encoder=anthropic_errors),
        _ollama("/api/*", ANY_METHOD, OPEN, unknown),
        Route("*", ANY_METHOD, OPEN, unknown),
    )
    return RouteTable((*for_clients, *by_the_supervisor, *refused, *elsewhere))


def _comparisons(compare: CompareApi) -> tuple[Route, ...]:
    return (
        Route("/v1/compare", POST, KEY, compare.compare),
        Route("/v1/compare/pairs", READ, KEY, compare.list_pairs),
        Route("/v1/compare/votes", READ_OR_POST, KEY, compare.votes),
        Route("/v1/compare/runs", READ, KEY, compare.list_runs),
        Route("/v1/compare/runs/{id}", READ, KEY, compare.show_run),
    )


def _with_detail(_request: Request) -> ResponseEncoder:
    return DetailErrors()


def _ollama(
    path: str, methods: tuple[str, ...] | None, access: Access, handler: Handler, encoder: EncoderOf = ollama_errors
) -> Route:
    return Route(path, methods, access, handler, origin=OriginRule.OLLAMA, encoder=encoder)


async def _no_such_route(paths: tuple[str, ...], request: Request) -> None:
    if request.path == "*" and request.method == "OPTIONS":  # of the server as a whole (RFC 9110, 9.3.7)
        request.answer_options(READ_OR_POST)
        return
    raise not_found(base_urls.advice(request.path, paths))
