"""What one model request asks for, whichever engine gets it. Pure and synchronous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.dialects import json_members
from app.dialects.parameters import adjust, judge
from app.dialects.parameters.case import Given
from app.dialects.tasks import requests as tasks_requests
from app.dialects.tasks.requests import Task
from app.dialects.validation import constraint_cost, media, openai_request
from app.dialects.validation.messages import NOTHING
from app.errors import Problem, bad_request
from app.relay.http import json_body
from app.relay.http import member_names as names
from app.relay.http.json_body import RequestHead
from app.relay.http.multipart import Form
from app.relay.planning import fold_system_messages, reasoning_fields
from app.relay.planning.fold_system_messages import TemplateShape
from app.routing import Resolved, resolve_for
from app.table import Key, Table, Target


class Operation(msgspec.Struct, frozen=True):
    """A model route: its path below `/v1`, its name in metrics, and the field it cannot do without.

    `is_task`: app/dialects/tasks/tasks.py says what is asked and how. `takes_tokens`: a field may be a list of tokens.
    `is_of_prompt`: the engine is asked about the prompt that it makes of a chat, and generates nothing.
    """

    path: str
    name: str
    needs: str
    is_task: bool = False
    takes_tokens: bool = False
    is_of_prompt: bool = False


OPERATIONS = {
    "/v1/chat/completions": Operation("/chat/completions", "chat", "messages"),
    "/v1/completions": Operation("/completions", "text_completion", "prompt", takes_tokens=True),
    "/v1/embeddings": Operation("/embeddings", "embeddings", "input", takes_tokens=True),
    "/v1/rerank": Operation("/rerank", "rerank", "query", is_task=True),
    "/v1/score": Operation("/score", "score", "", is_task=True),
    "/v1/tokenize": Operation("/tokenize", "tokenize", "", is_task=True),
    "/v1/score/evaluation": Operation("/score/evaluation", "evaluation", "messages", is_task=True),
    "/v1/detokenize": Operation("/detokenize", "detokenize", "tokens", is_task=True),
}
# About the tokenizer of a model; it has no body.
TOKENIZER_INFO = Operation("/tokenizer_info", "tokenizer_info", "", is_task=True)
# What comes as a form, with a file in it.
FORMS = {"/v1/audio/transcriptions": Operation("/audio/transcriptions", "transcription", "file")}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
LOAD = Operation("", "load", "")
COUNT = Operation("", "count_tokens", "messages", is_of_prompt=True)
RENDER = Operation("", "render", "messages", is_of_prompt=True)
# What engines stream.
WRITING = frozenset({"chat", "text_completion"})


class RequestPlan(msgspec.Struct, frozen=True):
    """One request, understood. `name` is the client's own name for the model; responses carry it.

    `work_bytes`: how much an engine's request is made of, which says whether that is done in a thread.
    """

    operation: Operation
    name: str
    resolved: Resolved
    is_stream: bool
    wants_usage: bool
    body: bytes
    work_bytes: int
    key: Key | None = None  # which asks
    choices: int = 1  # how many answers: OpenAI's `n`, for each prompt
    extras: Mapping[str, Any] = {}  # parameters that OpenAI does not have (app/dialects/engine_options.py)
    dropped: tuple[str, ...] = ()  # the client's parameters that no engine is told
    spelled: Mapping[str, str] = {}  # what a client of another dialect calls OpenAI's parameters
    loads: bytes | None = None  # where only the model is to be made ready: the response when it is
    parameters: RequestHead = RequestHead()
    given: Given = {}  # of the parameters that not every engine knows
    task: Task | None = None
    form: Form | None = None  # in place of `body`
    boundary: str = ""  # of the form, as engines get it
    system_messages: TemplateShape | None = None  # None: there are none, or they are sent as they are
    is_checked: bool = False  # its shape is what engines of this machine take
    is_translated: bool = False  # from another dialect
    may_have_urls: bool = False  # of media, so that they have to be looked for
    may_have_reasoning: bool = False  # of earlier turns
    may_have_constraints: bool = False  # a schema or a grammar that the answer has to keep to


def loading(plan: RequestPlan, answer: bytes) -> RequestPlan:
    """The plan of a request that only wants its model ready."""
    operation = msgspec.structs.replace(LOAD, needs=plan.operation.needs)
    return msgspec.structs.replace(plan, operation=operation, is_stream=False, loads=answer)


def counting(plan: RequestPlan) -> RequestPlan:
    """The plan of a request that only wants to know how long it is."""
    return msgspec.structs.replace(plan, operation=COUNT, is_stream=False)


def rendering(plan: RequestPlan) -> RequestPlan:
    """The plan of a request that only wants to see the prompt that its engine would make of it."""
    return msgspec.structs.replace(plan, operation=RENDER, is_stream=False)


def plan(
    operation: Operation,
    body: bytes,
    table: Table,
    key: Key | None,
    *,
    is_translated: bool = False,
    asks: bool = True,
) -> RequestPlan:
    """What a checked body asks for; Problem for what cannot be, with the field's name and never its content. `asks`
    False: only that the model be ready."""
    head, members = json_body.opened(body)
    if operation.needs and bytes(memoryview(members.get(operation.needs, NOTHING))[:1]) == b"n":
        raise _missing(operation.needs)
    name = head.model or table.default_model
    if name is None:
        raise _missing("model")
    resolved = resolve_for(table, key, name)
    rules = resolved.model.rules
    choices = 1
    if not adjust.CHECKED.isdisjoint(members):
        adjust.check(head, rules, table.limits.max_choices)
        choices = adjust.choices(head)
    is_local = _has_local(table, resolved.model.targets)
    if is_local and asks:
        openai_request.check(operation.name, body, members, is_translated=is_translated)
    if not head.model:
        body = json_members.edit(body, {"model": msgspec.json.encode(name)})
    may_fold = operation.name == "chat" and rules.normalize != "strict"
    return RequestPlan(
        operation=operation,
        name=name,
        resolved=resolved,
        is_stream=bool(head.stream) and operation.name in WRITING,
        wants_usage=bool(head.stream_options and head.stream_options.include_usage),
        body=body,
        work_bytes=len(body),
        key=key,
        choices=choices * head.prompts if "prompt" in members else choices,
        parameters=head,
        given={} if operation.is_task or judge.WATCHED.isdisjoint(members) else judge.given(members),
        task=tasks_requests.read(operation.name, body, is_local=is_local) if operation.is_task else None,
        system_messages=fold_system_messages.shape(body) if may_fold else None,
        is_checked=is_local or not asks,
        is_translated=is_translated,
        may_have_urls=media.may_have(body),
        may_have_reasoning=operation.name == "chat" and reasoning_fields.MARK in body,
        may_have_constraints=not constraint_cost.PARAMETERS.isdisjoint(members),
    )


def _has_local(table: Table, targets: Sequence[Target]) -> bool:
    """Whether an engine of this machine may get it."""
    for target in targets:
        row = table.backends.get(target.backend)
        if row is not None and row.profile.is_local:
            return True
    return False


def plan_form(operation: Operation, form: Form, boundary: str, table: Table, key: Key | None) -> RequestPlan:
    """What a form asks for; Problem for what cannot be."""
    names.check((part.name for part in form.parts), names.KNOWN)
    if form.text(operation.needs) is None:
        raise _missing(operation.needs)
    is_stream = _TRUTH.get((form.text("stream") or "false").lower())
    if is_stream is None:
        raise bad_request("'stream' must be true or false.", param="stream", code="invalid_type")
    name = form.text("model") or table.default_model
    if name is None:
        raise _missing("model")
    return RequestPlan(
        operation=operation,
        name=name,
        resolved=resolve_for(table, key, name),
        is_stream=is_stream,
        wants_usage=False,
        body=b"",
        work_bytes=form.size,
        key=key,
        form=form,
        boundary=boundary,
    )


def _missing(field: str) -> Problem:
    return bad_request(f"'{field}' is missing.", param=field, code="missing_field")
