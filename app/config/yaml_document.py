"""Reads YAML into plain values: fills in `${NAME}`, rejects duplicate keys, keeps every problem with its place."""

from __future__ import annotations

import datetime
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

KeyPath = tuple[str | int, ...]

# `$${` stands for `${`. A default follows `:-`, as in a shell.
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{")


class ConfigError(Exception):
    """The configuration is invalid. `errors`: every problem as one line `file: key: sentence`, without secrets."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


@dataclass(slots=True)
class Document:
    """The values of one file (`tree`) and the problems in it.

    `unusable`: places whose variable is not set; `hidden`: places with a value from the environment, never shown;
    `size`: how many values were counted so far.
    """

    is_lenient: bool = False
    size: int = 0
    tree: dict[str, Any] = field(default_factory=dict)
    problems: list[tuple[KeyPath, str]] = field(default_factory=list)
    unusable: set[KeyPath] = field(default_factory=set)
    hidden: set[KeyPath] = field(default_factory=set)


def dotted(place: KeyPath) -> str:
    """The place `('models', 'a', 'targets', 0)` as `models.a.targets[0]`; a name with dots or blanks is quoted."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = f'"{part}"' if not part or re.search(r"[.\s\[\]]", part) else part
            text += f".{name}" if text else name
    return text


def parse(text: str, env: Mapping[str, str], *, is_lenient: bool = False) -> Document:
    """The document's values with `env` filled in. ConfigError, without a file name, when it is not a YAML mapping.

    `is_lenient`: a variable that is not set is not a problem; its value is `unusable` and stays as it is written.
    """
    document = Document(is_lenient=is_lenient)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ruamel warns of a reused anchor: legal YAML
            root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
            if root is None:
                return document
            _inspect(root, (), (), document)
            if document.problems and any(message == _CYCLE for _, message in document.problems):
                return document
            loader = YAML(typ="safe", pure=True)
            loader.allow_duplicate_keys = True
            tree = loader.load(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError([f"{line}this is not YAML: {exc.problem or exc.context}"]) from exc
    except RecursionError as exc:
        raise ConfigError(["it is nested too deeply"]) from exc
    except (YAMLError, ValueError) as exc:
        raise ConfigError([f"this is not YAML: {str(exc).splitlines()[0]}"]) from exc
    if not isinstance(tree, dict):
        raise ConfigError(["it is not a mapping (key: value)"])
    document.tree = _fill(tree, (), env, document)
    return document


_CYCLE = "refers to itself"
# Anchors that refer to anchors multiply: a file of ten lines can stand for a billion values.
_MOST_VALUES = 100_000


def _inspect(node: Node, place: KeyPath, above: tuple[int, ...], document: Document) -> None:
    """Note duplicate keys, and nodes that refer to themselves, on which the loader would not end."""
    document.size += 1
    if document.size > _MOST_VALUES:
        raise ConfigError([f"it has more than {_MOST_VALUES} values"])
    if id(node) in above:
        document.problems.append((place, _CYCLE))
        return
    above = (*above, id(node))
    if isinstance(node, MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                document.problems.append((place, "a key here is not a name"))
                continue
            if key.value in seen and key.value != "<<":
                document.problems.append(((*place, key.value), "this key is there twice"))
            seen.add(key.value)
            _inspect(value, (*place, key.value), above, document)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _inspect(item, (*place, index), above, document)


def _fill(value: Any, place: KeyPath, env: Mapping[str, str], document: Document) -> Any:
    """The value with variables filled in, dates as text, and only keys that are text."""
    if isinstance(value, dict):
        filled = {}
        for key, item in value.items():
            if isinstance(key, str):
                filled[key] = _fill(item, (*place, key), env, document)
            else:
                document.problems.append(((*place, str(key)), "a name must be text: write it in quotes"))
        return filled
    if isinstance(value, list):
        return [_fill(item, (*place, index), env, document) for index, item in enumerate(value)]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str) and "${" in value:
        return _expand(value, place, env, document)
    return value


def _expand(text: str, place: KeyPath, env: Mapping[str, str], document: Document) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        document.hidden.add(place)
        name, default = match["name"], match["default"]
        if name is None:
            document.problems.append((place, "'${' does not begin a variable: write ${NAME}, ${NAME:-default} or $${"))
        elif env.get(name):
            return env[name]
        elif default is not None:
            return default
        elif not document.is_lenient:
            document.problems.append((place, f"the environment variable {name} is not set"))
        document.unusable.add(place)
        return match[0]

    return _VARIABLE.sub(replace, text)
