"""Nothing that a client asks for is ignored without a word: what of it an engine is not told, or told otherwise. Pure.

The table is app/dialects/parameters/table.py; the rules of what is adjusted are here and in structured_output.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from app.dialects.parameters import structured_output
from app.dialects.parameters.case import Given, RequestCase, Verdict
from app.dialects.parameters.table import JUDGED, KINDS, SPECIFIED, Act, Fate
from backends.errors import Unsupported

MAX_NEUTRAL_BYTES: Final = 64
MAX_STOP_BYTES: Final = 64 * 1024
_BLANKS: Final = b" \t\r\n"
# What is looked at besides what the table has fates for.
_ALSO: Final = frozenset({"stop", "logprobs", "tools", "stream_options", "chat_template_kwargs", "n", "max_tokens"})
# What llama.cpp refuses as null, which is what is left out everywhere else.
_NEVER_NULL: Final = frozenset({"encoding_format", "embd_normalize", "reasoning_format"})
WATCHED: Final = _ALSO | _NEVER_NULL | {name for fates in JUDGED.values() for name, _ in fates}
_FATES: Final = MappingProxyType({where: dict(fates) for where, fates in JUDGED.items()})


def given(members: Given) -> Given:
    """What of a sound body is looked at."""
    return {name: raw for name, raw in members.items() if name in WATCHED}


def judge(case: RequestCase) -> Verdict:
    """What becomes of what was given; Unsupported for what the engine cannot do and must not leave out."""
    verdict = Verdict({}, [], [])
    fates = _FATES.get((case.operation, case.kind))
    if fates is None or not case.given:
        return verdict
    for name, raw in case.given.items():
        fate = fates.get(name)
        if fate is not None and name not in case.settled and not _asks_nothing(raw, fate):
            _apply(case, verdict, name, fate)
        elif case.kind == "llama_cpp" and name in _NEVER_NULL and bytes(memoryview(raw)[:4]) == b"null":
            verdict.members[name] = None
    if case.operation in ("chat", "text_completion"):
        _stop(case, verdict)
        _options(case, verdict)
        _no_alternatives(case, verdict)
        _nothing(case)
        structured_output.constrain(case, verdict)
    return verdict


def _asks_nothing(raw: msgspec.Raw, fate: Fate) -> bool:
    """Null, and what is done anyway."""
    text = memoryview(raw)
    if len(text) > MAX_NEUTRAL_BYTES:
        return False
    compact = bytes(text).translate(None, _BLANKS)
    return compact == b"null" or (bool(fate.unless) and compact.decode() in fate.unless)


def _apply(case: RequestCase, verdict: Verdict, name: str, fate: Fate) -> None:
    rule = _RULES.get((name, case.kind)) or _RULES.get((name, ""))
    if rule is not None:
        rule(case, verdict)
    elif fate.act is Act.DROPPED:
        verdict.members[name] = None
        verdict.dropped.append(name)
    elif fate.act is Act.REFUSED and name not in _BY_ANSWER:
        raise Unsupported(case.engine, f"'{name}' is not supported by this engine: {fate.note}.", param=name)


def _renamed(old: str, new: str) -> Callable[[RequestCase, Verdict], None]:
    def rule(case: RequestCase, verdict: Verdict) -> None:
        verdict.members[old] = None
        if new in case.given or new in case.settled:
            verdict.dropped.append(old)
            return
        verdict.members[new] = bytes(case.given[old])
        verdict.adjusted.append(old)

    return rule


def _best_of(case: RequestCase, verdict: Verdict) -> None:
    """Where all of them are wanted there is nothing to choose."""
    if case.value("best_of") != (case.value("n") or 1):
        note = SPECIFIED["text_completion"]["best_of"][case.kind].note
        raise Unsupported(case.engine, f"'best_of' is not supported by this engine: {note}.", param="best_of")
    verdict.members["best_of"] = None


def _tool_choice(case: RequestCase, verdict: Verdict) -> None:
    """llama.cpp takes an object for `auto`: the tool that must be called is then the only one that it is told of."""
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


def _effort(case: RequestCase, verdict: Verdict) -> None:
    """Chat templates know `enable_thinking` (Qwen, Granite) or `reasoning_effort` (gpt-oss), and ignore the other."""
    verdict.members["reasoning_effort"] = None
    effort, theirs = case.value("reasoning_effort"), case.value("chat_template_kwargs")
    told = {"enable_thinking": effort != "none"} | ({} if effort == "none" else {"reasoning_effort": effort})
    told = {name: value for name, value in told.items() if name in case.kwargs}
    if not told:
        verdict.dropped.append("reasoning_effort")
        return
    theirs = theirs if isinstance(theirs, dict) else {}
    verdict.members["chat_template_kwargs"] = msgspec.json.encode({**told, **theirs})
    verdict.adjusted.append("reasoning_effort")


def _stop(case: RequestCase, verdict: Verdict) -> None:
    """An empty text ends llama.cpp's answer before it begins, and is a 400 for vLLM."""
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
    """Of `stream_options` engines know whether usage is wanted."""
    options = case.value("stream_options")
    if not isinstance(options, dict):
        return
    if options.get("include_obfuscation"):
        verdict.dropped.append("stream_options.include_obfuscation")
    if options.get("continuous_usage_stats") and case.kind != "vllm":
        verdict.dropped.append("stream_options.continuous_usage_stats")


def _no_alternatives(case: RequestCase, verdict: Verdict) -> None:
    """0 is no log probabilities at all to llama.cpp, not those of the answer alone."""
    is_here = case.kind == "llama_cpp" and case.operation == "text_completion" and "logprobs" not in case.settled
    if is_here and case.value("logprobs") == 0 and case.value("logprobs") is not False:
        verdict.members["logprobs"] = b"1"
        verdict.adjusted.append("logprobs")


def _nothing(case: RequestCase) -> None:
    """OpenAI takes 0 for a text, which makes sense with an echo only; llama.cpp writes one token."""
    if case.kind == "llama_cpp" and case.operation == "text_completion":
        for name in ("max_tokens", "max_completion_tokens"):
            bound = case.value(name)
            if bound == 0 and bound is not False:
                raise Unsupported(case.engine, f"'{name}' must be 1 or more for this engine, and is 0.", param=name)


def _later(case: RequestCase, verdict: Verdict) -> None:
    """Constraints are looked at together."""


_BY_ANSWER: Final = frozenset({"dimensions"})  # the response shows whether it was done
_RULES: Final[Mapping[tuple[str, str], Callable[[RequestCase, Verdict], None]]] = MappingProxyType(
    {
        ("best_of", ""): _best_of,
        ("tool_choice", "llama_cpp"): _tool_choice,
        ("reasoning_effort", "llama_cpp"): _effort,
        ("repetition_penalty", "llama_cpp"): _renamed("repetition_penalty", "repeat_penalty"),
        ("repeat_penalty", "vllm"): _renamed("repeat_penalty", "repetition_penalty"),
        ("max_completion_tokens", ""): _renamed("max_completion_tokens", "max_tokens"),
        **{(name, kind): _later for name in structured_output.NAMES for kind in KINDS},
    }
)
