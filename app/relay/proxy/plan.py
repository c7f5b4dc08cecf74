"""What one model request asks for and what each engine is sent for it. Pure and synchronous."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from app.dialects import engine_options as extras
from app.dialects import json_members
from app.dialects.parameters import adjust, answer_limit, judge
from app.dialects.parameters.adjust import UNCHANGED, ParameterChanges, RequestParameters, TargetEngine
from app.dialects.parameters.answer_limit import Fit
from app.dialects.parameters.case import Given, RequestCase
from app.dialects.tasks import requests as tasks_requests
from app.dialects.tasks.requests import Task
from app.dialects.validation import constraint_cost, media, openai_request, prompt_length
from app.dialects.validation.messages import NOTHING
from app.errors import JSON, Problem, bad_request
from app.relay.http import json_body
from app.relay.http import member_names as names
from app.relay.http.multipart import Form
from app.routing import Resolved, may_use, nearest, resolve
from app.table import Backend, Key, Table
from backends.endpoint import FAILED, Endpoint, UsageMode
from backends.engine_profile import UNKNOWN, EngineProfile
from backends.errors import BackendError, Rejected, Unsupported
from backends.prompt_too_long import TooLong

MAX_NAME_CHARS = 256


class Operation(msgspec.Struct, frozen=True):
    """A model route: its path below `/v1`, its name in metrics, and the field it cannot do without.

    `is_task`: app/dialects/tasks/tasks.py says what is asked and how. `takes_tokens`: a field may be a list of tokens.
    """

    path: str
    name: str
    needs: str
    is_task: bool = False
    takes_tokens: bool = False


OPERATIONS = {
    "/v1/chat/completions": Operation("/chat/completions", "chat", "messages"),
    "/v1/completions": Operation("/completions", "text_completion", "prompt", takes_tokens=True),
    "/v1/embeddings": Operation("/embeddings", "embeddings", "input", takes_tokens=True),
    "/v1/rerank": Operation("/rerank", "rerank", "query", is_task=True),
    "/v1/score": Operation("/score", "score", "", is_task=True),
    "/v1/tokenize": Operation("/tokenize", "tokenize", "", is_task=True),
    "/v1/detokenize": Operation("/detokenize", "detokenize", "tokens", is_task=True),
}
# What comes as a form, with a file in it.
FORMS = {"/v1/audio/transcriptions": Operation("/audio/transcriptions", "transcription", "file")}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
LOAD = Operation("", "load", "")
COUNT = Operation("", "count_tokens", "messages")
# What engines stream.
WRITING = frozenset({"chat", "text_completion"})


class RequestPlan(msgspec.Struct, frozen=True):
    """One request, understood. `name` is the client's own name for the model; answers carry it."""

    operation: Operation
    name: str
    resolved: Resolved
    is_stream: bool
    wants_usage: bool
    body: bytes
    key: Key | None = None  # which asks
    choices: int = 1  # OpenAI's `n`
    extras: Mapping[str, Any] = {}  # parameters that OpenAI does not have (app/dialects/engine_options.py)
    dropped: tuple[str, ...] = ()  # the client's parameters that no engine is told
    spelled: Mapping[str, str] = {}  # what a client of another dialect calls OpenAI's parameters
    loads: bytes | None = None  # only that the model be ready is asked; the answer when it is
    asked: RequestParameters = RequestParameters()
    given: Given = {}  # of the parameters that not every engine knows
    task: Task | None = None
    form: Form | None = None  # in place of `body`
    boundary: str = ""  # of the form, as engines get it
    is_checked: bool = False  # that its shape is what engines of this machine take
    is_translated: bool = False  # from another dialect

    @property
    def work_bytes(self) -> int:
        """How much an engine's request is made of: a form's file counts too."""
        return len(self.body) if self.form is None else self.form.size

    @property
    def content_type(self) -> str:
        """What an engine is sent."""
        return JSON if self.form is None else f"multipart/form-data; boundary={self.boundary}"

    def called(self, names: Iterable[str]) -> list[str]:
        """OpenAI's names as the client has them."""
        return [self.spelled.get(name, name) for name in names]

    def check_shape(self, backend: Backend) -> None:
        """Rejected for what an engine of this machine is not sent; a fallback may be one where the others are not."""
        if self.is_checked or not backend.profile.is_local or self.form is not None:
            return
        try:
            _, members = json_body.opened(self.body)
            openai_request.check(self.operation.name, self.body, members, is_translated=self.is_translated)
        except Problem as exc:
            raise Rejected(
                backend.name, exc.message, status=400, type_=exc.type, code=exc.code, param=exc.param
            ) from exc

    def check_media(self, backend: Backend) -> None:
        """Unsupported for what this engine would have to fetch, and must not."""
        if not media.may_have(self.body):
            return
        place = media.refused(self.body, {*self.resolved.model.rules.media_domains, *backend.media_domains})
        if place is not None:
            message = f"'{place}' is not fetched: send the content itself as a data: URL, or have its host allowed."
            raise Unsupported(backend.name, message, param=place)

    def check_ability(self, backend: Backend, model: str) -> None:
        """Unsupported for vectors of a model that writes, and the reverse, where an engine says which it is. An Ollama
        daemon's models are looked at where its requests are made.
        """
        if backend.profile.is_daemon or (self.operation.name != "embeddings" and self.operation.name not in WRITING):
            return
        facts = backend.fact(model)
        can = {name for name, said in facts.capabilities.items() if said != FAILED} if facts is not None else set()
        writes, embeds = bool(can & {"chat", "completion"}), "embedding" in can
        if self.operation.name == "embeddings" and writes and not embeds:
            message = "The model behind this name writes text and makes no embeddings: use one that is made for them"
            raise Unsupported(backend.name, f"{message} (`task: embed` of its backend).", param="model")
        if self.operation.name in WRITING and embeds and not writes:
            message = "The model behind this name makes embeddings and writes no text: use one that does"
            raise Unsupported(backend.name, f"{message}.", param="model")

    def changes(self, backend: Backend, model: str, fit: Fit | None = None) -> ParameterChanges:
        """What of the parameters this engine is sent otherwise; Unsupported for what it cannot be asked.

        `fit`: it has refused the bound on the answer.
        """
        profile = backend.profile
        engine = TargetEngine(self.operation.name, profile, backend.fact(model))
        if adjust.ignores_tools(self.asked, engine):
            message = "This model's chat template has no place for tools, so none can be required."
            raise Unsupported(backend.name, message, param="tool_choice")
        if self.form is not None:
            return ParameterChanges({}, dropped=self.form.unheeded(profile))
        if profile.checks_prompt:
            prompt_length.check(engine.operation, self.body, backend.name, engine.facts)
        constraint_cost.check(self.asked, self.extras, backend.name, profile)
        rules = self.resolved.model.rules
        found = adjust.changes(self.asked, self.body, rules, engine, fit)
        case = RequestCase(backend.name, profile, engine.operation, self.given, kwargs=rules.template_kwargs)
        return found.judged(case) if self.given else found

    def fitting(self, error: BackendError, profile: EngineProfile) -> Fit | None:
        """What such an engine may be asked once more for, where it refused the answer's bound as more than
        fits: nothing was generated. None where it refused something else."""
        rules = self.resolved.model.rules
        if not (isinstance(error, Rejected) and error.status in (400, 422) and adjust.is_lenient(rules, profile)):
            return None
        if isinstance(error, TooLong) and error.length.is_of_prompt:
            return None
        bound = adjust.bound(self.asked, rules)
        return None if bound is None else answer_limit.fit(error.message, bound)

    def edited(
        self,
        model: str,
        *,
        asks_usage: bool,
        as_stream: bool = False,
        profile: EngineProfile = UNKNOWN,
        members: Mapping[str, bytes | None] = UNCHANGED.members,
    ) -> bytes:
        """The body for such an engine, which calls the model `model`: the client's own bytes when nothing has to
        change. `members`: as of Changes."""
        if self.form is not None:
            stream = {"stream": "true"} if self.is_stream else {}
            return self.form.written(self.boundary, {"model": model, **stream}, self.form.unheeded(profile))
        fields: dict[str, bytes | None] = dict(members)
        if self.extras:
            fields |= {
                name: msgspec.json.encode(value) for name, value in extras.taken(self.extras, profile)[0].items()
            }
        if model != self.name:
            fields["model"] = msgspec.json.encode(model)
        if as_stream:
            fields["stream"] = b"true"
        if asks_usage:
            fields["stream_options"] = json_members.stream_options(self.body)
        return json_members.edit(self.body, fields) if fields else self.body

    def gathers(self, endpoint: Endpoint) -> bool:
        """Whether the whole answer that the client wants is to be asked for as a stream."""
        return endpoint.gathers and not self.is_stream and self.operation.name in WRITING

    def hides_usage(self, usage: UsageMode) -> bool:
        """Whether usage must be asked for on the client's behalf, and taken out of the answer again."""
        return self.is_stream and not self.wants_usage and usage is not UsageMode.TIMINGS and self.form is None


def loading(plan: RequestPlan, answer: bytes) -> RequestPlan:
    """The plan of a request that only wants its model ready."""
    operation = msgspec.structs.replace(LOAD, needs=plan.operation.needs)
    return msgspec.structs.replace(plan, operation=operation, is_stream=False, loads=answer)


def counting(plan: RequestPlan) -> RequestPlan:
    """The plan of a request that only wants to know how long it is."""
    return msgspec.structs.replace(plan, operation=COUNT, is_stream=False)


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
    False: nothing, but that the model be ready."""
    head, members = json_body.opened(body)
    if operation.needs and bytes(memoryview(members.get(operation.needs, NOTHING))[:1]) == b"n":
        raise bad_request(f"'{operation.needs}' is missing.", param=operation.needs, code="missing_field")
    name = _named(table, head.model)
    found = resolved(table, key, name)
    adjust.check(head, found.model.rules, table.limits.max_choices)
    is_local = any(
        target.backend in table.backends and table.backends[target.backend].profile.is_local
        for target in found.model.targets
    )
    if is_local and asks:
        openai_request.check(operation.name, body, members, is_translated=is_translated)
    return RequestPlan(
        operation=operation,
        name=name,
        resolved=found,
        is_stream=bool(head.stream) and operation.name in WRITING,
        wants_usage=bool(head.stream_options and head.stream_options.include_usage),
        body=body if head.model else json_members.edit(body, {"model": msgspec.json.encode(name)}),
        key=key,
        choices=adjust.choices(head) * head.prompts,
        asked=head,
        given={} if operation.is_task else judge.given(members),
        task=tasks_requests.read(operation.name, body, is_local=is_local) if operation.is_task else None,
        is_checked=is_local or not asks,
        is_translated=is_translated,
    )


def plan_form(operation: Operation, form: Form, boundary: str, table: Table, key: Key | None) -> RequestPlan:
    """What a form asks for; Problem for what cannot be."""
    names.check((part.name for part in form.parts), names.KNOWN)
    if form.text(operation.needs) is None:
        raise bad_request(f"'{operation.needs}' is missing.", param=operation.needs, code="missing_field")
    is_stream = _TRUTH.get((form.text("stream") or "false").lower())
    if is_stream is None:
        raise bad_request("'stream' must be true or false.", param="stream", code="invalid_type")
    name = _named(table, form.text("model"))
    return RequestPlan(
        operation=operation,
        name=name,
        resolved=resolved(table, key, name),
        is_stream=is_stream,
        wants_usage=False,
        body=b"",
        key=key,
        form=form,
        boundary=boundary,
    )


def _named(table: Table, name: str | None) -> str:
    """The client's name for the model, or that of the default one."""
    found = name or table.default_model
    if found is None:
        raise bad_request("'model' is missing.", param="model", code="missing_field")
    return found


def resolved(table: Table, key: Key | None, name: str) -> Resolved:
    """The model that this key means by a name; Problem (404) when there is none that it may use."""
    found = resolve(table, name) if len(name) <= MAX_NAME_CHARS else None
    # The resolved name decides: a key's pattern may fit a name that only leads to `default_model`.
    if found is None or not may_use(key, found.name):
        raise unknown_model(table, key, name)
    return found


def unknown_model(table: Table, key: Key | None, name: str) -> Problem:
    """404 with the nearest names this key may see; the name itself is not echoed."""
    near = nearest(table, key, name)
    hint = f" Did you mean {' or '.join(repr(n) for n in near[:3])}?" if near else " GET /v1/models lists the names."
    return Problem(404, "model_not_found", f"There is no such model here.{hint}", param="model")
