"""No parameter is ignored silently: which of them an engine is not sent, or sent otherwise, and what is refused. Pure.

What becomes of each parameter is in app/dialects/parameters/table.py and in the engines' profiles. How one is adjusted
is here; for answers that must have a form it is in structured_output.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from app.dialects.parameters import structured_output
from app.dialects.parameters.case import Given, RequestCase, Verdict
from app.dialects.parameters.table import SPECIFIED, Fates, fates
from backends.endpoint import ModelFacts
from backends.engine_profile import Act, EngineProfile, Fate, Rule
from backends.errors import Unsupported
from backends.kinds import FOLDERS, PROFILES

MAX_NEUTRAL_BYTES: Final = 64
MAX_STOP_BYTES: Final = 64 * 1024
_BLANKS: Final = b" \t\r\n"
# What is looked at although the engine simply gets it.
_ALSO: Final = frozenset(
    {
        *("stop", "logprobs", "tools", "stream_options", "chat_template_kwargs", "n", "max_tokens"),
        *("echo", "prompt_logprobs"),
    }
)
# What `judged` returns, by operation and kind of engine.
_judged: Final[dict[tuple[str, str], Fates]] = {}


def judged(operation: str, profile: EngineProfile) -> Fates:
    """What becomes of the parameters of such a request that such an engine does not simply get as they are."""
    key = operation, profile.kind
    known = _judged.get(key)
    if known is None:
        all_fates = fates(operation, profile).items()
        known = {name: fate for name, fate in all_fates if fate.act is not Act.DONE or fate.rule is not None}
        _judged[key] = known
    return known


_IN_JSON: Final = tuple(operation for operation in SPECIFIED if operation != "transcription")  # which comes as a form


def _watched(profile: EngineProfile) -> set[str]:
    return {*profile.never_null, *(name for operation in _IN_JSON for name in judged(operation, profile))}


# What is looked at for any kind of engine.
WATCHED: Final = _ALSO.union(*(_watched(PROFILES[kind]) for kind in FOLDERS))


def given(members: Given) -> Given:
    """The members of a valid body that are looked at."""
    return {name: raw for name, raw in members.items() if name in WATCHED}


def judge(case: RequestCase) -> Verdict:
    """What becomes of the client's parameters; Unsupported for what the engine cannot do and must not leave out."""
    verdict = Verdict({}, [], [])
    profile = case.profile
    if profile.passes_parameters or case.operation not in SPECIFIED or not case.given:
        return verdict
    judgements = _judged.get((case.operation, profile.kind)) or judged(case.operation, profile)
    for name, raw in case.given.items():
        fate = judgements.get(name)
        if fate is not None and name not in case.settled and not _asks_nothing(raw, fate):
            _apply(case, verdict, name, fate)
        elif name in profile.never_null and bytes(memoryview(raw)[:4]) == b"null":
            verdict.members[name] = None
    if case.operation in ("chat", "text_completion"):
        _stop(case, verdict)
        _options(case, verdict)
        _logprobs_of_answer_only(case, verdict)
        _refuse_empty_text(case)
        structured_output.constrain(case, verdict)
    return verdict


def _asks_nothing(raw: msgspec.Raw, fate: Fate) -> bool:
    """Whether a value asks for nothing: it is null, or asks for what is done anyway."""
    text = memoryview(raw)
    if len(text) > MAX_NEUTRAL_BYTES:
        return False
    compact = bytes(text).translate(None, _BLANKS)
    return compact == b"null" or (bool(fate.unless) and compact.decode() in fate.unless)


def _apply(case: RequestCase, verdict: Verdict, name: str, fate: Fate) -> None:
    if name in structured_output.NAMES and case.profile.structured_output is not None:
        return  # those are looked at together
    if fate.rule is not None:
        _RULES[fate.rule](case, verdict, fate)
    elif fate.renamed:
        _rename(case, verdict, name, fate.renamed)
    elif fate.act is Act.DROPPED:
        verdict.members[name] = None
        verdict.dropped.append(name)
    elif fate.act is Act.REFUSED:
        raise Unsupported(case.engine, f"'{name}' is not supported by this engine: {fate.note}.", param=name)


def _rename(case: RequestCase, verdict: Verdict, old: str, new: str) -> None:
    verdict.members[old] = None
    if new in case.given or new in case.settled:
        verdict.dropped.append(old)
        return
    verdict.members[new] = bytes(case.given[old])
    verdict.adjusted.append(old)


def _best_of(case: RequestCase, verdict: Verdict, fate: Fate) -> None:
    """Where as many answers are wanted as are made there is nothing to choose."""
    if case.value("best_of") != (case.value("n") or 1):
        raise Unsupported(case.engine, f"'best_of' is not supported by this engine: {fate.note}.", param="best_of")
    verdict.members["best_of"] = None


def _only_named_tool(case: RequestCase, verdict: Verdict, _: Fate) -> None:
    """For an engine that takes an object for `auto`: the tool that must be called is the only one it is sent."""
    choice = case.value("tool_choice")
    if not isinstance(choice, dict):
        return
    function = choice.get("function")
    name = function.get("name") if choice.get("type") == "function" and isinstance(function, dict) else None
    tools = case.value("tools")
    named = [tool for tool in (tools if isinstance(tools, list) else ()) if _name_of(tool) == name]
    if not isinstance(name, str) or not named:
        message = "'tool_choice' names no function of 'tools'."
        raise Unsupported(case.engine, message, param="tool_choice")
    verdict.members.update({"tools": msgspec.json.encode(named[:1]), "tool_choice": b'"required"'})
    verdict.adjusted.append("tool_choice")


def _name_of(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _effort_in_template(case: RequestCase, verdict: Verdict, _: Fate) -> None:
    """Chat templates know `enable_thinking` (Qwen, Granite) or `reasoning_effort` (gpt-oss), and ignore the other."""
    verdict.members["reasoning_effort"] = None
    effort, theirs = case.value("reasoning_effort"), case.value("chat_template_kwargs")
    ours = {"enable_thinking": effort != "none"} | ({} if effort == "none" else {"reasoning_effort": effort})
    ours = {name: value for name, value in ours.items() if name in case.kwargs}
    if not ours:
        verdict.dropped.append("reasoning_effort")
        return
    theirs = theirs if isinstance(theirs, dict) else {}
    verdict.members["chat_template_kwargs"] = msgspec.json.encode({**ours, **theirs})
    verdict.adjusted.append("reasoning_effort")


def _stop(case: RequestCase, verdict: Verdict) -> None:
    """Leaves empty texts out: one ends llama.cpp's answer before it begins, and is a 400 for vLLM."""
    raw = case.given.get("stop")
    if raw is None or "stop" in case.settled or len(memoryview(raw)) > MAX_STOP_BYTES or b'""' not in bytes(raw):
        return
    stops = case.value("stop")
    kept = [each for each in (stops if isinstance(stops, list) else [stops]) if each != ""]
    if kept == (stops if isinstance(stops, list) else [stops]):
        return
    verdict.members["stop"] = msgspec.json.encode(kept) if kept else None
    verdict.adjusted.append("stop")


def _options(case: RequestCase, verdict: Verdict) -> None:
    """Names the members of `stream_options` that the engine does not know: all know `include_usage`."""
    options = case.value("stream_options")
    if not isinstance(options, dict):
        return
    if options.get("include_obfuscation"):
        verdict.dropped.append("stream_options.include_obfuscation")
    if options.get("continuous_usage_stats") and not case.profile.streams_usage:
        verdict.dropped.append("stream_options.continuous_usage_stats")


def _logprobs_of_answer_only(case: RequestCase, verdict: Verdict) -> None:
    """0 log probabilities are those of the answer's tokens; where the engine takes it for none, 1 is asked for."""
    if not case.profile.counts_logprobs_from_one or case.operation != "text_completion":
        return
    asked = case.value("logprobs")
    if case.value("echo"):
        return
    if asked == 0 and asked is not False:
        verdict.members["logprobs"] = b"1"
        verdict.adjusted.append("logprobs")


def refuse_prompt_logprobs(case: RequestCase, facts: ModelFacts | None) -> None:
    """Unsupported for the log probabilities of a prompt where they must not be asked for."""
    if facts is None or not facts.no_prompt_logprobs:
        return
    name = "prompt_logprobs" if case.value("prompt_logprobs") is not None else "echo"
    if name == "echo" and (not case.value("echo") or case.value("logprobs") is None):
        return
    message = f"How likely a prompt is must not be asked of this engine: {facts.no_prompt_logprobs}."
    raise Unsupported(case.engine, message, param=name)


def _refuse_empty_text(case: RequestCase) -> None:
    """Unsupported for a text of 0 tokens where the engine would write one. OpenAI takes 0 for the sake of `echo`."""
    if case.value("echo"):
        return
    if case.profile.writes_at_least_one and case.operation == "text_completion":
        for name in ("max_tokens", "max_completion_tokens"):
            bound = case.value(name)
            if bound == 0 and bound is not False:
                raise Unsupported(case.engine, f"'{name}' must be 1 or more for this engine, and is 0.", param=name)


def _echo_alone(case: RequestCase, _: Verdict, __: Fate) -> None:
    """What tells how likely a prompt is writes one token more at most. Where the configuration sets another bound, it
    says so itself.
    """
    if not case.value("echo"):
        return
    asked = case._replace(settled=())  # the bound goes by another name there
    name = next((each for each in ("max_tokens", "max_completion_tokens") if asked.value(each) is not None), None)
    bound = asked.value(name) if name is not None else None
    if bound in (0, 1):
        return
    has = f"is {bound}" if name is not None else "is not given"
    message = f"With 'echo', 'max_tokens' must be 0 or 1 for this engine, and {has}: ask for the text without 'echo'."
    raise Unsupported(case.engine, message, param=name or "max_tokens")


def _greedy(case: RequestCase, verdict: Verdict, _: Fate) -> None:
    """Not to sample is to take the likeliest token each time, unless the operator has fixed the temperature."""
    verdict.members["do_sample"] = None
    if case.value("do_sample") is not False or "temperature" in case.settled:
        verdict.dropped.append("do_sample")
        return
    verdict.members["temperature"] = b"0"
    verdict.adjusted.append("do_sample")


def _leave(case: RequestCase, verdict: Verdict, _: Fate) -> None:
    """Nothing is done before the response is there (app/dialects/openai/embeddings.py)."""


_RULES: Final[Mapping[Rule, Callable[[RequestCase, Verdict, Fate], None]]] = MappingProxyType(
    {
        Rule.BEST_OF: _best_of,
        Rule.ONLY_NAMED_TOOL: _only_named_tool,
        Rule.EFFORT_IN_TEMPLATE: _effort_in_template,
        Rule.GREEDY: _greedy,
        Rule.ECHO_ALONE: _echo_alone,
        Rule.BY_ANSWER: _leave,
    }
)
