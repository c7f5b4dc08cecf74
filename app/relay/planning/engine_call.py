"""A request in the dialect that one engine speaks, and how its response is read."""

from __future__ import annotations

import random
import time

import msgspec

from app.dialects.openai.normalize import ResponseContext
from app.dialects.parameters import adjust
from app.dialects.tasks import render, tasks
from app.dialects.tasks.llama_cpp import Steps
from app.relay.planning.plan import RENDER, RequestPlan
from app.relay.planning.reasoning_fields import with_both_names
from app.table import Backend
from backends.endpoint import Dialect, Endpoint, ModelFacts, UsageMode
from backends.engine_profile import EngineProfile
from backends.errors import BackendError
from backends.http.exchange import EngineResponse, Exchange
from backends.ollama import failures as ollama_failures
from backends.ollama.exchange import OllamaExchange
from backends.ollama.request import OllamaRequest, translate
from backends.ollama.response import ResponseHead


class EngineCall(msgspec.Struct, frozen=True):
    """A request in OpenAI's words, and its response as it comes.

    `dropped`: the client's parameters that the engine is not told. `doing`: what the engine does while nothing comes,
    as a stream's comments say it.
    """

    path: str
    body: bytes
    dropped: tuple[str, ...] = ()
    doing: str = "working"

    def answer(self, exchange: Exchange, max_event_bytes: int) -> EngineResponse:
        """A good response, in OpenAI's words."""
        return exchange

    def refusal(self, exchange: Exchange, body: bytes, load_s: float | None) -> BackendError | None:
        """The error for a response that is not good; None where that is read as for every engine. `load_s`: the seconds
        that the model took to load the last time."""
        return None


class OllamaCall(EngineCall, frozen=True, kw_only=True):
    """A request in the words of the daemon's own API."""

    request: OllamaRequest

    def answer(self, exchange: Exchange, max_event_bytes: int) -> EngineResponse:
        """Translated as it comes: a stream into deltas, a whole response into OpenAI's format."""
        prefix = "chatcmpl" if self.request.operation == "chat" else "cmpl"
        name = f"{prefix}-{random.getrandbits(128):032x}"
        head = ResponseHead(exchange.endpoint.engine, self.request, name, int(time.time()))
        return OllamaExchange(exchange, head, max_event_bytes)

    def refusal(self, exchange: Exchange, body: bytes, load_s: float | None) -> BackendError | None:
        """By the daemon's words."""
        engine = exchange.endpoint.engine
        return ollama_failures.refusal(engine, exchange.status, body, self.request.num_ctx, load_s)


class TaskCall(EngineCall, frozen=True, kw_only=True):
    """What engines do besides writing. `path` and `body` are of no use where app/dialects/tasks/tasks.py says what is
    sent."""

    operation: str
    profile: EngineProfile
    name: str

    def refusal(self, exchange: Exchange, body: bytes, load_s: float | None) -> BackendError | None:
        """That of an engine that has no such route."""
        engine = exchange.endpoint.engine
        return tasks.refused(engine, self.operation, self.profile, self.name, exchange.status, body)


def translated(plan: RequestPlan, model: str, backend: Backend, endpoint: Endpoint, body: bytes) -> EngineCall:
    """The call for `body`, a request in OpenAI's words for the engine's `model`; raises BackendError where the engine's
    dialect has no words for it."""
    if plan.form is not None:
        if endpoint.dialect is not Dialect.OPENAI:
            raise tasks.unsupported(backend.name, plan.operation.name, backend.profile, plan.name)
        return task_call(plan, backend.profile, body)
    if endpoint.dialect is Dialect.OPENAI:
        return EngineCall(plan.operation.path, with_both_names(body) if plan.may_have_reasoning else body)
    facts = backend.fact(model)
    request = translate(plan.operation.name, body, engine=backend.name, name=plan.name, model=model, facts=facts)
    return _ollama_call(request, facts)


def task_call(plan: RequestPlan, profile: EngineProfile, body: bytes = b"") -> TaskCall:
    """The call for what such an engine does besides writing."""
    return TaskCall(plan.operation.path, body, operation=plan.operation.name, profile=profile, name=plan.name)


def about_prompt(plan: RequestPlan, model: str, backend: Backend, endpoint: Endpoint, body: bytes) -> Steps:
    """How the engine is asked for what `plan` wants to know of the prompt that it makes of `body`, a chat in OpenAI's
    words; raises BackendError where it cannot be asked."""
    if plan.operation is not RENDER:
        return tasks.count(body, backend.profile, backend.name)
    if endpoint.dialect is Dialect.OPENAI:
        return render.rendered(
            with_both_names(body) if plan.may_have_reasoning else body, backend.profile, backend.name
        )
    chat = translate("chat", body, engine=backend.name, name=plan.name, model=model, facts=backend.fact(model))
    return render.rendered_by_daemon(chat.path, chat.body, backend.name)


def loading(model: str, backend: Backend) -> EngineCall:
    """The call that has a daemon load its `model` as every request for it will want it."""
    facts = backend.fact(model) or ModelFacts()
    fields: dict[str, object] = {"model": model, "stream": False, "shift": facts.shift}
    if facts.num_ctx is not None:
        fields["options"] = {"num_ctx": facts.num_ctx}
    if facts.keep_alive_s is not None:
        fields["keep_alive"] = facts.keep_alive_s
    body = msgspec.json.encode(fields)
    return _ollama_call(OllamaRequest("chat", "/api/chat", body, model, num_ctx=facts.num_ctx), facts)


def _ollama_call(request: OllamaRequest, facts: ModelFacts | None) -> OllamaCall:
    doing = "loading" if facts is not None and not facts.is_loaded else "working"
    return OllamaCall(request.path, request.body, tuple(request.dropped), doing, request=request)


def response_context(plan: RequestPlan, endpoint: Endpoint) -> ResponseContext:
    """What a response is read with."""
    token, now = f"{random.getrandbits(128):032x}", int(time.time())
    context = ResponseContext(
        endpoint.engine, plan.name, plan.operation.name, token, now, plan.resolved.model.reasoning
    )
    if plan.choices > 1 and endpoint.usage is UsageMode.TIMINGS:
        context = msgspec.structs.replace(context, reports=plan.choices, copies=adjust.choices(plan.parameters))
    return context
