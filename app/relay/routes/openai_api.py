"""The handlers of OpenAI's routes, and of vLLM's beside them."""

from __future__ import annotations

import random
from urllib.parse import parse_qsl, unquote

import msgspec

from app.relay.http import json_body, multipart
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import Request
from app.relay.planning.plan import FORMS, OPERATIONS, TOKENIZER_INFO, RequestPlan, plan, plan_form, rendering
from app.relay.proxy.dispatch import Dispatcher
from app.relay.routes import anthropic_models
from app.relay.routes.openai_models import entry
from app.routing import resolve_for, unknown_model, visible
from app.table import Table

MODEL_PREFIX = "/v1/models/"


def _of_one_model(request: Request) -> Table:
    """The table for a route that vLLM has for the one model that it serves: without a name it is the only one that the
    key may use. The default model is not: a client that asks for the tokens of another one could not tell them apart.
    """
    names = visible(request.table, request.key)
    return msgspec.structs.replace(request.table, default_model=next(iter(names)) if len(names) == 1 else None)


def _as_named(made: RequestPlan, request: Request) -> RequestPlan:
    """The plan itself. Problem (404) for a name that leads to another model: its tokens would look right."""
    table, name = request.table, made.name
    if made.resolved.name not in (name, table.aliases.get(name)):
        raise unknown_model(table, request.key, name)
    return made


class OpenAIApi:
    """Requests that engines answer, and the list of models."""

    def __init__(self, dispatcher: Dispatcher, intake: BodyIntake) -> None:
        self._dispatcher = dispatcher
        self._intake = intake

    async def run(self, request: Request) -> None:
        """Have an engine answer a JSON body."""
        operation, key = OPERATIONS[request.path], request.key
        request.check_type()
        most = json_body.MAX_TOKENS if operation.takes_tokens else json_body.MAX_ITEMS
        small = self._intake.read_now(request, most)
        if small is not None:
            made = plan(operation, small, request.table, key)
        else:
            body = await self._intake.read(request, most)
            made = await self._intake.work(len(body), lambda: plan(operation, body, request.table, key))
        await self._dispatcher.serve(request, made)

    async def run_at_root(self, request: Request) -> None:
        """The same at the root, where vLLM has it."""
        operation, key, table = OPERATIONS[f"/v1{request.path}"], request.key, _of_one_model(request)
        request.check_type()
        body = await self._intake.read(request, json_body.MAX_TOKENS if operation.takes_tokens else json_body.MAX_ITEMS)
        made = await self._intake.work(len(body), lambda: plan(operation, body, table, key))
        await self._dispatcher.serve(request, _as_named(made, request))

    async def tokenizer_info(self, request: Request) -> None:
        """What the tokenizer of a model is, whose name is in the query."""
        name = dict(parse_qsl(request.query)).get("model")
        body = msgspec.json.encode({"model": name} if name else {})
        made = plan(TOKENIZER_INFO, body, _of_one_model(request), request.key)
        await self._dispatcher.serve(request, _as_named(made, request))

    async def render(self, request: Request) -> None:
        """The prompt that an engine would make of a chat."""
        key = request.key
        request.check_type()
        body = await self._intake.read(request)
        chat = OPERATIONS["/v1/chat/completions"]
        made = await self._intake.work(len(body), lambda: plan(chat, body, request.table, key))
        await self._dispatcher.serve(request, rendering(made))

    async def run_form(self, request: Request) -> None:
        """Have an engine answer a form with a file in it."""
        operation, key = FORMS[request.path], request.key
        request.check_encoding()
        boundary = multipart.boundary_of(request.headers.get("content-type", ""))
        body = await request.body(hold=lambda size: self._intake.admit(request, size))
        form = await self._intake.work(len(body), lambda: multipart.read(body, boundary))
        fresh = f"{random.getrandbits(128):032x}"
        await self._dispatcher.serve(request, plan_form(operation, form, fresh, request.table, key))

    async def list_models(self, request: Request) -> None:
        """The models that the key may use; for Anthropic's clients page by page."""
        table = request.table
        entries = [entry(table, name, backend) for name, backend in visible(table, request.key).items()]
        is_anthropic = anthropic_models.MARK in request.headers
        request.answer_json(
            anthropic_models.page(entries, request.query) if is_anthropic else {"object": "list", "data": entries}
        )

    async def show_model(self, request: Request) -> None:
        """One of them. Problem (404) for a name that only leads to the default model: that is not in the list."""
        table, name = request.table, unquote(request.path.removeprefix(MODEL_PREFIX))
        model = resolve_for(table, request.key, name)
        if model.name not in (name, table.aliases.get(name)):
            raise unknown_model(table, request.key, name)
        shown = entry(table, model.name, model.model.targets[0].backend)
        request.answer_json(anthropic_models.as_anthropic(shown) if anthropic_models.MARK in request.headers else shown)
