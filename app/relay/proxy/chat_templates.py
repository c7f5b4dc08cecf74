"""Which system messages the models' chat templates take: asked once for each start of an engine, and remembered."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
import structlog

from app.dialects import chat_templates
from app.dialects.chat_templates import ALL, TemplateSupport
from app.relay.http.body_intake import BodyIntake
from app.relay.planning import fold_system_messages
from app.relay.planning.plan import RequestPlan
from app.table import Backend
from backends.endpoint import Dialect, Endpoint
from backends.errors import BackendError
from backends.http.carrying import in_task
from backends.http.pool import ConnectionPool, UpstreamRequest

log = structlog.get_logger()

RETRY_S: Final = 60.0
ASK_S: Final = 10.0  # of an engine that serves; a daemon may have to load the model first, as for the request itself
# Somebody else's engine may get another template at any time.
FORGET_S: Final = 3600.0
MOST: Final = 1000
MAX_ANSWER_BYTES: Final = 256 * 1024
_Key = tuple[str, int, str]  # backend, generation, model
_UNKNOWN: Final = (None, 0.0)


class ChatTemplates:
    """Of the models of all engines that one relay sends to. `clock` in seconds."""

    def __init__(self, pool: ConnectionPool, intake: BodyIntake, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._intake = intake
        self._clock = clock
        self._known: dict[_Key, tuple[TemplateSupport | None, float]] = {}  # until when
        self._asking: dict[_Key, asyncio.Lock] = {}

    def has_to_ask(self, plan: RequestPlan, backend: Backend, endpoint: Endpoint, model: str) -> bool:
        """Whether `ask` is called for: the engine's template may not take the client's messages, and what
        it takes is not known yet."""
        shape = plan.system_messages
        if shape is None or not (shape.has_several or shape.has_late) or backend.profile.templates is None:
            return False
        return not self._is_known(_key(endpoint, model))

    def known(self, endpoint: Endpoint, model: str) -> TemplateSupport | None:
        """The system messages that the model's template takes; None where that is not known."""
        return self._remembered((endpoint.engine, endpoint.generation, model)) if self._known else None

    async def ask(self, backend: Backend, endpoint: Endpoint, model: str) -> None:
        """Have the engine show what its model's template takes, unless it is known."""
        await self._ask(backend, endpoint, model)

    async def again(
        self, error: BackendError, plan: RequestPlan, endpoint: Endpoint, model: str, tried: TemplateSupport | None
    ) -> TemplateSupport | None:
        """The template's support to fold the messages for once more after a refusal of what was folded for `tried`;
        None where something else was refused."""
        if plan.system_messages is None or not fold_system_messages.is_about_roles(error):
            return None
        sent = tried or self._remembered(_key(endpoint, model))
        fold = partial(fold_system_messages.next_support, plan.body, error, sent)
        return await self._intake.work(len(plan.body), fold)

    def remember(self, endpoint: Endpoint, model: str, takes: TemplateSupport | None) -> None:
        """From now on `known` returns this for the model, for this start of its engine."""
        key = _key(endpoint, model)
        if len(self._known) >= MOST:
            self._known.pop(next(iter(self._known)))
        self._known[key] = takes, self._clock() + (float("inf") if endpoint.is_ours else FORGET_S)
        if takes is not None and takes != ALL:
            lacks = [name for name, is_taken in takes._asdict().items() if not is_taken]
            log.info("template takes fewer system messages", backend=endpoint.engine, model=model, takes_no=lacks)

    def _remembered(self, key: _Key) -> TemplateSupport | None:
        takes, until = self._known.get(key, _UNKNOWN)
        return takes if self._clock() < until else None

    def _is_known(self, key: _Key) -> bool:
        """Whether its engine was asked: it may have had no answer to that."""
        return self._clock() < self._known.get(key, _UNKNOWN)[1]

    async def _ask(self, backend: Backend, endpoint: Endpoint, model: str) -> TemplateSupport | None:
        """What its own engine's rendering shows; None where that shows nothing, which must not fail the request."""
        key = _key(endpoint, model)
        await in_task()
        async with self._asking.setdefault(key, asyncio.Lock()):
            try:
                if self._is_known(key):  # another request has asked meanwhile
                    return self._remembered(key)
                async with asyncio.timeout(None if endpoint.dialect is Dialect.OLLAMA else ASK_S):
                    takes = await self._render(backend, endpoint, model)
            except (BackendError, TimeoutError):  # the request itself will tell why; the next ones do not wait for it
                self._known[key] = None, self._clock() + RETRY_S
                return None
            finally:
                self._asking.pop(key, None)
            self.remember(endpoint, model, takes)
            return takes

    async def _render(self, backend: Backend, endpoint: Endpoint, model: str) -> TemplateSupport | None:
        """Have the engine render short conversations, and tell from what comes back."""
        api, facts = backend.profile.templates, backend.fact(model)
        assert api is not None
        letters = "".join(string.ascii_lowercase[random.getrandbits(4)] for _ in range(12))
        asking = chat_templates.asking(letters)
        beside = msgspec.structs.replace(endpoint, address=endpoint.address.removesuffix("/v1"))
        try:
            messages = next(asking)
            while True:
                step = chat_templates.request(api, model, messages, facts)
                call = UpstreamRequest("POST", step.path, step.body, [("content-type", "application/json")])
                exchange = await self._pool.open(beside if step.is_beside else endpoint, call)
                try:
                    answer = await exchange.read(MAX_ANSWER_BYTES)
                finally:
                    exchange.close()
                is_good = exchange.status < 300
                messages = asking.send(chat_templates.rendering(api, answer) if is_good else None)
        except StopIteration as end:
            takes: TemplateSupport | None = end.value
            return takes
        finally:
            asking.close()


def _key(endpoint: Endpoint, model: str) -> _Key:
    return endpoint.engine, endpoint.generation, model
