"""Whether the schema or grammar that an answer must keep to costs an engine on this machine too much. Pure.

A single thread of the engine keeps every answer to its form; what takes that thread minutes holds up every request. So
the cost is estimated beforehand, by how many ways an answer may go on in at its widest place
(app/dialects/validation/constraint_width.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.dialects.parameters.adjust import RequestParameters
from app.dialects.validation import constraint_width
from app.dialects.validation.constraint_width import MAX_DEPTH, Reversed, TooMuch
from app.dialects.validation.messages import NOTHING
from backends.engine_profile import EngineProfile
from backends.errors import Unsupported

MAX_NODES: Final = 10_000  # 30 ms
MAX_BYTES: Final = 256 * 1024
# With fewer commas than that and none of the words, there cannot be more ways than are allowed.
_FEW: Final = 50
_WORDS: Final = (b"pattern", b"$ref", b"regex", b"grammar", b"\\", b"tag", b"minLength", b"minItems")
_ANY: Final = 8  # a value of any type

_SCHEMAS: Final = ("response_format", "tools", "functions", "json_schema", "guided_json")
_OTHERS: Final = ("structured_outputs", "guided_choice", "guided_regex", "guided_grammar", "grammar", "structural_tag")
# One of these, or Ollama's `format`, tells what form an answer is to have.
PARAMETERS: Final = frozenset({*_SCHEMAS, *_OTHERS})
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_SPANS: Final = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_ALTERNATIVES: Final = ("anyOf", "oneOf", "allOf")
_NO_SCHEMAS: Final = frozenset({"default", "examples", "example", "required", "enum", "const", "type"})
_MAPS: Final = ("$defs", "definitions", "patternProperties", "dependentSchemas")


def check(asked: RequestParameters, extras: Mapping[str, Any], engine: str, profile: EngineProfile) -> None:
    """Unsupported for a schema or grammar that would keep such an engine busy for too long.

    `engine` is the backend's name; `extras` are parameters that OpenAI's API does not have.
    """
    if not profile.is_local:
        return
    for name in (*_SCHEMAS, *_OTHERS):
        raw = getattr(asked, name)
        if raw is not NOTHING and not _is_harmless(name, raw):
            _check(name, raw, engine, profile.max_constraint_ways)
    if "format" in extras:
        _check("format", msgspec.Raw(msgspec.json.encode(extras["format"])), engine, profile.max_constraint_ways)


def _is_harmless(name: str, raw: msgspec.Raw) -> bool:
    text = memoryview(raw)
    if len(text) > 64 * _FEW or name.endswith(("regex", "grammar")):
        return False
    written = bytes(text)
    return written.count(b",") < _FEW and not any(word in written for word in _WORDS)


def _check(name: str, raw: msgspec.Raw, engine: str, most: int) -> None:
    field = name
    try:
        widest, field = max(_widths(name, raw))
        if widest <= most:
            return
        many = f"{widest} ways" if widest < 1_000_000 else "millions of ways"
        message = f"lets an answer go on in {many} at one place, and at most {most} are allowed here"
    except Reversed as exc:
        message = f"'{field}' has a minimum above its maximum ({exc}): no answer can have that."
        raise Unsupported(engine, message, param=name) from exc
    except TooMuch as exc:
        message = f"describes an answer in too many {exc}"
    except msgspec.DecodeError:
        message = "holds a number that is out of range"
    raise Unsupported(
        engine,
        f"'{field}' {message}: its engine would compute for too long. Use fewer values of `enum` and `anyOf`, "
        "fewer optional properties, and patterns with fewer optional pieces.",
        param=name,
    )


def _widths(name: str, raw: msgspec.Raw) -> Iterator[tuple[int, str]]:
    """The width of each schema and grammar in a parameter, with its place there."""
    yield 1, name
    schemas = _Schemas()
    if name in ("tools", "functions") and bytes(memoryview(raw)[:1]) == b"[":
        tools = _raws.decode(raw)
        yield len(tools), name
        for at, tool in enumerate(tools):
            if not _is_harmless(name, tool):
                root = _parameters(msgspec.json.decode(tool))
                yield schemas.width(root), f"{name}[{at}]"
        return
    if len(memoryview(raw)) > MAX_BYTES:
        raise TooMuch("bytes")
    for path, root in _roots(name, msgspec.json.decode(raw)):
        yield schemas.width(root), path


def _roots(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The schemas, grammars and choices in a parameter's value, each with its place and written as a schema."""
    if name in ("grammar", "guided_grammar"):
        yield name, {"grammar": value}
    elif name == "guided_regex":
        yield name, {"pattern": value}
    elif name == "guided_choice":
        yield name, {"enum": value}
    elif name in ("guided_json", "json_schema", "structural_tag"):
        yield name, _decoded(value)
    elif name in ("response_format", "format"):
        yield from _of_format(name, value)
    elif name == "structured_outputs" and isinstance(value, dict):
        yield f"{name}.json", _decoded(value.get("json"))
        yield f"{name}.choice", {"enum": value.get("choice")}
        yield f"{name}.regex", {"pattern": value.get("regex")}
        yield f"{name}.grammar", {"grammar": value.get("grammar")}
        yield f"{name}.structural_tag", _decoded(value.get("structural_tag"))


def _of_format(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        return
    yield name, {each: inner for each, inner in value.items() if each not in ("schema", "json_schema")}
    if "schema" in value:
        yield f"{name}.schema", value["schema"]
    inner = value.get("json_schema")
    if isinstance(inner, dict):
        yield f"{name}.json_schema", inner.get("schema", inner)


def _parameters(tool: Any) -> Any:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return None
    return next(
        (function[each] for each in ("parameters", "input_schema", "parametersJsonSchema") if each in function), None
    )


def _decoded(value: Any) -> Any:
    """The value, decoded where it is text: vLLM takes a schema as text, too. None where that is not JSON."""
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None
    return value


def _is_reversed(least: Any, most: Any) -> bool:
    return isinstance(least, int | float) and isinstance(most, int | float) and most < least


_Opening = tuple[tuple[str, bytes | None], ...]


class _Schemas:
    """The JSON schemas of one parameter, one after the other: what is looked at is bounded over all of them."""

    def __init__(self) -> None:
        self._nodes = 0
        self._root: Any = None  # where references begin
        self._known: dict[str, int] = {}
        self._open: set[str] = set()
        self._cyclic: set[str] = set()  # of the known, those within which something open is referred to
        self._cycles = 0
        self._is_within_opening = False

    def width(self, root: Any) -> int:
        """In how many ways an answer may go on at the widest place of this schema."""
        self._root, self._known, self._open, self._cyclic = root, {}, set(), set()
        return self._of(root, 0)

    def _of(self, schema: Any, depth: int) -> int:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise TooMuch("levels" if depth > MAX_DEPTH else "parts")
        if not isinstance(schema, dict):
            return _ANY if schema is True else 1
        for least, most in _SPANS:
            if _is_reversed(schema.get(least), schema.get(most)):
                raise Reversed(f"{least}, {most}")
        width = max(self._of_types(schema), self._of_object(schema, depth), self._of_list(schema, depth))
        if "enum" in schema and isinstance(schema["enum"], Sequence):
            width = max(width, len(schema["enum"]))
        for name, ways in (("pattern", constraint_width.of_regex), ("grammar", constraint_width.of_grammar)):
            if isinstance(text := schema.get(name), str):
                self._nodes += len(text) // 2
                width = max(width, ways(text))
        if isinstance(schema.get("$ref"), str):
            width = max(width, self._referred(schema["$ref"], depth))
        for name in _ALTERNATIVES:
            if isinstance(schema.get(name), list):
                width = max(width, self._of_branches(schema[name], depth, is_choice=name != "allOf"))
        return max(width, self._of_rest(schema, depth))

    def _of_branches(self, branches: Sequence[Any], depth: int, *, is_choice: bool) -> int:
        width, openings = 0, list[_Opening]()
        for each in branches:
            before = self._cycles
            width += self._of(each, depth + 1)
            if is_choice and self._cycles != before and not self._is_within_opening:
                opening = self._opening(each, depth)
                if any(_is_alike(opening, other) for other in openings):
                    # Both stay possible at every level, so each level doubles the ways.
                    raise TooMuch("ways, because branches that contain themselves begin alike")
                openings.append(opening)
        return width

    def _opening(self, schema: Any, depth: int) -> _Opening:
        """How a value begins, up to where it contains itself: type, names, and a name's value where it has only one."""
        for _ in range(MAX_DEPTH):
            if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
                break
            schema = self._place(schema["$ref"])
        kind = ("", _kind(schema))
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(properties, dict):
            return (kind,)
        needed = schema.get("required")
        first = [name for name in properties if isinstance(needed, list) and name in needed]
        row = [kind]
        for name in [*first, *(name for name in properties if name not in first)]:
            inner = properties[name]
            is_end = self._is_cyclic(inner, depth + 1)
            if is_end or name in first:
                only = inner.get("const") if isinstance(inner, dict) else None
                row.append((name, None if only is None else msgspec.json.encode(only)))
            if is_end:
                break
        return tuple(row)

    def _is_cyclic(self, schema: Any, depth: int) -> bool:
        """Whether a schema refers to one that is being read. Its branches are compared when they are read in turn."""
        before, self._is_within_opening = self._cycles, True
        self._of(schema, depth)
        self._is_within_opening = False
        return self._cycles != before

    def _of_types(self, schema: Mapping[str, Any]) -> int:
        kinds = schema.get("type")
        return len(kinds) if isinstance(kinds, list) else 1

    def _of_object(self, schema: Mapping[str, Any], depth: int) -> int:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return 1
        needed = schema.get("required")
        needed = {each for each in needed if isinstance(each, str)} if isinstance(needed, list) else set()
        optional = sum(name not in needed for name in properties)
        return max(optional + 1, *(self._of(each, depth + 1) for each in properties.values()), 1)

    def _of_list(self, schema: Mapping[str, Any], depth: int) -> int:
        width = 1
        for name in ("items", "prefixItems"):
            inner = schema.get(name)
            for each in inner if isinstance(inner, list) else (inner,):
                width = max(width, self._of(each, depth + 1) + 1)
        return width

    def _of_rest(self, schema: Mapping[str, Any], depth: int) -> int:
        """The width of all other members that hold schemas."""
        width = 1
        for name, inner in schema.items():
            if name in _NO_SCHEMAS or name in _ALTERNATIVES or name in ("properties", "items", "prefixItems"):
                continue
            if name in _MAPS and isinstance(inner, dict):
                inner = [*inner.values()]
            for each in inner if isinstance(inner, list) else (inner,):
                if isinstance(each, dict):
                    width = max(width, self._of(each, depth + 1))
        return width

    def _referred(self, path: str, depth: int) -> int:
        """The width of what a reference points to; one way where that is being read."""
        if path in self._known or path in self._open:
            self._cycles += path in self._open or path in self._cyclic
            return self._known.get(path, 1)
        before = self._cycles
        self._open.add(path)
        self._known[path] = width = self._of(self._place(path), depth + 1)
        self._open.discard(path)
        if self._cycles != before:
            self._cyclic.add(path)
        return width

    def _place(self, path: str) -> Any:
        place: Any = self._root
        for step in path.removeprefix("#").strip("/").split("/") if path.strip("#/") else ():
            step = step.replace("~1", "/").replace("~0", "~")
            place = place.get(step) if isinstance(place, dict) else None
        return place


def _kind(schema: Any) -> bytes | None:
    """The one type that a value of this schema has, where that is known."""
    if not isinstance(schema, dict):
        return None
    if isinstance(kind := schema.get("type"), str):
        return kind.encode()
    return b"object" if "properties" in schema else None


def _is_alike(one: _Opening, other: _Opening) -> bool:
    return all(
        name == another and (value is None or also is None or value == also)
        for (name, value), (another, also) in zip(one, other, strict=False)
    )
