"""The handlers of other dialects' routes: a request is translated to OpenAI's dialect, and served like any other."""

from __future__ import annotations

import random
import time
from functools import partial

import msgspec

from app.dialects.anthropic.request import AnthropicMessagesApi
from app.dialects.client_api import ClientApi, ResponseEncoder, TranslatedRequest, decoded
from app.dialects.ollama import request as ollama_request
from app.dialects.ollama.response import Kind, OllamaErrorEncoder
from app.dialects.responses.request import ResponsesApi
from app.dialects.responses.response import PARAMS
from app.errors import Problem, bad_request
from app.relay.http import member_names
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import Request
from app.relay.planning.plan import OPERATIONS, RequestPlan, counting, loading, plan
from app.relay.proxy.dispatch import Dispatcher
from app.relay.routes import anthropic_models, ollama_models
from app.routing import as_ollama, resolve_for, visible
from app.table import Table
from backends.texts import encoded

_OLLAMA_APIS: dict[str, ClientApi] = {
    "/api/chat": ollama_request.OllamaChatApi(Kind.CHAT, time.time),
    "/api/generate": ollama_request.OllamaChatApi(Kind.GENERATE, time.time),
    "/api/embed": ollama_request.OllamaEmbedApi(time.time, is_old=False),
    "/api/embeddings": ollama_request.OllamaEmbedApi(time.time, is_old=True),
}
_MESSAGES = AnthropicMessagesApi(counts=False)
COUNT_PATH = "/v1/messages/count_tokens"
CLIENT_APIS: dict[str, ClientApi] = {
    **_OLLAMA_APIS,
    "/v1/messages": _MESSAGES,
    COUNT_PATH: AnthropicMessagesApi(counts=True),
    "/v1/responses": ResponsesApi(time.time),
}
# What clients of a dialect call OpenAI's parameters, where they are told of one.
_OF_OLLAMA = {"max_tokens": "num_predict", "response_format": "format", "reasoning_effort": "think"}
_OF_ANTHROPIC = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "output_config.effort",
    "think": "thinking",
}
_SPELLED = {"/v1/messages": _OF_ANTHROPIC, COUNT_PATH: _OF_ANTHROPIC, "/v1/responses": PARAMS}


# -- how answers are encoded, until it is known what the request asks for


def translated(request: Request) -> ResponseEncoder:
    """As the API of the request's path has it."""
    return CLIENT_APIS[request.path].encoder(_token())


def ollama_errors(_request: Request) -> ResponseEncoder:
    """Refusals as Ollama writes them."""
    return OllamaErrorEncoder("", time.time)


def anthropic_errors(_request: Request) -> ResponseEncoder:
    """Refusals as Anthropic writes them."""
    return _MESSAGES.encoder("")


def anthropic_for_its_clients(request: Request) -> ResponseEncoder | None:
    """The same for Anthropic's clients, on a path that they share with OpenAI's; None for the others."""
    return _MESSAGES.encoder("") if anthropic_models.MARK in request.headers else None


class ForeignApis:
    """The handlers of the other dialects' routes."""

    def __init__(self, dispatcher: Dispatcher, intake: BodyIntake) -> None:
        self._dispatcher = dispatcher
        self._intake = intake

    async def run(self, request: Request) -> None:
        """Have an engine answer a request, translated to OpenAI's dialect."""
        path, key = request.path, request.key
        if path in _OLLAMA_APIS:
            request.check_encoding()  # not the type: Ollama's own examples send JSON as a form's
        else:
            request.check_type()
        body = await self._intake.read(request)
        translation, openai_body = await self._intake.work(len(body), partial(_translate, path, body, request.table))
        request.encoder = translation.encoder
        request.reports(dropped=translation.dropped)
        make = partial(plan, OPERATIONS[translation.path], openai_body, request.table, key, is_translated=True)
        made = await self._intake.work(len(openai_body), partial(make, asks=translation.loads is None))
        made = counting(made) if path == COUNT_PATH else made
        await self._dispatcher.serve(request, _with_dialect(made, translation, path))

    # -- Ollama's lists

    async def version(self, request: Request) -> None:
        """The version of Ollama whose API this is."""
        request.answer_json({"version": ollama_models.OLLAMA_VERSION})

    async def list_models(self, request: Request) -> None:
        """The models that the key may use."""
        table = request.table
        request.answer_json({"models": [ollama_models.entry(table, name) for name in visible(table, request.key)]})

    async def list_running(self, request: Request) -> None:
        """Those of them that are loaded."""
        table = request.table
        running = [name for name, row in visible(table, request.key).items() if ollama_models.runs(table, name, row)]
        request.answer_json({"models": [ollama_models.running(table, name) for name in running]})

    async def show_model(self, request: Request) -> None:
        """What is known of one model."""
        body = await self._intake.read(request)
        asked = decoded(_shows, body)
        member_names.members(body)
        name = asked.model or asked.name
        if not name:
            raise bad_request("'model' is missing.", param="model", code="missing_field")
        request.encoder = OllamaErrorEncoder(name, time.time)
        model = resolve_for(request.table, request.key, as_ollama(request.table, name))
        request.answer_json(ollama_models.show_response(request.table, model))

    async def refuse_order(self, request: Request) -> None:
        """Problem (501) for what would change the daemon's models."""
        order = request.path.split("/")[2]
        message = f"'{order}' is not for clients of this gateway: its models are its administrator's."
        raise Problem(501, "not_supported", message, type_="invalid_request_error")


class _Show(msgspec.Struct, frozen=True):
    model: str | None = None
    name: str | None = None


_shows = msgspec.json.Decoder(_Show)


def _translate(path: str, body: bytes, table: Table) -> tuple[TranslatedRequest, bytes]:
    """What is asked, and the body in OpenAI's dialect."""
    translation = CLIENT_APIS[path].translate(body, _token())
    member_names.members(body)
    name = as_ollama(table, translation.model) if path in _OLLAMA_APIS and translation.model else translation.model
    return translation, encoded({"model": name, **translation.fields} if name else translation.fields)


def _with_dialect(made: RequestPlan, translation: TranslatedRequest, path: str) -> RequestPlan:
    if translation.loads is not None:
        made = loading(made, translation.loads)
    return msgspec.structs.replace(
        made, extras=translation.extras, dropped=translation.dropped, spelled=_SPELLED.get(path, _OF_OLLAMA)
    )


def _token() -> str:
    """What ids are made of: unique, and no secret."""
    return f"{random.getrandbits(96):024x}"
