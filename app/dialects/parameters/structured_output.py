"""Answers that must have a form (a schema, a grammar, one of some labels), in the words of each engine. Pure.

An answer of another form than was demanded is worse than none: an engine that cannot be made to keep to it is not asked
(400).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from app.dialects.parameters.case import RequestCase, Verdict
from backends.engine_profile import StructuredOutput
from backends.errors import Unsupported

# llama.cpp takes 2 ms for each alternative of a grammar.
MAX_LABELS: Final = 500
MAX_LABELS_BYTES: Final = 16 * 1024
# vLLM's own names of last year → its member of `structured_outputs`.
_GUIDED: Final = MappingProxyType(
    {
        "guided_json": "json",
        "guided_regex": "regex",
        "guided_choice": "choice",
        "guided_grammar": "grammar",
        "structural_tag": "structural_tag",
    }
)
# llama.cpp's names for two of those.
_UNGUIDED: Final = MappingProxyType({"grammar": "grammar", "json_schema": "json"})
_FORMS: Final = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
NAMES: Final = frozenset({*_GUIDED, *_UNGUIDED, "structured_outputs", "guided_whitespace_pattern", "response_format"})


def constrain(case: RequestCase, verdict: Verdict) -> None:
    """Add to the verdict how this engine is told what form the answer must have; Unsupported where it cannot be."""
    if case.profile.structured_output is not None and not NAMES.isdisjoint(case.given):
        _WAYS[case.profile.structured_output](case, verdict)


def _by_members(case: RequestCase, verdict: Verdict) -> None:
    known = _GUIDED | _UNGUIDED | {"guided_whitespace_pattern": "whitespace_pattern"}
    used = {name: member for name, member in known.items() if _is_given(case, name)}
    if not used:
        return
    theirs = case.value("structured_outputs")
    if theirs is None and set(used) == {"guided_whitespace_pattern"}:
        _leave_rest(case, verdict)
        return
    members = {member: case.given[name] for name, member in used.items()}
    verdict.members.update(dict.fromkeys(used))
    verdict.members["structured_outputs"] = msgspec.json.encode(members | (theirs if isinstance(theirs, dict) else {}))
    verdict.adjusted.extend(used)


def _by_grammar(case: RequestCase, verdict: Verdict) -> None:
    names, forms = _demanded(case, own=())
    _check_one(case, [*names, *(name for name in _UNGUIDED if _is_given(case, name)), *_response_format(case)])
    if names:
        name, form, value = _only(case, names, forms)
        verdict.members.update(dict.fromkeys(names))
        if form in ("json", "json_object"):
            verdict.members["json_schema"] = _schema(case, name, form, value)
        elif form == "choice":
            verdict.members["grammar"] = msgspec.json.encode(_labels(case, name, value))
        elif form == "grammar":
            verdict.members["grammar"] = msgspec.json.encode(value)
        else:
            raise _cannot(
                case, name, f"{case.profile.title} does not know '{form}', only JSON schemas, grammars and labels"
            )
        verdict.adjusted.extend(names)
    _leave_rest(case, verdict)
    if case.operation == "text_completion" and not names and _is_given(case, "response_format"):
        _text_format(case, verdict)


def _by_schema(case: RequestCase, verdict: Verdict) -> None:
    names, forms = _demanded(case, own=("json_schema",))
    _check_one(case, [*names, *_response_format(case)])
    if names:
        name, form, value = _only(case, names, forms)
        if form not in ("json", "json_object"):
            raise _cannot(case, name, f"{case.profile.title} takes JSON schemas only")
        schema = msgspec.Raw(_schema(case, name, form, value))
        wanted = {"type": "json_schema", "json_schema": {"name": "format", "schema": schema}}
        verdict.members.update(dict.fromkeys(names))
        verdict.members["response_format"] = msgspec.json.encode(wanted)
        verdict.adjusted.extend(names)
    elif _is_given(case, "grammar"):
        raise _cannot(case, "grammar", f"{case.profile.title} takes JSON schemas only")
    _leave_rest(case, verdict)


_WAYS: Final = MappingProxyType(
    {
        StructuredOutput.MEMBERS: _by_members,
        StructuredOutput.GRAMMAR: _by_grammar,
        StructuredOutput.SCHEMA_ONLY: _by_schema,
    }
)


def _check_one(case: RequestCase, names: list[str]) -> None:
    """Unsupported for two forms at once: llama.cpp takes either of them, or answers 500."""
    if len(names) > 1:
        raise _cannot(case, names[0], f"an answer can have one form only, and '{names[1]}' demands one too")


def _response_format(case: RequestCase) -> list[str]:
    form = case.value("response_format") if _is_given(case, "response_format") else None
    return ["response_format"] if isinstance(form, dict) and form.get("type") != "text" else []


def _leave_rest(case: RequestCase, verdict: Verdict) -> None:
    if "structured_outputs" not in verdict.adjusted and _is_given(case, "structured_outputs"):
        structured = case.value("structured_outputs")
        if not isinstance(structured, dict):
            raise _cannot(case, "structured_outputs", "it is an object with a 'json', 'choice' or 'grammar'")
        verdict.members["structured_outputs"] = None
        verdict.dropped.extend(["structured_outputs"] if structured else [])
    if _is_given(case, "guided_whitespace_pattern"):
        verdict.members["guided_whitespace_pattern"] = None
        verdict.dropped.append("guided_whitespace_pattern")


def _demanded(case: RequestCase, own: tuple[str, ...]) -> tuple[list[str], dict[str, tuple[str, Any]]]:
    """The parameters by which the client demands a form, and form → (parameter, value). `own`: which of llama.cpp's
    names count, too.
    """
    known = _GUIDED | {name: _UNGUIDED[name] for name in own}
    names = [name for name in known if _is_given(case, name)]
    forms = {known[name]: (name, case.value(name)) for name in names}
    structured = case.value("structured_outputs")
    if isinstance(structured, dict):
        given = {form: structured[form] for form in _FORMS if structured.get(form) not in (None, False)}
        names += ["structured_outputs"]
        forms |= {form: ("structured_outputs", value) for form, value in given.items()}
    return (names if forms else []), forms


def _only(case: RequestCase, names: list[str], forms: Mapping[str, tuple[str, Any]]) -> tuple[str, str, Any]:
    if len(forms) > 1:
        raise _cannot(case, names[0], "an answer can have one form only")
    form, (name, value) = next(iter(forms.items()))
    return name, form, value


def _schema(case: RequestCase, name: str, form: str, value: Any) -> bytes:
    if form == "json_object":
        return b'{"type":"object"}'
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            value = None
    if not isinstance(value, dict):
        raise _cannot(case, name, "a JSON schema is an object")
    return msgspec.json.encode(value)


def _labels(case: RequestCase, name: str, value: Any) -> str:
    """A grammar in GBNF whose answers are exactly these texts."""
    if not isinstance(value, list) or not value or not all(isinstance(label, str) and label for label in value):
        raise _cannot(case, name, "labels are a list of texts")
    if len(value) > MAX_LABELS or sum(map(len, value)) > MAX_LABELS_BYTES:
        raise _cannot(
            case, name, f"at most {MAX_LABELS} labels with {MAX_LABELS_BYTES} characters in all are allowed here"
        )
    return "root ::= " + " | ".join(_literal(label) for label in value)


def _literal(text: str) -> str:
    """A text as a literal of GBNF."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _text_format(case: RequestCase, verdict: Verdict) -> None:
    """llama.cpp reads `response_format` in chats only."""
    form = case.value("response_format")
    match form:
        case {"type": "text"}:
            verdict.members["response_format"] = None
            return
        case {"type": "json_object"}:
            schema = b'{"type":"object"}'
        case {"type": "json_schema", "json_schema": {"schema": dict() as wanted}}:
            schema = msgspec.json.encode(wanted)
        case _:
            raise _cannot(case, "response_format", "its type is 'text', 'json_object' or 'json_schema' with a schema")
    verdict.members.update({"response_format": None, "json_schema": schema})
    verdict.adjusted.append("response_format")


def _is_given(case: RequestCase, name: str) -> bool:
    raw = case.given.get(name)
    return raw is not None and name not in case.settled and bytes(memoryview(raw)[:5]).strip() not in (b"null", b'""')


def _cannot(case: RequestCase, name: str, why: str) -> Unsupported:
    return Unsupported(case.engine, f"'{name}' is not supported by this engine: {why}.", param=name)
