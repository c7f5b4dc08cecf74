"""The routes of other dialects than OpenAI's: put into OpenAI's words, and served like any other request."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from app.dialects.anthropic.request import AnthropicMessagesApi
from app.dialects.client_api import ClientApi, TranslatedRequest, decoded
from app.dialects.ollama import request as ollama_request
from app.dialects.ollama.response import Kind, OllamaErrorEncoder
from app.dialects.responses.request import ResponsesApi
from app.dialects.responses.response import PARAMS
from app.errors import Problem, bad_request
from app.relay.http import member_names, origin_check
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import Request
from app.relay.proxy.dispatch import Dispatcher
from app.relay.proxy.plan import OPERATIONS, RequestPlan, counting, loading, plan, resolved
from app.relay.routes import ollama_models
from app.routing import as_ollama, visible
from app.table import Table
from backends.texts import encoded

OLLAMA_PREFIX = "/api/"
# Ollama's orders to the daemon. They change what is on its disk, or run what a stranger sends: no client gets them.
_ORDERS = ("create", "pull", "push", "copy", "delete", "me", "signout", "signin")

_ollama_fronts: dict[str, ClientApi] = {
    "/api/chat": ollama_request.OllamaChatApi(Kind.CHAT, time.time),
    "/api/generate": ollama_request.OllamaChatApi(Kind.GENERATE, time.time),
    "/api/embed": ollama_request.OllamaEmbedApi(time.time, is_old=False),
    "/api/embeddings": ollama_request.OllamaEmbedApi(time.time, is_old=True),
}
COUNT_PATH = "/v1/messages/count_tokens"
_anthropic_fronts: dict[str, ClientApi] = {
    "/v1/messages": AnthropicMessagesApi(counts=False),
    COUNT_PATH: AnthropicMessagesApi(counts=True),
}
FRONTS: dict[str, ClientApi] = {**_ollama_fronts, **_anthropic_fronts, "/v1/responses": ResponsesApi(time.time)}
# What the client of a dialect calls a parameter of OpenAI's that it is told of.
_OF_OLLAMA = {"max_tokens": "num_predict", "response_format": "format", "reasoning_effort": "think"}
_OF_ANTHROPIC = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "output_config.effort",
    "think": "thinking",
}
_SPELLED = {"/v1/messages": _OF_ANTHROPIC, COUNT_PATH: _OF_ANTHROPIC, "/v1/responses": PARAMS}
_POST, _GET = "POST, OPTIONS", "GET, HEAD, OPTIONS"


class ForeignApis:
    """What a relay answers in other dialects."""

    def __init__(self, dispatcher: Dispatcher, intake: BodyIntake) -> None:
        self._dispatcher = dispatcher
        self._intake = intake
        self._reads: dict[str, Callable[[Request], Awaitable[None]]] = {
            "/": self._root,
            "/api/version": self._version,
            "/api/tags": self._tags,
            "/api/ps": self._running,
        }
        self.paths = (*FRONTS, *self._reads, "/api/show")

    def greet(self, request: Request, path: str) -> bool:
        """Whether the path is one of ours; from here on the client is answered in its own dialect."""
        front = FRONTS.get(path)
        if front is not None:
            request.tongue = front.tongue(_token())
        elif path.startswith("/v1/messages/"):
            request.tongue = _anthropic_fronts["/v1/messages"].tongue("")
        elif path == "/" or path.startswith(OLLAMA_PREFIX):
            request.tongue = OllamaErrorEncoder("", time.time)
        else:
            return False
        is_ollama = not path.startswith("/v1/")
        origin_check.check(request.headers, request.table, is_ollama=is_ollama)
        origin = request.headers.get("origin")
        if is_ollama and origin is not None and origin_check.is_local_page(origin):
            request.let_read(origin)
        return True

    def methods(self, path: str) -> str | None:
        """What a path takes; None where there is nothing. Problem (501) for Ollama's orders."""
        if path in FRONTS or path == "/api/show":
            return _POST
        if path in self._reads:
            return _GET
        order = path.removeprefix(OLLAMA_PREFIX).partition("/")[0]
        if order in _ORDERS or order == "blobs":
            message = f"'{order}' is not for clients of this gateway: its models are its administrator's."
            raise Problem(501, "not_supported", message, type_="invalid_request_error")
        return None

    async def serve(self, request: Request, path: str) -> None:
        """Answer a request whose method fits."""
        if path in self._reads:
            await self._reads[path](request)
        elif path == "/api/show":
            await self._show(request)
        else:
            await self._operate(request, path)

    # -- what goes to engines

    async def _operate(self, request: Request, path: str) -> None:
        key = request.principal(time.time())
        if path in _ollama_fronts:
            request.check_encoding()  # not the type: Ollama's own examples send JSON as a form's
        else:
            request.check_type()
        body = await self._intake.read(request)
        ask, words = await self._intake.work(len(body), partial(_translated, path, body, request.table))
        request.tongue = ask.tongue
        request.drops(ask.dropped)
        make = partial(plan, OPERATIONS[ask.path], words, request.table, key, is_translated=True)
        found = await self._intake.work(len(words), partial(make, asks=ask.loads is None))
        found = counting(found) if path == COUNT_PATH else found
        await self._dispatcher.serve(request, _with(found, ask, path))

    # -- Ollama's lists

    async def _root(self, request: Request) -> None:
        if "text/html" in request.headers.get("accept", ""):
            request.answer(200, ollama_models.PAGE, "text/html; charset=utf-8", **ollama_models.PAGE_HEADERS)
        else:
            request.answer(200, b"Ollama is running", "text/plain; charset=utf-8")

    async def _version(self, request: Request) -> None:
        request.answer_json({"version": ollama_models.OLLAMA_VERSION})

    async def _tags(self, request: Request) -> None:
        key = request.principal(time.time())
        shown = visible(request.table, key)
        request.answer_json({"models": [ollama_models.entry(request.table, name) for name in shown]})

    async def _running(self, request: Request) -> None:
        key = request.principal(time.time())
        table = request.table
        running = [name for name, backend in visible(table, key).items() if ollama_models.runs(table, name, backend)]
        request.answer_json({"models": [ollama_models.running(request.table, name) for name in running]})

    async def _show(self, request: Request) -> None:
        key = request.principal(time.time())
        body = await self._intake.read(request)
        head = decoded(_shows, body)
        member_names.members(body)
        name = head.model or head.name
        if not name:
            raise bad_request("'model' is missing.", param="model", code="missing_field")
        request.tongue = OllamaErrorEncoder(name, time.time)
        found = resolved(request.table, key, as_ollama(request.table, name))
        request.answer_json(ollama_models.shown(request.table, found))


class _Show(msgspec.Struct, frozen=True):
    model: str | None = None
    name: str | None = None


_shows = msgspec.json.Decoder(_Show)


def _translated(path: str, body: bytes, table: Table) -> tuple[TranslatedRequest, bytes]:
    """What is asked, and the body in OpenAI's words."""
    ask = FRONTS[path].ask(body, _token())
    member_names.members(body)
    name = as_ollama(table, ask.model) if path in _ollama_fronts and ask.model else ask.model
    return ask, encoded({"model": name, **ask.fields} if name else ask.fields)


def _with(found: RequestPlan, ask: TranslatedRequest, path: str) -> RequestPlan:
    if ask.loads is not None:
        found = loading(found, ask.loads)
    return msgspec.structs.replace(
        found, extras=ask.extras, dropped=ask.dropped, spelled=_SPELLED.get(path, _OF_OLLAMA)
    )


def _token() -> str:
    """What ids are made of: unique, and no secret."""
    return f"{random.getrandbits(96):024x}"
