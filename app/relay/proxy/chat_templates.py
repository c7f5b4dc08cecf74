"""What the models' chat templates take of system messages: asked once for each start of an engine, and remembered."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import msgspec
import structlog

from app.dialects import chat_templates
from app.dialects.chat_templates import ALL, TemplateSupport
from app.dialects.parameters import adjust
from app.dialects.parameters.adjust import ParameterChanges
from app.relay.http.body_intake import BodyIntake
from app.relay.proxy import fold_system_messages
from app.relay.proxy.plan import COUNT, RequestPlan
from app.table import Backend
from backends.endpoint import Dialect, Endpoint, ModelFacts
from backends.engine_profile import TemplateApi
from backends.errors import BackendError
from backends.http.pool import ConnectionPool, UpstreamRequest

log = structlog.get_logger()

RETRY_S: Final = 60.0
ASK_S: Final = 10.0  # of an engine that serves; a daemon may have to load the model first, as for the request itself
# Somebody else's engine may get another template at any time.
FORGET_S: Final = 3600.0
MOST: Final = 1000
MAX_ANSWER_BYTES: Final = 256 * 1024
_Key = tuple[str, int, str]
Told = TypeVar("Told")
More = TypeVarTuple("More")


class ChatTemplates:
    """Of the engines that one relay sends to."""

    def __init__(
        self, upstream: ConnectionPool, intake: BodyIntake, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._upstream = upstream
        self._intake = intake
        self._clock = clock
        self._known: dict[_Key, tuple[TemplateSupport | None, float]] = {}  # until when
        self._asking: dict[_Key, asyncio.Lock] = {}

    async def changes(
        self,
        plan: RequestPlan,
        changes: ParameterChanges,
        backend: Backend,
        endpoint: Endpoint,
        model: str,
        form: TemplateSupport | None,
    ) -> ParameterChanges:
        """With the messages that the model's template takes, where the client's are others. `form`: tried after a
        refusal, instead of what is known."""
        if (plan.operation.name != "chat" and plan.operation is not COUNT) or plan.form is not None:
            return changes
        rules = plan.resolved.model.rules
        if rules.normalize == "strict":
            return changes
        found = await self._work(plan, fold_system_messages.shape)
        if found is None:
            return changes
        takes = form
        if takes is None and not found.is_usual and (found.has_several or found.has_late):
            takes = await self._takes(backend, endpoint, model)
        if takes is None:
            takes = self._remembered(_key(endpoint, model))
        if takes is None and found.has_developer and adjust.is_lenient(rules, backend.profile):
            takes = ALL
        if takes is None or (found.is_usual and takes.first):
            return changes
        messages = await self._work(plan, fold_system_messages.fold, takes)
        if messages is None:
            return changes
        return changes._replace(members={**changes.members, "messages": messages}, names=(*changes.names, "messages"))

    async def again(
        self, error: BackendError, plan: RequestPlan, endpoint: Endpoint, model: str, form: TemplateSupport | None
    ) -> TemplateSupport | None:
        """The form to ask in once more after a refusal; None where it is of something else."""
        if plan.operation.name != "chat" or plan.form is not None or plan.resolved.model.rules.normalize == "strict":
            return None
        if not fold_system_messages.is_about_roles(error) or await self._work(plan, fold_system_messages.shape) is None:
            return None
        sent = form or self._remembered(_key(endpoint, model))
        return await self._work(plan, fold_system_messages.next_form, error, sent)

    def remember(self, endpoint: Endpoint, model: str, takes: TemplateSupport | None) -> None:
        """From now on."""
        key = _key(endpoint, model)
        if len(self._known) >= MOST:
            self._known.pop(next(iter(self._known)))
        self._known[key] = takes, self._clock() + (float("inf") if endpoint.is_ours else FORGET_S)
        if takes is not None and takes != ALL:
            told = {name: value for name, value in takes._asdict().items() if not value}
            log.info("template takes fewer system messages", backend=endpoint.engine, model=model, takes_no=list(told))

    async def _work(self, plan: RequestPlan, what: Callable[[bytes, *More], Told], *more: *More) -> Told:
        """With the client's body, in a thread where that is large."""
        return await self._intake.work(len(plan.body), lambda: what(plan.body, *more))

    def _remembered(self, key: _Key) -> TemplateSupport | None:
        takes, until = self._known.get(key, (None, 0.0))
        return takes if self._clock() < until else None

    async def _takes(self, backend: Backend, endpoint: Endpoint, model: str) -> TemplateSupport | None:
        """As its own engine renders; None where it cannot be asked: that must not fail the request."""
        key = _key(endpoint, model)
        api = backend.profile.templates
        if api is None:
            return None
        async with self._asking.setdefault(key, asyncio.Lock()):
            try:
                if self._clock() < self._known.get(key, (None, 0.0))[1]:
                    return self._known[key][0]
                async with asyncio.timeout(None if endpoint.dialect is Dialect.OLLAMA else ASK_S):
                    takes = await self._ask(api, backend.fact(model), endpoint, model)
            except (BackendError, TimeoutError):  # the request itself will tell why; the next ones do not wait for it
                self._known[key] = None, self._clock() + RETRY_S
                return None
            finally:
                self._asking.pop(key, None)
            self.remember(endpoint, model, takes)
            return takes

    async def _ask(
        self, api: TemplateApi, facts: ModelFacts | None, endpoint: Endpoint, model: str
    ) -> TemplateSupport | None:
        letters = "".join(string.ascii_lowercase[random.getrandbits(4)] for _ in range(12))
        asking = chat_templates.asking(letters)
        beside = msgspec.structs.replace(endpoint, address=endpoint.address.removesuffix("/v1"))
        try:
            messages = next(asking)
            while True:
                step = chat_templates.request(api, model, messages, facts)
                call = UpstreamRequest("POST", step.path, step.body, [("content-type", "application/json")])
                exchange = await self._upstream.open(beside if step.is_beside else endpoint, call)
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
