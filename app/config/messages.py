"""Turns pydantic's validation errors into sentences for the person who wrote the value. Pure."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from app.config.yaml_document import KeyPath

# The values of these keys are never shown.
_SECRET_NAMES = frozenset({"api_key", "env", "headers", "sha256"})

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "date_from_datetime_parsing": "a date (2027-01-31) or a time (2027-01-31T12:00:00Z)",
    "datetime_from_date_parsing": "a date (2027-01-31) or a time (2027-01-31T12:00:00Z)",
    "datetime_parsing": "a date (2027-01-31) or a time (2027-01-31T12:00:00Z)",
    "datetime_type": "a date (2027-01-31) or a time (2027-01-31T12:00:00Z)",
    "dict_type": "a mapping (key: value)",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of sensible size",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "string_type": "text (write it in quotes)",
    "tuple_type": "a list",
}

_PATTERNS = {
    "allowed_media_domains": "a host's name without scheme, port or path (or * for any)",
    "endpoint": "an address http://… or https://… without a user, query or fragment (port 4318, not gRPC's 4317)",
    "cors_origins": "an origin like https://example.com:8443 (or * for any)",
    "host": "an address or a host name",
    "root_path": "a path like /llm, without a slash at its end",
    "sha256": "a SHA-256 digest, 64 hex digits (`modelport keys new` prints a key with its digest)",
    "url": "an address http://… or https://… without a user, query or fragment",
}


def shown(value: object, *, is_secret: bool = False) -> str:
    """The value as a message may show it: at most 60 letters, no content of mappings and lists, never a secret."""
    if is_secret:
        return "the value (not shown)"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        # An address may hold a password, and a key behind its question mark.
        text = re.sub(r"(//[^\s?#]*)\?[^\s#]+", r"\1?***", re.sub(r"//[^/\s]*@", "//***@", value))
        return f"'{text[:57]}…'" if len(text) > 60 else f"'{text}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}"


def nearest(name: str, known: Sequence[str]) -> str:
    """The hint `(nearest: x; known: x, y)` for a name that is not among `known`."""
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"(nearest: {close[0]}; known: {listed})" if close and len(known) > 1 else f"(known: {listed or 'none'})"


def problems_of(model: type[BaseModel], exc: ValidationError, hidden: set[KeyPath]) -> list[tuple[KeyPath, str]]:
    """Every error as (place in the file, sentence). Values at `hidden` places are not shown."""
    errors = exc.errors(include_url=False)
    problems = []
    for error in errors:
        # pydantic also calls a list too short when all its items are invalid.
        has_inner = any(other["loc"][: len(error["loc"])] == error["loc"] for other in errors if other is not error)
        if error["type"] == "too_short" and has_inner:
            continue
        place, annotation, owner = _locate(model, error["loc"])
        is_secret = place in hidden or bool(_SECRET_NAMES.intersection(place)) or _mentions(annotation, SecretStr)
        problems.append(_sentence(error, place, annotation, owner, shown(error["input"], is_secret=is_secret)))
    return problems


def _sentence(
    error: ErrorDetails, place: KeyPath, annotation: Any, owner: type[BaseModel] | None, value: str
) -> tuple[KeyPath, str]:
    kind, context, name = error["type"], error.get("ctx", {}), _name(place)
    match kind:
        case "extra_forbidden":
            known = [field.alias or key for key, field in owner.model_fields.items()] if owner else []
            return place, f"'{name}' is not a key here {nearest(name, known)}"
        case "missing":
            about = _about(owner, name)
            return place, f"is missing: {about}" if about else "is missing"
        case "union_tag_not_found":
            return (*place, "kind"), f"is missing (known: {', '.join(kinds(annotation))})"
        case "union_tag_invalid":
            tag = str(context.get("tag"))
            return (*place, "kind"), f"'{tag}' is not a kind of backend {nearest(tag, kinds(annotation))}"
        case "literal_error" | "enum":
            return place, f"{value} is not allowed here (known: {_choices(annotation)})"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
            bounds = [f"{word} {context[key]:.12g}" for key, word in words.items() if key in context]
            return place, f"{value} is not a number of {' and '.join(bounds)}"
        case "string_too_short" | "too_short":
            return place, "is empty"
        case "string_too_long" | "too_long":
            return place, f"is too long (at most {context.get('max_length')})"
        case "string_pattern_mismatch":
            form = _PATTERNS.get(name.removeprefix("fastapi_")) or _about(owner, name) or "written as it must be"
            return place, f"{value} is not {form}"
        case "value_error":
            # A validator does not know whether its value may be shown, so it writes {value} for it.
            return place, str(context.get("error", error["msg"])).replace("{value}", value)
    return place, f"{value} is not {_EXPECTED.get(kind, 'allowed here')}"


def _about(owner: type[BaseModel] | None, name: str) -> str | None:
    field = _field(owner, name) if owner is not None else None
    return field.description if field is not None else None


def _field(owner: type[BaseModel], name: str) -> FieldInfo | None:
    """The field with this name in the file; its alias where the name is a keyword of Python."""
    known = {field.alias or key: field for key, field in owner.model_fields.items()}
    return known.get(name)


def _name(place: KeyPath) -> str:
    return next((part for part in reversed(place) if isinstance(part, str)), "")


def _bare(annotation: Any) -> Any:
    """The type without `Annotated` and `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, types.UnionType):
            others = [part for part in get_args(annotation) if part is not type(None)]
            if len(others) != 1:
                return annotation
            annotation = others[0]
        else:
            return annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    parts = get_args(_bare(annotation))
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def kinds(annotation: Any) -> list[str]:
    """The values that `kind` has in a union of models."""
    return [str(get_args(model.model_fields["kind"].annotation)[0]) for model in _models(annotation)]


def _locate(model: type[BaseModel], loc: KeyPath) -> tuple[KeyPath, Any, type[BaseModel] | None]:
    """The place as in the file (pydantic adds the tag of a union), its type, and the model that has the key."""
    place: list[str | int] = []
    annotation: Any = model
    owner: type[BaseModel] | None = None
    for part in loc:
        annotation = _bare(annotation)
        origin = get_origin(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            owner = annotation
            field = _field(annotation, str(part))
            annotation = field.annotation if field else None
        elif origin in (Union, types.UnionType):
            annotation = dict(zip(kinds(annotation), _models(annotation), strict=True)).get(str(part))
            continue
        elif part == "[key]":
            continue
        else:
            arguments = get_args(annotation)
            annotation = (
                (arguments[1] if isinstance(part, str) and len(arguments) > 1 else arguments[0]) if arguments else None
            )
        place.append(part)
    return tuple(place), annotation, owner


def _mentions(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(_mentions(part, wanted) for part in get_args(annotation))


def _choices(annotation: Any) -> str:
    bare = _bare(annotation)
    return (
        ", ".join(str(choice) for choice in get_args(bare)) if get_origin(bare) is Literal else "see the documentation"
    )
