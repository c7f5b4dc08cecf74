"""Adds one entry to the text of a configuration file and keeps every other byte. Pure, except `read` and `write`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from app.config.yaml_document import ConfigError, parse

_Kind = TypeVar("_Kind", list[Any], dict[str, Any])
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_YAML_KEYWORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def scalar(value: object) -> str:
    """The value as YAML on one line: text in quotes unless it is a plain word."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_KEYWORDS:
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(scalar(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def add_entry(text: str, section: str, name: str | None, entry: Mapping[str, Any]) -> str:
    """The text with `name: entry` added at the end of a section (`- entry` where `name` is None).

    ConfigError, with the line to write by hand, when the file is written in a way that this cannot edit.
    """
    line = f"- {scalar(entry)}" if name is None else f"{scalar(name)}: {scalar(entry)}"
    before = _parsed(text)
    added = json.loads(json.dumps(entry))
    if name is None:
        wanted = {**before, section: [*_items(before.get(section), list), added]}
    else:
        wanted = {**before, section: {**_items(before.get(section), dict), name: added}}
    after = _insert(text, section, line)
    with contextlib.suppress(ConfigError):
        if _parsed(after) == wanted:
            return after
    raise ConfigError(
        [f"{section}: this file cannot be edited automatically; add this line under {section} yourself:  {line}"]
    )


def _parsed(text: str) -> dict[str, Any]:
    return parse(text, {}, is_lenient=True).tree


def _items(value: Any, kind: type[_Kind]) -> _Kind:
    return value if isinstance(value, kind) else kind()


def _insert(text: str, section: str, line: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += newline
    root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    if root is not None and (not isinstance(root, MappingNode) or root.flow_style):
        raise ConfigError(
            [f"the file is not a mapping in block style; add this line under {section} yourself:  {line}"]
        )
    pairs = root.value if root is not None else []
    pair = next(((key, value) for key, value in pairs if key.value == section), None)
    if pair is None:
        return f"{text}{section}:{newline}  {line}{newline}"
    key, value = pair
    if isinstance(value, CollectionNode) and value.flow_style:
        end = value.end_mark.index - 1
        before = text[:end].rstrip() if value.value else text[:end]
        comma = ", " if value.value and not before.endswith(",") else " " if value.value else ""
        return before + comma + line.removeprefix("- ") + text[end:]
    if isinstance(value, CollectionNode) and value.value:
        return _after(text, _end(text, value), " " * value.start_mark.column + line + newline)
    return _after(text, key.end_mark.index, "  " + line + newline)


def _end(text: str, node: Node) -> int:
    """The index where the last value in a node ends. A block's own end mark is behind the comments that follow it."""
    while isinstance(node, CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        key, node = last if isinstance(last, tuple) else (None, last)
        if key is not None and node.start_mark.index == node.end_mark.index:
            return int(key.end_mark.index)  # an empty value: its mark is where the next node begins
    end = int(node.end_mark.index)
    return len(text[:end].rstrip()) if isinstance(node, ScalarNode) and node.style in ("|", ">") else end


def _after(text: str, index: int, line: str) -> str:
    """The text with a line inserted after the one that holds this index."""
    end = text.find("\n", index) + 1
    return text[:end] + line + text[end:]


def read(path: Path) -> str:
    """The file's text, "" when there is no file. ConfigError when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from exc
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be read: {exc.strerror}"]) from exc


def write(path: Path, text: str) -> None:
    """Replace the file in one step: it holds either the old text or the new one, with the old permissions.

    ConfigError when it cannot be written; the old text stays.
    """
    target = path.resolve()
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be written: {exc.strerror}"]) from exc
