"""What LLaMA-Factory's server is started with: flags, or one YAML or JSON file with `key=value` behind it.

Words are read as its own parser reads them: `--a_b` and `--a-b` are one flag, a value follows after `=` or a blank, a
switch needs none, and the last of several wins. Beginnings of names are not completed.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from app.llamafactory.flags import FLAGS, Flag, nearest

_YES: Final = frozenset({"yes", "true", "t", "y", "1", "on"})
_NO: Final = frozenset({"no", "false", "f", "n", "0", "off"})
_NUMBER: Final = re.compile(r"-\.?\d")
_FILES: Final = (".yaml", ".yml", ".json")


class BadArguments(Exception):
    """They cannot be served. `errors`: each mistake as one sentence."""

    def __init__(self, *errors: str) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The flags that were given (`values`), checked and by name; `source`: the file, where they came from one.

    `ignored`: names that are none of the flags, which ALLOW_EXTRA_ARGS lets pass.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None
    ignored: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        """The value of a flag, LLaMA-Factory's default where it was not given."""
        value = self.values.get(name)
        return FLAGS[name].default if value is None else value

    def is_given(self, name: str) -> bool:
        """Whether it was given, be it with its default."""
        return self.values.get(name) is not None


def read(words: Sequence[str], *, allow_extra: bool = False) -> Arguments:
    """The arguments in the words of a command line. Reads the file that the first one may name. BadArguments names
    every mistake. `allow_extra`: names that are no flags are left out instead.
    """
    source = None
    given: list[tuple[str, Any, str]] = []
    rest = list(words)
    if rest and not rest[0].startswith("-") and rest[0].endswith(_FILES):
        source = Path(rest.pop(0))
        given += [(name, value, f"{source}: {name}") for name, value in _of_file(source).items()]
    errors: list[str] = []
    given += list(_of_words(rest, errors, has_file=source is not None))
    values: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value, place in given:
        _take(name, value, place, values, ignored, errors, allow_extra=allow_extra)
    if source is not None and any(place.startswith(f"{source}:") for place in errors if "not a flag" in place):
        errors.append("A file for training has keys that a server does not know: ALLOW_EXTRA_ARGS=1 leaves them out")
    if not errors and not values.get("model_name_or_path"):
        errors.append("--model_name_or_path is missing: the folder of the model, or its name on the hub")
    if errors:
        raise BadArguments(*errors)
    return Arguments(values, source, tuple(dict.fromkeys(ignored)))


def _take(
    name: str,
    value: Any,
    place: str,
    values: dict[str, Any],
    ignored: list[str],
    errors: list[str],
    *,
    allow_extra: bool,
) -> None:
    head, _, member = name.partition(".")
    flag = FLAGS.get(head)
    if flag is None and allow_extra:
        ignored.append(name)
    elif flag is None:
        near = nearest(head)
        hint = f"nearest: {', '.join(f'--{each}' for each in near)}" if near else "--help lists them"
        errors.append(f"{place}: is not a flag of LLaMA-Factory's server ({hint})")
    elif member and flag.sort == "json":
        before = values.get(head)
        values[head] = {**(before if isinstance(before, dict) else {}), member: value}
    elif value is None:
        values.pop(head, None)
    else:
        try:
            values[head] = _value(flag, value)
        except ValueError as exc:
            errors.append(f"{place}: {exc}")


def _of_words(words: Sequence[str], errors: list[str], *, has_file: bool) -> Iterator[tuple[str, Any, str]]:
    """Each flag on a command line with its value, as (name, value, what an error calls it)."""
    queue = list(words)
    while queue:
        word = queue.pop(0)
        key, has_value, text = word.partition("=")
        if has_file and not key.startswith("-") and has_value:
            yield key, _yaml(text), key
            continue
        if not key.startswith("--"):
            advice = "key=value or --flag" if has_file else "--flag value, or a YAML or JSON file as the first argument"
            errors.append(f"'{word}': is not expected here: {advice}")
            continue
        name = key[2:].replace("-", "_")
        sort = FLAGS[name].sort if name in FLAGS else None
        if name not in FLAGS and name.startswith("no_") and _is_switch(name[3:]) and not has_value:
            yield name[3:], False, key
        elif has_value:
            yield name, text, key
        elif queue and _is_value(queue[0]):
            yield name, queue.pop(0), key
        elif sort == "switch":
            yield name, True, key
        elif sort is None:
            yield name, "", key
        else:
            errors.append(f"{key}: needs a value")


def _is_switch(name: str) -> bool:
    return name in FLAGS and FLAGS[name].sort == "switch"


def _is_value(word: str) -> bool:
    return not word.startswith("-") or word == "-" or _NUMBER.match(word) is not None or " " in word


def _of_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise BadArguments(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise BadArguments(f"{path}: is not UTF-8 text (byte {exc.start})") from exc
    try:
        tree = json.loads(text) if path.suffix == ".json" else YAML(typ="safe", pure=True).load(io.StringIO(text))
    except (ValueError, YAMLError, RecursionError) as exc:
        raise BadArguments(f"{path}: cannot be read: {str(exc).splitlines()[0]}") from exc
    if not isinstance(tree, dict):
        raise BadArguments(f"{path}: is not a mapping (key: value)")
    return {str(name): value for name, value in tree.items()}


def _yaml(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(io.StringIO(text)) if text else ""
    except YAMLError:
        return text


def _value(flag: Flag, value: Any) -> Any:
    """The value as its flag wants it; ValueError with a sentence."""
    match flag.sort:
        case "switch":
            return _switch(value)
        case "whole":
            number = _number(value)
            if number != int(number):
                raise ValueError(f"'{value}' is not a whole number")
            return int(number)
        case "number":
            return float(_number(value))
        case "json":
            return _object(value)
        case "text":
            if isinstance(value, dict | list) and flag.unused is None:
                raise ValueError(f"'{value}' is not a text")
            text = str(value)
            if flag.choices and text not in flag.choices:
                raise ValueError(f"'{text}' is not allowed here (known: {', '.join(flag.choices)})")
            return text


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise ValueError(f"'{value}' is neither true nor false")


def _number(value: Any) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except ValueError:
            pass
        else:
            if number - number == 0:  # neither infinite nor NaN
                return number
    raise ValueError(f"'{value}' is not a number")


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as exc:
            raise ValueError(f"is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return {str(name): item for name, item in value.items()}
