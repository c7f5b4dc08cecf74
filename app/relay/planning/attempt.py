"""What one engine is sent for a request, and what it is not asked at all. Pure: nothing here waits or sends.

`check` comes before an engine is waited for, so that what it will not be asked is refused at once. `prepare` comes when
it is known where the engine serves.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from app.dialects import engine_options, json_members
from app.dialects.chat_templates import ALL, TemplateSupport
from app.dialects.continuing.permission import Continuable, continuable
from app.dialects.parameters import adjust, answer_limit
from app.dialects.parameters.adjust import ParameterChanges, TargetEngine
from app.dialects.parameters.answer_limit import Fit
from app.dialects.parameters.case import RequestCase
from app.dialects.parameters.judge import refuse_prompt_logprobs
from app.dialects.validation import constraint_cost, media, openai_request, prompt_length
from app.dialects.validation.messages import NOTHING
from app.errors import JSON, Problem
from app.relay.http import json_body
from app.relay.http.multipart import Form
from app.relay.planning.engine_call import EngineCall, translated
from app.relay.planning.fold_system_messages import fold
from app.relay.planning.plan import RENDER, WRITING, RequestPlan
from app.table import Backend
from backends.endpoint import FAILED, Endpoint, UsageMode
from backends.engine_profile import EngineProfile
from backends.errors import BackendError, Rejected, Unsupported
from backends.prompt_too_long import TooLong


class Concessions(NamedTuple):
    """How a request is asked otherwise because this engine would refuse it as it stands, or has done so.

    `answer_limit`: the bound on the answer that fits. `template`: the system messages that its model's chat template
    takes. `is_without_usage`: it does not know `stream_options`.
    """

    answer_limit: Fit | None = None
    template: TemplateSupport | None = None
    is_without_usage: bool = False


NO_CONCESSIONS: Final = Concessions()


class Attempt(msgspec.Struct, frozen=True):
    """One request as one engine is sent it.

    `call`: its path, its body, and how the response is read. `hides_usage`: usage is asked for on the client's behalf,
    and taken out of the stream again. `gathers`: the whole response that the client wants is asked for as a stream and
    put together. `adjusted` and `dropped`: the client's names of parameters that the engine is sent otherwise, and of
    those that it is not told. `continuable`: of a stream, how it may go on at another engine; None where it never does.
    """

    call: EngineCall
    content_type: str = JSON
    hides_usage: bool = False
    gathers: bool = False
    adjusted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    continuable: Continuable | None = None


def check(plan: RequestPlan, backend: Backend, model: str) -> None:
    """Raises Rejected for a body of another shape than engines of this machine are sent, and Unsupported for what the
    engine would have to fetch and must not, or its `model` cannot do. Needs no more than the table's row."""
    check_ability(plan, backend, model)
    if plan.form is not None:
        return
    if not plan.is_checked and backend.profile.is_local:
        _check_shape(plan, backend)
    if plan.may_have_urls:
        _check_urls(plan, backend)


def check_ability(plan: RequestPlan, backend: Backend, model: str) -> None:
    """Raises Unsupported for vectors of a model that writes, and the reverse, where its engine says which it is. A
    daemon's models are looked at where its requests are made.
    """
    wants_vectors = plan.operation.name == "embeddings"
    facts = backend.fact(model)
    if facts is None or not (wants_vectors or plan.operation.name in WRITING) or backend.profile.is_daemon:
        return
    can = facts.capabilities
    writes = can.get("chat", FAILED) != FAILED or can.get("completion", FAILED) != FAILED
    embeds = can.get("embedding", FAILED) != FAILED
    if wants_vectors and writes and not embeds:
        message = "The model behind this name writes text and makes no embeddings: use one that is made for them"
        raise Unsupported(backend.name, f"{message} (`task: embed` of its backend).", param="model")
    if not wants_vectors and embeds and not writes:
        message = "The model behind this name makes embeddings and writes no text: use one that does"
        raise Unsupported(backend.name, f"{message}.", param="model")


def _check_shape(plan: RequestPlan, backend: Backend) -> None:
    """Of a request to an engine of somebody else, whose fallback may be one of this machine."""
    try:
        _, members = json_body.opened(plan.body)
        openai_request.check(plan.operation.name, plan.body, members, is_translated=plan.is_translated)
    except Problem as exc:
        raise Rejected(backend.name, exc.message, status=400, type_=exc.type, code=exc.code, param=exc.param) from exc


def _check_urls(plan: RequestPlan, backend: Backend) -> None:
    place = media.refused(plan.body, {*plan.resolved.model.rules.media_domains, *backend.media_domains})
    if place is not None:
        message = f"'{place}' is not fetched: send the content itself as a data: URL, or have its host allowed."
        raise Unsupported(backend.name, message, param=place)


def place(plan: RequestPlan, endpoint: Endpoint) -> Endpoint:
    """Where the engine is asked for this: beside its server for how likely a prompt is, where that does not tell it."""
    if not endpoint.likelihood or plan.operation.name != "text_completion":
        return endpoint
    if bytes(plan.given.get("echo", NOTHING)) != b"true":
        return endpoint
    return msgspec.structs.replace(
        endpoint, address=endpoint.likelihood, usage=UsageMode.ASK, gathers=False, likelihood=""
    )


def prepare(
    plan: RequestPlan, backend: Backend, endpoint: Endpoint, model: str, concessions: Concessions = NO_CONCESSIONS
) -> Attempt:
    """The request as this engine gets it, which calls the model `model`; raises Unsupported, or another BackendError,
    for what it cannot be asked."""
    if plan.form is not None:
        return _prepare_form(plan, plan.form, backend, endpoint, model)
    can_hide = endpoint.usage is not UsageMode.TIMINGS and not concessions.is_without_usage
    hides_usage = plan.is_stream and not plan.wants_usage and can_hide
    gathers = endpoint.gathers and not plan.is_stream and plan.operation.name in WRITING
    changes = _changes(plan, backend, model, concessions)
    members = changes.members
    if hides_usage or gathers:
        asked = {"stream_options": json_members.with_usage(plan.given.get("stream_options"))}
        members = {**members, **({"stream": b"true"} if gathers else {}), **asked}
    call = translated(plan, model, backend, endpoint, json_members.edit(plan.body, members))
    going_on = None
    if plan.resolved.model.continues_streams and plan.is_stream:
        body, going_on = continuable(call.body, plan.operation.name, backend.profile)
        call = msgspec.structs.replace(call, body=body)
    if not (changes.names or changes.dropped or call.dropped or plan.dropped):
        return Attempt(call, continuable=going_on, hides_usage=hides_usage, gathers=gathers)
    in_client_words = plan.spelled
    return Attempt(
        call,
        continuable=going_on,
        hides_usage=hides_usage,
        gathers=gathers,
        adjusted=tuple([in_client_words.get(name, name) for name in changes.names]),
        dropped=plan.dropped + tuple([in_client_words.get(name, name) for name in changes.dropped + call.dropped]),
    )


def openai_body(plan: RequestPlan, backend: Backend, model: str, concessions: Concessions) -> bytes:
    """The request in OpenAI's words as `prepare` has it, for what is only counted; raises BackendError likewise."""
    return json_members.edit(plan.body, _changes(plan, backend, model, concessions).members)


def smaller_answer(plan: RequestPlan, error: BackendError, profile: EngineProfile) -> Fit | None:
    """The answer that such an engine may be asked for instead, where it refused the bound on it as more than fits:
    nothing was generated. None where it refused something else."""
    rules = plan.resolved.model.rules
    if not (isinstance(error, Rejected) and error.status in (400, 422) and adjust.is_lenient(rules, profile)):
        return None
    if isinstance(error, TooLong) and error.length.is_of_prompt:
        return None
    bound = adjust.bound(plan.parameters, rules)
    return None if bound is None else answer_limit.fit(error.message, bound)


def _prepare_form(plan: RequestPlan, form: Form, backend: Backend, endpoint: Endpoint, model: str) -> Attempt:
    unheeded = form.unheeded(backend.profile)
    fields = {"model": model, "stream": "true"} if plan.is_stream else {"model": model}
    call = translated(plan, model, backend, endpoint, form.written(plan.boundary, fields, unheeded))
    content_type = f"multipart/form-data; boundary={plan.boundary}"
    dropped = tuple(plan.spelled.get(name, name) for name in unheeded)
    return Attempt(call, content_type, dropped=plan.dropped + dropped)


def _changes(plan: RequestPlan, backend: Backend, model: str, concessions: Concessions) -> ParameterChanges:
    """What this engine is sent otherwise than the client wrote it. Raises Unsupported for what it would ignore, or work
    at for too long, and TooLong for a prompt that cannot fit."""
    profile, rules, facts = backend.profile, plan.resolved.model.rules, backend.fact(model)
    engine = TargetEngine("chat" if plan.operation is RENDER else plan.operation.name, profile, facts)
    if adjust.ignores_tools(plan.parameters, engine):
        message = "This model's chat template has no place for tools, so none can be required."
        raise Unsupported(backend.name, message, param="tool_choice")
    if profile.checks_prompt:
        prompt_length.check(engine.operation, plan.body, backend.name, facts)
    if plan.may_have_constraints or plan.extras:
        constraint_cost.check(plan.parameters, plan.extras, backend.name, profile)
    changes = adjust.changes(plan.parameters, plan.body, rules, engine, concessions.answer_limit)
    if plan.given and not (profile.passes_parameters and (facts is None or not facts.no_prompt_logprobs)):
        case = RequestCase(backend.name, profile, engine.operation, plan.given, kwargs=rules.template_kwargs)
        refuse_prompt_logprobs(case, facts)
        changes = changes.judged(case)
    if plan.extras:
        changes = _with_options(plan, profile, changes)
    if plan.system_messages is not None:
        changes = _with_folded_messages(plan, profile, changes, concessions.template)
    if model != plan.name:
        changes = changes._replace(members={**changes.members, "model": msgspec.json.encode(model)})
    return changes


def _with_options(plan: RequestPlan, profile: EngineProfile, changes: ParameterChanges) -> ParameterChanges:
    """And the parameters that OpenAI does not have."""
    options, dropped = engine_options.taken(plan.extras, profile)
    members = {name: msgspec.json.encode(value) for name, value in options.items()}
    return changes._replace(members={**changes.members, **members}, dropped=(*dropped, *changes.dropped))


def _with_folded_messages(
    plan: RequestPlan, profile: EngineProfile, changes: ParameterChanges, takes: TemplateSupport | None
) -> ParameterChanges:
    """And system messages as the model's template takes them."""
    shape = plan.system_messages
    assert shape is not None
    if takes is None and shape.has_developer and adjust.is_lenient(plan.resolved.model.rules, profile):
        takes = ALL
    if takes is None or (shape.is_usual and takes.first):
        return changes
    messages = fold(plan.body, takes)
    if messages is None:
        return changes
    return changes._replace(members={**changes.members, "messages": messages}, names=(*changes.names, "messages"))
