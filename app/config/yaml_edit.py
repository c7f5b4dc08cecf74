"""Adds, replaces and removes entries in the text of a configuration file and keeps every other byte.

Pure, except `read` and `write`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from app.config.yaml_document import ConfigError, dotted, parse

EntryPath: TypeAlias = Sequence[str | int]
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


def set_entry(text: str, path: EntryPath, entry: Any) -> str:
    """The text with `entry` at this path of keys (`backends`, `gpu`, `adapters`, `law`): in the place of what is there,
    else added with what it lies in. A number stands for a place in a list (`keys`, 2, `rpm`).

    ConfigError, with the line to write by hand, when the file is written in a way that this cannot edit.
    """
    value = json.loads(json.dumps(entry))
    wanted = _with(_parsed(text), path, value)
    line = f"{scalar(path[-1])}: {scalar(value)}"
    with contextlib.suppress(ConfigError):
        after = _set(text, path, value)
        if _parsed(after) == wanted:
            return after
    where = dotted(tuple(path[:-1]))
    raise ConfigError(
        [f"{where}: this file cannot be edited automatically; write this under {where} yourself:  {line}"]
    )


def remove_entry(text: str, path: EntryPath) -> str:
    """The text without the entry at this path of keys, or at this place of a list; unchanged where there is none. What
    held nothing else is left empty. ConfigError when the file is written in a way that this cannot edit.
    """
    before = _parsed(text)
    holder, last = _tree_at(before, path[:-1]), path[-1]
    left: Any
    if isinstance(holder, dict) and last in holder:
        left = {key: value for key, value in holder.items() if key != last}
    elif isinstance(holder, list) and isinstance(last, int) and last < len(holder):
        left = [item for index, item in enumerate(holder) if index != last]
    else:
        return text
    with contextlib.suppress(ConfigError):
        after = _remove(text, path)
        if _parsed(after) in (_with(before, path[:-1], left), _with(before, path[:-1], left or None)):
            return after
    place = dotted(tuple(path))
    raise ConfigError([f"{place}: this file cannot be edited automatically; remove this entry yourself"])


def _tree_at(tree: Any, path: EntryPath) -> Any:
    for key in path:
        if isinstance(key, int):
            tree = tree[key] if isinstance(tree, list) and key < len(tree) else None
        else:
            tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _with(tree: Any, path: EntryPath, value: Any) -> Any:
    if not path:
        return value
    if isinstance(path[0], int):
        items = tree if isinstance(tree, list) else []
        return [_with(item, path[1:], value) if at == path[0] else item for at, item in enumerate(items)]
    known = tree if isinstance(tree, dict) else {}
    return {**known, path[0]: _with(known.get(path[0]), path[1:], value)}


def _pair_at(text: str, path: EntryPath) -> tuple[list[tuple[Node, Node]], int] | None:
    """The pairs of the mapping that the last key of the path is in, and which of them it is; None: it is not there."""
    holder = _node_at(text, path[:-1])
    if not isinstance(holder, MappingNode):
        return None
    at = _index_of(holder, path[-1])
    return None if at is None else (holder.value, at)


def _node_at(text: str, path: EntryPath) -> Node | None:
    """What stands at this path; None where there is nothing."""
    node = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    for key in path:
        if isinstance(key, int):
            if not isinstance(node, SequenceNode) or key >= len(node.value):
                return None
            node = node.value[key]
        else:
            at = _index_of(node, key) if isinstance(node, MappingNode) else None
            if at is None:
                return None
            node = node.value[at][1]
    return node  # type: ignore[no-any-return]


def _index_of(holder: MappingNode, name: str | int) -> int | None:
    at = next((index for index, (key, _) in enumerate(holder.value) if key.value == name), None)
    if at is not None and holder.value[at][1].start_mark.index < holder.value[at][0].end_mark.index:
        raise ConfigError(["an alias stands there, which means something written elsewhere"])
    return at


def _set(text: str, path: EntryPath, value: Any) -> str:
    if text and not text.endswith("\n"):
        text += "\r\n" if "\r\n" in text else "\n"
    place = _pair_at(text, path)
    if place is not None:
        pairs, at = place
        key, old = pairs[at]
        end = key.end_mark.index if old.start_mark.index == old.end_mark.index else _end(text, old)
        return f"{text[: key.start_mark.index]}{scalar(path[-1])}: {scalar(value)}{_rest(text, key, end)}"
    if len(path) == 2:
        return _insert(text, str(path[0]), f"{scalar(path[1])}: {scalar(value)}")
    node = _node_at(text, path[:-1])
    if node is None:
        return _set(text, path[:-1], {path[-1]: value})
    line = f"{scalar(path[-1])}: {scalar(value)}"
    if isinstance(node, CollectionNode) and node.flow_style:
        return _into_braces(text, node, line)
    if isinstance(node, CollectionNode) and node.value:
        newline = "\r\n" if "\r\n" in text else "\n"
        return _after(text, _end(text, node), " " * node.start_mark.column + line + newline)
    return _set(text, path[:-1], {path[-1]: value})


def _rest(text: str, key: Node, end: int) -> str:
    """What follows an entry. An empty value has no place of its own: its `:` stands behind the key."""
    rest = text[end:]
    return rest.lstrip(" ").removeprefix(":") if end == key.end_mark.index else rest


def _remove(text: str, path: EntryPath) -> str:
    holder, last = _node_at(text, path[:-1]), path[-1]
    if isinstance(holder, SequenceNode) and isinstance(last, int):
        item = holder.value[last]
        starts = [each.start_mark.index for each in holder.value]
        return _cut(text, holder, starts, last, _end(text, item))
    place = _pair_at(text, path)
    if place is None:
        return text
    pairs, at = place
    key, value = pairs[at]
    end = _end(text, value)
    if value.start_mark.index == value.end_mark.index:
        end = text.index(":", key.end_mark.index) + 1
    return _cut(text, holder, [name.start_mark.index for name, _ in pairs], at, end)


def _cut(text: str, holder: Node | None, starts: Sequence[int], at: int, end: int) -> str:
    """The text without the entry of `holder` that begins at `starts[at]` and ends at `end`."""
    start = starts[at]
    if isinstance(holder, CollectionNode) and holder.flow_style:
        if at + 1 < len(starts):
            return text[:start] + text[starts[at + 1] :]
        before = text[:start].rstrip().removesuffix(",") if at else text[:start]
        return before + text[end:].removeprefix(",")
    begin = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    return text[:begin] + (text[line_end + 1 :] if line_end >= 0 else "")


def _into_braces(text: str, node: CollectionNode, line: str) -> str:
    end = node.end_mark.index - 1
    before = text[:end].rstrip() if node.value else text[:end]
    comma = ", " if node.value and not before.endswith(",") else " " if node.value else ""
    return before + comma + line.removeprefix("- ") + text[end:]


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
        return _into_braces(text, value, line)
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


def check_writable(path: Path) -> None:
    """ConfigError where `write` could not replace or make the file."""
    target = path.resolve()
    if target.is_dir():
        raise ConfigError([f"{path}: is a folder, not a file"])
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
            pass
    except OSError as exc:
        raise ConfigError([f"{path}: cannot be written: {exc.strerror}"]) from exc


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
