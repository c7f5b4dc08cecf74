"""What is done to a request's parameters: refused for safety, set as configured, adjusted to what engines take. Pure.

A client's parameters are JSON that is decoded only where a rule may apply, so most requests cost a few comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from app.dialects import json_members
from app.dialects.openai.embeddings import EmbeddingFormat
from app.dialects.parameters.answer_limit import Fit
from app.dialects.parameters.case import RequestCase
from app.dialects.parameters.judge import judge
from app.dialects.validation.messages import NOTHING
from app.errors import Problem, bad_request
from app.table import Rules
from backends.endpoint import FAILED, ModelFacts
from backends.engine_profile import EngineProfile

MAX_NUMBER_BYTES = 64
MAX_KWARGS_BYTES = 64 * 1024

GENERATES: Final = frozenset({"chat", "text_completion"})
# The operator's, not the client's: templates that compute without end, decoders that fill the memory, other hosts.
REFUSED: Final = ("chat_template", "mm_processor_kwargs", "media_io_kwargs", "kv_transfer_params")
# All that `check` looks at.
CHECKED: Final = frozenset({*REFUSED, "n", "best_of", "chat_template_kwargs"})
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
# The name of a parameter in the configuration → all names by which clients may send it.
_SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "max_tokens": _LIMITS,
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
}
_NO_CALL: Final = frozenset({"none", "auto", "null"})


class RequestParameters(msgspec.Struct, frozen=True):
    """The parameters of a body that something may be done to: the client's JSON, NOTHING for what is absent."""

    n: msgspec.Raw = NOTHING
    best_of: msgspec.Raw = NOTHING
    top_p: msgspec.Raw = NOTHING
    max_tokens: msgspec.Raw = NOTHING
    max_completion_tokens: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    tool_choice: msgspec.Raw = NOTHING
    chat_template: msgspec.Raw = NOTHING
    chat_template_kwargs: msgspec.Raw = NOTHING
    mm_processor_kwargs: msgspec.Raw = NOTHING
    media_io_kwargs: msgspec.Raw = NOTHING
    kv_transfer_params: msgspec.Raw = NOTHING
    encoding_format: msgspec.Raw = NOTHING
    dimensions: msgspec.Raw = NOTHING
    response_format: msgspec.Raw = NOTHING
    functions: msgspec.Raw = NOTHING
    json_schema: msgspec.Raw = NOTHING
    grammar: msgspec.Raw = NOTHING
    structured_outputs: msgspec.Raw = NOTHING
    guided_json: msgspec.Raw = NOTHING
    guided_choice: msgspec.Raw = NOTHING
    guided_regex: msgspec.Raw = NOTHING
    guided_grammar: msgspec.Raw = NOTHING
    structural_tag: msgspec.Raw = NOTHING


class TargetEngine(msgspec.Struct, frozen=True):
    """The engine that a request goes to, as far as it matters to the parameters. `facts`: of the model."""

    operation: str
    profile: EngineProfile
    facts: ModelFacts | None = None


class ParameterChanges(NamedTuple):
    """How an engine's request differs from the client's.

    `members`: members of the body to set (to this JSON) or to leave out (None). `names`: the client's parameters that
    are changed by that. `dropped`: those that the engine is not told at all.
    """

    members: Mapping[str, bytes | None]
    names: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def judged(self, case: RequestCase) -> ParameterChanges:
        """These changes, and what becomes of all other parameters that the engine does not know."""
        verdict = judge(case._replace(settled=self.members.keys()))
        if not (verdict.members or verdict.dropped):
            return self
        names = dict.fromkeys((*self.names, *verdict.adjusted))
        dropped = dict.fromkeys((*self.dropped, *verdict.dropped))
        return ParameterChanges({**self.members, **verdict.members}, tuple(names), tuple(dropped))


UNCHANGED: Final = ParameterChanges(MappingProxyType({}))


def number(raw: msgspec.Raw) -> int | float | None:
    """The number that this JSON is; None for anything else."""
    if raw is NOTHING or len(memoryview(raw)) > MAX_NUMBER_BYTES:
        return None
    try:
        value = msgspec.json.decode(raw)
    except msgspec.ValidationError:
        return None  # larger than any number: the engine refuses it, where it is somebody else's
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def choices(asked: RequestParameters) -> int:
    """How many answers are wanted (`n`); 1 where that is not a sound number."""
    wanted = number(asked.n) if asked.n is not NOTHING else None
    return wanted if isinstance(wanted, int) and wanted > 0 else 1


def vectors(asked: RequestParameters, profile: EngineProfile) -> EmbeddingFormat:
    """The format and the dimensions that embeddings must have; dimensions are not checked of a remote engine's."""
    form = asked.encoding_format
    text = bytes(form).decode().strip('"') if form is not NOTHING and _is_given(form) else None
    dimensions = number(asked.dimensions) if profile.is_local else None
    return EmbeddingFormat(text, dimensions if isinstance(dimensions, int) else None)


def check(asked: RequestParameters, rules: Rules, max_choices: int) -> None:
    """Problem (400) for parameters that no engine may be sent."""
    for name in REFUSED:
        if getattr(asked, name) is not NOTHING and _is_given(getattr(asked, name)):
            raise _refused(name, f"'{name}' cannot be set by clients; the operator can set it for the engine.")
    for name, raw in (("n", asked.n), ("best_of", asked.best_of)):
        if raw is not NOTHING and not _is_most(raw, max_choices):
            raise _refused(name, f"'{name}' may be at most {max_choices} here.")
    if asked.chat_template_kwargs is not NOTHING and _is_given(asked.chat_template_kwargs):
        _check_kwargs(asked.chat_template_kwargs, rules.template_kwargs)


def _is_most(raw: msgspec.Raw, most: int) -> bool:
    """Whether a number is at most `most`, also one that is written as text: engines understand that, too."""
    if len(memoryview(raw)) > MAX_NUMBER_BYTES:
        return False
    try:
        return float(msgspec.json.decode(raw)) <= most
    except (msgspec.ValidationError, OverflowError):
        return False  # larger than any number
    except (TypeError, ValueError):
        return True  # not a number: the engine refuses it


def _check_kwargs(raw: msgspec.Raw, allowed: tuple[str, ...]) -> None:
    field = "chat_template_kwargs"
    if len(memoryview(raw)) > MAX_KWARGS_BYTES or bytes(memoryview(raw)[:1]) != b"{":
        raise bad_request(f"'{field}' must be a small object.", param=field, code="invalid_type")
    if any(name not in allowed for name in json_members.decode(raw)):
        known = ", ".join(allowed) or "nothing"
        raise _refused(field, f"'{field}' has a member that cannot be set by clients; they can set: {known}.")


def is_lenient(rules: Rules, profile: EngineProfile) -> bool:
    """Whether requests to such an engine are adjusted to what it takes."""
    return rules.normalize == "lenient" if rules.normalize is not None else profile.is_local


def ignores_tools(asked: RequestParameters, engine: TargetEngine) -> bool:
    """Whether a tool must be called and the engine would answer as if it had been sent no tools."""
    return asked.tool_choice is not NOTHING and _has_no_tools(engine) and _choice(asked) not in _NO_CALL


def _has_no_tools(engine: TargetEngine) -> bool:
    """Whether the model's chat template leaves tools out, as the engine reports."""
    facts = engine.facts
    return engine.profile.knows_template_tools and facts is not None and facts.capabilities.get("tools") == FAILED


def _choice(asked: RequestParameters) -> str:
    """The word in `tool_choice`; "{" where it names a tool."""
    raw = asked.tool_choice
    return (
        bytes(memoryview(raw)[:1]).decode()
        if len(memoryview(raw)) > MAX_NUMBER_BYTES
        else bytes(raw).decode().strip('"')
    )


def changes(
    asked: RequestParameters, body: bytes, rules: Rules, engine: TargetEngine, fit: Fit | None = None
) -> ParameterChanges:
    """What this engine is sent otherwise than the client wrote it. `fit`: the bound on the answer that it is found to
    take, after it has refused the client's.
    """
    if engine.operation not in GENERATES:
        return UNCHANGED
    members: dict[str, bytes | None] = {}
    names: list[str] = []
    if rules.overrides or rules.defaults:
        _configure(body, rules, engine.profile, members, names)
    if is_lenient(rules, engine.profile):
        _loosen(asked, engine, members, names, fit)
    dropped: tuple[str, ...] = ()
    if asked.tools is not NOTHING and _is_given(asked.tools) and "tools" not in members and _has_no_tools(engine):
        members |= {"tools": None, "tool_choice": None, "parallel_tool_calls": None}
        dropped = ("tools",)
    return ParameterChanges(members, tuple(dict.fromkeys(names)), dropped) if members else UNCHANGED


def bound(asked: RequestParameters, rules: Rules) -> int | None:
    """The most tokens that the answer may have, as an engine was told; None where no number of 1 or more says so."""
    raws = (asked.max_completion_tokens, asked.max_tokens)
    bounds = [*map(number, raws), rules.defaults.get("max_tokens"), rules.overrides.get("max_tokens")]
    return max((value for value in bounds if isinstance(value, int) and value > 0), default=None)


def _configure(
    body: bytes, rules: Rules, profile: EngineProfile, members: dict[str, bytes | None], names: list[str]
) -> None:
    members_sent = json_members.decode(body)
    sent = {name for name, raw in members_sent.items() if _is_given(raw)}
    if bytes(members_sent.get("do_sample", NOTHING)) == b"false":
        sent.add("temperature")  # it is one
    for configured, is_default in ((rules.overrides, False), (rules.defaults, True)):
        for name, value in configured.items():
            theirs = sent.intersection(_SYNONYMS.get(name, (name,)))
            its_name = profile.configured_names.get(name, name)
            if its_name is None or (is_default and (theirs or name in rules.overrides)):
                continue
            for other in theirs:
                members[other] = None
                names.append(other)
            members[its_name] = msgspec.json.encode(value)


def _loosen(
    asked: RequestParameters, engine: TargetEngine, members: dict[str, bytes | None], names: list[str], fit: Fit | None
) -> None:
    if asked.top_p is not NOTHING and "top_p" not in members and number(asked.top_p) == 0:
        members["top_p"] = b"1"  # vLLM refuses 0; LLaMA-Factory's API understands it as 1
        names.append("top_p")
    if not (asked.max_tokens is asked.max_completion_tokens is NOTHING) or "max_tokens" in members:
        _loosen_limits(asked, engine, members, names, fit)
    if asked.tools is not NOTHING and bytes(memoryview(asked.tools)[:8]).translate(None, b" \t\r\n") == b"[]":
        members |= {"tools": None, "tool_choice": None, "parallel_tool_calls": None}
        names.append("tools")
    elif asked.tools is NOTHING and asked.tool_choice is not NOTHING and _choice(asked) == "auto":
        members["tool_choice"] = None  # without tools vLLM refuses it
        names.append("tool_choice")


def _loosen_limits(
    asked: RequestParameters, engine: TargetEngine, members: dict[str, bytes | None], names: list[str], fit: Fit | None
) -> None:
    """Leave out a bound of the context's length or more: it bounds nothing, and engines refuse it."""
    length = engine.facts.context_length if engine.facts is not None else None
    if engine.operation == "text_completion":
        _loosen_text_limit(asked, length, members, names, fit)
        return
    for name in _LIMITS:
        value = number(_now(asked, members, name))
        if value is None:
            continue
        if fit is not None and (fit.most is None or value > fit.most):
            members[name] = None if fit.most is None else b"%d" % fit.most
        elif fit is None and length is not None and value >= length:
            members[name] = None
        else:
            continue
        names.append(name)


def _loosen_text_limit(
    asked: RequestParameters, length: int | None, members: dict[str, bytes | None], names: list[str], fit: Fit | None
) -> None:
    """Lower a bound of a text to what fits: without one vLLM writes 16 tokens, and it refuses one beyond its context.
    It knows the bound as `max_tokens` only.
    """
    raw = _now(asked, members, "max_tokens")
    name = "max_tokens"
    if number(raw) is None:
        name, raw = "max_completion_tokens", _now(asked, members, "max_completion_tokens")
    value = number(raw)
    if value is None:
        return
    bound = bytes(raw)
    if fit is not None:
        bound = b"null" if fit.most is None else b"%d" % min(value, fit.most)
    elif length is not None and value > length:
        bound = b"%d" % length
    if name != "max_tokens":
        members[name] = None
    elif bound == bytes(raw):
        return
    members["max_tokens"] = bound
    names.append(name)


def _now(asked: RequestParameters, members: Mapping[str, bytes | None], name: str) -> msgspec.Raw:
    """A parameter's value after the changes so far."""
    if name not in members:
        written: msgspec.Raw = getattr(asked, name)
        return written
    value = members[name]
    return NOTHING if value is None else msgspec.Raw(value)


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:5]).strip() != b"null"


def _refused(name: str, message: str) -> Problem:
    return bad_request(message, param=name, code="parameter_refused")
