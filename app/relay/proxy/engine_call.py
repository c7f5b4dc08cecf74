"""What one engine is told for a request, and how its answer is understood, in whichever dialect it speaks."""

from __future__ import annotations

import random
import time

import msgspec

from app.dialects.tasks import tasks
from app.relay.proxy.plan import RequestPlan
from app.relay.proxy.reasoning_fields import with_both_names
from app.table import Backend
from backends.endpoint import Dialect, Endpoint, ModelFacts
from backends.engine_profile import EngineProfile
from backends.errors import BackendError
from backends.http.exchange import EngineResponse, Exchange
from backends.ollama import failures as ollama_failures
from backends.ollama.exchange import OllamaExchange
from backends.ollama.request import OllamaRequest, translate
from backends.ollama.response import ResponseHead


class EngineCall:
    """OpenAI's: path and body as the client's, and the answer as it comes.

    `dropped`: the client's parameters that the engine is not told.
    """

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        self.body = body
        self.dropped: tuple[str, ...] = ()
        self.doing = "working"  # what a stream's comments say while nothing comes

    def answer(self, exchange: Exchange, max_event_bytes: int) -> EngineResponse:
        """The good answer as OpenAI's."""
        return exchange

    def refusal(self, exchange: Exchange, body: bytes, load_s: float | None) -> BackendError | None:
        """The error for an answer that is not good, where the dialect has words of its own for it."""
        return None


class OllamaCall(EngineCall):
    """The daemon's own API."""

    def __init__(self, asked: OllamaRequest, facts: ModelFacts | None) -> None:
        super().__init__(asked.path, asked.body)
        self.doing = "loading" if facts is not None and not facts.is_loaded else self.doing
        self.dropped = tuple(asked.dropped)
        self._asked = asked

    def answer(self, exchange: Exchange, max_event_bytes: int) -> EngineResponse:
        """Translated as it comes."""
        prefix = "chatcmpl" if self._asked.operation == "chat" else "cmpl"
        name = f"{prefix}-{random.getrandbits(128):032x}"
        head = ResponseHead(exchange.endpoint.engine, self._asked, name, int(time.time()))
        return OllamaExchange(exchange, head, max_event_bytes)

    def refusal(self, exchange: Exchange, body: bytes, load_s: float | None) -> BackendError | None:
        """By the daemon's words."""
        engine = exchange.endpoint.engine
        return ollama_failures.refusal(engine, exchange.status, body, self._asked.num_ctx, load_s)


class TaskCall(EngineCall):
    """What engines do besides writing; `path` and `body` are empty where app/dialects/tasks/tasks.py has the words."""

    def __init__(self, plan: RequestPlan, profile: EngineProfile, body: bytes = b"") -> None:
        super().__init__(plan.operation.path, body)
        self._operation, self._profile, self._name = plan.operation.name, profile, plan.name

    def refusal(self, exchange: Exchange, body: bytes, load_s: float | None) -> BackendError | None:
        """An engine that has no such route."""
        engine = exchange.endpoint.engine
        return tasks.refused(engine, self._operation, self._profile, self._name, exchange.status, body)


def translated(plan: RequestPlan, model: str, backend: Backend, endpoint: Endpoint, body: bytes) -> EngineCall:
    """What `body`, a request in OpenAI's words for the engine's `model`, is to this engine. BackendError when it cannot
    be said.
    """
    if plan.form is not None:
        if endpoint.dialect is not Dialect.OPENAI:
            raise tasks.unsupported(backend.name, plan.operation.name, backend.profile, plan.name)
        return TaskCall(plan, backend.profile, body)
    if endpoint.dialect is Dialect.OPENAI:
        return EngineCall(plan.operation.path, with_both_names(body) if plan.operation.name == "chat" else body)
    facts = backend.fact(model)
    operation = plan.operation.name
    asked = translate(operation, body, engine=backend.name, name=plan.name, model=model, facts=facts)
    return OllamaCall(asked, facts)


def loading(model: str, backend: Backend) -> EngineCall:
    """What a daemon is told so that it has its `model` in memory, as every request for it will want it."""
    facts = backend.fact(model) or ModelFacts()
    told: dict[str, object] = {"model": model, "stream": False, "shift": facts.shift}
    if facts.num_ctx is not None:
        told["options"] = {"num_ctx": facts.num_ctx}
    if facts.keep_alive_s is not None:
        told["keep_alive"] = facts.keep_alive_s
    return OllamaCall(
        OllamaRequest("chat", "/api/chat", msgspec.json.encode(told), model, num_ctx=facts.num_ctx), facts
    )
